//! Before the sale: stock, points and coupons are opened through the API, as an operator does it (B9).

use super::sale::Sale;
use super::shop::Shop;
use anyhow::bail;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Lines of one call; a sale of any size goes in pieces.
const PIECE: usize = 500;

/// How long the openings may take until the ledger shows all of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens everything the sale has, and waits until the ledger shows it.
pub(crate) async fn open(shop: &Shop, sale: &Sale) -> anyhow::Result<()> {
    for (number, lines) in lines(sale).chunks(PIECE).enumerate() {
        let operation = format!("opening-{number}");
        let body = json!({ "operation": operation, "lines": lines });
        // Sent twice: an operation id is done once.
        for _ in 0..2 {
            shop.must(Method::POST, "/v1/operations", Some(&operation), Some(&body)).await?;
        }
    }
    let started = Instant::now();
    let stock: i64 = sale.goods.iter().map(|goods| goods.stock + goods.standby).sum();
    let coupons: usize = sale.customers.iter().map(|customer| customer.coupons.len()).sum();
    let points: i64 = sale.customers.iter().map(|customer| customer.points).sum();
    loop {
        let books = shop.must(Method::GET, "/v1/books", None, None).await?;
        let left = |kind: &str| -> i64 {
            let items = books["items"].as_array().into_iter().flatten();
            let of_kind =
                items.filter(|item| item["asset"].as_str().is_some_and(|asset| asset.split(':').next() == Some(kind)));
            of_kind.filter_map(|item| item["left"].as_i64()).sum()
        };
        if (left("stock"), left("coupon"), left("points")) == (stock, coupons as i64, points) {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            bail!("the ledger does not show what was opened: {books}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn lines(sale: &Sale) -> Vec<Value> {
    let line = |participant: &str, action: &str, with: Value| json!({ "participant": participant, "action": action, "with": with });
    let mut lines = Vec::new();
    for goods in &sale.goods {
        for (quantity, standby) in [(goods.stock, false), (goods.standby, true)] {
            if quantity > 0 {
                lines.push(line(
                    "stock",
                    "open",
                    json!({ "unit": goods.sku, "quantity": quantity, "standby": standby }),
                ));
            }
        }
    }
    for customer in &sale.customers {
        if customer.points > 0 {
            lines.push(line("points", "adjust", json!({ "user": customer.id, "delta": customer.points })));
        }
        for coupon in &customer.coupons {
            lines.push(line("coupon", "open", json!({ "coupon": coupon.id, "user": customer.id })));
        }
    }
    lines
}
