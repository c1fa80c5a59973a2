//! Shards of sagas over one store, moved by hand.

use crate::poison::Picky;
use endstate_events::{
    Command, Direction, EffectId, Envelope, Input, InputBody, Json, Lane, Message, Reply, SCHEMA_VERSION, SagaId, Side,
    Slot, Start, Topic, Verdict,
};
use endstate_orchestrator::definitions::Definitions;
use endstate_orchestrator::gateway::Gateway;
use endstate_orchestrator::handler::{Listeners, SagaHandler};
use endstate_orchestrator::persist;
use endstate_orchestrator::waiters::Waiters;
use endstate_outbox::alert::{self, Tried};
use endstate_outbox::{
    Alert, Bus, Clock, Handler as _, ManualClock, Outgoing, Shard, ShardId, Store, Turn, dead_letter,
};
use endstate_saga::definition::{Source, body_hash, shipped};
use endstate_saga::saga::Saga;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A shipped definition.
pub(crate) fn source(name: &str) -> Source {
    shipped().into_iter().find(|source| source.text.contains(&format!("\nsaga: {name}\n"))).unwrap()
}

/// The seeded world's definition, which has what no shipped one has: a wait that parks, and a step that is a saga.
pub(crate) fn odd_job() -> Source {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/world/sagas/odd_job.yaml");
    let mut source = Source::read(Path::new(file)).unwrap();
    source.siblings.push("bench_saga".to_owned());
    source
}

/// An input that fits [`odd_job`].
pub(crate) fn job(number: &str) -> Json {
    json!({
        "number": number, "do": "done", "undo": "done", "hint": "done", "value": 1, "divisor": 2, "sub_fails_at": "",
    })
}

/// What a participant says about a step.
pub(crate) fn reply(saga: SagaId, step: &str, verdict: Verdict) -> InputBody {
    let effect_id = EffectId { saga, step: step.into(), item: String::new(), direction: Direction::Do, round: 0 };
    InputBody::Reply(Reply { effect_id, verdict })
}

pub(crate) fn done(saga: SagaId, step: &str) -> InputBody {
    reply(saga, step, Verdict::Done { data: json!({}) })
}

/// One assignment of every shard of the orchestrator's side.
pub(crate) struct System {
    folder: PathBuf,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) shards: Vec<Shard<SagaHandler>>,
    /// Whether the store that shards see refuses what is poison, see [`Picky`].
    pub(crate) refuses: Arc<AtomicBool>,
    minted: u64,
    in_motion_most: usize,
}

impl System {
    /// Opens the store and knows what definitions it holds; loads none.
    pub(crate) async fn open(folder: &Path, in_motion_most: usize) -> Self {
        let (store, bus) = crate::place::open(folder).await;
        Self::over(folder, store, bus, Arc::new(ManualClock::new(1_700_000_000_000)), in_motion_most).await
    }

    /// The same over any store and bus.
    pub(crate) async fn over(
        folder: &Path,
        store: Arc<dyn Store>,
        bus: Arc<dyn Bus>,
        clock: Arc<ManualClock>,
        in_motion_most: usize,
    ) -> Self {
        let definitions = Definitions::open(store.clone()).await.unwrap();
        let waiters = Arc::new(Waiters::default());
        let refuses = Arc::new(AtomicBool::new(false));
        let folder = folder.to_owned();
        let shards = Vec::new();
        let mut system =
            Self { folder, store, bus, clock, definitions, waiters, shards, refuses, minted: 0, in_motion_most };
        system.shards = system.anew(None);
        system
    }

    /// Shards that begin anew; events of sagas are put together that are open for so long, if at all.
    pub(crate) fn anew(&self, snapshot_after_ms: Option<i64>) -> Vec<Shard<SagaHandler>> {
        let Self { store, bus, clock, definitions, .. } = self;
        let listeners = Listeners { waiters: Arc::clone(&self.waiters) };
        let seen: Arc<dyn Store> = Arc::new(Picky { inner: store.clone(), refuses: Arc::clone(&self.refuses) });
        let shard = |index| {
            let handler = SagaHandler::new(seen.clone(), definitions.clone(), listeners.clone(), self.in_motion_most)
                .snapshots_after(snapshot_after_ms);
            Shard::new(ShardId { side: Side::Orchestrator, index }, seen.clone(), bus.clone(), clock.clone(), handler)
        };
        (0..store.partitions()).map(shard).collect()
    }

    /// A start of the active version, not queued yet.
    pub(crate) fn start(&mut self, definition: &str, input: Json) -> (SagaId, Outgoing) {
        let definition = self.definitions.active(definition).unwrap();
        let identity = definition.identify(&input, &Json::Null).unwrap();
        let key = identity.key.unwrap();
        self.minted += 1;
        let saga = SagaId::mint(self.clock.now_ms(), Slot::of(&key), self.minted);
        let start = Start {
            definition: definition.name().to_string(),
            version: definition.version(),
            number: identity.number.clone(),
            body_hash: body_hash(&input, &key, Lane::Live),
            key,
            owner: identity.owner,
            input,
            link: None,
        };
        (saga, self.message(Topic::Start, saga, identity.number, InputBody::Start(Box::new(start))))
    }

    /// An input in the saga's partition.
    pub(crate) fn message(&self, topic: Topic, saga: SagaId, id: String, body: InputBody) -> Outgoing {
        let message = Message::Input(Input { saga, body });
        let (time_ms, key) = (self.clock.now_ms(), saga.to_string());
        let envelope = Arc::new(Envelope { id, schema: SCHEMA_VERSION, time_ms, key, lane: Lane::Test, message });
        Outgoing { topic, partition: saga.slot().partition(self.store.partitions()), envelope }
    }

    /// Queues messages, a thousand a commit.
    pub(crate) async fn queue(&self, messages: &[Outgoing]) {
        for page in messages.chunks(1_000) {
            self.bus.produce(page.to_vec()).await.unwrap();
        }
    }

    /// Changes the bytes of inputs that are queued.
    pub(crate) async fn rewrite_progress(&self, from: &str, to: &str) {
        crate::place::rewrite_progress(&self.folder, &*self.store, from, to).await;
    }

    /// Sends a dead letter again.
    pub(crate) async fn replay(&self, letter: i64) {
        let wish = dead_letter::Replay { by: "olga".into(), reason: "its cause is gone".into() };
        dead_letter::replay(&*self.store, &*self.bus, letter, &wish, self.clock.now_ms(), async |letter| {
            Ok(vec![letter])
        })
        .await
        .unwrap();
    }

    /// Lets every shard work on a task of its own until none finds anything to do.
    pub(crate) async fn run_until_idle(&mut self) {
        let tasks: Vec<_> = self.shards.drain(..).map(|shard| tokio::spawn(until_idle(shard))).collect();
        for task in tasks {
            self.shards.push(task.await.unwrap());
        }
    }

    /// Queues one input and lets the shards work.
    pub(crate) async fn tell(&mut self, saga: SagaId, id: &str, body: InputBody) {
        let message = self.message(Topic::Progress, saga, id.to_owned(), body);
        self.queue(&[message]).await;
        self.run_until_idle().await;
    }

    /// Starts a saga and lets the shards work.
    pub(crate) async fn begin(&mut self, definition: &str, input: Json) -> SagaId {
        let (saga, start) = self.start(definition, input);
        self.queue(&[start]).await;
        self.run_until_idle().await;
        saga
    }

    /// The way in over this store.
    pub(crate) fn gateway(&self) -> Gateway {
        let (store, bus) = (self.store.clone(), self.bus.clone());
        Gateway::new(store, bus, self.clock.clone(), self.definitions.clone(), self.waiters.clone())
    }

    /// What people were to be told since the last look, in the order of its time; told by that.
    pub(crate) async fn told(&self) -> Vec<Alert> {
        let now_ms = self.clock.now_ms();
        let waiting = alert::waiting(&*self.store, now_ms, 1_000).await.unwrap();
        let told: Vec<_> = waiting.iter().map(|waiting| (waiting.alert.id.clone(), Tried::Told("test"))).collect();
        alert::mark(&*self.store, &told, now_ms).await.unwrap();
        waiting.into_iter().map(|waiting| waiting.alert).collect()
    }

    /// All messages to participants so far, partition by partition.
    pub(crate) async fn to_participants(&self) -> Vec<Message> {
        let mut messages = Vec::new();
        for partition in 0..self.store.partitions() {
            let mut consumer = self.bus.consumer(Topic::Commands, partition, 0);
            while let taken @ [_, ..] = &*consumer.take(1_000).await.unwrap() {
                messages.extend(taken.iter().map(|delivered| delivered.envelope.as_ref().unwrap().message.clone()));
            }
        }
        messages
    }

    /// All commands of a saga so far.
    pub(crate) async fn commands(&self, saga: SagaId) -> Vec<Command> {
        let command = |message| match message {
            Message::Command(command) if command.saga() == saga => Some(command),
            _ => None,
        };
        self.to_participants().await.into_iter().filter_map(command).collect()
    }

    pub(crate) async fn saga(&self, id: SagaId) -> Option<Saga> {
        Some(persist::load_sagas(&*self.store, &[id]).await.unwrap().pop()?.saga)
    }
}

/// Turns of one shard until it is idle at most; the longest test takes some thousands.
const TURNS: u32 = 100_000;

/// Doubts in a row at most: here no store fails for long.
const DOUBTS: u32 = 10;

async fn until_idle(mut shard: Shard<SagaHandler>) -> Shard<SagaHandler> {
    let mut doubts = 0;
    for _ in 0..TURNS {
        match shard.turn().await {
            Turn::Worked => doubts = 0,
            Turn::Idle => return shard,
            Turn::Wait(pause) => {
                doubts += 1;
                assert!(doubts <= DOUBTS, "a shard is assigned again and again; its reasons are in the log");
                tokio::time::sleep(pause).await;
            }
        }
    }
    let handler = shard.handler();
    panic!("a shard does not come to rest: {} sagas in motion, due {:?}", handler.in_motion(), handler.due_ms());
}
