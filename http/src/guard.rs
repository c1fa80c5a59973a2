//! What stands around every route: a limit of calls at once, a time limit, panics turned into problems, and metrics.

use crate::{Code, Problem};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use endstate_events::Json;
use endstate_outbox::Metric;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

/// Limits of one server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest body in bytes, unless a route says otherwise.
    pub body_bytes: usize,
    /// Calls at once; one more is told to come back.
    pub calls: usize,
    /// Longest time of a call; above the longest wait that `Prefer` can ask for.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes: 256 * 1024, calls: 4_096, time: Duration::from_secs(45) }
    }
}

/// How a server stops: first it is no longer ready, so that load balancers look elsewhere while it still takes calls; then
/// it refuses new work and finishes what it has.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<AtomicU8>);

const NOT_READY: u8 = 1;
const CLOSED: u8 = 2;

impl Drain {
    /// No longer ready.
    pub fn start(&self) {
        self.0.fetch_max(NOT_READY, Ordering::AcqRel);
    }

    /// No new work.
    pub fn close(&self) {
        self.0.fetch_max(CLOSED, Ordering::AcqRel);
    }

    /// True once no longer ready.
    #[must_use]
    pub fn started(&self) -> bool {
        self.0.load(Ordering::Acquire) >= NOT_READY
    }

    /// Refuses new work once closed.
    pub fn admit(&self) -> Result<(), Problem> {
        match self.0.load(Ordering::Acquire) {
            CLOSED => Err(Problem::new(Code::Draining, "another server will take it")),
            _ => Ok(()),
        }
    }
}

#[derive(Clone)]
struct Guard {
    calls: Arc<Semaphore>,
    time: Duration,
}

/// Puts the guards around all routes of `router`.
pub fn guarded(router: Router, limits: Limits) -> Router {
    let guard = Guard { calls: Arc::new(Semaphore::new(limits.calls)), time: limits.time };
    router
        .fallback(|| async { Problem::new(Code::UnknownRoute, "see /openapi.json for what there is") })
        .method_not_allowed_fallback(|| async { Problem::new(Code::MethodNotAllowed, "see /openapi.json") })
        .layer(DefaultBodyLimit::max(limits.body_bytes))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(guard, limited))
        .layer(middleware::from_fn(measured))
}

async fn limited(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Ok(_permit) = guard.calls.try_acquire() else {
        return Problem::new(Code::Busy, "the limit of calls at once is reached").into_response();
    };
    match tokio::time::timeout(guard.time, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(Code::TimedOut, "send it again with the same number or key").into_response(),
    }
}

async fn measured(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = method_label(request.method());
    let began = Instant::now();
    let response = next.run(request).await;
    Metric::HttpRequests.add(1, &[&route, method, response.status().as_str()]);
    Metric::HttpDuration.time(began.elapsed(), &[&route, method]);
    response
}

/// A method may be any word a stranger likes; labels must stay few.
fn method_label(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        _ => "other",
    }
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
    Problem::internal(&words).into_response()
}

/// A body's bytes, whatever they are; too many are a problem, not a cut.
#[derive(Debug)]
pub struct Raw(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Bytes::from_request(request, state).await.map(Self).map_err(|error| match error.status().as_u16() {
            413 => Problem::new(Code::BodyTooLarge, "send less in one call"),
            _ => Problem::new(Code::MalformedJson, "the body broke off"),
        })
    }
}

/// A JSON body, read strictly.
#[derive(Debug)]
pub struct StrictJson(pub Json);

impl<S: Send + Sync> FromRequest<S> for StrictJson {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())) {
            return Err(Problem::new(Code::UnsupportedMedia, "send `Content-Type: application/json`"));
        }
        let Raw(bytes) = Raw::from_request(request, state).await?;
        crate::strict_json::parse(&bytes).map(Self)
    }
}

/// Asking for the type also keeps simple cross-site forms out.
fn is_json(content_type: Option<&str>) -> bool {
    let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}
