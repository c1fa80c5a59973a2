//! A standby that lacks the last commits was promoted (Z14): numbers are given again, and nobody of before takes them for
//! its own. The rows are put back by hand here; `tests/services/promoted.rs` promotes a real one.

use crate::conformance::{SHARD, step};
use crate::database::Database;
use endstate_outbox::*;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};

/// The server's next timeline, as far as this database can tell.
async fn promoted(session: &mut PgConnection, era: i64) {
    let function = format!(
        "create or replace function endstate_era() returns bigint language plpgsql stable as $$ begin return {era}; end $$"
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
    promoted(&mut session, 1).await;
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
    for era in [0, 3, 3, 1] {
        promoted(&mut session, era).await;
        epochs.push(store.assign(SHARD).await.unwrap().epoch);
    }
    let era = |epoch: i64| (3 << 32) + epoch;
    assert_eq!(epochs, [1, 2, era(1), era(2), era(3)], "a copy on a server of its own counts on");
    let new = store.assign(ShardId { index: 3, ..SHARD }).await.unwrap();
    assert_eq!(new.epoch, (1 << 32) + 1, "also of a shard that was never owned");
}
