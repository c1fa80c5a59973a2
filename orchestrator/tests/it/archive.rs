//! The archive: what ended long ago goes, and nothing else does.

use crate::hazards::bench;
use crate::system::{System, done, source};
use async_trait::async_trait;
use endstate_events::{InputBody, SagaId, Topic};
use endstate_orchestrator::archive::{Archive, Holders};
use endstate_orchestrator::job::{Job as _, Report};
use endstate_orchestrator::persist;
use endstate_orchestrator::view::{Filter, Projector, list, rebuild};
use endstate_orchestrator::waiters::Claim;
use endstate_outbox::{
    Assignment, Clock as _, Commit, CommitError, Kind, Row, Rows, ShardId, Statement, Store, StoreError, Write,
};
use serde_json::json;
use std::pin::Pin;
use std::sync::Arc;

const DAY_MS: i64 = 24 * 3_600_000;

/// Participants that hold something for these.
struct Held(Vec<SagaId>);

#[async_trait]
impl Holders for Held {
    async fn holding(&self, sagas: &[SagaId]) -> Result<Vec<SagaId>, StoreError> {
        Ok(self.0.iter().copied().filter(|saga| sagas.contains(saga)).collect())
    }
}

impl System {
    async fn ended(&mut self, number: &str) -> SagaId {
        let (saga, start) = self.start("bench_saga", bench(number));
        self.queue(&[start]).await;
        for step in ["reserve", "lock", "deduct", "confirm"] {
            self.run_until_idle().await;
            let reply = self.message(Topic::Progress, saga, format!("{number}/{step}"), done(saga, step));
            self.queue(&[reply]).await;
        }
        self.run_until_idle().await;
        assert!(self.saga(saga).await.unwrap().control.is_ended());
        saga
    }

    async fn projector(&self) -> Projector {
        Projector::open(self.store.clone(), self.definitions.clone(), self.clock.clone()).await.unwrap()
    }

    pub(crate) async fn archive(&self, held: &[SagaId], dry_run: bool) -> Report {
        let holders = Arc::new(Held(held.to_vec()));
        let archive = Archive::new(self.store.clone(), holders, 30 * DAY_MS, 1_000);
        archive.run(self.clock.now_ms(), dry_run).await.unwrap()
    }

    async fn count(&self, statement: &'static Statement, saga: SagaId) -> i64 {
        self.store.read(statement, Rows::one([saga.0.into()])).await.unwrap()[0][0].int().unwrap()
    }
}

static EVENTS: Statement = Statement {
    name: "test.events",
    columns: &[Kind::Id],
    sql: "with r(saga) as ({rows}) select count(e.saga) from r left join event e on e.saga = r.saga",
};
static ORPHANS: Statement = Statement {
    name: "test.orphans",
    columns: &[Kind::Id],
    sql: "with r(saga) as ({rows}) select count(o.saga) from r left join orphan o on o.saga = r.saga",
};
static BELONGS: Statement = Statement {
    name: "test.belongs",
    columns: &[Kind::Id, Kind::Id],
    sql: "with r(saga, order_saga) as ({rows}) update saga_view set order_saga = r.order_saga from r \
          where saga_view.saga = r.saga",
};

#[tokio::test]
async fn z12_what_ended_long_ago_is_archived_and_a_late_callback_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 100).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let old = system.ended("old").await;
    let (open, start) = system.start("bench_saga", bench("open"));
    system.queue(&[start]).await;
    system.run_until_idle().await;
    let mut projector = system.projector().await;
    while projector.look().await.unwrap() {}
    system.clock.advance(31 * DAY_MS);
    let new = system.ended("new").await;
    while projector.look().await.unwrap() {}

    let dry = system.archive(&[], true).await;
    assert_eq!((dry.found, dry.changed, dry.details[0]["number"].as_str()), (1, 0, Some("old")));
    assert!(system.saga(old).await.is_some());
    let run = system.archive(&[], false).await;
    assert_eq!((run.found, run.changed), (1, 1));
    assert_eq!(system.archive(&[], false).await.found, 0);

    assert!(system.saga(old).await.is_none());
    assert_eq!(system.count(&EVENTS, old).await, 0);
    for kept in [open, new] {
        assert!(system.saga(kept).await.is_some() && system.count(&EVENTS, kept).await > 0);
    }
    let (listed, _) = list(&*system.store, &Filter::default(), None, 10).await.unwrap();
    let numbers: Vec<_> = listed.iter().map(|row| row.number.as_str()).collect();
    assert_eq!(numbers, ["new", "open"]);

    // The number is claimed for ever.
    let (again, start) = system.start("bench_saga", bench("old"));
    let news = system.waiters.sagas.wait(again);
    system.queue(&[start]).await;
    system.run_until_idle().await;
    assert_eq!(news.latest().claim, Some(Claim::Taken { by: old, same_body: true }));
    assert!(system.saga(again).await.is_none());

    // What still comes may be money: it is kept, and the view goes on.
    let event = InputBody::Event { name: "payment.captured".into(), data: json!({ "amount_minor": 1 }) };
    let late = system.message(Topic::Progress, old, "P-1".into(), event);
    system.queue(&[late]).await;
    system.run_until_idle().await;
    assert_eq!(system.count(&ORPHANS, old).await, 1);
    system.ended("newer").await;
    while projector.look().await.unwrap() {}
    assert_eq!(list(&*system.store, &Filter::default(), None, 10).await.unwrap().0.len(), 3);
}

#[tokio::test]
async fn what_somebody_still_needs_is_not_archived() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 100).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let (held, order, unseen) = (system.ended("held").await, system.ended("order").await, "unseen");
    let (linked, start) = system.start("bench_saga", bench("linked"));
    system.queue(&[start]).await;
    system.run_until_idle().await;
    let mut projector = system.projector().await;
    while projector.look().await.unwrap() {}
    let belongs = Rows::one([linked.0.into(), order.0.into()]);
    let writes = vec![Write::exact(&BELONGS, belongs)];
    system.store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
    // The view has not heard of this one: the projector stands.
    let unseen = system.ended(unseen).await;
    system.clock.advance(31 * DAY_MS);
    assert_eq!(system.archive(&[held], false).await.changed, 0);
    for kept in [held, order, unseen] {
        assert!(!persist::load_sagas(&*system.store, &[kept]).await.unwrap().is_empty());
    }
    while projector.look().await.unwrap() {}
    assert_eq!(system.archive(&[held], false).await.changed, 1, "the view has caught up");
    assert_eq!(system.archive(&[], false).await.changed, 1, "nobody holds anything any more");
}

/// A store on which something happens before the next commit.
struct Meanwhile {
    inner: Arc<dyn Store>,
    happens: tokio::sync::Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

#[async_trait]
impl Store for Meanwhile {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        self.inner.read(statement, rows).await
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        self.inner.assign(shard).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        if let Some(happens) = self.happens.lock().await.take() {
            happens.await;
        }
        self.inner.commit(commit).await
    }

    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }
}

#[tokio::test]
async fn what_a_stopped_rebuild_has_left_behind_is_archived_like_everything_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 100).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    system.ended("old").await;
    let mut projector = system.projector().await;
    while projector.look().await.unwrap() {}
    system.clock.advance(31 * DAY_MS);
    // The archive takes the saga between the reading and the writing of a rebuild's page, which is its last.
    let (store, now_ms) = (system.store.clone(), system.clock.now_ms());
    let happens = Box::pin(async move {
        let archive = Archive::new(store, Arc::new(Held(Vec::new())), 30 * DAY_MS, 1_000);
        assert_eq!(archive.run(now_ms, false).await.unwrap().changed, 1);
    });
    let slow = Meanwhile { inner: system.store.clone(), happens: tokio::sync::Mutex::new(Some(happens)) };
    let page = rebuild::page(&slow, &*system.definitions, &rebuild::Mark::beginning(), now_ms).await.unwrap();
    assert_eq!(page.drawn, 1);
    let listed = async |system: &System| list(&*system.store, &Filter::default(), None, 10).await.unwrap().0.len();
    assert_eq!(listed(&system).await, 1, "the row of a saga that is gone");

    let other = system.ended("other").await;
    while projector.look().await.unwrap() {}
    system.clock.advance(31 * DAY_MS);
    let run = system.archive(&[], false).await;
    assert_eq!((run.found, run.changed), (2, 2));
    assert!(system.saga(other).await.is_none());
    assert_eq!(listed(&system).await, 0);
}
