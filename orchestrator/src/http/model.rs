//! What routes answer with. Field names are the words of the engine.

use crate::gateway::Started;
use crate::view::ViewRow;
use endstate_events::{Json, Lane, SagaId};
use endstate_http::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// One saga.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(title = "Saga")]
pub struct SagaBody {
    /// Its id.
    #[schema(value_type = String, format = "uuid", example = "0199c1a2-7c00-8abc-9def-0123456789ab")]
    pub saga: SagaId,
    /// Its definition.
    #[schema(example = "flash_sale_order")]
    pub definition: String,
    /// The version it is pinned to.
    #[schema(example = 1)]
    pub definition_version: u32,
    /// Its business number.
    #[schema(example = "ORDER-20261122-000017")]
    pub number: String,
    /// Who may see and cancel it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// `live`, `test` or `load`.
    #[schema(value_type = String, example = "live")]
    pub lane: Lane,
    /// What the customer sees; named by the definition.
    #[schema(example = "awaiting_payment")]
    pub status: String,
    /// `running`, `waiting`, `compensating`, `reversing`, `parked` or `ended`.
    #[schema(example = "waiting")]
    pub phase: String,
    /// `completed`, `cancelled`, `reversed` or `forced`, once ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Why it was cancelled or reversed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The definition's `view`; a member that has no value yet is absent.
    #[schema(value_type = Object, example = json!({"total_minor": 19900, "paid_minor": 17900}))]
    pub view: Json,
    /// How often its row was written.
    #[schema(example = 4)]
    pub version: i64,
    /// When its start was queued.
    pub started_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

impl SagaBody {
    /// True once it has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.outcome.is_some()
    }
}

impl From<ViewRow> for SagaBody {
    fn from(row: ViewRow) -> Self {
        Self {
            saga: row.saga,
            definition: row.definition,
            definition_version: row.definition_version,
            number: row.number,
            owner: row.owner,
            lane: row.lane,
            status: row.status,
            phase: row.phase,
            outcome: row.outcome,
            reason: row.reason,
            view: row.view,
            version: row.version,
            started_at: Timestamp(row.started_ms),
            updated_at: Timestamp(row.updated_ms),
            ended_at: row.ended_ms.map(Timestamp),
        }
    }
}

/// A saga in detail: with its steps, and with the sagas that belong to it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(title = "SagaDetail")]
pub struct SagaDetail {
    /// The saga.
    #[serde(flatten)]
    pub saga: SagaBody,
    /// The sagas that late events, refunds or other definitions started for it.
    pub linked: Vec<Linked>,
}

/// A saga that belongs to another.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Linked {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub saga: SagaId,
    /// Its definition.
    #[schema(example = "refund_payment")]
    pub definition: String,
    /// Its number.
    #[schema(example = "alipay/2026112222001")]
    pub number: String,
    /// Its status.
    #[schema(example = "refunded")]
    pub status: String,
}

/// The answer to a start: what is known of the saga when the answer is due.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StartedBody {
    /// The saga; absent while its shard has not decided, because an earlier start may have the number. `Location` leads
    /// to it either way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub saga: Option<SagaId>,
    /// Its definition.
    #[schema(example = "flash_sale_order")]
    pub definition: String,
    /// Its number.
    #[schema(example = "ORDER-20261122-000017")]
    pub number: String,
    /// What the customer sees; absent while the shard has not decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "awaiting_payment")]
    pub status: Option<String>,
    /// The phase, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "waiting")]
    pub phase: Option<String>,
    /// The outcome, once ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// One page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T: ToSchema> {
    /// The entries.
    pub items: Vec<T>,
    /// Pass as `cursor` to get what follows; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How far the list may be behind the sagas themselves, in milliseconds: those that this process decides. Absent when
    /// other processes decide all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<i64>,
}

/// One event in the life of a saga.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TimelineEntry {
    /// The saga's version after it; several events can share one.
    #[schema(example = 2)]
    pub version: i64,
    /// When.
    pub at: Timestamp,
    /// What: the event's name.
    #[schema(example = "stage_entered")]
    pub event: String,
    /// Its members.
    #[schema(value_type = Object)]
    pub data: Json,
}

/// A status change, for other teams.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Change {
    /// The saga.
    #[schema(value_type = String, format = "uuid")]
    pub saga: SagaId,
    /// Its definition.
    #[schema(example = "flash_sale_order")]
    pub definition: String,
    /// Its number.
    pub number: String,
    /// Its version; (saga, version) identifies the change.
    pub version: i64,
    /// The new status.
    #[schema(example = "paid")]
    pub status: String,
    /// `completed`, `cancelled`, `reversed` or `forced`, once ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// A loaded definition.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DefinitionBody {
    /// Its name.
    #[schema(example = "flash_sale_order")]
    pub name: String,
    /// Its version.
    #[schema(example = 1)]
    pub version: u32,
    /// SHA-256 of its text.
    pub sha256: String,
    /// True for the version that new sagas get.
    pub active: bool,
}

/// An event that is queued, durably.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Accepted {
    /// Id of the input; a repeat with the same `Idempotency-Key` changes nothing.
    pub input: String,
    /// The saga.
    #[schema(value_type = String, format = "uuid")]
    pub saga: SagaId,
}

/// What became of a cancel or an operator's action, and how its saga stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Acted {
    /// `accepted`: the saga took it. `queued`: it is durable, and the saga has not decided yet.
    #[schema(example = "accepted")]
    pub answer: &'static str,
    /// Id of the input.
    pub input: String,
    /// The saga.
    #[schema(value_type = String, format = "uuid")]
    pub saga: SagaId,
    /// Its definition.
    #[schema(example = "flash_sale_order")]
    pub definition: String,
    /// Its number.
    #[schema(example = "ORDER-20261122-000017")]
    pub number: String,
    /// What the customer sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "closed")]
    pub status: Option<String>,
    /// Its phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "compensating")]
    pub phase: Option<String>,
    /// Its outcome, once ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// The answer to a wake.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Woken {
    /// How many parked sagas got the input.
    #[schema(example = 12)]
    pub sagas: usize,
    /// How many of them took it: they were parked on this step.
    #[schema(example = 11)]
    pub woken: usize,
    /// How many did not: they are parked elsewhere, or no longer.
    #[schema(example = 1)]
    pub untouched: usize,
    /// How many have not decided yet.
    #[schema(example = 0)]
    pub undecided: usize,
    /// True when there are more; call again.
    pub more: bool,
}

/// The answer to an event of another team.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Received {
    /// The sagas it started, if it went to none that exists.
    pub started: Vec<StartedBody>,
}

impl StartedBody {
    /// What is known of a start.
    #[must_use]
    pub fn new(definition: &str, started: &Started) -> Self {
        let notice = &started.notice;
        Self {
            saga: started.saga,
            definition: definition.to_owned(),
            number: started.number.clone(),
            status: notice.status.as_deref().map(str::to_owned),
            phase: notice.phase.map(|phase| phase.label().to_owned()),
            outcome: notice.outcome.map(|outcome| outcome.label().to_owned()),
        }
    }
}
