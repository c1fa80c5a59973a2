//! The HTTP API over a real embedded store, with both sides' shards running.
//!
//! - [`flow`]: orders and sagas from start to end
//! - [`access`]: who may call what
//! - [`events`]: events that others send
//! - [`elsewhere`]: definitions of other processes
//! - [`operators`]: dead letters sent again, jobs by hand
//! - [`lanes`]: test and load traffic beside live traffic
//! - [`refunds`]: refunds of lines
//! - [`hostile`]: input that strangers send
//! - [`description`]: the committed description is the one the code gives

mod access;
mod description;
mod elsewhere;
mod events;
mod flow;
mod hostile;
mod lanes;
mod operators;
mod refunds;
mod settled;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode};
use endstate_events::{Command, Lane, Side, Verdict};
use endstate_http::auth::Identity;
use endstate_http::guard::{Drain, Limits};
use endstate_http::scope::Scopes;
use endstate_http::{Scope, Tokens};
use endstate_orchestrator::definitions::Definitions;
use endstate_orchestrator::gateway::Gateway;
use endstate_orchestrator::handler::{Listeners, SagaHandler};
use endstate_orchestrator::job::{Entry, Jobs};
use endstate_orchestrator::orphan::Orphans;
use endstate_orchestrator::sweep::Sweep;
use endstate_orchestrator::view::Projector;
use endstate_orchestrator::waiters::Waiters;
use endstate_orchestrator::{http, view};
use endstate_outbox::{Bus, Census, Clock, Shard, ShardId, SqliteStore, Store, SystemClock};
use endstate_participants::caller::{Caller, Directory, Outside};
use endstate_participants::handler::{HANDED_OVER, Participants, Settings};
use endstate_participants::http::{self as participants_http, Provider};
use endstate_saga::definition::shipped;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;

/// What the simulated provider signs with in these tests.
const SECRET: &[u8] = b"provider-secret";

const HOUR_MS: i64 = 3_600_000;

/// One running system without a socket.
struct Server {
    router: Router,
    store: Arc<SqliteStore>,
    definitions: Arc<Definitions>,
    waiters: Arc<Waiters>,
    shards: Census,
    tokens: Arc<Tokens>,
    drain: Drain,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    /// The problem's code, and that it is one.
    fn code(&self) -> &str {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.body);
        assert_eq!(self.body["status"], self.status.as_u16());
        self.body["code"].as_str().unwrap()
    }
}

/// All routes, as the program joins them.
fn routes(
    store: &Arc<SqliteStore>,
    gateway: Gateway,
    tokens: Arc<Tokens>,
    drain: &Drain,
    shards: Census,
) -> OpenApiRouter {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let bus: Arc<dyn Bus> = store.bus();
    let providers = [("simpay".to_owned(), Provider { secret: SECRET.into(), window_ms: 300_000 })].into();
    let participants = participants_http::Api {
        store: store.clone(),
        bus,
        clock,
        providers: Arc::new(providers),
        drain: drain.clone(),
    };
    let api = http::Parts {
        gateway: gateway.clone(),
        tokens,
        drain: drain.clone(),
        jobs: jobs(store, gateway),
        shards,
        view_lag: None,
        tellers: Vec::new(),
        metrics: Arc::new(String::new),
    };
    http::routes(api).merge(participants_http::routes(participants))
}

/// The scheduled jobs, without a clock.
fn jobs(store: &Arc<SqliteStore>, gateway: Gateway) -> Arc<Jobs> {
    let entry = |job| Entry { schedule: "0 * * * * *".to_owned(), job };
    let sweep = Sweep::new(gateway.clone(), 60_000, 100);
    let timetable = vec![entry(Arc::new(sweep)), entry(Arc::new(Orphans::new(gateway)))];
    Arc::new(Jobs::new(store.clone(), Arc::new(SystemClock), uuid::Uuid::new_v4(), timetable))
}

impl Server {
    async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        Self::new(limits, |gateway| gateway).await.running()
    }

    /// One whose gateway has little patience with shards.
    async fn deciding_within(decision: std::time::Duration) -> Self {
        Self::new(Limits::default(), |gateway| gateway.deciding_within(decision)).await.running()
    }

    /// One whose shards do not run yet.
    async fn asleep() -> Self {
        Self::new(Limits::default(), |gateway| gateway).await
    }

    fn running(self) -> Self {
        run_shards(&self.store, &self.definitions, self.waiters.clone(), &self.shards, &self.stop);
        self
    }

    async fn new(limits: Limits, settle: impl FnOnce(Gateway) -> Gateway) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).await.unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let definitions = Definitions::open(store.clone()).await.unwrap();
        for source in shipped() {
            definitions.load(&source, clock.now_ms()).await.unwrap();
        }
        let waiters = Arc::new(Waiters::default());
        let bus: Arc<dyn Bus> = store.bus();
        let gateway = settle(Gateway::new(store.clone(), bus, clock.clone(), definitions.clone(), waiters.clone()));
        let stop = CancellationToken::new();
        let render: Arc<dyn view::Render> = definitions.clone();
        let projector = Projector::open(store.clone(), render, clock.clone()).await.unwrap();
        tokio::spawn(projector.run(stop.clone()));
        let tokens = Arc::new(Tokens::load(store.clone()).await.unwrap());
        let drain = Drain::default();
        let shards = Census::of(2 * usize::from(store.partitions()));
        let routes = routes(&store, gateway, tokens.clone(), &drain, shards.clone());
        let router = http::serve(routes, Identity { tokens: tokens.clone(), clock }, limits);
        Self { router, store, definitions, waiters, shards, tokens, drain, stop, _folder: folder }
    }

    async fn token(&self, subject: &str, scopes: impl IntoIterator<Item = Scope>) -> String {
        let scopes: Scopes = scopes.into_iter().collect();
        self.tokens.create(subject, scopes, HOUR_MS, SystemClock.now_ms()).await.unwrap().secret
    }

    async fn send(&self, mut request: Request<Body>) -> Answer {
        let peer: SocketAddr = ([127, 0, 0, 1], 4_000).into();
        request.extensions_mut().get_or_insert_with(|| ConnectInfo(peer));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &[], body).await
    }

    async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut request = Request::post(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn until(&self, path: &str, fits: impl Fn(&Answer) -> bool) -> Answer {
        until(path, async || self.get(path).await, fits).await
    }
}

/// Asks again until the answer fits; for what follows by itself (the view, participants).
async fn until(path: &str, get: impl AsyncFn() -> Answer, fits: impl Fn(&Answer) -> bool) -> Answer {
    for _ in 0..500 {
        let answer = get().await;
        if fits(&answer) {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let last = get().await;
    panic!("{path} never fits: {} {}", last.status, last.body);
}

fn run_shards(
    store: &Arc<SqliteStore>,
    definitions: &Arc<Definitions>,
    waiters: Arc<Waiters>,
    census: &Census,
    stop: &CancellationToken,
) {
    let (caller, calls) = tokio::sync::mpsc::channel(HANDED_OVER);
    let listeners = Listeners { waiters };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for index in 0..store.partitions() {
        let sagas = SagaHandler::new(store.clone(), definitions.clone(), listeners.clone(), 1_000);
        let id = |side| ShardId { side, index };
        let shard = Shard::new(id(Side::Orchestrator), store.clone(), store.bus(), clock.clone(), sagas);
        tokio::spawn(shard.counted(census).run(stop.clone()));
        let participants = Participants::new(store.clone(), caller.clone(), Settings::default());
        let shard = Shard::new(id(Side::Participants), store.clone(), store.bus(), clock.clone(), participants);
        tokio::spawn(shard.counted(census).run(stop.clone()));
    }
    tokio::spawn(Caller::new(Arc::new(Obliging), store.bus(), clock, calls).run(stop.clone()));
}

/// Outside parties that do what they are told and were never paid.
struct Obliging;

impl Directory for Obliging {
    fn find(&self, _command: &Command) -> Option<Arc<dyn Outside>> {
        Some(Arc::new(Self))
    }
}

#[async_trait::async_trait]
impl Outside for Obliging {
    async fn make(&self, command: &Command, _lane: Lane) -> Verdict {
        let data = match command.action.as_str() {
            "open" => json!({"payment_no": "PAY-1", "pay_url": "https://pay.example/PAY-1"}),
            "close" => json!({"captures": []}),
            "ask" => json!({"captured": false, "captures": []}),
            "refund" => json!({"refund_no": "R-1", "amount_minor": command.with["amount_minor"]}),
            _ => json!({}),
        };
        Verdict::Done { data }
    }

    async fn ask(&self, _command: &Command, _lane: Lane) -> Verdict {
        Verdict::NeverSeen
    }
}

/// A server with five packs of tea on its shelf.
async fn with_tea() -> Server {
    let server = Server::start().await;
    let lines =
        json!([{"participant": "stock", "action": "open", "with": {"unit": "tea", "quantity": 5, "standby": false}}]);
    let opened = server.post("/v1/operations", &json!({"operation": "open-1", "lines": lines})).await;
    assert_eq!(opened.status, StatusCode::ACCEPTED, "{}", opened.body);
    server.until("/v1/operations/open-1", |answer| answer.body["items"][0]["verdict"] == "done").await;
    server
}

fn bench(number: &str, fail_at: &str) -> Value {
    json!({"number": number, "fail_at": fail_at})
}

/// An order of one pack of tea; `due` decides whether it must be paid.
fn order(number: &str, user: &str, due: i64) -> Value {
    json!({
        "order_no": number, "user_id": user, "activity_id": "sale-1", "store": "flagship", "currency": "CNY",
        "total_minor": 1_000 + due, "discount_minor": 1_000, "points": 0, "stock_strategy": "reserve",
        "pay_within_s": 600,
        "lines": [{"line_no": "1", "sku": "tea", "quantity": 1, "price_minor": 1_000 + due}],
    })
}
