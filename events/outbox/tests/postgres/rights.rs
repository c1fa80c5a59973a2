//! What a role needs: it owns its database, and no more.

use crate::conformance::{SHARD, put, step};
use crate::database::Database;
use crate::days::{DAY_MS, event};
use endstate_outbox::postgres::examine::{Grade, examine};
use endstate_outbox::*;
use sqlx::{AssertSqlSafe, Executor as _};
use std::time::Duration;

/// What is not as it should be, but that there is no standby, and how many sessions other tests have.
async fn complaints(database: &Database) -> Vec<(&'static str, Grade)> {
    let found = examine(&database.settings(), &PostgresStore::statements(), Duration::from_secs(3_600)).await;
    let bad = found.iter().filter(|finding| finding.grade != Grade::Good);
    let bad = bad.filter(|finding| !["standby", "sessions"].contains(&finding.check));
    bad.map(|finding| (finding.check, finding.grade)).collect()
}

#[tokio::test]
async fn a_role_that_owns_its_database_and_may_nothing_else_is_enough() {
    let database = Database::of_a_plain_role().await;
    assert!(!PostgresStore::migrate(&database.url()).await.unwrap().is_empty());
    let store = database.store().await;
    let owner = store.assign(SHARD).await.unwrap();
    // A month ago: a day that nobody has made, and that nobody needs any more.
    let old = SystemClock.now_ms() - 30 * DAY_MS;
    let commit = Commit { fences: vec![step(owner)], writes: vec![event(1, old)], ..put("a", "1") };
    store.commit(commit).await.unwrap();
    let mut session = database.session("test").await;
    session.execute("insert into projection (shard, seq) values (2, 1)").await.unwrap();
    assert_eq!(store.drop_old_days(1, 1).await.unwrap().len(), 2, "of both tables");
    assert_eq!(complaints(&database).await, []);
}

#[tokio::test]
async fn an_examination_says_when_the_role_can_make_no_days() {
    let database = Database::of_a_plain_role().await;
    PostgresStore::migrate(&database.url()).await.unwrap();
    drop(database.store().await);
    let mut session = database.session("test").await;
    let owner: String = sqlx::query_scalar("select current_user::text").fetch_one(&mut session).await.unwrap();
    session.execute(AssertSqlSafe(format!("alter table event owner to {owner}"))).await.unwrap();
    session.execute("grant all on event to public").await.unwrap();
    assert_eq!(complaints(&database).await, [("rights", Grade::Bad)]);
}
