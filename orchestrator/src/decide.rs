//! Each input in turn, on working copies: the pure decision of the saga core, and what its effects become.

mod foreign;
mod poison;
mod rounds;
mod snapshot;
mod start;

pub use poison::saga_of;

use crate::consume::start_of;
use crate::definitions::Definitions;
use crate::orphan::Orphan;
use crate::persist::{self, Claimed, Pages, Stored};
use crate::silence::Hearing;
use crate::waiters::Claim;
use endstate_events::{
    ACTIVE_VERSION, Envelope, Input, InputBody, InquiryAnswer, Lane, Message, SCHEMA_VERSION, SagaId, Slot, Start,
    Topic,
};
use endstate_outbox::{Alert, Assignment, Batch, DecideError, Metric, Outcome, Outgoing};
use endstate_saga::control::Phase;
use endstate_saga::decide::{Arrival, Decision, Denied, Setting, asks_of, decide, decide_due};
use endstate_saga::definition::{Definition, body_hash};
use endstate_saga::effect::Effect;
use endstate_saga::event::{Event, Fact};
use endstate_saga::invariant;
use endstate_saga::saga::Saga;
use endstate_saga::size;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// Bytes of what one batch sends beyond which it is decided in parts: one saga of it may send a stage's worth.
const SENT_BYTES: usize = 16 * 1024 * 1024;

/// When a due saga that stands still is looked at again.
pub const PUT_OFF_MS: i64 = 60_000;

/// What a committed batch did to one saga.
pub struct Changed {
    /// The saga's id; of a refused start, the id that it was minted with.
    pub id: SagaId,
    /// The saga, if it was written.
    pub saga: Option<Saga>,
    /// Its phase.
    pub phase: Phase,
    /// Its phase before the batch; none for a new one.
    pub was: Option<Phase>,
    /// The stored `due`.
    pub due_ms: Option<i64>,
    /// How long its row is.
    pub bytes: usize,
    /// What became of its start, if the batch held one.
    pub claim: Option<Claim>,
    /// Change in the number of sagas in motion: -1, 0 or 1.
    pub motion: isize,
    /// What became of inputs that somebody may wait for, by their ids.
    pub answers: Vec<(String, Result<(), Denied>)>,
    /// What happened to it, and its definition, if it has one that can be read.
    pub story: Option<(Arc<Definition>, Vec<Event>)>,
}

/// One saga while a batch is decided.
struct Copy {
    /// Row version as read; none for a new saga.
    before: Option<u64>,
    was_in_motion: bool,
    was: Option<Phase>,
    stored_due_ms: Option<i64>,
    /// How long its row is.
    bytes: usize,
    /// None only while it is being decided.
    saga: Option<Saga>,
    definition: Arc<Definition>,
    events: Vec<Event>,
    answers: Vec<(String, Result<(), Denied>)>,
    first: bool,
    /// Set when the row must be written although nothing happened: its timer moves.
    rearm: bool,
}

/// A batch while it is decided, over one round of messages or several.
pub struct Working {
    definitions: Arc<Definitions>,
    assignment: Assignment,
    now_ms: i64,
    /// Timers that are due by then may fire.
    until_ms: i64,
    partitions: u16,
    stored: FxHashMap<SagaId, Stored>,
    /// Sagas whose row cannot be read, and why: they stand still, the others go on.
    unreadable: FxHashMap<SagaId, String>,
    claims: FxHashMap<(String, String), Claimed>,
    copies: FxHashMap<SagaId, Copy>,
    /// Touched sagas in the order of their first input: rows and sequence numbers follow it.
    order: Vec<SagaId>,
    refused: Vec<(SagaId, Claim)>,
    /// Sagas that are there, but whose row or definition this program cannot read: they stand still.
    standing: FxHashSet<SagaId>,
    /// Those of them that are due: looked at again later, so that they are in nobody's way.
    put_off: Vec<SagaId>,
    /// What came before the sagas that start in this batch, or while others stood still, as the store has it.
    waiting: FxHashMap<SagaId, Vec<Orphan>>,
    /// What came in this batch for sagas that nobody knows.
    orphans: Vec<Orphan>,
    hearing: Hearing,
    pages: Pages,
    outcome: Outcome,
    /// Bytes of payloads in what is sent so far, and of snapshots.
    sent: usize,
    /// How long a saga is open before its events are put together; none: they never are.
    snapshot_after_ms: Option<i64>,
}

impl Working {
    /// Begins a batch.
    #[must_use]
    pub fn new(definitions: Arc<Definitions>, batch: &Batch, partitions: u16, hearing: Hearing) -> Self {
        Self {
            definitions,
            assignment: batch.assignment,
            now_ms: batch.now_ms,
            until_ms: batch.timers_ms.unwrap_or(i64::MIN),
            partitions,
            stored: FxHashMap::default(),
            unreadable: FxHashMap::default(),
            claims: FxHashMap::default(),
            copies: FxHashMap::default(),
            order: Vec::new(),
            refused: Vec::new(),
            standing: FxHashSet::default(),
            put_off: Vec::new(),
            waiting: FxHashMap::default(),
            orphans: Vec::new(),
            hearing,
            pages: Pages::default(),
            outcome: Outcome::default(),
            sent: 0,
            snapshot_after_ms: None,
        }
    }

    /// Puts the events of sagas together that were open for so long since their start, or the last time.
    #[must_use]
    pub fn snapshots_after(self, snapshot_after_ms: Option<i64>) -> Self {
        Self { snapshot_after_ms, ..self }
    }

    /// True when the batch sends so much that the rest of it has to wait for another (Z20).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.sent >= SENT_BYTES
    }

    /// Decides one input.
    pub fn input(&mut self, topic: Topic, envelope: &Arc<Envelope>, input: &Input) {
        let partition = input.saga.slot().partition(self.partitions);
        if partition != self.assignment.shard.index {
            // Somebody routed by other rules: the right shard decides (Z17).
            self.outcome.messages.push(Outgoing { topic, partition, envelope: Arc::clone(envelope) });
            return;
        }
        match start_of(input) {
            Some(start) if !self.exists(input.saga) => self.start(topic, envelope, input, start),
            start if self.open(input.saga) => {
                start.into_iter().for_each(|start| self.repeated(envelope, start));
                self.step(envelope, input);
            }
            Some(_) => {}
            // Of a saga that is there, nobody may say that it is not; a program that can decide for it may come.
            None if !self.standing.contains(&input.saga) && self.answer_stranger(input) => {}
            None => self.orphans.push(Orphan::new(input.saga, Arc::clone(envelope))),
        }
    }

    /// The self-check of a hold whose saga nobody knows: nobody needs it (H3).
    fn answer_stranger(&mut self, input: &Input) -> bool {
        let InputBody::Inquire { effect_id, reply_to } = &input.body else { return false };
        let (id, key) = (effect_id.to_string(), effect_id.to_string());
        let message = Message::Inquired(InquiryAnswer { effect_id: effect_id.clone(), keep: false, known: false });
        let (topic, partition) = (reply_to.topic, reply_to.partition);
        self.outcome.messages.push(outgoing(topic, partition, self.now_ms, Lane::Live, id, key, message));
        true
    }

    /// Whether it was read for this batch, or made in it: then nothing in the store is newer.
    #[must_use]
    pub fn exists(&self, id: SagaId) -> bool {
        self.copies.contains_key(&id) || self.stored.contains_key(&id) || self.unreadable.contains_key(&id)
    }

    /// Makes a working copy of a stored saga; false when there is none, or nobody knows how to decide for it.
    fn open(&mut self, id: SagaId) -> bool {
        if self.copies.contains_key(&id) {
            return true;
        }
        if let Some(reason) = self.unreadable.get(&id) {
            if self.standing.insert(id) {
                let text = format!("E3004: the row of saga {id} cannot be read: it waits: {reason}");
                let alert = Alert::new("unreadable", &[&id], text, self.now_ms);
                self.pages.alert(alert.of(id, "".into(), "".into()));
            }
            return false;
        }
        let Some(Stored { saga, .. }) = self.stored.get(&id) else { return false };
        let Some(definition) = self.definitions.get(&saga.definition, saga.definition_version) else {
            if self.standing.insert(id) {
                let text =
                    format!("E3001: its definition, version {}, is not loaded: it waits", saga.definition_version);
                // Found again with every input and timer; it is one alert.
                let alert = Alert::new("undefined", &[&id, &saga.definition_version], text, self.now_ms);
                self.pages.alert(alert.of(id, Arc::clone(&saga.definition), Arc::clone(&saga.number)));
            }
            return false;
        };
        let Some(Stored { saga, due_ms, bytes }) = self.stored.remove(&id) else { return false };
        let phase = saga.control.phase(definition.plan());
        let copy = Copy {
            before: Some(saga.version),
            was_in_motion: persist::is_in_motion(phase, due_ms),
            was: Some(phase),
            stored_due_ms: due_ms,
            bytes,
            saga: Some(saga),
            definition,
            events: Vec::new(),
            answers: Vec::new(),
            first: false,
            rearm: false,
        };
        self.order.push(id);
        self.copies.insert(id, copy);
        if self.waiting.contains_key(&id) {
            // It stood still before.
            self.adopt(id);
        }
        true
    }

    fn step(&mut self, envelope: &Arc<Envelope>, input: &Input) {
        if let InputBody::Reply(_) = &input.body {
            self.hearing.reply(envelope);
        }
        let setting = self.setting();
        let Some(copy) = self.copies.get_mut(&input.saga) else { return };
        let decision = decide(&*copy.definition, copy.saga.take(), arrival(envelope, input), setting);
        self.answer(envelope, input, decision.denied.clone());
        self.take(input.saga, envelope.time_ms, decision);
    }

    /// Fires the timers of a due saga.
    pub fn due(&mut self, id: SagaId) {
        if !self.open(id) {
            return self.put_off.push(id);
        }
        let setting = self.setting();
        let Some(copy) = self.copies.get_mut(&id) else { return };
        copy.rearm = true;
        let Some(saga) = copy.saga.take() else { return };
        let mut decision = decide_due(&*copy.definition, saga, self.until_ms, setting);
        decision.effects.retain(|effect| self.hearing.passes(id, effect, setting.now_ms));
        self.take(id, self.now_ms, decision);
        self.put_together(id);
    }

    /// A participant that was silent has answered: a saga that waits for it, too, asks for itself.
    pub fn wake(&mut self, id: SagaId, participant: &str) {
        if !self.open(id) {
            return;
        }
        let Some(copy) = self.copies.get(&id) else { return };
        let Some(saga) = &copy.saga else { return };
        for effect in asks_of(&*copy.definition, saga, participant, self.partitions) {
            self.effect(id, self.now_ms, effect);
        }
    }

    fn setting(&self) -> Setting {
        Setting { now_ms: self.now_ms, partitions: self.partitions }
    }

    /// Remembers the answer for whoever may wait for it; replies and starts are told by other ways.
    fn answer(&mut self, envelope: &Envelope, input: &Input, denied: Option<Denied>) {
        let waited_for = match input.body {
            InputBody::Event { .. } | InputBody::Cancel { .. } | InputBody::Operate { .. } => true,
            InputBody::Start(_) | InputBody::Reply(_) | InputBody::Inquire { .. } => false,
        };
        if let Some(copy) = self.copies.get_mut(&input.saga).filter(|_| waited_for) {
            copy.answers.push((envelope.id.clone(), denied.map_or(Ok(()), Err)));
        }
    }

    fn take(&mut self, id: SagaId, time_ms: i64, decision: Decision) {
        let Some(copy) = self.copies.get_mut(&id) else { return };
        copy.saga = decision.saga;
        copy.events.extend(decision.events);
        for effect in decision.effects {
            self.effect(id, time_ms, effect);
        }
    }

    fn effect(&mut self, id: SagaId, time_ms: i64, effect: Effect) {
        let Some(copy) = self.copies.get_mut(&id) else { return };
        let Some(saga) = &copy.saga else { return };
        let lane = saga.lane;
        let mut send = |topic, partition, id: String, key: String, message| {
            self.outcome.messages.push(outgoing(topic, partition, time_ms, lane, id, key, message));
        };
        let partitions = self.partitions;
        let at_slot = |slot: Slot| slot.partition(partitions);
        let at = |key: &str| at_slot(Slot::of(key));
        match effect {
            Effect::Send(command) => {
                let of = command.of.as_ref().map_or(0, |of| size::of(&of.with) + size::of(&of.reply));
                self.sent += size::of(&command.with) + of;
                let key = command.key.clone();
                let (topic, partition, id) =
                    match self.definitions.foreign_topic(&copy.definition, &command.participant) {
                        // Its partitions are its own: the producer chooses by the key.
                        Some(topic) => (Topic::Foreign(topic), 0, foreign::command_id(&command)),
                        None => (Topic::Commands, at(&key), command.effect_id.to_string()),
                    };
                send(topic, partition, id, key, Message::Command(*command));
            }
            Effect::Reply { to, reply } => {
                let saga = reply.effect_id.saga;
                let input = Input { saga, body: InputBody::Reply(reply) };
                send(to.topic, to.partition, format!("{id}:outcome"), saga.to_string(), Message::Input(input));
            }
            Effect::Answer { to, answer } => {
                let key = answer.effect_id.to_string();
                send(to.topic, to.partition, key.clone(), key, Message::Inquired(answer));
            }
            Effect::Publish(event) => {
                let event_id = format!("{id}:{}:{}", event.version, self.assignment.epoch);
                send(Topic::Events, at_slot(id.slot()), event_id, id.to_string(), Message::Domain(*event));
            }
            Effect::Start(linked) => {
                // Whoever queues a start chooses the version; one that only a newer program can read waits for that. Where none
                // is active either, the start goes to the dead letters, from where it is sent again once one is loaded.
                let version = self.definitions.active_version(&linked.definition).unwrap_or(ACTIVE_VERSION);
                self.sent += size::of(&linked.input) + size::of(&linked.link.snapshot);
                let body_hash = body_hash(&linked.input, &linked.key, lane);
                let start = Start {
                    definition: linked.definition.to_string(),
                    version,
                    number: linked.number.clone(),
                    key: linked.key.to_string(),
                    owner: saga.owner.as_deref().map(str::to_owned),
                    input: linked.input,
                    body_hash,
                    link: Some(linked.link),
                };
                let key = linked.key.to_string();
                let input = Input { saga: linked.id, body: InputBody::Start(Box::new(start)) };
                // Not among the new starts, which are held back while many sagas are in motion: those that await a called
                // saga are in motion, and would hold back what they wait for (Z7).
                send(Topic::Progress, at_slot(linked.id.slot()), linked.number, key, Message::Input(input));
            }
            Effect::Alert { kind, step, text } => {
                let at = step.as_deref().unwrap_or_default();
                let alert = Alert::new(kind.label(), &[&id, &saga.version, &at, &text], &text, self.now_ms);
                let (definition, number) = (Arc::clone(&saga.definition), Arc::clone(&saga.number));
                self.pages.alert(alert.of(id, definition, number).at(step));
            }
            Effect::Discrepancy { kind, effect_id, text } => {
                let effect_id = effect_id.map(|effect_id| effect_id.to_string());
                self.pages.discrepancy(id, kind.label(), effect_id, &text, self.now_ms);
            }
        }
    }

    /// Ends the batch: its rows, what they did to each saga, and what was heard of silent participants.
    pub fn finish(mut self) -> Result<(Outcome, Vec<Changed>, Hearing), DecideError> {
        let shard = self.assignment.shard.index;
        let mut seq = self.assignment.next_seq;
        let mut changed = Vec::with_capacity(self.order.len() + self.refused.len());
        for id in self.order {
            let Some(mut copy) = self.copies.remove(&id) else { continue };
            let Some(saga) = copy.saga.take() else { continue };
            let plan = copy.definition.plan();
            let phase = saga.control.phase(plan);
            let wanted_ms = snapshot::wanted_ms(&saga, plan, phase, self.snapshot_after_ms);
            let due_ms = match copy.rearm {
                true => wanted_ms,
                false => persist::due(copy.stored_due_ms, wanted_ms),
            };
            if let Some(broken) = invariant::broken_at_rest(plan, &saga.control) {
                // Never expected: the saga goes on, people look at it.
                Metric::InvariantsBroken.add(1, &[broken.id]);
                tracing::error!(saga = %id, "E3010: {} is broken: {}", broken.id, broken.says);
            }
            if !copy.events.is_empty() {
                let before = copy.before.unwrap_or(0);
                self.pages.events(shard, seq, id, before, self.now_ms, &copy.events)?;
                if copy.events.iter().any(|event| matches!(event.fact, Fact::Snapshot(_))) {
                    self.pages.snapshot(id, before, self.now_ms);
                }
                seq += 1;
            }
            if !copy.events.is_empty() || due_ms != copy.stored_due_ms {
                copy.bytes = self.pages.saga(shard, copy.before, &saga, phase, due_ms)?;
            }
            let is_in_motion = persist::is_in_motion(phase, due_ms);
            changed.push(Changed {
                id,
                saga: Some(saga),
                phase,
                was: copy.was,
                due_ms,
                bytes: copy.bytes,
                claim: copy.first.then_some(Claim::First),
                motion: isize::from(is_in_motion) - isize::from(copy.was_in_motion),
                answers: copy.answers,
                story: Some((copy.definition, copy.events)),
            });
        }
        changed.extend(self.refused.into_iter().map(|(id, claim)| {
            let (saga, phase, answers, claim) = (None, Phase::Ended, Vec::new(), Some(claim));
            Changed { id, saga, phase, was: None, due_ms: None, bytes: 0, claim, motion: 0, answers, story: None }
        }));
        self.orphans.iter().for_each(|orphan| self.pages.orphan(shard, orphan, self.now_ms));
        let again_ms = self.now_ms + PUT_OFF_MS;
        self.put_off.iter().for_each(|id| self.pages.put_off(*id, again_ms));
        self.outcome.seqs = seq - self.assignment.next_seq;
        self.outcome.writes = self.pages.into_writes();
        Ok((self.outcome, changed, self.hearing))
    }
}

/// A message of this program's schema.
fn outgoing(
    topic: Topic,
    partition: u16,
    time_ms: i64,
    lane: Lane,
    id: String,
    key: String,
    message: Message,
) -> Outgoing {
    let envelope = Envelope { id, schema: SCHEMA_VERSION, time_ms, key, lane, message };
    Outgoing { topic, partition, envelope: envelope.into() }
}

fn arrival<'a>(envelope: &'a Envelope, input: &'a Input) -> Arrival<'a> {
    Arrival { id: &envelope.id, time_ms: envelope.time_ms, lane: envelope.lane, input }
}
