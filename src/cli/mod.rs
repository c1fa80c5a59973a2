//! The command line: from what was typed to what is printed.
//!
//! - [`args`]: what can be typed
//! - [`definition`]: definition files: check, test, diagram, schema
//! - [`saga`]: single sagas and orders on a server
//! - [`bulk`]: stock, points and coupons from a file
//! - [`admin`]: dead letters, discrepancies, jobs, tokens, books
//! - [`store`]: the database of a system of many processes; [`broker`]: the brokers it goes with; [`check`]: one word for a monitor
//! - [`client`], [`output`], [`failure`]: calls, printing, exit codes

pub(crate) mod args;
pub(crate) mod client;
pub(crate) mod failure;
pub(crate) mod output;
mod admin;
mod broker;
mod bulk;
pub(crate) mod check;
mod definition;
mod saga;
mod store;
mod view;

use crate::config::Config;
use args::{BenchCommand, Cli, Command, ConfigCommand, CouponsCommand, PointsCommand, StockCommand};
use clap::CommandFactory;
use client::Client;
use failure::Failure;
use output::Output;

/// Does what was typed.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let output = Output::new(cli.global.output);
    let client = || Client::new(&cli.global);
    match cli.command {
        Command::Dev(args) => crate::dev::run(args, &args::Role::ALL, false).await,
        Command::Serve(args) if args.roles.is_empty() => crate::dev::run(args.place, &args::Role::ALL, true).await,
        Command::Serve(args) => crate::dev::run(args.place, &args.roles, true).await,
        Command::Demo(args) => crate::demo::run(args, output).await,
        Command::Chaos(args) => crate::chaos::run(args, output).await,
        Command::Provider(args) => crate::provider::run(args).await,
        Command::Saga(command) => saga::run(command, output, client).await,
        Command::Order(command) => saga::run_order(command, output, &client()?).await,
        Command::Deadletters(command) => admin::dead_letters(command, output, &client()?).await,
        Command::Discrepancy(command) => admin::discrepancies(command, output, &client()?).await,
        Command::View(command) => view::run(command, output, &client()?).await,
        Command::Job(command) => admin::jobs(command, output, &client()?).await,
        Command::Stock(StockCommand::Open(args)) => bulk::send("stock", "open", &args, output, &client()?).await,
        Command::Stock(StockCommand::Adjust(args)) => bulk::send("stock", "adjust", &args, output, &client()?).await,
        Command::Points(PointsCommand::Adjust(args)) => bulk::send("points", "adjust", &args, output, &client()?).await,
        Command::Coupons(CouponsCommand::Open(args)) => bulk::send("coupon", "open", &args, output, &client()?).await,
        Command::Coupons(CouponsCommand::Void(args)) => bulk::send("coupon", "void", &args, output, &client()?).await,
        Command::Token(command) => admin::tokens(command, output, &client()?).await,
        Command::Books => admin::books(output, &client()?).await,
        Command::Bench(BenchCommand::Saga(options)) => {
            let report = crate::bench::saga(&options).await?;
            let value = serde_json::to_value(&report).map_err(anyhow::Error::from)?;
            output.print(&value, |_| format!("{report}\n"))
        }
        Command::Bench(BenchCommand::Drain(options)) => {
            let report = crate::bench::drain(&options).await?;
            let value = serde_json::to_value(&report).map_err(anyhow::Error::from)?;
            output.print(&value, |_| format!("{report}\n"))
        }
        Command::Bench(BenchCommand::Limit(options)) => {
            let report = crate::bench::limit(&options).await?;
            let value = serde_json::to_value(&report).map_err(anyhow::Error::from)?;
            output.print(&value, |_| format!("{report}\n"))
        }
        Command::Participant(crate::verify::ParticipantCommand::Verify(args)) => {
            crate::verify::run(&args, output).await
        }
        Command::Migrate { config } => store::migrate(config.as_deref(), output).await,
        Command::Doctor { config } => store::doctor(config.as_deref(), output).await,
        Command::Broker(command) => broker::run(command, output).await,
        Command::Check(args) => check::run(&args, output, client).await,
        Command::Config(command) => config(command, output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "endstate", &mut script);
            output.raw(&String::from_utf8_lossy(&script))
        }
    }
}

fn config(command: ConfigCommand, output: Output) -> Result<(), Failure> {
    match command {
        ConfigCommand::Default => output.raw(crate::config::DEFAULT),
        ConfigCommand::Show { config } => {
            let config = Config::load(config.as_deref(), std::env::vars())?;
            let value = serde_json::to_value(&config).map_err(anyhow::Error::from)?;
            output.print(&value, |_| toml::to_string(&config).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_tells_what_it_does() {
        fn walk(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
