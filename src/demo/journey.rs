//! One buyer: places an order, does what the story says, and waits until the order is final.

use super::Run;
use super::journal::{Told, ended};
use super::random::Random;
use super::sale::{Journey, Story};
use super::shop::Answer;
use anyhow::{Context, bail};
use rustc_hash::FxHasher;
use serde_json::{Value, json};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

/// How long a buyer waits for a change: many times the longest payment limit and a restart, on a slow machine, too.
const PATIENCE: Duration = Duration::from_secs(240);

/// How often a buyer looks again when nobody tells of a change.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// How soon a buyer asks again about an order that is unknown for a while.
const UNKNOWN: Duration = Duration::from_millis(100);

/// Money for the provider.
#[derive(Debug, Clone, Copy)]
struct Payment {
    amount_minor: i64,
    /// How often the provider reports it.
    deliveries: u8,
    /// Whether the provider takes it although the payment is closed.
    late: bool,
}

/// One buyer on the way.
pub(crate) struct Buyer<'a> {
    run: &'a Run,
    journey: &'a Journey,
    random: Random,
    told: Told,
}

impl<'a> Buyer<'a> {
    pub(crate) fn new(run: &'a Run, journey: &'a Journey) -> Self {
        // Each buyer has a stream of their own, so that their luck does not hang on how others were scheduled.
        let mut hasher = FxHasher::default();
        (run.seed, &journey.order).hash(&mut hasher);
        Self { run, journey, random: Random::new(hasher.finish()), told: Told::new(journey) }
    }

    /// The whole journey; ends when the order, and the refund it asked for, are final.
    pub(crate) async fn go(mut self) -> anyhow::Result<Told> {
        tokio::time::sleep_until(self.run.opened + Duration::from_millis(self.journey.at_ms)).await;
        let lived = match self.place().await {
            Ok(()) => self.live().await,
            Err(error) => Err(error),
        };
        lived.with_context(|| format!("order {} ({})", self.journey.order, self.journey.story.label()))?;
        Ok(self.told)
    }

    async fn live(&mut self) -> anyhow::Result<()> {
        let due = self.run.sale.total_minor(self.journey) - self.run.sale.discount_minor(self.journey);
        match self.journey.story {
            Story::Lapse => {}
            Story::CancelBeforePayment => {
                self.payable().await?;
                self.cancel("user").await?;
            }
            Story::RiskCancel => self.be_stopped(due).await?,
            Story::CancelAfterPayment => {
                self.pay(due, 1).await?;
                self.cancel_or_refund("user").await?;
            }
            Story::WarehouseCancel => {
                self.pay(due, 1).await?;
                self.until("paid", |view| view["status"] != "awaiting_payment" || ended(view)).await?;
                self.cancel_or_refund("short_stock").await?;
            }
            Story::PayLate => {
                let pay_url = self.payable().await?;
                self.until("its end", ended).await?;
                if let Some(pay_url) = pay_url {
                    self.pay_at(&pay_url, Payment { amount_minor: due, deliveries: 1, late: true }).await?;
                }
            }
            Story::PayWrongAmount => {
                let other = if self.random.chance(50) { due + 1 } else { (due - 100).max(1) };
                self.pay(other, 1).await?;
            }
            Story::PayTwice => {
                if let Some(pay_url) = self.payable().await? {
                    let once = Payment { amount_minor: due, deliveries: 1, late: false };
                    self.pay_at(&pay_url, once).await?;
                    self.pay_at(&pay_url, Payment { late: !self.told.paid.is_empty(), ..once }).await?;
                }
            }
            Story::PayRepeated => self.pay(due, 8).await?,
            Story::RefundLine => {
                self.pay(due, 1).await?;
                self.until("its end", ended).await?;
                self.refund(1, "changed my mind").await?;
            }
            Story::Pay | Story::ShortStock | Story::ShortStockStandby | Story::CouponReused | Story::TooFewPoints => {
                let deliveries = if self.random.chance(20) { 2 } else { 1 };
                self.pay(due, deliveries).await?;
            }
        }
        self.until("its end", ended).await?;
        Ok(())
    }

    /// Places the order; now and then again, as impatient buyers and retrying gateways do.
    async fn place(&mut self) -> anyhow::Result<()> {
        let repeats = if self.random.chance(15) { 1 + self.random.below(3) } else { 0 };
        let mut saga = Value::Null;
        for _ in 0..=repeats {
            let answer = self.run.shop.place(&self.run.sale, self.journey).await?;
            if !answer.status.is_success() {
                bail!("was not accepted ({}): {}", answer.status, answer.body);
            }
            self.told.accepted += 1;
            // An answer without a saga was given before the order's shard decided.
            if answer.body["saga"].is_null() {
                continue;
            }
            if !saga.is_null() && saga != answer.body["saga"] {
                self.told
                    .surprises
                    .push(format!("a repeated order got saga {} instead of {saga}", answer.body["saga"]));
            }
            saga = answer.body["saga"].clone();
        }
        self.run.progress.placed();
        Ok(())
    }

    /// Waits until the order can be paid; none when it ends before, or when nothing is due.
    async fn payable(&mut self) -> anyhow::Result<Option<String>> {
        let view = self.until("being payable", |view| view["view"]["pay_url"].is_string() || ended(view)).await?;
        Ok(if ended(&view) { None } else { view["view"]["pay_url"].as_str().map(str::to_owned) })
    }

    async fn pay(&mut self, amount_minor: i64, deliveries: u8) -> anyhow::Result<()> {
        match self.payable().await? {
            Some(pay_url) => self.pay_at(&pay_url, Payment { amount_minor, deliveries, late: false }).await,
            None => Ok(()),
        }
    }

    /// Gives the provider money, and says how often and how late it shall report it. A buyer who comes after the limit
    /// is turned away, unless the story wants the provider to take it.
    async fn pay_at(&mut self, pay_url: &str, how: Payment) -> anyhow::Result<()> {
        let Payment { amount_minor, deliveries, late } = how;
        // Several deliveries come late and out of order; a single one soon.
        let delay_ms = if deliveries > 1 { 700 } else { 60 };
        let body = json!({
            "amount_minor": amount_minor,
            "currency": self.run.sale.header.currency,
            "deliveries": deliveries,
            "delay_ms": self.random.below(delay_ms),
            "again": true,
            "late": late,
        });
        let answer = self.run.shop.call(reqwest::Method::POST, pay_url, None, Some(&body)).await?;
        match answer.body["payments"].as_array() {
            Some(payments) if answer.status.is_success() => {
                let number = |payment: &Value| payment["provider_no"].as_str().unwrap_or_default().to_owned();
                self.told.paid.extend(payments.iter().map(|payment| (number(payment), amount_minor)));
                Ok(())
            }
            _ if answer.status.as_u16() == 409 => Ok(()),
            _ => bail!("the provider did not take the money ({}): {}", answer.status, answer.body),
        }
    }

    /// Risk control cancels: at once, or while the money is on its way.
    async fn be_stopped(&mut self, due: i64) -> anyhow::Result<()> {
        if self.random.chance(50) {
            self.pay(due, 1).await?;
        }
        // Accepted is not begun: a cancel that comes before the start is read finds no order.
        self.until("being known", |_| true).await?;
        self.cancel("risk").await?;
        Ok(())
    }

    /// Cancels; half of the time twice under the same key. False when the order had ended.
    async fn cancel(&mut self, reason: &str) -> anyhow::Result<bool> {
        let key = format!("{}-cancel-{reason}", self.journey.order);
        let mut accepted = false;
        for _ in 0..=self.random.below(2) {
            let answer = self.ask_to_cancel(reason, &key).await?;
            match answer.status.as_u16() {
                200..=299 => {
                    accepted = true;
                    self.told.cancels += 1;
                }
                409 => {}
                _ => self.told.surprises.push(format!("cancel answered {}: {}", answer.status, answer.body)),
            }
        }
        Ok(accepted)
    }

    /// After a promotion an order that was accepted may be unknown until its start has been read again: then asks again.
    async fn ask_to_cancel(&mut self, reason: &str, key: &str) -> anyhow::Result<Answer> {
        let started = Instant::now();
        loop {
            let answer = self.run.shop.cancel(&self.journey.order, reason, key).await?;
            let comes_again = self.told.accepted > 0 && self.run.promoted().is_some();
            if answer.status.as_u16() != 404 || !comes_again || started.elapsed() > PATIENCE {
                return Ok(answer);
            }
            self.told.unknown += 1;
            tokio::time::sleep(UNKNOWN).await;
        }
    }

    /// Cancels; an order that was faster and completed is refunded as a whole instead.
    async fn cancel_or_refund(&mut self, reason: &str) -> anyhow::Result<()> {
        self.cancel(reason).await?;
        let view = self.until("its end", ended).await?;
        if view["outcome"] == "completed" { self.refund(usize::MAX, reason).await } else { Ok(()) }
    }

    /// Asks for a refund of the first `lines` lines, if the order completed.
    async fn refund(&mut self, lines: usize, reason: &str) -> anyhow::Result<()> {
        if self.told.outcome() != "completed" {
            return Ok(());
        }
        let refund_no = format!("{}-R1", self.journey.order);
        let lines: Vec<Value> = (1..)
            .zip(&self.journey.lines)
            .take(lines)
            .map(|(number, line): (u32, _)| json!({ "line_no": number.to_string(), "quantity": line.quantity }))
            .collect();
        let body = json!({
            "order_no": self.journey.order,
            "refund_no": refund_no,
            "reason": reason,
            "needs_approval": false,
            "lines": lines,
        });
        let answer = self.run.shop.refund(&body).await?;
        if !answer.status.is_success() {
            bail!("its refund was not accepted ({}): {}", answer.status, answer.body);
        }
        let started = Instant::now();
        loop {
            let asked = Instant::now();
            let answer = self.run.shop.refund_view(&refund_no).await?;
            if ended(&answer.body) {
                (self.told.refund, self.told.refund_asked) = (Some(answer.body), Some(asked));
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("its refund has no end after {PATIENCE:?}: {}", answer.body);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Looks at the order until `good`: at once, at every change the server publishes, and now and then in between.
    async fn until(&mut self, what: &str, good: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let started = Instant::now();
        let mut changes = self.run.feed.follow(&self.journey.order);
        let mut pause = Duration::from_millis(60);
        loop {
            let asked = Instant::now();
            let answer = self.run.shop.order(&self.journey.order).await?;
            // Accepted but not begun yet is "not found" for a moment.
            if answer.status.is_success() {
                (self.told.last, self.told.last_asked) = (answer.body, Some(asked));
                if good(&self.told.last) {
                    return Ok(self.told.last.clone());
                }
            }
            if started.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} for {what}: {}", self.told.last);
            }
            let _ = tokio::time::timeout(pause, changes.changed()).await;
            pause = (pause * 2).min(LOOK_AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::progress::Progress;
    use crate::demo::sale::Sale;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    const SALE: &str = r#"{"sale":{"version":1,"name":"s","currency":"CNY"}}
{"promotion":{"id":"P","name":"p","stock_strategy":"reserve","pay_within_s":3}}
{"goods":{"sku":"A","name":"a","price_minor":1000,"stock":9}}
{"customer":{"id":"u","name":"u","points":0,"coupons":[]}}
{"journey":{"order":"1","at_ms":0,"customer":"u","promotion":"P","lines":[{"sku":"A","quantity":1}],"story":"pay"}}"#;

    /// A cancel of an accepted order that two answers do not know; what the buyer noted.
    async fn cancelled(promoted: bool, accepted: u32) -> Told {
        let asked = Arc::new(AtomicU32::new(0));
        let answer = move || {
            let known = asked.fetch_add(1, Ordering::Relaxed) >= 2;
            async move { if known { StatusCode::ACCEPTED } else { StatusCode::NOT_FOUND } }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().route("/v1/sagas/flash_sale_order/{number}/cancel", post(answer));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        let sale = Sale::parse(Path::new("s"), SALE).unwrap();
        let run = Run::open(sale, 1, &[server], Progress::silent(1)).unwrap();
        if promoted {
            run.promote();
        }
        let mut buyer = Buyer::new(&run, &run.sale.journeys[0]);
        buyer.told.accepted = accepted;
        buyer.cancel("user").await.unwrap();
        serving.abort();
        buyer.told
    }

    #[tokio::test]
    async fn an_accepted_order_may_be_unknown_for_a_while_after_a_promotion_and_only_then() {
        let told = cancelled(true, 1).await;
        assert!(told.surprises.is_empty() && told.cancels > 0 && told.unknown == 2, "{told:?}");
        for told in [cancelled(false, 1).await, cancelled(true, 0).await] {
            assert!(told.surprises[0].starts_with("cancel answered 404") && told.unknown == 0, "{told:?}");
        }
    }
}
