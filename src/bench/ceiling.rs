//! The ceiling: the rows and messages of `bench_saga` with no logic at all, in the same run and through the same store.
//!
//! Tokens travel through the same number of shards, hops and commits as sagas do; every commit writes rows of the same
//! tables and sizes, taken from a saga that really ran. What the engine reaches of it is the price of its logic.

use anyhow::Context as _;
use endstate_events::{Side, Topic};
use endstate_outbox::{
    Assignment, Batch, Bus, Clock, DecideError, Handler, Kind, Outcome, Outgoing, Row, Rows, Shard, ShardId,
    SqliteStore, Statement, Store, StoreError, SystemClock, Value, Write,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Hops of a completed saga on either side: start, then command and reply for each of four steps.
const REPLIES: u8 = 4;

static SAMPLE: Statement = Statement {
    name: "bench.sample",
    columns: &[Kind::Text],
    sql: "with r(phase) as ({rows}) select s.id, s.state from saga s join r on s.phase = r.phase limit 1",
};
static SAMPLE_EVENTS: Statement = Statement {
    name: "bench.sample_events",
    columns: &[Kind::Id],
    sql: "with r(saga) as ({rows}) select e.body from event e join r on e.saga = r.saga order by e.version",
};
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

/// The texts that a real saga wrote.
#[derive(Clone)]
struct Texts {
    state: Arc<str>,
    events: Vec<Arc<str>>,
}

/// Takes the texts of one ended saga of the measured run.
async fn texts(store: &dyn Store) -> anyhow::Result<Texts> {
    let rows = store.read(&SAMPLE, Rows::one(["ended".into()])).await?;
    let row = rows.first().context("no ended saga to take the ceiling's rows from")?;
    let (id, state) = (row[0].id().unwrap_or_default(), row[1].text().unwrap_or_default());
    let rows = store.read(&SAMPLE_EVENTS, Rows::one([id.into()])).await?;
    let text = |row: &Row| Arc::from(row[0].text().unwrap_or_default());
    Ok(Texts { state: state.into(), events: rows.iter().map(text).collect() })
}

/// Runs tokens through a fresh store in `folder` for `time`; returns sagas per second.
pub(crate) async fn run(sample: &dyn Store, folder: &Path, tokens: usize, time: Duration) -> anyhow::Result<f64> {
    let texts = texts(sample).await?;
    let store = SqliteStore::open(folder).await?;
    let stop = CancellationToken::new();
    let ended = Arc::new(AtomicU64::new(0));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let partitions = store.partitions();
    let mut tasks = Vec::new();
    for index in 0..partitions {
        for side in [Side::Orchestrator, Side::Participants] {
            let handler = Pipe {
                side,
                index,
                texts: texts.clone(),
                ended: ended.clone(),
                bus: store.bus(),
                seq: 0,
                finished: Vec::new(),
            };
            let shard = Shard::new(ShardId { side, index }, store.clone(), store.bus(), clock.clone(), handler);
            tasks.push(tokio::spawn(shard.run(stop.clone())));
        }
    }
    for token in 0..tokens {
        let partition = (token % usize::from(partitions)) as u16;
        store.bus().produce(vec![token_message(Topic::Start, partition, Uuid::nil(), 0)]).await?;
    }
    tokio::time::sleep(time / 5).await;
    let (before, begin) = (ended.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(time).await;
    let rate = (ended.load(Ordering::Relaxed) - before) as f64 / begin.elapsed().as_secs_f64();
    stop.cancel();
    for task in tasks {
        task.await.ok();
    }
    Ok(rate)
}

/// A message of the size that the engine sends; the hop rides in its round.
fn token_message(topic: Topic, partition: u16, saga: Uuid, hop: u8) -> Outgoing {
    use endstate_events::{
        Command, CommandKind, Direction, EffectId, Envelope, Input, InputBody, Lane, Message, Reply, ReplyTo,
        SCHEMA_VERSION, SagaId, Verdict,
    };
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
        Topic::Start | Topic::Progress | Topic::Events => {
            let verdict = Verdict::Done { data: serde_json::json!({}) };
            Message::Input(Input { saga, body: InputBody::Reply(Reply { effect_id, verdict }) })
        }
    };
    let key = saga.to_string();
    let envelope = Envelope { id, schema: SCHEMA_VERSION, time_ms: 0, key, lane: Lane::Load, message };
    Outgoing { topic, partition, envelope: envelope.into() }
}

/// The saga and hop of a token.
fn token_of(envelope: &endstate_events::Envelope) -> (Uuid, u8) {
    use endstate_events::{InputBody, Message};
    match &envelope.message {
        Message::Command(command) => (command.saga().0, command.effect_id.round),
        Message::Input(input) => match &input.body {
            InputBody::Reply(reply) => (input.saga.0, reply.effect_id.round),
            _ => (input.saga.0, 0),
        },
        _ => (Uuid::nil(), 0),
    }
}

/// Passes tokens on and writes the rows that a saga would have written.
struct Pipe {
    side: Side,
    index: u16,
    texts: Texts,
    ended: Arc<AtomicU64>,
    bus: Arc<endstate_outbox::LocalBus>,
    seq: i64,
    finished: Vec<Outgoing>,
}

impl Pipe {
    fn saga_hop(&mut self, envelope: &endstate_events::Envelope, pages: &mut Pages, out: &mut Vec<Outgoing>) {
        let (saga, hop) = token_of(envelope);
        let saga = if hop == 0 { Uuid::from_u128(rand::random()) } else { saga };
        let state: Value = Arc::clone(&self.texts.state).into();
        let (shard, version) = (i64::from(self.index), i64::from(hop) + 1);
        if hop == 0 {
            let (number, hash) = (saga.to_string(), saga.simple().to_string().repeat(2));
            pages.claim.push(["bench_saga".into(), number.into(), saga.into(), hash.into()]);
            pages.insert.push([saga.into(), shard.into(), version.into(), "running".into(), 1i64.into(), state]);
        } else {
            let due = (hop < REPLIES).then_some(1i64);
            pages.update.push([saga.into(), version.into(), "running".into(), due.into(), state]);
        }
        let body = self.texts.events.get(usize::from(hop)).cloned().unwrap_or_else(|| "[]".into());
        let seq = self.seq + pages.event.len() as i64;
        pages.event.push([
            shard.into(),
            seq.into(),
            saga.into(),
            version.into(),
            2i64.into(),
            0i64.into(),
            body.into(),
        ]);
        if hop < REPLIES {
            out.push(token_message(Topic::Commands, self.index, saga, hop + 1));
        } else {
            self.finished.push(token_message(Topic::Start, self.index, Uuid::nil(), 0));
        }
        // The status changes at every hop but none is due for the last reply's command.
        out.push(token_message(Topic::Events, self.index, saga, hop));
    }
}

#[derive(Default)]
struct Pages {
    claim: Rows,
    insert: Rows,
    update: Rows,
    event: Rows,
}

impl Handler for Pipe {
    fn topics(&self) -> &'static [Topic] {
        match self.side {
            Side::Orchestrator => &[Topic::Progress, Topic::Start],
            Side::Participants => &[Topic::Commands],
        }
    }

    fn room(&self, _topic: Topic) -> usize {
        usize::MAX
    }

    async fn assigned(&mut self, _: &Assignment) -> Result<(), StoreError> {
        Ok(())
    }

    async fn decide(&mut self, batch: &Batch) -> Result<Outcome, DecideError> {
        let mut out = Vec::new();
        let mut pages = Pages::default();
        self.seq = batch.assignment.next_seq;
        self.finished.clear();
        for (_, envelope) in &batch.messages {
            if self.side == Side::Orchestrator {
                self.saga_hop(envelope, &mut pages, &mut out);
            } else {
                let (saga, hop) = token_of(envelope);
                out.push(token_message(Topic::Progress, self.index, saga, hop));
            }
        }
        let seqs = pages.event.len() as i64;
        let pages = [(&CLAIM, pages.claim), (&INSERT, pages.insert), (&UPDATE, pages.update), (&EVENT, pages.event)];
        let writes = pages.into_iter().filter(|(_, rows)| !rows.is_empty()).map(|(s, r)| Write::exact(s, r)).collect();
        Ok(Outcome { writes, messages: out, dead_letters: Vec::new(), seqs })
    }

    fn committed(&mut self) {
        let finished = std::mem::take(&mut self.finished);
        self.ended.fetch_add(finished.len() as u64, Ordering::Relaxed);
        for start in finished {
            // As a gateway does: every start is queued by itself.
            let bus = self.bus.clone();
            tokio::spawn(async move { bus.produce(vec![start]).await });
        }
    }

    fn rolled_back(&mut self) {
        self.finished.clear();
    }

    fn due_ms(&self) -> Option<i64> {
        None
    }
}
