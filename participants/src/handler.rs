//! The participants' side of a shard: bring what a batch touches, decide its commands in order, write each table once.

use crate::aside;
use crate::check::SelfCheck;
use crate::decide::{self, Answered};
use crate::desk::{Call, Desk, Job, Operation};
use crate::known::Known;
use crate::offers::Offers;
use crate::storage;
use crate::tally::Tally;
use crate::{bench, operation};
use endstate_events::{
    Command, CommandKind, EffectId, Envelope, Input, InputBody, Lane, Message, Reply, ReplyTo, SCHEMA_VERSION, Topic,
    Verdict,
};
use endstate_outbox::fused::{Message as Heard, Rounds, hop};
use endstate_outbox::{
    Assignment, Batch, DecideError, Handler, Outcome, Outgoing, Poisoned, Row, Rows, Statement, Store, StoreError,
    alert,
};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::mpsc::{self, error::TrySendError};

/// Commands taken at once at most.
const BATCH: usize = 512;

/// Settings of the participants' side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Commands older than this are put aside unanswered, because what is known about them may be gone.
    pub retention_ms: i64,
    /// Age at which a hold asks its saga whether it is still wanted.
    pub hold_limit_ms: i64,
    /// Pause between two self-checks.
    pub check_every_ms: i64,
    /// Share of the holds asked about in a round that the self-check may give back before it halts, in per cent.
    pub release_share_percent: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // Longer than any topic keeps and any saga lives.
            retention_ms: 180 * 24 * 3_600_000,
            // The longest payment limit plus slack (H3).
            hold_limit_ms: 40 * 60_000,
            check_every_ms: 60_000,
            release_share_percent: 20,
        }
    }
}

/// Calls that were committed, on their way to the caller.
#[derive(Clone, Debug)]
pub struct HandOver {
    /// The shard that decided on them and books their answers.
    pub shard: u16,
    /// The calls.
    pub calls: Vec<Call>,
    /// True for calls that were found in their rows: they may have been made before, so the outside party is asked first.
    pub resumed: bool,
    /// Set by the caller when it leaves calls out because too many wait: their shard offers them again.
    pub behind: Arc<AtomicBool>,
}

/// Hand-overs that wait for the caller at most.
pub const HANDED_OVER: usize = 256;

/// All built-in participants of one shard.
pub struct Participants {
    pub(crate) store: Arc<dyn Store>,
    caller: mpsc::Sender<HandOver>,
    settings: Settings,
    pub(crate) shard: u16,
    partitions: u16,
    pub(crate) known: Box<Known>,
    /// Commands come again: whether one is new is looked up until a batch has only new ones.
    cautious: bool,
    check: SelfCheck,
    offers: Offers,
    /// The batch that is being committed.
    decided: Option<(Desk, SelfCheck)>,
    tally: Tally,
}

impl Participants {
    /// A handler; `caller` takes the calls that its batches decide on.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, caller: mpsc::Sender<HandOver>, settings: Settings) -> Self {
        let partitions = store.partitions();
        let (check, offers) = (SelfCheck::default(), Offers::default());
        let (known, cautious, tally) = (Box::default(), false, Tally::default());
        Self { store, caller, settings, shard: 0, partitions, known, cautious, check, offers, decided: None, tally }
    }

    fn hand_over(&self, calls: Vec<Call>, resumed: bool) {
        let (shard, behind) = (self.shard, self.offers.behind());
        if calls.is_empty() {
            return;
        }
        match self.caller.try_send(HandOver { shard, calls, resumed, behind }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.offers.leave_out(),
            Err(TrySendError::Closed(_)) => {
                tracing::warn!("the caller has stopped; its calls are resumed at the next assignment");
            }
        }
    }

    /// Offers open calls again, when it is time; those that wait or run already are no news to the caller.
    async fn offer(&mut self, now_ms: i64) -> Result<(), StoreError> {
        let Some(after) = self.offers.begin(now_ms) else { return Ok(()) };
        let rows = Rows::one([i64::from(self.shard).into(), after.into(), Offers::PAGE.into()]);
        let rows = self.store.read(&storage::READ_OPEN_CALLS, rows).await?;
        let calls = decode_all(&storage::READ_OPEN_CALLS, &rows, storage::call)?;
        self.offers.end(&calls);
        self.hand_over(calls, true);
        Ok(())
    }

    pub(crate) fn job<'a>(&self, command: &'a Command, id: &'a Arc<str>, lane: Lane, now_ms: i64) -> Job<'a> {
        Job { command, id, lane, shard: self.shard, now_ms }
    }

    fn command(
        &mut self,
        open: &mut Open,
        command: &Command,
        lane: Lane,
        out: &mut Vec<Outgoing>,
    ) -> Result<(), DecideError> {
        let Open { desk, now_ms, .. } = open;
        let now_ms = *now_ms;
        if command.participant == bench::NAME {
            let verdict = bench::decide(command);
            self.tally.answered(command, &verdict);
            out.push(reply(command, verdict, lane, now_ms));
            return Ok(());
        }
        let id: Arc<str> = command.effect_id.to_string().into();
        let known = operation::is_operation(&command.effect_id).then(|| desk.effects.get(&id).is_some());
        let verdict = decide::decide(desk, &self.job(command, &id, lane, now_ms));
        if command.kind == CommandKind::Do && desk.effects.get(&id).is_none() {
            // Nothing is inserted that would tell whether it was new.
            open.must_know(&id)?;
        }
        let desk = &mut open.desk;
        if let Some(verdict) = &verdict {
            self.tally.answered(command, verdict);
        }
        match (known, verdict) {
            (None, Some(verdict)) => out.push(reply(command, verdict, lane, now_ms)),
            // Logged when it was made.
            (Some(true), _) | (Some(false) | None, None) => {}
            (Some(false), Some(verdict)) => desk.operations.push(Operation {
                id: command.effect_id.item.as_str().into(),
                action: format!("{}.{}", command.participant, command.action),
                with: command.with.clone(),
                verdict,
            }),
        }
        Ok(())
    }

    /// Books what an outside party answered. An answer without an open call was booked before.
    fn answer(&mut self, desk: &mut Desk, answer: &Reply, now_ms: i64, out: &mut Vec<Outgoing>) {
        let id: Arc<str> = answer.effect_id.to_string().into();
        let answered = decide::answered(desk, &id, answer.verdict.clone());
        if let Some(Answered { call, verdict, captures }) = answered {
            self.tally.answered(&call.command, &verdict);
            out.extend(captures.iter().map(|captured| captured.message(call.lane, self.partitions, now_ms)));
            out.push(reply(&call.command, verdict, call.lane, now_ms));
        }
    }

    /// Asks the sagas of old holds (H3), when it is time.
    async fn check_holds(&self, open: &mut Open, out: &mut Vec<Outgoing>) -> Result<(), StoreError> {
        let Open { check, now_ms, timers_ms, .. } = open;
        let now_ms = *now_ms;
        if !timers_ms.is_some_and(|until| check.is_due(until)) {
            return Ok(());
        }
        let before_ms = now_ms - self.settings.hold_limit_ms;
        let rows = Rows::one([i64::from(self.shard).into(), before_ms.into(), SelfCheck::PAGE.into()]);
        let rows = self.store.read(&storage::READ_OLD_HOLDS, rows).await?;
        let old = decode_all(&storage::READ_OLD_HOLDS, &rows, storage::old_hold)?;
        check.start_round(old.len(), now_ms + self.settings.check_every_ms);
        let mut asked = Vec::with_capacity(old.len());
        for (id, lane) in old {
            let Ok(effect_id) = id.parse::<EffectId>() else { continue };
            asked.push(id);
            out.push(inquiry(effect_id, lane, self.shard, self.partitions, now_ms));
        }
        if !asked.is_empty() {
            open.outcome.writes.push(storage::asked(&asked, now_ms));
        }
        Ok(())
    }
}

/// A batch of commands, open over its rounds.
pub struct Open {
    pub(crate) desk: Desk,
    check: SelfCheck,
    outcome: Outcome,
    assignment: Assignment,
    pub(crate) now_ms: i64,
    timers_ms: Option<i64>,
    /// Records that were put aside.
    poisoned: Vec<Poisoned>,
    /// Whether new effects are decided without a look, see [`crate::reads`].
    pub(crate) trusting: bool,
    /// Transfers that were decided on without a look.
    pub(crate) trusted: Vec<Arc<str>>,
    /// Set by a command that is not new, or leaves nothing that would tell.
    pub(crate) repeats: bool,
}

impl Open {
    /// What was decided without a look, and is not inserted, has to be looked up.
    fn must_know(&mut self, id: &str) -> Result<(), DecideError> {
        self.repeats = true;
        if !self.trusting {
            return Ok(());
        }
        // The batch is decided again, then with everything read.
        Err(DecideError::Data(format!("{id} was decided as new, and nothing shows whether it is")))
    }
}

impl Rounds for Participants {
    type Open = Open;

    async fn open(&mut self, batch: &Batch) -> Result<Open, DecideError> {
        let desk = Desk { shard: self.shard, ..Desk::default() };
        let (check, outcome) = (self.check.clone(), Outcome::default());
        let Batch { assignment, now_ms, timers_ms, attempt, .. } = *batch;
        let (trusting, trusted, repeats) = (attempt == 0 && !self.cautious, Vec::new(), false);
        let poisoned = batch.poisoned.clone();
        Ok(Open { desk, check, outcome, assignment, now_ms, timers_ms, poisoned, trusting, trusted, repeats })
    }

    async fn round(&mut self, open: &mut Open, messages: &[Heard]) -> Result<Vec<Outgoing>, DecideError> {
        let (now_ms, mut out) = (open.now_ms, Vec::new());
        self.load(open, messages).await?;
        for (topic, envelope) in messages {
            let Open { desk, check, outcome, assignment, .. } = open;
            match &envelope.message {
                Message::Command(command) if envelope.time_ms < now_ms - self.settings.retention_ms => {
                    let reason = "E5003: older than anything that is remembered, so nobody can say what became of it";
                    out.extend(aside::notice(command, envelope.lane, reason, now_ms));
                    outcome.dead_letters.push((*topic, Arc::clone(envelope), reason.to_owned()));
                }
                Message::Command(command) => self.command(open, command, envelope.lane, &mut out)?,
                Message::Answer(answer) => self.answer(desk, answer, now_ms, &mut out),
                Message::Inquired(answer) => {
                    let alert = check.answered(desk, answer, &self.settings, (assignment, now_ms));
                    outcome.writes.extend(alert.and_then(|alert| alert::write(&[alert])));
                }
                Message::Input(_)
                | Message::Domain(_)
                | Message::Reply(_)
                | Message::Foreign(_)
                | Message::Letter(_) => {
                    let reason = "E5004: no message for a participant".to_owned();
                    outcome.dead_letters.push((*topic, Arc::clone(envelope), reason));
                }
            }
        }
        Ok(out)
    }

    async fn timers(&mut self, open: &mut Open) -> Result<Vec<Outgoing>, DecideError> {
        let now_ms = open.now_ms;
        let mut out: Vec<_> = open.poisoned.drain(..).filter_map(|record| aside::poisoned(&record, now_ms)).collect();
        self.check_holds(open, &mut out).await?;
        self.offer(open.now_ms).await?;
        Ok(out)
    }

    fn close(&mut self, mut open: Open) -> Result<Outcome, DecideError> {
        for id in std::mem::take(&mut open.trusted) {
            if open.desk.ledger.transfer(&id).is_none() {
                open.must_know(&id)?;
            }
        }
        let Open { desk, check, mut outcome, now_ms, repeats, .. } = open;
        outcome.writes.extend(storage::writes(&desk, now_ms));
        self.cautious = repeats;
        self.decided = Some((desk, check));
        Ok(outcome)
    }
}

impl Handler for Participants {
    fn topics(&self) -> &[Topic] {
        &[Topic::Commands]
    }

    fn room(&self, _topic: Topic) -> usize {
        BATCH
    }

    async fn assigned(&mut self, assignment: &Assignment) -> Result<(), StoreError> {
        self.shard = assignment.shard.index;
        *self.known = Known::default();
        self.cautious = false;
        self.check.assigned();
        self.decided = None;
        self.offers = Offers::of_all();
        self.offer(0).await
    }

    async fn decide(&mut self, batch: &Batch) -> Result<Outcome, DecideError> {
        hop(self, batch).await
    }

    fn committed(&mut self) {
        self.tally.committed();
        if let Some((desk, check)) = self.decided.take() {
            self.known.committed(&desk);
            self.check = check;
            self.hand_over(desk.intents, false);
        }
    }

    fn rolled_back(&mut self) {
        self.tally.rolled_back();
        *self.known = Known::default();
        self.cautious = true;
        self.decided = None;
    }

    /// A start that is repeated breaks the batch of its sagas, not what is known here: nothing was written, and nobody else
    /// writes these rows.
    fn conflicted(&mut self, statement: &'static str) {
        if storage::STATEMENTS.iter().any(|ours| ours.name == statement) {
            return self.rolled_back();
        }
        self.tally.rolled_back();
        self.decided = None;
    }

    fn due_ms(&self) -> Option<i64> {
        [self.check.due_ms(), self.offers.due_ms()].into_iter().flatten().min()
    }
}

pub(crate) fn decode_all<T>(
    statement: &'static Statement,
    rows: &[Row],
    decode: impl Fn(&Row) -> Option<T>,
) -> Result<Vec<T>, StoreError> {
    let unreadable = || StoreError::Failed {
        statement: statement.name.to_owned(),
        reason: "a row cannot be read: it was written by a newer program, or damaged".to_owned(),
    };
    rows.iter().map(|row| decode(row).ok_or_else(unreadable)).collect()
}

fn reply(command: &Command, verdict: Verdict, lane: Lane, now_ms: i64) -> Outgoing {
    let saga = command.saga();
    let reply = Reply { effect_id: command.effect_id.clone(), verdict };
    let id = match command.kind {
        CommandKind::Ask => Envelope::answer_id(&command.effect_id),
        CommandKind::Do | CommandKind::Undo => command.effect_id.to_string(),
    };
    let envelope = Envelope {
        id,
        schema: SCHEMA_VERSION,
        time_ms: now_ms,
        key: saga.to_string(),
        lane,
        message: Message::Input(Input { saga, body: InputBody::Reply(reply) }),
    };
    Outgoing { topic: command.reply_to.topic, partition: command.reply_to.partition, envelope: envelope.into() }
}

fn inquiry(effect_id: EffectId, lane: Lane, shard: u16, partitions: u16, now_ms: i64) -> Outgoing {
    let saga = effect_id.saga;
    let to = ReplyTo::progress(saga.slot(), partitions);
    let reply_to = ReplyTo { topic: Topic::Commands, partition: shard };
    let envelope = Envelope {
        id: format!("{effect_id}/inquire/{now_ms}"),
        schema: SCHEMA_VERSION,
        time_ms: now_ms,
        key: saga.to_string(),
        lane,
        message: Message::Input(Input { saga, body: InputBody::Inquire { effect_id, reply_to } }),
    };
    Outgoing { topic: to.topic, partition: to.partition, envelope: envelope.into() }
}
