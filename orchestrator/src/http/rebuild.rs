//! The view anew, by hand.

use super::{Api, refuse};
use crate::view::projector::ProjectError;
use crate::view::rebuild::{self, Mark};
use axum::Json as Body;
use axum::extract::State;
use endstate_http::guard::StrictJson;
use endstate_http::problem::ProblemBody;
use endstate_http::{Allowed, Code, Fields, Problem, Timestamp, scope};
use serde::Serialize;
use std::time::{Duration, Instant};
use utoipa::ToSchema;

/// How long a call goes on before it answers with where the next one begins.
const CALL: Duration = Duration::from_secs(1);

/// The body of a rebuild.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the body; `Fields` reads it")]
pub struct RebuildCall {
    /// Why; it stands in the log.
    #[schema(example = "OPS-1234: after the fix of the search attributes")]
    reason: String,
    /// `next` of the call before; left out, it begins.
    after: Option<String>,
}

/// What a call of a rebuild did.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Rebuilt {
    /// Sagas that were drawn.
    #[schema(example = 5000)]
    pub drawn: usize,
    /// Sagas that could not be drawn; they are tried again by themselves.
    #[schema(example = 0)]
    pub undrawn: usize,
    /// Rows and search attributes that belonged to no saga, and were removed.
    #[schema(example = 0)]
    pub removed: usize,
    /// What it goes through at present: `sagas`, then `rows`, then `search`.
    #[schema(example = "sagas")]
    pub stage: &'static str,
    /// While it goes through sagas, oldest first: those that began up to then are drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub through: Option<Timestamp>,
    /// Where the next call begins; absent when all is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Write the view anew from the sagas, for about a second.
///
/// Call it again with `next` until there is none. Lists stay whole meanwhile, sagas go on, and any number of processes may
/// follow them beside it. It can be stopped, gone on with, and repeated.
#[utoipa::path(
    post, path = "/v1/view/rebuild", operation_id = "rebuildView", tag = "operators",
    request_body = RebuildCall,
    responses(
        (status = 200, description = "What it did, and where the next call begins", body = Rebuilt),
        (status = 422, description = "E2002: `after` is none of ours", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("token" = ["sagas:operate"]))
)]
pub async fn rebuild(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::SagasOperate>,
    StrictJson(body): StrictJson,
) -> Result<Body<Rebuilt>, Problem> {
    let mut fields = Fields::of(body)?;
    let reason = fields.text("reason", super::act::REASON);
    let after = fields.optional_text("after", 1..=4_000);
    fields.finish()?;
    let mut mark = match &after {
        None => {
            tracing::info!(by = caller.subject, reason, "the view is rebuilt");
            Mark::beginning()
        }
        Some(text) => Mark::of_text(text).ok_or_else(|| {
            Problem::field(Code::InvalidFields, "/after", "expected `next` of the call before".to_owned())
        })?,
    };
    let (store, definitions) = (api.gateway.store(), api.gateway.definitions());
    let begun = Instant::now();
    let (mut drawn, mut undrawn, mut removed) = (0, 0, 0);
    let next = loop {
        let page =
            rebuild::page(&**store, &**definitions, &mark, api.gateway.clock().now_ms()).await.map_err(failed)?;
        drawn += page.drawn;
        undrawn += page.undrawn;
        removed += page.removed;
        let Some(next) = page.next else { break None };
        mark = next;
        if begun.elapsed() >= CALL {
            break Some(mark.to_text());
        }
    };
    Ok(Body(Rebuilt { drawn, undrawn, removed, stage: mark.stage(), through: mark.through_ms().map(Timestamp), next }))
}

fn failed(error: ProjectError) -> Problem {
    match error {
        ProjectError::Read(error) => refuse::store(error),
        ProjectError::Write(error) => refuse::commit(error),
    }
}
