//! The self-check of old holds (H3, Z17).

use crate::store::{MINUTE_MS, System, line};
use crate::world::*;
use endstate_events::*;
use endstate_outbox::*;
use serde_json::json;

/// Sagas of before, that tell nothing but whether they keep it.
async fn inquired(system: &mut System, keep: impl Fn(&EffectId) -> bool) -> usize {
    answered(system, false, keep).await
}

async fn answered(system: &mut System, known: bool, keep: impl Fn(&EffectId) -> bool) -> usize {
    let asked: Vec<_> = system
        .inputs()
        .await
        .into_iter()
        .filter_map(|input| match input.body {
            InputBody::Inquire { effect_id, reply_to } => Some((effect_id, reply_to)),
            _ => None,
        })
        .collect();
    let answers = asked.iter().map(|(effect_id, to)| {
        let message = Message::Inquired(InquiryAnswer { effect_id: effect_id.clone(), keep: keep(effect_id), known });
        let envelope = Envelope {
            id: effect_id.to_string(),
            schema: SCHEMA_VERSION,
            time_ms: NOW_MS,
            key: String::new(),
            lane: Lane::Live,
            message,
        };
        Outgoing { topic: to.topic, partition: to.partition, envelope: envelope.into() }
    });
    system.bus.produce(answers.collect()).await.unwrap();
    system.settle().await;
    asked.len()
}

#[tokio::test]
async fn an_old_hold_asks_its_saga_and_is_given_back_when_nobody_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path()).await;
    system.operate("opening", &[line("stock.open", json!({ "unit": "A", "quantity": 10 }))]).await;
    let (orphan, kept) = (hold_stock(1, "A", 2), hold_stock(2, "A", 3));
    system.send(&[orphan.clone(), kept.clone()]).await;
    system.settle().await;
    system.clock.advance(39 * MINUTE_MS);
    system.settle().await;
    assert_eq!(inquired(&mut system, |_| true).await, 0, "not old enough");
    system.clock.advance(2 * MINUTE_MS);
    system.settle().await;
    assert_eq!(inquired(&mut system, |id| *id == kept.effect_id).await, 2);
    assert_eq!(system.book("stock:A").await.held, 3);
    system.send(&[undo("release", &orphan), undo("release", &kept)]).await;
    system.settle().await;
    let book = system.book("stock:A").await;
    assert_eq!((book.held, book.left), (0, 10), "the saga's own release finds it done");
}

/// So many holds of one unit each, which are all old enough to be asked about.
async fn with_old_holds(folder: &std::path::Path, holds: u64) -> System {
    let mut system = System::open(folder).await;
    system.operate("opening", &[line("stock.open", json!({ "unit": "A", "quantity": holds }))]).await;
    let holds: Vec<_> = (0..holds).map(|n| hold_stock(n, "A", 1)).collect();
    system.send(&holds).await;
    system.settle().await;
    system.clock.advance(41 * MINUTE_MS);
    system.settle().await;
    system
}

#[tokio::test]
async fn z17_the_self_check_halts_before_it_gives_everything_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = with_old_holds(folder.path(), 40).await;
    assert_eq!(inquired(&mut system, |_| false).await, 40);
    assert_eq!(system.book("stock:A").await.held, 30, "ten of forty are enough to doubt");
    let waiting = alert::waiting(&*system.store, system.clock.now_ms(), 10).await.unwrap();
    let told: Vec<_> = waiting.iter().map(|waiting| &*waiting.alert.kind).collect();
    assert_eq!(told, ["self_check"], "people know, once");
    assert!(waiting[0].alert.text.starts_with("E5005"), "{}", waiting[0].alert.text);
}

#[tokio::test]
async fn what_known_sagas_are_done_with_is_given_back_however_much_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = with_old_holds(folder.path(), 40).await;
    assert_eq!(answered(&mut system, true, |_| false).await, 40);
    assert_eq!(system.book("stock:A").await.held, 0);
    assert!(alert::waiting(&*system.store, system.clock.now_ms(), 10).await.unwrap().is_empty());
}

/// Of many wrong holds one round asks about a page: a share of that is enough to doubt. A new assignment by the same process
/// gives no more back.
#[tokio::test]
async fn z17_the_self_check_halts_in_its_first_round_however_much_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = with_old_holds(folder.path(), 3_000).await;
    assert_eq!(inquired(&mut system, |_| false).await, 500, "a page");
    assert_eq!(system.book("stock:A").await.held, 2_900, "a fifth of a page");
    for _ in 0..10 {
        system.clock.advance(41 * MINUTE_MS);
        system.settle().await;
    }
    assert_eq!(system.book("stock:A").await.held, 2_900);
    let waiting = alert::waiting(&*system.store, system.clock.now_ms(), 10).await.unwrap();
    assert_eq!(waiting.iter().map(|waiting| &*waiting.alert.kind).collect::<Vec<_>>(), ["self_check"]);
}
