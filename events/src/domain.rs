//! Domain events: status changes of sagas, published on a topic of their own, keyed by saga.

use crate::SagaId;
use serde::{Deserialize, Serialize};

/// A saga's status changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainEvent {
    /// The saga.
    pub saga: SagaId,
    /// Its definition.
    pub definition: String,
    /// Its business number.
    pub number: String,
    /// The saga's version at which it happened; (saga, version) identifies the event.
    pub version: u64,
    /// The new customer-visible status.
    pub status: String,
    /// The status before; empty at the start.
    #[serde(default)]
    pub before: String,
    /// The outcome's label once ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Why, when it was cancelled or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
