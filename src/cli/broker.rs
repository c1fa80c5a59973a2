//! The brokers that a store goes with: `endstate broker ...`.

use super::failure::Failure;
use super::output::Output;
use crate::config::Config;
use clap::Subcommand;
use endstate_outbox::{KafkaBus, PostgresStore};
use serde_json::json;
use std::path::PathBuf;

/// Help of an adoption.
const ADOPT: &str = "\
Examples:
  endstate broker adopt 4L6g3nShT-eMCtK--X86sw --config shop.toml
  endstate broker adopt 4L6g3nShT-eMCtK--X86sw --from-the-beginning

A store keeps the cluster id of the brokers it was used with first, and refuses others (E4067): behind a wrong address its
shards would read another system's topics. When brokers were replaced on purpose, name the new ones' cluster id here;
`endstate doctor` shows it. Positions stay as they are, and each shard looks whether the record in front of it is the one
it has read. Brokers that begin with empty or copied topics have others: stop all processes, and let every shard read from
the beginning; what it has read before counts once.";

#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// Let the store go with brokers of another cluster than before
    #[command(after_help = ADOPT)]
    Adopt {
        /// Their cluster's id; it must be that of kafka.brokers.
        cluster: String,
        /// Every shard reads their topics from the beginning; only while no process uses the store.
        #[arg(long)]
        from_the_beginning: bool,
        /// Configuration file.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// `endstate broker ...`.
pub(super) async fn run(command: BrokerCommand, output: Output) -> Result<(), Failure> {
    let BrokerCommand::Adopt { cluster, from_the_beginning, config } = command;
    let config = Config::load(config.as_deref(), std::env::vars())?;
    let settings = super::store::settings(&config)?;
    if config.kafka.brokers.is_empty() {
        return Err(Failure::usage("kafka.brokers is empty").hint("set it to the brokers that the store is to go with"));
    }
    let told = |error: &dyn std::fmt::Display| Failure::no(error.to_string());
    let kafka = crate::ground::kafka(&config, settings.partitions)?;
    let found = KafkaBus::cluster(&kafka).await.map_err(|error| told(&error))?;
    if found != cluster {
        return Err(Failure::no(format!("the brokers of kafka.brokers are of cluster `{found}`, not `{cluster}`")));
    }
    let store = PostgresStore::watch(&settings).await.map_err(|error| told(&error))?;
    let beginnings = match from_the_beginning {
        true => Some(KafkaBus::beginnings(&kafka).await.map_err(|error| told(&error))?),
        false => None,
    };
    let before = store.adopt(&cluster, beginnings.as_deref()).await.map_err(|error| told(&error))?;
    let value = json!({ "before": before, "cluster": cluster, "from_the_beginning": from_the_beginning });
    output.print(&value, |_| {
        let before = before.as_deref().unwrap_or("none");
        let positions = if from_the_beginning { "every shard reads from the beginning" } else { "positions stay" };
        format!("the store goes with cluster {cluster} (before: {before}); {positions}\n")
    })
}
