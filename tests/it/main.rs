//! The program from outside: its API, and as a process what it prints, how it ends, and what it survives.

mod api;
mod command_line;
mod kill;
mod prepare;
mod program;
mod scrape;
mod starting;
mod stopping;
mod tutorial;
