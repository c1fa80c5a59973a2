//! The HTTP side of participants: callbacks of payment providers, operators' changes in bulk, the books.

use crate::books::{self, Book};
use crate::operation::{self, Line, LineError};
use crate::provider::{CallbackError, verify_callback};
use axum::Json as Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use endstate_events::{Json, Lane};
use endstate_http::guard::{Drain, Raw};
use endstate_http::problem::ProblemBody;
use endstate_http::{Allowed, Code, Fields, Problem, headers, scope, strict_json};
use endstate_outbox::{Bus, BusError, Clock, Kind, Metric, Rows, Statement, Store, StoreError};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Most lines of one call; larger files go in parts.
const LINES: usize = 20_000;
/// Largest body of such a call.
const BODY_BYTES: usize = 8 * 1024 * 1024;

/// How a provider's callbacks are verified.
#[derive(Clone)]
pub struct Provider {
    /// What it signs with.
    pub secret: Arc<[u8]>,
    /// How old a signature may be, and how far ahead.
    pub window_ms: i64,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("window_ms", &self.window_ms).finish_non_exhaustive()
    }
}

/// What the routes work with.
#[derive(Clone)]
pub struct Api {
    /// The books and the record of operations.
    pub store: Arc<dyn Store>,
    /// Where commands and captures are queued.
    pub bus: Arc<dyn Bus>,
    /// Tells the time window of callbacks.
    pub clock: Arc<dyn Clock>,
    /// Providers by the name in their address.
    pub providers: Arc<BTreeMap<String, Provider>>,
    /// Set when the server should get no more work.
    pub drain: Drain,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("providers", &self.providers).finish_non_exhaustive()
    }
}

/// The routes of participants and the description of them.
#[must_use]
pub fn routes(api: Api) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(operate))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .routes(routes!(callback))
        .routes(routes!(operation_result))
        .routes(routes!(read_books))
        .with_state(api)
}

fn store(error: StoreError) -> Problem {
    tracing::error!(%error, "the store failed under a call");
    Problem::new(Code::StoreUnavailable, "send it again")
}

fn bus(error: BusError) -> Problem {
    match error {
        BusError::Refused(reason) => Problem::new(Code::InvalidFields, reason),
        BusError::Unacknowledged(reason) => {
            tracing::error!(reason, "a message was not acknowledged");
            Problem::new(Code::StoreUnavailable, "nobody knows whether it was queued: send it again")
        }
        BusError::Full(reason) => {
            tracing::warn!(reason, "E4023: a message was refused");
            Problem::new(Code::TooMuchWaits, "the message broker is away: send it again later")
        }
    }
}

/// Take a payment provider's callback (A5).
///
/// The signature over the raw bytes is checked first, then the time window; 200 means that the payment is queued
/// durably. The same payment may be told any number of times.
#[utoipa::path(
    post, path = "/v1/callbacks/{provider}", operation_id = "receiveCallback", tag = "participants",
    params(
        ("provider" = String, Path, example = "simpay"),
        ("provider-timestamp" = String, Header, description = "Time of signing, milliseconds since 1970"),
        ("provider-signature" = String, Header, description = "HMAC-SHA256 over `TIMESTAMP.BODY`, in hex"),
    ),
    request_body(content = Object, description = "What the provider sends", example = json!({"event_id": "E-1", "provider": "simpay", "provider_no": "P-1", "saga": "0199c1a2-7c00-8abc-9def-0123456789ab", "amount_minor": 17900, "currency": "CNY", "captured_ms": 1795312079123_i64})),
    responses(
        (status = 200, description = "Queued durably", body = String, content_type = "text/plain"),
        (status = 401, description = "E2401, E2402", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn callback(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Result<&'static str, Problem> {
    let unknown = || Problem::new(Code::UnknownProvider, "no provider of this name is configured");
    let provider = api.providers.get(&name).ok_or_else(unknown)?;
    let now_ms = api.clock.now_ms();
    let verified = verify_callback(&provider.secret, &headers, &body, now_ms, provider.window_ms);
    let result = verified.map_err(refused).and_then(|callback| {
        if callback.provider != name || callback.amount_minor.get() <= 0 {
            return Err(Problem::new(Code::CallbackUnreadable, "it names another provider, or no amount"));
        }
        Ok(callback.captured())
    });
    let label = result.as_ref().map_or_else(|problem| problem.code.label(), |_| "accepted");
    Metric::Callbacks.add(1, &[&name, label]);
    // The lane is the saga's own; an input's lane only says where it came from.
    let message = result?.message(Lane::default(), api.store.partitions(), now_ms);
    api.bus.produce(vec![message]).await.map_err(bus)?;
    Ok("success")
}

fn refused(error: CallbackError) -> Problem {
    let code = match error {
        CallbackError::Header(_) | CallbackError::Forged => Code::SignatureRefused,
        CallbackError::Stale => Code::CallbackStale,
        CallbackError::Malformed(_) => Code::CallbackUnreadable,
    };
    Problem::new(code, error.to_string())
}

/// The body of an operation.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the body; `Fields` reads it")]
pub struct OperationCall {
    /// The operation's id, chosen by the operator.
    #[schema(example = "opening-2026-11-22")]
    operation: String,
    /// At most 20,000.
    lines: Vec<OperationLine>,
}

/// One line of an operation.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the body; `Line` reads it")]
pub struct OperationLine {
    /// `stock`, `coupon` or `points`.
    #[schema(example = "stock")]
    participant: String,
    /// `open`, `adjust` or `void`.
    #[schema(example = "open")]
    action: String,
    /// What it takes.
    #[schema(value_type = Object, example = json!({"unit": "tea", "quantity": 500, "standby": false}))]
    with: Json,
}

/// An operation that was queued.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperationQueued {
    /// Its id.
    pub operation: String,
    /// How many lines.
    pub lines: usize,
}

/// Open or adjust stock, points and coupons in bulk (B9).
///
/// Send JSON, or NDJSON (one line an object) with the id in `Idempotency-Key`. The same id with the same lines changes
/// nothing; with other lines it is refused.
#[utoipa::path(
    post, path = "/v1/operations", operation_id = "operate", tag = "participants",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The operation's id; must equal `operation` in JSON"),
        ("Endstate-Lane" = Option<String>, Header, description = "`live` (default), `test` or `load`"),
    ),
    request_body(content((OperationCall = "application/json"), (String = "application/x-ndjson"))),
    responses(
        (status = 202, description = "Queued durably", body = OperationQueued),
        (status = 409, description = "E2310", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("token" = ["ledger:write"]))
)]
pub async fn operate(
    State(api): State<Api>,
    _allowed: Allowed<scope::LedgerWrite>,
    headers: HeaderMap,
    Raw(bytes): Raw,
) -> Result<(StatusCode, Body<OperationQueued>), Problem> {
    api.drain.admit()?;
    let (operation, lines) = read_operation(&headers, &bytes)?;
    let wrong = |error: LineError| {
        let (LineError::Unknown { line, .. } | LineError::Missing { line, .. }) = error;
        Problem::field(Code::InvalidFields, format!("/lines/{}", line - 1), error.to_string())
    };
    let lane = headers::lane(&headers)?.unwrap_or_default();
    let messages = operation::messages(&operation, &lines, lane, api.store.partitions(), api.clock.now_ms());
    let messages = messages.map_err(wrong)?;
    check_repeat(&*api.store, &operation, &lines).await?;
    api.bus.produce(messages).await.map_err(bus)?;
    Ok((StatusCode::ACCEPTED, Body(OperationQueued { operation, lines: lines.len() })))
}

fn read_operation(headers: &HeaderMap, bytes: &[u8]) -> Result<(String, Vec<Line>), Problem> {
    let key = headers::idempotency_key(headers)?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (operation, lines) = match kind.split(';').next().unwrap_or_default().trim() {
        "application/json" => {
            let mut fields = Fields::of(strict_json::parse(bytes)?)?;
            let (operation, lines) = (fields.text("operation", 1..=128), fields.json("lines"));
            fields.finish()?;
            let Json::Array(lines) = lines else {
                return Err(Problem::field(Code::InvalidFields, "/lines", "expected a list"));
            };
            if key.is_some_and(|key| key != operation) {
                return Err(Problem::new(Code::KeyNotNumber, "Idempotency-Key is not the operation's id"));
            }
            (operation, lines)
        }
        "application/x-ndjson" => {
            let missing = || Problem::new(Code::InvalidHeader, "Idempotency-Key: send the operation's id in it");
            let texts = bytes.split(|byte| *byte == b'\n').filter(|text| !text.trim_ascii().is_empty());
            (key.ok_or_else(missing)?, texts.map(strict_json::parse).collect::<Result<Vec<_>, _>>()?)
        }
        _ => return Err(Problem::new(Code::UnsupportedMedia, "send application/json or application/x-ndjson")),
    };
    if lines.is_empty() || lines.len() > LINES {
        return Err(Problem::field(Code::InvalidFields, "/lines", format!("expected 1 to {LINES} lines")));
    }
    let line = |(index, line): (usize, Json)| {
        let wrong = |error| Problem::field(Code::InvalidFields, format!("/lines/{index}"), format!("{error}"));
        serde_json::from_value::<Line>(line).map_err(|error: serde_json::Error| wrong(error))
    };
    Ok((operation, lines.into_iter().enumerate().map(line).collect::<Result<_, _>>()?))
}

static OPERATION: Statement = Statement {
    name: "operation.read",
    columns: &[Kind::Text],
    sql: "with r(operation) as ({rows}) select o.line, o.action, o.with_json, o.verdict, o.verdict_json \
          from r cross join operation o where o.operation = r.operation order by o.line",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&OPERATION];

/// What one line asked for and what came of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineResult {
    /// Counted from 1.
    #[schema(example = 1)]
    pub line: i64,
    /// PARTICIPANT.ACTION
    #[schema(example = "stock.open")]
    pub action: String,
    /// What it took.
    #[schema(value_type = Object)]
    pub with: Json,
    /// `done`, `refused`, or `unknown`: nothing was changed, and sent again under its id the line is tried again.
    #[schema(example = "done")]
    pub verdict: String,
    /// The data, the refusal's code, or why nobody can tell.
    #[schema(value_type = Object)]
    pub result: Json,
}

/// The lines of an operation that were decided.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperationResult {
    /// The lines, in order.
    pub items: Vec<LineResult>,
}

async fn results(store: &dyn Store, operation: &str) -> Result<Vec<LineResult>, StoreError> {
    let rows = store.read(&OPERATION, Rows::one([operation.into()])).await?;
    let json = |text: Option<&str>| text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Json::Null);
    let result = |row: &endstate_outbox::Row| {
        let [line, action, with, verdict, result] = row.as_slice() else { return None };
        Some(LineResult {
            line: line.int()?,
            action: action.text()?.to_owned(),
            with: json(with.text()),
            verdict: verdict.text()?.to_owned(),
            result: json(result.text()),
        })
    };
    Ok(rows.iter().filter_map(result).collect())
}

/// The same id with other lines is another operation, and is refused as far as the first one was decided. (Lines that
/// are still queued are protected by their effect ids: the first to arrive counts, the other is refused.)
async fn check_repeat(store_: &dyn Store, operation: &str, lines: &[Line]) -> Result<(), Problem> {
    for known in results(store_, operation).await.map_err(store)? {
        let line = usize::try_from(known.line - 1).ok().and_then(|index| lines.get(index));
        let same = line.is_some_and(|line| {
            known.action == format!("{}.{}", line.participant, line.action) && known.with == line.with
        });
        if !same {
            let detail = format!("line {} was another one when `{operation}` was first sent", known.line);
            return Err(Problem::new(Code::OperationTaken, detail));
        }
    }
    Ok(())
}

/// Show what came of an operation, line by line.
#[utoipa::path(
    get, path = "/v1/operations/{operation}", operation_id = "getOperation", tag = "participants",
    params(("operation" = String, Path, example = "opening-2026-11-22")),
    responses((status = 200, description = "The lines that were decided so far", body = OperationResult)),
    security(("token" = ["ledger:read"]))
)]
pub async fn operation_result(
    State(api): State<Api>,
    _allowed: Allowed<scope::LedgerRead>,
    Path(operation): Path<String>,
) -> Result<Body<OperationResult>, Problem> {
    Ok(Body(OperationResult { items: results(&*api.store, &operation).await.map_err(store)? }))
}

/// The books, by asset.
#[derive(Debug, Serialize, ToSchema)]
pub struct Books {
    /// One entry per asset.
    pub items: Vec<Book>,
}

/// Show the books: per asset, what all accounts and tokens add up to.
#[utoipa::path(
    get, path = "/v1/books", operation_id = "getBooks", tag = "participants",
    responses((status = 200, description = "All assets", body = Books)),
    security(("token" = ["ledger:read"]))
)]
pub async fn read_books(State(api): State<Api>, _allowed: Allowed<scope::LedgerRead>) -> Result<Body<Books>, Problem> {
    Ok(Body(Books { items: books::read(&*api.store).await.map_err(store)? }))
}
