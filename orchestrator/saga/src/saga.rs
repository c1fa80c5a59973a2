//! The saga: control and data of one run of a definition. Its row is a cache of its events.

use endstate_events::{Json, Lane, SagaId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One run of a definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saga {
    /// Its id.
    pub id: SagaId,
    /// Name of its definition.
    pub definition: Arc<str>,
    /// Version of its definition; it keeps the one it started with.
    pub definition_version: u32,
    /// Business number.
    pub number: Arc<str>,
    /// Routing key.
    pub key: Arc<str>,
    /// Who may read and cancel it.
    pub owner: Option<Arc<str>>,
    /// Kind of traffic.
    pub lane: Lane,
    /// When its start was queued, milliseconds since 1970.
    pub started_ms: i64,
    /// What payloads and conditions read.
    pub data: Data,
}

/// What payloads and conditions read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// `input`.
    pub input: Arc<Json>,
    /// `values`; null until they are computed.
    pub values: Arc<Json>,
    /// `order`: the snapshot of the saga that this one belongs to; null if none.
    pub order: Arc<Json>,
    /// The runs (step times item) so far, in the order in which their stages were entered; a step's runs are adjacent
    /// and in item order.
    pub runs: Vec<RunData>,
    /// `waits`: the events taken, by stage index; null where none was.
    pub waits: Vec<Arc<Json>>,
}

/// What is recorded about one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunData {
    /// Its step: index into the plan's steps.
    pub step: u8,
    /// The item's key under `each`, else empty.
    pub item_key: Arc<str>,
    /// The item; null without `each`.
    pub item: Arc<Json>,
    /// The payload, evaluated once.
    pub with: Arc<Json>,
    /// The data of its reply; null until done.
    pub reply: Arc<Json>,
    /// Routing key of its command.
    pub key: Arc<str>,
}

impl Data {
    /// The runs of one step, in item order.
    pub fn runs_of(&self, step: usize) -> impl Iterator<Item = &RunData> {
        self.runs.iter().filter(move |run| usize::from(run.step) == step)
    }
}
