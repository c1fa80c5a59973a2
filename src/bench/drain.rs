//! `endstate bench drain`: sagas are started while nobody runs their participants; then somebody does, and all of them
//! must come to their end. How long that takes, and what memory it takes meanwhile.

use super::meter::Meter;
use super::processes;
use super::report;
use super::system::Plot;
use super::{Options, Saga, balanced_rows};
use crate::cli::args::Role;
use crate::node::Node;
use anyhow::{Context as _, ensure};
use endstate_orchestrator::gateway::StartOptions;
use endstate_outbox::{Kind, Rows, Statement};
use endstate_participants::handler::Settings;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often memory is read, and whether all have ended.
const LOOK: Duration = Duration::from_millis(100);

/// How long all may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(900);

/// What to drain.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Example:\n  endstate bench drain --stack kafka,postgres --sagas 100000\n\nOnly kafka,postgres: the embedded store has all roles in one process."
)]
pub(crate) struct DrainBench {
    #[command(flatten)]
    options: Options,
    /// Sagas that wait for the participants.
    #[arg(long, default_value_t = 100_000)]
    sagas: u64,
}

/// The result, one JSON object with `-o json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DrainReport {
    stack: &'static str,
    partitions: u16,
    sagas: u64,
    /// Until all were started and waited.
    started_s: f64,
    /// From the participants' start until every saga was final.
    drained_s: f64,
    drained_per_s: f64,
    /// CPU time of all processes while it drained.
    cpu_ms_per_saga: f64,
    /// The most memory of each process, MB: before the sagas, while they waited, while they drained.
    before_mb: BTreeMap<&'static str, f64>,
    waiting_mb: BTreeMap<&'static str, f64>,
    draining_mb: BTreeMap<&'static str, f64>,
    books_balanced: bool,
}

static UNDER_WAY: Statement = Statement {
    name: "bench.under_way",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select count(*) from (select 1 from r join saga s on s.due is not null limit 1) o",
};

/// Runs it and returns the report.
pub(crate) async fn drain(bench: &DrainBench) -> anyhow::Result<DrainReport> {
    let options = &bench.options;
    options.check()?;
    ensure!(options.is_shared(), "bench drain needs --stack kafka,postgres");
    ensure!(options.saga == Saga::BenchSaga, "what is drained is bench_saga");
    let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
    let plot = Plot::new(options, "drain", temporary.path())?;
    let done = run(bench, &plot, &plot.meter(temporary.path())).await;
    let cleared = plot.clear().await;
    let done = done?;
    cleared?;
    Ok(done)
}

async fn run(bench: &DrainBench, plot: &Plot, meter: &Meter) -> anyhow::Result<DrainReport> {
    let mode = super::system::mode(&bench.options);
    let front = Node::on(plot.ground().await?, &[Role::Gateway, Role::Orchestrator], mode).await?;
    // Nothing is kept back: all of them wait in the shards, which is the most that they can hold.
    let in_motion = usize::try_from(bench.sagas).unwrap_or(usize::MAX);
    front.start(in_motion, Settings::default());
    let before_mb = memory(meter);
    let begin = Instant::now();
    let (_, waiting_mb) = watched(meter, start(&front, bench)).await;
    let started_s = begin.elapsed().as_secs_f64();

    let (begin, cost) = (Instant::now(), meter.now());
    let back = Node::on(plot.ground().await?, &[Role::Participants], mode).await?;
    back.start(in_motion, Settings::default());
    let (ended, draining_mb) = watched(meter, tokio::time::timeout(PATIENCE, all_ended(&front))).await;
    let drained_s = begin.elapsed().as_secs_f64();
    let cpu_ms = meter.now().since(cost).system_ms();
    ended.context("sagas are under way after a quarter of an hour")??;
    let books_balanced = balanced_rows(&front, bench.sagas).await?;
    let partitions = front.store.partitions();
    back.stop().await;
    front.stop().await;
    let sagas = bench.sagas;
    Ok(DrainReport {
        stack: "kafka,postgres",
        partitions,
        sagas,
        started_s,
        drained_s,
        drained_per_s: sagas as f64 / drained_s,
        cpu_ms_per_saga: cpu_ms / sagas as f64,
        before_mb,
        waiting_mb,
        draining_mb,
        books_balanced,
    })
}

/// Starts all of them through the gateway, some at a time; each answer says that its saga was made.
async fn start(front: &Node, bench: &DrainBench) {
    let next = Arc::new(AtomicU64::new(0));
    let starters = (0..bench.options.clients).map(|_| {
        let (gateway, next, sagas) = (front.gateway.clone(), next.clone(), bench.sagas);
        let fail = bench.options.fail;
        let fail_at = bench.options.fail_at.clone();
        tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= sagas {
                    return;
                }
                let fail_at = if n % 100 < fail { fail_at.as_str() } else { "" };
                let input = json!({ "number": format!("drain-{n:08}"), "fail_at": fail_at });
                // The same start again is the same saga.
                while gateway.start("bench_saga", input.clone(), StartOptions::default()).await.is_err() {
                    tokio::time::sleep(LOOK).await;
                }
            }
        })
    });
    futures_util::future::join_all(starters).await;
}

async fn all_ended(front: &Node) -> anyhow::Result<()> {
    loop {
        let rows = front.store.read(&UNDER_WAY, Rows::one([1.into()])).await?;
        if rows.first().and_then(|row| row[0].int()) == Some(0) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Does `work`, and returns the most memory of each process meanwhile.
async fn watched<T>(meter: &Meter, work: impl Future<Output = T>) -> (T, BTreeMap<&'static str, f64>) {
    let mut most = memory(meter);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return (done, most),
            () = tokio::time::sleep(LOOK) => {
                for (name, mb) in memory(meter) {
                    let known = most.entry(name).or_insert(mb);
                    *known = known.max(mb);
                }
            }
        }
    }
}

fn memory(meter: &Meter) -> BTreeMap<&'static str, f64> {
    let services = [("kafka", meter.kafka), ("postgres", meter.postgres)];
    let services = services.into_iter().filter_map(|(name, service)| Some((name, service?.resident_mb())));
    services.chain([("endstate", processes::own_resident_mb())]).collect()
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stack, sagas, partitions, started_s, drained_s, .. } = self;
        writeln!(
            f,
            "{sagas} sagas of bench_saga on {stack}, {partitions} partitions, started while no participant ran"
        )?;
        writeln!(f, "  started in   {started_s:>8.1} s")?;
        writeln!(
            f,
            "  all final    {drained_s:>8.1} s after the participants came, {:.0} a second",
            self.drained_per_s
        )?;
        writeln!(f, "  CPU per saga {:>8.3} ms while they drained", self.cpu_ms_per_saga)?;
        let memory = [("before", &self.before_mb), ("waiting", &self.waiting_mb), ("draining", &self.draining_mb)];
        for (when, mb) in memory {
            writeln!(f, "  MB at most, {when:<9} {}", report::processes(mb))?;
        }
        write!(f, "  books {}", if self.books_balanced { "balanced" } else { "NOT BALANCED" })
    }
}
