//! `endstate demo`: a whole sale over HTTP against a worker that is killed again and again, and the books afterwards.

pub(crate) mod generate;
mod names;
mod process;
pub(crate) mod sale;
mod shop;

use crate::cli::args::DemoArgs;
use crate::cli::failure::Failure;
use crate::cli::output::Output;

/// The sale that comes with the program.
pub(crate) const SHIPPED_SALE: &str = include_str!("../../demo/sale.ndjson");

/// The seed it was made from.
#[cfg(test)]
pub(crate) const SHIPPED_SEED: u64 = 11;

pub(crate) async fn run(args: DemoArgs, output: Output) -> Result<(), Failure> {
    if let Some(seed) = args.generate {
        return output.raw(&generate::generate(seed));
    }
    Ok(())
}
