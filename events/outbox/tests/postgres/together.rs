//! Batches that wait for a session are written together, and none of them answers for another.

use crate::conformance::{PUT, names, step};
use crate::database::Database;
use endstate_events::Side;
use endstate_outbox::postgres::Settings;
use endstate_outbox::*;
use sqlx::{Executor as _, PgConnection};
use std::sync::Arc;

fn shard(index: u16) -> ShardId {
    ShardId { side: Side::Orchestrator, index }
}

/// A batch of a shard that writes one row.
fn batch(owner: Assignment, name: &str) -> Commit {
    let put = Write::exact(&PUT, Rows::one([name.into(), "1".into()])).apart();
    Commit { fences: vec![step(owner)], writes: vec![put], ..Commit::default() }
}

/// A store with one session for batches, and the owners of its shards.
async fn one_session(database: &Database) -> (Arc<PostgresStore>, Vec<Assignment>) {
    let store = PostgresStore::open(&Settings { writers: 1, ..database.settings() }).await.unwrap();
    let mut owners = Vec::new();
    for index in 0..4 {
        owners.push(store.assign(shard(index)).await.unwrap());
    }
    (store, owners)
}

/// Somebody who keeps a shard's row.
async fn locked(database: &Database, index: u16) -> PgConnection {
    let mut lock = database.session("test").await;
    lock.execute("begin").await.unwrap();
    let text = format!("select from shard where side = 'orchestrator' and shard = {index} for update");
    lock.execute(sqlx::AssertSqlSafe(text)).await.unwrap();
    lock
}

/// Until a batch waits for a row.
async fn blocked(database: &Database) {
    let waits = "select exists (select from pg_stat_activity where application_name = 'endstate write' \
                 and datname = current_database() and wait_event_type = 'Lock')";
    let mut observer = database.session("test").await;
    while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut observer).await.unwrap() {
        tokio::task::yield_now().await;
    }
}

type Committing = tokio::task::JoinHandle<Result<Vec<u64>, CommitError>>;

fn commit(store: &Arc<PostgresStore>, commit: Commit) -> Committing {
    let store = Arc::clone(store);
    tokio::spawn(async move { store.commit(commit).await })
}

/// Commits of the first shard that keeps the session busy, and of the others that come meanwhile.
async fn meanwhile(
    (database, store): (&Database, &Arc<PostgresStore>),
    first: Commit,
    others: Vec<Commit>,
) -> Vec<Result<Vec<u64>, CommitError>> {
    let mut lock = locked(database, 0).await;
    let mut tasks = vec![commit(store, first)];
    blocked(database).await;
    // Spawned in a row on one thread: all of them wait before the lock is let go.
    tasks.extend(others.into_iter().map(|other| commit(store, other)));
    tokio::task::yield_now().await;
    lock.execute("commit").await.unwrap();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap());
    }
    done
}

#[tokio::test]
async fn what_waits_is_written_together() {
    let database = Database::new().await;
    let (store, owners) = one_session(&database).await;
    let before = store.written();
    let others = vec![batch(owners[1], "b"), batch(owners[2], "c"), batch(owners[3], "d")];
    let done = meanwhile((&database, &store), batch(owners[0], "a"), others).await;
    assert_eq!(done, vec![Ok(vec![1]); 4]);
    let after = store.written();
    assert_eq!((after.0 - before.0, after.1 - before.1), (8, 2), "four fences and four rows, in two commits");
    assert_eq!(names(&*store, &["a", "b", "c", "d"]).await, ["a", "b", "c", "d"]);
    for (index, owner) in (0..4).zip(owners) {
        assert_eq!(store.assign(shard(index)).await.unwrap().positions, step(owner).positions);
    }
}

#[tokio::test]
async fn one_that_lost_its_shard_or_has_bad_data_fails_alone() {
    let database = Database::new().await;
    let (store, owners) = one_session(&database).await;
    let lost = Assignment { epoch: owners[1].epoch - 1, ..owners[1] };
    let others = vec![batch(lost, "b"), batch(owners[2], "zero \0 byte"), batch(owners[3], "d")];
    let done = meanwhile((&database, &store), batch(owners[0], "a"), others).await;
    assert_eq!((&done[0], &done[1]), (&Ok(vec![1]), &Err(CommitError::Fenced(shard(1)))));
    assert!(matches!(done[2], Err(CommitError::Data(_))), "{done:?}");
    assert_eq!(done[3], Ok(vec![1]));
    assert_eq!(names(&*store, &["a", "b", "d"]).await, ["a", "d"]);
}

/// A deadlock, a cancel, a full disk: the server has taken that one statement back, and goes on.
#[tokio::test]
async fn one_whose_outcome_is_known_puts_no_other_in_doubt() {
    let database = Database::new().await;
    let (store, owners) = one_session(&database).await;
    let mut session = database.session("test").await;
    session
        .execute(
            "create function refuse() returns trigger language plpgsql as $$ begin \
             raise exception 'met another' using errcode = new.name; end $$; \
             create trigger refuse before insert on system for each row when (new.value = '2') execute function refuse()",
        )
        .await
        .unwrap();
    for code in ["40P01", "57014", "53100"] {
        let put = Write::exact(&PUT, Rows::one([code.into(), "2".into()])).apart();
        let (first, last) = (store.assign(shard(0)).await.unwrap(), store.assign(shard(3)).await.unwrap());
        let refused = Commit { writes: vec![put], ..batch(owners[1], code) };
        let others = vec![refused, batch(last, &format!("after {code}"))];
        let first = batch(first, &format!("before {code}"));
        let done = meanwhile((&database, &store), first, others).await;
        assert_eq!((&done[0], &done[2]), (&Ok(vec![1]), &Ok(vec![1])), "{done:?}");
        assert!(matches!(&done[1], Err(CommitError::Doubt(said)) if said.starts_with(code)), "{done:?}");
    }
}

/// As after a failover to a server that still only reads.
#[tokio::test]
async fn a_session_that_may_not_write_is_not_lent_again() {
    let database = Database::new().await;
    let (store, owners) = one_session(&database).await;
    let mut session = database.session("test").await;
    session
        .execute(
            "create function turn() returns trigger language plpgsql as $$ begin \
             set default_transaction_read_only = on; return null; end $$; \
             create trigger turn after insert on system for each row when (new.value = 'turn') execute function turn()",
        )
        .await
        .unwrap();
    // From this write on its session, and it alone, only reads.
    let put = Write::exact(&PUT, Rows::one(["a".into(), "turn".into()])).apart();
    commit(&store, Commit { writes: vec![put], ..batch(owners[0], "a") }).await.unwrap().unwrap();
    let refused = commit(&store, batch(owners[1], "b")).await.unwrap();
    assert!(matches!(&refused, Err(CommitError::Doubt(said)) if said.starts_with("25006")), "{refused:?}");
    assert_eq!(commit(&store, batch(owners[2], "c")).await.unwrap(), Ok(vec![1]));
}

#[tokio::test]
async fn whoever_goes_away_in_mid_write_takes_no_other_batch_along() {
    let database = Database::new().await;
    let (store, owners) = one_session(&database).await;
    let (mut first_lock, mut second_lock) = (locked(&database, 0).await, locked(&database, 1).await);
    let first = commit(&store, batch(owners[0], "a"));
    blocked(&database).await;
    // The second is the next to have the session, and writes the third as well.
    let (second, third) = (commit(&store, batch(owners[1], "b")), commit(&store, batch(owners[2], "c")));
    tokio::task::yield_now().await;
    first_lock.execute("commit").await.unwrap();
    first.await.unwrap().unwrap();
    blocked(&database).await;
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    second_lock.execute("commit").await.unwrap();
    assert_eq!(third.await.unwrap(), Ok(vec![1]));
    assert_eq!(names(&*store, &["a", "b", "c"]).await, ["a", "b", "c"], "what has begun is finished");
}

#[tokio::test]
async fn a_batch_whose_session_wrote_others_is_written_all_the_same() {
    let database = Database::new().await;
    for round in 0..40 {
        // Whoever connects first writes what waits longest, which need not be its own: without fences nothing is joined.
        let store = PostgresStore::open(&Settings { writers: 2, ..database.settings() }).await.unwrap();
        let alone = |name: String| {
            let store = Arc::clone(&store);
            let put = Write::exact(&PUT, Rows::one([name.into(), "1".into()]));
            tokio::spawn(async move { store.commit(Commit { writes: vec![put], ..Commit::default() }).await })
        };
        let tasks: Vec<_> = (0..2).map(|one| alone(format!("alone-{round}-{one}"))).collect();
        for task in tasks {
            let done = tokio::time::timeout(std::time::Duration::from_secs(60), task).await;
            done.expect("it is written").unwrap().unwrap();
        }
    }
}
