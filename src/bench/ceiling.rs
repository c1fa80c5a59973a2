//! The ceiling: the rows and messages of `bench_saga` with no logic, no HTTP and no view, through the same store, bus and
//! shards.
//!
//! Tokens travel the ways of completed and of cancelled sagas, in the same proportion, with as many hops and commits, or
//! in one when the sagas are fused; every commit writes rows of the same tables and sizes, taken from sagas that really
//! ran. Real load and tokens take turns, slice by slice, each on a file of its own that grows with it, so that both meet
//! the same machine. There are more tokens than clients, so that the writer never waits for them. What the engine reaches of it
//! is the price of its logic.

mod pipe;

use crate::config::Mode;
use anyhow::Context as _;
use endstate_events::{Side, Topic};
use endstate_outbox::sqlite::Made;
use endstate_outbox::{
    Bus as _, Clock, Handler, Kind, Row, Rows, Shard, ShardId, SqliteStore, Statement, Store, SystemClock,
};
use pipe::{Pipe, Shared, Texts};
use std::num::NonZeroU16;
use std::path::Path;
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
          and json_extract(s.state, '$.status') = r.status limit 1",
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
    store: Arc<SqliteStore>,
    shared: Arc<Shared>,
    tokens: usize,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Ceiling {
    /// Makes a store in `folder`, with the partitions of `sample` and the texts of sagas that ended there.
    pub(super) async fn open(
        sample: &dyn Store,
        folder: &Path,
        mode: Mode,
        (clients, fail_percent): (usize, u64),
    ) -> anyhow::Result<Self> {
        let completed = texts(sample, "completed").await?;
        let cancelled = texts(sample, "cancelled").await?;
        let either = completed.clone().or_else(|| cancelled.clone());
        let either = either.context("no ended saga to take the ceiling's rows from")?;
        let ways = [completed.unwrap_or_else(|| either.clone()), cancelled.unwrap_or(either)];
        let made = Made { partitions: NonZeroU16::new(sample.partitions()), ..Made::default() };
        let store = SqliteStore::open_as(folder, &made).await?;
        let shared = Arc::new(Shared::new(store.bus(), ways, fail_percent));
        let tokens = if clients == 1 { 1 } else { clients * TOKENS };
        let (stop, tasks) = (CancellationToken::new(), Vec::new());
        let mut ceiling = Self { store, shared, tokens, stop, tasks };
        for index in 0..ceiling.store.partitions() {
            let topics: &[&'static [Topic]] = match mode {
                Mode::HopByHop => &[&[Topic::Progress, Topic::Start], &[Topic::Commands]],
                Mode::Fused => &[&[Topic::Progress, Topic::Commands, Topic::Start]],
            };
            for topics in topics {
                ceiling.spawn(index, Pipe::new(topics, index, ceiling.shared.clone()));
            }
        }
        Ok(ceiling)
    }

    fn spawn<H: Handler>(&mut self, index: u16, handler: H) {
        let side = if handler.topics() == [Topic::Commands] { Side::Participants } else { Side::Orchestrator };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let shard = Shard::new(ShardId { side, index }, self.store.clone(), self.store.bus(), clock, handler);
        self.tasks.push(tokio::spawn(shard.run(self.stop.clone())));
    }

    /// Lets the tokens travel for `time` after `settle`; returns how many arrived per second.
    pub(super) async fn slice(&self, settle: Duration, time: Duration) -> anyhow::Result<f64> {
        self.shared.going.store(true, Ordering::Relaxed);
        let partitions = usize::from(self.store.partitions());
        let starts = (0..self.tokens).map(|token| pipe::token((token % partitions) as u16)).collect();
        self.shared.travelling.fetch_add(self.tokens as u64, Ordering::Relaxed);
        self.store.bus().produce(starts).await?;
        tokio::time::sleep(settle).await;
        let ended = || self.shared.ended.load(Ordering::Relaxed);
        let (before, begin) = (ended(), Instant::now());
        tokio::time::sleep(time).await;
        let rate = (ended() - before) as f64 / begin.elapsed().as_secs_f64();
        self.shared.going.store(false, Ordering::Relaxed);
        while self.shared.travelling.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(rate)
    }

    /// Ends it.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.ok();
        }
    }
}
