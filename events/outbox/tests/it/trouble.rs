//! A shard whose task panics, or whose store does not let it get on: it is assigned again, and people are told.

use crate::send;
use crate::store::conformance::{GET, PUT};
use async_trait::async_trait;
use endstate_events::{SCHEMA_VERSION, Side, Topic};
use endstate_outbox::alert::{self, Waiting};
use endstate_outbox::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Panics so often at each place, and else writes down what it reads.
#[derive(Default)]
struct Shaky {
    assigning: u32,
    committing: u32,
    rolling_back: u32,
}

/// One panic fewer to come.
fn panics(left: &mut u32, place: &str) {
    if *left > 0 {
        *left -= 1;
        panic!("shaky while {place}");
    }
}

impl Handler for Shaky {
    fn topics(&self) -> &'static [Topic] {
        &[Topic::Commands]
    }

    fn room(&self, _: Topic) -> usize {
        100
    }

    async fn assigned(&mut self, _: &Assignment) -> Result<(), StoreError> {
        panics(&mut self.assigning, "it is assigned");
        Ok(())
    }

    async fn decide(&mut self, batch: &Batch) -> Result<Outcome, DecideError> {
        let mut rows = Rows::new();
        batch.messages.iter().for_each(|(_, message)| rows.push([message.id.as_str().into(), "seen".into()]));
        Ok(Outcome { writes: vec![Write::exact(&PUT, rows)], ..Outcome::default() })
    }

    fn committed(&mut self) {
        panics(&mut self.committing, "it has committed");
    }

    fn rolled_back(&mut self) {
        panics(&mut self.rolling_back, "it rolls back");
    }

    fn due_ms(&self) -> Option<i64> {
        None
    }
}

fn shard(store: Arc<dyn Store>, bus: Arc<dyn Bus>, handler: Shaky) -> Shard<Shaky> {
    Shard::new(ShardId { side: Side::Participants, index: 2 }, store, bus, Arc::new(ManualClock::new(1)), handler)
}

async fn told(store: &Arc<SqliteStore>) -> Vec<Waiting> {
    alert::waiting(&**store, 1, 10).await.unwrap()
}

#[tokio::test]
async fn a_task_that_panics_outside_of_a_decision_is_assigned_again_and_people_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let census = Census::of(1);
    let handler = Shaky { assigning: 2, committing: 1, rolling_back: 1 };
    let mut shard = shard(store.clone(), store.bus(), handler).counted(&census);
    let message = send("a");
    let id = message.envelope.id.clone();
    store.bus().produce(vec![message]).await.unwrap();
    for _ in 0..3 {
        assert!(matches!(shard.turn().await, Turn::Wait(_)), "two panics while it is assigned, one after its commit");
        assert!(!census.is_complete());
    }
    let seen = store.read(&GET, Rows::one([id.as_str().into()])).await.unwrap();
    assert_eq!(seen.len(), 1, "what was committed stays");
    assert_eq!(shard.turn().await, Turn::Idle, "and is not read again");
    assert!(census.is_complete());
    let texts: Vec<_> = told(&store).await.into_iter().map(|waiting| waiting.alert.text).collect();
    assert_eq!(texts.len(), 2, "one for each place at which it stood: {texts:?}");
    assert!(texts.iter().all(|text| text.starts_with("E4035") && text.contains("participants/2")), "{texts:?}");
}

/// A store that fails under every batch of a shard.
struct Failing(Arc<SqliteStore>);

#[async_trait]
impl Store for Failing {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        self.0.read(statement, rows).await
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        self.0.assign(shard).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        match commit.fences.is_empty() {
            true => self.0.commit(commit).await,
            false => Err(CommitError::Doubt("no answer".to_owned())),
        }
    }

    fn partitions(&self) -> u16 {
        self.0.partitions()
    }
}

#[tokio::test]
async fn a_doubt_that_does_not_pass_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    store.bus().produce(vec![send("a")]).await.unwrap();
    // The second is what comes after a restart: it stands where the first one stood.
    for run in 0..2 {
        let handler = Shaky { assigning: 0, committing: 0, rolling_back: 0 };
        let mut shard = shard(Arc::new(Failing(store.clone())), store.bus(), handler);
        for _ in 0..4 {
            shard.turn().await;
        }
        assert_eq!(told(&store).await.len(), run, "a few doubts are everyday life");
        for _ in 0..6 {
            assert!(matches!(shard.turn().await, Turn::Wait(_)));
        }
        assert_eq!(told(&store).await.len(), 1);
    }
    assert!(told(&store).await[0].alert.text.starts_with("E4030"));
}

/// Reads topics of two urgencies, and decides nothing.
struct Quiet;

impl Handler for Quiet {
    fn topics(&self) -> &'static [Topic] {
        &[Topic::Progress, Topic::Start]
    }

    fn room(&self, _: Topic) -> usize {
        1
    }

    async fn assigned(&mut self, _: &Assignment) -> Result<(), StoreError> {
        Ok(())
    }

    async fn decide(&mut self, _: &Batch) -> Result<Outcome, DecideError> {
        Ok(Outcome::default())
    }

    fn committed(&mut self) {}

    fn rolled_back(&mut self) {}

    fn due_ms(&self) -> Option<i64> {
        None
    }
}

/// A bus that counts who begins to read.
struct Counting(Arc<dyn Bus>, AtomicUsize);

#[async_trait]
impl Bus for Counting {
    async fn produce(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        self.0.produce(messages).await
    }

    fn consumer(&self, topic: Topic, partition: u16, position: i64) -> Box<dyn Consumer> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.consumer(topic, partition, position)
    }
}

#[tokio::test]
async fn z10_a_newer_record_is_told_of_once_a_day_while_other_records_flow() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let bus = Arc::new(Counting(store.bus(), AtomicUsize::new(0)));
    let mut newer = Outgoing { topic: Topic::Progress, ..send("newer") };
    Arc::make_mut(&mut newer.envelope).schema = SCHEMA_VERSION + 1;
    bus.produce(vec![newer]).await.unwrap();
    let clock = Arc::new(ManualClock::new(1));
    // The second is what comes after a restart.
    for run in 1..=2 {
        let id = ShardId { side: Side::Orchestrator, index: 2 };
        let mut shard = Shard::new(id, store.clone(), bus.clone(), clock.clone(), Quiet);
        for start in 0..10 {
            bus.produce(vec![Outgoing { topic: Topic::Start, ..send(&format!("{run}-{start}")) }]).await.unwrap();
            assert_eq!(shard.turn().await, Turn::Worked, "what is no newer is decided");
        }
        assert!(matches!(shard.turn().await, Turn::Wait(_)));
        assert_eq!(bus.1.load(Ordering::Relaxed), 3 * run, "two for the assignment, and one that waits there");
        let told = told(&store).await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].alert.text.starts_with("E4031") && told[0].alert.text.contains("`progress`"), "{told:?}");
    }
    let at = store.assign(ShardId { side: Side::Orchestrator, index: 2 }).await.unwrap().positions;
    assert_eq!((at.progress, at.start), (0, 20));
}

/// A store whose server may be another one from now on.
struct Moved {
    inner: Arc<SqliteStore>,
    timeline: watch::Sender<i64>,
    assigned: mpsc::UnboundedSender<()>,
}

#[async_trait]
impl Store for Moved {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        self.inner.read(statement, rows).await
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        self.assigned.send(()).unwrap();
        self.inner.assign(shard).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        self.inner.commit(commit).await
    }

    fn timeline(&self) -> Option<watch::Receiver<i64>> {
        Some(self.timeline.subscribe())
    }

    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }
}

#[tokio::test]
async fn z14_a_shard_that_has_nothing_to_do_begins_anew_on_another_server() {
    let folder = tempfile::tempdir().unwrap();
    let inner = SqliteStore::open(folder.path()).await.unwrap();
    let (assigned, mut assignments) = mpsc::unbounded_channel();
    let store = Arc::new(Moved { inner: inner.clone(), timeline: watch::channel(1).0, assigned });
    let stop = CancellationToken::new();
    let running = tokio::spawn(shard(store.clone(), inner.bus(), Shaky::default()).run(stop.clone()));
    assignments.recv().await.unwrap();
    for timeline in 2..4 {
        store.timeline.send_replace(timeline);
        assignments.recv().await.unwrap();
    }
    stop.cancel();
    running.await.unwrap();
    assert!(assignments.try_recv().is_err(), "once each time");
}
