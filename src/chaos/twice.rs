//! What money may do when a standby is promoted that lacks the last commits, as docs/guarantees.md says: a payment that came
//! too late in the moments that were lost, and was refunded, is in time now and pays its order. The buyer has both, the goods
//! and the money; or the order is turned back, and its own refund has nothing left to give back, so that a person forces it.
//! Whatever else differs is a failure.

use super::load::Load;
use crate::demo::books::Books;
use crate::demo::journal::{Told, Used};
use crate::demo::sale::Sale;
use anyhow::Context as _;
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The definition of an order.
pub(super) const ORDER: &str = "flash_sale_order";

/// The definition that gives back a payment which no order keeps.
pub(super) const PAYMENT: &str = "refund_payment";

/// What the shop has left of each payment, by the provider's file.
pub(super) fn left(provider_file: &Path) -> anyhow::Result<BTreeMap<String, i64>> {
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
    Ok(left)
}

/// Orders that completed, and how much of their money went back all the same.
pub(super) fn given_twice(sale: &Sale, told: &[Told], left: &BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    let more =
        sale.journeys.iter().zip(told).filter(|(_, told)| told.outcome() == "completed").map(|(journey, told)| {
            let kept: i64 = told.paid.iter().filter_map(|(number, _)| left.get(number)).sum();
            (told.order.clone(), Used::of(sale, journey, told).kept_minor - kept)
        });
    more.filter(|(_, more)| *more > 0).collect()
}

/// Sagas that were forced.
pub(super) async fn forced_sagas(load: &Load) -> anyhow::Result<Vec<Value>> {
    let mut found = load.run.office.must(Method::GET, "/v1/sagas?outcome=forced&limit=200", None, None).await?;
    Ok(found["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// What was forced, in words: right when all the money that it was about has gone back, as the provider has it, and wrong
/// otherwise.
pub(super) fn forced(sagas: &[Value], told: &[Told], left: &BTreeMap<String, i64>) -> (Vec<String>, Vec<String>) {
    let (mut wrong, mut expected) = (Vec::new(), Vec::new());
    for saga in sagas {
        let (definition, number) = (saga["definition"].as_str(), saga["number"].as_str().unwrap_or_default());
        let payments: Vec<&str> = match definition {
            Some(ORDER) => {
                let paid = told.iter().filter(|told| told.order == number).flat_map(|told| &told.paid);
                paid.map(|(payment, _)| payment.as_str()).collect()
            }
            Some(PAYMENT) => number.rsplit('/').take(1).collect(),
            _ => Vec::new(),
        };
        let what = format!("{} {number}", definition.unwrap_or_default());
        match !payments.is_empty() && payments.iter().all(|payment| left.get(*payment) == Some(&0)) {
            true => expected.push(format!("as expected: forced, because its money had gone back: {what}")),
            false => wrong.push(format!("{what} was forced, and its money has not gone back: {payments:?}")),
        }
    }
    (wrong, expected)
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
            given_twice(&sale, &told, &left(written.path()).unwrap())
        };
        assert!(file(&[("P2", 2_000)]).is_empty(), "the second payment goes back, as it must");
        let twice = file(&[("P2", 2_000), ("P3", 1_000)]);
        assert_eq!(twice, BTreeMap::from([("2".to_owned(), 1_000)]));
    }

    #[test]
    fn what_was_forced_has_given_all_its_money_back() {
        let sale = Sale::parse(Path::new("s"), SALE).unwrap();
        let paid = vec![("P1".to_owned(), 2_000), ("P2".to_owned(), 2_000)];
        let told = [Told { paid, ..Told::new(&sale.journeys[0]) }, Told::new(&sale.journeys[1])];
        let saga = |definition: &str, number: &str| json!({"definition": definition, "number": number});
        let is_right = |saga: Value, left: &[(&str, i64)]| {
            let left = left.iter().map(|(payment, minor)| ((*payment).to_owned(), *minor)).collect();
            let (wrong, expected) = forced(&[saga], &told, &left);
            assert_eq!(wrong.len() + expected.len(), 1);
            wrong.is_empty()
        };
        assert!(is_right(saga(ORDER, "1"), &[("P1", 0), ("P2", 0)]));
        assert!(!is_right(saga(ORDER, "1"), &[("P1", 0), ("P2", 2_000)]), "the second payment is kept");
        assert!(!is_right(saga(ORDER, "1"), &[("P1", 0)]), "the provider does not know the second");
        assert!(!is_right(saga(ORDER, "2"), &[("P1", 0)]), "nobody has paid it");
        assert!(is_right(saga(PAYMENT, "simpay/P1"), &[("P1", 0)]));
        assert!(!is_right(saga(PAYMENT, "simpay/P1"), &[("P1", 100)]));
        assert!(!is_right(saga("refund_order", "1-R1"), &[("P1", 0)]), "nothing else is forced");
    }
}
