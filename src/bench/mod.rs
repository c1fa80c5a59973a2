//! `endstate bench saga`: the whole way of `bench_saga`, from an HTTP call to its end, every hop committed before the
//! next, measured from outside.
//!
//! - [`load`]: the clients
//! - [`meter`]: CPU time and flushes
//! - [`ceiling`]: the same rows with no logic, by turns with the load

mod ceiling;
mod load;
mod meter;

use crate::config::Mode;
use crate::node::Node;
use anyhow::{Context as _, ensure};
use ceiling::Ceiling;
use endstate_http::Tokens;
use endstate_http::auth::Identity;
use endstate_http::guard::{Drain, Limits};
use endstate_orchestrator::http;
use endstate_outbox::sqlite::Made;
use endstate_outbox::{Kind, Rows, Statement, Value};
use load::{Clients, Plan, Seen};
use meter::Reading;
use serde::Serialize;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Turns that the load and the ceiling take.
const SLICES: u32 = 5;

/// How long either runs at the beginning of its turn before it is measured.
const SETTLE: Duration = Duration::from_millis(200);

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  endstate bench saga\n  endstate bench saga --clients 1 --seconds 5\n  \
                        endstate bench saga --rate 1000 --fail 0 -o json")]
pub(crate) struct SagaBench {
    /// Clients; each waits for its saga's end before it starts the next.
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// Sagas per second over all clients, begun on time whatever the answers do (open loop).
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds measured, after a warm-up of a fifth of them.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Run until this many sagas are stored, and compare the cost of the first and the last tenth of them.
    #[arg(long, conflicts_with = "seconds")]
    sagas: Option<u64>,
    /// Per cent of the sagas that a participant refuses.
    #[arg(long, default_value_t = 10)]
    fail: u64,
    /// The step at which it refuses.
    #[arg(long, default_value = "deduct")]
    fail_at: String,
    /// Folder for the stores; a temporary one when absent.
    #[arg(long)]
    data: Option<PathBuf>,
    /// One transaction takes a saga through all its steps, instead of one per hop.
    #[arg(long)]
    fused: bool,
    /// Partitions of the store; 4 when absent.
    #[arg(long)]
    partitions: Option<NonZeroU16>,
    /// Leave out the ceiling, which else takes turns with the load. There is none with --rate or --sagas.
    #[arg(long)]
    no_ceiling: bool,
}

/// The result, one JSON object with `-o json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Whether a saga's hops shared a transaction.
    fused: bool,
    partitions: u16,
    sagas_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    cpu_ms_per_saga: f64,
    client_cpu_ms_per_saga: f64,
    rows_per_saga: f64,
    commits_per_saga: f64,
    fsyncs_per_saga: Option<f64>,
    ceiling_sagas_per_s: Option<f64>,
    ceiling_ratio: Option<f64>,
    books_balanced: bool,
    sagas: u64,
    completed: u64,
    cancelled: u64,
    clients: usize,
    synchronous: &'static str,
    /// With `--sagas`: what each tenth of them cost, to see whether cost grows with what is stored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tenths: Vec<Tenth>,
}

/// A tenth of the sagas that `--sagas` asked for.
#[derive(Clone, Copy, Debug, Serialize)]
struct Tenth {
    /// Sagas stored at its end.
    stored: u64,
    sagas_per_s: f64,
    cpu_ms_per_saga: f64,
}

static OPEN: Statement = Statement {
    name: "bench.open",
    columns: &[Kind::Text],
    sql: "with r(phase) as ({rows}) select count(*), cast(coalesce(sum(case when s.phase = r.phase then 1 else 0 end), 0) as bigint) from saga s, r",
};

/// Runs it and returns the report.
pub(crate) async fn saga(options: &SagaBench) -> anyhow::Result<Report> {
    ensure!(options.clients > 0, "at least one client is needed");
    ensure!(options.fail <= 100, "--fail is a percentage");
    let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
    let data = options.data.clone().unwrap_or_else(|| temporary.path().to_owned());
    let made = Made { partitions: options.partitions, ..Made::default() };
    let mode = if options.fused { Mode::Fused } else { Mode::HopByHop };
    let node = Node::open(&data.join("store"), &made, mode).await?;
    let store = node.embedded().context("the benchmark runs on the embedded store")?;
    let synchronous = store.synchronous().await?;
    ensure!(synchronous == 2, "the store runs with synchronous={synchronous}, not FULL (2)");
    node.start(4096, endstate_participants::handler::Settings::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let server = listener.local_addr()?;
    let drain = Drain::default();
    let tokens = Arc::new(Tokens::load(node.store.clone()).await?);
    let routes = crate::serve::sagas(&node, &tokens, &drain, Arc::new(String::new)).await?;
    let identity = Identity { tokens, clock: node.clock.clone() };
    let limits = Limits { calls: options.clients + 64, ..Limits::default() };
    let service = http::serve(routes, identity, limits).into_make_service_with_connect_info::<SocketAddr>();
    let serving = tokio::spawn(axum::serve(listener, service).into_future());

    let plan = Plan {
        server,
        clients: options.clients,
        rate: options.rate,
        fail_percent: options.fail,
        fail_at: options.fail_at.clone(),
        run: std::process::id().to_string(),
    };
    let clients = Clients::start(&plan)?;
    let measured = Bench { options, node: &node, data: &data, clients: &clients, mode }.measure().await?;
    let seen = clients.finish().await?;
    for wrong in seen.wrong.iter().take(5) {
        eprintln!("wrong: {wrong}");
    }
    let books_balanced = books(&node, &seen).await?;
    serving.abort();
    let partitions = node.store.partitions();
    node.stop().await;
    Ok(report((options, partitions), &measured, &seen, books_balanced))
}

/// What is measured, and with what.
struct Bench<'a> {
    options: &'a SagaBench,
    node: &'a Node,
    data: &'a Path,
    clients: &'a Clients,
    mode: Mode,
}

#[derive(Default)]
struct Measured {
    sagas: u64,
    time: Duration,
    cost: Reading,
    rows: u64,
    commits: u64,
    tenths: Vec<Tenth>,
    /// Sagas per second.
    ceiling: Option<f64>,
}

impl Bench<'_> {
    async fn measure(&self) -> anyhow::Result<Measured> {
        let Self { options, clients, .. } = self;
        let answered = || clients.answered.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs_f64((options.seconds as f64 / 5.0).clamp(1.0, 5.0))).await;
        let mut measured = Measured::default();
        let Some(goal) = options.sagas else {
            let time = Duration::from_secs(options.seconds);
            match options.no_ceiling || options.rate.is_some() {
                true => self.stretch(&mut measured, tokio::time::sleep(time)).await,
                false => self.slices(&mut measured, time).await?,
            }
            return Ok(measured);
        };
        let mut tenths = Vec::new();
        let all = async {
            for goal in (1..=10).map(|part| goal * part / 10) {
                // The warm-up may have passed the first ones already.
                if answered() < goal {
                    tenths.push(tenth(self.data, &answered, goal).await);
                }
            }
        };
        self.stretch(&mut measured, all).await;
        Ok(Measured { tenths, ..measured })
    }

    /// Real load and the ceiling by turns.
    async fn slices(&self, measured: &mut Measured, time: Duration) -> anyhow::Result<()> {
        let (clients, load) = (self.clients, (self.options.clients, self.options.fail));
        let ceiling = Ceiling::open(&*self.node.store, &self.data.join("ceiling"), self.mode, load).await?;
        let (slice, mut rates) = (time / SLICES, 0.0);
        for _ in 0..SLICES {
            clients.resume();
            tokio::time::sleep(SETTLE).await;
            self.stretch(measured, tokio::time::sleep(slice)).await;
            clients.pause().await;
            rates += ceiling.slice(SETTLE, slice).await?;
        }
        ceiling.stop().await;
        measured.ceiling = Some(rates / f64::from(SLICES));
        Ok(())
    }

    /// Adds what happens during `work`.
    async fn stretch(&self, measured: &mut Measured, work: impl Future<Output = ()>) {
        let Self { node, data, clients, .. } = self;
        let answered = || clients.answered.load(Ordering::Relaxed);
        clients.measuring.store(true, Ordering::Relaxed);
        let (first, begin, cost) = (answered(), Instant::now(), Reading::now(data));
        let (rows, commits) = written(node);
        work.await;
        measured.sagas += answered() - first;
        measured.time += begin.elapsed();
        measured.cost = measured.cost.plus(Reading::now(data).since(cost));
        let (rows_after, commits_after) = written(node);
        measured.rows += rows_after - rows;
        measured.commits += commits_after - commits;
        clients.measuring.store(false, Ordering::Relaxed);
    }
}

/// Rows and commits of the embedded store.
fn written(node: &Node) -> (u64, u64) {
    node.embedded().map(|store| store.written()).unwrap_or_default()
}

/// Waits until `goal` sagas are stored, says on stderr how far it is, and returns what they cost.
async fn tenth(data: &Path, answered: &impl Fn() -> u64, goal: u64) -> Tenth {
    let (from, begin, cost) = (answered(), Instant::now(), Reading::now(data));
    while answered() < goal {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stored = answered();
    let sagas = stored.saturating_sub(from).max(1) as f64;
    let sagas_per_s = sagas / begin.elapsed().as_secs_f64();
    let cpu_ms_per_saga = server_ms(Reading::now(data).since(cost)) / sagas;
    eprintln!("{stored:>9} sagas stored: {sagas_per_s:.0} a second, {cpu_ms_per_saga:.3} CPU-ms each");
    Tenth { stored, sagas_per_s, cpu_ms_per_saga }
}

fn server_ms(cost: Reading) -> f64 {
    cost.process_ms - cost.clients_ms
}

/// Two records must agree: what the clients were told, and the rows.
async fn books(node: &Node, seen: &Seen) -> anyhow::Result<bool> {
    let rows = node.store.read(&OPEN, Rows::one(["ended".into()])).await?;
    let Some([Value::Int(all), Value::Int(ended)]) = rows.first().map(Vec::as_slice) else {
        anyhow::bail!("the sagas cannot be counted");
    };
    let told = seen.completed + seen.cancelled;
    Ok(seen.wrong.is_empty() && all == ended && u64::try_from(*all).ok() == Some(told))
}

fn report((options, partitions): (&SagaBench, u16), m: &Measured, seen: &Seen, books_balanced: bool) -> Report {
    let sagas = m.sagas.max(1) as f64;
    let sagas_per_s = m.sagas as f64 / m.time.as_secs_f64();
    let quantile = |q| seen.micros.value_at_quantile(q) as f64 / 1000.0;
    Report {
        fused: options.fused,
        partitions,
        sagas_per_s,
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        p999_ms: quantile(0.999),
        cpu_ms_per_saga: server_ms(m.cost) / sagas,
        client_cpu_ms_per_saga: m.cost.clients_ms / sagas,
        rows_per_saga: m.rows as f64 / sagas,
        commits_per_saga: m.commits as f64 / sagas,
        fsyncs_per_saga: m.cost.flushes.map(|flushes| flushes as f64 / sagas),
        ceiling_sagas_per_s: m.ceiling,
        ceiling_ratio: m.ceiling.map(|ceiling| sagas_per_s / ceiling),
        books_balanced,
        sagas: m.sagas,
        completed: seen.completed,
        cancelled: seen.cancelled,
        clients: options.clients,
        synchronous: "FULL",
        tenths: m.tenths.clone(),
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let optional = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let mode = if self.fused { "fused" } else { "hop by hop" };
        let (clients, partitions, synchronous) = (self.clients, self.partitions, self.synchronous);
        writeln!(f, "bench_saga, {mode}, {clients} clients, {partitions} partitions, synchronous={synchronous}")?;
        writeln!(f, "  sagas per second     {:>10.0}", self.sagas_per_s)?;
        writeln!(f, "  p50 / p99 / p99.9    {:.2} / {:.2} / {:.2} ms", self.p50_ms, self.p99_ms, self.p999_ms)?;
        writeln!(
            f,
            "  CPU per saga         {:>10.3} ms (clients: {:.3})",
            self.cpu_ms_per_saga, self.client_cpu_ms_per_saga
        )?;
        writeln!(f, "  rows per saga        {:>10.2}", self.rows_per_saga)?;
        writeln!(f, "  commits per saga     {:>10.3}", self.commits_per_saga)?;
        writeln!(f, "  fsyncs per saga      {:>10}", optional(self.fsyncs_per_saga))?;
        writeln!(
            f,
            "  ceiling              {:>10} sagas/s, ratio {}",
            optional(self.ceiling_sagas_per_s),
            optional(self.ceiling_ratio)
        )?;
        if let [first, .., last] = self.tenths.as_slice() {
            writeln!(
                f,
                "  CPU per saga, first and last tenth  {:.3} / {:.3} ms",
                first.cpu_ms_per_saga, last.cpu_ms_per_saga
            )?;
        }
        let books = if self.books_balanced { "balanced" } else { "NOT BALANCED" };
        write!(f, "  {} sagas: {} completed, {} cancelled, books {books}", self.sagas, self.completed, self.cancelled)
    }
}
