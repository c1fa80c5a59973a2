//! A standby that lacks the last commits was promoted (Z14): numbers are given again, and nobody of before takes them for
//! its own. The rows are put back by hand here; `tests/services/promoted.rs` promotes a real one.

use crate::conformance::{SHARD, step};
use crate::database::Database;
use endstate_outbox::*;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};

/// The server's next timeline, as far as this database can tell.
async fn promoted(session: &mut PgConnection, timeline: i64) {
    let function = format!(
        "create or replace function endstate_timeline() returns bigint language plpgsql stable as \
         $$ begin return {timeline}; end $$"
    );
    session.execute(AssertSqlSafe(function)).await.unwrap();
}

#[tokio::test]
async fn z14_an_owner_that_the_promoted_standby_has_never_heard_of_writes_nothing() {
    let database = Database::new().await;
    let mut session = database.session("test").await;
    let store = database.store().await;
    store.assign(SHARD).await.unwrap();
    // The next one took over and wrote a batch, and both are lost.
    session.execute("create table kept as select * from shard").await.unwrap();
    let lost = store.assign(SHARD).await.unwrap();
    let commit = |fence, name: &'static str| {
        let writes = vec![Write::exact(&crate::conformance::PUT, Rows::one([name.into(), "x".into()]))];
        store.commit(Commit { fences: vec![fence], writes, ..Commit::default() })
    };
    commit(step(lost), "lost").await.unwrap();
    let away = step(lost).after();
    session.execute("delete from shard; insert into shard select * from kept").await.unwrap();
    session.execute("delete from system where name = 'lost'").await.unwrap();
    promoted(&mut session, 2).await;
    // Who has it now reads the same records again, and comes to the same numbers with other content.
    let owner = store.assign(SHARD).await.unwrap();
    assert_eq!((owner.next_seq, owner.positions), (lost.next_seq, lost.positions));
    commit(step(owner), "again").await.unwrap();
    let said = commit(step(away), "late").await;
    assert_eq!(said, Err(CommitError::Fenced(SHARD)), "what it remembers is not what is there");
    assert!(owner.epoch > lost.epoch && owner.epoch >> 32 == 1, "{}", owner.epoch);
}

#[tokio::test]
async fn z14_an_era_begins_once_and_never_goes_back() {
    let database = Database::new().await;
    let mut session = database.session("test").await;
    let store = database.store().await;
    let mut epochs = vec![store.assign(SHARD).await.unwrap().epoch];
    for timeline in [1, 4, 4, 2, 0, 2] {
        promoted(&mut session, timeline).await;
        epochs.push(store.assign(SHARD).await.unwrap().epoch);
    }
    let era = |era: i64, epoch: i64| (era << 32) + epoch;
    assert_eq!(epochs[..4], [1, 2, era(3, 1), era(3, 2)]);
    assert_eq!(epochs[4..5], [era(4, 1)], "a copy on a server that counts anew, as after an upgrade of its data");
    assert_eq!(
        epochs[5..],
        [era(5, 1), era(5, 2)],
        "a server without timelines is another one; nothing is known of it"
    );
    let new = store.assign(ShardId { index: 3, ..SHARD }).await.unwrap();
    assert_eq!(new.epoch, era(1, 1), "also of a shard that was never owned");
}

/// The row may be as the owner remembers it, though what others wrote is lost.
#[tokio::test]
async fn z14_an_owner_whose_row_is_as_it_was_assigns_himself_anew_all_the_same() {
    let database = Database::new().await;
    let store = database.store().await;
    let mut news = store.timeline().unwrap();
    let owner = store.assign(SHARD).await.unwrap();
    let commit = |fence| store.commit(Commit { fences: vec![fence], ..Commit::default() });
    commit(step(owner)).await.unwrap();
    assert!(store.now_ms().await.unwrap().is_some() && !news.has_changed().unwrap(), "it is the server of before");
    promoted(&mut database.session("test").await, 2).await;
    assert_eq!(commit(step(step(owner).after())).await, Err(CommitError::Fenced(SHARD)));
    assert!(
        store.now_ms().await.unwrap().is_some() && news.has_changed().unwrap(),
        "who has nothing to write hears of it"
    );
    news.mark_unchanged();
    commit(step(store.assign(SHARD).await.unwrap())).await.unwrap();
    assert!(store.now_ms().await.unwrap().is_some() && !news.has_changed().unwrap());
}
