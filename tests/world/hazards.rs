//! Stories of HAZARDS on the integrated system, told by hand: no faults but those of the story. They are told on the
//! embedded ground, and by `tests/services/world` over PostgreSQL and Kafka.

use super::ground::Grounds;
use super::home;
use super::journey::{Act, Doing, Order, Shelf};
use super::provider::NAME;
use super::run::World;
use super::story::{input, order, pays};
use super::system::{BEGIN_MS, SHARDS, Seen};
use endstate_events::{
    Envelope, ForcedEnd, InputBody, InquiryAnswer, Lane, Message, MinorUnits, Operation, SCHEMA_VERSION, SagaId, Slot,
    Topic,
};
use endstate_orchestrator::definitions::Definitions;
use endstate_outbox::{Kind, Outgoing, Statement, Turn};
use endstate_participants::payment::Captured;
use serde_json::json;

impl World {
    /// One call, or one turn of the next shard that has something to do.
    async fn small_step(&mut self) {
        if !self.calls.is_empty() {
            return self.call_one().await;
        }
        let all: Vec<usize> = (0..self.system.shard_count()).collect();
        let mut worked = false;
        for shard in &all {
            worked = self.system.turn(*shard).await == Turn::Worked;
            if worked {
                break;
            }
        }
        if !worked {
            self.system.arrives(&all).await;
        }
        self.collect_calls();
    }

    /// A turn of every shard of the old and of the new owners, and what comes of it.
    async fn small_steps_of_both(&mut self) {
        for shard in 0..self.system.shard_count() {
            self.system.turn_zombie(shard).await;
            self.system.turn(shard).await;
        }
        self.collect_calls();
        while !self.calls.is_empty() {
            self.call_one().await;
        }
        self.look().await;
        self.act_all().await;
        self.system.clock.advance(700);
        self.arrive_scheduled().await;
    }
}

/// A world with one unit of plenty, and users with points.
pub(crate) async fn world(home: &dyn Grounds, orders: Vec<Order>, in_motion_most: usize) -> World {
    let shelf = Shelf {
        units: vec![("tea".to_owned(), 100_000, 0)],
        users: vec![("ann".to_owned(), 1_000), ("bob".to_owned(), 1_000)],
        coupons: Vec::new(),
    };
    let mut world = World::calm(shelf, orders, (in_motion_most, None), home.fresh().await).await;
    world.open_shop().await;
    world
}

pub(crate) async fn settled(world: &mut World) -> Vec<Seen> {
    let open = world.quiet().await;
    if let Err(fault) = world.check(&open).await {
        panic!("{}\n{}", fault.text, world.journal.join("\n"));
    }
    world.system.sagas().await
}

pub(crate) fn status_of<'a>(sagas: &'a [Seen], definition: &str, number: &str) -> &'a str {
    let found = sagas.iter().find(|seen| seen.definition == definition && seen.number == number);
    found.map_or("none", |seen| &seen.status)
}

static COMMANDS: Statement = Statement {
    name: "hazards.commands",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select cast(coalesce(sum(o.messages), 0) as bigint) from r left join outbox o on o.topic = 'commands'",
};
pub(crate) static ORPHANS: Statement = Statement {
    name: "hazards.orphans",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select o.saga, o.body from r cross join orphan o",
};

/// Starts `count` orders and has every callback arrive together with the deadline's timer. Returns statuses and the
/// number of commands.
async fn paid_at_the_last_second(
    home: &dyn Grounds,
    count: usize,
    at_the_deadline: bool,
    in_motion_most: usize,
) -> (Vec<Seen>, i64) {
    let orders = (0..count).map(|n| order(&format!("Z7-{n}"), &format!("user-{n}"), 0, Vec::new())).collect();
    let mut world = world(home, orders, in_motion_most).await;
    while world.step().await {}
    let waiting = world.system.sagas().await;
    let other = waiting.iter().find(|seen| seen.phase != "waiting");
    assert!(other.is_none() && waiting.len() == count, "{} sagas, {other:?}", waiting.len());
    if at_the_deadline {
        world.system.clock.advance(600_000 - 1_000);
    }
    for seen in &waiting {
        let taken = world.provider.book(|book| book.capture(seen.id, 50_000, "CNY", false)).expect("it is open");
        world.system.produce(vec![taken.message(Lane::Live, SHARDS, world.system.now_ms())]).await;
    }
    if at_the_deadline {
        // The timers are due before anybody has read a callback.
        world.system.clock.advance(2_000);
    }
    let sagas = settled(&mut world).await;
    let commands = world.system.read(&COMMANDS).await[0][0].int().unwrap_or_default();
    (sagas, commands)
}

#[tokio::test]
async fn z07_progress_comes_before_timers_and_starts_are_held_back() {
    let home = home().await;
    let (calm, few) = paid_at_the_last_second(&home, 300, false, 4096).await;
    let (late, more) = paid_at_the_last_second(&home, 300, true, 4).await;
    for sagas in [&calm, &late] {
        assert!(sagas.iter().all(|seen| seen.status == "completed"), "paid and then closed");
    }
    assert!(more * 10 <= few * 12, "{more} messages instead of {few}");
    home.close().await;
}

static ASKS: Statement = Statement {
    name: "hazards.asks",
    columns: &[Kind::Int],
    sql: "with r(ask) as (select '\"kind\":\"ask\"'), n(one) as ({rows}) \
          select cast(coalesce(sum((length(o.body) - length(replace(o.body, r.ask, ''))) / length(r.ask)), 0) as bigint) \
          from n cross join r left join outbox o on o.topic = 'commands'",
};

/// Orders whose participants handle nothing for a while, though commands queue up. Returns commands and asks.
async fn sale_with_a_pause(home: &dyn Grounds, count: usize, pause_ms: i64) -> (i64, i64) {
    let orders = (0..count).map(|n| order(&format!("Z7-{n}"), &format!("user-{n}"), 0, vec![(0, pays(1))])).collect();
    let mut world = world(home, orders, 4096).await;
    world.act_all().await;
    let of_sagas: Vec<usize> = (0..world.system.shard_count()).step_by(2).collect();
    for wait_ms in [0, pause_ms] {
        world.system.clock.advance(wait_ms);
        while world.turn_these(&of_sagas).await {}
    }
    let sagas = settled(&mut world).await;
    assert!(sagas.iter().all(|seen| seen.status == "completed"), "{sagas:?}");
    let commands = world.system.read(&COMMANDS).await[0][0].int().unwrap_or_default();
    (commands, world.system.read(&ASKS).await[0][0].int().unwrap_or_default())
}

#[tokio::test]
async fn z07_slow_participants_are_not_asked_by_everybody() {
    let home = home().await;
    let (few, no_asks) = sale_with_a_pause(&home, 100, 0).await;
    let (more, asks) = sale_with_a_pause(&home, 100, 12_000).await;
    assert_eq!(no_asks, 0);
    assert!((1..=i64::from(SHARDS)).contains(&asks), "{asks} asks: one per shard and participant");
    assert_eq!(more, few + asks, "and nothing else");
    home.close().await;
}

#[tokio::test]
async fn z10_hostile_texts_hurt_nobody() {
    let home = home().await;
    let mut nul = order("Z10-nul", "ann", 0, vec![(0, pays(1))]);
    nul.input["store"] = json!("har\u{0}bour");
    nul.input["activity_id"] = json!("\u{0}\u{1F600}'; drop table saga; --");
    let long = "x".repeat(60_000);
    // The gateway lets no such unit in. What the database cannot hold goes to the dead letters, and people end the order.
    let forced = Doing::Operate(Operation::Force { end: ForcedEnd::Cancelled });
    let mut big = order("Z10-big", "bob", 0, vec![(5_000, forced)]);
    big.input["lines"][0]["sku"] = json!("unit-\u{0}");
    let mut world = world(&home, vec![nul, big, order("Z10", "ann", 0, vec![(0, pays(1))])], 4096).await;
    let lines: Vec<_> = (0..20)
        .map(|n| json!({ "line_no": n.to_string(), "sku": "tea", "quantity": 1, "price_minor": 2_500, "title": "t" }))
        .collect();
    world.orders[2].input["lines"] = json!(lines);
    while world.step().await {}
    let known = world.find("flash_sale_order", "Z10").expect("it began").id;
    let shouted = InputBody::Event { name: "no.such".to_owned(), data: json!(long) };
    let noise = world.system.input(known, "noise\u{0}".to_owned(), shouted);
    world.system.produce(vec![noise]).await;
    let sagas = settled(&mut world).await;
    assert_eq!(status_of(&sagas, "flash_sale_order", "Z10-nul"), "completed");
    assert_eq!(status_of(&sagas, "flash_sale_order", "Z10-big"), "closed", "nobody knows the unit, or can");
    assert_eq!(status_of(&sagas, "flash_sale_order", "Z10"), "completed");
    home.close().await;
}

#[tokio::test]
async fn z11_a_number_is_claimed_once_over_all_shards() {
    const NUMBERS: usize = 1_000;
    let home = home().await;
    let mut world = world(&home, Vec::new(), 4096).await;
    let mut starts = Vec::new();
    for n in 0..NUMBERS {
        // The same number under two users: two keys, mostly two shards; and each of them twice.
        for user in ["ann", "bob", "ann", "bob"] {
            let mut input = input(&format!("Z11-{n}"), user, 0);
            (input["activity_id"], input["pay_within_s"]) = (json!(format!("sale-{n}")), json!(60));
            starts.push(world.system.start("flash_sale_order", &input, None, world.random.next()));
        }
    }
    world.random.shuffle(&mut starts);
    let ids: Vec<SagaId> = starts.iter().map(saga_of).collect();
    let waiting: Vec<_> = ids.iter().map(|id| world.system.waiters.sagas.wait(*id)).collect();
    for chunk in starts.chunks(97) {
        world.system.produce(chunk.to_vec()).await;
    }
    let sagas = settled(&mut world).await;
    assert_eq!(sagas.len(), NUMBERS);
    let (mut first, mut same, mut other) = (0, 0, 0);
    for waiting in &waiting {
        match waiting.latest().claim {
            Some(endstate_orchestrator::waiters::Claim::First) => first += 1,
            Some(endstate_orchestrator::waiters::Claim::Taken { same_body: true, .. }) => same += 1,
            Some(endstate_orchestrator::waiters::Claim::Taken { same_body: false, .. }) => other += 1,
            None => panic!("a start without an answer"),
        }
    }
    assert_eq!((first, same, other), (NUMBERS, NUMBERS, 2 * NUMBERS));
    home.close().await;
}

fn saga_of(message: &Outgoing) -> SagaId {
    match &message.envelope.message {
        Message::Input(input) => input.saga,
        other => panic!("{} is no input", other.label()),
    }
}

#[tokio::test]
async fn z12_money_for_an_order_that_nobody_knows_is_kept() {
    let home = home().await;
    let mut world = world(&home, Vec::new(), 4096).await;
    let saga = SagaId::mint(BEGIN_MS, Slot::of("archived"), 7);
    let captured = Captured {
        provider: NAME.to_owned(),
        provider_no: "P-archived".to_owned(),
        amount_minor: MinorUnits::new(100).expect("a small amount"),
        currency: "CNY".to_owned(),
        saga,
    };
    world.system.produce(vec![captured.message(Lane::Live, SHARDS, BEGIN_MS)]).await;
    while world.step().await {}
    let orphans = world.system.read(&ORPHANS).await;
    assert_eq!(orphans.len(), 1);
    assert_eq!(orphans[0][0].id(), Some(saga.0));
    assert!(orphans[0][1].text().is_some_and(|body| body.contains("P-archived")));
    home.close().await;
}

#[tokio::test]
async fn z13_a_confirm_that_is_refused_after_payment_gives_the_money_back() {
    let home = home().await;
    let mut world = world(&home, vec![order("Z13", "ann", 10, Vec::new())], 4096).await;
    while world.step().await {}
    let seen = world.find("flash_sale_order", "Z13").expect("it waits for its payment");
    // A participant that gave its hold back by itself, against the saga's will.
    let effect_id = format!("{}:hold_stock:0:do:0", seen.id).parse().expect("an effect id");
    let message = Message::Inquired(InquiryAnswer { effect_id, keep: false, known: false });
    let (schema, time_ms, key) = (SCHEMA_VERSION, BEGIN_MS, "tea".to_owned());
    let envelope = Envelope { id: "lie".to_owned(), schema, time_ms, key, lane: Lane::Live, message };
    let partition = Slot::of("tea").partition(SHARDS);
    world.system.produce(vec![Outgoing { topic: Topic::Commands, partition, envelope: envelope.into() }]).await;
    while world.step().await {}
    world.orders[0].acts.push_back(Act { after_ms: 0, doing: pays(3) });
    let sagas = settled(&mut world).await;
    assert_eq!(status_of(&sagas, "flash_sale_order", "Z13"), "refunded");
    assert_eq!(world.provider.book(|book| book.refunds.len()), 1);
    home.close().await;
}

#[tokio::test]
async fn z15_a_saga_goes_on_without_the_file_it_was_started_from() {
    let home = home().await;
    let mut world = world(&home, vec![order("Z15", "ann", 0, vec![(0, pays(1))])], 4096).await;
    world.orders[0].acts.truncate(1);
    while world.step().await {}
    world.system.restart().await;
    // The next program carries no file of it: what the database holds is enough.
    world.system.definitions = Definitions::open(world.system.store()).await.expect("definitions are stored");
    world.system.crash();
    world.orders[0].acts.push_back(Act { after_ms: 0, doing: pays(1) });
    let sagas = settled(&mut world).await;
    assert_eq!(status_of(&sagas, "flash_sale_order", "Z15"), "completed");
    home.close().await;
}

#[tokio::test]
async fn z21_money_at_any_moment_around_a_cancel_is_kept_or_goes_back_once() {
    let home = home().await;
    for moment in 0..24 {
        let shelf =
            Shelf { units: vec![("tea".to_owned(), 5, 0)], users: vec![("ann".to_owned(), 0)], coupons: vec![] };
        let orders = vec![order("Z21", "ann", 0, Vec::new())];
        let mut world = World::calm(shelf, orders, (4096, None), home.fresh().await).await;
        world.open_shop().await;
        while world.step().await {}
        let seen = world.find("flash_sale_order", "Z21").expect("it waits for its payment");
        let cancel = Doing::Cancel { reason: "user", role: "owner" };
        world.act(&world.orders[0].clone(), &cancel).await;
        // Turn by turn, the cancel goes its way; at this moment the provider takes the money.
        for _ in 0..moment {
            world.small_step().await;
        }
        let taken = world.provider.book(|book| book.capture(seen.id, 50_000, "CNY", true)).expect("it was opened");
        world.system.produce(vec![taken.message(Lane::Live, SHARDS, world.system.now_ms())]).await;
        let sagas = settled(&mut world).await;
        assert_eq!(status_of(&sagas, "flash_sale_order", "Z21"), "closed", "cancelled first");
        let back = world.provider.book(|book| book.refunded(&taken.provider_no));
        assert_eq!((back, world.provider.book(|book| book.refunds.len())), (50_000, 1), "at moment {moment}");
    }
    home.close().await;
}

#[tokio::test]
async fn z22_points_that_were_earned_and_spent_become_a_debt_when_the_order_is_refunded() {
    let home = home().await;
    let whole = json!([{ "line_no": "0", "quantity": 1 }]);
    let refund = Doing::Refund { refund_no: "R-1".to_owned(), lines: whole, needs_approval: false };
    let earns = order("Z22-a", "ann", 0, vec![(0, pays(1)), (120_000, refund)]);
    // Everything she has, what she earned included.
    let mut spends = order("Z22-b", "ann", 1_500, vec![(0, pays(1))]);
    spends.input["discount_minor"] = json!(49_950);
    spends.acts[0].after_ms = 60_000;
    let mut world = world(&home, vec![earns, spends], 4096).await;
    let sagas = settled(&mut world).await;
    assert_eq!(status_of(&sagas, "flash_sale_order", "Z22-b"), "completed");
    assert_eq!(status_of(&sagas, "refund_order", "R-1"), "refunded");
    let books = endstate_participants::books::read(&*world.system.store()).await.expect("books can be read");
    let points = books.iter().find(|book| book.asset == "points").expect("there are points");
    assert_eq!((points.owed, points.balanced), (500, true));
    home.close().await;
}

/// Two owners of all shards, each taking over from the other again and again.
#[tokio::test]
async fn z06_two_owners_by_turns_lose_nothing_and_do_nothing_twice() {
    let home = home().await;
    let orders = (0..40).map(|n| order(&format!("Z6-{n}"), &format!("user-{n}"), 0, vec![(0, pays(2))])).collect();
    let mut world = world(&home, orders, 4096).await;
    for round in 0..60 {
        if round % 5 == 0 {
            world.hand_to_others().await;
        }
        world.small_steps_of_both().await;
    }
    world.system.bury_zombies();
    let sagas = settled(&mut world).await;
    assert!(sagas.iter().all(|seen| seen.status == "completed"), "{sagas:?}");
    home.close().await;
}
