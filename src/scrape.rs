//! `/metrics`: the recorder, made from the table of metrics, and what a process tells of itself when it is asked.

use crate::cli::args::Role;
use crate::node::Node;
use endstate_http::guard::Drain;
use endstate_outbox::Census;
use endstate_outbox::metric::{self, Kind, Metric};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// How often what was recorded is folded into buckets: without it, it would grow until somebody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// The kernel counts processor time in these, whatever its own clock does.
const TICKS_PER_SECOND: u64 = 100;

/// Begins to record. Every histogram has its buckets: summaries could not be added up over processes.
pub(crate) fn record(shared: bool) -> anyhow::Result<PrometheusHandle> {
    let mut builder = PrometheusBuilder::new();
    for metric in Metric::ALL {
        if let Kind::Histogram(buckets) = metric.row().kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name().to_owned()), buckets)?;
        }
    }
    let handle = builder.install_recorder()?;
    metric::begin(shared);
    endstate_saga::invariant::ALL.iter().for_each(|invariant| Metric::InvariantsBroken.add(0, &[invariant.id]));
    Metric::BuildInfo.set(1.0, &[env!("CARGO_PKG_VERSION")]);
    Ok(handle)
}

/// Keeps the recorder small, and returns what renders it.
pub(crate) fn serve(handle: PrometheusHandle, node: &Node, drain: &Drain) -> Arc<dyn Fn() -> String + Send + Sync> {
    for role in Role::ALL.iter().filter(|role| node.has(**role)) {
        Metric::Roles.set(1.0, &[role.label()]);
    }
    Metric::Partitions.set(f64::from(node.store.partitions()), &[]);
    let (upkeep, stop) = (handle.clone(), node.stop_token());
    node.tasks.spawn(async move {
        while stop.run_until_cancelled(tokio::time::sleep(UPKEEP)).await.is_some() {
            upkeep.run_upkeep();
        }
    });
    let (drain, shards) = (drain.clone(), node.shards.clone());
    Arc::new(move || {
        now(&drain, &shards);
        handle.render()
    })
}

/// What is true at the moment of asking.
fn now(drain: &Drain, shards: &Census) {
    let (assigned, expected) = shards.count();
    Metric::ShardsAssigned.set(assigned as f64, &[]);
    Metric::ShardsExpected.set(expected as f64, &[]);
    Metric::Draining.set(f64::from(u8::from(drain.started())), &[]);
    if let Some(ticks) = ticks(&fs::read_to_string("/proc/self/stat").unwrap_or_default()) {
        Metric::Cpu.counter(&[]).absolute(ticks / TICKS_PER_SECOND);
    }
    if let Some(bytes) = resident(&fs::read_to_string("/proc/self/status").unwrap_or_default()) {
        Metric::Memory.set(bytes, &[]);
    }
}

/// The 14th and 15th field, in user and in system mode; the second holds a name that may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_read_as_it_writes() {
        let stat = "7 (end) state) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2_097_152.0));
        assert_eq!((ticks(""), resident("")), (None, None));
    }
}
