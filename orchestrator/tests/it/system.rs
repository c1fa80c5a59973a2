//! Shards of sagas over one embedded store, moved by hand.

use crate::poison::Picky;
use endstate_events::{
    Envelope, Input, InputBody, Json, Lane, Message, SCHEMA_VERSION, SagaId, Side, Slot, Start, Topic,
};
use endstate_orchestrator::definitions::Definitions;
use endstate_orchestrator::gateway::body_hash;
use endstate_orchestrator::handler::{Alert, Listeners, SagaHandler};
use endstate_orchestrator::persist;
use endstate_orchestrator::waiters::Waiters;
use endstate_outbox::{Bus as _, Clock, ManualClock, Outgoing, Shard, ShardId, SqliteStore, Store, Turn, dead_letter};
use endstate_saga::saga::Saga;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// One assignment of every shard of the orchestrator's side.
pub(crate) struct System {
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) shards: Vec<Shard<SagaHandler>>,
    pub(crate) alerts: tokio::sync::mpsc::UnboundedReceiver<Alert>,
    /// Whether the store that shards see refuses what is poison, see [`Picky`].
    pub(crate) refuses: Arc<AtomicBool>,
    minted: u64,
}

impl System {
    /// Opens the store and knows what definitions it holds; loads none.
    pub(crate) async fn open(folder: &Path, in_motion_most: usize) -> Self {
        let store = SqliteStore::open(folder).await.unwrap();
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let definitions = Definitions::open(store.clone()).await.unwrap();
        let waiters = Arc::new(Waiters::default());
        let (told, alerts) = tokio::sync::mpsc::unbounded_channel();
        let listeners = Listeners { waiters: Arc::clone(&waiters), alerts: told };
        let refuses = Arc::new(AtomicBool::new(false));
        let seen: Arc<dyn Store> = Arc::new(Picky { inner: store.clone(), refuses: Arc::clone(&refuses) });
        let shard = |index| {
            let handler = SagaHandler::new(seen.clone(), definitions.clone(), listeners.clone(), in_motion_most);
            Shard::new(ShardId { side: Side::Orchestrator, index }, seen.clone(), store.bus(), clock.clone(), handler)
        };
        let shards = (0..store.partitions()).map(shard).collect();
        Self { store, clock, definitions, waiters, shards, alerts, refuses, minted: 0 }
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
            body_hash: body_hash(&key, &input),
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
            self.store.bus().produce(page.to_vec()).await.unwrap();
        }
    }

    /// Sends a dead letter again.
    pub(crate) async fn replay(&self, letter: i64) {
        let wish = dead_letter::Replay { by: "olga".into(), reason: "its cause is gone".into() };
        dead_letter::replay(&*self.store, letter, &wish, self.clock.now_ms(), |_| {}).await.unwrap();
    }

    /// Lets every shard work on a task of its own until none finds anything to do.
    pub(crate) async fn run_until_idle(&mut self) {
        let tasks: Vec<_> = self.shards.drain(..).map(|shard| tokio::spawn(until_idle(shard))).collect();
        for task in tasks {
            self.shards.push(task.await.unwrap());
        }
    }

    pub(crate) async fn saga(&self, id: SagaId) -> Option<Saga> {
        Some(persist::load_sagas(&*self.store, &[id]).await.unwrap().pop()?.saga)
    }
}

async fn until_idle(mut shard: Shard<SagaHandler>) -> Shard<SagaHandler> {
    loop {
        match shard.turn().await {
            Turn::Worked => {}
            Turn::Idle => return shard,
            Turn::Wait(pause) => tokio::time::sleep(pause).await,
        }
    }
}
