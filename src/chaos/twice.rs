//! The one thing that money may do when a standby is promoted that lacks the last commits, as docs/guarantees.md says: a
//! payment that came too late in the moments that were lost, and was refunded, is in time now and pays its order. The buyer has
//! both, the goods and the money. Whatever else differs is a failure.

use crate::demo::books::Books;
use crate::demo::journal::{Told, Used};
use crate::demo::sale::Sale;
use anyhow::Context as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Orders that completed, and how much of their money went back all the same.
pub(super) fn given_twice(sale: &Sale, told: &[Told], provider_file: &Path) -> anyhow::Result<BTreeMap<String, i64>> {
    let file = std::fs::read_to_string(provider_file)
        .with_context(|| format!("cannot read the provider's file {}", provider_file.display()))?;
    let mut left: BTreeMap<String, i64> = BTreeMap::new();
    for line in file.lines().filter(|line| !line.trim().is_empty()) {
        let entry: Value = serde_json::from_str(line).context("a line of the provider's file")?;
        let sign = match entry["entry"].as_str() {
            Some("captured") => 1,
            Some("refunded") => -1,
            _ => continue,
        };
        let number = entry["provider_no"].as_str().unwrap_or_default().to_owned();
        *left.entry(number).or_default() += sign * entry["amount_minor"].as_i64().unwrap_or(0);
    }
    let more =
        sale.journeys.iter().zip(told).filter(|(_, told)| told.outcome() == "completed").map(|(journey, told)| {
            let kept: i64 = told.paid.iter().filter_map(|(number, _)| left.get(number)).sum();
            (told.order.clone(), Used::of(sale, journey, told).kept_minor - kept)
        });
    Ok(more.filter(|(_, more)| *more > 0).collect())
}

/// What of the books' differences was to be expected, in words; none when they agree, or differ in anything else.
pub(super) fn expected(sale: &Sale, books: &Books, twice: &BTreeMap<String, i64>) -> Option<String> {
    let minor: i64 = twice.values().sum();
    let money = format!("money:{}", sale.header.currency);
    let orders: Vec<String> = twice.iter().map(|(order, minor)| format!("{order} ({minor})")).collect();
    (minor > 0 && books.differ_only_by_money_given_back(&money, minor)).then(|| {
        format!("as expected: refunded in the moments that were lost, and paid after all: {}", orders.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SALE: &str = r#"{"sale":{"version":1,"name":"s","currency":"CNY"}}
{"promotion":{"id":"P","name":"p","stock_strategy":"reserve","pay_within_s":3}}
{"goods":{"sku":"A","name":"a","price_minor":1000,"stock":9}}
{"customer":{"id":"u","name":"u","points":0,"coupons":[]}}
{"journey":{"order":"1","at_ms":0,"customer":"u","promotion":"P","lines":[{"sku":"A","quantity":2}],"story":"pay"}}
{"journey":{"order":"2","at_ms":0,"customer":"u","promotion":"P","lines":[{"sku":"A","quantity":1}],"story":"pay"}}"#;

    #[test]
    fn an_order_that_has_goods_and_money_is_named_with_the_amount() {
        let sale = Sale::parse(Path::new("s"), SALE).unwrap();
        let completed = |order: usize, paid: &[(&str, i64)]| Told {
            paid: paid.iter().map(|(number, minor)| ((*number).to_owned(), *minor)).collect(),
            last: json!({"phase": "ended", "outcome": "completed"}),
            ..Told::new(&sale.journeys[order])
        };
        let told = [completed(0, &[("P1", 2_000), ("P2", 2_000)]), completed(1, &[("P3", 1_000)])];
        let file = |refunded: &[(&str, i64)]| {
            let captured = [("P1", 2_000), ("P2", 2_000), ("P3", 1_000)];
            let line = |entry: &str, (number, minor): &(&str, i64)| {
                json!({"entry": entry, "provider_no": number, "amount_minor": minor, "currency": "CNY"}).to_string()
                    + "\n"
            };
            let text: String = captured.iter().map(|c| line("captured", c)).collect();
            let text = text + &refunded.iter().map(|r| line("refunded", r)).collect::<String>();
            let written = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(written.path(), text).unwrap();
            given_twice(&sale, &told, written.path()).unwrap()
        };
        assert!(file(&[("P2", 2_000)]).is_empty(), "the second payment goes back, as it must");
        let twice = file(&[("P2", 2_000), ("P3", 1_000)]);
        assert_eq!(twice, BTreeMap::from([("2".to_owned(), 1_000)]));
    }
}
