//! Starts. The business number is the idempotency key: a repeat gets the first saga.

use super::model::StartedBody;
use super::{Api, read, refuse, show};
use crate::gateway::{GatewayError, StartOptions, Started};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use endstate_events::{Json, Lane};
use endstate_http::guard::StrictJson;
use endstate_http::problem::ProblemBody;
use endstate_http::{Allowed, Caller, Code, Problem, Scope, headers, scope};
use endstate_saga::definition::{Definition, Starter};
use utoipa::{IntoParams, IntoResponses, ToSchema};

/// The definition behind `/v1/orders`.
pub const ORDER: &str = "flash_sale_order";

/// The headers of a start.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents the headers; `headers` reads them")]
pub struct StartHeaders {
    /// `wait=N`: seconds to wait for the end, at most 30
    #[param(rename = "Prefer", required = false, example = "wait=10")]
    prefer: Option<String>,
    /// If given, it must equal the number
    #[param(rename = "Idempotency-Key", required = false)]
    idempotency_key: Option<String>,
    /// `live`, `test` or `load`; others than `live` need more than `orders:own`. Without it, the lane of the order that the
    /// start belongs to, else `live`
    #[param(rename = "Endstate-Lane", required = false)]
    lane: Option<String>,
}

/// The definition's input; the example is an order.
#[derive(Debug, ToSchema)]
#[schema(
    value_type = Object,
    example = json!({"order_no": "ORDER-17", "user_id": "u-1", "activity_id": "sale-1", "store": "flagship", "currency": "CNY", "total_minor": 19900, "discount_minor": 2000, "points": 0, "stock_strategy": "reserve", "pay_within_s": 1800, "lines": [{"line_no": "1", "sku": "tea", "quantity": 1, "price_minor": 19900}]})
)]
#[expect(dead_code, reason = "documents the body; the definition's schema checks it")]
pub struct StartInput(Json);

/// What a start is answered with.
#[derive(Debug, IntoResponses)]
pub enum StartAnswers {
    /// It has ended.
    #[response(status = 200)]
    Ended(StartedBody),
    /// It is queued durably; `Location` leads to it. Without `saga` its shard has not decided within 5 seconds.
    #[response(status = 202)]
    Queued(StartedBody),
    /// E2301, E2319
    #[response(status = 409, content_type = "application/problem+json")]
    Taken(ProblemBody<'static>),
    /// E2302
    #[response(status = 422, content_type = "application/problem+json")]
    Unfit(ProblemBody<'static>),
}

/// Start a saga.
///
/// The definition's `started_by` says who may: `owner` takes `orders:own` for oneself, or `orders:write`; `service` takes
/// `orders:write`; `link` takes `sagas:operate`, because other sagas start these.
///
/// The number comes from the input, by the definition's own expression, and is the idempotency key: the same number with
/// the same body answers with the first saga and `Idempotent-Replayed: true`; with another body it is refused. The answer
/// is 202 once the start is queued durably, or 200 when the saga ended within `Prefer: wait=N`.
#[utoipa::path(
    post, path = "/v1/sagas/{definition}", operation_id = "startSaga", tag = "sagas",
    params(
        ("definition" = String, Path, description = "Name of the definition", example = "flash_sale_order"),
        StartHeaders,
    ),
    request_body = StartInput,
    responses(StartAnswers),
    security(("token" = ["orders:write"]), ("token" = ["orders:own"]), ("token" = ["sagas:operate"]))
)]
pub async fn start(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::StartAny>,
    Path(definition): Path<String>,
    headers: HeaderMap,
    StrictJson(input): StrictJson,
) -> Result<Response, Problem> {
    begin(&api, &caller, &definition, &headers, input).await
}

/// Start an order: `POST /v1/sagas/flash_sale_order` under a friendly name.
#[utoipa::path(
    post, path = "/v1/orders", operation_id = "startOrder", tag = "orders",
    params(StartHeaders),
    request_body = StartInput,
    responses(StartAnswers),
    security(("token" = ["orders:write"]), ("token" = ["orders:own"]))
)]
pub async fn start_order(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::StartOrders>,
    headers: HeaderMap,
    StrictJson(input): StrictJson,
) -> Result<Response, Problem> {
    begin(&api, &caller, ORDER, &headers, input).await
}

async fn begin(
    api: &Api,
    caller: &Caller,
    definition: &str,
    headers: &HeaderMap,
    input: Json,
) -> Result<Response, Problem> {
    api.drain.admit()?;
    let wait = headers::wait(headers)?;
    let options = StartOptions {
        lane: lane(caller, headers)?,
        idempotency_key: headers::idempotency_key(headers)?,
        wait,
        version: Some(check_starter(api, caller, definition, &input).await?),
    };
    let started = api.gateway.start(definition, input, options).await;
    let started = started.map_err(|error| refuse::gateway(definition, error))?;
    let mut response = answer(definition, &started);
    if let Some(wait) = wait {
        response.headers_mut().insert(headers::PREFERENCE_APPLIED, headers::wait_applied(wait));
    }
    Ok(response)
}

/// Whether the definition lets this caller start it; the version that says so, which is the one to start.
async fn check_starter(api: &Api, caller: &Caller, definition: &str, input: &Json) -> Result<u32, Problem> {
    let active = api.gateway.definitions().wanted(definition, None).await.map_err(refuse::store)?;
    let unknown = || match api.gateway.definitions().active_version(definition) {
        Some(version) => read::unread(definition, version),
        None => refuse::gateway(definition, GatewayError::UnknownDefinition(definition.to_owned())),
    };
    let loaded = active.ok_or_else(unknown)?;
    match loaded.started_by() {
        Starter::Link => caller.need_any(&[Scope::SagasOperate])?,
        Starter::Owner if !caller.may(Scope::OrdersWrite) => check_owner(caller, &loaded, input)?,
        Starter::Owner | Starter::Service => caller.need_any(&[Scope::OrdersWrite])?,
    }
    Ok(loaded.version())
}

/// A customer starts only what they will own.
fn check_owner(caller: &Caller, definition: &Definition, input: &Json) -> Result<(), Problem> {
    caller.need_any(&[Scope::OrdersWrite, Scope::OrdersOwn])?;
    let identity = definition.identify(input, &Json::Null);
    let identity = identity.map_err(|error| Problem::new(Code::InputRefused, error.to_string()))?;
    if identity.owner.as_deref() == Some(&*caller.subject) {
        return Ok(());
    }
    Err(Problem::new(Code::ScopeMissing, "with orders:own, the owner must be the token's subject"))
}

/// The kind of traffic that is asked for. A customer's is live: test orders are no way to goods without money.
fn lane(caller: &Caller, headers: &HeaderMap) -> Result<Option<Lane>, Problem> {
    let lane = headers::lane(headers)?;
    if lane.is_some_and(|lane| lane != Lane::Live) {
        caller.need_any(&[Scope::OrdersWrite, Scope::SagasOperate])?;
    }
    Ok(lane)
}

fn answer(definition: &str, started: &Started) -> Response {
    let body = StartedBody::new(definition, started);
    let status = if started.notice.outcome.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let location = show::location(definition, &started.number);
    let mut response = (status, [(header::LOCATION, location)], axum::Json(body)).into_response();
    if started.replayed {
        response.headers_mut().insert(headers::IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}
