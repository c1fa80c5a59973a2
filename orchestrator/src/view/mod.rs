//! The read side: `saga_view` and its search attributes, written by one projector that follows every shard's events.
//!
//! - [`projector`]: events -> changed sagas -> one commit; [`lag`]: how far it is behind
//! - `draw`: sagas as they are now -> writes; `undrawn`: those of which there is no picture yet
//! - [`rebuild`]: the whole view anew, a page at a time
//! - [`list`]: lists, by one leading filter and any others
//! - [`sql`]: the statements

pub mod projector;
pub mod lag;
mod draw;
pub(crate) mod undrawn;
pub mod rebuild;
pub mod list;
pub(crate) mod sql;

use endstate_events::{Json, Lane, SagaId};
use endstate_outbox::Value;
use uuid::Uuid;

pub use lag::Lag;
pub use list::{Filter, list, of_order, one};
pub use projector::{Projector, Render, Undrawn};
pub(crate) use sql::DROP_SEARCH;

/// One saga as lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewRow {
    /// The saga.
    pub saga: SagaId,
    /// Its version.
    pub version: i64,
    /// Its definition.
    pub definition: String,
    /// The version it is pinned to.
    pub definition_version: u32,
    /// Its number.
    pub number: String,
    /// Who may see it.
    pub owner: Option<String>,
    /// Kind of traffic.
    pub lane: Lane,
    /// What the customer sees.
    pub status: String,
    /// The phase's label.
    pub phase: String,
    /// The outcome's label, once ended.
    pub outcome: Option<String>,
    /// Why it was cancelled or reversed.
    pub reason: Option<String>,
    /// The definition's `view`.
    pub view: Json,
    /// The definition's `search`, one pair per value.
    pub search: Vec<(String, String)>,
    /// The saga it belongs to.
    pub order: Option<SagaId>,
    /// Milliseconds since 1970.
    pub started_ms: i64,
    /// Milliseconds since 1970.
    pub updated_ms: i64,
    /// Milliseconds since 1970, once ended.
    pub ended_ms: Option<i64>,
}

impl ViewRow {
    /// The cells in the order of `sql::COLUMNS`.
    fn cells(&self) -> [Value; 17] {
        [
            self.saga.0.into(),
            self.version.into(),
            self.definition.as_str().into(),
            i64::from(self.definition_version).into(),
            self.number.as_str().into(),
            self.owner.as_deref().into(),
            self.lane.label().into(),
            self.status.as_str().into(),
            self.phase.as_str().into(),
            self.outcome.as_deref().into(),
            self.reason.as_deref().into(),
            Value::json(&self.view).unwrap_or_else(|_| "null".into()),
            search_text(&self.search).into(),
            self.order.map(|saga| saga.0).into(),
            self.started_ms.into(),
            self.updated_ms.into(),
            self.ended_ms.into(),
        ]
    }

    fn read(row: &[Value]) -> Option<Self> {
        let [
            saga,
            version,
            definition,
            pinned,
            number,
            owner,
            lane,
            status,
            phase,
            outcome,
            reason,
            view,
            search,
            order,
            started,
            updated,
            ended,
        ] = row
        else {
            return None;
        };
        let text = |value: &Value| value.text().map(str::to_owned);
        Some(Self {
            saga: SagaId(saga.id()?),
            version: version.int()?,
            definition: text(definition)?,
            definition_version: pinned.int()?.try_into().ok()?,
            number: text(number)?,
            owner: text(owner),
            lane: serde_json::from_value(Json::String(text(lane)?)).ok()?,
            status: text(status)?,
            phase: text(phase)?,
            outcome: text(outcome),
            reason: text(reason),
            view: serde_json::from_str(view.text()?).ok()?,
            search: serde_json::from_str(search.text()?).ok()?,
            order: order.id().map(SagaId),
            started_ms: started.int()?,
            updated_ms: updated.int()?,
            ended_ms: ended.int(),
        })
    }
}

fn search_text(search: &[(String, String)]) -> String {
    serde_json::to_string(search).unwrap_or_else(|_| "[]".to_owned())
}

/// Sorts after every id.
const LAST_ID: Uuid = Uuid::max();

#[cfg(test)]
mod tests;
