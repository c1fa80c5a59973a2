//! The program as a process: what it prints, how it ends, and what it survives.

mod command_line;
mod program;
