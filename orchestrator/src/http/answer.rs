//! Requests to a saga (cancels, operators' actions): queued like every input, then answered with what the saga said.

use super::model::Acted;
use super::{Api, refuse, show};
use crate::persist::Stored;
use axum::Json as Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use endstate_events::InputBody;
use endstate_http::problem::ProblemBody;
use endstate_http::{Problem, headers};
use tokio::time::Instant;
use utoipa::{IntoParams, IntoResponses};
use uuid::Uuid;

/// The address of one saga.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "documents the path; the handlers take it apart")]
pub struct SagaPath {
    /// Name of the definition.
    #[param(example = "flash_sale_order")]
    definition: String,
    /// The business number, percent-encoded.
    #[param(example = "ORDER-17")]
    number: String,
}

/// The headers of a request.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents the headers; `headers` reads them")]
pub struct RequestHeaders {
    /// `wait=N`: seconds, at most 30, to wait for the saga's decision and then until nothing more happens without
    /// somebody outside. Without it, the answer comes with the decision, or after 5 seconds.
    #[param(rename = "Prefer", required = false, example = "wait=10")]
    prefer: Option<String>,
    /// The request's identity: sent again with the same body, it is answered alike and does nothing more; with another
    /// body it is refused. Without it, a repeat is another request.
    #[param(rename = "Idempotency-Key", required = false)]
    idempotency_key: Option<String>,
}

/// What a request is answered with.
#[derive(Debug, IntoResponses)]
pub enum RequestAnswers {
    /// The saga took it.
    #[response(status = 200)]
    Accepted(Acted),
    /// Queued durably; the saga has not decided in time. `Location` leads to it, its timeline shows what came of it.
    #[response(status = 202)]
    Queued(Acted),
    /// E2202
    #[response(status = 404, content_type = "application/problem+json")]
    Unknown(ProblemBody<'static>),
    /// The saga refused it: E2304, E2312, E2313, E2314, E2315, E2316, E2321. `detail` has its reason, its status and its phase.
    #[response(status = 409, content_type = "application/problem+json")]
    Refused(ProblemBody<'static>),
}

/// The caller's key, or a fresh id: without a key, a repeat is another request.
fn input_id(headers: &HeaderMap) -> Result<String, Problem> {
    Ok(headers::idempotency_key(headers)?.unwrap_or_else(|| Uuid::new_v4().to_string()))
}

/// Queues a request and waits for what its saga says to it.
pub(super) async fn request(
    api: &Api,
    stored: &Stored,
    headers: &HeaderMap,
    body: InputBody,
) -> Result<Response, Problem> {
    let (wait, id, saga) = (headers::wait(headers)?, input_id(headers)?, &stored.saga);
    let until = Instant::now() + wait.unwrap_or_default();
    let asked = api.gateway.ask(saga.id, id.clone(), saga.lane, body, wait).await;
    let decided = asked.map_err(|error| refuse::gateway(&saga.definition, error))?;
    // Who asked for time also wants to know where the saga comes to rest; a refusal changed nothing.
    let rest = wait.filter(|_| decided == Some(Ok(()))).map(|_| until.saturating_duration_since(Instant::now()));
    let news = api.gateway.news(saga.id, rest).await.map_err(refuse::store)?;
    let location = show::location(&saga.definition, &saga.number);
    let (status, answer) = match decided {
        Some(Err(denied)) => return Err(refuse::denied(&denied, &news).at(location)),
        Some(Ok(())) => (StatusCode::OK, "accepted"),
        None => (StatusCode::ACCEPTED, "queued"),
    };
    let acted = Acted {
        answer,
        input: id,
        saga: saga.id,
        definition: saga.definition.to_string(),
        number: saga.number.to_string(),
        status: news.status.as_deref().map(str::to_owned),
        phase: news.phase.map(|phase| phase.label().to_owned()),
        outcome: news.outcome.map(|outcome| outcome.label().to_owned()),
    };
    let mut response = (status, [(header::LOCATION, location)], Body(acted)).into_response();
    if let Some(wait) = wait {
        response.headers_mut().insert(headers::PREFERENCE_APPLIED, headers::wait_applied(wait));
    }
    Ok(response)
}
