//! The ceiling: the rows and messages of `bench_saga` with no logic, no HTTP and no view, through the same store, bus and
//! shards.
//!
//! Tokens travel the ways of completed and of cancelled sagas, in the same proportion, with as many hops and commits, or
//! in one when the sagas are fused; every commit writes rows of the same tables and sizes, taken from sagas that really
//! ran. Real load and tokens take turns, slice by slice, each on a file of its own that grows with it, so that both meet
//! the same machine. There are more tokens than clients, so that the writer never waits for them. What the engine reaches of it
//! is the price of its logic.

mod pipe;

use super::meter::Meter;
use super::report::Measured;
use super::system;
use crate::config::Mode;
use crate::ground::Ground;
use anyhow::Context as _;
use endstate_events::{Side, Topic};
use endstate_outbox::{Census, Clock, Handler, Kind, Row, Rows, Shard, ShardId, Statement, Store, SystemClock};
use pipe::{Pipe, Shared, Texts};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Tokens per client, if there are several clients.
const TOKENS: usize = 4;

static SAMPLE: Statement = Statement {
    name: "bench.sample",
    columns: &[Kind::Text],
    sql: "with r(status) as ({rows}) select s.id, s.state from r join saga s on s.phase = 'ended' \
          and {json_extract(s.state, '$.status')|s.state::json ->> 'status'} = r.status limit 1",
};
static SAMPLE_EVENTS: Statement = Statement {
    name: "bench.sample_events",
    columns: &[Kind::Id],
    sql: "with r(saga) as ({rows}) select e.body from event e join r on e.saga = r.saga order by e.version",
};

/// Takes the texts of one saga of the measured run that ended with `status`; none when no saga did.
async fn texts(store: &dyn Store, status: &str) -> anyhow::Result<Option<Texts>> {
    let rows = store.read(&SAMPLE, Rows::one([status.into()])).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (id, state) = (row[0].id().unwrap_or_default(), row[1].text().unwrap_or_default());
    let rows = store.read(&SAMPLE_EVENTS, Rows::one([id.into()])).await?;
    let text = |row: &Row| Arc::from(row[0].text().unwrap_or_default());
    Ok(Some(Texts { state: state.into(), events: rows.iter().map(text).collect() }))
}

/// Tokens and the shards that pass them on; still between two slices.
pub(super) struct Ceiling {
    ground: Ground,
    shared: Arc<Shared>,
    tokens: usize,
    census: Census,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Ceiling {
    /// Puts tokens on a ground that is as the one of `sample`, with the texts of sagas that ended there.
    pub(super) async fn open(
        sample: &dyn Store,
        ground: Ground,
        mode: Mode,
        (clients, fail_percent): (usize, u64),
    ) -> anyhow::Result<Self> {
        let completed = texts(sample, "completed").await?;
        let cancelled = texts(sample, "cancelled").await?;
        let either = completed.clone().or_else(|| cancelled.clone());
        let either = either.context("no ended saga to take the ceiling's rows from")?;
        let ways = [completed.unwrap_or_else(|| either.clone()), cancelled.unwrap_or(either)];
        let shared = Arc::new(Shared::new(ground.bus(), ways, fail_percent));
        let tokens = if clients == 1 { 1 } else { clients * TOKENS };
        let (stop, tasks, census) = (CancellationToken::new(), Vec::new(), Census::of(0));
        let mut ceiling = Self { ground, shared, tokens, census, stop, tasks };
        for index in 0..ceiling.ground.store().partitions() {
            let topics: &[&'static [Topic]] = match mode {
                Mode::HopByHop => &[&[Topic::Progress, Topic::Start], &[Topic::Commands]],
                Mode::Fused => &[&[Topic::Progress, Topic::Commands, Topic::Start]],
            };
            for topics in topics {
                ceiling.spawn(index, Pipe::new(topics, index, ceiling.shared.clone()));
            }
        }
        while !ceiling.census.is_complete() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(ceiling)
    }

    fn spawn<H: Handler>(&mut self, index: u16, handler: H) {
        let side = if handler.topics() == [Topic::Commands] { Side::Participants } else { Side::Orchestrator };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let shard = Shard::new(ShardId { side, index }, self.ground.store(), self.ground.bus(), clock, handler);
        self.census.expect(true);
        self.tasks.push(tokio::spawn(shard.counted(&self.census).run(self.stop.clone())));
    }

    /// Lets the tokens travel for `time` after `settle`, and adds what that took.
    pub(super) async fn slice(
        &self,
        meter: &Meter,
        made: &mut Measured,
        settle: Duration,
        time: Duration,
    ) -> anyhow::Result<()> {
        self.shared.going.store(true, Ordering::Relaxed);
        let partitions = usize::from(self.ground.store().partitions());
        let starts = (0..self.tokens).map(|token| pipe::token((token % partitions) as u16)).collect();
        self.shared.travelling.fetch_add(self.tokens as u64, Ordering::Relaxed);
        self.ground.bus().produce(starts).await?;
        tokio::time::sleep(settle).await;
        let ended = || self.shared.ended.load(Ordering::Relaxed);
        let written = system::written(&self.ground).await;
        let (before, begin, cost) = (ended(), Instant::now(), meter.now());
        tokio::time::sleep(time).await;
        made.sagas += ended() - before;
        made.time += begin.elapsed();
        made.cost = made.cost.plus(meter.now().since(cost));
        made.written = made.written.plus(system::written(&self.ground).await.since(written));
        made.records_per_batch = system::records_per_batch(&self.ground);
        self.shared.going.store(false, Ordering::Relaxed);
        while self.shared.travelling.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Ends it.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.ok();
        }
        self.ground.leave().await;
    }
}
