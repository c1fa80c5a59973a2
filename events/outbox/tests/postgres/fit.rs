//! What a database must be before it is used, and that both stores have the same tables.

use crate::database::Database;
use endstate_events::{Environment, Side};
use endstate_outbox::postgres::Settings;
use endstate_outbox::postgres::examine::{Grade, examine};
use endstate_outbox::{
    Commit, CommitError, Fence, Positions, PostgresStore, ShardId, SqliteStore, Store as _, StoreError,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use std::collections::BTreeSet;
use std::time::Duration;

async fn refused(settings: &Settings) -> String {
    match PostgresStore::open(settings).await {
        Err(error @ StoreError::Unfit { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    }
}

#[tokio::test]
async fn z17_a_store_of_another_environment_or_size_is_refused() {
    let database = Database::new().await;
    drop(database.store().await);
    let said = refused(&Settings { environment: Environment::new("staging").unwrap(), ..database.settings() }).await;
    assert!(said.starts_with("E4003") && said.contains("`staging`"), "{said}");
    let said = refused(&Settings { partitions: 16, ..database.settings() }).await;
    assert!(said.contains("partitions `4`") && said.contains("`16`"), "{said}");
    database.store().await;
}

/// The first brokers are kept, and others are refused until somebody adopts them; the store's id is made once.
#[tokio::test]
async fn z17_a_store_goes_with_the_brokers_that_it_was_used_with_first() {
    let database = Database::new().await;
    let store = database.store().await;
    let id = store.id().await.unwrap();
    assert_eq!(store.cluster().await.unwrap(), None);
    store.goes_with("mistyped").await.unwrap();
    assert_eq!(store.cluster().await.unwrap(), None, "what has not let it in is not kept");
    store.goes_with("first").await.unwrap();
    assert!(!store.has_claimed("first").await.unwrap());
    store.keeps("first").await.unwrap();
    store.keeps("first").await.unwrap();
    for said in [store.goes_with("second").await, store.keeps("second").await] {
        let said = said.unwrap_err().to_string();
        assert!(said.starts_with("E4067") && said.contains("`first`") && said.contains("adopt second"), "{said}");
    }
    assert!(store.has_claimed("first").await.unwrap() && !store.has_claimed("second").await.unwrap());
    assert_eq!(store.adopt("second", None).await.unwrap().as_deref(), Some("first"));
    store.goes_with("second").await.unwrap();
    assert!(store.goes_with("first").await.is_err());
    assert!(!store.has_claimed("second").await.unwrap(), "nobody has looked there yet");
    PostgresStore::migrate(&database.url()).await.unwrap();
    assert_eq!(store.id().await.unwrap(), id);
    let other = Database::new().await.store().await.id().await.unwrap();
    assert!(other.len() == 36 && other != id, "{other}");
}

/// Who moves positions fences whoever reads on at the old ones, and does not do it while somebody may.
#[tokio::test]
async fn z17_positions_are_not_moved_under_a_process_that_runs() {
    let database = Database::new().await;
    let store = database.store().await;
    let shard = ShardId { side: Side::Orchestrator, index: 1 };
    let assigned = store.assign(shard).await.unwrap();
    let mut fence = Fence::still(assigned);
    fence.positions.progress = 5 << 10;
    store.commit(Commit { fences: vec![fence], ..Commit::default() }).await.unwrap();
    let other = ShardId { index: 2, ..shard };
    let mut further = Fence::still(store.assign(other).await.unwrap());
    further.positions.progress = 9 << 10;
    store.commit(Commit { fences: vec![further], ..Commit::default() }).await.unwrap();
    let watching = PostgresStore::watch(&database.settings()).await.unwrap();
    let said = watching.adopt("new", Some(&[])).await.unwrap_err().to_string();
    assert!(said.contains("still use this database"), "{said}");
    assert_eq!(watching.cluster().await.unwrap(), None, "all or nothing");
    drop(store);
    let beginnings = [(shard, Positions { progress: 3 << 10, ..Positions::default() })];
    let adopting = async {
        // The server ends sessions in its own time.
        while watching.adopt("new", Some(&beginnings)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), adopting).await.expect("nobody uses it any more");
    let store = database.store().await;
    let late = store.commit(Commit { fences: vec![Fence::still(fence.after())], ..Commit::default() }).await;
    assert_eq!(late, Err(CommitError::Fenced(shard)));
    assert_eq!(store.assign(shard).await.unwrap().positions.progress, 3 << 10, "what lay before was deleted");
    assert_eq!(store.assign(other).await.unwrap().positions.progress, 0, "nothing is known of its topic");
}

#[tokio::test]
async fn z17_a_database_that_may_lose_commits_is_refused() {
    let database = Database::new().await;
    let mut session = database.session("test").await;
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&mut session).await.unwrap();
    for (setting, bad) in [("synchronous_commit", "off"), ("default_transaction_isolation", "'serializable'")] {
        session.execute(AssertSqlSafe(format!("alter database {name} set {setting} = {bad}"))).await.unwrap();
        let said = refused(&database.settings()).await;
        assert!(said.contains(setting), "{said}");
        session.execute(AssertSqlSafe(format!("alter database {name} reset {setting}"))).await.unwrap();
    }
    database.store().await;
}

#[tokio::test]
async fn migrations_are_applied_once_whoever_comes() {
    let database = Database::empty().await;
    let said = refused(&database.settings()).await;
    assert!(said.contains("0001_shard") && said.contains("endstate migrate"), "{said}");
    let url = database.url();
    let (a, b) = tokio::join!(PostgresStore::migrate(&url), PostgresStore::migrate(&url));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(a.is_empty() != b.is_empty() && a.len() + b.len() >= 5, "{a:?} {b:?}");
    database.store().await;
}

#[tokio::test]
async fn a_newer_schema_is_lived_with_and_a_changed_one_is_not() {
    let database = Database::new().await;
    let mut session = database.session("test").await;
    session.execute("insert into migration (name, sha256) values ('9998_newer', 'x')").await.unwrap();
    database.store().await;
    session.execute("insert into migration (name, sha256) values ('9999_newer_contract', 'x')").await.unwrap();
    assert!(refused(&database.settings()).await.contains("9999_newer_contract"));
    session.execute("delete from migration where name like '999%'").await.unwrap();
    session.execute("update migration set sha256 = 'x' where name = '0002_saga'").await.unwrap();
    assert!(refused(&database.settings()).await.contains("0002_saga was applied with another text"));
    assert!(matches!(PostgresStore::migrate(&database.url()).await, Err(StoreError::Unfit { .. })));
}

#[tokio::test]
async fn an_examination_says_what_is_and_changes_nothing() {
    let graded = async |settings: &Settings| -> Vec<(&str, Grade)> {
        examine(settings, &PostgresStore::statements(), Duration::from_secs(3_600))
            .await
            .iter()
            .map(|finding| (finding.check, finding.grade))
            .collect()
    };
    let database = Database::empty().await;
    let settings = database.settings();
    let empty = graded(&settings).await;
    assert_eq!(empty.last(), Some(&("migrations", Grade::Bad)), "{empty:?}");
    assert!(empty.contains(&("standby", Grade::Mind)), "there is one server: {empty:?}");
    PostgresStore::migrate(&settings.url).await.unwrap();
    assert!(graded(&settings).await.contains(&("days", Grade::Mind)));
    database.store().await;
    let good = graded(&settings).await;
    assert!(good.iter().all(|(check, grade)| *grade == Grade::Good || *check == "standby"), "{good:?}");
    let other = Settings { environment: Environment::new("staging").unwrap(), ..settings.clone() };
    assert!(graded(&other).await.contains(&("belongs", Grade::Bad)));
    let nobody = Settings { url: "postgres://nobody@127.0.0.1:9/none".into(), ..settings };
    assert_eq!(graded(&nobody).await, [("reach", Grade::Bad)]);
}

/// A statement runs over both, so what it names must be in both. The outbox differs by design, and with it what the
/// embedded bus keeps.
#[tokio::test]
async fn both_stores_have_the_same_tables_and_columns() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path()).await.unwrap());
    let file = format!("sqlite://{}?mode=ro", folder.path().join("endstate.db").display());
    let mut embedded = sqlx::SqliteConnection::connect(&file).await.unwrap();
    let rows = embedded
        .fetch_all(
            "select m.name || '.' || c.name from sqlite_master m, pragma_table_info(m.name) c where m.type = 'table'",
        )
        .await
        .unwrap();
    let embedded: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let database = Database::new().await;
    let rows = database
        .session("test")
        .await
        .fetch_all(
            "select c.relname || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid \
             where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition \
             and a.attnum > 0 and not a.attisdropped",
        )
        .await
        .unwrap();
    let real: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let own = ["outbox.", "outbox_end.", "migration.", "spill.", "spill_end.", "debezium_outbox."];
    let common = |name: &&String| !own.iter().any(|table| name.starts_with(table));
    let lacking: Vec<_> = embedded.difference(&real).filter(common).collect();
    let more: Vec<_> = real.difference(&embedded).filter(common).collect();
    assert!(lacking.is_empty(), "migrations/postgres lacks {lacking:?}");
    assert_eq!(
        more,
        [
            "shard.era_outbox_seq",
            "shard.next_outbox_seq",
            "shard.position_spilled_progress",
            "shard.position_spilled_start",
            "shard.published_seq",
            "shard.timeline",
            "shard.witness_progress",
            "shard.witness_start"
        ],
        "where the store is the bus, nothing is numbered or spilled, and no log is another one"
    );
}
