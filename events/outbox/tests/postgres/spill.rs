//! The table of spilled messages: numbers without gaps, whoever appends; the owner's position under its fence; nothing
//! goes that was not read.

use crate::conformance::PUT;
use crate::database::Database;
use endstate_events::{
    Envelope, Input, InputBody, InquiryAnswer, Lane, Message, SCHEMA_VERSION, SagaId, Side, Slot, Topic,
};
use endstate_outbox::spill::Place;
use endstate_outbox::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const SHARD: ShardId = ShardId { side: Side::Orchestrator, index: 1 };
const PLACE: Place = (Topic::Progress, 1);

/// Any message will do; this one is known by its id.
fn message(id: &str, (topic, partition): Place) -> Outgoing {
    let saga = SagaId::mint(1, Slot::of("k"), 7);
    let body = InputBody::Event { name: "told".into(), data: serde_json::json!({ "ünï": "\u{1f3ee} '" }) };
    let message = match topic {
        Topic::Commands => Message::Inquired(InquiryAnswer {
            effect_id: endstate_events::EffectId {
                saga,
                step: "hold".into(),
                item: String::new(),
                direction: endstate_events::Direction::Do,
                round: 0,
            },
            keep: true,
            known: true,
        }),
        _ => Message::Input(Input { saga, body }),
    };
    let (id, key) = (id.to_owned(), "k".to_owned());
    let envelope = Envelope { id, schema: SCHEMA_VERSION, time_ms: 1, key, lane: Lane::Live, message };
    Outgoing { topic, partition, envelope: envelope.into() }
}

fn id(body: &str) -> String {
    serde_json::from_str::<Envelope>(body).unwrap().id
}

/// Eight gateways append to several places at once while somebody reads: the reader never jumps over a number, and finds
/// every message once, each gateway's in their order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn z18_numbers_are_read_without_gaps_while_many_append() {
    const GATEWAYS: usize = 8;
    const APPENDS: usize = 40;
    let places = [PLACE, (Topic::Start, 1), (Topic::Commands, 0)];
    let database = Database::new().await;
    let store = database.store().await;
    let gateways = (0..GATEWAYS).map(|gateway| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..APPENDS {
                // In one append twice to the same place, in another order of places for each gateway.
                let mut messages: Vec<_> = (0..4)
                    .map(|k| message(&format!("{gateway}/{:03}", 4 * n + k), places[(gateway + k) % 3]))
                    .collect();
                messages.rotate_left(gateway % 4);
                messages.sort_by_key(|message| message.envelope.id.clone());
                store.append(&messages).await.unwrap();
            }
        })
    });
    let gateways: Vec<_> = gateways.collect();
    let mut read: BTreeMap<Place, Vec<String>> = BTreeMap::new();
    let mut count = 0;
    while count < GATEWAYS * APPENDS * 4 {
        for place in places {
            let known = read.entry(place).or_default();
            for (number, body) in store.page(place, known.len() as i64, 100).await.unwrap() {
                assert_eq!(number, known.len() as i64, "{place:?}: a number was jumped over");
                known.push(id(&body));
                count += 1;
            }
        }
    }
    for gateway in gateways {
        gateway.await.unwrap();
    }
    for (place, ids) in &read {
        for gateway in 0..GATEWAYS {
            let own: Vec<_> = ids.iter().filter(|id| id.starts_with(&format!("{gateway}/"))).collect();
            assert!(own.is_sorted(), "{place:?}: {own:?}");
        }
        assert!(store.page(*place, ids.len() as i64, 100).await.unwrap().is_empty());
    }
    let all: std::collections::BTreeSet<_> = read.into_values().flatten().collect();
    assert_eq!(all.len(), GATEWAYS * APPENDS * 4, "each once");
}

/// What an append was about to write is nobody's when it fails; its numbers are given again.
#[tokio::test]
async fn z18_a_failed_append_leaves_neither_messages_nor_a_gap() {
    let database = Database::new().await;
    let store = database.store().await;
    store.append(&[message("a", PLACE)]).await.unwrap();
    let odd = Outgoing { topic: Topic::Events, ..message("odd", PLACE) };
    let refused = store.append(&[message("b", PLACE), odd]).await;
    assert!(matches!(refused, Err(BusError::Refused(_))), "{refused:?}");
    // Its table refuses it only after numbers were given.
    use sqlx::Executor as _;
    let mut session = database.session("test").await;
    session.execute("alter table spill add constraint no_b check (body not like '%\"id\":\"b\"%')").await.unwrap();
    assert!(store.append(&[message("a2", PLACE), message("b", PLACE)]).await.is_err());
    assert_eq!(store.append(&[message("c", PLACE)]).await.unwrap(), [(PLACE, 2)]);
    let read = store.page(PLACE, 0, 10).await.unwrap();
    let read: Vec<_> = read.iter().map(|(number, body)| (*number, id(body))).collect();
    assert_eq!(read, [(0, "a".to_owned()), (1, "c".to_owned())]);
}

#[tokio::test]
async fn z18_a_page_is_bounded_by_bytes_and_ends_with_the_message_that_makes_it_large() {
    let database = Database::new().await;
    let store = database.store().await;
    let large = |id: String| {
        let mut message = message(&id, PLACE);
        Arc::make_mut(&mut message.envelope).key = "x".repeat(TAKE_BYTES / 2);
        message
    };
    store.append(&(0..4).map(|n| large(n.to_string())).collect::<Vec<_>>()).await.unwrap();
    let page = store.page(PLACE, 1, 100).await.unwrap();
    assert_eq!(page.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
}

/// The position moves with the batch, under the fence of the epoch; what lies below it may go, nothing else.
#[tokio::test]
async fn z18_the_position_is_fenced_and_only_what_was_read_is_deleted() {
    let database = Database::new().await;
    let store = database.store().await;
    let messages: Vec<_> = (0..5).map(|n| message(&n.to_string(), PLACE)).collect();
    store.append(&messages).await.unwrap();
    store.append(&[message("s", (Topic::Start, 1))]).await.unwrap();
    let stale = store.assign(SHARD).await.unwrap();
    let owner = store.assign(SHARD).await.unwrap();
    let commit = |before: Assignment, to: i64| {
        let mut fence = Fence::still(before);
        fence.positions.spilled_progress = to;
        let writes = vec![Write::exact(&PUT, Rows::one([to.to_string().into(), "1".into()]))];
        (fence, store.commit(Commit { fences: vec![fence], writes, ..Commit::default() }))
    };
    assert_eq!(commit(stale, 5).1.await, Err(CommitError::Fenced(SHARD)));
    let (fence, done) = commit(owner, 3);
    done.await.unwrap();
    assert_eq!(commit(owner, 4).1.await, Err(CommitError::Fenced(SHARD)), "the position has moved on");
    let next = store.assign(SHARD).await.unwrap();
    assert_eq!(next.positions, fence.positions);
    assert_eq!((next.positions.of_spilled(Topic::Progress), next.positions.of_spilled(Topic::Start)), (3, 0));

    let ends = || async {
        let mut ends = store.ends().await.unwrap();
        ends.sort_by_key(|end| end.place);
        ends.into_iter().map(|end| (end.place.0, end.first, end.position, end.next)).collect::<Vec<_>>()
    };
    assert_eq!(ends().await, [(Topic::Start, Some(0), 0, 1), (Topic::Progress, Some(0), 3, 5)]);
    assert_eq!(store.forget(&[(PLACE, 2), ((Topic::Start, 1), 1)]).await.unwrap(), 2);
    assert_eq!(ends().await, [(Topic::Start, Some(0), 0, 1), (Topic::Progress, Some(2), 3, 5)]);
    assert_eq!(store.forget(&[(PLACE, 9)]).await.unwrap(), 1, "never above the position");
    assert_eq!(ends().await[1], (Topic::Progress, Some(3), 3, 5));
    assert_eq!(store.page(PLACE, 3, 10).await.unwrap().len(), 2);
}

/// A standby that took over lacks appends, and takes a commit of a shard that had read them before.
#[tokio::test]
async fn z14_nothing_is_numbered_below_what_the_shard_has_read() {
    let database = Database::new().await;
    let store = database.store().await;
    store.append(&[message("a", PLACE), message("s", (Topic::Start, 1))]).await.unwrap();
    let mut fence = Fence::still(store.assign(SHARD).await.unwrap());
    fence.positions.spilled_progress = 3;
    store.commit(Commit { fences: vec![fence], ..Commit::default() }).await.unwrap();
    let mut told = store.append(&[message("b", PLACE), message("t", (Topic::Start, 1))]).await.unwrap();
    told.sort_unstable();
    assert_eq!(told, [((Topic::Start, 1), 2), (PLACE, 4)]);
    assert_eq!(store.append(&[message("c", PLACE)]).await.unwrap(), [(PLACE, 5)]);
    use sqlx::Executor as _;
    database.session("test").await.execute("truncate spill, spill_end").await.unwrap();
    let ends = store.ends().await.unwrap();
    let known = ends.iter().find(|end| end.place == PLACE).map(|end| (end.position, end.next));
    assert_eq!(known, Some((3, 0)), "who reads there must not take its own place for one that is lost");
    assert_eq!(store.append(&[message("d", PLACE), message("e", PLACE)]).await.unwrap(), [(PLACE, 5)]);
    let read = store.page(PLACE, 3, 10).await.unwrap();
    assert_eq!(
        read.iter().map(|(number, body)| (*number, id(body))).collect::<Vec<_>>(),
        [(3, "d".into()), (4, "e".into())]
    );
}
