//! A store that fails as stores and networks do, by draws from the seed: a commit that is not applied, one that is
//! applied and not answered, a read that fails; messages of a commit that come twice, in another order, late or never;
//! inputs that are poison as long as there are faults.

use super::coverage::{Met, met};
use super::random::Random;
use super::three_ways::Post;
use async_trait::async_trait;
use endstate_events::{Envelope, Input, InputBody, Message, Topic};
use endstate_outbox::{
    Assignment, Batch, Commit, CommitError, DecideError, Handler, Outcome, Outgoing, Parcel, Rounds, Row, Rows,
    ShardId, Statement, Store, StoreError,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Every fault that the store and the network draw.
pub(crate) const FAULTS: [&str; 11] = [
    "commit_failed",
    "commit_answer_lost",
    "read_failed",
    "assign_failed",
    "assign_answer_lost",
    "take_failed",
    "duplicated",
    "reordered",
    "delayed",
    "dropped",
    "poison",
];

/// What only fused transactions meet.
pub(crate) const FUSED: [&str; 4] = ["later_round", "poison_in_later_round", "decided_again", "timers"];

/// Why an input is poison. It must not be mistaken for a reason of the program's own.
pub(crate) const POISON: &str = "drawn: poison";

/// Inputs that are poison, per mille.
const POISONED: u64 = 4;

/// How often, in per mille: each a little different in every seed.
#[derive(Clone, Copy, Debug)]
struct Rates {
    commit: u64,
    read: u64,
    message: u64,
}

/// What is drawn from, and the messages under way.
#[derive(Debug)]
pub(crate) struct Faults {
    on: bool,
    random: Random,
    rates: Rates,
    /// Messages that left their sender and have not arrived. The network outlives every crash.
    under_way: Vec<Outgoing>,
    /// Whether an input is poison, by its id: it stays so however often it is tried.
    poison: BTreeMap<String, bool>,
    /// Carries all messages instead, if there is one.
    pub(crate) post: Option<Post>,
    coverage: Met,
}

/// [`Faults`], shared by all handles of one world.
pub(crate) type SharedFaults = Arc<Mutex<Faults>>;

pub(crate) fn lock(faults: &SharedFaults) -> MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faults {
    pub(crate) fn new(mut random: Random, coverage: Met) -> SharedFaults {
        let mut rate = |most| random.below(most);
        let rates = Rates { commit: rate(60), read: rate(20), message: rate(150) };
        Arc::new(Mutex::new(Self {
            on: false,
            random,
            rates,
            under_way: Vec::new(),
            poison: BTreeMap::new(),
            post: None,
            coverage,
        }))
    }

    pub(crate) fn turn(&mut self, on: bool) {
        self.on = on;
    }

    fn draws(&mut self, per_mille: u64, name: &str) -> bool {
        let hit = self.on && self.random.below(1000) < per_mille;
        if hit {
            met(&self.coverage, "fault", name);
        }
        hit
    }

    fn is_poison(&mut self, id: &str) -> bool {
        if !self.on {
            return false;
        }
        if let Some(known) = self.poison.get(id) {
            return *known;
        }
        let poison = self.draws(POISONED, "poison");
        self.poison.insert(id.to_owned(), poison);
        poison
    }

    /// Takes one message that is under way, any of them.
    pub(crate) fn arriving(&mut self) -> Option<Outgoing> {
        let count = self.under_way.len() as u64;
        (count > 0).then(|| self.random.below(count)).map(|at| self.under_way.swap_remove(at as usize))
    }

    /// What a relay carries instead of what it was given. The rest comes later.
    pub(crate) fn carry(&mut self, messages: Vec<Outgoing>) -> Vec<Outgoing> {
        let (now, later) = self.distort(messages);
        self.under_way.extend(later);
        now
    }

    pub(crate) fn fails_to_take(&mut self) -> bool {
        self.draws(self.rates.read / 4, "take_failed")
    }

    /// What the network makes of the messages: those that arrive at once, and those that come later.
    fn distort(&mut self, messages: Vec<Outgoing>) -> (Vec<Outgoing>, Vec<Outgoing>) {
        if let Some(post) = &mut self.post {
            return (messages.into_iter().flat_map(|message| post.pass(message)).collect(), Vec::new());
        }
        let (rate, mut now, mut later) = (self.rates.message, Vec::with_capacity(messages.len()), Vec::new());
        for message in messages {
            if message.topic == Topic::Events {
                now.push(message);
                continue;
            }
            if may_be_lost(&message.envelope.message) && self.draws(rate / 2, "dropped") {
                continue;
            }
            if self.draws(rate, "duplicated") {
                let copies = if self.random.chance(50) { &mut now } else { &mut later };
                copies.push(message.clone());
            }
            let place = if self.draws(rate, "delayed") { &mut later } else { &mut now };
            place.push(message);
        }
        if now.len() > 1 && self.draws(rate, "reordered") {
            self.random.shuffle(&mut now);
        }
        (now, later)
    }
}

/// Commands, replies and the self-check's questions are sent again by those who wait for their answers. Everything else
/// is queued durably once, and a bus that loses it breaks its promise.
fn may_be_lost(message: &Message) -> bool {
    match message {
        Message::Command(_) | Message::Inquired(_) | Message::Reply(_) => true,
        Message::Input(Input { body, .. }) => matches!(body, InputBody::Reply(_) | InputBody::Inquire { .. }),
        Message::Answer(_) | Message::Domain(_) | Message::Foreign(_) | Message::Letter(_) => false,
    }
}

/// The store that shards see.
pub(crate) struct FaultyStore {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) faults: SharedFaults,
    /// Whether a commit is the delivery of its messages.
    pub(crate) delivers: bool,
}

#[async_trait]
impl Store for FaultyStore {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        let failed = {
            let mut faults = lock(&self.faults);
            let rate = faults.rates.read;
            faults.draws(rate, "read_failed")
        };
        if failed {
            return Err(broken(statement.name));
        }
        self.inner.read(statement, rows).await
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        let (failed, lost) = {
            let mut faults = lock(&self.faults);
            let rate = faults.rates.commit;
            (faults.draws(rate, "assign_failed"), faults.draws(rate, "assign_answer_lost"))
        };
        if failed {
            return Err(broken("assign"));
        }
        let assignment = self.inner.assign(shard).await?;
        if lost { Err(broken("assign")) } else { Ok(assignment) }
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        let (failed, lost, commit, later) = {
            let mut faults = lock(&self.faults);
            let rate = faults.rates.commit;
            let failed = faults.draws(rate, "commit_failed");
            let lost = !failed && faults.draws(rate, "commit_answer_lost");
            let (messages, later) = match self.delivers {
                true => {
                    let (now, later) = faults.distort(commit.messages.iter().flat_map(Parcel::messages).collect());
                    (Parcel::pack(now, |_, _| Ok(())).map_err(CommitError::Data)?, later)
                }
                false => (commit.messages, Vec::new()),
            };
            (failed, lost, Commit { messages, ..commit }, later)
        };
        if failed {
            return Err(CommitError::Doubt("drawn: not applied".to_owned()));
        }
        let hits = self.inner.commit(commit).await?;
        lock(&self.faults).under_way.extend(later);
        if lost { Err(CommitError::Doubt("drawn: applied, not answered".to_owned())) } else { Ok(hits) }
    }

    async fn outgoing(&self, shard: ShardId, from: i64, limit: usize) -> Result<Vec<(i64, Outgoing)>, StoreError> {
        self.inner.outgoing(shard, from, limit).await
    }

    async fn now_ms(&self) -> Result<Option<i64>, StoreError> {
        self.inner.now_ms().await
    }

    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }
}

pub(crate) fn broken(what: &str) -> StoreError {
    StoreError::Failed { statement: what.to_owned(), reason: "drawn".to_owned() }
}

/// A handler to which some inputs are poison.
pub(crate) struct Poisonable<H> {
    pub(crate) inner: H,
    pub(crate) faults: SharedFaults,
}

impl<H: Handler> Handler for Poisonable<H> {
    fn topics(&self) -> &[Topic] {
        self.inner.topics()
    }

    fn room(&self, topic: Topic) -> usize {
        self.inner.room(topic)
    }

    async fn assigned(&mut self, assignment: &Assignment) -> Result<(), StoreError> {
        self.inner.assigned(assignment).await
    }

    async fn decide(&mut self, batch: &Batch) -> Result<Outcome, DecideError> {
        let poisoned = {
            let mut faults = lock(&self.faults);
            batch.messages.iter().any(|(_, envelope)| faults.is_poison(&envelope.id))
        };
        if poisoned { Err(DecideError::Data(POISON.to_owned())) } else { self.inner.decide(batch).await }
    }

    fn committed(&mut self) {
        self.inner.committed();
    }

    fn rolled_back(&mut self) {
        self.inner.rolled_back();
    }

    fn conflicted(&mut self, statement: &'static str) {
        self.inner.conflicted(statement);
    }

    fn due_ms(&self) -> Option<i64> {
        self.inner.due_ms()
    }
}

impl<H: Handler> Poisonable<H> {
    fn met(&self, name: &str) {
        met(&lock(&self.faults).coverage, "fused", name);
    }
}

/// As part of a fused shard: an input may be poison in any round.
impl<H: Rounds> Rounds for Poisonable<H> {
    /// And how many rounds had messages.
    type Open = (H::Open, u32);

    async fn open(&mut self, batch: &Batch) -> Result<Self::Open, DecideError> {
        if batch.attempt > 0 {
            self.met("decided_again");
        }
        Ok((self.inner.open(batch).await?, 0))
    }

    async fn round(
        &mut self,
        (open, rounds): &mut Self::Open,
        messages: &[(Topic, Arc<Envelope>)],
    ) -> Result<Vec<Outgoing>, DecideError> {
        let later = *rounds > 0 && !messages.is_empty();
        *rounds += u32::from(!messages.is_empty());
        let poisoned = {
            let mut faults = lock(&self.faults);
            messages.iter().any(|(_, envelope)| faults.is_poison(&envelope.id))
        };
        match (later, poisoned) {
            (true, true) => self.met("poison_in_later_round"),
            (true, false) => self.met("later_round"),
            (false, _) => {}
        }
        if poisoned { Err(DecideError::Data(POISON.to_owned())) } else { self.inner.round(open, messages).await }
    }

    async fn timers(&mut self, (open, _): &mut Self::Open) -> Result<Vec<Outgoing>, DecideError> {
        let sent = self.inner.timers(open).await?;
        if !sent.is_empty() {
            self.met("timers");
        }
        Ok(sent)
    }

    fn close(&mut self, (open, _): Self::Open) -> Result<Outcome, DecideError> {
        self.inner.close(open)
    }
}
