//! Numbers that are claimed twice.

use crate::hazards::bench;
use crate::system::{System, source};
use async_trait::async_trait;
use endstate_orchestrator::waiters::Claim;
use endstate_outbox::{
    Assignment, Commit, CommitError, ManualClock, Outgoing, Row, Rows, ShardId, Statement, Store, StoreError,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts commits that were refused.
struct Strict {
    inner: Arc<dyn Store>,
    refused: Arc<AtomicUsize>,
}

#[async_trait]
impl Store for Strict {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        self.inner.read(statement, rows).await
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        self.inner.assign(shard).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        let committed = self.inner.commit(commit).await;
        self.refused.fetch_add(usize::from(committed.is_err()), Ordering::Relaxed);
        committed
    }

    async fn outgoing(&self, shard: ShardId, from: i64, limit: usize) -> Result<Vec<(i64, Outgoing)>, StoreError> {
        self.inner.outgoing(shard, from, limit).await
    }

    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }
}

#[tokio::test]
async fn a_repeated_start_costs_its_neighbours_no_second_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let (inner, bus) = crate::place::open(folder.path()).await;
    let refused = Arc::new(AtomicUsize::new(0));
    let store = Arc::new(Strict { inner, refused: Arc::clone(&refused) });
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let mut system = System::over(folder.path(), store, bus, clock, 10).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let (first, start) = system.start("bench_saga", bench("one"));
    system.queue(&[start]).await;
    system.run_until_idle().await;

    // Claimed in this assignment: it is remembered.
    let told = system.start_again().await;
    assert_eq!(told, Some(Claim::Taken { by: first, same_body: true }));
    assert_eq!(refused.load(Ordering::Relaxed), 0);

    // By an earlier one: the commit finds out, once.
    system.shards = system.anew(None);
    for _ in 0..2 {
        assert_eq!(system.start_again().await, Some(Claim::Taken { by: first, same_body: true }));
        assert_eq!(refused.load(Ordering::Relaxed), 1);
    }
}

impl System {
    /// The same number and body once more; returns what its caller is told.
    async fn start_again(&mut self) -> Option<Claim> {
        let (saga, start) = self.start("bench_saga", bench("one"));
        let mut waiting = self.waiters.sagas.wait(saga);
        self.queue(&[start]).await;
        self.run_until_idle().await;
        waiting.until(|notice| notice.claim.is_some()).await.claim
    }
}
