//! Sagas that other processes decide, for those who wait for them here: their rows are looked up, all in one statement,
//! some times a second. A process that decides a saga itself tells its waiters without any of this.

use crate::gateway::Gateway;
use crate::persist;
use crate::waiters::{Claim, Notice, Wanted};
use endstate_events::SagaId;
use endstate_outbox::StoreError;
use std::time::Duration;

/// Between two looks: adds half of it to what a caller waits, on the average.
const LOOK: Duration = Duration::from_millis(20);

/// Pause after a look that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Sagas of one look at most; the others come next.
const PAGE: usize = 512;

/// Follows the sagas of other processes that somebody waits for.
pub struct Others {
    gateway: Gateway,
}

impl Others {
    /// For the waiters of this gateway.
    #[must_use]
    pub fn new(gateway: Gateway) -> Self {
        Self { gateway }
    }

    /// Looks until dropped.
    pub async fn follow(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let waited_for = self.gateway.waiters().sagas.keys();
            let foreign: Vec<SagaId> = waited_for.into_iter().filter(|saga| !self.gateway.decides(*saga)).collect();
            for page in foreign.chunks(PAGE) {
                if let Err(error) = self.look(page).await {
                    tracing::debug!(%error, "sagas of other processes were not looked up");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// One look at these sagas.
    pub async fn look(&self, sagas: &[SagaId]) -> Result<(), StoreError> {
        let (waiters, store) = (self.gateway.waiters(), &**self.gateway.store());
        let mut missing = sagas.to_vec();
        for (id, settled) in persist::look(store, sagas).await? {
            missing.retain(|saga| *saga != id);
            let news = settled.map_or_else(Notice::default, |saga| self.gateway.notice(&saga));
            waiters.sagas.notify(&id, |notice| *notice = Notice { claim: notice.claim.or(Some(Claim::First)), ..news });
        }
        self.look_for_claims(&missing).await
    }

    /// A start whose number belongs to an earlier saga never has a row of its own.
    async fn look_for_claims(&self, missing: &[SagaId]) -> Result<(), StoreError> {
        let waiters = self.gateway.waiters();
        let wanted: Vec<(SagaId, Wanted)> =
            missing.iter().filter_map(|saga| Some((*saga, waiters.starts.wanted(saga)?))).collect();
        let numbers: Vec<(&str, &str)> =
            wanted.iter().map(|(_, wanted)| (wanted.definition.as_str(), wanted.number.as_str())).collect();
        for ((definition, number), claimed) in persist::load_numbers(&**self.gateway.store(), &numbers).await? {
            let same = |wanted: &Wanted| wanted.definition == definition && wanted.number == number;
            for (saga, wanted) in wanted.iter().filter(|(saga, wanted)| same(wanted) && claimed.saga != *saga) {
                let same_body = *claimed.body_hash == *wanted.body_hash;
                let claim = Claim::Taken { by: claimed.saga, same_body };
                waiters.sagas.notify(saga, |notice| notice.claim = Some(claim));
            }
        }
        Ok(())
    }
}
