//! What a round of a batch takes over and gives away; the working copies stay open until the last.

use super::Working;
use crate::consume::Loaded;
use crate::persist::Claimed;
use endstate_events::SagaId;
use endstate_outbox::Outgoing;
use rustc_hash::FxHashMap;

impl Working {
    /// Takes over what was read for its next messages.
    pub fn take_over(&mut self, loaded: Loaded) {
        self.stored.extend(loaded.sagas);
        self.unreadable.extend(loaded.unreadable);
        self.waiting.extend(loaded.orphans);
        for (number, claimed) in loaded.claims {
            self.claims.entry(number).or_insert(claimed);
        }
    }

    /// Who holds the numbers of the batch's starts, once it is committed.
    pub fn claims(&mut self) -> FxHashMap<(String, String), Claimed> {
        std::mem::take(&mut self.claims)
    }

    /// Sagas that inputs of the batch wait for.
    pub fn awaited(&self) -> Vec<SagaId> {
        self.orphans.iter().map(|orphan| orphan.saga).collect()
    }

    /// What the inputs since the last call have to send.
    pub fn sent(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outcome.messages)
    }
}
