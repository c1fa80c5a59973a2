//! The simulated payment provider over real HTTP, and our client of it.

use crate::world::*;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use endstate_events::{Lane, MinorUnits, SagaId, Verdict};
use endstate_http::Trust;
use endstate_outbox::{Clock, SystemClock};
use endstate_participants::caller::Outside as _;
use endstate_participants::provider::*;
use endstate_participants::simulated::{Config, Entry, Pay, Simulated, read_file};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const SECRET: &[u8] = b"shared";

struct World {
    url: String,
    client: ProviderClient,
    callbacks: mpsc::UnboundedReceiver<Callback>,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl World {
    /// Starts a provider whose callbacks get `status`.
    async fn start(file: &Path, status: StatusCode, change: impl FnOnce(&mut Config)) -> Self {
        let (sender, callbacks) = mpsc::unbounded_channel();
        let sink = move |headers: HeaderMap, body: Bytes| {
            let now_ms = SystemClock.now_ms();
            let callback = verify_callback(SECRET, &headers, &body, now_ms, 60_000).expect("signed well");
            let sent = sender.send(callback);
            async move { if sent.is_ok() { status } else { StatusCode::GONE } }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let callback_url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(sink))).await });

        let mut config = Config::local(&callback_url, SECRET, file);
        change(&mut config);
        let provider = Simulated::bind(config, Arc::new(SystemClock)).await.unwrap();
        let url = format!("http://{}", provider.address());
        let client =
            ProviderClient::new(&url, SECRET, Duration::from_secs(5), Arc::new(SystemClock), &Trust::system()).unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn({
            let stop = stop.clone();
            async move { provider.serve(stop).await.unwrap() }
        });
        Self { url, client, callbacks, stop, serving }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }

    async fn pay(&self, saga: SagaId, pay: &Pay) -> (u16, Value) {
        let url = format!("{}/payments/{saga}/pay", self.url);
        let response = Trust::system().builder().build().unwrap().post(url).json(pay).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }
}

fn minor(amount: i64) -> MinorUnits {
    MinorUnits::new(amount).unwrap()
}

fn opening(n: u64) -> Opening {
    Opening { saga: saga(n), amount_minor: minor(100), currency: "CNY".into(), expires_in_s: 600 }
}

fn refund(no: &str, amount: i64) -> RefundOrder {
    RefundOrder { provider_no: no.into(), amount_minor: minor(amount), currency: "CNY".into() }
}

fn refused(code: &str) -> ProviderError {
    ProviderError::Refused { code: code.into(), detail: String::new() }
}

#[tokio::test]
async fn the_same_key_is_the_same_act_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("provider.ndjson");
    let mut world = World::start(&file, StatusCode::OK, |_| {}).await;
    let opened = world.client.open("key-1", &opening(1)).await.unwrap();
    assert_eq!(world.client.open("key-1", &opening(1)).await.unwrap(), opened);
    assert!(matches!(world.client.open("key-1", &opening(2)).await, Err(ProviderError::Unknown(_))), "another body");
    assert_eq!(world.client.open("key-2", &opening(1)).await, Err(refused("payment.rejected")));
    assert_eq!(world.pay(saga(1), &Pay::default()).await.0, 200);
    let callback = world.callbacks.recv().await.unwrap();
    assert_eq!((callback.provider_no.as_str(), callback.saga), ("P00000001", saga(1)));
    assert_eq!(world.pay(saga(1), &Pay::default()).await.1["payments"][0]["provider_no"], "P00000001");

    let back = world.client.refund("refund:1/a", &refund("P00000001", 60)).await.unwrap();
    assert_eq!(world.client.refund("refund:1/a", &refund("P00000001", 60)).await.unwrap(), back);
    assert_eq!(world.client.refund("r-2", &refund("P00000001", 41)).await, Err(refused("payment.exceeded")));
    assert_eq!(world.client.refund("r-3", &refund("P2", 1)).await, Err(refused("payment.unknown")));
    world.stop().await;

    let world = World::start(&file, StatusCode::OK, |_| {}).await;
    assert_eq!(world.client.refund("refund:1/a", &refund("P00000001", 60)).await.unwrap(), back);
    assert_eq!(world.client.find("refund:1/a").await.unwrap(), Some(json!(back)));
    assert_eq!(world.client.find("never").await.unwrap(), None);
    assert_eq!(world.client.captures(saga(1)).await.unwrap().len(), 1);
    let lines = read_file(&file).unwrap();
    let refunds = lines.iter().filter(|line| matches!(line.entry, Entry::Refunded { .. }));
    assert_eq!(refunds.count(), 1);
    world.stop().await;
}

#[tokio::test]
async fn pay_links_lead_to_where_buyers_reach_it() {
    let folder = tempfile::tempdir().unwrap();
    for (n, public, begins) in [(1, None, None), (2, Some("http://shop.test:7/p"), Some("http://shop.test:7/p/"))] {
        let file = folder.path().join(format!("{n}.ndjson"));
        let world = World::start(&file, StatusCode::OK, |config| config.public_url = public.map(str::to_owned)).await;
        let opened = world.client.open("key-1", &opening(n)).await.unwrap();
        let begins = begins.map_or_else(|| format!("{}/", world.url), str::to_owned);
        assert_eq!(opened.pay_url, format!("{begins}payments/{}/pay", opened.payment_no));
        world.stop().await;
    }
}

#[tokio::test]
async fn a_callback_comes_eight_times_and_payments_come_twice_or_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("provider.ndjson");
    let mut world = World::start(&file, StatusCode::OK, |_| {}).await;
    world.client.open("key-1", &opening(1)).await.unwrap();
    let twice = Pay { numbers: Some(2), deliveries: Some(8), delay_ms: Some(20), ..Pay::default() };
    assert_eq!(world.pay(saga(1), &twice).await.0, 200);
    let mut numbers = Vec::new();
    for _ in 0..16 {
        numbers.push(world.callbacks.recv().await.unwrap().provider_no);
    }
    assert_eq!(numbers.iter().filter(|no| *no == "P00000001").count(), 8);
    let wrong = Pay { amount_minor: Some(minor(99)), again: true, ..Pay::default() };
    assert_eq!(world.pay(saga(1), &wrong).await.0, 200);
    assert_eq!(world.callbacks.recv().await.unwrap().amount_minor, minor(99));
    world.stop().await;
}

#[tokio::test]
async fn z21_closed_is_closed_but_for_money_already_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("provider.ndjson");
    let world = World::start(&file, StatusCode::OK, |_| {}).await;
    assert_eq!(world.client.close(saga(2)).await.unwrap(), [], "a reference that was never opened");
    assert_eq!(world.client.open("key-2", &opening(2)).await, Err(refused("payment.rejected")));
    world.client.open("key-1", &opening(1)).await.unwrap();
    world.client.close(saga(1)).await.unwrap();
    assert_eq!(world.pay(saga(1), &Pay::default()).await.0, 409);
    assert_eq!(world.pay(saga(1), &Pay { late: true, ..Pay::default() }).await.0, 200);
    let captures = world.client.close(saga(1)).await.unwrap();
    assert_eq!(captures.len(), 1, "closing tells what was taken");
    assert_eq!(captures[0].saga, saga(1));
    world.stop().await;
}

#[tokio::test]
async fn what_nobody_acknowledged_is_delivered_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("provider.ndjson");
    let mut world = World::start(&file, StatusCode::SERVICE_UNAVAILABLE, |_| {}).await;
    world.client.open("key-1", &opening(1)).await.unwrap();
    world.pay(saga(1), &Pay::default()).await;
    world.callbacks.recv().await.unwrap();
    world.callbacks.recv().await.unwrap();
    world.stop().await;
    let mut world = World::start(&file, StatusCode::OK, |_| {}).await;
    assert_eq!(world.callbacks.recv().await.unwrap().saga, saga(1));
    world.stop().await;
}

#[tokio::test]
async fn unsigned_calls_and_damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("provider.ndjson");
    let world = World::start(&file, StatusCode::OK, |_| {}).await;
    let forger =
        ProviderClient::new(&world.url, b"guess", Duration::from_secs(5), Arc::new(SystemClock), &Trust::system())
            .unwrap();
    assert!(matches!(forger.open("key-1", &opening(1)).await, Err(ProviderError::Unknown(_))));
    assert_eq!(world.pay(saga(1), &Pay::default()).await.0, 404);
    world.client.open("key-1", &opening(1)).await.unwrap();
    world.stop().await;
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}{{\"time_ms\":1,\"entry\":\"clo")).unwrap();
    let world = World::start(&file, StatusCode::OK, |_| {}).await;
    world.client.close(saga(1)).await.unwrap();
    world.stop().await;
    assert_eq!(read_file(&file).unwrap().len(), 2, "what was cut off is gone, what was answered is there");
    std::fs::write(&file, "nonsense\n").unwrap();
    let config = Config::local("http://127.0.0.1:1/", SECRET, &file);
    let Err(error) = Simulated::bind(config, Arc::new(SystemClock)).await else { panic!("started on nonsense") };
    assert!(error.to_string().contains("line 1"), "{error}");
}

#[tokio::test]
async fn a_real_provider_never_hears_of_test_and_load_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("provider.ndjson");
    let World { client, stop, serving, .. } = World::start(&file, StatusCode::OK, |_| {}).await;
    let provider: Arc<dyn PaymentProvider> = Arc::new(client);
    let terms = json!({ "amount_minor": 100, "currency": "CNY", "expires_in_s": 600 });
    let open = tell(1, "payment.open", "key", terms);
    let close = undo("close", &open);
    let question = tell(1, "payment.ask", "key", json!({}));
    let real = Payments::real(provider.clone());
    for lane in [Lane::Test, Lane::Load] {
        let Verdict::Refused { code, detail } = real.make(&open, lane).await else { panic!("it was opened") };
        assert!(code == "payment.rejected" && detail.contains(lane.label()), "{code}: {detail}");
        assert_eq!(real.ask(&open, lane).await, Verdict::NeverSeen);
        assert_eq!(real.make(&close, lane).await, Verdict::Done { data: json!({ "captures": [] }) });
        let Verdict::Done { data } = real.make(&question, lane).await else { panic!("nobody answers") };
        assert_eq!(data["captured"], false);
    }
    assert_eq!(read_file(&file).unwrap().len(), 0, "it heard of nothing");
    assert!(matches!(real.make(&open, Lane::Live).await, Verdict::Done { .. }));
    let other = tell(2, "payment.open", "key", open.with.clone());
    assert!(matches!(Payments::simulated(provider).make(&other, Lane::Test).await, Verdict::Done { .. }));
    assert_eq!(read_file(&file).unwrap().len(), 2);
    stop.cancel();
    serving.await.unwrap();
}

/// Two sagas give the same payment back, because one of them is of a history that is lost.
#[tokio::test]
async fn z14_all_of_a_payment_goes_back_once_whoever_gives_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("provider.ndjson");
    let mut world = World::start(&file, StatusCode::OK, |_| {}).await;
    world.client.open("key-1", &opening(1)).await.unwrap();
    assert_eq!(world.pay(saga(1), &Pay::default()).await.0, 200);
    let callback = world.callbacks.recv().await.unwrap();
    let payment = json!({
        "provider": callback.provider, "provider_no": callback.provider_no, "amount_minor": 100, "currency": "CNY", "saga": saga(1),
    });
    let back = |by, amount: i64| {
        tell(by, "payment.refund", "refund", json!({ "payment": payment.clone(), "amount_minor": amount }))
    };
    let World { client, stop, serving, .. } = world;
    let payments = Payments::real(Arc::new(client));
    assert_eq!(payments.ask(&back(2, 100), Lane::Live).await, Verdict::NeverSeen);
    let first = payments.make(&back(1, 100), Lane::Live).await;
    assert!(matches!(first, Verdict::Done { .. }), "{first:?}");
    assert_eq!(payments.make(&back(2, 100), Lane::Live).await, first, "it is the same act");
    assert_eq!(payments.ask(&back(2, 100), Lane::Live).await, first);
    let Verdict::Refused { code, .. } = payments.make(&back(3, 40), Lane::Live).await else {
        panic!("more than there was")
    };
    assert_eq!(code, "payment.exceeded", "a part of it is another act");
    let refunds = read_file(&file).unwrap().into_iter().filter(|line| matches!(line.entry, Entry::Refunded { .. }));
    assert_eq!(refunds.count(), 1);
    stop.cancel();
    serving.await.unwrap();
}
