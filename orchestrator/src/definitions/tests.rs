//! What processes know of each other's definitions, and what an older program has left.

use super::*;
use async_trait::async_trait;
use endstate_outbox::{Assignment, Row, ShardId, SqliteStore, Statement};
use endstate_saga::definition::shipped;
use std::pin::Pin;
use std::sync::Mutex;

fn bench() -> Source {
    shipped().into_iter().find(|source| source.file.contains("bench_saga")).unwrap()
}

/// Stores a text as an older program would have, without looking at it.
async fn store_text(store: &SqliteStore, source: &Source, version: i64, sha256: &str) {
    let text = serde_json::to_string(source).unwrap();
    let row = ["bench_saga".into(), version.into(), sha256.into(), text.into(), 0.into()];
    let writes =
        vec![Write::exact(&INSERT, Rows::one(row)), Write::exact(&ACTIVATE, Rows::one(activation("bench_saga", 1, 0)))];
    store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
}

#[tokio::test]
async fn rules_made_stricter_later_stop_no_stored_definition() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let sha256 = Definition::load(&bench()).unwrap().sha256().to_owned();
    // To its author, samples that cannot be read are a fault; to its sagas they are nothing.
    let mut careless = bench();
    careless.samples = [("ok.json".to_owned(), "{".to_owned())].into();
    assert!(Definition::load(&careless).is_err());
    store_text(&store, &careless, 1, &sha256).await;
    let definitions = Definitions::open(store).await.unwrap();
    assert_eq!(definitions.active("bench_saga").unwrap().sha256(), sha256);
}

#[tokio::test]
async fn a_stored_definition_that_cannot_be_read_stops_nobody_and_can_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let sha256 = Definition::load(&bench()).unwrap().sha256().to_owned();
    let damaged = Source { text: "saga: [".to_owned(), ..bench() };
    store_text(&store, &damaged, 1, &sha256).await;
    let definitions = Definitions::open(store).await.unwrap();
    assert!(definitions.active("bench_saga").is_none() && definitions.list().is_empty());
    let other = Source { text: format!("{}\n# more", bench().text), ..bench() };
    let changed = definitions.load(&other, 0).await;
    assert!(matches!(changed, Err(DefinitionsError::Changed { .. })), "its version is taken");
    definitions.load(&bench(), 0).await.unwrap();
    assert!(definitions.active("bench_saga").is_some());
}

#[test]
fn compiling_does_not_block_the_threads_that_serve_calls() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let definitions = Definitions::open(SqliteStore::open(folder.path()).await.unwrap()).await.unwrap();
        // The only thread for what blocks is taken, so whoever compiles on it has to wait.
        let (release, held) = std::sync::mpsc::channel::<()>();
        let holding = tokio::task::spawn_blocking(move || held.recv());
        let faulty = Source { text: "saga: x".to_owned(), ..bench() };
        let mut loading = std::pin::pin!(definitions.load(&faulty, 0));
        tokio::select! {
            biased;
            _ = &mut loading => panic!("it was compiled on a thread that serves calls"),
            () = std::future::ready(()) => {}
        }
        release.send(()).unwrap();
        assert!(matches!(loading.await, Err(DefinitionsError::Faulty(_))));
        holding.await.unwrap().unwrap();
    });
}

fn version(n: u32) -> Source {
    let text = bench().text.replacen("version: 1", &format!("version: {n}"), 1);
    Source { text, ..bench() }
}

fn active(definitions: &Definitions) -> Option<u32> {
    definitions.active("bench_saga").map(|definition| definition.version())
}

/// Two processes over one store, which have read nothing yet.
async fn two(folder: &std::path::Path) -> [Arc<Definitions>; 2] {
    let store = SqliteStore::open(folder).await.unwrap();
    [Definitions::open(store.clone()).await.unwrap(), Definitions::open(store).await.unwrap()]
}

#[tokio::test]
async fn of_versions_that_two_processes_load_the_first_alone_is_activated_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = two(folder.path()).await;
    one.load(&version(1), 0).await.unwrap();
    other.load(&version(2), 0).await.unwrap();
    assert_eq!([active(&one), active(&other)], [Some(1), Some(1)]);
    one.refresh().await.unwrap();
    assert_eq!(active(&one), Some(1));
    let same = other.load(&version(1), 0).await.unwrap();
    assert_eq!(same.version(), 1, "the same text again, through somebody else");
}

#[tokio::test]
async fn of_processes_that_start_at_a_time_each_knows_what_is_active() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = two(folder.path()).await;
    let renamed = || Source { text: version(1).text.replacen("bench_saga", "bench_too", 1), ..bench() };
    one.load(&version(1), 0).await.unwrap();
    one.load(&renamed(), 0).await.unwrap();
    other.load(&version(1), 0).await.unwrap();
    other.load(&renamed(), 0).await.unwrap();
    for name in ["bench_saga", "bench_too"] {
        assert_eq!(other.active_version(name), Some(1), "{name}: a saga that starts one must not look again for it");
    }
}

#[tokio::test]
async fn what_another_process_has_just_loaded_is_activated_and_rolled_back_from() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = two(folder.path()).await;
    for n in 1..=3 {
        one.load(&version(n), 0).await.unwrap();
    }
    other.activate("bench_saga", 2, 0).await.unwrap();
    one.activate("bench_saga", 3, 0).await.unwrap();
    assert_eq!(other.roll_back("bench_saga", 0).await.unwrap(), 2, "the one before that which is active now");
    assert_eq!(active(&other), Some(2));
    one.refresh().await.unwrap();
    assert_eq!(active(&one), Some(2));
    assert!(matches!(other.activate("bench_saga", 9, 0).await, Err(DefinitionsError::Unknown { version: 9, .. })));
    let nothing = other.roll_back("nobody", 0).await;
    assert!(matches!(nothing, Err(DefinitionsError::NoPrevious(_))));
}

type Happening = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A store that counts what is read, and on which something happens between the next reading of a statement and its answer.
struct Meanwhile {
    inner: Arc<SqliteStore>,
    reads: Mutex<Vec<&'static str>>,
    happens: Mutex<Option<(&'static str, Happening)>>,
}

impl Meanwhile {
    async fn on(folder: &std::path::Path) -> Arc<Self> {
        let (inner, reads) = (SqliteStore::open(folder).await.unwrap(), Mutex::default());
        Arc::new(Self { inner, reads, happens: Mutex::default() })
    }
}

#[async_trait]
impl Store for Meanwhile {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        let found = self.inner.read(statement, rows).await;
        self.reads.lock().unwrap().push(statement.name);
        let happens = self.happens.lock().unwrap().take_if(|(name, _)| *name == statement.name);
        if let Some((_, happens)) = happens {
            happens.await;
        }
        found
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
async fn what_was_read_before_an_activation_does_not_take_it_back() {
    for statement in [VERSIONS.name, ACTIVE.name] {
        let folder = tempfile::tempdir().unwrap();
        let store = Meanwhile::on(folder.path()).await;
        let definitions = Definitions::open(store.clone()).await.unwrap();
        definitions.load(&version(1), 0).await.unwrap();
        definitions.load(&version(2), 0).await.unwrap();
        let switching = definitions.clone();
        let happens = async move { switching.activate("bench_saga", 2, 0).await.unwrap() };
        *store.happens.lock().unwrap() = Some((statement, Box::pin(happens)));
        definitions.refresh().await.unwrap();
        assert!(store.happens.lock().unwrap().is_none(), "it has happened");
        assert_eq!(active(&definitions), Some(2), "after {statement}");
    }
}

#[tokio::test]
async fn whoever_names_what_nobody_knows_does_not_make_a_process_read_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = Meanwhile::on(folder.path()).await;
    let definitions = Definitions::open(store.clone()).await.unwrap();
    definitions.load(&version(1), 0).await.unwrap();
    store.reads.lock().unwrap().clear();
    let begun = Instant::now();
    for n in 0..100 {
        assert!(definitions.wanted(&format!("nobody_{n}"), None).await.unwrap().is_none());
    }
    // One; on a machine that took longer for all of them, one more for every two seconds.
    let most = 1 + begun.elapsed().as_secs() / LOOK.as_secs();
    assert!(store.reads.lock().unwrap().len() <= most as usize);
    assert_eq!(definitions.wanted("bench_saga", None).await.unwrap().unwrap().version(), 1);
}

#[tokio::test]
async fn texts_of_versions_that_are_known_are_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Meanwhile::on(folder.path()).await;
    let definitions = Definitions::open(store.clone()).await.unwrap();
    definitions.load(&version(1), 0).await.unwrap();
    let elsewhere = Definitions::open(store.clone()).await.unwrap();
    store.reads.lock().unwrap().clear();
    elsewhere.refresh().await.unwrap();
    assert_eq!(*store.reads.lock().unwrap(), [VERSIONS.name, ACTIVE.name]);
    definitions.load(&version(2), 0).await.unwrap();
    store.reads.lock().unwrap().clear();
    elsewhere.refresh().await.unwrap();
    assert_eq!(*store.reads.lock().unwrap(), [VERSIONS.name, TEXTS.name, ACTIVE.name]);
    assert!(elsewhere.get("bench_saga", 2).is_some());
}

#[tokio::test]
async fn a_version_that_a_saga_has_is_read_when_it_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = two(folder.path()).await;
    one.load(&version(1), 0).await.unwrap();
    assert!(other.get("bench_saga", 1).is_none());
    assert_eq!(other.wanted("bench_saga", None).await.unwrap().unwrap().version(), 1);
    one.load(&version(2), 0).await.unwrap();
    assert_eq!(other.of_saga("bench_saga", 2).await.unwrap().unwrap().version(), 2);
    assert!(other.of_saga("bench_saga", 3).await.unwrap().is_none());
}
