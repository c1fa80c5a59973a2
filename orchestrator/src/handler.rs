//! The orchestrator's side of a shard: consume, decide, persist, and the timers of its sagas.

use crate::consume::{self, Cache};
use crate::decide::{Changed, PUT_OFF_MS, Working, saga_of};
use crate::definitions::Definitions;
use crate::orphan::Awaited;
use crate::persist::{self, Claimed, Stored};
use crate::silence::{Hearing, Silence};
use crate::tally::Tally;
use crate::waiters::{Claim, Waiters};
use endstate_events::{Input, InputBody, Message, SagaId, Topic};
use endstate_outbox::fused::{Message as Heard, Rounds, hop};
use endstate_outbox::metric::{Gauge, Metric};
use endstate_outbox::{
    Assignment, Batch, DecideError, Handler, LAST_ATTEMPT, Outcome, Outgoing, Poisoned, Store, StoreError, Timers,
};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Sagas whose timers one batch fires at most, so that 100,000 at once stay bounded.
const TIMERS: usize = 256;

/// How late a timer of a saga that was not due after all is looked at again.
const DUE_FLOOR_MS: i64 = 10;

/// What the orchestrator tells others after a commit.
#[derive(Clone)]
pub struct Listeners {
    /// HTTP handlers.
    pub waiters: Arc<Waiters>,
}

/// Decides for the sagas of one shard.
pub struct SagaHandler {
    store: Arc<dyn Store>,
    definitions: Arc<Definitions>,
    listeners: Listeners,
    /// Sagas in motion above which no start is taken (Z7).
    in_motion_most: usize,
    in_motion: usize,
    cache: Cache,
    /// When to look for due sagas: never later than the earliest stored `due`.
    look_ms: Option<i64>,
    changed: Vec<Changed>,
    /// Who holds the numbers of that batch's starts.
    claims: FxHashMap<(String, String), Claimed>,
    /// Sagas that its inputs wait for.
    awaited: Vec<SagaId>,
    look_after_ms: Option<i64>,
    silence: Silence,
    /// What the batch that is being committed heard of silent participants.
    hearing: Hearing,
    /// Time of that batch.
    decided_ms: i64,
    /// Timers due by then could fire in it.
    until_ms: i64,
    tally: Tally,
    motion: Option<Gauge>,
    snapshot_after_ms: Option<i64>,
}

impl SagaHandler {
    /// A handler for one shard; `in_motion_most` bounds its sagas in motion.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        definitions: Arc<Definitions>,
        listeners: Listeners,
        in_motion_most: usize,
    ) -> Self {
        Self {
            store,
            definitions,
            listeners,
            in_motion_most,
            in_motion: 0,
            cache: Cache::default(),
            look_ms: None,
            changed: Vec::new(),
            claims: FxHashMap::default(),
            awaited: Vec::new(),
            look_after_ms: None,
            silence: Silence::default(),
            hearing: Hearing::default(),
            decided_ms: 0,
            until_ms: i64::MIN,
            tally: Tally::default(),
            motion: None,
            snapshot_after_ms: None,
        }
    }

    /// Puts the events of sagas together that are open for so long, so that days of events can go; none: never.
    #[must_use]
    pub fn snapshots_after(mut self, snapshot_after_ms: Option<i64>) -> Self {
        self.snapshot_after_ms = snapshot_after_ms;
        self
    }

    /// Sagas of this shard with a command that awaits its reply.
    #[must_use]
    pub fn in_motion(&self) -> usize {
        self.in_motion
    }

    fn show_motion(&self) {
        if let Some(gauge) = &self.motion {
            gauge.set(self.in_motion as f64);
        }
    }

    /// Brings what a round needs, with the definitions of its sagas: another process may have loaded one since the last look.
    async fn load(
        &mut self,
        working: &mut Working,
        needed: (&[Heard], &[SagaId]),
        attempt: u32,
    ) -> Result<(), StoreError> {
        let loaded = consume::load(&*self.store, &mut self.cache, working, needed, attempt).await?;
        let mut versions: Vec<(&str, u32)> = Vec::new();
        for Stored { saga, .. } in loaded.sagas.values() {
            let version = (&*saga.definition, saga.definition_version);
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        self.definitions.ensure(versions.into_iter()).await?;
        working.take_over(loaded);
        Ok(())
    }

    /// The due sagas to look at in this batch, and when to look next.
    async fn due(&self, batch: &Batch) -> Result<(Vec<SagaId>, Option<i64>), StoreError> {
        let Some(until) = batch.timers_ms.filter(|until| self.look_ms.is_some_and(|look| look <= *until)) else {
            return Ok((Vec::new(), self.look_ms));
        };
        let shard = batch.assignment.shard.index;
        let most = most(batch);
        let page = persist::load_due(&*self.store, shard, most + 1).await?;
        let next = match page.get(most) {
            // More is due than fits: look again at once.
            Some((_, due)) if *due <= until => Some(until),
            Some(_) | None => page.iter().map(|(_, due)| *due).find(|due| *due > until),
        };
        let due = page.into_iter().take(most).filter(|(_, due)| *due <= until).map(|(id, _)| id);
        let due: Vec<_> = due.collect();
        // Some may stand still, and are put off.
        let again_ms = (!due.is_empty()).then_some(batch.now_ms + PUT_OFF_MS);
        Ok((due, [next, again_ms].into_iter().flatten().min()))
    }
}

/// Sagas whose timers the batch fires at most, or puts off.
fn most(batch: &Batch) -> usize {
    match (batch.timers_ms, &batch.timers) {
        (None, _) => 0,
        (Some(_), Timers::All) => TIMERS,
        (Some(_), Timers::First | Timers::PutOff(_)) => 1,
    }
}

impl Drop for SagaHandler {
    /// What another process owns is not ours to tell of.
    fn drop(&mut self) {
        if let Some(gauge) = &self.motion {
            gauge.set(0.0);
        }
    }
}

/// A batch of sagas, open over its rounds.
pub struct Open {
    working: Working,
    /// What no message brings.
    due: Vec<SagaId>,
    woken: Vec<(SagaId, Arc<str>)>,
    poisoned: Vec<Poisoned>,
    /// As the batch's.
    timers: Timers,
    look_ms: Option<i64>,
    /// As the batch's.
    attempt: u32,
    /// Whether the batch is one record, which no halving makes smaller.
    alone: bool,
}

impl Rounds for SagaHandler {
    type Open = Open;

    async fn open(&mut self, batch: &Batch) -> Result<Open, DecideError> {
        let (due, look_ms) = self.due(batch).await?;
        let hearing = self.silence.hearing(most(batch));
        let woken = self.silence.woken(&hearing).cloned().collect();
        let working = Working::new(self.definitions.clone(), batch, self.store.partitions(), hearing)
            .snapshots_after(self.snapshot_after_ms);
        let (poisoned, attempt, alone) = (batch.poisoned.clone(), batch.attempt, batch.messages.len() <= 1);
        self.decided_ms = batch.now_ms;
        self.until_ms = batch.timers_ms.unwrap_or(i64::MIN);
        Ok(Open { working, due, woken, poisoned, timers: batch.timers.clone(), look_ms, attempt, alone })
    }

    async fn round(&mut self, open: &mut Open, messages: &[Heard]) -> Result<Vec<Outgoing>, DecideError> {
        let Open { working, attempt, alone, .. } = open;
        let starts = messages.iter().filter_map(|(_, envelope)| match &envelope.message {
            Message::Input(Input { body: InputBody::Start(start), .. }) => Some((&*start.definition, start.version)),
            _ => None,
        });
        self.definitions.ensure(starts).await?;
        // A later round may hold what many records led to; hop by hop, it is a batch of its own.
        let alone = *alone && messages.len() <= 1;
        self.load(working, (messages, &[]), *attempt).await?;
        for (topic, envelope) in messages {
            if working.is_full() && !alone {
                // The shard halves it.
                return Err(DecideError::Data("E3006: the batch sends too much at once".to_owned()));
            }
            match &envelope.message {
                Message::Input(input) => working.input(*topic, envelope, input),
                Message::Reply(reply) => working.told(*topic, envelope, reply),
                Message::Command(_)
                | Message::Answer(_)
                | Message::Inquired(_)
                | Message::Domain(_)
                | Message::Foreign(_)
                | Message::Letter(_) => {
                    working.bury(*topic, envelope, format!("a {} is no input", envelope.message.label()));
                }
            }
        }
        Ok(working.sent())
    }

    async fn timers(&mut self, open: &mut Open) -> Result<Vec<Outgoing>, DecideError> {
        let Open { working, due, woken, poisoned, timers, look_ms, attempt, .. } = open;
        if let Timers::PutOff(reason) = timers {
            self.load(working, (&[], due), LAST_ATTEMPT).await?;
            due.drain(..).for_each(|id| working.put_off(id, reason));
            return Ok(working.sent());
        }
        let ids = due.iter().copied().chain(woken.iter().map(|(id, _)| *id)).chain(poisoned.iter().filter_map(saga_of));
        let ids: Vec<SagaId> = ids.collect();
        self.load(working, (&[], &ids), *attempt).await?;
        for id in due.drain(..) {
            if working.is_full() {
                // They are still due.
                *look_ms = Some(self.until_ms);
                break;
            }
            working.due(id);
        }
        // Those that do not fit any more ask by their own ladder.
        for (id, participant) in woken.drain(..) {
            if !working.is_full() {
                working.wake(id, &participant);
            }
        }
        for poisoned in poisoned.drain(..) {
            working.poisoned(&poisoned);
        }
        Ok(working.sent())
    }

    fn close(&mut self, open: Open) -> Result<Outcome, DecideError> {
        let Open { mut working, look_ms, .. } = open;
        self.claims = working.claims();
        self.awaited = working.awaited();
        let (outcome, changed, hearing) = working.finish()?;
        self.hearing = hearing;
        let earliest = changed.iter().filter_map(|changed| changed.due_ms).min();
        let soon = self.decided_ms + DUE_FLOOR_MS;
        self.look_after_ms = [look_ms, earliest]
            .into_iter()
            .flatten()
            .min()
            .map(|look| if earliest == Some(look) && look <= self.decided_ms { soon } else { look });
        self.changed = changed;
        Ok(outcome)
    }
}

impl Handler for SagaHandler {
    fn topics(&self) -> &[Topic] {
        &[Topic::Progress, Topic::Start]
    }

    fn room(&self, topic: Topic) -> usize {
        match topic {
            Topic::Progress | Topic::Commands | Topic::Events | Topic::DeadLetters | Topic::Foreign(_) => usize::MAX,
            Topic::Start => self.in_motion_most.saturating_sub(self.in_motion),
        }
    }

    async fn assigned(&mut self, assignment: &Assignment) -> Result<(), StoreError> {
        self.rolled_back();
        self.silence.clear();
        let shard = assignment.shard.index;
        self.cache.begin(Awaited::load(&*self.store, shard).await?);
        self.in_motion = persist::count_in_motion(&*self.store, shard).await?;
        self.motion = Some(Metric::InMotion.gauge(&[&shard.to_string()]));
        self.show_motion();
        Metric::InMotionMost.set(self.in_motion_most as f64, &[]);
        self.look_ms = persist::load_due(&*self.store, shard, 1).await?.first().map(|(_, due)| *due);
        Ok(())
    }

    async fn decide(&mut self, batch: &Batch) -> Result<Outcome, DecideError> {
        hop(self, batch).await
    }

    fn committed(&mut self) {
        self.silence.commit(std::mem::take(&mut self.hearing));
        // Those that were woken are looked at as soon as no input waits.
        self.look_ms = if self.silence.has_woken() { Some(self.decided_ms) } else { self.look_after_ms };
        self.cache.claim(std::mem::take(&mut self.claims));
        self.cache.await_starts(std::mem::take(&mut self.awaited));
        for changed in std::mem::take(&mut self.changed) {
            self.in_motion = self.in_motion.saturating_add_signed(changed.motion);
            self.tally.take(&changed, self.decided_ms);
            let waiters = &self.listeners.waiters;
            if let Some(claim) = changed.claim {
                waiters.sagas.notify(&changed.id, |notice| notice.claim = Some(claim));
            }
            for (input, answer) in changed.answers {
                waiters.inputs.notify(&(changed.id, input), |news| *news = Some(answer));
            }
            if let Some(saga) = changed.saga {
                self.cache.adopted(changed.id);
                waiters.sagas.notify(&changed.id, |notice| {
                    notice.claim.get_or_insert(Claim::First);
                    notice.phase = Some(changed.phase);
                    notice.status = Some(Arc::clone(&saga.status));
                    notice.outcome = saga.control.outcome();
                });
                self.cache.put(Stored { saga, due_ms: changed.due_ms, bytes: changed.bytes });
            }
        }
        self.show_motion();
    }

    fn rolled_back(&mut self) {
        self.changed.clear();
        self.claims.clear();
        self.awaited.clear();
        self.hearing = Hearing::default();
    }

    fn due_ms(&self) -> Option<i64> {
        self.look_ms
    }
}
