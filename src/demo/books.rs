//! The books: three records that know nothing of each other must agree. The ledger tells what participants booked, the
//! journal what the HTTP answers said, the provider's file what it took and gave back.

use super::Run;
use super::journal::{Told, Used};
use super::sale::Sale;
use crate::cli::output::table;
use anyhow::Context;
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// One asset in one record; what the record cannot know is none.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Amounts {
    /// Brought in: units opened, points given, money taken.
    pub(crate) opened: Option<i64>,
    /// Set aside for orders that have no end yet.
    pub(crate) held: Option<i64>,
    /// Units sold, coupons and points used.
    pub(crate) used: Option<i64>,
    /// Money given back.
    pub(crate) returned: Option<i64>,
    /// What remains; for money, what the shop keeps.
    pub(crate) left: Option<i64>,
}

impl Amounts {
    fn fields(&self) -> [(&'static str, Option<i64>); 5] {
        let Self { opened, held, used, returned, left } = *self;
        [("opened", opened), ("held", held), ("used", used), ("returned", returned), ("left", left)]
    }

    fn add(&mut self, other: &Self) {
        let sum = |a: &mut Option<i64>, b: Option<i64>| {
            if let Some(b) = b {
                *a = Some(a.unwrap_or(0) + b);
            }
        };
        sum(&mut self.opened, other.opened);
        sum(&mut self.held, other.held);
        sum(&mut self.used, other.used);
        sum(&mut self.returned, other.returned);
        sum(&mut self.left, other.left);
    }
}

/// One record: amounts by asset (`stock:SKU-1`, `coupon`, `points`, `money:CNY`).
type Record = BTreeMap<String, Amounts>;

/// All records.
#[derive(Debug, Serialize)]
pub(crate) struct Books {
    ledger: Record,
    journal: Record,
    provider: Record,
    differences: Vec<String>,
}

/// Reads the three records and compares them.
pub(crate) async fn compare(run: &Run, told: &[Told], provider_file: &Path) -> anyhow::Result<Books> {
    let answer = run.office.must(Method::GET, "/v1/books", None, None).await?;
    let ledger = ledger(&answer);
    let journal = journal(&run.sale, told);
    let file = std::fs::read_to_string(provider_file)
        .with_context(|| format!("cannot read the provider's file {}", provider_file.display()))?;
    let provider = provider(&file)?;
    let mut differences = differences("journal", &journal, &ledger);
    differences.extend(self::differences("provider's file", &provider, &ledger));
    let unopened = ledger.keys().filter(|asset| !journal.contains_key(*asset));
    differences.extend(unopened.map(|asset| format!("{asset}: the ledger has it, but nobody opened it")));
    let items = answer["items"].as_array().into_iter().flatten();
    let unbalanced = items.filter(|item| item["balanced"] == false);
    differences.extend(unbalanced.map(|item| format!("{}: its accounts do not sum to zero", item["asset"])));
    Ok(Books { ledger, journal, provider, differences })
}

/// Where another record differs from the ledger, in what both can know.
fn differences(name: &str, record: &Record, ledger: &Record) -> Vec<String> {
    let mut found = Vec::new();
    for (asset, amounts) in record {
        let booked = ledger.get(asset).copied().unwrap_or_default();
        for ((field, theirs), (_, booked)) in amounts.fields().into_iter().zip(booked.fields()) {
            if let Some(theirs) = theirs.filter(|theirs| booked.unwrap_or(0) != *theirs) {
                let booked = booked.unwrap_or(0);
                found.push(format!("{asset}: {field} is {booked} in the ledger and {theirs} in the {name}"));
            }
        }
    }
    found
}

/// What the driver expects by the answers it got.
fn journal(sale: &Sale, told: &[Told]) -> Record {
    let mut record = Record::new();
    let money = format!("money:{}", sale.header.currency);
    let some = |n: i64| Some(n);
    for goods in &sale.goods {
        let opened = goods.stock + goods.standby;
        let amounts =
            Amounts { opened: some(opened), held: some(0), used: some(0), returned: None, left: some(opened) };
        record.insert(format!("stock:{}", goods.sku), amounts);
    }
    let opened = Amounts { opened: None, held: some(0), used: some(0), returned: None, left: some(0) };
    let (mut coupons, mut points) = (opened, opened);
    for customer in &sale.customers {
        points.left = points.left.map(|left| left + customer.points);
        coupons.left = coupons.left.map(|left| left + customer.coupons.len() as i64);
    }
    coupons.opened = coupons.left;
    let (mut taken, mut kept) = (0, 0);
    for (journey, told) in sale.journeys.iter().zip(told) {
        taken += told.paid.iter().map(|(_, amount)| amount).sum::<i64>();
        let used = Used::of(sale, journey, told);
        kept += used.kept_minor;
        for (sku, units) in used.units {
            let amounts = record.entry(format!("stock:{sku}")).or_default();
            amounts.add(&Amounts { used: some(units), left: some(-units), ..Amounts::default() });
        }
        let coupon = i64::from(used.coupon.is_some());
        coupons.add(&Amounts { used: some(coupon), left: some(-coupon), ..Amounts::default() });
        let left = some(used.points_earned - used.points_spent);
        points.add(&Amounts { used: some(used.points_spent), left, ..Amounts::default() });
    }
    record.insert("coupon".to_owned(), coupons);
    record.insert("points".to_owned(), points);
    let amounts =
        Amounts { opened: some(taken), held: some(0), used: None, returned: some(taken - kept), left: some(kept) };
    record.insert(money, amounts);
    record
}

/// What participants booked, as `GET /v1/books` tells it.
fn ledger(books: &Value) -> Record {
    let mut record = Record::new();
    // What refunds claimed has no other record to compare with; its accounts must sum to zero all the same.
    for item in books["items"].as_array().into_iter().flatten().filter(|item| item["asset"] != "returns") {
        let number = |name: &str| item[name].as_i64();
        let amounts = Amounts {
            opened: number("opened"),
            held: number("held"),
            used: number("used"),
            returned: number("returned"),
            left: number("left"),
        };
        record.entry(item["asset"].as_str().unwrap_or_default().to_owned()).or_default().add(&amounts);
    }
    record
}

/// What the provider wrote down itself.
fn provider(file: &str) -> anyhow::Result<Record> {
    let mut record = Record::new();
    for (number, line) in (1..).zip(file.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let entry: Value =
            serde_json::from_str(line).with_context(|| format!("line {number} of the provider's file"))?;
        let amount = entry["amount_minor"].as_i64().unwrap_or(0);
        let asset = format!("money:{}", entry["currency"].as_str().unwrap_or_default());
        let amounts = match entry["entry"].as_str() {
            Some("captured") => {
                Amounts { opened: Some(amount), returned: Some(0), left: Some(amount), ..Amounts::default() }
            }
            Some("refunded") => Amounts { returned: Some(amount), left: Some(-amount), ..Amounts::default() },
            _ => continue,
        };
        record.entry(asset).or_default().add(&amounts);
    }
    Ok(record)
}

impl Books {
    pub(crate) fn balanced(&self) -> bool {
        self.differences.is_empty()
    }

    /// Whether all that differs is this much money, which went back without the buyers having been told: ledger and provider
    /// agree on it.
    pub(crate) fn differ_only_by_money_given_back(&self, asset: &str, minor: i64) -> bool {
        let mut told = self.journal.clone();
        told.entry(asset.to_owned()).or_default().add(&Amounts {
            returned: Some(minor),
            left: Some(-minor),
            ..Amounts::default()
        });
        // Two lines: what was returned, and what is left.
        self.differences.len() == 2
            && differences("journal", &self.journal, &self.ledger) == self.differences
            && differences("journal", &told, &self.ledger).is_empty()
    }

    pub(crate) fn differences(&self) -> impl Iterator<Item = String> {
        const SHOWN: usize = 10;
        let more = self.differences.len().saturating_sub(SHOWN);
        let rest = (more > 0).then(|| format!("and {more} more differences"));
        self.differences.iter().take(SHOWN).cloned().chain(rest)
    }

    /// The table: kinds of assets, each in every record that knows it.
    pub(crate) fn text(&self) -> String {
        let mut rows = Vec::new();
        for kind in ["stock", "coupon", "points", "money"] {
            for (name, record) in [("ledger", &self.ledger), ("journal", &self.journal), ("provider", &self.provider)] {
                let of_kind = record.iter().filter(|(asset, _)| asset.split(':').next() == Some(kind));
                let mut sum: Option<Amounts> = None;
                of_kind.for_each(|(_, amounts)| sum.get_or_insert_default().add(amounts));
                let Some(sum) = sum else { continue };
                let mut row = vec![kind.to_owned(), name.to_owned()];
                row.extend(
                    sum.fields().map(|(_, amount)| amount.map_or_else(String::new, |amount| amount.to_string())),
                );
                row.push(if self.agrees(kind) { "yes" } else { "NO" }.to_owned());
                rows.push(row);
            }
        }
        table(&["asset", "record", "opened", "held", "used", "returned", "left", "balances"], &rows)
    }

    fn agrees(&self, kind: &str) -> bool {
        !self.differences.iter().any(|difference| difference.contains(&format!("{kind}:")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(asset: &str, used: i64, left: i64) -> Record {
        let amounts = Amounts { used: Some(used), left: Some(left), ..Amounts::default() };
        Record::from([(asset.to_owned(), amounts)])
    }

    #[test]
    fn a_unit_that_went_missing_is_named() {
        let ledger = record("stock:A", 3, 6);
        assert!(differences("journal", &record("stock:A", 3, 6), &ledger).is_empty());
        let found = differences("journal", &record("stock:A", 2, 7), &ledger);
        assert_eq!(found[0], "stock:A: used is 3 in the ledger and 2 in the journal");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn money_that_went_back_untold_explains_its_own_amount_and_nothing_else() {
        let money = |returned, left| {
            let amounts =
                Amounts { opened: Some(9_000), returned: Some(returned), left: Some(left), ..Amounts::default() };
            Record::from([("money:CNY".to_owned(), amounts)])
        };
        let books = |ledger: Record| {
            let journal = money(1_000, 8_000);
            let differences = differences("journal", &journal, &ledger);
            Books { ledger, journal, provider: Record::new(), differences }
        };
        let twice = books(money(1_500, 7_500));
        assert!(twice.differ_only_by_money_given_back("money:CNY", 500));
        assert!(!twice.differ_only_by_money_given_back("money:CNY", 400));
        assert!(!books(money(1_000, 8_000)).differ_only_by_money_given_back("money:CNY", 500), "nothing differs");
        let mut more = books(money(1_500, 7_500));
        more.differences.push("stock:A: used is 3 in the ledger and 2 in the journal".to_owned());
        assert!(!more.differ_only_by_money_given_back("money:CNY", 500), "stock differs, too");
    }

    #[test]
    fn the_providers_file_is_summed_by_currency() {
        let file = r#"{"entry":"captured","amount_minor":500,"currency":"CNY"}
{"entry":"refunded","amount_minor":200,"currency":"CNY"}"#;
        let found = provider(file).unwrap()["money:CNY"];
        assert_eq!((found.opened, found.returned, found.left), (Some(500), Some(200), Some(300)));
        assert!(provider("{").is_err());
    }
}
