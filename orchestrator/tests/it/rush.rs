//! Z7 at size: orders whose payment is queued in the last second, behind a rush of new ones.

use crate::system::{System, source};
use endstate_events::{InputBody, Message, Reply, SagaId, Topic, Verdict};
use endstate_orchestrator::persist;
use endstate_outbox::{Clock as _, Consumer, Outgoing, Turn};
use endstate_saga::control::Outcome;
use serde_json::{Value, json};
use std::ops::Range;

/// What a turn of all shards takes by the clock of the sagas: slow enough that an answer which has to queue behind a rush
/// comes after its time-out.
const ROUND_MS: i64 = 200;

/// Sagas in motion per shard.
const MOST: usize = 256;

/// Everybody who is told something and has done it when the next turn begins.
struct Participants {
    commands: Vec<Box<dyn Consumer>>,
    told: usize,
}

impl Participants {
    fn of(system: &System) -> Self {
        let commands = |partition| system.bus.consumer(Topic::Commands, partition, 0);
        Self { commands: (0..system.store.partitions()).map(commands).collect(), told: 0 }
    }

    /// Answers everything that was sent so far; false when nothing was.
    async fn answer(&mut self, system: &System) -> bool {
        let mut replies = Vec::new();
        for consumer in &mut self.commands {
            while let taken @ [_, ..] = &*consumer.take(1_000).await.unwrap() {
                for delivered in taken {
                    let Message::Command(command) = &delivered.envelope.as_ref().unwrap().message else { panic!() };
                    let (effect_id, data) = (command.effect_id.clone(), json!({ "payment_no": "pay-1" }));
                    let (saga, id) = (command.saga(), effect_id.to_string());
                    let reply = InputBody::Reply(Reply { effect_id, verdict: Verdict::Done { data } });
                    replies.push(system.message(Topic::Progress, saga, id, reply));
                }
            }
        }
        system.queue(&replies).await;
        self.told += replies.len();
        !replies.is_empty()
    }
}

/// Rounds until it is at rest at most; a hundred thousand sagas take some thousands.
const ROUNDS: u32 = 100_000;

impl System {
    /// One turn of every shard at once; false when none had anything to do.
    async fn round(&mut self) -> bool {
        let turn = async |mut shard: endstate_outbox::Shard<_>| {
            let turn = shard.turn().await;
            (shard, turn)
        };
        let tasks: Vec<_> = self.shards.drain(..).map(|shard| tokio::spawn(turn(shard))).collect();
        let mut worked = false;
        for task in tasks {
            let (shard, turn) = task.await.unwrap();
            worked |= turn != Turn::Idle;
            self.shards.push(shard);
        }
        worked
    }

    async fn settle(&mut self, participants: &mut Participants) {
        for _ in 0..ROUNDS {
            let worked = self.round().await;
            if !(participants.answer(self).await || worked) {
                return;
            }
            self.clock.advance(ROUND_MS);
        }
        panic!("it does not come to rest in {ROUNDS} rounds");
    }

    /// The earliest and the latest timer.
    async fn due(&self) -> (i64, i64) {
        let mut all = Vec::new();
        for shard in 0..self.store.partitions() {
            all.extend(persist::load_due(&*self.store, shard, 1_000_000).await.unwrap());
        }
        let due = || all.iter().map(|(_, due)| *due);
        (due().min().unwrap(), due().max().unwrap())
    }
}

fn orders(system: &mut System, numbers: Range<usize>) -> Vec<(SagaId, Outgoing)> {
    let sample: Value = serde_json::from_str(&source("flash_sale_order").samples["at_order.json"]).unwrap();
    let order = |n| {
        let mut input = sample["input"].clone();
        (input["order_no"], input["user_id"]) = (json!(format!("O-{n}")), json!(format!("u-{n}")));
        system.start("flash_sale_order", input)
    };
    numbers.map(order).collect()
}

fn callback(system: &System, saga: SagaId) -> Outgoing {
    let data = json!({
        "provider": "simpay", "provider_no": saga, "amount_minor": 9_900, "currency": "CNY", "saga": saga,
    });
    let body = InputBody::Event { name: "payment.captured".to_owned(), data };
    system.message(Topic::Progress, saga, format!("payment/simpay/{saga}"), body)
}

async fn queue(system: &System, orders: &[(SagaId, Outgoing)]) {
    let starts: Vec<_> = orders.iter().map(|(_, start)| start.clone()).collect();
    system.queue(&starts).await;
}

/// A sale of `count` orders that are paid, and as many that come after them. When it is a rush, all callbacks are queued
/// one second before the first deadline, behind all new orders, and read when the last deadline is over. Returns how
/// many messages went to participants.
async fn sale(count: usize, rush: bool) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), MOST).await;
    for name in ["refund_payment", "flash_sale_order"] {
        system.definitions.load(&source(name), 0).await.unwrap();
    }
    let mut participants = Participants::of(&system);
    let (first, others) = (orders(&mut system, 0..count), orders(&mut system, count..2 * count));
    queue(&system, &first).await;
    system.settle(&mut participants).await;
    let (earliest, latest) = system.due().await;
    if rush {
        system.clock.advance(earliest - 1_000 - system.clock.now_ms());
        queue(&system, &others).await;
    }
    let callbacks: Vec<_> = first.iter().map(|(saga, _)| callback(&system, *saga)).collect();
    system.queue(&callbacks).await;
    if rush {
        system.clock.advance(latest + 1 - system.clock.now_ms());
    }
    system.settle(&mut participants).await;
    if !rush {
        queue(&system, &others).await;
        system.settle(&mut participants).await;
    }
    for (sagas, outcome) in [(first, Some(Outcome::Completed)), (others, None)] {
        let ids: Vec<_> = sagas.iter().map(|(saga, _)| *saga).collect();
        for page in ids.chunks(1_000) {
            let stored = persist::load_sagas(&*system.store, page).await.unwrap();
            assert_eq!(stored.len(), page.len());
            let other = stored.iter().find(|stored| stored.saga.control.outcome() != outcome);
            assert!(other.is_none(), "{:?}", other.map(|stored| &stored.saga));
        }
    }
    participants.told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn z07_ten_thousand_payments_in_the_last_second_are_taken_behind_ten_thousand_starts() {
    const FEW: usize = 250;
    // The hazard speaks of 100,000, which takes minutes: `ENDSTATE_Z07_STARTS=100000`.
    let many = std::env::var("ENDSTATE_Z07_STARTS").map_or(10_000, |count| count.parse().unwrap());
    let (calm, rush) = (sale(FEW, false).await, sale(many, true).await);
    // The hazard allows a fifth more; one question per order would be less, and is too much.
    assert!(rush * FEW * 20 <= calm * many * 21, "{rush} messages for {many}, {calm} for {FEW}");
    println!("{rush} messages for {many}, {calm} for {FEW}");
}
