//! By which record a position was reached is kept beside it.

use crate::conformance::SHARD;
use crate::database::Database;
use endstate_events::Topic;
use endstate_outbox::*;
use sqlx::Executor as _;

fn record(next: i64, record: u32) -> Delivered {
    let envelope = Err(Undecodable { bytes: String::new(), reason: String::new(), newer: false });
    Delivered { topic: Topic::Commands, offset: next - 1, next, envelope, bytes: 0, record }
}

#[tokio::test]
async fn z03_the_next_owner_learns_by_which_record_its_position_was_reached() {
    let database = Database::new().await;
    let store = database.store().await;
    let first = store.assign(SHARD).await.unwrap();
    assert_eq!(first.positions.record_before(Topic::Commands), None, "none was read");
    let read = [record(1 << 10, 7), record(2 << 10, u32::MAX)];
    store.commit(Commit { fences: Fence::behind(&[first], &read), ..Commit::default() }).await.unwrap();
    let second = store.assign(SHARD).await.unwrap();
    let positions = second.positions;
    assert_eq!((positions.progress, positions.record_before(Topic::Commands)), (2 << 10, Some(u32::MAX)));
    // A batch of timers reads nothing.
    store.commit(Commit { fences: vec![Fence::still(second)], ..Commit::default() }).await.unwrap();
    assert_eq!(store.assign(SHARD).await.unwrap().positions, positions);
    // An older program, or an operator, moves the position alone.
    let moved = "update shard set position_progress = position_progress + 1024";
    database.session("test").await.execute(moved).await.unwrap();
    assert_eq!(store.assign(SHARD).await.unwrap().positions.record_before(Topic::Commands), None);
}
