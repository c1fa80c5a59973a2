//! What lists are read from: `endstate view ...`.

use super::client::Client;
use super::failure::Failure;
use super::output::{Output, cell, members};
use clap::Subcommand;
use serde_json::json;

/// Help of a rebuild.
const REBUILD: &str = "\
Examples:
  endstate view rebuild
  endstate view rebuild --reason \"OPS-1234: search attributes were wrong\" -o json
  endstate view rebuild --after '{\"sagas\":\"0199c1a2-7c00-8abc-9def-0123456789ab\"}'     go on where one was cut off

Every saga is drawn again, then rows and search attributes that belong to no saga go. Progress goes to standard error.
It may be run at any time, twice at once, and again.";

#[derive(Debug, Subcommand)]
pub(crate) enum ViewCommand {
    /// Write the view anew from the sagas; lists stay whole and everything goes on meanwhile
    #[command(after_help = REBUILD)]
    Rebuild {
        /// Where an earlier one that was cut off said it can go on.
        #[arg(long, value_name = "MARK")]
        after: Option<String>,
        /// Why; stays in the server's log.
        #[arg(long, default_value = "by hand")]
        reason: String,
    },
}

/// `endstate view ...`.
pub(super) async fn run(command: ViewCommand, output: Output, client: &Client) -> Result<(), Failure> {
    let ViewCommand::Rebuild { mut after, reason } = command;
    let mut all = [("drawn", 0), ("undrawn", 0), ("removed", 0)];
    let mut calls: u64 = 0;
    loop {
        let body = match &after {
            Some(after) => json!({ "reason": reason, "after": after }),
            None => json!({ "reason": reason }),
        };
        let made = client.post("/v1/view/rebuild", &body).await.map_err(|failure| match &after {
            Some(after) => failure.hint(format!("go on with: endstate view rebuild --after '{after}'")),
            None => failure,
        })?;
        for (name, count) in &mut all {
            *count += made[*name].as_u64().unwrap_or_default();
        }
        let Some(next) = made["next"].as_str() else { break };
        after = Some(next.to_owned());
        // A call takes about a second: one line of ten.
        if calls.is_multiple_of(10) {
            let [(_, drawn), (_, undrawn), (_, removed)] = all;
            let through = made["through"].as_str().map_or_else(String::new, |at| format!(", those begun until {at}"));
            let stage = cell(&made["stage"]);
            eprintln!("{stage}: {drawn} sagas drawn{through}; {undrawn} cannot be, {removed} stale rows removed");
        }
        calls += 1;
    }
    output.print(&all.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect(), members)
}
