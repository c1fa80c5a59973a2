//! The loop of one shard: consume, decide, persist, relay.
//!
//! One owner, one batch at a time, one transaction per batch: fence, positions, the handler's rows and the outbox.
//! A handler that reads topics of both sides owns the partition on both, under two fences ([`crate::fused`]).
//! Whatever goes wrong has one cure: forget everything and run assignment again.

use crate::bus::{Bus, Delivered, Outgoing, RelayError};
use crate::census::{Census, Seat};
use crate::clock::Clock;
use crate::dead_letter::DeadLetter;
use crate::inlet::{Inlets, Taken};
use crate::parcel::Parcel;
use crate::part::{ALONE, Part, Timers, sort, split};
use crate::pulse::Pulse;
use crate::relay::{self, Way};
use crate::statement::Write;
use crate::store::{Assignment, Commit, CommitError, Fence, ShardId, Store, StoreError};
use crate::trouble::{self, Standing};
use endstate_events::{Envelope, Topic};
use futures_util::FutureExt as _;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Messages of one batch at most; above, latency grows and throughput hardly does.
pub const BATCH: usize = 512;

/// How often a batch that met a conflict is decided again before the shard is assigned anew.
const CONFLICTS: u32 = 3;

/// Pause after a doubt: doubles from here up to [`BACKOFF_MOST`].
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Long enough to spare a struggling database, short enough for operators.
const BACKOFF_MOST: Duration = Duration::from_secs(5);
/// How often a shard at which a newer record waits looks about, when nothing else comes: people are told each day.
const PAUSE: Duration = Duration::from_secs(5);
/// How often a shard with a due timer looks for what is still on its way from the broker.
const BEHIND: Duration = Duration::from_millis(20);

/// A record that nobody could handle, on its way to the dead letters.
#[derive(Clone, Debug)]
pub struct Poisoned {
    /// The message, or the bytes of one that cannot be read.
    pub record: Result<Arc<Envelope>, String>,
    /// Why it is put aside.
    pub reason: String,
}

/// What a handler decides on.
#[derive(Debug)]
pub struct Batch {
    /// Messages in the order they were read, `progress` before `start`.
    pub messages: Vec<(Topic, Arc<Envelope>)>,
    /// Records put aside in this batch; a handler parks what they belong to.
    pub poisoned: Vec<Poisoned>,
    /// The shard's clock, milliseconds since 1970.
    pub now_ms: i64,
    /// Timers that are due by then may fire: all that was queued by then has been read. None: no timer may.
    pub timers_ms: Option<i64>,
    /// How many of them.
    pub timers: Timers,
    /// The owner's assignment on the side of its first topic; `next_seq` is the first sequence number of this batch.
    pub assignment: Assignment,
    /// 0 at first; higher when the same batch met a conflict and is decided again.
    pub attempt: u32,
}

/// What a handler wants committed.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Bulk writes.
    pub writes: Vec<Write>,
    /// Messages to send after the commit.
    pub messages: Vec<Outgoing>,
    /// Messages that can never be handled.
    pub dead_letters: Vec<(Topic, Arc<Envelope>, String)>,
    /// How many sequence numbers were used.
    pub seqs: i64,
}

/// Why a handler could not decide.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// The batch's data cannot be handled: it is halved until one record is left.
    #[error("{0}")]
    Data(String),
    /// The store failed: assignment runs again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One side's decisions; owned by one shard.
pub trait Handler: Send + 'static {
    /// The topics it reads, the most urgent first. Its shard is owned on each side that they belong to.
    fn topics(&self) -> &[Topic];

    /// How many messages of `topic` it takes now at most.
    fn room(&self, topic: Topic) -> usize;

    /// A new assignment, told for each side: drop every cache, load what must be known at the start.
    fn assigned(&mut self, assignment: &Assignment) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Decides a batch. Must not change what it caches before [`Handler::committed`].
    fn decide(&mut self, batch: &Batch) -> impl Future<Output = Result<Outcome, DecideError>> + Send;

    /// The batch is on disk.
    fn committed(&mut self);

    /// The batch is not: forget it.
    fn rolled_back(&mut self);

    /// The same, when a row of this statement was not as it was believed to be. A handler that knows none of its rows may go on
    /// believing what it has read.
    fn conflicted(&mut self, _statement: &'static str) {
        self.rolled_back();
    }

    /// When the earliest timer is due, milliseconds since 1970.
    fn due_ms(&self) -> Option<i64>;
}

/// Publishes what can be published now; who is told to end waits for no broker.
async fn unless<T, E: ToString>(
    stop: &CancellationToken,
    published: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    tokio::select! {
        biased;
        published = published => published.map_err(|error| error.to_string()),
        () = stop.cancelled() => Err("it is handed over before all of it was published".to_owned()),
    }
}

/// What a turn did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It committed something.
    Worked,
    /// There was nothing to do.
    Idle,
    /// It must wait that long before it tries again.
    Wait(Duration),
}

/// One shard and its owner.
pub struct Shard<H> {
    id: ShardId,
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    handler: H,
    owned: Option<Owned>,
    backoff: Duration,
    seat: Seat,
    standing: Standing,
    pulse: Pulse,
    /// Changes when another server answers than before.
    timeline: Option<watch::Receiver<i64>>,
    /// Set by [`run`](Self::run). A partition that takes nothing does not keep the shard from being handed over: what is
    /// committed its next owner publishes.
    stop: CancellationToken,
}

struct Owned {
    /// One per side, that of the first topic first.
    assignments: Vec<Assignment>,
    /// One per side as well. What is sent leaves by the first; the others finish what a predecessor has begun.
    ways: Vec<Way>,
    inlets: Inlets,
}

/// Why a part was not committed.
enum Failure {
    Data(String),
    Conflict,
    Doubt(String),
}

impl<H: Handler> Shard<H> {
    /// A shard that owns nothing yet; the first turn assigns it.
    pub fn new(id: ShardId, store: Arc<dyn Store>, bus: Arc<dyn Bus>, clock: Arc<dyn Clock>, handler: H) -> Self {
        let (seat, standing, pulse, stop) =
            (Seat::default(), Standing::of(id), Pulse::of(id), CancellationToken::new());
        let (owned, backoff, timeline) = (None, BACKOFF_FIRST, store.timeline());
        Self { id, store, bus, clock, handler, owned, backoff, seat, standing, pulse, timeline, stop }
    }

    /// Lets a census know whether the shard is assigned.
    #[must_use]
    pub fn counted(self, census: &Census) -> Self {
        Self { seat: census.seat(), ..self }
    }

    /// The handler, for tests and drains.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// Works until cancelled; a batch that has begun is finished.
    pub async fn run(mut self, stop: CancellationToken) {
        self.stop = stop.clone();
        while !stop.is_cancelled() {
            match self.turn().await {
                Turn::Worked => {}
                Turn::Idle => tokio::select! {
                    waited = AssertUnwindSafe(self.wait()).catch_unwind() => if let Err(panic) = waited {
                        let reason = trouble::panicked(&*panic).to_owned();
                        tokio::time::sleep(self.doubt(true, &reason).await).await;
                    },
                    () = stop.cancelled() => {}
                },
                // A timer waits, or a newer record does; other records need not. After a doubt there are none to come.
                Turn::Wait(pause) => tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.ready() => {}
                    () = stop.cancelled() => {}
                },
            }
        }
    }

    /// Waits for a message, the next timer, or acknowledgements that want to be saved.
    async fn wait(&mut self) {
        let now_ms = self.clock.now_ms();
        let due = self.handler.due_ms().map(|due| Duration::from_millis(u64::try_from(due - now_ms).unwrap_or(0)));
        let Some(owned) = &self.owned else { return };
        let is_open = owned.ways.iter().zip(&owned.assignments).any(|(way, assignment)| way.is_open(assignment));
        let mark = is_open.then_some(relay::SAVE_AFTER);
        let pause = due.into_iter().chain(mark).min();
        let sleep = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        // Only looked at: the turn must see it, too.
        let mut timeline = self.timeline.clone();
        let another = async {
            match &mut timeline {
                Some(timeline) => drop(timeline.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = another => {}
            () = self.ready() => {}
        }
    }

    /// Resolves when there may be a record to take.
    async fn ready(&mut self) {
        let Some(owned) = self.owned.as_mut() else { return std::future::pending().await };
        let rooms: Vec<_> = owned.inlets.topics().map(|topic| self.handler.room(topic)).collect();
        owned.inlets.ready(&rooms).await;
    }

    /// Takes what is ready, decides and commits it.
    pub async fn turn(&mut self) -> Turn {
        let turned = AssertUnwindSafe(self.try_turn()).catch_unwind().await;
        let (panicked, reason) = match turned {
            Ok(Ok(turn)) => {
                if turn == Turn::Worked {
                    self.backoff = BACKOFF_FIRST;
                }
                return turn;
            }
            Ok(Err(reason)) => (false, reason),
            Err(panic) => (true, trouble::panicked(&*panic).to_owned()),
        };
        Turn::Wait(self.doubt(panicked, &reason).await)
    }

    /// Forgets everything, so that the next turn assigns the shard again; returns the pause until then.
    async fn doubt(&mut self, panicked: bool, reason: &str) -> Duration {
        match panicked {
            true => tracing::error!(shard = %self.id, %reason, "E4035: a shard's task panicked and is assigned again"),
            false => tracing::warn!(shard = %self.id, %reason, "E4030: shard is assigned again"),
        }
        self.owned = None;
        self.seat.take(false);
        self.pulse.doubted(panicked, self.clock.now_ms());
        // A panic may have left anything behind: assignment drops it.
        std::panic::catch_unwind(AssertUnwindSafe(|| self.handler.rolled_back())).ok();
        let pause = self.backoff;
        self.backoff = (pause * 2).min(BACKOFF_MOST);
        // A single doubt is everyday life; one that does not pass, and a panic, are for people.
        if panicked || pause == BACKOFF_MOST {
            self.standing.tell(&*self.store, panicked, reason, self.clock.now_ms()).await;
        }
        pause
    }

    async fn try_turn(&mut self) -> Result<Turn, String> {
        if self.owned.is_some()
            && self.timeline.as_ref().is_some_and(|timeline| timeline.has_changed().unwrap_or(false))
        {
            // Also one that has nothing to write: what it has read and the new server lacks is read again (Z14).
            return Err("another server has taken over, which may lack what was committed last".to_owned());
        }
        if self.owned.is_none() {
            self.assign().await?;
        }
        let Some(owned) = self.owned.as_mut() else { return Err("the shard is not assigned".into()) };
        let now_ms = self.clock.now_ms();
        let due_ms = self.handler.due_ms().filter(|due| *due <= now_ms);
        let ends_known = due_ms.is_none_or(|due| owned.inlets.know_ends(due, now_ms));
        let rooms: Vec<_> = owned.inlets.topics().map(|topic| self.handler.room(topic)).collect();
        let taken = owned.inlets.take(BATCH, &rooms).await;
        let Taken { records, drained } = taken.map_err(|error| error.to_string())?;
        self.pulse.took(&records, now_ms);
        let halted = owned.inlets.halted();
        for place in &halted {
            self.standing.tell_newer(&*self.store, *place, now_ms).await;
        }
        let due = due_ms.is_some();
        // Behind the last look something may be queued that a later timer must not overtake.
        let known_ms = if due { owned.inlets.looked_ms().map(|looked| looked.min(now_ms)) } else { Some(now_ms) };
        let timers_ms = known_ms.filter(|_| drained && ends_known);
        if records.is_empty() && !(due && timers_ms.is_some()) {
            for (way, assignment) in owned.ways.iter_mut().zip(&mut owned.assignments) {
                way.save_when_idle(&*self.store, assignment, now_ms).await?;
            }
            return Ok(match (!halted.is_empty(), due) {
                (true, _) => Turn::Wait(PAUSE),
                (false, true) => Turn::Wait(BEHIND),
                (false, false) => Turn::Idle,
            });
        }
        let whole = Part { records, poison: None, attempt: 0, timers_ms, timers: Timers::All, now_ms };
        let (mut parts, mut alone) = (VecDeque::from([whole]), 0);
        while let Some(part) = parts.pop_front() {
            match self.commit(&part).await {
                Ok(()) if part.timers == Timers::All => {}
                // One of those that are due was refused: the others go on without it.
                Ok(()) => {
                    alone += 1;
                    let more = self.handler.due_ms().zip(part.timers_ms).is_some_and(|(due, until)| due <= until);
                    if more && alone < ALONE {
                        parts.push_front(Part { timers: Timers::First, attempt: 1, ..part });
                    }
                }
                Err(Failure::Doubt(reason)) => return Err(reason),
                Err(Failure::Conflict) if part.attempt < CONFLICTS => {
                    self.pulse.met_a_conflict();
                    parts.push_front(Part { attempt: part.attempt + 1, ..part });
                }
                Err(Failure::Conflict) => return Err("a conflict does not go away".into()),
                // What it collided with, on another shard, may be readable by now.
                Err(Failure::Data(_)) if part.attempt == 0 && part.poison.is_none() => {
                    parts.push_front(Part { attempt: 1, ..part });
                }
                Err(Failure::Data(reason)) => {
                    self.pulse.halved();
                    split(part, reason, &mut parts)?;
                }
            }
        }
        Ok(Turn::Worked)
    }

    async fn assign(&mut self) -> Result<(), String> {
        let topics = self.handler.topics().to_vec();
        let (mut assignments, mut ways): (Vec<Assignment>, _) = (Vec::new(), Vec::new());
        self.timeline.iter_mut().for_each(watch::Receiver::mark_unchanged);
        for side in topics.iter().filter_map(|topic| topic.side()) {
            if assignments.iter().any(|known| known.shard.side == side) {
                continue;
            }
            let shard = ShardId { side, index: self.id.index };
            let assignment = self.store.assign(shard).await.map_err(|error| error.to_string())?;
            self.standing.at(assignments.first().unwrap_or(&assignment));
            self.handler.assigned(&assignment).await.map_err(|error| error.to_string())?;
            // What a predecessor has not published goes out first.
            let opening = Way::open(&*self.bus, &*self.store, &assignment, self.clock.now_ms());
            ways.push(unless(&self.stop, opening).await?);
            tracing::debug!(%shard, epoch = assignment.epoch, "assigned");
            assignments.push(assignment);
        }
        if assignments.is_empty() {
            return Err("the handler reads no topic of any side".to_owned());
        }
        let inlets = Inlets::open(&self.bus, &self.clock, self.id.index, &topics, &assignments);
        self.owned = Some(Owned { assignments, ways, inlets });
        self.seat.take(true);
        self.pulse.assigned();
        Ok(())
    }

    fn failed(&mut self, error: &CommitError) {
        match error {
            CommitError::Conflict { statement, .. } => self.handler.conflicted(statement),
            CommitError::Data(_) | CommitError::Fenced(_) | CommitError::Doubt(_) => self.handler.rolled_back(),
        }
        self.pulse.failed(error);
    }

    async fn commit(&mut self, part: &Part) -> Result<(), Failure> {
        let Some(owned) = self.owned.as_mut() else { return Err(Failure::Doubt("the shard is not assigned".into())) };
        let mut fences = Fence::behind(&owned.assignments, &part.records);
        let (Some(Fence { before, .. }), Some(way)) = (fences.first().copied(), owned.ways.first_mut()) else {
            return Err(Failure::Doubt("the handler reads no topic of any side".into()));
        };
        let now_ms = part.now_ms;
        let (batch, mut dead_letters) = sort(part, before);
        // A decision that panics is a record that cannot be handled; what it was working on is dropped with it.
        let began = Instant::now();
        let decided = AssertUnwindSafe(self.handler.decide(&batch)).catch_unwind().await;
        self.pulse.decided(began.elapsed());
        let outcome = match decided.unwrap_or_else(|panic| {
            Err(DecideError::Data(format!("deciding it panicked: {}", trouble::panicked(&*panic))))
        }) {
            Ok(outcome) => outcome,
            Err(DecideError::Data(reason) | DecideError::Store(StoreError::Refused { reason, .. })) => {
                self.handler.rolled_back();
                return Err(Failure::Data(reason));
            }
            Err(DecideError::Store(error)) => return Err(Failure::Doubt(error.to_string())),
        };
        let offset_of = |envelope: &Arc<Envelope>| {
            let same = |record: &&Delivered| record.envelope.as_ref().is_ok_and(|e| Arc::ptr_eq(e, envelope));
            part.records.iter().find(same).map_or(i64::MIN, |record| record.offset)
        };
        for (topic, envelope, reason) in &outcome.dead_letters {
            let bytes = serde_json::to_string(envelope).unwrap_or_default();
            let place = (self.id.index, offset_of(envelope));
            dead_letters.push(DeadLetter::new(*topic, place, &bytes, reason, now_ms));
        }
        self.pulse.offered(part.records.len(), &outcome);
        let mut messages = outcome.messages;
        messages.extend(way.copies(&dead_letters, self.store.partitions()));
        let messages = way.pack(messages).map_err(|reason| {
            self.handler.rolled_back();
            Failure::Data(reason)
        })?;
        let carried = way.carried(&messages);
        let doubt = |error: RelayError| Failure::Doubt(error.to_string());
        fences[0].next_seq += outcome.seqs;
        fences[0].next_outbox_seq += carried.iter().map(Parcel::len).sum::<usize>() as i64;
        for (fence, way) in fences.iter_mut().zip(&owned.ways) {
            fence.published_seq = way.mark(&fence.before).map_err(doubt)?;
        }
        let assignments = fences.iter().map(Fence::after).collect();
        self.pulse.commits(&dead_letters);
        let commit = Commit { fences, writes: outcome.writes, messages, dead_letters };
        match self.store.commit(commit).await {
            Ok(_) => {
                self.pulse.committed();
                owned.assignments = assignments;
                self.standing.at(&owned.assignments[0]);
                owned.ways.iter_mut().for_each(|way| way.saved(now_ms));
                self.handler.committed();
                let publishing = owned.ways[0].publish(before.next_outbox_seq, carried);
                unless(&self.stop, publishing).await.map_err(Failure::Doubt)
            }
            Err(error) => {
                self.failed(&error);
                Err(match error {
                    CommitError::Data(reason) => Failure::Data(reason),
                    CommitError::Conflict { .. } => {
                        tracing::debug!(shard = %self.id, %error, "decided again");
                        Failure::Conflict
                    }
                    CommitError::Fenced(_) | CommitError::Doubt(_) => Failure::Doubt(error.to_string()),
                })
            }
        }
    }
}
