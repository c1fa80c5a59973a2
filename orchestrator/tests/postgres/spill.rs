//! Z18: the broker is down in the middle of a sale. What it does not take is spilled and read from there, in its place
//! before the topics; what it took after all, unacknowledged, is the same input.

use crate::real;
use crate::system::{System, done, source};
use async_trait::async_trait;
use endstate_events::{Actor, InputBody, Message, Reply, SagaId, Topic, Verdict};
use endstate_outbox::spill::SpillSettings;
use endstate_outbox::*;
use endstate_saga::control::{Outcome as End, Phase};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A bus whose broker does not answer while it is `away`; what it was given is lost, or arrives after all.
struct Broker {
    inner: Arc<dyn Bus>,
    away: AtomicBool,
    takes: AtomicBool,
    /// It answers questions although it takes nothing.
    talks: AtomicBool,
    /// Messages that tried it.
    tried: AtomicUsize,
}

#[async_trait]
impl Bus for Broker {
    async fn produce(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        self.tried.fetch_add(1, Ordering::SeqCst);
        if !self.away.load(Ordering::SeqCst) {
            return self.inner.produce(messages).await;
        }
        if self.takes.load(Ordering::SeqCst) {
            self.inner.produce(messages).await?;
        }
        std::future::pending().await
    }

    fn consumer(&self, topic: Topic, partition: u16, position: i64) -> Box<dyn Consumer> {
        self.inner.consumer(topic, partition, position)
    }

    async fn answers(&self, _: Topic, _: u16) -> bool {
        self.talks.load(Ordering::SeqCst) || !self.away.load(Ordering::SeqCst)
    }

    fn relay(&self, shard: ShardId, published_seq: i64) -> Option<Box<dyn Relay>> {
        self.inner.relay(shard, published_seq)
    }
}

/// A sale over a database and a broker that may go away.
struct Sale {
    system: System,
    broker: Arc<Broker>,
    bus: Arc<SpillingBus>,
    store: Arc<PostgresStore>,
}

impl Sale {
    async fn open(folder: &tempfile::TempDir, most: i64) -> Self {
        let (store, inner) = real::both(folder.path(), 4).await;
        let [away, takes, talks] = [false; 3].map(AtomicBool::new);
        let broker = Arc::new(Broker { inner: Arc::new(inner), away, takes, talks, tried: AtomicUsize::new(0) });
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        // A broker that is there answers at once, one that is not never does.
        let settings = SpillSettings { patience: Duration::from_millis(1), most };
        let bus = SpillingBus::new(broker.clone(), store.clone(), store.clone(), clock.clone(), settings);
        let system = System::over(folder.path(), store.clone(), bus.clone(), clock, 256).await;
        for name in ["refund_payment", "flash_sale_order", "bench_saga"] {
            system.definitions.load(&source(name), 0).await.unwrap();
        }
        Self { system, broker, bus, store }
    }

    fn goes_away(&self, takes: bool) {
        self.broker.takes.store(takes, Ordering::SeqCst);
        self.broker.away.store(true, Ordering::SeqCst);
    }

    /// It is back, and long enough that it is tried.
    fn comes_back(&self) {
        self.broker.away.store(false, Ordering::SeqCst);
        self.system.clock.advance(2_000);
    }

    /// Messages spilled so far, by topic.
    async fn spilled(&self, topic: Topic) -> i64 {
        let ends = self.store.ends().await.unwrap();
        ends.iter().filter(|end| end.place.0 == topic).map(|end| end.next).sum()
    }

    fn order(&mut self, number: usize) -> (SagaId, Outgoing) {
        let sample: Value = serde_json::from_str(&source("flash_sale_order").samples["at_order.json"]).unwrap();
        let mut input = sample["input"].clone();
        (input["order_no"], input["user_id"]) = (json!(format!("O-{number}")), json!(format!("u-{number}")));
        self.system.start("flash_sale_order", input)
    }

    fn callback(&self, saga: SagaId) -> Outgoing {
        let data = json!({
            "provider": "simpay", "provider_no": saga, "amount_minor": 9_900, "currency": "CNY", "saga": saga,
        });
        let body = InputBody::Event { name: "payment.captured".to_owned(), data };
        self.system.message(Topic::Progress, saga, format!("payment/simpay/{saga}"), body)
    }

    /// Every participant has done what it was told, until nothing more is told.
    async fn settle(&mut self) {
        let mut told = BTreeSet::new();
        loop {
            self.system.run_until_idle().await;
            let mut replies = Vec::new();
            for message in self.system.to_participants().await {
                let Message::Command(command) = message else { panic!() };
                if !told.insert(command.effect_id.to_string()) {
                    continue;
                }
                let (effect_id, data) = (command.effect_id.clone(), json!({ "payment_no": "pay-1" }));
                let id = format!("reply/{effect_id}");
                let reply = InputBody::Reply(Reply { effect_id, verdict: Verdict::Done { data } });
                replies.push(self.system.message(Topic::Progress, command.saga(), id, reply));
            }
            if replies.is_empty() {
                return;
            }
            self.system.queue(&replies).await;
        }
    }

    async fn outcome(&self, saga: SagaId) -> Option<End> {
        self.system.saga(saga).await.unwrap().control.outcome()
    }

    /// How often each saga was created and ended, in all timelines.
    async fn versions(&self, sagas: &[SagaId]) -> Vec<u64> {
        let mut versions = Vec::new();
        for saga in sagas {
            versions.push(self.system.saga(*saga).await.unwrap().version);
        }
        versions
    }
}

/// Orders, payments and cancels come while the broker is away; all are accepted, and end as if it had been there.
#[tokio::test]
async fn z18_what_comes_while_the_broker_is_away_is_kept_and_decided() {
    let folder = tempfile::tempdir().unwrap();
    let mut sale = Sale::open(&folder, 1_000).await;
    let (paid, start) = sale.order(1);
    let (cancelled, other) = sale.order(2);
    sale.system.queue(&[start, other]).await;
    sale.settle().await;
    assert_eq!(sale.spilled(Topic::Start).await, 0, "a broker that answers gets everything");

    sale.goes_away(false);
    let (late, start) = sale.order(3);
    sale.system.queue(&[start]).await;
    sale.system.queue(&[sale.callback(paid)]).await;
    let actor = Actor { subject: "u-2".to_owned(), role: "owner".to_owned() };
    let cancel = InputBody::Cancel { reason: "user".to_owned(), actor };
    sale.system.queue(&[sale.system.message(Topic::Progress, cancelled, "c-1".to_owned(), cancel)]).await;
    assert_eq!((sale.spilled(Topic::Start).await, sale.spilled(Topic::Progress).await), (1, 2));
    let alerts = sale.system.told().await;
    assert_eq!(alerts.iter().filter(|alert| &*alert.kind == "spill").count(), 1, "people are told, once");

    sale.comes_back();
    sale.settle().await;
    assert_eq!(sale.outcome(paid).await, Some(End::Completed));
    assert_eq!(sale.outcome(cancelled).await, Some(End::Cancelled));
    sale.system.queue(&[sale.callback(late)]).await;
    sale.settle().await;
    assert_eq!(sale.outcome(late).await, Some(End::Completed));
    assert_eq!(sale.spilled(Topic::Progress).await, 2, "nothing was spilled since it is back");
    sale.bus.look().await.unwrap();
    let left: Vec<_> = sale.store.ends().await.unwrap().into_iter().filter_map(|end| end.first).collect();
    assert!(left.is_empty(), "what was read is deleted: {left:?}");
}

/// The broker takes every message and its acknowledgement is lost, so that each is queued twice: as topic and as spill.
#[tokio::test]
async fn z18_what_arrives_after_all_is_the_same_input() {
    let folder = tempfile::tempdir().unwrap();
    let mut sale = Sale::open(&folder, 1_000).await;
    let (paid, first) = sale.order(1);
    let (cancelled, second) = sale.order(2);
    for start in [first, second] {
        sale.goes_away(true);
        sale.system.clock.advance(2_000);
        sale.system.queue(&[start]).await;
    }
    sale.comes_back();
    sale.settle().await;
    let before = sale.versions(&[paid, cancelled]).await;
    assert_eq!(sale.spilled(Topic::Start).await, 2);
    let mut both = 0;
    for partition in 0..sale.store.partitions() {
        both += sale.bus.consumer(Topic::Start, partition, 0).take(10).await.unwrap().len();
    }
    assert_eq!(both, 2, "both starts were queued twice");

    let actor = Actor { subject: "u-2".to_owned(), role: "owner".to_owned() };
    let cancel = InputBody::Cancel { reason: "user".to_owned(), actor };
    let cancel = sale.system.message(Topic::Progress, cancelled, "c-1".to_owned(), cancel);
    let callback = sale.callback(paid);
    for message in [&cancel, &callback] {
        sale.goes_away(true);
        sale.system.clock.advance(2_000);
        sale.system.queue(std::slice::from_ref(message)).await;
    }
    sale.comes_back();
    sale.settle().await;
    assert_eq!(sale.outcome(paid).await, Some(End::Completed));
    assert_eq!(sale.outcome(cancelled).await, Some(End::Cancelled));
    let after = sale.versions(&[paid, cancelled]).await;
    assert!(after > before);
    // And once more, when all is over.
    sale.system.queue(&[cancel, callback]).await;
    sale.settle().await;
    assert_eq!(sale.versions(&[paid, cancelled]).await, after);
    let commands = sale.system.commands(paid).await;
    let ids: BTreeSet<_> = commands.iter().map(|command| command.effect_id.to_string()).collect();
    assert_eq!(ids.len(), commands.len(), "no command was given twice");
    assert!(dead_letter::list(&*sale.store, 0, 10).await.unwrap().is_empty());
    let refunds = commands.iter().filter(|command| command.action == "refund").count();
    assert_eq!(refunds, 0, "one payment, told twice, is one");
}

/// The same number under two sagas, one by each way: one saga.
#[tokio::test]
async fn z18_a_number_is_claimed_once_whichever_way_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let mut sale = Sale::open(&folder, 1_000).await;
    let (first, start) = sale.order(1);
    let (second, again) = sale.order(1);
    sale.system.queue(&[start]).await;
    sale.goes_away(false);
    sale.system.queue(&[again]).await;
    sale.comes_back();
    sale.settle().await;
    let found = [sale.system.saga(first).await.is_some(), sale.system.saga(second).await.is_some()];
    assert_eq!(found.iter().filter(|found| **found).count(), 1, "{found:?}");
}

/// A payment that was spilled before its order's deadline counts, however late it is read (Z7); another process's, too.
#[tokio::test]
async fn z18_a_payment_that_was_spilled_before_the_deadline_counts() {
    let folder = tempfile::tempdir().unwrap();
    let mut sale = Sale::open(&folder, 1_000).await;
    let (saga, start) = sale.order(1);
    sale.system.queue(&[start]).await;
    sale.settle().await;
    let stored = endstate_orchestrator::persist::load_sagas(&*sale.store, &[saga]).await.unwrap().remove(0);
    let due_ms = stored.due_ms.unwrap();
    // By another gateway: nobody in this process hears of it.
    sale.store.append(&[sale.callback(saga)]).await.unwrap();
    sale.system.clock.advance(due_ms + 3_600_000 - sale.system.clock.now_ms());
    sale.settle().await;
    assert_eq!(sale.outcome(saga).await, Some(End::Completed));
}

/// Starts in the table are bound by what may be in motion like all others, and what is under way passes them.
#[tokio::test]
async fn z18_spilled_progress_passes_spilled_starts_that_wait_for_room() {
    const MOST: usize = 256;
    let folder = tempfile::tempdir().unwrap();
    let mut sale = Sale::open(&folder, 10_000).await;
    let bench = |n: usize| json!({ "number": format!("n-{n}"), "fail_at": "" });
    let starts = (0..).map(|n| sale.system.start("bench_saga", bench(n)));
    let starts: Vec<_> = starts.filter(|(_, start)| start.partition == 0).take(2 * MOST).collect();
    sale.goes_away(false);
    sale.system.queue(&starts.iter().map(|(_, start)| start.clone()).collect::<Vec<_>>()).await;
    sale.system.run_until_idle().await;
    assert_eq!(sale.system.shards[0].handler().in_motion(), MOST, "the others wait in the table");
    let first = starts[0].0;
    let reply = sale.system.message(Topic::Progress, first, "reply".to_owned(), done(first, "reserve"));
    sale.system.queue(&[reply]).await;
    assert_eq!(sale.spilled(Topic::Progress).await, 1);
    sale.system.run_until_idle().await;
    assert_eq!(&*sale.system.saga(first).await.unwrap().status, "locking");
    sale.comes_back();
    sale.settle().await;
    for (saga, _) in &starts {
        assert_eq!(sale.outcome(*saga).await, Some(End::Completed));
    }
}

/// Beyond the bound calls are refused, and told to come again; when something was read, there is room.
#[tokio::test]
async fn z18_no_more_is_spilled_than_may_wait() {
    let folder = tempfile::tempdir().unwrap();
    let mut sale = Sale::open(&folder, 2).await;
    sale.goes_away(false);
    let orders: Vec<_> = (0..3).map(|n| sale.order(n)).collect();
    for (_, start) in &orders[..2] {
        sale.bus.produce(vec![start.clone()]).await.unwrap();
    }
    let refused = sale.bus.produce(vec![orders[2].1.clone()]).await;
    assert!(matches!(refused, Err(BusError::Full(_))), "{refused:?}");
    sale.system.run_until_idle().await;
    sale.bus.look().await.unwrap();
    sale.bus.produce(vec![orders[2].1.clone()]).await.unwrap();
    sale.comes_back();
    sale.settle().await;
    for (saga, _) in orders {
        let saga = sale.system.saga(saga).await.unwrap();
        let plan = sale.system.definitions.get(&saga.definition, saga.definition_version).unwrap();
        assert_eq!(saga.control.phase(plan.plan()), Phase::Waiting);
    }
}

/// A partition that nobody writes to any more would be spilling for ever, and a process ready without its shards.
#[tokio::test]
async fn z18_a_broker_that_is_back_is_found_without_another_message() {
    let folder = tempfile::tempdir().unwrap();
    let mut sale = Sale::open(&folder, 1_000).await;
    sale.goes_away(false);
    let (_, start) = sale.order(1);
    sale.system.queue(&[start]).await;
    sale.system.clock.advance(60_000);
    sale.bus.ask_idle().await;
    assert!(sale.bus.is_spilling_any(), "it does not answer");
    sale.comes_back();
    sale.bus.ask_idle().await;
    assert!(!sale.bus.is_spilling_any());
}

/// A leader without enough copies in sync answers questions and takes no message: each that waited for it would wait long.
#[tokio::test]
async fn z18_a_broker_that_only_answers_is_tried_by_one_message_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut sale = Sale::open(&folder, 1_000).await;
    sale.goes_away(false);
    sale.broker.talks.store(true, Ordering::SeqCst);
    let (_, start) = sale.order(1);
    sale.system.queue(std::slice::from_ref(&start)).await;
    for round in 1..4 {
        sale.system.clock.advance(60_000);
        sale.bus.ask_idle().await;
        assert!(!sale.bus.is_spilling_any(), "shards that can read may be waited for");
        let both = (sale.bus.produce(vec![start.clone()]), sale.bus.produce(vec![start.clone()]));
        let (first, second) = tokio::join!(both.0, both.1);
        first.and(second).unwrap();
        assert_eq!(sale.broker.tried.load(Ordering::SeqCst), 1 + round, "the other is spilled at once");
        assert!(sale.bus.is_spilling_any());
    }
    sale.comes_back();
    sale.bus.produce(vec![start]).await.unwrap();
    assert!(!sale.bus.is_spilling_any());
    assert_eq!(sale.spilled(Topic::Start).await, 7, "one, and two in each round");
}

/// A clock that goes back keeps no message from trying the broker.
#[tokio::test]
async fn z18_a_clock_that_goes_back_spills_nothing_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let mut sale = Sale::open(&folder, 1_000).await;
    sale.goes_away(false);
    let ((_, first), (_, second)) = (sale.order(1), sale.order(1));
    sale.system.queue(&[first]).await;
    sale.comes_back();
    sale.system.clock.advance(-3_600_000);
    sale.system.queue(&[second]).await;
    assert_eq!(sale.spilled(Topic::Start).await, 1, "the same place, and the broker takes it");
    assert!(!sale.bus.is_spilling_any());
}
