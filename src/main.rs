//! The program `endstate`: the only place that joins the orchestrator with the participants.

mod bench;
mod chaos;
mod cli;
mod config;
mod days;
mod demo;
mod dev;
mod ground;
mod node;
mod outside;
mod provider;
mod scrape;
mod serve;
mod signal;
mod starting;
mod verify;

use clap::Parser;
use std::process::ExitCode;

/// The system's allocator took a sixth of the time of a saga.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match cli::args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::check::refused(&error),
    };
    match Box::pin(cli::run(cli)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}
