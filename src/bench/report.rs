//! What a run found, for people and as JSON.

use super::load::Seen;
use super::meter::Reading;
use super::system::{self, Written};
use super::{Options, SagaBench};
use crate::config::Mode;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// CPU-ms by process: `endstate`, `clients` (with the payment provider), `kafka`, `postgres`.
pub(crate) type ByProcess = BTreeMap<&'static str, f64>;

/// The load and the ceiling, measured over some time.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub(super) sagas: u64,
    pub(super) time: Duration,
    pub(super) cost: Reading,
    pub(super) written: Written,
    pub(super) tenths: Vec<Tenth>,
    pub(super) records_per_batch: Option<f64>,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.sagas as f64 / self.time.as_secs_f64()
    }

    fn per_saga(&self, amount: f64) -> f64 {
        amount / self.sagas.max(1) as f64
    }

    fn by_process(&self) -> ByProcess {
        let cost = self.cost;
        let own = [("endstate", Some(cost.process_ms - cost.clients_ms)), ("clients", Some(cost.clients_ms))];
        let services = [("kafka", cost.kafka_ms), ("postgres", cost.postgres_ms)];
        own.into_iter().chain(services).filter_map(|(name, ms)| Some((name, self.per_saga(ms?)))).collect()
    }
}

/// The result of `bench saga`, one JSON object with `-o json`. What a stack does not have is null.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    saga: &'static str,
    stack: &'static str,
    /// Whether a saga's hops shared a transaction.
    fused: bool,
    partitions: u16,
    sagas_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    /// Of all processes but the clients.
    cpu_ms_per_saga: f64,
    client_cpu_ms_per_saga: f64,
    cpu_ms_per_saga_by_process: ByProcess,
    rows_per_saga: f64,
    rows_per_commit: f64,
    commits_per_saga: f64,
    records_per_saga: Option<f64>,
    /// Records of a batch as the broker gets it.
    records_per_batch: Option<f64>,
    /// Flushes of the block device, everybody's.
    fsyncs_per_saga: Option<f64>,
    /// Flushes of PostgreSQL's log, and its bytes.
    wal_syncs_per_saga: Option<f64>,
    wal_bytes_per_saga: Option<f64>,
    ceiling_sagas_per_s: Option<f64>,
    ceiling_ratio: Option<f64>,
    ceiling_cpu_ms_per_saga: Option<f64>,
    books_balanced: bool,
    sagas: u64,
    completed: u64,
    cancelled: u64,
    clients: usize,
    /// The sagas per second that were asked for; none with a closed loop.
    rate: Option<f64>,
    /// SQLite's `synchronous`, or PostgreSQL's `synchronous_commit`.
    synchronous: &'static str,
    /// With `--sagas`: what each tenth of them cost, to see whether cost grows with what is stored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tenths: Vec<Tenth>,
}

/// A tenth of the sagas that `--sagas` asked for.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Tenth {
    /// Sagas stored at its end.
    pub(super) stored: u64,
    pub(super) sagas_per_s: f64,
    pub(super) cpu_ms_per_saga: f64,
}

impl Report {
    pub(super) fn new(
        (bench, partitions): (&SagaBench, u16),
        (load, ceiling): (&Measured, Option<&Measured>),
        seen: &Seen,
        books_balanced: bool,
    ) -> Self {
        let options = &bench.options;
        let (written, shared) = (load.written, options.is_shared());
        let only_shared = |value: u64| shared.then(|| load.per_saga(value as f64));
        let quantile = |q| seen.micros.value_at_quantile(q) as f64 / 1000.0;
        Self {
            saga: options.saga.name(),
            stack: if shared { "kafka,postgres" } else { "embedded" },
            fused: system::mode(options) == Mode::Fused,
            partitions,
            sagas_per_s: load.rate(),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            cpu_ms_per_saga: load.per_saga(load.cost.system_ms()),
            client_cpu_ms_per_saga: load.per_saga(load.cost.clients_ms),
            cpu_ms_per_saga_by_process: load.by_process(),
            rows_per_saga: load.per_saga(written.rows as f64),
            rows_per_commit: written.rows as f64 / written.commits.max(1) as f64,
            commits_per_saga: load.per_saga(written.commits as f64),
            records_per_saga: only_shared(written.records),
            records_per_batch: load.records_per_batch,
            fsyncs_per_saga: load.cost.flushes.map(|flushes| load.per_saga(flushes as f64)),
            wal_syncs_per_saga: only_shared(written.wal_syncs),
            wal_bytes_per_saga: only_shared(written.wal_bytes),
            ceiling_sagas_per_s: ceiling.map(Measured::rate),
            ceiling_ratio: ceiling.map(|ceiling| load.rate() / ceiling.rate()),
            ceiling_cpu_ms_per_saga: ceiling.map(|ceiling| ceiling.per_saga(ceiling.cost.system_ms())),
            books_balanced,
            sagas: load.sagas,
            completed: seen.completed,
            cancelled: seen.cancelled,
            clients: options.clients,
            rate: bench.rate,
            synchronous: if shared { "on" } else { "FULL" },
            tenths: load.tenths.clone(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.fused { "fused" } else { "hop by hop" };
        let load = self.rate.map_or("closed loop".to_owned(), |rate| format!("{rate} a second"));
        let Self { saga, stack, clients, partitions, synchronous, .. } = self;
        writeln!(
            f,
            "{saga} on {stack}, {mode}, {clients} clients, {load}, {partitions} partitions, synchronous={synchronous}"
        )?;
        let mut line = |name: &str, text: String| writeln!(f, "  {name:<20} {text}");
        line("sagas per second", format!("{:>10.0}", self.sagas_per_s))?;
        line("p50 / p99 / p99.9", format!("{:.2} / {:.2} / {:.2} ms", self.p50_ms, self.p99_ms, self.p999_ms))?;
        line(
            "CPU per saga",
            format!("{:>10.3} ms ({})", self.cpu_ms_per_saga, processes(&self.cpu_ms_per_saga_by_process)),
        )?;
        line("rows per saga", format!("{:>10.2}, {:.1} per commit", self.rows_per_saga, self.rows_per_commit))?;
        line("commits per saga", format!("{:>10.3}", self.commits_per_saga))?;
        line("fsyncs per saga", format!("{:>10}", optional(self.fsyncs_per_saga)))?;
        if self.records_per_saga.is_some() {
            let (records, batch) = (optional(self.records_per_saga), optional(self.records_per_batch));
            line("records per saga", format!("{records:>10}, {batch} per batch"))?;
            let (syncs, bytes) = (optional(self.wal_syncs_per_saga), self.wal_bytes_per_saga.unwrap_or(0.0));
            line("WAL per saga", format!("{bytes:>10.0} bytes, {syncs} flushes"))?;
        }
        let (rate, ratio) = (optional(self.ceiling_sagas_per_s), optional(self.ceiling_ratio));
        let cpu = optional(self.ceiling_cpu_ms_per_saga);
        line("ceiling", format!("{rate:>10} sagas/s at {cpu} CPU-ms, ratio {ratio}"))?;
        if let [first, .., last] = self.tenths.as_slice() {
            let (first, last) = (first.cpu_ms_per_saga, last.cpu_ms_per_saga);
            line("CPU per saga, first and last tenth", format!("{first:.3} / {last:.3} ms"))?;
        }
        let books = if self.books_balanced { "balanced" } else { "NOT BALANCED" };
        write!(f, "  {} sagas: {} completed, {} cancelled, books {books}", self.sagas, self.completed, self.cancelled)
    }
}

/// The result of `bench limit`, one JSON object with `-o json`: the same records and rows with no logic.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LimitReport {
    stack: &'static str,
    fused: bool,
    partitions: u16,
    sagas_per_s: f64,
    cpu_ms_per_saga: f64,
    cpu_ms_per_saga_by_process: ByProcess,
    rows_per_s: f64,
    records_per_s: f64,
    rows_per_saga: f64,
    rows_per_commit: f64,
    commits_per_saga: f64,
    records_per_saga: Option<f64>,
    records_per_batch: Option<f64>,
    fsyncs_per_saga: Option<f64>,
    wal_syncs_per_saga: Option<f64>,
    wal_bytes_per_saga: Option<f64>,
    /// What the engine made in the same run, and its share of the limit.
    engine_sagas_per_s: f64,
    engine_cpu_ms_per_saga: f64,
    engine_ratio: f64,
    clients: usize,
}

impl LimitReport {
    pub(super) fn new(options: &Options, partitions: u16, load: &Measured, limit: &Measured) -> Self {
        let (written, shared) = (limit.written, options.is_shared());
        let only_shared = |value: u64| shared.then(|| limit.per_saga(value as f64));
        let seconds = limit.time.as_secs_f64();
        Self {
            stack: if shared { "kafka,postgres" } else { "embedded" },
            fused: system::mode(options) == Mode::Fused,
            partitions,
            sagas_per_s: limit.rate(),
            cpu_ms_per_saga: limit.per_saga(limit.cost.system_ms()),
            cpu_ms_per_saga_by_process: limit.by_process(),
            rows_per_s: written.rows as f64 / seconds,
            records_per_s: written.records as f64 / seconds,
            rows_per_saga: limit.per_saga(written.rows as f64),
            rows_per_commit: written.rows as f64 / written.commits.max(1) as f64,
            commits_per_saga: limit.per_saga(written.commits as f64),
            records_per_saga: only_shared(written.records),
            records_per_batch: limit.records_per_batch,
            fsyncs_per_saga: limit.cost.flushes.map(|flushes| limit.per_saga(flushes as f64)),
            wal_syncs_per_saga: only_shared(written.wal_syncs),
            wal_bytes_per_saga: only_shared(written.wal_bytes),
            engine_sagas_per_s: load.rate(),
            engine_cpu_ms_per_saga: load.per_saga(load.cost.system_ms()),
            engine_ratio: load.rate() / limit.rate(),
            clients: options.clients,
        }
    }
}

impl fmt::Display for LimitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.fused { "fused" } else { "hop by hop" };
        let Self { stack, clients, partitions, .. } = self;
        writeln!(
            f,
            "records and rows of bench_saga with no logic on {stack}, {mode}, {clients} clients, {partitions} partitions"
        )?;
        let mut line = |name: &str, text: String| writeln!(f, "  {name:<20} {text}");
        line("sagas per second", format!("{:>10.0}", self.sagas_per_s))?;
        line(
            "CPU per saga",
            format!("{:>10.3} ms ({})", self.cpu_ms_per_saga, processes(&self.cpu_ms_per_saga_by_process)),
        )?;
        line(
            "rows per second",
            format!(
                "{:>10.0}, {:.2} per saga, {:.1} per commit",
                self.rows_per_s, self.rows_per_saga, self.rows_per_commit
            ),
        )?;
        line("commits per saga", format!("{:>10.3}", self.commits_per_saga))?;
        line("fsyncs per saga", format!("{:>10}", optional(self.fsyncs_per_saga)))?;
        if self.records_per_saga.is_some() {
            let (records, batch) = (optional(self.records_per_saga), optional(self.records_per_batch));
            line("records per second", format!("{:>10.0}, {records} per saga, {batch} per batch", self.records_per_s))?;
            let (syncs, bytes) = (optional(self.wal_syncs_per_saga), self.wal_bytes_per_saga.unwrap_or(0.0));
            line("WAL per saga", format!("{bytes:>10.0} bytes, {syncs} flushes"))?;
        }
        let (rate, cpu, ratio) = (self.engine_sagas_per_s, self.engine_cpu_ms_per_saga, self.engine_ratio);
        write!(f, "  engine, same run     {rate:>10.0} sagas/s at {cpu:.3} CPU-ms, ratio {ratio:.2}")
    }
}

pub(super) fn optional(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.2}"))
}

pub(super) fn processes(by_process: &ByProcess) -> String {
    let shown: Vec<String> = by_process.iter().map(|(name, ms)| format!("{name} {ms:.3}")).collect();
    shown.join(", ")
}
