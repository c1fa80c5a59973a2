//! One seed's system: a real store in a folder of its own, shards turned by hand, a clock moved by hand.

use super::check::{Fault, fault, int, text};
use super::fault::{FaultyStore, Poisonable, SharedFaults};
use super::ground::Ground;
use super::network::{Network, UnderWay};
use endstate_events::{
    Envelope, Input, InputBody, Json, Lane, Link, Message, SCHEMA_VERSION, SagaId, Side, Slot, Start, Topic,
};
use endstate_orchestrator::definitions::Definitions;
use endstate_orchestrator::handler::{Listeners, SagaHandler};
use endstate_orchestrator::waiters::Waiters;
use endstate_outbox::{
    Bus, Clock, Fused, Handler, Kind, ManualClock, Outgoing, Rows, Shard, ShardId, Statement, Store, Turn, Value,
};
use endstate_participants::handler::{HandOver, Participants, Settings};
use endstate_saga::decide::check_start;
use std::collections::BTreeMap;
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
    ground: Box<dyn Ground>,
    /// None while the process is not there.
    network: Option<Arc<Network>>,
    under_way: Arc<UnderWay>,
    /// Whether a commit is the delivery of its messages; else a bus carries them, and takes its time.
    delivers: bool,
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
    /// How long sagas are open before their events are put together, if they are.
    snapshot_after_ms: Option<i64>,
}

/// PostgreSQL opens no JSON in which a text has a NUL; nobody but the world asks it to.
static SAGAS: Statement = Statement {
    name: "world.sagas",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select s.id, s.phase, \
          {json_extract(s.state, '$.status')|replace(s.state, '\\u0000', '')::json ->> 'status'}, \
          {json_extract(s.state, '$.definition')|replace(s.state, '\\u0000', '')::json ->> 'definition'}, \
          {json_extract(s.state, '$.number')|replace(s.state, '\\u0000', '')::json ->> 'number'} from r cross join saga s order by s.id",
};
static ENDS: Statement = Statement {
    name: "world.ends",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select o.topic, o.partition, sum(o.messages), max(o.first_offset + o.messages) \
          from r cross join outbox o group by o.topic, o.partition",
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
        ground: Box<dyn Ground>,
        faults: SharedFaults,
        (in_motion_most, rounds): (usize, Option<usize>),
    ) -> Self {
        let (_, handed_over) = mpsc::channel(1);
        let definitions = ground.definitions();
        let delivers = ground.bus().relay(ShardId { side: Side::Orchestrator, index: 0 }, 1).is_none();
        let mut system = Self {
            ground,
            network: None,
            under_way: Arc::default(),
            delivers,
            clock: Arc::new(ManualClock::new(BEGIN_MS)),
            definitions,
            waiters: Arc::default(),
            handed_over,
            shards: Vec::new(),
            zombies: Vec::new(),
            faults,
            in_motion_most,
            rounds,
            snapshot_after_ms: None,
        };
        system.crash();
        system
    }

    /// From now on, events of sagas are put together that are open for so long.
    pub(crate) fn put_together_after(&mut self, after_ms: i64) {
        self.snapshot_after_ms = Some(after_ms);
        self.crash();
    }

    /// Drops every shard with its memory and makes new ones, which own nothing yet. Calls that were handed over are
    /// forgotten with them.
    pub(crate) fn crash(&mut self) {
        let (caller, handed_over) = mpsc::channel(ROOM);
        self.handed_over = handed_over;
        let listeners = Listeners { waiters: Arc::clone(&self.waiters) };
        let faults = &self.faults;
        let (inner, delivers) = (self.ground.store(), self.delivers);
        let store: Arc<dyn Store> = Arc::new(FaultyStore { inner, faults: faults.clone(), delivers });
        let network = Network::new(self.ground.bus(), faults.clone(), self.under_way.clone(), delivers);
        self.network = Some(network.clone());
        let bus: Arc<dyn Bus> = network;
        let clock: Arc<dyn Clock> = self.clock.clone();
        self.shards.clear();
        self.zombies.clear();
        for index in 0..self.partitions() {
            let (definitions, listeners) = (self.definitions.clone(), listeners.clone());
            let inner = SagaHandler::new(store.clone(), definitions, listeners, self.in_motion_most)
                .snapshots_after(self.snapshot_after_ms);
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
    pub(crate) async fn take_over(&mut self) {
        let old = std::mem::take(&mut self.shards);
        self.ground.take_over().await;
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

    /// A crash of the whole process: its store and bus are opened again.
    pub(crate) async fn restart(&mut self) {
        self.shards.clear();
        self.zombies.clear();
        // The embedded store has a lock, which must go first.
        self.network = None;
        self.ground.restart().await;
        self.crash();
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        self.ground.store()
    }

    pub(crate) fn bus(&self) -> Arc<dyn Bus> {
        self.network().clone()
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

    /// Whether a shard that must wait is to be given time: over a bus that carries, others work meanwhile.
    pub(crate) fn takes_time(&self) -> bool {
        !self.delivers
    }

    fn network(&self) -> &Arc<Network> {
        self.network.as_ref().expect("the process runs")
    }

    async fn turn_each(&mut self, shards: impl IntoIterator<Item = usize>) -> bool {
        let mut worked = false;
        for shard in shards {
            worked |= self.turn(shard).await != Turn::Idle;
        }
        worked
    }

    /// When shards are idle: whether something is still under way to them. Over a bus that takes its time, waits for it.
    pub(crate) async fn arrives(&mut self, shards: &[usize]) -> bool {
        if !self.takes_time() {
            return false;
        }
        self.network().mark();
        self.turn_each(shards.iter().copied()).await || Arc::clone(self.network()).comes().await
    }

    /// When nothing is under way any more, as far as was counted: whether the broker says so, too.
    pub(crate) async fn has_more(&mut self) -> bool {
        if !self.takes_time() {
            return false;
        }
        Arc::clone(self.network()).settle().await;
        self.turn_each(0..self.shard_count()).await || !self.network().unread().is_empty()
    }

    /// Where each partition ends: what there is to read. Over a bus that carries, where its shard has found no more.
    pub(crate) async fn ends(&self) -> Result<BTreeMap<(String, i64), i64>, Fault> {
        if self.takes_time() {
            return Ok(self.network().read_to());
        }
        let mut ends = BTreeMap::new();
        for row in self.read(&ENDS).await {
            let (topic, partition, messages, end) = (text(&row[0]), int(&row[1]), int(&row[2]), int(&row[3]));
            if messages != end {
                return Err(fault(None, format!("{topic}/{partition} holds {messages} messages up to offset {end}")));
            }
            ends.insert((topic, partition), end);
        }
        Ok(ends)
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
        self.bus().produce(messages).await.expect("the world's messages are queued");
    }

    /// An input to a saga, as the gateway queues it.
    pub(crate) fn input(&self, saga: SagaId, id: String, body: InputBody) -> Outgoing {
        let topic = if matches!(body, InputBody::Start(_)) { Topic::Start } else { Topic::Progress };
        let message = Message::Input(Input { saga, body });
        let (schema, time_ms, key) = (SCHEMA_VERSION, self.now_ms(), saga.to_string());
        let envelope = Arc::new(Envelope { id, schema, time_ms, key, lane: Lane::Live, message });
        Outgoing { topic, partition: saga.slot().partition(self.partitions()), envelope }
    }

    /// Whether the gateway would refuse a start, for what its input says.
    pub(crate) fn refuses(&self, message: &Outgoing) -> bool {
        let Message::Input(Input { saga, body: InputBody::Start(start) }) = &message.envelope.message else {
            return false;
        };
        let definition = self.definitions.get(&start.definition, start.version).expect("the definition is loaded");
        check_start(&*definition, *saga, start, message.envelope.time_ms).is_err()
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
        let body_hash = endstate_saga::definition::body_hash(input, &key, Lane::Live);
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
