//! `endstate bench`: whole sagas, from an HTTP call to their end, every hop committed before the next, measured from
//! outside; and the same records and rows with no logic.
//!
//! - [`system`]: what is measured, on a store of its own
//! - [`load`]: the clients; [`order`]: orders as load, with what they need
//! - [`meter`], [`processes`]: CPU time, of services too, and flushes
//! - [`ceiling`]: the same rows and records with no logic, by turns with the load
//! - [`drain`]: sagas that waited for their participants
//! - [`report`]: what was found

mod ceiling;
mod drain;
mod load;
mod meter;
mod order;
mod processes;
mod report;
mod system;

pub(crate) use drain::{DrainBench, drain};
pub(crate) use report::{LimitReport, Report};

use crate::node::Node;
use anyhow::{Context as _, ensure};
use ceiling::Ceiling;
use endstate_outbox::{Kind, Rows, Statement, Value};
use load::{Clients, Plan, Seen};
use meter::Meter;
use report::{Measured, Tenth};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use system::{Plot, System};
use tokio_util::sync::CancellationToken;

/// Turns that the load and the ceiling take.
const SLICES: u32 = 5;

/// How long either runs at the beginning of its turn before it is measured.
const SETTLE: Duration = Duration::from_millis(200);

/// What a run stands on, and how many use it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// What it runs on: `embedded`, or `kafka,postgres` as `endstate serve` finds them (store.url, kafka.brokers).
    #[arg(long, value_enum, value_delimiter = ',', default_value = "embedded", value_name = "PARTS")]
    stack: Vec<Part>,
    /// Configuration file that names them.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which saga; orders have real participants and a payment.
    #[arg(long, value_enum, default_value = "bench_saga")]
    saga: Saga,
    /// Clients; each waits for its saga's end before it starts the next.
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// Seconds measured, after a warm-up of a fifth of them.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Per cent of the sagas that a participant refuses.
    #[arg(long, default_value_t = 10)]
    fail: u64,
    /// The step of bench_saga at which it refuses.
    #[arg(long, default_value = "deduct")]
    fail_at: String,
    /// Folder for the stores; a temporary one when absent.
    #[arg(long)]
    data: Option<PathBuf>,
    /// One transaction takes a saga through all its steps, instead of one per hop.
    #[arg(long)]
    fused: bool,
    /// Partitions of the store; 4 when absent, 16 on kafka,postgres.
    #[arg(long)]
    partitions: Option<NonZeroU16>,
}

/// A part of what a run stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Part {
    /// One process, one file.
    Embedded,
    /// The bus of many processes.
    Kafka,
    /// The store of many processes.
    Postgres,
}

/// What a run stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stack {
    Embedded,
    Shared,
}

/// Which saga is the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Saga {
    /// Four steps in a row on participants that do nothing.
    BenchSaga,
    /// An order: stock and points are held, a payment is opened and made, all is booked.
    FlashSaleOrder,
}

impl Saga {
    fn name(self) -> &'static str {
        match self {
            Self::BenchSaga => "bench_saga",
            Self::FlashSaleOrder => "flash_sale_order",
        }
    }

    /// Where one is started.
    fn path(self) -> &'static str {
        match self {
            Self::BenchSaga => "/v1/sagas/bench_saga",
            Self::FlashSaleOrder => "/v1/orders",
        }
    }
}

impl Options {
    fn stack(&self) -> anyhow::Result<Stack> {
        let mut parts = self.stack.clone();
        parts.sort_unstable();
        match parts.as_slice() {
            [Part::Embedded] => Ok(Stack::Embedded),
            [Part::Kafka, Part::Postgres] => Ok(Stack::Shared),
            _ => anyhow::bail!("--stack is `embedded` or `kafka,postgres`"),
        }
    }

    fn is_shared(&self) -> bool {
        self.stack().is_ok_and(|stack| stack == Stack::Shared)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.clients > 0, "at least one client is needed");
        ensure!(self.fail <= 100, "--fail is a percentage");
        self.stack().map(|_| ())
    }
}

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  endstate bench saga\n  endstate bench saga --clients 1 --seconds 5\n  \
                  endstate bench saga --rate 1000 --fail 0 -o json\n  \
                  ENDSTATE_STORE_URL=postgres://me:secret@localhost/shop ENDSTATE_KAFKA_BROKERS=localhost:9092 \\\n    \
                  endstate bench saga --stack kafka,postgres --saga flash_sale_order")]
pub(crate) struct SagaBench {
    #[command(flatten)]
    options: Options,
    /// Sagas per second over all clients, begun on time whatever the answers do (open loop).
    #[arg(long)]
    rate: Option<f64>,
    /// Run until this many sagas are stored, and compare the cost of the first and the last tenth of them.
    #[arg(long, conflicts_with = "seconds")]
    sagas: Option<u64>,
    /// Leave out the ceiling, which else takes turns with the load. There is none with --rate, --sagas or orders.
    #[arg(long)]
    no_ceiling: bool,
}

/// How much a run without logic is compared with.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  endstate bench limit\n  endstate bench limit --stack kafka,postgres -o json")]
pub(crate) struct LimitBench {
    #[command(flatten)]
    options: Options,
}

static OPEN: Statement = Statement {
    name: "bench.open",
    columns: &[Kind::Text],
    sql: "with r(phase) as ({rows}) select count(*), cast(coalesce(sum(case when s.phase = r.phase then 1 else 0 end), 0) as bigint) from saga s, r",
};

/// Runs it and returns the report.
pub(crate) async fn saga(bench: &SagaBench) -> anyhow::Result<Report> {
    let run = run(bench).await?;
    Ok(Report::new((bench, run.partitions), (&run.load, run.ceiling.as_ref()), &run.seen, run.books_balanced))
}

/// Runs the same beside the load and returns the report about it.
pub(crate) async fn limit(bench: &LimitBench) -> anyhow::Result<LimitReport> {
    let options = bench.options.clone();
    ensure!(options.saga == Saga::BenchSaga, "the limit is that of bench_saga");
    let run = run(&SagaBench { options, rate: None, sagas: None, no_ceiling: false }).await?;
    ensure!(run.books_balanced, "the sagas beside it did not end as they should");
    let limit = run.ceiling.context("the limit was not measured")?;
    Ok(LimitReport::new(&bench.options, run.partitions, &run.load, &limit))
}

/// What a run found.
struct Run {
    partitions: u16,
    load: Measured,
    ceiling: Option<Measured>,
    seen: Seen,
    books_balanced: bool,
}

async fn run(bench: &SagaBench) -> anyhow::Result<Run> {
    let options = &bench.options;
    options.check()?;
    let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
    let data = options.data.clone().unwrap_or_else(|| temporary.path().to_owned());
    let mut plot = Plot::new(options, "load", &data.join("store"))?;
    let listener = endstate_http::listen(([127, 0, 0, 1], 0).into())?;
    let (outside, closing) = (load::Outside::new()?, CancellationToken::new());
    if options.saga == Saga::FlashSaleOrder {
        let url = order::provider(&outside, listener.local_addr()?, &data, closing.clone())?;
        plot.pay_at(&url, order::SECRET)?;
    }
    let system = System::start(options, &plot, listener).await;
    let done = match system {
        Ok(system) => Bench { bench, system, plot: &plot, data: &data }.run(outside).await,
        Err(error) => Err(error),
    };
    closing.cancel();
    let cleared = plot.clear().await;
    let done = done?;
    cleared?;
    Ok(done)
}

/// What is measured, and with what.
struct Bench<'a> {
    bench: &'a SagaBench,
    system: System,
    plot: &'a Plot,
    data: &'a Path,
}

impl Bench<'_> {
    async fn run(self, outside: load::Outside) -> anyhow::Result<Run> {
        let options = &self.bench.options;
        if options.saga == Saga::FlashSaleOrder {
            order::open(&self.system.node, self.system.server).await?;
        }
        let plan = Plan {
            server: self.system.server,
            saga: options.saga,
            clients: options.clients,
            rate: self.bench.rate,
            fail_percent: options.fail,
            fail_at: options.fail_at.clone(),
            run: std::process::id().to_string(),
        };
        let clients = Clients::start(outside, &plan);
        let meter = self.plot.meter(self.data);
        let (load, ceiling) = self.measure(&clients, &meter).await?;
        let seen = clients.finish().await?;
        for wrong in seen.wrong.iter().take(5) {
            eprintln!("wrong: {wrong}");
        }
        let mut books_balanced = balanced(&self.system.node, &seen).await?;
        if options.saga == Saga::FlashSaleOrder {
            books_balanced &= order::balanced(&self.system.node, &seen, self.data).await?;
        }
        let partitions = self.system.node.store.partitions();
        self.system.stop().await;
        Ok(Run { partitions, load, ceiling, seen, books_balanced })
    }

    async fn measure(&self, clients: &Clients, meter: &Meter) -> anyhow::Result<(Measured, Option<Measured>)> {
        let (bench, options) = (self.bench, &self.bench.options);
        let answered = || clients.answered.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs_f64((options.seconds as f64 / 5.0).clamp(1.0, 5.0))).await;
        let mut measured = Measured::default();
        let mut ceiling = None;
        if let Some(goal) = bench.sagas {
            let mut tenths = Vec::new();
            let all = async {
                for goal in (1..=10).map(|part| goal * part / 10) {
                    // The warm-up may have passed the first ones already.
                    if answered() < goal {
                        tenths.push(tenth(meter, &answered, goal).await);
                    }
                }
            };
            self.stretch(clients, meter, &mut measured, all).await;
            measured.tenths = tenths;
        } else {
            let time = Duration::from_secs(options.seconds);
            match bench.no_ceiling || bench.rate.is_some() || options.saga == Saga::FlashSaleOrder {
                true => self.stretch(clients, meter, &mut measured, tokio::time::sleep(time)).await,
                false => ceiling = Some(self.slices(clients, meter, &mut measured, time).await?),
            }
        }
        measured.records_per_batch = self.system.records_per_batch();
        Ok((measured, ceiling))
    }

    /// Real load and the ceiling by turns; returns what the ceiling made.
    async fn slices(
        &self,
        clients: &Clients,
        meter: &Meter,
        measured: &mut Measured,
        time: Duration,
    ) -> anyhow::Result<Measured> {
        let options = &self.bench.options;
        let plot = Plot::new(options, "ceiling", &self.data.join("ceiling"))?;
        let load = (options.clients, options.fail);
        let ceiling =
            Ceiling::open(&*self.system.node.store, plot.ground().await?, system::mode(options), load).await?;
        let (slice, mut made) = (time / SLICES, Measured::default());
        for _ in 0..SLICES {
            clients.resume();
            tokio::time::sleep(SETTLE).await;
            self.stretch(clients, meter, measured, tokio::time::sleep(slice)).await;
            clients.pause().await;
            ceiling.slice(meter, &mut made, SETTLE, slice).await?;
        }
        ceiling.stop().await;
        plot.clear().await?;
        Ok(made)
    }

    /// Adds what happens during `work`.
    async fn stretch(&self, clients: &Clients, meter: &Meter, measured: &mut Measured, work: impl Future<Output = ()>) {
        let answered = || clients.answered.load(Ordering::Relaxed);
        let written = self.system.written().await;
        clients.measuring.store(true, Ordering::Relaxed);
        let (first, begin, cost) = (answered(), Instant::now(), meter.now());
        work.await;
        measured.sagas += answered() - first;
        measured.time += begin.elapsed();
        measured.cost = measured.cost.plus(meter.now().since(cost));
        clients.measuring.store(false, Ordering::Relaxed);
        measured.written = measured.written.plus(self.system.written().await.since(written));
    }
}

/// Waits until `goal` sagas are stored, says on stderr how far it is, and returns what they cost.
async fn tenth(meter: &Meter, answered: &impl Fn() -> u64, goal: u64) -> Tenth {
    let (from, begin, cost) = (answered(), Instant::now(), meter.now());
    while answered() < goal {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stored = answered();
    let sagas = stored.saturating_sub(from).max(1) as f64;
    let sagas_per_s = sagas / begin.elapsed().as_secs_f64();
    let cpu_ms_per_saga = meter.now().since(cost).system_ms() / sagas;
    eprintln!("{stored:>9} sagas stored: {sagas_per_s:.0} a second, {cpu_ms_per_saga:.3} CPU-ms each");
    Tenth { stored, sagas_per_s, cpu_ms_per_saga }
}

/// Two records must agree: what the clients were told, and the rows.
async fn balanced(node: &Node, seen: &Seen) -> anyhow::Result<bool> {
    Ok(balanced_rows(node, seen.completed + seen.cancelled).await? && seen.wrong.is_empty())
}

/// Whether there are so many sagas, and all have ended.
async fn balanced_rows(node: &Node, told: u64) -> anyhow::Result<bool> {
    let rows = node.store.read(&OPEN, Rows::one(["ended".into()])).await?;
    let Some([Value::Int(all), Value::Int(ended)]) = rows.first().map(Vec::as_slice) else {
        anyhow::bail!("the sagas cannot be counted");
    };
    let agree = all == ended && u64::try_from(*all).ok() == Some(told);
    if !agree {
        eprintln!("wrong: {told} ends were told; of {all} sagas {ended} have ended");
    }
    Ok(agree)
}
