//! One seed's system: a real store in a folder of its own, shards turned by hand, a clock moved by hand.

use crate::fault::{FaultyBus, FaultyStore, Poisonable, SharedFaults};
use crate::template::Template;
use endstate_events::{
    Envelope, Input, InputBody, Json, Lane, Link, Message, SCHEMA_VERSION, SagaId, Side, Slot, Start, Topic,
};
use endstate_orchestrator::definitions::Definitions;
use endstate_orchestrator::handler::{Listeners, SagaHandler};
use endstate_orchestrator::waiters::Waiters;
use endstate_outbox::{
    Bus, Clock, Fused, Handler, Kind, ManualClock, Outgoing, Rows, Shard, ShardId, SqliteStore, Statement, Store, Turn,
    Value,
};
use endstate_participants::handler::{HandOver, Participants, Settings};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Where every seed's clock begins.
pub(crate) const BEGIN_MS: i64 = 1_800_000_000_000;

/// Hand-overs of calls that find room; so few that some do not, and are offered again.
const ROOM: usize = 4;

/// Shards per side of a world told by hand.
pub(crate) const SHARDS: u16 = endstate_outbox::sqlite::PARTITIONS;

/// A shard of either side, or of both.
enum Owned {
    Sagas(Shard<Poisonable<SagaHandler>>),
    Participants(Shard<Participants>),
    Both(Box<Shard<Fused<Poisonable<SagaHandler>, Participants>>>),
}

impl Owned {
    async fn turn(&mut self) -> Turn {
        match self {
            Self::Sagas(shard) => shard.turn().await,
            Self::Participants(shard) => shard.turn().await,
            Self::Both(shard) => shard.turn().await,
        }
    }
}

/// What the shards stand on; dropped as a whole when the process "restarts".
pub(crate) struct System {
    folder: PathBuf,
    store: Option<Arc<SqliteStore>>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) handed_over: mpsc::Receiver<HandOver>,
    shards: Vec<Owned>,
    /// Shards of a process that was thought dead and works on: the fence must hold it off.
    zombies: Vec<Owned>,
    faults: SharedFaults,
    in_motion_most: usize,
    /// Rounds of a transaction at most when one task owns both sides; `None`: hop by hop.
    rounds: Option<usize>,
}

static SAGAS: Statement = Statement {
    name: "world.sagas",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select s.id, s.phase, json_extract(s.state, '$.status'), \
          json_extract(s.state, '$.definition'), json_extract(s.state, '$.number') from r cross join saga s order by s.id",
};

/// What the world sees of a saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) id: SagaId,
    pub(crate) phase: String,
    pub(crate) status: String,
    pub(crate) definition: String,
    pub(crate) number: String,
}

impl System {
    pub(crate) async fn open(
        folder: &Path,
        template: &Template,
        faults: SharedFaults,
        (in_motion_most, rounds): (usize, Option<usize>),
    ) -> Self {
        template.copy_to(folder);
        let store = SqliteStore::open(folder).await.expect("the store opens");
        let (_, handed_over) = mpsc::channel(1);
        let mut system = Self {
            folder: folder.to_owned(),
            store: Some(store),
            clock: Arc::new(ManualClock::new(BEGIN_MS)),
            definitions: Arc::clone(&template.definitions),
            waiters: Arc::default(),
            handed_over,
            shards: Vec::new(),
            zombies: Vec::new(),
            faults,
            in_motion_most,
            rounds,
        };
        system.crash();
        system
    }

    /// Drops every shard with its memory and makes new ones, which own nothing yet. Calls that were handed over are
    /// forgotten with them.
    pub(crate) fn crash(&mut self) {
        let (caller, handed_over) = mpsc::channel(ROOM);
        self.handed_over = handed_over;
        let listeners = Listeners { waiters: Arc::clone(&self.waiters) };
        let faults = &self.faults;
        let store: Arc<dyn Store> = Arc::new(FaultyStore { inner: self.store().clone(), faults: faults.clone() });
        let bus: Arc<dyn Bus> = Arc::new(FaultyBus { inner: self.store().bus(), faults: faults.clone() });
        let clock: Arc<dyn Clock> = self.clock.clone();
        self.shards.clear();
        self.zombies.clear();
        for index in 0..self.partitions() {
            let (definitions, listeners) = (self.definitions.clone(), listeners.clone());
            let inner = SagaHandler::new(store.clone(), definitions, listeners, self.in_motion_most);
            let sagas = Poisonable { inner, faults: faults.clone() };
            let participants = Participants::new(store.clone(), caller.clone(), Settings::default());
            let id = |side| ShardId { side, index };
            if let Some(rounds) = self.rounds {
                let (both, s, b, c) =
                    (Fused::new(sagas, participants, rounds), store.clone(), bus.clone(), clock.clone());
                self.shards.push(Owned::Both(Box::new(Shard::new(id(Side::Orchestrator), s, b, c, both))));
                continue;
            }
            let (s, b, c) = (store.clone(), bus.clone(), clock.clone());
            self.shards.push(Owned::Sagas(Shard::new(id(Side::Orchestrator), s, b, c, sagas)));
            let (s, b, c) = (store.clone(), bus.clone(), clock.clone());
            self.shards.push(Owned::Participants(Shard::new(id(Side::Participants), s, b, c, participants)));
        }
    }

    /// New owners take over while the old ones live on, with all that they remember.
    pub(crate) fn take_over(&mut self) {
        let old = std::mem::take(&mut self.shards);
        self.crash();
        self.zombies = old;
    }

    /// The old owners are gone for good.
    pub(crate) fn bury_zombies(&mut self) {
        self.zombies.clear();
    }

    /// Turns a shard of an old owner, if there is one.
    pub(crate) async fn turn_zombie(&mut self, shard: usize) {
        if let Some(zombie) = self.zombies.get_mut(shard) {
            zombie.turn().await;
        }
    }

    /// A crash of the whole process: the store is opened again from its file.
    pub(crate) async fn restart(&mut self) {
        self.shards.clear();
        self.zombies.clear();
        self.store = None;
        self.store = Some(SqliteStore::open(&self.folder).await.expect("the store opens again"));
        self.crash();
    }

    pub(crate) fn store(&self) -> &Arc<SqliteStore> {
        self.store.as_ref().expect("the store is open")
    }

    /// Partitions of every topic.
    pub(crate) fn partitions(&self) -> u16 {
        self.store().partitions()
    }

    pub(crate) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    pub(crate) async fn turn(&mut self, shard: usize) -> Turn {
        self.shards[shard].turn().await
    }

    /// When the earliest timer of a saga is due, as far as the shards know.
    pub(crate) fn due_ms(&self) -> Option<i64> {
        let due = |shard: &Owned| match shard {
            Owned::Sagas(shard) => shard.handler().due_ms(),
            Owned::Participants(_) => None,
            Owned::Both(shard) => shard.handler().first().due_ms(),
        };
        self.shards.iter().filter_map(due).min()
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(crate) async fn read(&self, statement: &'static Statement) -> Vec<Vec<Value>> {
        self.store().read(statement, Rows::one([1.into()])).await.expect("the world reads without faults")
    }

    pub(crate) async fn sagas(&self) -> Vec<Seen> {
        let text = |value: &Value| value.text().unwrap_or_default().to_owned();
        let rows = self.read(&SAGAS).await;
        let seen = |row: &Vec<Value>| Seen {
            id: SagaId(row[0].id().expect("a saga has an id")),
            phase: text(&row[1]),
            status: text(&row[2]),
            definition: text(&row[3]),
            number: text(&row[4]),
        };
        rows.iter().map(seen).collect()
    }

    /// Queues messages without a fault: whoever queues repeats until it is acknowledged.
    pub(crate) async fn produce(&self, messages: Vec<Outgoing>) {
        self.store().bus().produce(messages).await.expect("the world's messages are queued");
    }

    /// An input to a saga, as the gateway queues it.
    pub(crate) fn input(&self, saga: SagaId, id: String, body: InputBody) -> Outgoing {
        let topic = if matches!(body, InputBody::Start(_)) { Topic::Start } else { Topic::Progress };
        let message = Message::Input(Input { saga, body });
        let (schema, time_ms, key) = (SCHEMA_VERSION, self.now_ms(), saga.to_string());
        let envelope = Arc::new(Envelope { id, schema, time_ms, key, lane: Lane::Live, message });
        Outgoing { topic, partition: saga.slot().partition(self.partitions()), envelope }
    }

    /// A start as the gateway makes it; `random` stands for its random bits. `order` is the saga it belongs to.
    pub(crate) fn start(
        &self,
        name: &str,
        input: &Json,
        order: Option<(SagaId, String, Json)>,
        random: u64,
    ) -> Outgoing {
        let definition = self.definitions.active(name).expect("the definition is loaded");
        assert!(definition.misfits(input).is_empty(), "{input}: {:?}", definition.misfits(input));
        let snapshot = order.as_ref().map_or(Json::Null, |(_, _, snapshot)| snapshot.clone());
        let identity = definition.identify(input, &snapshot).expect("the input names its saga");
        let key = identity.key.or_else(|| order.as_ref().map(|(_, key, _)| key.clone()));
        let key = key.unwrap_or_else(|| identity.number.clone());
        let saga = SagaId::mint(self.now_ms(), Slot::of(&key), random);
        let body_hash = endstate_saga::definition::body_hash(input, &key);
        let start = Start {
            definition: name.to_owned(),
            version: definition.version(),
            number: identity.number.clone(),
            key,
            owner: identity.owner,
            input: input.clone(),
            body_hash,
            link: order.map(|(order, _, snapshot)| Link { order, snapshot, caller: None }),
        };
        self.input(saga, identity.number, InputBody::Start(Box::new(start)))
    }
}
