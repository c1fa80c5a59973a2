//! One buyer: places an order, does what the story says, and waits until the order is final.

use super::Run;
use super::journal::{Told, ended};
use super::random::Random;
use super::sale::{Journey, Story};
use anyhow::{Context, bail};
use rustc_hash::FxHasher;
use serde_json::{Value, json};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

/// How long a buyer waits for a change before giving the run up: many times the longest payment limit and a restart.
const PATIENCE: Duration = Duration::from_secs(45);

/// How often a buyer looks again when nobody tells of a change.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One buyer on the way.
pub(super) struct Buyer<'a> {
    run: &'a Run,
    journey: &'a Journey,
    random: Random,
    told: Told,
}

impl<'a> Buyer<'a> {
    pub(super) fn new(run: &'a Run, journey: &'a Journey) -> Self {
        // Each buyer has a stream of their own, so that their luck does not hang on how others were scheduled.
        let mut hasher = FxHasher::default();
        (run.seed, &journey.order).hash(&mut hasher);
        Self { run, journey, random: Random::new(hasher.finish()), told: Told::new(journey) }
    }

    /// The whole journey; ends when the order, and the refund it asked for, are final.
    pub(super) async fn go(mut self) -> anyhow::Result<Told> {
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
                    self.pay_at(&pay_url, due, 1).await?;
                }
            }
            Story::PayWrongAmount => {
                let other = if self.random.chance(50) { due + 1 } else { (due - 100).max(1) };
                self.pay(other, 1).await?;
            }
            Story::PayTwice => {
                if let Some(pay_url) = self.payable().await? {
                    self.pay_at(&pay_url, due, 1).await?;
                    self.pay_at(&pay_url, due, 1).await?;
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

    async fn pay(&mut self, amount_minor: i64, deliveries: u32) -> anyhow::Result<()> {
        match self.payable().await? {
            Some(pay_url) => self.pay_at(&pay_url, amount_minor, deliveries).await,
            None => Ok(()),
        }
    }

    /// Gives the provider money, and says how often and how late it shall report it.
    async fn pay_at(&mut self, pay_url: &str, amount_minor: i64, deliveries: u32) -> anyhow::Result<()> {
        let mut delays_ms: Vec<u64> = (0..deliveries).map(|_| self.random.below(600) as u64).collect();
        delays_ms[0] = self.random.below(60) as u64;
        self.random.shuffle(&mut delays_ms);
        let body = json!({ "amount_minor": amount_minor, "currency": self.run.sale.header.currency, "deliver_after_ms": delays_ms });
        let key = format!("{}-{}", self.journey.order, self.told.paid.len() + 1);
        let answer = self.run.shop.call(reqwest::Method::POST, pay_url, Some(&key), Some(&body)).await?;
        match answer.body["provider_no"].as_str() {
            Some(number) if answer.status.is_success() => self.told.paid.push((number.to_owned(), amount_minor)),
            _ => bail!("the provider did not take the money ({}): {}", answer.status, answer.body),
        }
        Ok(())
    }

    /// Risk control cancels: at once, or while the money is on its way.
    async fn be_stopped(&mut self, due: i64) -> anyhow::Result<()> {
        if self.random.chance(50) {
            self.pay(due, 1).await?;
        }
        self.cancel("risk").await?;
        Ok(())
    }

    /// Cancels; half of the time twice under the same key. False when the order had ended.
    async fn cancel(&mut self, reason: &str) -> anyhow::Result<bool> {
        let key = format!("{}-cancel-{reason}", self.journey.order);
        let mut accepted = false;
        for _ in 0..=self.random.below(2) {
            let answer = self.run.shop.cancel(&self.journey.order, reason, &key).await?;
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
            let answer = self.run.shop.refund_view(&refund_no).await?;
            if ended(&answer.body) {
                self.told.refund = Some(answer.body);
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
        let mut pause = Duration::from_millis(40);
        loop {
            let answer = self.run.shop.order(&self.journey.order).await?;
            // Accepted but not begun yet is "not found" for a moment.
            if answer.status.is_success() {
                self.told.last = answer.body;
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
