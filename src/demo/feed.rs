//! Follows the stream of status changes, as another team's service would, and wakes the buyers concerned.

use super::sale::Sale;
use super::shop::Shop;
use reqwest::Method;
use rustc_hash::FxHashMap;
use std::time::Duration;
use tokio::sync::watch;

/// Changes of every order of the sale.
#[derive(Debug)]
pub(crate) struct Feed {
    /// How many changes each order has had.
    orders: FxHashMap<String, watch::Sender<u64>>,
}

impl Feed {
    pub(crate) fn new(sale: &Sale) -> Self {
        let orders = sale.journeys.iter().map(|journey| (journey.order.clone(), watch::Sender::new(0)));
        Self { orders: orders.collect() }
    }

    /// Wakes at every later change of an order of the sale.
    pub(crate) fn follow(&self, order: &str) -> watch::Receiver<u64> {
        self.orders[order].subscribe()
    }

    /// Follows until dropped. Its place survives the worker's kills: the stream is read again from there.
    pub(crate) async fn run(&self, shop: &Shop) -> anyhow::Result<()> {
        let mut after = String::new();
        loop {
            let path = if after.is_empty() { "/v1/events".to_owned() } else { format!("/v1/events?after={after}") };
            let page = shop.must(Method::GET, &path, None, None).await?;
            let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            for change in items {
                if let Some(order) = change["number"].as_str().and_then(|number| self.orders.get(number)) {
                    order.send_modify(|count| *count += 1);
                }
            }
            if let Some(next) = page["next"].as_str() {
                after = next.to_owned();
            }
            if items.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
