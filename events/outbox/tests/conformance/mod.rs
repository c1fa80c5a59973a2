//! What every store must do, whichever it is; each test binary runs it over its own.

use endstate_events::{Side, Topic};
use endstate_outbox::*;
use std::sync::Arc;

pub(crate) static PUT: Statement = Statement {
    name: "test.put",
    columns: &[Kind::Text, Kind::Text],
    sql: "with r(name, value) as ({rows}) insert into system (name, value) select name, value from r",
};
pub(crate) static GET: Statement = Statement {
    name: "test.get",
    columns: &[Kind::Text],
    sql: "with r(name) as ({rows}) select s.name, s.value from system s join r on r.name = s.name order by s.name",
};
/// Hits as many rows as there are with that value.
static SET: Statement = Statement {
    name: "test.set",
    columns: &[Kind::Text],
    sql: "with r(value) as ({rows}) update system set value = 'new' from r where system.value = r.value",
};
static NOTE: Statement = Statement {
    name: "test.note",
    columns: &[Kind::Id, Kind::Text, Kind::Text, Kind::Text, Kind::Int],
    sql: "with r(saga, kind, effect_id, detail, time_ms) as ({rows}) \
          insert into discrepancy (saga, kind, effect_id, detail, time_ms) select * from r",
};
static NOTES: Statement = Statement {
    name: "test.notes",
    columns: &[Kind::Text],
    sql: "with r(kind) as ({rows}) select d.saga, d.effect_id, d.detail, d.time_ms, d.time_ms > 1 \
          from discrepancy d join r on r.kind = d.kind order by d.time_ms",
};

/// One `#[tokio::test]` per property, over the stores that `$open` makes. What it gives beside the store lives as long as
/// the test.
#[macro_export]
macro_rules! conformance {
    ($open:path) => {
        $crate::conformance! { $open:
            an_owner_goes_on_where_the_last_one_stopped
            z05_an_older_owner_writes_nothing
            the_fence_is_looked_at_before_the_data
            every_fence_of_a_commit_must_hold
            a_failing_batch_does_not_take_its_neighbours_with_it
            one_batch_too_few_is_not_made_good_by_one_too_many
            a_write_sees_those_before_it
            nothing_to_write_hits_nothing
            any_number_of_rows_of_every_kind_comes_back_as_it_went_in
            the_same_record_is_one_dead_letter
        }
    };
    ($open:path: $($property:ident)*) => {
        $(
            #[tokio::test]
            async fn $property() {
                let (store, _place) = $open().await;
                conformance::$property(store).await;
            }
        )*
    };
}

pub(crate) fn put(name: &str, value: &str) -> Commit {
    let writes = vec![Write::exact(&PUT, Rows::one([name.into(), value.into()]))];
    Commit { writes, ..Commit::default() }
}

pub(crate) async fn names(store: &dyn Store, names: &[&str]) -> Vec<String> {
    let mut rows = Rows::new();
    names.iter().for_each(|name| rows.push([(*name).into()]));
    let found = store.read(&GET, rows).await.unwrap();
    found.iter().map(|row| row[0].text().unwrap().to_owned()).collect()
}

pub(crate) const SHARD: ShardId = ShardId { side: Side::Participants, index: 2 };

/// A fence that moves a shard on by one record and one event.
pub(crate) fn step(before: Assignment) -> Fence {
    let mut fence = Fence::still(before);
    fence.positions.advance(Topic::Commands, before.positions.progress + 1);
    Fence { next_seq: before.next_seq + 1, ..fence }
}

pub(crate) async fn an_owner_goes_on_where_the_last_one_stopped(store: Arc<dyn Store>) {
    let first = store.assign(SHARD).await.unwrap();
    assert_eq!((first.epoch, first.positions, first.next_seq), (1, Positions::default(), 1));
    let fence = step(first);
    store.commit(Commit { fences: vec![fence], ..Commit::default() }).await.unwrap();
    let second = store.assign(SHARD).await.unwrap();
    assert_eq!(second, Assignment { epoch: 2, ..fence.after() });
    assert_eq!(store.assign(ShardId { index: 3, ..SHARD }).await.unwrap().epoch, 1, "shards do not meet");
}

pub(crate) async fn z05_an_older_owner_writes_nothing(store: Arc<dyn Store>) {
    let stale = store.assign(SHARD).await.unwrap();
    let fresh = store.assign(SHARD).await.unwrap();
    let commit = |before, name: &str| {
        let fences = vec![step(before)];
        let letter = DeadLetter {
            topic: Topic::Commands,
            partition: 2,
            offset: 1,
            bytes: "x".into(),
            reason: "y".into(),
            time_ms: 1,
        };
        store.commit(Commit { fences, dead_letters: vec![letter], ..put(name, "1") })
    };
    assert_eq!(commit(stale, "stale").await, Err(CommitError::Fenced(SHARD)));
    assert_eq!(commit(fresh, "fresh").await, Ok(vec![1]));
    assert_eq!(commit(fresh, "repeated").await, Err(CommitError::Fenced(SHARD)), "the position has moved on");
    assert_eq!(names(&*store, &["stale", "fresh", "repeated"]).await, ["fresh"]);
    assert_eq!(dead_letter::list(&*store, 0, 10).await.unwrap().len(), 1);
}

pub(crate) async fn the_fence_is_looked_at_before_the_data(store: Arc<dyn Store>) {
    let stale = store.assign(SHARD).await.unwrap();
    store.assign(SHARD).await.unwrap();
    store.commit(put("taken", "1")).await.unwrap();
    let refused = store.commit(Commit { fences: vec![step(stale)], ..put("taken", "2") }).await;
    assert_eq!(refused, Err(CommitError::Fenced(SHARD)), "a zombie's batch is never halved");
}

pub(crate) async fn every_fence_of_a_commit_must_hold(store: Arc<dyn Store>) {
    let take = |side| store.assign(ShardId { side, index: 0 });
    let sagas = take(Side::Orchestrator).await.unwrap();
    let stale = take(Side::Participants).await.unwrap();
    let fresh = take(Side::Participants).await.unwrap();
    let commit =
        |participants| store.commit(Commit { fences: vec![step(sagas), step(participants)], ..put("both", "1") });
    assert_eq!(commit(stale).await, Err(CommitError::Fenced(stale.shard)));
    assert!(names(&*store, &["both"]).await.is_empty(), "neither side wrote");
    commit(fresh).await.unwrap();
    let (sagas, participants) = (take(Side::Orchestrator).await.unwrap(), take(Side::Participants).await.unwrap());
    assert_eq!((sagas.positions.progress, participants.positions.progress), (1, 1), "both moved, once");
}

pub(crate) async fn a_failing_batch_does_not_take_its_neighbours_with_it(store: Arc<dyn Store>) {
    store.commit(put("taken", "1")).await.unwrap();
    let (a, b, c) =
        tokio::join!(store.commit(put("x", "1")), store.commit(put("taken", "1")), store.commit(put("y", "1")));
    assert!(a.is_ok() && c.is_ok());
    assert!(matches!(b, Err(CommitError::Data(_))), "{b:?}");
    assert_eq!(names(&*store, &["x", "y", "taken"]).await, ["taken", "x", "y"]);
}

pub(crate) async fn one_batch_too_few_is_not_made_good_by_one_too_many(store: Arc<dyn Store>) {
    let set = |value: &str| {
        let writes = vec![Write::exact(&SET, Rows::one([value.into()]))];
        store.commit(Commit { writes, ..Commit::default() })
    };
    for name in ["a", "b"] {
        store.commit(put(name, "twice")).await.unwrap();
    }
    let (few, many) = tokio::join!(set("never"), set("twice"));
    assert_eq!(few, Err(CommitError::Conflict { statement: "test.set", expected: 1, hit: 0 }));
    assert_eq!(many, Err(CommitError::Conflict { statement: "test.set", expected: 1, hit: 2 }));
}

pub(crate) async fn a_write_sees_those_before_it(store: Arc<dyn Store>) {
    let writes = |expect| {
        let set = Write { statement: &SET, rows: Rows::one(["old".into()]), expect, apart: false };
        let more = Write::exact(&PUT, Rows::one(["more".into(), "1".into()]));
        let none = Write::any(&PUT, Rows::new());
        Commit { writes: vec![put("a", "old").writes.remove(0), none, set, more], ..Commit::default() }
    };
    let conflict = store.commit(writes(Some(3))).await;
    assert_eq!(conflict, Err(CommitError::Conflict { statement: "test.set", expected: 3, hit: 1 }));
    assert!(names(&*store, &["a", "more"]).await.is_empty(), "what came before went with it");
    assert_eq!(store.commit(writes(Some(1))).await, Ok(vec![1, 0, 1, 1]));
    assert_eq!(names(&*store, &["a", "more"]).await, ["a", "more"]);
}

pub(crate) async fn nothing_to_write_hits_nothing(store: Arc<dyn Store>) {
    assert_eq!(store.commit(Commit::default()).await, Ok(vec![]));
    let empty = |expect| Commit {
        writes: vec![Write { statement: &SET, rows: Rows::new(), expect, apart: false }],
        ..Commit::default()
    };
    assert_eq!(store.commit(empty(None)).await, Ok(vec![0]));
    assert_eq!(
        store.commit(empty(Some(1))).await,
        Err(CommitError::Conflict { statement: "test.set", expected: 1, hit: 0 })
    );
    assert!(store.read(&GET, Rows::new()).await.unwrap().is_empty());
}

pub(crate) async fn any_number_of_rows_of_every_kind_comes_back_as_it_went_in(store: Arc<dyn Store>) {
    let saga = |n: i64| if n % 2 == 0 { Value::Null } else { uuid::Uuid::from_u128(n.unsigned_abs().into()).into() };
    let text = |n: i64| format!("{n} \"ünï\\u0000 🏮\" {{}}, NULL\n\t'");
    for count in [1, 3, 70, 3_000] {
        let kind = format!("of {count}");
        let mut rows = Rows::new();
        for n in 0..count {
            rows.push([saga(n), kind.as_str().into(), Value::Null, text(n).into(), n.into()]);
        }
        let commit = Commit { writes: vec![Write::exact(&NOTE, rows)], ..Commit::default() };
        assert_eq!(store.commit(commit).await, Ok(vec![count.unsigned_abs()]));
        let found = store.read(&NOTES, Rows::one([kind.into()])).await.unwrap();
        assert_eq!(found.len() as i64, count);
        for (n, row) in (0..count).zip(found) {
            assert_eq!(row, [saga(n), Value::Null, text(n).into(), n.into(), i64::from(n > 1).into()]);
        }
    }
}

pub(crate) async fn the_same_record_is_one_dead_letter(store: Arc<dyn Store>) {
    let letter = |offset, bytes: &str| DeadLetter {
        topic: Topic::Progress,
        partition: 1,
        offset,
        bytes: bytes.into(),
        reason: "odd".into(),
        time_ms: 5,
    };
    let first = [letter(1, "a"), letter(2, "b")].to_vec();
    let again = [letter(2, "b"), letter(3, "c"), letter(-1, "spilled")].to_vec();
    // A topic that was made anew has other records in the same places, and may be made anew again.
    let anew = [letter(1, "b"), letter(2, "other"), letter(-1, "spilled")].to_vec();
    let twice = [letter(2, "third"), letter(2, "b")].to_vec();
    for letters in [first, again, anew.clone(), anew, twice] {
        store.commit(Commit { dead_letters: letters, ..Commit::default() }).await.unwrap();
    }
    let stored = dead_letter::list(&*store, 0, 10).await.unwrap();
    let kept: Vec<(i64, &str)> = stored.iter().map(|stored| (stored.letter.offset, &*stored.letter.bytes)).collect();
    assert_eq!(kept, [(1, "a"), (2, "b"), (3, "c"), (-1, "spilled"), (1, "b"), (2, "other"), (2, "third")]);
    assert_eq!(dead_letter::list(&*store, stored[0].id, 1).await.unwrap(), stored[1..2]);
}
