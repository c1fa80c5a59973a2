//! The driver's calls: as a shop's servers would make them, again and again under the same key until an answer comes.

use super::sale::{Journey, Sale};
use anyhow::{Context, bail, ensure};
use endstate_http::Trust;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Calls in flight at a time; what a shop's connection pool would allow.
const CONCURRENCY: usize = 96;

/// How long a call is repeated before the run is given up: many times the restart of a worker, and longer than that of a
/// broker on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// An answer that is no transport failure: done, or refused for a reason.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

/// The shop's side of the HTTP API, and of the provider's.
#[derive(Debug)]
pub(crate) struct Shop {
    http: reqwest::Client,
    servers: Vec<String>,
    /// The server that is called now; the next one after each call that was not answered.
    current: AtomicUsize,
    in_flight: Semaphore,
    /// Calls that got an answer.
    pub(crate) answered: AtomicU64,
    /// Calls repeated because no answer came, or a busy one.
    pub(crate) repeated: AtomicU64,
}

impl Shop {
    /// Calls any of these servers, which are of one system.
    pub(crate) fn new(servers: Vec<String>) -> anyhow::Result<Self> {
        ensure!(!servers.is_empty(), "no server to call");
        let http =
            Trust::system().builder().timeout(Duration::from_secs(20)).pool_max_idle_per_host(CONCURRENCY).build()?;
        let in_flight = Semaphore::new(CONCURRENCY);
        let (answered, repeated) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { http, servers, current: AtomicUsize::new(0), in_flight, answered, repeated })
    }

    /// Places an order. Its number is its idempotency key.
    pub(crate) async fn place(&self, sale: &Sale, journey: &Journey) -> anyhow::Result<Answer> {
        let body = order(sale, journey);
        self.call(Method::POST, "/v1/sagas/flash_sale_order", Some(&journey.order), Some(&body)).await
    }

    /// The order's view.
    pub(crate) async fn order(&self, number: &str) -> anyhow::Result<Answer> {
        self.call(Method::GET, &format!("/v1/sagas/flash_sale_order/{number}"), None, None).await
    }

    /// Asks for a cancel; `key` makes a repeat the same request.
    pub(crate) async fn cancel(&self, number: &str, reason: &str, key: &str) -> anyhow::Result<Answer> {
        let path = format!("/v1/sagas/flash_sale_order/{number}/cancel");
        self.call(Method::POST, &path, Some(key), Some(&json!({ "reason": reason }))).await
    }

    /// Asks for a refund of lines of a completed order.
    pub(crate) async fn refund(&self, body: &Value) -> anyhow::Result<Answer> {
        let number = body["refund_no"].as_str();
        self.call(Method::POST, "/v1/sagas/refund_order", number, Some(body)).await
    }

    /// The view of a refund.
    pub(crate) async fn refund_view(&self, number: &str) -> anyhow::Result<Answer> {
        self.call(Method::GET, &format!("/v1/sagas/refund_order/{number}"), None, None).await
    }

    /// A call that must succeed.
    pub(crate) async fn must(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let answer = self.call(method, path, key, body).await?;
        if !answer.status.is_success() {
            bail!("{path} was refused ({}): {}", answer.status, answer.body);
        }
        Ok(answer.body)
    }

    /// Repeats a call until it is answered by something else than `busy`, `draining` or silence.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let url = || match path.starts_with("http") {
            true => path.to_owned(),
            false => format!("{}{path}", self.servers[self.current.load(Ordering::Relaxed) % self.servers.len()]),
        };
        let started = Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            let url = url();
            let attempt = self.attempt(method.clone(), &url, key, body).await;
            match attempt {
                Ok(answer) if !passing(answer.status) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(answer) if started.elapsed() > PATIENCE => {
                    bail!("{url} still answers {}: {}", answer.status, answer.body)
                }
                Err(error) if started.elapsed() > PATIENCE => {
                    return Err(error).with_context(|| format!("no answer from {url}"));
                }
                Ok(_) | Err(_) => {}
            }
            self.repeated.fetch_add(1, Ordering::Relaxed);
            self.current.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    async fn attempt(
        &self,
        method: Method,
        url: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let _permit = self.in_flight.acquire().await?;
        let mut request = self.http.request(method, url);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let bytes = answer.bytes().await?;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into())
        };
        Ok(Answer { status, body })
    }
}

/// Answers that ask for the same call later.
fn passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// The order as the definition `flash_sale_order` takes it.
fn order(sale: &Sale, journey: &Journey) -> Value {
    let promotion = sale.promotion_of(journey);
    let lines: Vec<Value> = (1..)
        .zip(&journey.lines)
        .map(|(number, line): (u32, _)| {
            let goods = sale.goods_of(line);
            json!({
                "line_no": number.to_string(),
                "sku": line.sku,
                "title": goods.name,
                "quantity": line.quantity,
                "price_minor": goods.price_minor,
            })
        })
        .collect();
    let mut order = json!({
        "order_no": journey.order,
        "user_id": journey.customer,
        "activity_id": journey.promotion,
        "store": "flagship",
        "currency": sale.header.currency,
        "total_minor": sale.total_minor(journey),
        "discount_minor": sale.discount_minor(journey),
        "points": journey.points,
        "stock_strategy": promotion.stock_strategy,
        "pay_within_s": promotion.pay_within_s,
        "lines": lines,
    });
    if let Some(coupon) = &journey.coupon {
        order["coupon_id"] = json!(coupon);
    }
    order
}
