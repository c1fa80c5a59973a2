//! The projector and the lists over an embedded store, with sagas written by hand.

mod trouble;

use super::*;
use async_trait::async_trait;
use endstate_outbox::{Assignment, CommitError, Row, ShardId, StoreError};
use endstate_outbox::{Clock, Commit, Kind, ManualClock, Rows, SqliteStore, Statement, Store, Write};
use serde_json::json;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static SAGA: Statement = Statement {
    name: "test.put_saga",
    columns: &[Kind::Id, Kind::Int, Kind::Text],
    sql: "with r(id, version, state) as ({rows}) insert into saga (id, shard, version, phase, state) \
          select id, 0, version, 'running', state from r where true \
          on conflict (id) do update set version = excluded.version, state = excluded.state",
};

static EVENT: Statement = Statement {
    name: "test.put_event",
    columns: &[Kind::Int, Kind::Int, Kind::Id],
    sql: "with r(shard, seq, saga) as ({rows}) insert into event (shard, seq, saga, version, events, time_ms, body) \
          select shard, seq, saga, seq, 1, 1000 + seq, '[]' from r where true",
};

fn id_of(number: &str) -> Uuid {
    Uuid::from_u128(1 + number.bytes().fold(0, |sum, byte| sum * 256 + u128::from(byte)))
}

/// A saga's state in these tests: number, owner, status, search value.
#[derive(Default)]
struct Plain {
    /// Whether sagas of owner `zoe` can be drawn: their definition is there, and was asked for.
    loaded: AtomicBool,
    learnt: AtomicBool,
}

#[async_trait]
impl Render for Plain {
    fn render(&self, state: &str) -> Result<ViewRow, Undrawn> {
        let read: Result<(i64, [String; 4]), _> = serde_json::from_str(state.trim_end());
        let (version, [number, owner, status, goods]) = read.map_err(|e| Undrawn::Unreadable(e.to_string()))?;
        assert_ne!(owner, "eve", "whoever draws her panics");
        if owner == "zoe" && !self.learnt.load(Relaxed) {
            return Err(Undrawn::Undefined { definition: "zoes_order".to_owned(), version: 7 });
        }
        let updated_ms = 1_000 + version;
        let saga = SagaId(id_of(&number));
        let ended = status == "closed";
        Ok(ViewRow {
            saga,
            version,
            definition: "flash_sale_order".into(),
            definition_version: 1,
            started_ms: number.trim_start_matches("N-").parse().unwrap(),
            number,
            owner: Some(owner),
            lane: Lane::Live,
            phase: if ended { "ended" } else { "running" }.into(),
            status,
            outcome: ended.then(|| "cancelled".into()),
            reason: None,
            view: json!({"total_minor": 5}),
            search: vec![("goods".into(), goods)],
            order: None,
            updated_ms,
            ended_ms: ended.then_some(updated_ms),
        })
    }

    async fn learn(&self, missing: Vec<(String, u32)>) -> Result<(), StoreError> {
        assert_eq!(missing, [("zoes_order".to_owned(), 7)], "each is looked for once");
        self.learnt.store(self.loaded.load(Relaxed), Relaxed);
        Ok(())
    }
}

struct World {
    _folder: tempfile::TempDir,
    store: Arc<SqliteStore>,
    clock: Arc<ManualClock>,
    render: Arc<Plain>,
    seq: i64,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).await.unwrap();
        Self { _folder: folder, store, clock: Arc::new(ManualClock::new(1_000)), render: Arc::default(), seq: 0 }
    }

    async fn put(&mut self, n: i64, version: i64, owner: &str, status: &str, goods: &str) {
        let change = self.change(n, version, owner, status, goods);
        self.store.commit(change).await.unwrap();
    }

    fn change(&mut self, n: i64, version: i64, owner: &str, status: &str, goods: &str) -> Commit {
        self.seq += 1;
        let number = format!("N-{n:04}");
        let id = id_of(&number);
        let state = json!([version, [number, owner, status, goods]]).to_string();
        let writes = vec![
            Write::exact(&SAGA, Rows::one([id.into(), version.into(), state.into()])),
            Write::exact(&EVENT, Rows::one([0.into(), self.seq.into(), id.into()])),
        ];
        Commit { writes, ..Commit::default() }
    }

    async fn projector(&self) -> Projector {
        self.projector_on(self.store.clone()).await
    }

    async fn projector_on(&self, store: Arc<dyn Store>) -> Projector {
        let clock: Arc<dyn Clock> = self.clock.clone();
        Projector::open(store, self.render.clone(), clock).await.unwrap()
    }

    /// A rebuild from its beginning to its end.
    async fn rebuild(&self) -> rebuild::Page {
        self.rebuild_on(&*self.store).await
    }

    async fn rebuild_on(&self, store: &dyn Store) -> rebuild::Page {
        let (mut all, mut mark) = (rebuild::Page::default(), Some(rebuild::Mark::beginning()));
        while let Some(from) = mark {
            let from = rebuild::Mark::of_text(&from.to_text()).unwrap();
            let page = rebuild::page(store, &*self.render, &from, self.clock.now_ms()).await.unwrap();
            all.drawn += page.drawn;
            all.undrawn += page.undrawn;
            all.removed += page.removed;
            mark = page.next;
        }
        all
    }

    async fn numbers(&self, filter: &Filter) -> Vec<String> {
        let mut numbers = Vec::new();
        let mut after = None;
        loop {
            let (rows, next) = list(&*self.store, filter, after, 2).await.unwrap();
            numbers.extend(rows.into_iter().map(|row| row.number));
            after = next;
            if after.is_none() {
                return numbers;
            }
        }
    }
}

#[tokio::test]
async fn lists_show_what_the_projector_has_met_newest_first() {
    let mut world = World::new().await;
    for n in 0..5 {
        world.put(n, 1, if n % 2 == 0 { "ann" } else { "bob" }, "created", "tea").await;
    }
    let mut projector = world.projector().await;
    assert!(!projector.look().await.unwrap());
    let all = Filter::default();
    assert_eq!(world.numbers(&all).await, ["N-0004", "N-0003", "N-0002", "N-0001", "N-0000"]);

    world.put(2, 2, "ann", "closed", "coffee").await;
    projector = world.projector().await;
    projector.look().await.unwrap();
    let by = |change: &dyn Fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(world.numbers(&by(&|f| f.owner = text("ann"))).await, ["N-0004", "N-0002", "N-0000"]);
    assert_eq!(world.numbers(&by(&|f| f.status = text("closed"))).await, ["N-0002"]);
    assert_eq!(world.numbers(&by(&|f| f.phase = text("ended"))).await, ["N-0002"]);
    assert_eq!(world.numbers(&by(&|f| f.phase = text("running"))).await.len(), 4);
    assert_eq!(world.numbers(&by(&|f| f.number_prefix = text("N-000"))).await.len(), 5);
    assert_eq!(world.numbers(&by(&|f| f.number_prefix = text("N-0003"))).await, ["N-0003"]);
    assert_eq!(world.numbers(&by(&|f| f.definition = text("bench_saga"))).await, Vec::<String>::new());
    let goods = |value: &str| Some(("goods".to_owned(), value.to_owned()));
    assert_eq!(world.numbers(&by(&|f| f.search = goods("coffee"))).await, ["N-0002"]);
    assert_eq!(world.numbers(&by(&|f| f.search = goods("tea"))).await.len(), 4);
    assert_eq!(world.numbers(&by(&|f| (f.since_ms, f.until_ms) = (Some(1), Some(3)))).await, ["N-0002", "N-0001"]);
    assert_eq!(world.numbers(&by(&|f| f.owner = text("' or 1=1 --"))).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_rebuilt_view_is_the_same_view() {
    let mut world = World::new().await;
    for n in 0..7 {
        world.put(n, 1, "ann", "created", "tea").await;
        world.put(n, 2, "ann", if n == 3 { "closed" } else { "paid" }, "coffee").await;
    }
    let mut projector = world.projector().await;
    projector.look().await.unwrap();
    let filter = Filter { search: Some(("goods".into(), "coffee".into())), ..Filter::default() };
    let before = list(&*world.store, &filter, None, 100).await.unwrap();
    assert_eq!(before.0.len(), 7);
    let same = rebuild::Page { drawn: 7, ..rebuild::Page::default() };
    assert_eq!(world.rebuild().await, same);
    assert_eq!(list(&*world.store, &filter, None, 100).await.unwrap(), before);
    assert!(!projector.look().await.unwrap());

    // Whatever is wrong in it is right afterwards: a row that says nonsense, one of no saga, a search attribute too many,
    // one too few.
    let id = id_of("N-0003");
    let damage = vec![
        Write::exact(&WRONG_STATUS, Rows::one([id.into()])),
        Write::exact(&NO_SEARCH, Rows::one([id.into()])),
        Write::exact(&sql::ADD_SEARCH, Rows::one(["goods".into(), "cocoa".into(), 3.into(), id.into()])),
        Write::exact(&STRANGER, Rows::one([Uuid::from_u128(7).into(), id.into()])),
    ];
    world.store.commit(Commit { writes: damage, ..Commit::default() }).await.unwrap();
    assert_eq!(world.rebuild().await, rebuild::Page { removed: 2, ..same });
    assert_eq!(list(&*world.store, &filter, None, 100).await.unwrap(), before);
    assert_eq!(world.numbers(&Filter::default()).await.len(), 7);
    let goods = Filter { search: Some(("goods".into(), "cocoa".into())), ..Filter::default() };
    assert_eq!(world.numbers(&goods).await, Vec::<String>::new());
}

static WRONG_STATUS: Statement = Statement {
    name: "test.wrong_status",
    columns: &[Kind::Id],
    sql: "with r(saga) as ({rows}) update saga_view set status = 'nonsense' from r where saga_view.saga = r.saga",
};

static NO_SEARCH: Statement =
    Statement { name: "test.no_search", columns: &[Kind::Id], sql: "delete from saga_search where saga in ({rows})" };

static STRANGER: Statement = Statement {
    name: "test.stranger",
    columns: &[Kind::Id, Kind::Id],
    sql: "with r(id, saga) as ({rows}) insert into saga_view (saga, version, definition, definition_version, number, lane, \
          status, phase, view, search, started_ms, updated_ms) select r.id, v.version, v.definition, v.definition_version, \
          v.number, v.lane, v.status, v.phase, v.view, v.search, v.started_ms, v.updated_ms from r \
          cross join saga_view v where v.saga = r.saga",
};

/// A store on which something happens before the next commit.
struct Meanwhile {
    inner: Arc<SqliteStore>,
    happens: tokio::sync::Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

#[async_trait::async_trait]
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

/// A shard moves: its new owner's projector has followed the saga further when the old one's commits what it read before.
/// A promoted standby may lack what was followed, and give its numbers to others.
#[tokio::test]
async fn z14_a_view_follows_again_what_the_store_does_not_know_to_be_followed() {
    static BACK: Statement = Statement {
        name: "test.back",
        columns: &[Kind::Int],
        sql: "with r(seq) as ({rows}) update projection set seq = r.seq from r where projection.seq > r.seq",
    };
    static LOSE: Statement = Statement {
        name: "test.lose",
        columns: &[Kind::Int],
        sql: "with r(seq) as ({rows}) delete from event where seq > (select r.seq from r)",
    };
    let mut world = World::new().await;
    for n in 0..6 {
        world.put(n, 1, "ann", "created", "tea").await;
    }
    let mut projector = world.projector().await;
    projector.look().await.unwrap();
    let writes = [&BACK, &LOSE].map(|statement| Write::any(statement, Rows::one([3.into()])));
    world.store.commit(Commit { writes: writes.into(), ..Commit::default() }).await.unwrap();
    world.seq = 3;
    world.put(0, 2, "ann", "closed", "tea").await;
    while projector.look().await.unwrap() {}
    let closed = Filter { status: Some("closed".into()), ..Filter::default() };
    assert_eq!(world.numbers(&closed).await, ["N-0000"], "though its number was followed before");
}

#[tokio::test]
async fn a_projector_that_was_overtaken_writes_nothing_old() {
    let mut world = World::new().await;
    let mut next = world.projector().await;
    let happens = tokio::sync::Mutex::new(None);
    let slow = Arc::new(Meanwhile { inner: world.store.clone(), happens });
    let mut old = world.projector_on(slow.clone()).await;
    world.put(1, 1, "ann", "created", "tea").await;
    let (change, store) = (world.change(1, 2, "ann", "paid", "coffee"), world.store.clone());
    *slow.happens.lock().await = Some(Box::pin(async move {
        store.commit(change).await.unwrap();
        next.look().await.unwrap();
    }));
    assert!(old.look().await.unwrap(), "it has to look again");
    assert!(!old.look().await.unwrap(), "where the other one stopped");
    let goods = |value: &str| Filter { search: Some(("goods".to_owned(), value.to_owned())), ..Filter::default() };
    assert_eq!(world.numbers(&goods("coffee")).await, ["N-0001"]);
    assert_eq!(world.numbers(&goods("tea")).await, Vec::<String>::new());
    let found = world.store.read(&SEARCH, Rows::one([1.into()])).await.unwrap();
    assert_eq!(found.len(), 1, "nothing is left of the older version: {found:?}");
    let position = world.store.read(&sql::POSITIONS, Rows::one([0.into()])).await.unwrap();
    assert_eq!(position[0][1].int(), Some(2), "the position never goes back");
}

static SEARCH: Statement = Statement {
    name: "test.search",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select s.name, s.value from r cross join saga_search s",
};

static UNDRAWN: Statement = Statement {
    name: "test.undrawn",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select u.saga, u.since_ms, u.tried_ms, u.reason from r cross join undrawn u",
};
