//! For machines that watch: alive, ready, started, metrics; and the pages of error codes and alerts.

use super::Api;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use endstate_http::{Allowed, Code, Params, Problem, pages, scope};
use endstate_outbox::{Kind, Rows, Statement};
use std::sync::Arc;
use std::time::Duration;

static PING: Statement =
    Statement { name: "api.ping", columns: &[Kind::Int], sql: "with r(one) as ({rows}) select one from r" };

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&PING];

const MARKDOWN: &str = "text/markdown; charset=utf-8";

/// A store slower than this is not ready.
const PATIENCE: Duration = Duration::from_secs(2);

/// Is the process alive? Asks nothing else, so that a slow store never gets it killed.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "system",
    responses((status = 200, description = "Alive", body = String)))]
pub async fn livez() -> &'static str {
    "ok\n"
}

/// Should it get calls? Not while one of its shards is not assigned, while it drains, or its store does not answer. While
/// the message broker is away, shards are not assigned, and calls are taken all the same.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "system",
    params(("verbose" = Option<String>, Query, description = "Show every check")),
    responses((status = 200, description = "Ready", body = String), (status = 503, description = "Not ready", body = String)))]
pub async fn readyz(State(api): State<Api>, mut params: Params) -> Result<Response, Problem> {
    let verbose = params.flag("verbose")?;
    params.finish()?;
    let ping = api.gateway.store().read(&PING, Rows::one([1.into()]));
    let store = matches!(tokio::time::timeout(PATIENCE, ping).await, Ok(Ok(_)));
    let shards = api.shards.is_complete() || api.gateway.bus().is_spilling_any();
    let checks = [("shards assigned", shards), ("not draining", !api.drain.started()), ("store", store)];
    let ready = checks.iter().all(|(_, fine)| *fine);
    let mut text = String::new();
    if verbose {
        for (name, fine) in checks {
            text.push_str(&format!("{} {name}\n", if fine { "ok  " } else { "FAIL" }));
        }
        let (assigned, expected) = api.shards.count();
        let view = api.lag_ms().map_or_else(String::new, |lag_ms| format!("; view behind by {lag_ms} ms"));
        text.push_str(&format!("{assigned} of {expected} shards assigned{view}\n"));
    } else {
        text.push_str(if ready { "ok\n" } else { "not ready; see /readyz?verbose\n" });
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, text).into_response())
}

/// Has it started: was every shard assigned, and has thereby taken up what the process before left?
#[utoipa::path(get, path = "/startupz", operation_id = "startupz", tag = "system",
    responses((status = 200, description = "Started", body = String), (status = 503, description = "Not yet", body = String)))]
pub async fn startupz(State(api): State<Api>) -> Response {
    let (assigned, expected) = api.shards.count();
    match api.shards.was_complete() {
        true => "ok\n".into_response(),
        false => {
            let text = format!("starting: {assigned} of {expected} shards assigned\n");
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "system",
    responses((status = 200, description = "Metrics", body = String)), security(("token" = ["audit:read"])))]
pub async fn metrics(State(api): State<Api>, _allowed: Allowed<scope::AuditRead>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (api.metrics)()).into_response()
}

/// The page of an error code: cause and cure. Every code that the program prints has one.
#[utoipa::path(get, path = "/errors/{code}", operation_id = "getErrorPage", tag = "system",
    params(("code" = String, Path, example = "E2001")),
    responses((status = 200, description = "Markdown", body = String)))]
pub async fn error_page(Path(code): Path<String>) -> Result<Response, Problem> {
    let page = pages::find(&code);
    let page = page.ok_or_else(|| Problem::new(Code::UnknownRoute, "there is no page of this code here"))?;
    Ok(([(header::CONTENT_TYPE, MARKDOWN)], page).into_response())
}

/// The index of all error codes.
#[utoipa::path(get, path = "/errors", operation_id = "listErrorPages", tag = "system",
    responses((status = 200, description = "Markdown", body = String)))]
pub async fn error_index() -> Response {
    ([(header::CONTENT_TYPE, MARKDOWN)], pages::index()).into_response()
}

/// The page of an alert: meaning, impact, diagnosis, mitigation. Prometheus' rules link it.
#[utoipa::path(get, path = "/runbook/{alert}", operation_id = "getRunbookPage", tag = "system",
    params(("alert" = String, Path, example = "SagasParked")),
    responses((status = 200, description = "Markdown", body = String)))]
pub async fn runbook_page(Path(alert): Path<String>) -> Result<Response, Problem> {
    let page = pages::find_alert(&alert);
    let page = page.ok_or_else(|| Problem::new(Code::UnknownRoute, "there is no page of this alert here"))?;
    Ok(([(header::CONTENT_TYPE, MARKDOWN)], page).into_response())
}

/// The index of all alerts.
#[utoipa::path(get, path = "/runbook", operation_id = "listRunbookPages", tag = "system",
    responses((status = 200, description = "Markdown", body = String)))]
pub async fn runbook_index() -> Response {
    ([(header::CONTENT_TYPE, MARKDOWN)], pages::runbook()).into_response()
}

/// The API's description.
pub(super) async fn description(text: Arc<str>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}
