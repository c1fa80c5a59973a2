//! Pages of changes, and what those cost who wait for one.

use super::*;
use async_trait::async_trait;
use endstate_events::{DomainEvent, Lane, SCHEMA_VERSION, SagaId, Slot};
use endstate_outbox::{Assignment, Bus as _, Commit, CommitError, Outgoing, Row, ShardId, SqliteStore};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[test]
fn a_place_of_another_store_is_refused() {
    let position = Position(vec![3, 0, 7, 1]);
    assert_eq!(Position::decode(&position.encode(), 4).unwrap(), position);
    for (text, partitions) in
        [(position.encode(), 8), (String::new(), 4), ("x'; --".into(), 4), (Position(vec![-1; 4]).encode(), 4)]
    {
        assert_eq!(Position::decode(&text, partitions).unwrap_err().code, Code::InvalidCursor);
    }
}

fn event(partition: u16, n: u64) -> Outgoing {
    let saga = SagaId::mint(1_700_000_000_000, Slot::of("s"), n);
    let event = DomainEvent {
        saga,
        definition: "d".into(),
        number: format!("{partition}-{n}"),
        version: 1,
        status: "created".into(),
        before: String::new(),
        outcome: None,
        reason: None,
    };
    let (message, key) = (Message::Domain(event), saga.to_string());
    let envelope = Envelope { id: format!("{n}"), schema: SCHEMA_VERSION, time_ms: 0, key, lane: Lane::Live, message };
    Outgoing { topic: Topic::Events, partition, envelope: envelope.into() }
}

/// A store with `count` changes in each of `partitions`, several to a row.
async fn filled(folder: &std::path::Path, partitions: &[u16], count: u64) -> Arc<SqliteStore> {
    let store = SqliteStore::open(folder).await.unwrap();
    for partition in partitions {
        for row in (0..count).collect::<Vec<_>>().chunks(5) {
            store.bus().produce(row.iter().map(|n| event(*partition, *n)).collect()).await.unwrap();
        }
    }
    store
}

#[tokio::test]
async fn a_busy_partition_does_not_keep_a_reader_from_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path(), &[0, 2, 3], 40).await;
    for limit in [1, 2, 3, 7, 50] {
        let mut position = Position::oldest(&*store).await.unwrap();
        let mut seen = Vec::new();
        loop {
            let (changes, next) = read(&*store, &position, limit).await.unwrap();
            assert!(changes.len() <= limit);
            if changes.is_empty() {
                break;
            }
            seen.extend(changes.into_iter().map(|change| change.number));
            position = next;
            if seen.len() >= 12 && seen.len() < 12 + limit {
                for partition in ["0-", "2-", "3-"] {
                    assert!(seen.iter().any(|number| number.starts_with(partition)), "{limit}: {seen:?}");
                }
            }
        }
        for partition in [0, 2, 3] {
            let prefix = format!("{partition}-");
            let of: Vec<_> = seen.iter().filter(|number| number.starts_with(&prefix)).collect();
            let all: Vec<_> = (0..40).map(|n| format!("{prefix}{n}")).collect();
            assert_eq!(of, all.iter().collect::<Vec<_>>(), "limit {limit}: each once, in order");
        }
    }
}

#[tokio::test]
async fn a_reader_who_was_too_slow_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path(), &[1], 20).await;
    let begin = Position::oldest(&*store).await.unwrap();
    let (_, slow) = read(&*store, &begin, 4).await.unwrap();
    let (_, quick) = read(&*store, &begin, 12).await.unwrap();
    assert_eq!(store.bus().purge(8).await.unwrap(), 2, "rows 0-4 and 5-9");
    let gone = read(&*store, &slow, 10).await.unwrap_err();
    assert!(matches!(gone, FeedError::Gone { partition: 1, wanted: 4, oldest: 10 }), "{gone}");
    assert_eq!(read(&*store, &quick, 10).await.unwrap().0.len(), 8);
    let oldest = Position::oldest(&*store).await.unwrap();
    assert_eq!(read(&*store, &oldest, 20).await.unwrap().0.len(), 10, "without a place: what is kept");
}

#[test]
fn an_unreadable_change_costs_only_itself() {
    let good = serde_json::to_string(&*event(0, 1).envelope).unwrap();
    let read = envelopes(&format!("[{good},{{\"schema\":99}},{good}]"), 3);
    assert_eq!(read.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(envelopes("no JSON", 2).len(), 2, "its offsets are passed all the same");
}

/// A store that counts its statements.
struct Counting {
    inner: Arc<SqliteStore>,
    reads: AtomicUsize,
}

#[async_trait]
impl Store for Counting {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        self.reads.fetch_add(1, Relaxed);
        self.inner.read(statement, rows).await
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        self.inner.assign(shard).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        self.inner.commit(commit).await
    }

    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }
}

#[tokio::test]
async fn fifty_who_wait_for_changes_look_as_often_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Counting { inner: filled(folder.path(), &[1, 2], 10).await, reads: AtomicUsize::new(0) });
    let oldest = Position::oldest(&*store).await.unwrap();
    let (_, end) = read(&*store, &oldest, 100).await.unwrap();
    let followers = Arc::new(Followers::new(store.clone()));
    store.reads.store(0, Relaxed);
    let (begun, stop) = (Instant::now(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let mut following = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (followers, end, stop) = (followers.clone(), end.clone(), stop.clone());
        following.spawn(async move {
            let until = Instant::now() + Duration::from_secs(600);
            followers.follow(&end, 10, until, || stop.load(Relaxed)).await.unwrap()
        });
    }
    // Each looks once by itself; then one looks for all of them, some times.
    while store.reads.load(Relaxed) < 54 {
        tokio::task::yield_now().await;
    }
    stop.store(true, Relaxed);
    while let Some(ended) = following.join_next().await {
        let (changes, next) = ended.unwrap();
        assert!(changes.is_empty() && next == end);
    }
    let looks = store.reads.load(Relaxed) - 50;
    let most = 1 + begun.elapsed().as_millis() / LOOK.as_millis();
    assert!(looks as u128 <= most, "{looks} looks for all, at most {most} in that time");
}

#[tokio::test]
async fn whoever_waits_gets_the_change_that_comes() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path(), &[1], 3).await;
    let oldest = Position::oldest(&*store).await.unwrap();
    let (_, end) = read(&*store, &oldest, 100).await.unwrap();
    let followers = Followers::new(store.clone());
    let until = Instant::now() + Duration::from_secs(600);
    let bus = store.bus();
    let (found, produced) = tokio::join!(followers.follow(&end, 10, until, || false), bus.produce(vec![event(3, 7)]));
    produced.unwrap();
    let (changes, next) = found.unwrap();
    assert_eq!(changes.iter().map(|change| change.number.as_str()).collect::<Vec<_>>(), ["3-7"]);
    assert!(read(&*store, &next, 10).await.unwrap().0.is_empty());
}
