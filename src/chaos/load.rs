//! The load of a case: buyers of a small sale, as the demo has them, and small sagas on no-op participants beside them.
//! Every call is repeated under the same number until it is answered; every answer is kept.

use super::Plan;
use super::case::Case;
use crate::demo::Run;
use crate::demo::books::Books;
use crate::demo::generate;
use crate::demo::journal::{Told, ended};
use crate::demo::opening;
use crate::demo::progress::Progress;
use crate::demo::random::Random;
use crate::demo::sale::{Line, Sale};
use crate::demo::settle;
use crate::demo::shop::Shop;
use anyhow::{bail, ensure};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long a small saga may take: longer than any fault and its healing.
const PATIENCE: Duration = Duration::from_secs(240);

/// Units of scarce goods in the whole sale; fewer of them in a small one, so that they run out all the same.
const SCARCE: i64 = 20;

/// Seconds that buyers of every second promotion have to pay, at most: an outage shorter than that takes no order with it.
const PAY_WITHIN_S: i64 = 20;

/// What is driven, and where it stands.
pub(crate) struct Load {
    pub(crate) run: Arc<Run>,
    /// The definition of the small sagas.
    definition: &'static str,
    small: Vec<Small>,
    ended: AtomicU64,
}

/// A small saga, and what its number says must become of it.
struct Small {
    number: String,
    fail_at: &'static str,
    at: Duration,
}

/// What buyers and small sagas were told.
#[derive(Serialize)]
pub(crate) struct Journal {
    pub(crate) orders: Vec<Told>,
    pub(crate) small: Vec<Value>,
}

impl Load {
    /// Opens stock, points and coupons; from then on the sale's time runs.
    pub(crate) async fn open(case: Case, gateways: &[String], plan: &Plan, random: &Random) -> anyhow::Result<Self> {
        let mut random = random.clone();
        let count = usize::try_from(plan.rate * plan.load.as_secs())?;
        let sale = sale(plan.seed, count, plan.load, &mut random)?;
        opening::open(&Shop::new(gateways.to_vec())?, &sale).await?;
        let progress = Progress::silent(sale.journeys.len());
        let run = Arc::new(Run::open(sale, plan.seed, gateways, progress)?);
        let most_ms = usize::try_from(plan.load.as_millis())?;
        let small = (0..count).map(|number| Small {
            number: format!("B-{number}"),
            fail_at: ["", "", "", "lock", "confirm"][random.below(5)],
            at: Duration::from_millis(random.below(most_ms) as u64),
        });
        let small = small.collect();
        Ok(Self { run, definition: case.definition(), small, ended: AtomicU64::new(0) })
    }

    /// Drives it until every order and every small saga has its end.
    pub(crate) async fn drive(self: &Arc<Self>) -> anyhow::Result<Journal> {
        let (orders, small) = tokio::select! {
            done = async { tokio::try_join!(self.run.buy(), self.small()) } => done?,
            error = self.run.follow() => return Err(error),
        };
        Ok(Journal { orders, small })
    }

    async fn small(self: &Arc<Self>) -> anyhow::Result<Vec<Value>> {
        let started = tokio::time::Instant::now();
        let mut going = JoinSet::new();
        for place in 0..self.small.len() {
            let load = Arc::clone(self);
            going.spawn(async move {
                tokio::time::sleep_until(started + load.small[place].at).await;
                let view = load.one(&load.small[place]).await?;
                load.ended.fetch_add(1, Ordering::Relaxed);
                anyhow::Ok(view)
            });
        }
        let mut views = Vec::with_capacity(going.len());
        while let Some(view) = going.join_next().await {
            views.push(view??);
        }
        Ok(views)
    }

    /// One small saga, from its start to its end.
    async fn one(&self, small: &Small) -> anyhow::Result<Value> {
        let Small { number, fail_at, .. } = small;
        let shop = &self.run.shop;
        let body = json!({ "number": number, "fail_at": fail_at });
        let started = Instant::now();
        let path = format!("/v1/sagas/{}", self.definition);
        shop.must(Method::POST, &path, Some(number), Some(&body)).await?;
        let path = format!("{path}/{number}");
        let mut pause = Duration::from_millis(100);
        loop {
            let answer = shop.call(Method::GET, &path, None, None).await?;
            if answer.status.is_success() && ended(&answer.body) {
                let wanted = if fail_at.is_empty() { "completed" } else { "cancelled" };
                ensure!(answer.body["outcome"] == wanted, "{number} should be {wanted}: {}", answer.body);
                return Ok(answer.body);
            }
            if started.elapsed() > PATIENCE {
                bail!("{number} has no end after {PATIENCE:?} ({}): {}", answer.status, answer.body);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Waits until nothing is open and the books agree, or for `limit`.
    pub(crate) async fn settle(
        &self,
        told: &[Told],
        provider_file: &Path,
        limit: Duration,
    ) -> anyhow::Result<(BTreeMap<String, u64>, Books)> {
        settle(&self.run, told, provider_file, limit).await
    }

    /// How far it is, for people.
    pub(crate) fn progress(&self) -> String {
        let (orders, of) = self.run.progress.orders();
        let (small, of_small) = (self.ended.load(Ordering::Relaxed), self.small.len());
        format!("{orders} of {of} orders and {small} of {of_small} small sagas final")
    }
}

/// A sale of `count` orders whose buyers come within a time: some of the generated sale's, with all that they need.
fn sale(seed: u64, count: usize, within: Duration, random: &mut Random) -> anyhow::Result<Sale> {
    let mut lines: Vec<Line> = generate::lines(seed);
    let mut order: Vec<usize> = (0..lines.len()).filter(|at| matches!(lines[*at], Line::Journey(_))).collect();
    let all = order.len();
    random.shuffle(&mut order);
    let kept: BTreeSet<usize> = order.into_iter().take(count).collect();
    let mut at = 0;
    lines.retain(|line| {
        at += 1;
        !matches!(line, Line::Journey(_)) || kept.contains(&(at - 1))
    });
    let buyer = |line: &Line| if let Line::Journey(journey) = line { Some(journey.customer.clone()) } else { None };
    let buyers: BTreeSet<String> = lines.iter().filter_map(buyer).collect();
    lines.retain(|line| !matches!(line, Line::Customer(customer) if !buyers.contains(&customer.id)));
    let last_ms = lines.iter().map(|line| if let Line::Journey(journey) = line { journey.at_ms } else { 0 }).max();
    let last_ms = last_ms.unwrap_or(0).max(1);
    let within_ms = u64::try_from(within.as_millis())?;
    for (at, line) in lines.iter_mut().enumerate() {
        match line {
            Line::Journey(journey) => journey.at_ms = journey.at_ms * within_ms / last_ms,
            Line::Goods(goods) if goods.stock < SCARCE => {
                let fewer = |units: i64| (units * count as i64 / all as i64).max(i64::from(units > 0));
                (goods.stock, goods.standby) = (fewer(goods.stock), fewer(goods.standby));
            }
            Line::Promotion(promotion) if at % 2 == 0 => {
                promotion.pay_within_s = i64::try_from(within.as_secs())?.min(PAY_WITHIN_S).max(promotion.pay_within_s);
            }
            _ => {}
        }
    }
    let text: Result<Vec<String>, _> = lines.iter().map(serde_json::to_string).collect();
    Ok(Sale::parse(Path::new("chaos"), &text?.join("\n"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_sale_has_what_its_buyers_need_and_fits_its_time() {
        let within = Duration::from_secs(7);
        let sale = sale(3, 60, within, &mut Random::new(5)).unwrap();
        assert_eq!(sale.journeys.len(), 60);
        assert!(sale.journeys.iter().all(|journey| journey.at_ms <= 7_000));
        assert!(sale.customers.len() <= 60 && sale.goods.iter().any(|goods| goods.stock == 1));
        let again = super::sale(3, 60, within, &mut Random::new(5)).unwrap();
        let orders = |sale: &Sale| sale.journeys.iter().map(|j| (j.order.clone(), j.at_ms)).collect::<Vec<_>>();
        assert_eq!(orders(&sale), orders(&again), "a seed gives the same sale again");
    }
}
