//! Both sides of a shard in one transaction: what a saga commands and what the participants reply is decided round after
//! round on open working copies, and written once.
//!
//! Hop by hop, a message to the other side is a row, a commit and a read. Here a message to a topic and partition that
//! the same owner reads is decided in the next round instead; every other message (to other partitions, other teams,
//! calls outside) goes the usual way, and so does what is left after too many rounds. What a handler decides is the same
//! either way; what it commits is the sum of its rounds.
//!
//! There is one way back: a batch that failed in any way is decided again hop by hop, where halving, dead letters and
//! conflicts work on records that have an offset.

use crate::bus::Outgoing;
use crate::shard::{BATCH, Batch, DecideError, Handler, Outcome};
use crate::store::{Assignment, StoreError};
use endstate_events::{Envelope, Topic};
use std::future::Future;
use std::sync::Arc;

/// Rounds of one transaction at most: sagas with many stages end within it, two sides that answer each other for ever
/// are cut.
pub const ROUNDS: usize = 32;

/// Messages decided in one transaction at most, so that nobody waits too long for its commit.
const MESSAGES: usize = 8 * BATCH;

/// A message and the topic it was sent to.
pub type Message = (Topic, Arc<Envelope>);

/// A handler whose batch can go on for several rounds before it is written.
pub trait Rounds: Handler {
    /// The working copies of a batch, open over its rounds.
    type Open: Send;

    /// Begins a batch. Its messages come later.
    fn open(&mut self, batch: &Batch) -> impl Future<Output = Result<Self::Open, DecideError>> + Send;

    /// Decides messages, seeing what earlier rounds have made. Returns what is to be sent.
    fn round(
        &mut self,
        open: &mut Self::Open,
        messages: &[Message],
    ) -> impl Future<Output = Result<Vec<Outgoing>, DecideError>> + Send;

    /// Decides what no message brings: timers, and records that were put aside. Returns what is to be sent.
    fn timers(&mut self, open: &mut Self::Open) -> impl Future<Output = Result<Vec<Outgoing>, DecideError>> + Send;

    /// Ends the batch: the rows of all its rounds.
    fn close(&mut self, open: Self::Open) -> Result<Outcome, DecideError>;
}

/// Decides a batch in one round: [`Handler::decide`] of a handler that could go on.
pub async fn hop<H: Rounds>(handler: &mut H, batch: &Batch) -> Result<Outcome, DecideError> {
    let mut open = handler.open(batch).await?;
    let mut sent = handler.round(&mut open, &batch.messages).await?;
    sent.extend(handler.timers(&mut open).await?);
    let mut outcome = handler.close(open)?;
    outcome.messages.extend(sent);
    Ok(outcome)
}

/// The handlers of two sides as one. The first gives the sequence numbers.
pub struct Fused<A, B> {
    first: A,
    second: B,
    topics: Vec<Topic>,
    rounds: usize,
    /// Of the second's side; a batch carries that of the first.
    seconds: Option<Assignment>,
}

/// Both sides' working copies, and what leaves the transaction.
struct Both<A, B> {
    first: A,
    second: B,
    index: u16,
    rounds_left: usize,
    messages_left: usize,
    out: Vec<Outgoing>,
}

impl<A: Rounds, B: Rounds> Fused<A, B> {
    /// Joins two handlers; `rounds` is at most how many rounds one transaction takes, see [`ROUNDS`].
    pub fn new(first: A, second: B, rounds: usize) -> Self {
        let mut topics = [first.topics(), second.topics()].concat();
        // New starts come after everything that is under way, whichever side it is for.
        topics.sort_by_key(|topic| *topic == Topic::Start);
        Self { first, second, topics, rounds, seconds: None }
    }

    /// The first handler, for tests.
    pub fn first(&self) -> &A {
        &self.first
    }

    fn is_firsts(&self, topic: Topic) -> bool {
        self.first.topics().contains(&topic)
    }

    /// The batch of each side.
    fn split(&self, batch: &Batch) -> (Batch, Batch) {
        let part = |first: bool| Batch {
            messages: batch.messages.iter().filter(|(topic, _)| self.is_firsts(*topic) == first).cloned().collect(),
            poisoned: batch.poisoned.clone(),
            timers: batch.timers.clone(),
            ..*batch
        };
        (part(true), Batch { assignment: self.seconds.unwrap_or(batch.assignment), ..part(false) })
    }

    async fn hop_by_hop(&mut self, first: &Batch, second: &Batch) -> Result<Outcome, DecideError> {
        let (first, second) = (hop(&mut self.first, first).await?, hop(&mut self.second, second).await?);
        Ok(joined(first, second))
    }

    async fn all_rounds(&mut self, first: &Batch, second: &Batch) -> Result<Outcome, DecideError> {
        let mut both = Both {
            first: self.first.open(first).await?,
            second: self.second.open(second).await?,
            index: first.assignment.shard.index,
            rounds_left: self.rounds,
            messages_left: MESSAGES,
            out: Vec::new(),
        };
        self.settle(&mut both, first.messages.clone(), second.messages.clone()).await?;
        // Timers see all that could be decided, as they do hop by hop.
        let mut sent = self.first.timers(&mut both.first).await?;
        sent.extend(self.second.timers(&mut both.second).await?);
        let (mine, theirs) = self.keep(&mut both, sent);
        self.settle(&mut both, mine, theirs).await?;
        let (first, second) = (self.first.close(both.first)?, self.second.close(both.second)?);
        let mut outcome = joined(first, second);
        outcome.messages.extend(both.out);
        Ok(outcome)
    }

    /// Decides messages and what they lead to, round after round, until nothing is left that this shard could decide.
    async fn settle(
        &mut self,
        both: &mut Both<A::Open, B::Open>,
        mut mine: Vec<Message>,
        mut theirs: Vec<Message>,
    ) -> Result<(), DecideError> {
        while !mine.is_empty() || !theirs.is_empty() {
            let sent = self.first.round(&mut both.first, &mine).await?;
            let (to_first, to_second) = self.keep(both, sent);
            theirs.extend(to_second);
            let sent = self.second.round(&mut both.second, &theirs).await?;
            both.rounds_left = both.rounds_left.saturating_sub(1);
            let (more_to_first, to_second) = self.keep(both, sent);
            mine = to_first;
            mine.extend(more_to_first);
            theirs = to_second;
        }
        Ok(())
    }

    /// Keeps what this shard decides itself, for each side, and lets the rest go.
    fn keep(&self, both: &mut Both<A::Open, B::Open>, sent: Vec<Outgoing>) -> (Vec<Message>, Vec<Message>) {
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        for message in sent {
            let ours = message.partition == both.index && self.topics.contains(&message.topic);
            if !ours || both.rounds_left == 0 || both.messages_left == 0 {
                both.out.push(message);
                continue;
            }
            both.messages_left -= 1;
            let side = if self.is_firsts(message.topic) { &mut mine } else { &mut theirs };
            side.push((message.topic, message.envelope));
        }
        (mine, theirs)
    }
}

impl<A: Rounds, B: Rounds> Handler for Fused<A, B> {
    fn topics(&self) -> &[Topic] {
        &self.topics
    }

    fn room(&self, topic: Topic) -> usize {
        if self.is_firsts(topic) { self.first.room(topic) } else { self.second.room(topic) }
    }

    async fn assigned(&mut self, assignment: &Assignment) -> Result<(), StoreError> {
        let side = Some(assignment.shard.side);
        if self.first.topics().iter().any(|topic| topic.side() == side) {
            self.first.assigned(assignment).await
        } else {
            self.seconds = Some(*assignment);
            self.second.assigned(assignment).await
        }
    }

    async fn decide(&mut self, batch: &Batch) -> Result<Outcome, DecideError> {
        let (first, second) = self.split(batch);
        if batch.attempt > 0 || !batch.poisoned.is_empty() {
            return self.hop_by_hop(&first, &second).await;
        }
        let outcome = self.all_rounds(&first, &second).await?;
        // A letter is known by the offset of its record, and a message of a later round has none.
        let was_read = |letter: &Arc<Envelope>| batch.messages.iter().any(|(_, read)| Arc::ptr_eq(read, letter));
        match outcome.dead_letters.iter().find(|(_, letter, _)| !was_read(letter)) {
            Some((_, _, reason)) => Err(DecideError::Data(reason.clone())),
            None => Ok(outcome),
        }
    }

    fn committed(&mut self) {
        self.first.committed();
        self.second.committed();
    }

    fn rolled_back(&mut self) {
        self.first.rolled_back();
        self.second.rolled_back();
    }

    fn conflicted(&mut self, statement: &'static str) {
        self.first.conflicted(statement);
        self.second.conflicted(statement);
    }

    fn due_ms(&self) -> Option<i64> {
        [self.first.due_ms(), self.second.due_ms()].into_iter().flatten().min()
    }
}

fn joined(first: Outcome, second: Outcome) -> Outcome {
    let Outcome { mut writes, mut messages, mut dead_letters, seqs } = first;
    debug_assert_eq!(second.seqs, 0, "sequence numbers are the first side's");
    writes.extend(second.writes);
    messages.extend(second.messages);
    dead_letters.extend(second.dead_letters);
    Outcome { writes, messages, dead_letters, seqs }
}
