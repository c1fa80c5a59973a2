//! What can be typed: commands, arguments, and the help with its examples.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit codes:
  0  done, and all is well
  1  the answer is no: a definition has errors, a case failed, books do not balance, the server refused
  2  the command line, a file or the configuration is wrong; nothing was done
  3  the server cannot be reached

Data goes to standard output, everything else to standard error.";

/// An event-sourced saga orchestrator: every order reaches a final state, and the books add up when it does.
#[derive(Debug, Parser)]
#[command(
    name = "endstate",
    version,
    after_help = EXIT_CODES,
    after_long_help = format!("Start here:\n  endstate demo          a whole sale against a worker that keeps being killed\n  endstate dev           everything in one process, for developing\n\n{EXIT_CODES}"),
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// How answers are printed.
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    pub(crate) output: Format,
    /// Address of the server to talk to.
    #[arg(long, global = true, env = "ENDSTATE_SERVER", default_value = "http://127.0.0.1:7600", value_name = "URL")]
    pub(crate) server: String,
    /// File with the bearer token to call with.
    #[arg(long, global = true, env = "ENDSTATE_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file with authorities to trust beside this machine's, for a server behind https:// with a certificate of one's own.
    #[arg(long, global = true, env = "ENDSTATE_TLS_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON value, for programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in this process: engine, participants, API, simulated payment provider, on one SQLite file
    #[command(
        after_help = "Examples:\n  endstate dev\n  endstate dev --listen 127.0.0.1:0 --data /tmp/shop\n  endstate dev --config shop.toml"
    )]
    Dev(DevArgs),
    /// Run roles of a system of many processes, on PostgreSQL and Kafka
    #[command(
        after_help = "Examples:\n  endstate serve --config shop.toml\n  endstate serve --roles gateway --listen 0.0.0.0:7600\n  endstate serve --roles orchestrator,participants,sweeper\n\nWithout store.url and kafka.brokers it is one process on the embedded store, as endstate dev."
    )]
    Serve(ServeArgs),
    /// Run a whole sale over HTTP against a worker that is killed again and again, and compare the books
    #[command(
        after_help = "Examples:\n  endstate demo\n  endstate demo --kills 10 --seed 7\n  endstate demo --sale my-sale.ndjson --keep /tmp/sale -o json\n  endstate demo --generate 12 > my-sale.ndjson"
    )]
    Demo(DemoArgs),
    /// Hurt a system of many processes on real servers under load, and look whether its books balance afterwards
    Chaos(crate::chaos::ChaosArgs),
    /// Run the simulated payment provider as a process of its own
    #[command(
        after_help = "Example:\n  ENDSTATE_PAYMENT_SECRET=s3cret endstate provider --listen 127.0.0.1:7700 --file provider.ndjson"
    )]
    Provider(ProviderArgs),
    /// Participants: whether one keeps what every participant promises
    #[command(subcommand)]
    Participant(crate::verify::ParticipantCommand),
    /// Work on definitions, and on single sagas
    #[command(subcommand)]
    Saga(SagaCommand),
    /// Work on orders: sagas of the definition flash_sale_order
    #[command(subcommand)]
    Order(OrderCommand),
    /// Messages that could not be processed
    #[command(subcommand)]
    Deadletters(DeadlettersCommand),
    /// Books that differ: list them, and close those that a person has settled
    #[command(subcommand)]
    Discrepancy(DiscrepancyCommand),
    /// Scheduled jobs: what they are, what their runs did, and running one now
    #[command(subcommand)]
    Job(JobCommand),
    /// What lists are read from: writing it anew
    #[command(subcommand)]
    View(super::view::ViewCommand),
    /// Open or adjust stock in bulk
    #[command(subcommand)]
    Stock(StockCommand),
    /// Give or take points in bulk
    #[command(subcommand)]
    Points(PointsCommand),
    /// Open or void coupons in bulk
    #[command(subcommand)]
    Coupons(CouponsCommand),
    /// Tokens that may call the API
    #[command(subcommand)]
    Token(TokenCommand),
    /// The ledger: what was opened, is held, used and left, per asset
    #[command(after_help = "Example:\n  endstate books -o json")]
    Books,
    /// Measure
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Settings in force, or the commented default file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Apply the migrations that the PostgreSQL of `store.url` lacks; makes the database when it is not there
    #[command(after_help = "Example:\n  ENDSTATE_STORE_URL=postgres://shop:secret@db:5432/shop endstate migrate")]
    Migrate {
        /// Configuration file.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Say whether PostgreSQL, Kafka and a configured Redis are fit to be trusted: settings, migrations, clocks, copies; changes nothing
    #[command(after_help = super::store::DOCTOR)]
    Doctor {
        /// Configuration file.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// The brokers that the store goes with
    #[command(subcommand)]
    Broker(super::broker::BrokerCommand),
    /// One word for a monitor: what is parked, stuck, late, put aside or different, against bounds
    #[command(after_help = super::check::HELP)]
    Check(Box<super::check::CheckArgs>),
    /// Completions for a shell
    #[command(after_help = "Example:\n  endstate completions bash > /etc/bash_completion.d/endstate")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Sagas over the whole way: an HTTP call, bus, shard transaction, participants, and back
    Saga(crate::bench::SagaBench),
    /// The same records and rows with no logic, and what the engine reaches of that
    Limit(crate::bench::LimitBench),
    /// Sagas that were started while no participant ran: how long until all are final once they do, and what memory
    Drain(crate::bench::DrainBench),
}

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the API listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// Folder of the store.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// File to write the API's address to, once it answers.
    #[arg(long, value_name = "FILE")]
    pub(crate) address_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) place: DevArgs,
    /// What this process does; everything without it. Each role may run in any number of processes.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLES")]
    pub(crate) roles: Vec<Role>,
}

/// What a process of the system does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Takes calls and callbacks.
    Gateway,
    /// Decides sagas, and keeps their view.
    Orchestrator,
    /// The built-in participants, and calls to outside parties.
    Participants,
    /// Scheduled jobs.
    Sweeper,
}

impl Role {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Gateway, Self::Orchestrator, Self::Participants, Self::Sweeper];

    /// The spelling on the command line and in labels.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Orchestrator => "orchestrator",
            Self::Participants => "participants",
            Self::Sweeper => "sweeper",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Sale file to run; without it, the one that comes with the program. docs/sale-file.md has the format.
    #[arg(long, value_name = "FILE")]
    pub(crate) sale: Option<PathBuf>,
    /// How often the worker is killed with SIGKILL.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) kills: u32,
    /// Seed of what is duplicated, shuffled and killed when.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Run the worker in the engine's fused mode.
    #[arg(long)]
    pub(crate) fused: bool,
    /// Keep store, provider's file, journal and logs in this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Make a sale file from a seed, print it, and stop.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["sale", "keep"])]
    pub(crate) generate: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct ProviderArgs {
    /// Where it listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7700", value_name = "ADDRESS")]
    pub(crate) listen: std::net::SocketAddr,
    /// Where buyers reach it, if not where it listens: what its pay links begin with.
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Where its callbacks go.
    #[arg(long, default_value = "http://127.0.0.1:7600/v1/callbacks/simpay", value_name = "URL")]
    pub(crate) callback_url: String,
    /// Its own record of what it took and gave back.
    #[arg(long, default_value = "provider.ndjson", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Secret that both sides sign with.
    #[arg(long, env = "ENDSTATE_PAYMENT_SECRET", hide_env_values = true, value_name = "TEXT")]
    pub(crate) secret: String,
    /// Delivers each callback a random number of times, from 1 to this.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(crate) deliveries: u8,
    /// Each delivery waits a random time up to this, so that callbacks arrive out of order.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub(crate) delay_ms: u64,
    /// It answers every call that much later.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub(crate) latency_ms: u64,
    /// Seed of its chances.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SagaCommand {
    /// Check a definition: load it, run its samples, explore every interleaving
    #[command(after_help = "Example:\n  endstate saga check orchestrator/sagas/flash_sale_order.yaml")]
    Check {
        #[command(flatten)]
        file: DefinitionFile,
    },
    /// Run a definition's cases
    #[command(after_help = "Example:\n  endstate saga test orchestrator/sagas/flash_sale_order.yaml")]
    Test {
        #[command(flatten)]
        file: DefinitionFile,
    },
    /// Draw a definition
    #[command(
        after_help = "Examples:\n  endstate saga diagram order.yaml > order.mmd\n  endstate saga diagram order.yaml --svg > order.svg"
    )]
    Diagram {
        #[command(flatten)]
        file: DefinitionFile,
        /// A picture instead of Mermaid text.
        #[arg(long)]
        svg: bool,
    },
    /// Print the JSON Schema of definitions or of catalogues, for editors
    Schema {
        /// Which schema.
        #[arg(value_enum, default_value = "definition")]
        what: SchemaOf,
    },
    /// Send a definition to the server; new sagas start with it once it is activated
    #[command(after_help = "Example:\n  endstate saga load order.yaml --activate")]
    Load {
        /// The definition.
        file: PathBuf,
        /// Activate it at once.
        #[arg(long)]
        activate: bool,
    },
    /// Let new sagas start with a version
    #[command(after_help = "Example:\n  endstate saga activate flash_sale_order 2")]
    Activate {
        /// Name of the definition.
        definition: String,
        /// Version to activate.
        version: u32,
    },
    /// Go back to the version that was active before
    #[command(after_help = "Example:\n  endstate saga rollback flash_sale_order")]
    Rollback {
        /// Name of the definition.
        definition: String,
    },
    /// Start a saga
    #[command(after_help = "Example:\n  endstate saga start bench_saga --input input.json --wait 5")]
    Start {
        /// Name of the definition.
        definition: String,
        /// File with its input; `-` reads standard input.
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// Seconds to wait for its end.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u32>,
    },
    /// Show a saga
    #[command(after_help = "Example:\n  endstate saga get refund_payment simpay/P-17")]
    Get(SagaName),
    /// List sagas
    #[command(
        after_help = "Examples:\n  endstate saga list --phase parked\n  endstate saga list --definition flash_sale_order --status awaiting_payment --limit 20"
    )]
    List {
        /// Only this definition.
        #[arg(long)]
        definition: Option<String>,
        #[command(flatten)]
        filter: ListArgs,
    },
    /// Show what happened to a saga, event by event
    Timeline(SagaName),
    /// Cancel a saga, for one of the reasons its definition declares
    #[command(after_help = "Example:\n  endstate saga cancel flash_sale_order FS1 --reason user")]
    Cancel(SagaAct),
    /// Send again what is parked or silent
    Retry(SagaAct),
    /// Give back before the pivot, reverse after it
    Compensate(SagaAct),
    /// Name the end of a saga that cannot reach one; what stays unsettled becomes a discrepancy
    #[command(
        after_help = "Example:\n  endstate saga force flash_sale_order FS1 --end cancelled --reason \"provider confirmed by phone, ticket 812\""
    )]
    Force {
        #[command(flatten)]
        act: SagaAct,
        /// Which end.
        #[arg(long, value_enum)]
        end: End,
    },
    /// Wake everything that is parked on one step
    #[command(after_help = "Example:\n  endstate saga wake flash_sale_order refund --reason \"provider is back\"")]
    Wake {
        /// Name of the definition.
        definition: String,
        /// Name of the step.
        step: String,
        /// Why; stays in each saga's timeline.
        #[arg(long)]
        reason: String,
    },
}

/// The ends an operator may name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum End {
    Completed,
    Cancelled,
}

/// The schemas for editors.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SchemaOf {
    Definition,
    Catalogue,
}

#[derive(Debug, Args)]
pub(crate) struct DefinitionFile {
    /// The definition. Schemas, samples, cases and catalogue are looked for beside it.
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct SagaName {
    /// Name of the definition.
    pub(crate) definition: String,
    /// Business number of the saga.
    pub(crate) number: String,
}

#[derive(Debug, Args)]
pub(crate) struct SagaAct {
    #[command(flatten)]
    pub(crate) saga: SagaName,
    /// Why; stays in the saga's timeline. For a cancel, one of the definition's reasons.
    #[arg(long)]
    pub(crate) reason: String,
    /// Seconds to wait for the saga's decision and for where it comes to rest; without it, only for the decision.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait: Option<u32>,
}

/// Filters of a list.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only sagas with this customer-visible status.
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// Only sagas in this phase: running, waiting, compensating, reversing, parked, ended.
    #[arg(long)]
    pub(crate) phase: Option<String>,
    /// Only sagas of this owner.
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// How many.
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u32,
    /// Where the page before ended.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrderCommand {
    /// Show an order, with its linked sagas
    #[command(after_help = "Example:\n  endstate order get FS1")]
    Get { number: String },
    /// List orders
    #[command(after_help = "Example:\n  endstate order list --status paid --owner u1")]
    List(ListArgs),
    /// Show what happened to an order, event by event
    Timeline { number: String },
    /// Cancel an order
    #[command(after_help = "Example:\n  endstate order cancel FS1 --reason user")]
    Cancel(OrderAct),
    /// Send again what is parked or silent
    Retry(OrderAct),
    /// Give back before payment, refund after it
    Compensate(OrderAct),
    /// Name the end of an order that cannot reach one
    Force {
        #[command(flatten)]
        act: OrderAct,
        /// Which end.
        #[arg(long, value_enum)]
        end: End,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OrderAct {
    /// Number of the order.
    pub(crate) number: String,
    /// Why; for a cancel: user, risk or short_stock.
    #[arg(long)]
    pub(crate) reason: String,
    /// Seconds to wait for the saga's decision and for where it comes to rest; without it, only for the decision.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadlettersCommand {
    /// List them, with the reason of each, and who sent which again
    List {
        /// How many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Process one again
    #[command(after_help = "Example:\n  endstate deadletters replay 17 --reason \"fixed in 1.2\"")]
    Replay {
        /// Its id.
        id: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DiscrepancyCommand {
    /// List them, the oldest first; open ones unless asked otherwise
    List {
        /// `open`, `explained`, `fixed` or `all`.
        #[arg(long, default_value = "open")]
        state: String,
        /// How many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Where the list before this one ended.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Close one: the books are right as they are, or were put right by hand
    #[command(
        after_help = "Example:\n  endstate discrepancy close 17 --as fixed --reason \"refunded by hand, ticket 4711\""
    )]
    Close {
        /// Its id.
        id: String,
        /// `explained` or `fixed`.
        #[arg(long = "as", value_name = "STATE")]
        state: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// List the jobs, each with its schedule and its last run
    List,
    /// Run a job now and show what it found and changed
    #[command(after_help = "Example:\n  endstate job run sweep --dry-run")]
    Run {
        /// Name of the job.
        job: String,
        /// Only look, and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Why; stays in the run's record.
        #[arg(long, default_value = "by hand")]
        reason: String,
    },
    /// List the last runs of a job
    Runs {
        /// Name of the job.
        job: String,
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: u32,
        /// Where the page before ended.
        #[arg(long)]
        cursor: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum StockCommand {
    /// Open units, or add to them; lines: {"unit":"SKU-1","quantity":100,"standby":false}
    #[command(after_help = "Example:\n  endstate stock open stock.ndjson --operation opening-2026-11-22")]
    Open(BulkArgs),
    /// Add to units, or take from them; lines: {"unit":"SKU-1","delta":-3}
    Adjust(BulkArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PointsCommand {
    /// Give points, or take them; lines: {"user":"u1","delta":100}
    #[command(after_help = "Example:\n  endstate points adjust points.ndjson --operation birthday-2026-11-22")]
    Adjust(BulkArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CouponsCommand {
    /// Open coupons; lines: {"coupon":"CP1","user":"u1"}
    #[command(after_help = "Example:\n  endstate coupons open coupons.ndjson --operation autumn-coupons")]
    Open(BulkArgs),
    /// Void coupons that nobody holds or has used; lines: {"coupon":"CP1","user":"u1"}
    Void(BulkArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BulkArgs {
    /// File with one JSON object a line; `-` reads standard input.
    pub(crate) file: PathBuf,
    /// Id under which the operation is logged; sent again, it changes nothing.
    #[arg(long, value_name = "ID")]
    pub(crate) operation: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it; it is shown only once
    #[command(
        after_help = "Example:\n  endstate token create --subject shop-backend --scope orders:write --expires-days 90 > shop.token"
    )]
    Create {
        /// Who calls with it; a customer's token reads only that customer's orders.
        #[arg(long)]
        subject: String,
        /// What it may do; repeat for several.
        #[arg(long = "scope", required = true)]
        scopes: Vec<String>,
        /// Days until it expires.
        #[arg(long, default_value_t = 90)]
        expires_days: u32,
    },
    /// List tokens, without their secrets
    List,
    /// End a token
    Revoke {
        /// Its id.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the settings in force, secrets redacted
    Show {
        /// Configuration file.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the commented default file
    #[command(after_help = "Example:\n  endstate config default > endstate.toml")]
    Default,
}
