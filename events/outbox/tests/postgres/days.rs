//! Days of events and outbox: there before they begin, made when missing, dropped when nobody needs them; and what the
//! outbox holds.

use crate::conformance::{SHARD, step};
use crate::database::Database;
use endstate_events::{
    Direction, EffectId, Envelope, Input, InputBody, Json, Lane, Message, Reply, SCHEMA_VERSION, SagaId, Slot, Topic,
    Verdict,
};
use endstate_outbox::postgres::Settings;
use endstate_outbox::*;
use sqlx::{Executor as _, Row as _};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const DAY_MS: i64 = 86_400_000;

static EVENT: Statement = Statement {
    name: "test.event",
    columns: &[Kind::Int, Kind::Id, Kind::Int],
    sql: "with r(seq, saga, time_ms) as ({rows}) insert into event (shard, seq, saga, version, events, time_ms, body) \
          select 2, seq, saga, 0, 1, time_ms, '[]' from r",
};

pub(crate) fn event(seq: i64, time_ms: i64) -> Write {
    Write::exact(&EVENT, Rows::one([seq.into(), uuid::Uuid::from_u128(7).into(), time_ms.into()]))
}

async fn partitions(database: &Database, parent: &str) -> Vec<String> {
    let query =
        sqlx::query("select inhrelid::regclass::text from pg_inherits where inhparent = $1::regclass order by 1");
    let rows = query.bind(parent).fetch_all(&mut database.session("test").await).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn message(name: &str, partition: u16) -> Outgoing {
    let saga = SagaId::mint(1, Slot::of("k"), 7);
    let effect_id = EffectId { saga, step: "s".into(), item: String::new(), direction: Direction::Do, round: 0 };
    let verdict = Verdict::Done { data: Json::Null };
    let message = Message::Input(Input { saga, body: InputBody::Reply(Reply { effect_id, verdict }) });
    let envelope =
        Envelope { id: name.into(), schema: SCHEMA_VERSION, time_ms: 1, key: "k".into(), lane: Lane::Live, message };
    Outgoing { topic: Topic::Progress, partition, envelope: Arc::new(envelope) }
}

fn parcels(messages: Vec<Outgoing>) -> Vec<Parcel> {
    Parcel::pack(messages, |_, _| Ok(())).unwrap()
}

#[tokio::test]
async fn z19_a_week_is_there_before_it_begins_and_a_missing_day_is_made_by_who_needs_it() {
    let database = Database::new().await;
    let store = database.store().await;
    for parent in ["event", "outbox"] {
        assert_eq!(partitions(&database, parent).await.len(), 8, "today and seven days");
    }
    let far = SystemClock.now_ms() + 400 * DAY_MS;
    let commit = |seq, times: &[i64]| {
        let writes = times.iter().map(|time_ms| event(seq, *time_ms)).collect();
        store.commit(Commit { writes, ..Commit::default() })
    };
    let (a, b) = tokio::join!(commit(1, &[far, far + 3 * DAY_MS]), commit(2, &[far + 3 * DAY_MS]));
    assert_eq!((a, b), (Ok(vec![1, 1]), Ok(vec![1])), "the clock jumped, and nothing had prepared for it");
    assert_eq!(partitions(&database, "event").await.len(), 10);
}

#[tokio::test]
async fn messages_are_numbered_by_the_fence_and_read_from_the_mark_on() {
    let database = Database::new().await;
    let store = database.store().await;
    let mut owner = store.assign(SHARD).await.unwrap();
    assert_eq!((owner.next_outbox_seq, owner.published_seq), (1, 1));
    for batch in [vec![("a", 0), ("b", 0), ("c", 1)], vec![("d", 1), ("e", 3)]] {
        let fence = Fence { next_outbox_seq: owner.next_outbox_seq + batch.len() as i64, ..step(owner) };
        let messages = parcels(batch.into_iter().map(|(name, partition)| message(name, partition)).collect());
        store.commit(Commit { fences: vec![fence], messages, ..Commit::default() }).await.unwrap();
        owner = fence.after();
    }
    let read = async |from, limit| {
        let found = store.outgoing(SHARD, from, limit).await.unwrap();
        found.into_iter().map(|(seq, m)| (seq, m.envelope.id.clone(), m.partition)).collect::<Vec<_>>()
    };
    let all = [(1, "a", 0), (2, "b", 0), (3, "c", 1), (4, "d", 1), (5, "e", 3)].map(|(n, id, p)| (n, id.to_owned(), p));
    assert_eq!(read(1, 100).await, all);
    assert_eq!(read(2, 100).await, all[1..], "from the middle of a row");
    assert_eq!(read(2, 1).await, all[1..2]);
    assert_eq!(read(6, 100).await, []);
    let miscounted = store.commit(Commit {
        fences: vec![step(owner)],
        messages: parcels(vec![message("f", 0)]),
        ..Commit::default()
    });
    assert!(matches!(miscounted.await, Err(CommitError::Data(_))));
    let fence = Fence { published_seq: 4, ..step(owner) };
    store.commit(Commit { fences: vec![fence], ..Commit::default() }).await.unwrap();
    let next = store.assign(SHARD).await.unwrap();
    assert_eq!((next.next_outbox_seq, next.published_seq), (6, 4), "what the next owner publishes again");
}

/// An event a month ago, and one the day before. Returns the time of the first.
async fn two_old_days(store: &PostgresStore) -> i64 {
    let old = SystemClock.now_ms() - 30 * DAY_MS;
    let writes = vec![event(1, old), event(2, old - DAY_MS)];
    store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
    old
}

#[tokio::test]
async fn a_snapshot_frees_the_days_before_it() {
    let database = Database::new().await;
    let store = database.store().await;
    let mut session = database.session("test").await;
    two_old_days(&store).await;
    session
        .execute(
            "insert into saga (id, shard, version, phase, state) \
             values ('00000000-0000-0000-0000-000000000007', 2, 1, 'parked', '{}')",
        )
        .await
        .unwrap();
    session.execute("insert into projection (shard, seq) values (2, 2)").await.unwrap();
    let days = async || {
        store.drop_old_days(1, 1).await.unwrap();
        partitions(&database, "event").await.len()
    };
    assert_eq!(days().await, 10, "it is open");
    let snapshot =
        "insert into snapshot (saga, version, time_ms) values ('00000000-0000-0000-0000-000000000007', 0, 0)";
    session.execute(snapshot).await.unwrap();
    assert_eq!(days().await, 10, "the snapshot itself stays");
    session.execute("update snapshot set version = 1").await.unwrap();
    session.execute("update projection set seq = 1").await.unwrap();
    assert_eq!(days().await, 9, "what the view has not followed stays");
    session.execute("update projection set seq = 2").await.unwrap();
    assert_eq!(days().await, 8);
}

#[tokio::test]
async fn old_days_go_when_nobody_needs_them() {
    let database = Database::new().await;
    let store = database.store().await;
    let mut session = database.session("test").await;
    let old = two_old_days(&store).await;
    let owner = store.assign(SHARD).await.unwrap();
    let fence = Fence { next_outbox_seq: 2, ..step(owner) };
    store
        .commit(Commit { fences: vec![fence], messages: parcels(vec![message("a", 0)]), ..Commit::default() })
        .await
        .unwrap();
    // The message was sent a month ago.
    let day = old.div_euclid(DAY_MS);
    sqlx::query("select endstate_partition('outbox', $1)").bind(day).execute(&mut session).await.unwrap();
    sqlx::query("update outbox set time_ms = $1").bind(old).execute(&mut session).await.unwrap();
    session
        .execute(
            "insert into saga (id, shard, version, phase, state) \
             values ('00000000-0000-0000-0000-000000000007', 2, 1, 'parked', '{}')",
        )
        .await
        .unwrap();
    let count = async |parent| partitions(&database, parent).await.len();
    store.drop_old_days(1, 1).await.unwrap();
    assert_eq!(count("event").await, 10, "unseen by the view, and of an open saga");
    assert_eq!(count("outbox").await, 9, "of two days made, one is empty, and one holds what is unpublished");
    let fence = Fence { published_seq: 2, ..step(fence.after()) };
    store.commit(Commit { fences: vec![fence], ..Commit::default() }).await.unwrap();
    session.execute("insert into projection (shard, seq) values (2, 2)").await.unwrap();
    assert_eq!(store.drop_old_days(1, 1).await.unwrap().len(), 1, "the message was published");
    session.execute("update saga set phase = 'ended'").await.unwrap();
    assert!(store.drop_old_days(1, 1).await.unwrap().is_empty(), "its timeline is still shown");
    session.execute("delete from saga").await.unwrap();
    assert!(store.drop_old_days(1, 60).await.unwrap().is_empty(), "too young");
    assert_eq!(store.drop_old_days(1, 1).await.unwrap().len(), 2, "both days of events");
    assert_eq!((count("event").await, count("outbox").await), (8, 8));
}

/// A store whose outbox has an old day that nobody needs; its name.
async fn with_an_old_day(database: &Database) -> (Arc<PostgresStore>, String) {
    let store = database.store().await;
    let day = SystemClock.now_ms().div_euclid(DAY_MS) - 30;
    let mut session = database.session("test").await;
    sqlx::query("select endstate_partition('outbox', $1)").bind(day).execute(&mut session).await.unwrap();
    let name = partitions(database, "outbox").await.remove(0);
    (store, name)
}

async fn exists(database: &Database, table: &str) -> bool {
    let query = sqlx::query_scalar("select to_regclass($1) is not null").bind(table);
    query.fetch_one(&mut database.session("test").await).await.unwrap()
}

#[tokio::test]
async fn z19_a_removal_that_was_cut_off_while_it_detached_is_finished() {
    let database = Database::new().await;
    let (store, day) = with_an_old_day(&database).await;
    // A reader of the table keeps the removal waiting between its two transactions.
    let (mut reader, mut session) = (database.session("reader").await, database.session("test").await);
    reader.execute("begin").await.unwrap();
    reader.execute("select count(*) from outbox").await.unwrap();
    let removing = tokio::spawn({
        let store = store.clone();
        async move { store.drop_old_days(7, 7).await }
    });
    let pending = "select exists (select from pg_inherits where inhrelid = to_regclass($1) and inhdetachpending)";
    while !sqlx::query_scalar::<_, bool>(pending).bind(&day).fetch_one(&mut session).await.unwrap() {
        tokio::task::yield_now().await;
    }
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity \
               where datname = current_database() and application_name = 'endstate removal' and query like 'alter table outbox detach%' and pid <> pg_backend_pid()";
    session.execute(cut).await.unwrap();
    assert!(removing.await.unwrap().is_err());
    reader.execute("rollback").await.unwrap();
    assert!(exists(&database, &day).await, "neither there nor gone");
    assert_eq!(store.old_days(7, 7).await.unwrap(), Vec::<String>::new(), "it is no day of the table any more");
    assert_eq!(store.drop_old_days(7, 7).await.unwrap(), std::slice::from_ref(&day));
    assert!(!exists(&database, &day).await);
    assert_eq!(partitions(&database, "outbox").await.len(), 8);
}

#[tokio::test]
async fn z19_a_removal_that_somebody_stands_in_the_way_of_gives_up_and_the_next_one_goes_on() {
    let database = Database::new().await;
    let (_, day) = with_an_old_day(&database).await;
    let hasty = Settings { lock_wait: Duration::from_millis(50), ..database.settings() };
    let store = PostgresStore::open(&hasty).await.unwrap();
    let mut reader = database.session("reader").await;
    reader.execute("begin").await.unwrap();
    reader.execute("select count(*) from outbox").await.unwrap();
    for _ in 0..2 {
        let said = store.drop_old_days(7, 7).await.unwrap_err().to_string();
        assert!(said.contains("E4043") && said.contains("lock timeout"), "{said}");
        let owner = store.assign(SHARD).await.unwrap();
        let fence = Fence { next_outbox_seq: owner.next_outbox_seq + 1, ..step(owner) };
        let messages = vec![message("a", 0)];
        store
            .commit(Commit { fences: vec![fence], messages: parcels(messages), ..Commit::default() })
            .await
            .expect("others go on");
    }
    reader.execute("rollback").await.unwrap();
    assert_eq!(store.drop_old_days(7, 7).await.unwrap(), std::slice::from_ref(&day));
    assert!(!exists(&database, &day).await);
}

#[tokio::test]
async fn z19_a_day_that_was_detached_by_us_is_dropped_and_one_that_somebody_else_detached_stays() {
    let database = Database::new().await;
    let (store, day) = with_an_old_day(&database).await;
    let mut session = database.session("test").await;
    let theirs = partitions(&database, "event").await.pop().unwrap();
    let detach =
        |parent: &str, name: &str| sqlx::AssertSqlSafe(format!("alter table {parent} detach partition {name}"));
    session.execute(detach("event", &theirs)).await.unwrap();
    // As far as a removal gets before it is killed.
    let mark = format!("comment on table {day} is 'endstate: dropped as soon as it is detached'");
    session.execute(sqlx::AssertSqlSafe(mark)).await.unwrap();
    assert_eq!(store.old_days(7, 7).await.unwrap(), std::slice::from_ref(&day), "a mark alone changes nothing");
    session.execute(detach("outbox", &day)).await.unwrap();
    assert_eq!(store.drop_old_days(7, 7).await.unwrap(), std::slice::from_ref(&day));
    assert_eq!((exists(&database, &day).await, exists(&database, &theirs).await), (false, true));
    assert!(store.drop_old_days(7, 7).await.unwrap().is_empty());
}

/// Makes days of the outbox, so many days ago; their names, the oldest first.
async fn make_days(database: &Database, ago: &[i64]) -> Vec<String> {
    let mut session = database.session("test").await;
    let today = SystemClock.now_ms().div_euclid(DAY_MS);
    for ago in ago {
        sqlx::query("select endstate_partition('outbox', $1)").bind(today - ago).execute(&mut session).await.unwrap();
    }
    partitions(database, "outbox").await.into_iter().take(ago.len()).collect()
}

#[tokio::test]
async fn a_day_that_cannot_be_looked_at_keeps_no_other_one() {
    let database = Database::new().await;
    let days = make_days(&database, &[30, 29, 28]).await;
    let hasty = Settings { lock_wait: Duration::from_millis(50), ..database.settings() };
    let store = PostgresStore::open(&hasty).await.unwrap();
    two_old_days(&store).await;
    let mut session = database.session("test").await;
    session.execute("insert into projection (shard, seq) values (2, 2)").await.unwrap();
    let mut other = database.session("other").await;
    other.execute("begin").await.unwrap();
    other.execute(sqlx::AssertSqlSafe(format!("lock table {} in access exclusive mode", days[0]))).await.unwrap();
    let said = store.old_days(7, 7).await.unwrap_err().to_string();
    assert!(said.contains("E4043") && said.contains(&days[1]) && !said.contains(&days[0]), "{said}");
    let said = store.drop_old_days(7, 7).await.unwrap_err().to_string();
    assert!(said.contains("E4043") && said.contains(&days[2]), "{said}");
    let left = (partitions(&database, "outbox").await, partitions(&database, "event").await);
    assert_eq!((left.0.len(), left.1.len(), &left.0[0]), (9, 8, &days[0]), "all others went, and those of events");
    other.execute("rollback").await.unwrap();
    assert_eq!(store.drop_old_days(7, 7).await.unwrap(), days[..1]);
}

/// Whoever reads every row of a published day does not come to its end in time.
#[tokio::test]
async fn whether_a_day_of_the_outbox_is_published_is_looked_up_by_number() {
    let database = Database::new().await;
    let store = database.store().await;
    let day = make_days(&database, &[30]).await.remove(0);
    let mut other = database.session("other").await;
    other.execute("begin").await.unwrap();
    other.execute(sqlx::AssertSqlSafe(format!("lock table {day} in access exclusive mode"))).await.unwrap();
    let removing = tokio::spawn({
        let store = store.clone();
        async move { store.drop_old_days(7, 7).await }
    });
    // What the removal asks about the day, and waits with for the lock.
    let asked = "select query from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' \
                 and application_name = 'endstate removal' and query like 'select exists%'";
    let mut session = database.session("test").await;
    let text = loop {
        let found = sqlx::query_scalar::<_, String>(asked).fetch_optional(&mut session).await.unwrap();
        if let Some(text) = found {
            break text;
        }
        tokio::task::yield_now().await;
    };
    assert!(text.contains(&day), "{text}");
    other.execute("set local enable_seqscan = off").await.unwrap();
    let plan = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(format!("explain {text}")));
    let plan = plan.fetch_all(&mut other).await.unwrap();
    assert!(plan.iter().any(|line| line.contains("Index Cond") && line.contains("(seq > ")), "{plan:#?}");
    other.execute("rollback").await.unwrap();
    assert_eq!(removing.await.unwrap().unwrap(), [day]);
}

#[tokio::test]
async fn which_days_are_old_the_databases_clock_says() {
    let database = Database::new().await;
    let days = make_days(&database, &[60, 40]).await;
    let mut session = database.session("test").await;
    // As the database sees it, this process is 40 days ahead.
    let behind = "create function public.clock_timestamp() returns timestamptz language sql \
                  return pg_catalog.clock_timestamp() - interval '40 days'";
    session.execute(behind).await.unwrap();
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&mut session).await.unwrap();
    let first = format!("alter database {name} set search_path = public, pg_catalog");
    session.execute(sqlx::AssertSqlSafe(first)).await.unwrap();
    let store = database.store().await;
    assert_eq!(store.drop_old_days(1, 1).await.unwrap(), days[..1], "the other one is today");
    assert!(exists(&database, &days[1]).await);
}
