//! Discrepancies: listed, and closed by a person with a reason.

use super::admin::id_cursor;
use super::model::Page;
use super::{Api, refuse};
use crate::discrepancy::{self, Discrepancy, STATES};
use axum::Json as Body;
use axum::extract::{Path, State};
use endstate_events::{Json, SagaId};
use endstate_http::guard::StrictJson;
use endstate_http::problem::ProblemBody;
use endstate_http::{Allowed, Code, Fields, Params, Problem, Timestamp, scope};
use serde::Serialize;
use utoipa::ToSchema;

/// Two books that differ.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DiscrepancyBody {
    /// Its id.
    pub id: i64,
    /// The saga concerned, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub saga: Option<SagaId>,
    /// What kind.
    #[schema(example = "not_undone")]
    pub kind: String,
    /// The effect concerned, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect_id: Option<String>,
    /// What differs.
    #[schema(value_type = Object)]
    pub detail: Json,
    /// `open`, `explained` or `fixed`.
    #[schema(example = "open")]
    pub state: String,
    /// When it was found.
    pub at: Timestamp,
    /// When it was closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Timestamp>,
    /// Who closed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_reason: Option<String>,
}

impl From<Discrepancy> for DiscrepancyBody {
    fn from(found: Discrepancy) -> Self {
        let (closed_by, close_reason) = found.closed.unzip();
        Self {
            id: found.id,
            saga: found.saga,
            kind: found.kind,
            effect_id: found.effect_id,
            detail: serde_json::from_str(&found.detail).unwrap_or_else(|_| Json::from(found.detail.as_str())),
            state: found.state,
            at: Timestamp(found.time_ms),
            closed_at: found.closed_ms.map(Timestamp),
            closed_by,
            close_reason,
        }
    }
}

/// List discrepancies, oldest first.
#[utoipa::path(
    get, path = "/v1/discrepancies", operation_id = "listDiscrepancies", tag = "system",
    params(
        ("state" = Option<String>, Query, description = "open, explained or fixed"),
        ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query),
    ),
    responses((status = 200, description = "A page", body = Page<DiscrepancyBody>)),
    security(("token" = ["ledger:read"]))
)]
pub async fn list(
    State(api): State<Api>,
    _allowed: Allowed<scope::LedgerRead>,
    mut params: Params,
) -> Result<Body<Page<DiscrepancyBody>>, Problem> {
    let state = params.one_of("state", &["open", "explained", "fixed"])?;
    let limit = params.integer("limit", 1..=200)?.unwrap_or(50);
    let after = id_cursor(&mut params)?.unwrap_or(0);
    params.finish()?;
    let found = discrepancy::list(&**api.gateway.store(), state.as_deref(), after, limit).await;
    let items: Vec<DiscrepancyBody> = found.map_err(refuse::store)?.into_iter().map(DiscrepancyBody::from).collect();
    let next = items.last().filter(|_| items.len() as i64 == limit).map(|last| last.id.to_string());
    Ok(Body(Page { items, next, lag_ms: None }))
}

/// The body of a closing.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the body; `Fields` reads it")]
pub struct CloseCall {
    /// `explained`: the books are right as they are. `fixed`: something was done outside of the saga.
    #[schema(example = "fixed")]
    state: String,
    /// Why.
    #[schema(example = "refunded by hand, ticket 4711")]
    reason: String,
}

/// Close a discrepancy.
///
/// Who and why stays with it. Sent again with the same state and reason, it answers the same and changes nothing; a closed
/// one is not closed in another way.
#[utoipa::path(
    post, path = "/v1/discrepancies/{id}/close", operation_id = "closeDiscrepancy", tag = "operators",
    params(("id" = i64, Path)),
    request_body = CloseCall,
    responses(
        (status = 200, description = "Closed", body = DiscrepancyBody),
        (status = 404, description = "E2209", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "E2320", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("token" = ["sagas:operate"]))
)]
pub async fn close(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::SagasOperate>,
    Path(id): Path<String>,
    StrictJson(body): StrictJson,
) -> Result<Body<DiscrepancyBody>, Problem> {
    let mut fields = Fields::of(body)?;
    let (state, reason) = (fields.text("state", 1..=20), fields.text("reason", 1..=500));
    fields.finish()?;
    if !STATES.contains(&state.as_str()) {
        return Err(Problem::field(Code::InvalidFields, "/state", format!("expected one of {}", STATES.join(", "))));
    }
    let id = id.parse().map_err(|_| Problem::new(Code::UnknownDiscrepancy, "ids of discrepancies are numbers"))?;
    let (store, now_ms) = (api.gateway.store(), api.gateway.clock().now_ms());
    let closed = discrepancy::close(&**store, id, &state, &caller.subject, &reason, now_ms).await;
    Ok(Body(closed.map_err(refuse::close)?.into()))
}
