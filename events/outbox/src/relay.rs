//! A shard's way out where the store is not the bus: messages are encoded before their commit and published after it;
//! what the broker has acknowledged rides in the next commit as the published mark.
//!
//! Nothing polls the outbox: it is read only on assignment, from the mark that the last owner left.

use crate::bus::{Bus, Outgoing, Relay, RelayError};
use crate::dead_letter::{self, DeadLetter};
use crate::parcel::Parcel;
use crate::store::{Assignment, Commit, Fence, Store};
use std::time::Duration;

/// Messages of one page that are published again on assignment: a long outage must not fill the memory.
const PAGE: usize = 1_000;

/// How long an idle shard waits before it saves its mark; with work, the mark rides for free.
pub(crate) const SAVE_AFTER: Duration = Duration::from_secs(1);

/// The way out of one assignment.
pub(crate) struct Way {
    relay: Option<Box<dyn Relay>>,
    /// When the mark was saved last, by the shard's clock.
    saved_ms: i64,
}

impl Way {
    /// Opens it: everything above the mark is published again, before anything is consumed.
    pub(crate) async fn open(
        bus: &dyn Bus,
        store: &dyn Store,
        assignment: &Assignment,
        now_ms: i64,
    ) -> Result<Self, String> {
        let mut way = Self { relay: bus.relay(assignment.shard, assignment.published_seq), saved_ms: now_ms };
        let mut next = assignment.published_seq;
        while way.relay.is_some() && next < assignment.next_outbox_seq {
            let page = store.outgoing(assignment.shard, next, PAGE).await.map_err(|error| error.to_string())?;
            let Some((first, last)) = page.first().zip(page.last()).map(|((first, _), (last, _))| (*first, *last))
            else {
                return Err(format!("the outbox ends at {next} instead of {}", assignment.next_outbox_seq));
            };
            if first != next || last - first + 1 != page.len() as i64 {
                return Err(format!("the outbox has a gap between {next} and {last}"));
            }
            let mut next_seq = first;
            // In the order of their numbers; a batch's are sorted by place, and a page has several batches.
            for run in page.chunk_by(|(_, a), (_, b)| (a.topic, a.partition) == (b.topic, b.partition)) {
                let parcels = way.pack(run.iter().map(|(_, outgoing)| outgoing.clone()).collect())?;
                way.publish(next_seq, parcels).await.map_err(|error| error.to_string())?;
                next_seq += run.len() as i64;
            }
            next = last + 1;
        }
        Ok(way)
    }

    /// Copies of dead letters for others. None where the store is the bus: whoever could read them there sees the rows.
    pub(crate) fn copies(&self, letters: &[DeadLetter], partitions: u16) -> Vec<Outgoing> {
        let letters = if self.relay.is_some() { letters } else { &[] };
        letters.iter().map(|letter| dead_letter::copy(letter, partitions)).collect()
    }

    /// Encodes what a batch wants to send, as the outbox wants it.
    pub(crate) fn pack(&self, messages: Vec<Outgoing>) -> Result<Vec<Parcel>, String> {
        Parcel::pack(messages, |envelope, bytes| match &self.relay {
            Some(relay) => relay.fits(envelope, bytes),
            None => Ok(()),
        })
    }

    /// What of it has to be published, once it is on disk. Nothing where commit is delivery.
    pub(crate) fn carried(&self, parcels: &[Parcel]) -> Vec<Parcel> {
        if self.relay.is_some() { parcels.to_vec() } else { Vec::new() }
    }

    /// Publishes what the commit has put on disk.
    pub(crate) async fn publish(&mut self, first_seq: i64, parcels: Vec<Parcel>) -> Result<(), RelayError> {
        match &mut self.relay {
            Some(relay) if !parcels.is_empty() => relay.publish(first_seq, parcels).await,
            _ => Ok(()),
        }
    }

    /// The mark for the next commit.
    pub(crate) fn mark(&self, assignment: &Assignment) -> Result<i64, RelayError> {
        self.relay.as_ref().map_or(Ok(assignment.published_seq), |relay| relay.published())
    }

    /// A commit has saved the mark.
    pub(crate) fn saved(&mut self, now_ms: i64) {
        self.saved_ms = now_ms;
    }

    /// Whether an idle shard must look again for acknowledgements.
    pub(crate) fn is_open(&self, assignment: &Assignment) -> bool {
        self.relay.is_some() && assignment.published_seq < assignment.next_outbox_seq
    }

    /// An idle shard saves what the broker has acknowledged meanwhile, when it is time.
    pub(crate) async fn save_when_idle(
        &mut self,
        store: &dyn Store,
        assignment: &mut Assignment,
        now_ms: i64,
    ) -> Result<(), String> {
        let published_seq = self.mark(assignment).map_err(|error| error.to_string())?;
        let long = now_ms - self.saved_ms >= SAVE_AFTER.as_millis() as i64;
        if long && published_seq > assignment.published_seq {
            let fence = Fence { published_seq, ..Fence::still(*assignment) };
            let commit = Commit { fences: vec![fence], ..Commit::default() };
            store.commit(commit).await.map_err(|error| error.to_string())?;
            *assignment = fence.after();
            self.saved(now_ms);
        }
        Ok(())
    }
}
