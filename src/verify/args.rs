//! What can be typed to verify a participant.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum ParticipantCommand {
    /// Tell a participant commands as sagas do, each twice, at once, refused, undone and undone first, and check its answers
    #[command(
        after_help = "Examples:\n  endstate participant verify stock\n  endstate participant verify gift_wrap --catalogue catalogue/gift_wrap.yaml --at http://127.0.0.1:7800\n  endstate participant verify gift_wrap --catalogue catalogue/gift_wrap.yaml --refuse 'wrap={\"paper\":\"none\"}'\n  ENDSTATE_KAFKA_BROKERS=127.0.0.1:9092 endstate participant verify gift_wrap --catalogue catalogue/gift_wrap.yaml\n\nIts effects are real: use a test system. Commands over HTTP are of the lane `test`. Payloads are made from the catalogue's\nschemas; `{n}` in one of yours becomes another number for each saga. Exit code 1 when a check fails; docs/participants.md\ntells the promises behind the checks."
    )]
    Verify(VerifyArgs),
}

#[derive(Debug, Default, Args)]
pub(crate) struct VerifyArgs {
    /// Its name in the catalogue.
    pub(crate) participant: String,
    /// Catalogue file that describes it, beside the built-in one. May be given again.
    #[arg(long, value_name = "FILE")]
    pub(crate) catalogue: Vec<PathBuf>,
    /// Only this action. May be given again; without it all, each with its undo.
    #[arg(long = "action", value_name = "ACTION")]
    pub(crate) actions: Vec<String>,
    /// Only this check. May be given again.
    #[arg(long = "check", value_name = "CHECK")]
    pub(crate) checks: Vec<String>,
    /// Payload that an action does.
    #[arg(long, value_name = "ACTION=JSON")]
    pub(crate) with: Vec<String>,
    /// Another payload, for the same id with another body.
    #[arg(long, value_name = "ACTION=JSON")]
    pub(crate) other: Vec<String>,
    /// Payload that an action refuses.
    #[arg(long, value_name = "ACTION=JSON")]
    pub(crate) refuse: Vec<String>,
    /// The action that another one is about, as a confirm is about a hold.
    #[arg(long, value_name = "ACTION=ACTION")]
    pub(crate) of: Vec<String>,
    /// Where it is instead: its address, or its topic.
    #[arg(long, value_name = "URL|TOPIC")]
    pub(crate) at: Option<String>,
    /// Seconds that a reply over Kafka may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) patience: u64,
    /// Configuration file: brokers, environment, certificates.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}
