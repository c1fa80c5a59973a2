//! The same orders hop by hop and fused: what the sagas, the participants and other teams have of them is the same.

use super::ground::Grounds as _;
use super::journey::{self, JOURNEYS, Shelf};
use super::random::Random;
use super::run::World;
use super::template::Template;
use endstate_events::Topic;
use endstate_outbox::fused::ROUNDS;
use endstate_outbox::{Kind, Statement};
use std::num::NonZeroU16;

macro_rules! table {
    ($name:literal, $sql:literal) => {
        Statement { name: $name, columns: &[Kind::Int], sql: concat!("with r(one) as ({rows}) ", $sql) }
    };
}

/// Everything that an order leaves behind, but for how far its shards' transactions reached: sequence numbers, the rows
/// into which events were grouped, and a saga's `due`, which hop by hop may be earlier than its next timer.
static BOOKS: [Statement; 9] = [
    table!("fused.sagas", "select s.id, s.shard, s.version, s.phase, s.state from r cross join saga s order by s.id"),
    table!(
        "fused.events",
        "select e.saga, j.value from r cross join event e, json_each(e.body) j order by e.saga, e.version, j.key"
    ),
    table!(
        "fused.numbers",
        "select n.definition, n.number, n.saga, n.body_hash from r cross join saga_number n order by 1, 2"
    ),
    table!("fused.accounts", "select a.id, a.shard, a.posted, a.pending from r cross join account a order by a.id"),
    table!(
        "fused.transfers",
        "select t.id, t.shard, t.kind, t.debit, t.credit, t.amount, t.refers_to, t.time_ms \
         from r cross join transfer t order by t.id"
    ),
    // The id of a dead letter's alert says where its shard stood, in messages read.
    table!(
        "fused.alerts",
        "select iif(a.kind = 'dead_letter', null, a.id), a.kind, a.saga, a.step, a.text, a.time_ms \
         from r cross join alert a order by a.kind, a.saga, a.text, a.time_ms"
    ),
    table!("fused.tokens", "select t.id, t.owner, t.state, t.holder from r cross join token t order by t.id"),
    table!(
        "fused.effects",
        "select e.id, e.shard, e.lane, e.participant, e.action, e.body, e.state, e.code, e.data, e.of_id, e.debit, \
         e.credit, e.amount, e.open_id, e.token, e.time_ms from r cross join effect e order by e.id"
    ),
    table!(
        "fused.discrepancies",
        "select d.saga, d.kind, d.effect_id, d.detail from r cross join discrepancy d order by d.id"
    ),
];

/// What one journey leaves, line by line, and how many messages went through the topics between the two sides.
async fn books(journey: &'static str, template: &Template, rounds: Option<usize>) -> (Vec<String>, usize) {
    let mut random = Random::new(7);
    let shelf = Shelf {
        units: vec![("unit-0".to_owned(), 4, 0), ("unit-1".to_owned(), 100, 5)],
        users: vec![("ann".to_owned(), 200)],
        coupons: vec![("coupon-0".to_owned(), "ann".to_owned())],
    };
    let orders = (0..2).map(|n| journey::order(n, journey, &shelf, &mut random));
    let mut all = Vec::new();
    let mut hops = 0;
    // One after the other, so that no order takes from another what it would have got.
    for order in orders {
        let mut world = World::calm(shelf.clone(), vec![order], (4096, rounds), template.fresh().await).await;
        world.open_shop().await;
        let open = world.quiet().await;
        if let Err(fault) = world.check(&open).await {
            panic!("{journey}: {}\n{}", fault.text, world.journal.join("\n"));
        }
        for book in &BOOKS {
            all.extend(world.system.read(book).await.iter().map(|row| format!("{} {row:?}", book.name)));
        }
        for (topic, partition) in
            Topic::ALL.into_iter().flat_map(|topic| (0..world.system.partitions()).map(move |p| (topic, p)))
        {
            let messages = world.system.bus().consumer(topic, partition, 0).take(10_000).await.expect("a page");
            match topic {
                Topic::Events => {
                    all.extend(messages.iter().map(|message| format!("{partition} {:?}", message.envelope)))
                }
                Topic::Start | Topic::Progress | Topic::Commands => hops += messages.len(),
                Topic::DeadLetters | Topic::Foreign(_) => {
                    assert!(messages.is_empty(), "nothing goes to {topic:?} here")
                }
            }
        }
    }
    (all, hops)
}

#[tokio::test]
async fn sagas_ledger_and_events_are_the_same_fused_and_hop_by_hop() {
    for partitions in [1, 4] {
        let template = Template::make_with(NonZeroU16::new(partitions)).await;
        for journey in JOURNEYS {
            let (by_hops, hops) = books(journey, &template, None).await;
            for rounds in [1, ROUNDS] {
                let (fused, fewer) = books(journey, &template, Some(rounds)).await;
                let differs = by_hops.iter().zip(&fused).find(|(hop, fused)| hop != fused);
                assert_eq!(differs, None, "{journey}, {partitions} partitions, {rounds} rounds");
                assert_eq!(by_hops.len(), fused.len(), "{journey}, {partitions} partitions, {rounds} rounds");
                assert!(
                    fewer < hops,
                    "{journey}, {partitions} partitions, {rounds} rounds: {fewer} of {hops} messages"
                );
            }
        }
    }
}
