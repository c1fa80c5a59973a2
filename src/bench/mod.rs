//! `endstate bench saga`: the whole way of `bench_saga`, from an HTTP call to its end, every hop committed before the
//! next, measured from outside.
//!
//! - [`load`]: the clients
//! - [`meter`]: CPU time and flushes
//! - [`ceiling`]: the same rows with no logic, in the same run

mod ceiling;
mod load;
mod meter;

use crate::node::Node;
use anyhow::{Context as _, ensure};
use endstate_events::Environment;
use endstate_http::Tokens;
use endstate_http::auth::Identity;
use endstate_http::guard::{Drain, Limits};
use endstate_orchestrator::http;
use endstate_outbox::{Kind, Rows, Statement, Store as _, Value};
use load::{Clients, Plan, Seen};
use meter::Reading;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

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
    /// Leave out the ceiling.
    #[arg(long)]
    no_ceiling: bool,
}

/// The result, one JSON object with `-o json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
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
    let node = Node::open(&data.join("store"), &Environment::default()).await?;
    let synchronous = node.store.synchronous().await?;
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
    let measured = measure(options, &node, &data, &clients).await?;
    let seen = clients.finish().await?;
    for wrong in seen.wrong.iter().take(5) {
        eprintln!("wrong: {wrong}");
    }
    let books_balanced = books(&node, &seen).await?;
    serving.abort();
    let ceiling = match options.no_ceiling {
        true => None,
        false => {
            let time = Duration::from_secs(options.seconds.min(10));
            Some(ceiling::run(&*node.store, &data.join("ceiling"), options.clients, time).await?)
        }
    };
    node.stop().await;
    Ok(report(options, &measured, &seen, ceiling, books_balanced))
}

struct Measured {
    sagas: u64,
    time: Duration,
    cost: Reading,
    rows: u64,
    commits: u64,
    tenths: Vec<Tenth>,
}

async fn measure(options: &SagaBench, node: &Node, data: &Path, clients: &Clients) -> anyhow::Result<Measured> {
    let answered = || clients.answered.load(Ordering::Relaxed);
    let warm_up = Duration::from_secs_f64((options.seconds as f64 / 5.0).clamp(1.0, 5.0));
    tokio::time::sleep(warm_up).await;
    clients.measuring.store(true, Ordering::Relaxed);
    let (first, begin, cost) = (answered(), Instant::now(), Reading::now(data));
    let (rows, commits) = node.store.written();
    let mut tenths = Vec::new();
    match options.sagas {
        None => tokio::time::sleep(Duration::from_secs(options.seconds)).await,
        Some(goal) => {
            for goal in (1..=10).map(|part| goal * part / 10) {
                // The warm-up may have passed the first ones already.
                if answered() < goal {
                    tenths.push(tenth(data, &answered, goal).await);
                }
            }
        }
    }
    let (sagas, time) = (answered() - first, begin.elapsed());
    let cost = Reading::now(data).since(cost);
    let (rows_after, commits_after) = node.store.written();
    Ok(Measured { sagas, time, cost, rows: rows_after - rows, commits: commits_after - commits, tenths })
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

fn report(options: &SagaBench, m: &Measured, seen: &Seen, ceiling: Option<f64>, books_balanced: bool) -> Report {
    let sagas = m.sagas.max(1) as f64;
    let sagas_per_s = m.sagas as f64 / m.time.as_secs_f64();
    let quantile = |q| seen.micros.value_at_quantile(q) as f64 / 1000.0;
    Report {
        sagas_per_s,
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        p999_ms: quantile(0.999),
        cpu_ms_per_saga: server_ms(m.cost) / sagas,
        client_cpu_ms_per_saga: m.cost.clients_ms / sagas,
        rows_per_saga: m.rows as f64 / sagas,
        commits_per_saga: m.commits as f64 / sagas,
        fsyncs_per_saga: m.cost.flushes.map(|flushes| flushes as f64 / sagas),
        ceiling_sagas_per_s: ceiling,
        ceiling_ratio: ceiling.map(|ceiling| sagas_per_s / ceiling),
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
        writeln!(f, "bench_saga, {} clients, synchronous={}", self.clients, self.synchronous)?;
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
