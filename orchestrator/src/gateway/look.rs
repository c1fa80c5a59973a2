//! What a gateway tells of sagas: their committed rows, and news of them. Nothing is queued here.

use super::Gateway;
use crate::persist::{self, Stored};
use crate::waiters::Notice;
use endstate_events::SagaId;
use endstate_outbox::StoreError;
use endstate_saga::control::Phase;
use endstate_saga::event::Event;
use endstate_saga::saga::Saga;
use std::sync::Arc;
use std::time::Duration;

impl Gateway {
    /// The saga that a number names.
    pub async fn find(&self, definition: &str, number: &str) -> Result<Option<SagaId>, StoreError> {
        let claims = persist::load_numbers(&*self.store, &[(definition, number)]).await?;
        Ok(claims.first().map(|(_, claimed)| claimed.saga))
    }

    /// A saga's committed row.
    pub async fn get(&self, saga: SagaId) -> Result<Option<Stored>, StoreError> {
        Ok(persist::load_sagas(&*self.store, &[saga]).await?.pop())
    }

    /// A saga's events in order: version before, time, events.
    pub async fn timeline(&self, saga: SagaId) -> Result<Vec<(u64, i64, Vec<Event>)>, StoreError> {
        persist::load_timeline(&*self.store, saga).await
    }

    /// Waits until nothing more happens without somebody outside, at most `patience`; returns the latest news.
    pub async fn news(&self, saga: SagaId, patience: Option<Duration>) -> Result<Notice, StoreError> {
        let mut waiting = self.waiters.sagas.wait(saga);
        let stored = self.get(saga).await?;
        let known = stored.as_ref().map_or_else(Notice::default, |stored| self.notice(&stored.saga));
        let Some(patience) = patience.filter(|_| !known.is_settled()) else { return Ok(known) };
        match tokio::time::timeout(patience, waiting.until(Notice::is_settled)).await {
            Ok(notice) => Ok(notice),
            Err(_) => Ok(self.get(saga).await?.map_or(known, |stored| self.notice(&stored.saga))),
        }
    }

    /// The phase of a saga, as its definition tells it.
    #[must_use]
    pub fn phase(&self, saga: &Saga) -> Option<Phase> {
        let definition = self.definitions.get(&saga.definition, saga.definition_version)?;
        Some(saga.control.phase(definition.plan()))
    }

    /// The news that a saga's row holds.
    pub(crate) fn notice(&self, saga: &Saga) -> Notice {
        Notice {
            claim: None,
            phase: self.phase(saga),
            status: Some(Arc::clone(&saga.status)),
            outcome: saga.control.outcome(),
        }
    }
}
