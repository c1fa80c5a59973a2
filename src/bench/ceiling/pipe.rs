//! The handler of the ceiling: passes tokens on and writes the rows that sagas would have written.

use endstate_events::{
    Command, CommandKind, Direction, DomainEvent, EffectId, Envelope, Input, InputBody, Lane, Message, Reply, ReplyTo,
    SCHEMA_VERSION, SagaId, Slot, Topic, Verdict,
};
use endstate_outbox::{
    Assignment, Batch, Bus, DecideError, Handler, Kind, Outcome, Outgoing, Rows, Statement, StoreError, Value, Write,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use uuid::Uuid;

static CLAIM: Statement = Statement {
    name: "bench.claim",
    columns: &[Kind::Text, Kind::Text, Kind::Id, Kind::Text],
    sql: "with r(definition, number, saga, body_hash) as ({rows}) \
          insert into saga_number (definition, number, saga, body_hash) select * from r",
};
static INSERT: Statement = Statement {
    name: "bench.insert",
    columns: &[Kind::Id, Kind::Int, Kind::Int, Kind::Text, Kind::Int, Kind::Text],
    sql: "with r(id, shard, version, phase, due, state) as ({rows}) \
          insert into saga (id, shard, version, phase, due, state) select * from r",
};
static UPDATE: Statement = Statement {
    name: "bench.update",
    columns: &[Kind::Id, Kind::Int, Kind::Text, Kind::Int, Kind::Text],
    sql: "with r(id, version, phase, due, state) as ({rows}) update saga set version = r.version, phase = r.phase, \
          due = r.due, state = r.state from r where saga.id = r.id",
};
static EVENT: Statement = Statement {
    name: "bench.event",
    columns: &[Kind::Int, Kind::Int, Kind::Id, Kind::Int, Kind::Int, Kind::Int, Kind::Text],
    sql: "with r(shard, seq, saga, version, events, time_ms, body) as ({rows}) \
          insert into event (shard, seq, saga, version, events, time_ms, body) select * from r",
};

/// The texts that a real saga wrote: its row, and its events hop by hop.
#[derive(Clone)]
pub(super) struct Texts {
    pub(super) state: Arc<str>,
    pub(super) events: Vec<Arc<str>>,
}

/// What all shards of the ceiling share.
pub(super) struct Shared {
    bus: Arc<dyn Bus>,
    /// Of a completed saga, and of a cancelled one.
    ways: [Texts; 2],
    fail_percent: u128,
    /// Numbers that rise, as those of the benchmark do.
    numbers: AtomicU64,
    /// Whether a token that has arrived starts again.
    pub(super) going: AtomicBool,
    pub(super) travelling: AtomicU64,
    pub(super) ended: AtomicU64,
}

impl Shared {
    pub(super) fn new(bus: Arc<dyn Bus>, ways: [Texts; 2], fail_percent: u64) -> Self {
        Self {
            bus,
            ways,
            fail_percent: fail_percent.into(),
            numbers: AtomicU64::new(0),
            going: AtomicBool::new(false),
            travelling: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        }
    }

    /// The way of a saga: its id is drawn, and so is what becomes of it.
    fn way(&self, saga: Uuid) -> &Texts {
        &self.ways[usize::from(saga.as_u128() % 100 < self.fail_percent)]
    }
}

/// A token at its start.
pub(super) fn token(partition: u16) -> Outgoing {
    message(Topic::Start, partition, Uuid::nil(), 0)
}

/// A message of the size that the engine sends; the hop rides in its round.
fn message(topic: Topic, partition: u16, saga: Uuid, hop: u8) -> Outgoing {
    let saga = SagaId(saga);
    let effect_id =
        EffectId { saga, step: "reserve".into(), item: String::new(), direction: Direction::Do, round: hop };
    let id = effect_id.to_string();
    let message = match topic {
        Topic::Commands => Message::Command(Command {
            effect_id,
            kind: CommandKind::Do,
            participant: "bench".into(),
            action: "reserve".into(),
            number: "bench-00000000".into(),
            definition: "bench_saga".into(),
            definition_version: 1,
            key: "bench-00000000".into(),
            with: serde_json::json!({ "fail": false }),
            of: None,
            reply_to: ReplyTo { topic: Topic::Progress, partition },
        }),
        Topic::Events => Message::Domain(DomainEvent {
            saga,
            definition: "bench_saga".into(),
            number: "bench-00000000".into(),
            version: hop.into(),
            status: "reserving".into(),
            before: "reserving".into(),
            outcome: None,
            reason: None,
        }),
        Topic::Start | Topic::Progress | Topic::DeadLetters | Topic::Foreign(_) => {
            let verdict = Verdict::Done { data: serde_json::json!({}) };
            Message::Input(Input { saga, body: InputBody::Reply(Reply { effect_id, verdict }) })
        }
    };
    let key = saga.to_string();
    let envelope = Envelope { id, schema: SCHEMA_VERSION, time_ms: 0, key, lane: Lane::Load, message };
    Outgoing { topic, partition, envelope: envelope.into() }
}

/// The saga and hop of a token.
fn place(envelope: &Envelope) -> (Uuid, u8) {
    match &envelope.message {
        Message::Command(command) => (command.saga().0, command.effect_id.round),
        Message::Input(Input { saga, body: InputBody::Reply(reply) }) => (saga.0, reply.effect_id.round),
        _ => (Uuid::nil(), 0),
    }
}

/// Passes tokens on and writes the rows that a saga would have written.
pub(super) struct Pipe {
    topics: &'static [Topic],
    index: u16,
    shared: Arc<Shared>,
    /// Tokens that arrive with the batch that is being committed.
    arrived: u64,
}

#[derive(Default)]
struct Pages {
    claim: Rows,
    insert: Rows,
    update: Rows,
    event: Rows,
}

impl Pipe {
    pub(super) fn new(topics: &'static [Topic], index: u16, shared: Arc<Shared>) -> Self {
        Self { topics, index, shared, arrived: 0 }
    }

    fn saga_hop(&mut self, (saga, hop): (Uuid, u8), batch: &Batch, pages: &mut Pages, out: &mut Vec<Outgoing>) {
        // Rising with time, as those that the gateway mints.
        let mint = || SagaId::mint(batch.now_ms, Slot::of(&self.index.to_string()), rand::random()).0;
        let saga = if hop == 0 { mint() } else { saga };
        let shared = Arc::clone(&self.shared);
        let way = shared.way(saga);
        let state: Value = Arc::clone(&way.state).into();
        let (shard, version) = (i64::from(self.index), i64::from(hop) + 1);
        let last = usize::from(hop) + 1 >= way.events.len();
        let (phase, due) = if last { ("ended", None) } else { ("running", Some(1i64)) };
        if hop == 0 {
            let number = format!("ceiling-{:08}", shared.numbers.fetch_add(1, Ordering::Relaxed));
            let hash = saga.simple().to_string().repeat(2);
            pages.claim.push(["bench_saga".into(), number.into(), saga.into(), hash.into()]);
            pages.insert.push([saga.into(), shard.into(), version.into(), phase.into(), due.into(), state]);
        } else {
            pages.update.push([saga.into(), version.into(), phase.into(), due.into(), state]);
        }
        let body = way.events.get(usize::from(hop)).cloned().unwrap_or_else(|| "[]".into());
        let seq = batch.assignment.next_seq + pages.event.len() as i64;
        let events =
            [shard.into(), seq.into(), saga.into(), version.into(), 2i64.into(), batch.now_ms.into(), body.into()];
        pages.event.push(events);
        // Every hop changes the status, and tells of it.
        out.push(message(Topic::Events, self.index, saga, hop));
        if last {
            self.arrived += 1;
        } else {
            out.push(message(Topic::Commands, self.index, saga, hop + 1));
        }
    }
}

impl Handler for Pipe {
    fn topics(&self) -> &[Topic] {
        self.topics
    }

    fn room(&self, _topic: Topic) -> usize {
        usize::MAX
    }

    async fn assigned(&mut self, _: &Assignment) -> Result<(), StoreError> {
        Ok(())
    }

    async fn decide(&mut self, batch: &Batch) -> Result<Outcome, DecideError> {
        let (mut pages, mut out) = (Pages::default(), Vec::new());
        self.arrived = 0;
        for (topic, envelope) in &batch.messages {
            let (saga, hop) = place(envelope);
            match topic {
                Topic::Commands => out.push(message(Topic::Progress, self.index, saga, hop)),
                Topic::Start | Topic::Progress | Topic::Events | Topic::DeadLetters | Topic::Foreign(_) => {
                    self.saga_hop((saga, hop), batch, &mut pages, &mut out);
                }
            }
        }
        let seqs = pages.event.len() as i64;
        let pages = [(&CLAIM, pages.claim), (&INSERT, pages.insert), (&UPDATE, pages.update), (&EVENT, pages.event)];
        let writes = pages.into_iter().filter(|(_, rows)| !rows.is_empty()).map(|(s, r)| Write::exact(s, r)).collect();
        Ok(Outcome { writes, messages: out, dead_letters: Vec::new(), seqs })
    }

    fn committed(&mut self) {
        let arrived = std::mem::take(&mut self.arrived);
        self.shared.ended.fetch_add(arrived, Ordering::Relaxed);
        if !self.shared.going.load(Ordering::Relaxed) {
            self.shared.travelling.fetch_sub(arrived, Ordering::Relaxed);
            return;
        }
        for _ in 0..arrived {
            // As a gateway does: every start is queued by itself.
            let (bus, start) = (self.shared.bus.clone(), token(self.index));
            tokio::spawn(async move { bus.produce(vec![start]).await });
        }
    }

    fn rolled_back(&mut self) {
        self.arrived = 0;
    }

    fn due_ms(&self) -> Option<i64> {
        None
    }
}
