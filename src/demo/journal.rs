//! The driver's own record: what the HTTP answers said about each order. One of the three books.

use super::sale::{Journey, Sale, Story};
use serde::Serialize;
use serde_json::Value;
use std::time::Instant;

/// What the driver was told about one order.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Told {
    pub(crate) order: String,
    pub(crate) story: Story,
    /// Answers that accepted the order: the first, and one for each repeat.
    pub(crate) accepted: u32,
    /// Requests to cancel that were accepted.
    pub(crate) cancels: u32,
    /// Payments made at the provider: (its number, minor units).
    pub(crate) paid: Vec<(String, i64)>,
    /// How often it was said to be unknown although it was accepted; only after a promotion.
    pub(crate) unknown: u32,
    /// The order's last view.
    pub(crate) last: Value,
    /// When that view was asked for.
    #[serde(skip)]
    pub(crate) last_asked: Option<Instant>,
    /// The last view of the refund the buyer asked for, if any.
    pub(crate) refund: Option<Value>,
    /// When that view was asked for.
    #[serde(skip)]
    pub(crate) refund_asked: Option<Instant>,
    /// Answers that no buyer should get.
    pub(crate) surprises: Vec<String>,
}

impl Told {
    pub(crate) fn new(journey: &Journey) -> Self {
        Self {
            order: journey.order.clone(),
            story: journey.story,
            accepted: 0,
            cancels: 0,
            paid: Vec::new(),
            unknown: 0,
            last: Value::Null,
            last_asked: None,
            refund: None,
            refund_asked: None,
            surprises: Vec::new(),
        }
    }

    /// The order's last status.
    pub(crate) fn status(&self) -> &str {
        self.last["status"].as_str().unwrap_or("unknown")
    }

    /// Its outcome; empty while it has none.
    pub(crate) fn outcome(&self) -> &str {
        self.last["outcome"].as_str().unwrap_or_default()
    }

    /// Whether the order, and the refund asked for it, have ended.
    pub(crate) fn is_final(&self) -> bool {
        ended(&self.last) && self.refund.as_ref().is_none_or(ended)
    }
}

/// Whether a view is of a saga that has ended.
pub(crate) fn ended(view: &Value) -> bool {
    view["phase"] == "ended"
}

/// What one order used in the end, by its last views: the journal's side of the books.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Money the shop keeps.
    pub(crate) kept_minor: i64,
    /// Units sold, by SKU.
    pub(crate) units: Vec<(String, i64)>,
    /// The coupon, when it is used up.
    pub(crate) coupon: Option<String>,
    /// Points spent.
    pub(crate) points_spent: i64,
    /// Points earned.
    pub(crate) points_earned: i64,
}

impl Used {
    /// An order that completed used everything; what a refund gave back is taken off again.
    pub(crate) fn of(sale: &Sale, journey: &Journey, told: &Told) -> Self {
        if told.outcome() != "completed" {
            return Self::default();
        }
        let (total, discount) = (sale.total_minor(journey), sale.discount_minor(journey));
        let mut used = Self {
            kept_minor: total - discount,
            units: journey.lines.iter().map(|line| (line.sku.clone(), line.quantity)).collect(),
            coupon: journey.coupon.clone(),
            points_spent: journey.points,
            points_earned: (total - discount) / 100,
        };
        if let Some(refund) = told.refund.as_ref().filter(|refund| refund["outcome"] == "completed") {
            used.give_back(journey, total, &refund["view"]);
        }
        used
    }

    fn give_back(&mut self, journey: &Journey, total: i64, view: &Value) {
        let mut gross = 0;
        for line in view["lines"].as_array().into_iter().flatten() {
            let (quantity, price) = (line["quantity"].as_i64().unwrap_or(0), line["price_minor"].as_i64().unwrap_or(0));
            gross += quantity * price;
            self.units.push((line["sku"].as_str().unwrap_or_default().to_owned(), -quantity));
        }
        let refunded = view["refund_minor"].as_i64().unwrap_or(0);
        self.kept_minor -= refunded;
        self.points_earned -= refunded / 100;
        // The same share of the points as of the money, rounded down.
        self.points_spent -= (i128::from(journey.points) * i128::from(gross) / i128::from(total.max(1))) as i64;
        if gross == total {
            self.coupon = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::Path;

    const SALE: &str = r#"{"sale":{"version":1,"name":"s","currency":"CNY"}}
{"promotion":{"id":"P","name":"p","stock_strategy":"reserve","pay_within_s":3}}
{"goods":{"sku":"A","name":"a","price_minor":1000,"stock":9}}
{"goods":{"sku":"B","name":"b","price_minor":500,"stock":9}}
{"customer":{"id":"u","name":"u","points":100,"coupons":[{"id":"C","value_minor":50}]}}
{"journey":{"order":"1","at_ms":0,"customer":"u","promotion":"P","lines":[{"sku":"A","quantity":2},{"sku":"B","quantity":1}],"coupon":"C","points":100,"story":"refund_line"}}"#;

    #[test]
    fn a_refund_of_a_line_takes_its_share_off() {
        let sale = Sale::parse(Path::new("s"), SALE).unwrap();
        let journey = &sale.journeys[0];
        let mut told = Told::new(journey);
        assert_eq!(Used::of(&sale, journey, &told), Used::default());

        told.last = json!({"phase": "ended", "outcome": "completed"});
        let used = Used::of(&sale, journey, &told);
        assert_eq!((used.kept_minor, used.points_spent, used.points_earned), (2_350, 100, 23));
        assert_eq!(used.coupon.as_deref(), Some("C"));

        let lines = json!([{"line_no": "1", "sku": "A", "quantity": 2, "price_minor": 1000}]);
        told.refund = Some(json!({"outcome": "completed", "view": {"refund_minor": 1880, "lines": lines}}));
        let used = Used::of(&sale, journey, &told);
        assert_eq!((used.kept_minor, used.points_spent, used.points_earned), (470, 20, 5));
        assert_eq!(used.units.iter().filter(|(sku, _)| sku == "A").map(|(_, n)| n).sum::<i64>(), 0);
    }
}
