//! What cannot be drawn, what is too much at once, what comes in between, and how far behind all of it is said to be.

use super::*;
use std::sync::atomic::AtomicUsize;

impl World {
    /// Sagas that could not be drawn: since when, when tried, why.
    async fn undrawn(&self) -> Vec<(i64, i64, String)> {
        let rows = self.store.read(&UNDRAWN, Rows::one([1.into()])).await.unwrap();
        rows.iter().map(|row| (row[1].int().unwrap(), row[2].int().unwrap(), row[3].text().unwrap().into())).collect()
    }
}

#[tokio::test]
async fn a_saga_whose_definition_is_missing_is_shown_as_soon_as_it_is_there() {
    let mut world = World::new().await;
    world.put(1, 1, "ann", "created", "tea").await;
    world.put(2, 1, "zoe", "created", "tea").await;
    world.put(3, 1, "ann", "created", "tea").await;
    let mut projector = world.projector().await;
    assert!(!projector.look().await.unwrap());
    assert_eq!(world.numbers(&Filter::default()).await, ["N-0003", "N-0001"], "it holds up nobody");
    let reason = "E3001: definition zoes_order version 7 is not loaded".to_owned();
    assert_eq!(world.undrawn().await, [(1_000, 1_000, reason.clone())]);

    // Tried again, seldom, also by the next process.
    world.clock.advance(10_000);
    projector.look().await.unwrap();
    assert_eq!(world.undrawn().await, [(1_000, 1_000, reason.clone())]);
    let mut projector = world.projector().await;
    projector.look().await.unwrap();
    assert_eq!(world.undrawn().await, [(1_000, 11_000, reason)]);
    world.render.loaded.store(true, Relaxed);
    world.clock.advance(30_000);
    projector.look().await.unwrap();
    assert_eq!(world.numbers(&Filter::default()).await, ["N-0003", "N-0002", "N-0001"]);
    assert_eq!(world.undrawn().await, []);
}

#[tokio::test]
async fn a_panic_over_one_saga_holds_up_no_other() {
    let mut world = World::new().await;
    for (n, owner) in [(1, "ann"), (2, "eve"), (3, "ann")] {
        world.put(n, 1, owner, "created", "tea").await;
    }
    world.projector().await.look().await.unwrap();
    assert_eq!(world.numbers(&Filter::default()).await, ["N-0003", "N-0001"]);
    let reason = "E3004: its row cannot be read: drawing it panicked".to_owned();
    assert_eq!(world.undrawn().await, [(1_000, 1_000, reason)]);
}

#[tokio::test]
async fn a_definition_that_another_process_has_just_loaded_is_looked_for_at_once() {
    let mut world = World::new().await;
    world.put(1, 1, "zoe", "created", "tea").await;
    world.render.loaded.store(true, Relaxed);
    world.projector().await.look().await.unwrap();
    assert_eq!(world.numbers(&Filter::default()).await, ["N-0001"]);
    assert_eq!(world.undrawn().await, []);
}

#[tokio::test]
async fn a_rebuild_keeps_what_it_cannot_draw_and_lets_go_of_what_it_can() {
    let mut world = World::new().await;
    world.put(1, 1, "zoe", "created", "tea").await;
    world.put(2, 1, "ann", "created", "tea").await;
    world.projector().await;
    assert_eq!(world.rebuild().await, rebuild::Page { drawn: 1, undrawn: 1, ..rebuild::Page::default() });
    assert_eq!(world.undrawn().await.len(), 1);
    world.render.loaded.store(true, Relaxed);
    assert_eq!(world.rebuild().await, rebuild::Page { drawn: 2, ..rebuild::Page::default() });
    assert_eq!(world.undrawn().await, []);
}

/// A store that takes no status `bad`, fails while it is told to, and counts commits.
struct Picky {
    inner: Arc<SqliteStore>,
    fails: AtomicBool,
    commits: AtomicUsize,
}

impl Picky {
    fn new(world: &World) -> Arc<Self> {
        let (fails, commits) = (AtomicBool::new(false), AtomicUsize::new(0));
        Arc::new(Self { inner: world.store.clone(), fails, commits })
    }
}

#[async_trait]
impl Store for Picky {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        if self.fails.load(Relaxed) {
            return Err(StoreError::Failed { statement: statement.name.to_owned(), reason: "away".to_owned() });
        }
        self.inner.read(statement, rows).await
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        self.inner.assign(shard).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        if format!("{:?}", commit.writes).contains("\"bad\"") {
            return Err(CommitError::Data("no such text\0".to_owned()));
        }
        self.commits.fetch_add(1, Relaxed);
        self.inner.commit(commit).await
    }

    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }
}

#[tokio::test]
async fn what_the_store_refuses_of_one_saga_holds_up_no_other() {
    let mut world = World::new().await;
    for n in 0..9 {
        world.put(n, 1, "ann", if n == 4 || n == 5 { "bad" } else { "created" }, "tea").await;
    }
    let mut projector = world.projector_on(Picky::new(&world)).await;
    projector.look().await.unwrap();
    let shown = ["N-0008", "N-0007", "N-0006", "N-0003", "N-0002", "N-0001", "N-0000"];
    assert_eq!(world.numbers(&Filter::default()).await, shown);
    let kept = world.undrawn().await;
    assert_eq!(kept.len(), 2);
    assert!(kept.iter().all(|(.., reason)| reason.contains("no such text")), "{kept:?}");
    let position = world.store.read(&sql::POSITIONS, Rows::one([0.into()])).await.unwrap();
    assert_eq!(position[0][1].int(), Some(9), "and it goes on behind them");
    world.put(4, 2, "ann", "created", "tea").await;
    world.clock.advance(30_000);
    projector.look().await.unwrap();
    assert_eq!(world.numbers(&Filter::default()).await.len(), 8);
    world.clock.advance(30_000);
    projector.look().await.unwrap();
    assert_eq!(world.undrawn().await.len(), 1, "one is well");
}

#[tokio::test]
async fn a_rebuild_goes_on_behind_a_saga_that_the_store_refuses() {
    let mut world = World::new().await;
    for n in 0..9 {
        world.put(n, 1, "ann", if n == 4 || n == 5 { "bad" } else { "created" }, "tea").await;
    }
    world.projector_on(Picky::new(&world)).await;
    let rebuilt = world.rebuild_on(&*Picky::new(&world)).await;
    assert_eq!(rebuilt, rebuild::Page { drawn: 7, undrawn: 2, ..rebuild::Page::default() });
    let kept = world.undrawn().await;
    assert!(kept.len() == 2 && kept.iter().all(|(.., reason)| reason.contains("no such text")), "{kept:?}");
}

#[tokio::test]
async fn long_sagas_are_written_a_few_at_a_time() {
    let mut world = World::new().await;
    let long = " ".repeat(3 * 1024 * 1024);
    for n in 0..6 {
        let mut change = world.change(n, 1, "ann", "created", "tea");
        let number = format!("N-{n:04}");
        let state = json!([1, [number, "ann", "created", "tea"]]).to_string() + &long;
        change.writes[0] = Write::exact(&SAGA, Rows::one([id_of(&number).into(), 1.into(), state.into()]));
        world.store.commit(change).await.unwrap();
    }
    let store = Picky::new(&world);
    let mut projector = world.projector_on(store.clone()).await;
    store.commits.store(0, Relaxed);
    assert!(!projector.look().await.unwrap());
    assert_eq!(store.commits.load(Relaxed), 3, "two fit into 8 MiB");
    assert_eq!(world.numbers(&Filter::default()).await.len(), 6);
}

#[tokio::test]
async fn the_lag_is_the_age_of_the_oldest_change_that_may_be_missing() {
    let mut world = World::new().await;
    let store = Picky::new(&world);
    let mut projector = world.projector_on(store.clone()).await;
    let lag = projector.lag();
    projector.look().await.unwrap();
    assert_eq!(lag.ms(), 0);
    // A change in the pause: nobody has looked yet.
    world.clock.advance(2_000);
    world.put(1, 1, "ann", "created", "tea").await;
    assert_eq!(lag.ms(), 2_000, "what happened since the last look may be missing");
    projector.look().await.unwrap();
    assert_eq!(lag.ms(), 0);
    store.fails.store(true, Relaxed);
    world.clock.advance(90_000);
    assert!(projector.look().await.is_err());
    assert_eq!(lag.ms(), 90_000, "it grows while looks fail");
    store.fails.store(false, Relaxed);
    projector.look().await.unwrap();
    assert_eq!(lag.ms(), 0);
}

#[tokio::test]
async fn a_full_page_tells_of_what_lies_behind_it() {
    let mut world = World::new().await;
    let mut change = world.change(1, 1, "ann", "created", "tea");
    let mut events = Rows::new();
    (1..=2_100).for_each(|seq| events.push([0.into(), seq.into(), id_of("N-0001").into()]));
    change.writes[1] = Write::exact(&EVENT, events);
    world.store.commit(change).await.unwrap();
    let mut projector = world.projector().await;
    world.clock.advance(9_000);
    assert!(projector.look().await.unwrap());
    assert_eq!(projector.lag().ms(), 10_000 - (1_000 + 2_000), "since the last event of the page");
    assert!(!projector.look().await.unwrap());
    assert_eq!(projector.lag().ms(), 0);
}

/// A saga changes, and its projector shows it, between the reading and the writing of a rebuild's page.
#[tokio::test]
async fn a_rebuild_that_was_overtaken_reads_again() {
    let mut world = World::new().await;
    let mut projector = world.projector().await;
    world.put(1, 1, "ann", "created", "tea").await;
    projector.look().await.unwrap();
    let happens = tokio::sync::Mutex::new(None);
    let slow = Meanwhile { inner: world.store.clone(), happens };
    let (change, store) = (world.change(1, 2, "ann", "paid", "coffee"), world.store.clone());
    *slow.happens.lock().await = Some(Box::pin(async move {
        store.commit(change).await.unwrap();
        projector.look().await.unwrap();
    }));
    let begin = rebuild::Mark::beginning();
    // Its fence holds the shard of the saga's id; the events of these tests are all of shard 0.
    assert_eq!(SagaId(id_of("N-0001")).slot().partition(world.store.partitions()), 0);
    let page = rebuild::page(&slow, &*world.render, &begin, 1_000).await.unwrap();
    assert_eq!(page.drawn, 1);
    let goods = |value: &str| Filter { search: Some(("goods".to_owned(), value.to_owned())), ..Filter::default() };
    assert_eq!(world.numbers(&goods("coffee")).await, ["N-0001"]);
    assert_eq!(world.numbers(&goods("tea")).await, Vec::<String>::new());
    let found = world.store.read(&SEARCH, Rows::one([1.into()])).await.unwrap();
    assert_eq!(found.len(), 1, "nothing is left of the older version: {found:?}");
}
