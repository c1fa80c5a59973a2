//! The sale file: what a demo run sells, to whom, and what each buyer does. docs/sale-file.md describes the format.
//!
//! One JSON object a line, so that a database query can write it, a diff can show it, and an error can name its line.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Most lines one order may have; what `flash_sale_order` accepts.
pub(crate) const MAX_LINES: usize = 20;

/// Largest amount, 2^53-1: what every JSON reader keeps exactly.
const MAX_AMOUNT: i64 = (1 << 53) - 1;

/// A whole, checked sale.
#[derive(Debug, Default)]
pub(crate) struct Sale {
    pub(crate) header: Header,
    pub(crate) promotions: Vec<Promotion>,
    pub(crate) goods: Vec<Goods>,
    pub(crate) customers: Vec<Customer>,
    pub(crate) journeys: Vec<Journey>,
    promotion_index: FxHashMap<String, usize>,
    goods_index: FxHashMap<String, usize>,
    customer_index: FxHashMap<String, usize>,
    order_index: FxHashMap<String, usize>,
    coupon_value_minor: FxHashMap<String, i64>,
}

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    Sale(Header),
    Promotion(Promotion),
    Goods(Goods),
    Customer(Customer),
    Journey(Journey),
}

/// The first line.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    /// Version of the format: 1.
    pub(crate) version: u32,
    /// For people.
    pub(crate) name: String,
    /// ISO 4217; all amounts of the file are its minor units.
    pub(crate) currency: String,
}

/// A promotion: how long its orders may stay unpaid, and when they take stock.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Promotion {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) stock_strategy: StockStrategy,
    pub(crate) pay_within_s: i64,
}

/// When an order takes stock (B10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StockStrategy {
    /// Held at the order, released when it lapses.
    Reserve,
    /// Deducted at the order.
    AtOrder,
    /// Deducted once it is paid.
    AtPayment,
}

/// Something to sell.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Goods {
    pub(crate) sku: String,
    pub(crate) name: String,
    pub(crate) price_minor: i64,
    pub(crate) stock: i64,
    /// Stock that catches payments which find the main stock empty.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) standby: i64,
}

/// Somebody who buys.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Customer {
    pub(crate) id: String,
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) points: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) coupons: Vec<Coupon>,
}

/// A coupon of one customer, worth an amount off one order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Coupon {
    pub(crate) id: String,
    pub(crate) value_minor: i64,
}

/// One order and what its buyer does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Journey {
    /// The order's number.
    pub(crate) order: String,
    /// When it is placed, after the sale opens.
    pub(crate) at_ms: u64,
    pub(crate) customer: String,
    pub(crate) promotion: String,
    pub(crate) lines: Vec<OrderLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) coupon: Option<String>,
    /// Points to spend; one point is worth one minor unit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) points: i64,
    pub(crate) story: Story,
}

/// Goods in an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderLine {
    pub(crate) sku: String,
    pub(crate) quantity: i64,
}

/// What a buyer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Story {
    /// Pays.
    Pay,
    /// Pays; the callback comes eight times.
    PayRepeated,
    /// Pays twice, under two payment numbers.
    PayTwice,
    /// Pays after the order has lapsed.
    PayLate,
    /// Pays another amount than is due, and never the right one.
    PayWrongAmount,
    /// Never pays.
    Lapse,
    /// Cancels instead of paying.
    CancelBeforePayment,
    /// Pays and cancels at once; if the order is complete by then, asks for a refund of all of it.
    CancelAfterPayment,
    /// Risk control cancels, before or while the buyer pays.
    RiskCancel,
    /// The warehouse finds its shelf empty and cancels.
    WarehouseCancel,
    /// Pays, and gives back the first line once the order is complete.
    RefundLine,
    /// Pays for goods that are, or are about to be, sold out.
    ShortStock,
    /// The same with standby stock behind them.
    ShortStockStandby,
    /// Uses a coupon that another order uses too.
    CouponReused,
    /// Spends more points than there are.
    TooFewPoints,
}

impl Story {
    /// All stories, in the order of the report.
    pub(crate) const ALL: [Self; 15] = [
        Self::Pay,
        Self::PayRepeated,
        Self::PayTwice,
        Self::PayLate,
        Self::PayWrongAmount,
        Self::Lapse,
        Self::CancelBeforePayment,
        Self::CancelAfterPayment,
        Self::RiskCancel,
        Self::WarehouseCancel,
        Self::RefundLine,
        Self::ShortStock,
        Self::ShortStockStandby,
        Self::CouponReused,
        Self::TooFewPoints,
    ];

    /// The row's name in the report.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Pay => "buy and pay",
            Self::PayRepeated => "pay, callback 8 times",
            Self::PayTwice => "pay twice, two numbers",
            Self::PayLate => "pay after the limit",
            Self::PayWrongAmount => "pay a wrong amount",
            Self::Lapse => "never pay",
            Self::CancelBeforePayment => "cancel before payment",
            Self::CancelAfterPayment => "cancel after payment",
            Self::RiskCancel => "cancelled by risk control",
            Self::WarehouseCancel => "cancelled by warehouse",
            Self::RefundLine => "refund of a line",
            Self::ShortStock => "short stock",
            Self::ShortStockStandby => "short stock, standby",
            Self::CouponReused => "coupon already used",
            Self::TooFewPoints => "not enough points",
        }
    }
}

/// Why a sale file is refused, and where.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}:{column}: error[{code}]: {reason}", file.display())]
pub(crate) struct SaleError {
    file: PathBuf,
    line: usize,
    column: usize,
    code: &'static str,
    reason: String,
}

impl Sale {
    /// Reads and checks a sale; `file` is only named in errors.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, SaleError> {
        let mut sale = Self::default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let fail = |column, (code, reason): (&'static str, String)| SaleError {
                file: file.to_owned(),
                line: number + 1,
                column,
                code,
                reason,
            };
            let parsed: Line = serde_json::from_str(line).map_err(|error| {
                let place = format!(" at line {} column {}", error.line(), error.column());
                fail(error.column(), ("E2901", error.to_string().replace(&place, "")))
            })?;
            sale.take(parsed).map_err(|problem| fail(1, problem))?;
        }
        if sale.journeys.is_empty() {
            let line = text.lines().count().max(1);
            let reason = "the sale has no journey: expected at least one {\"journey\": ...} line".to_owned();
            return Err(SaleError { file: file.to_owned(), line, column: 1, code: "E2902", reason });
        }
        // The driver places orders by time, whatever order the file has.
        sale.journeys.sort_by_key(|journey| journey.at_ms);
        Ok(sale)
    }

    /// The promotion of a journey.
    pub(crate) fn promotion_of(&self, journey: &Journey) -> &Promotion {
        &self.promotions[self.promotion_index[&journey.promotion]]
    }

    /// The goods of an order line.
    pub(crate) fn goods_of(&self, line: &OrderLine) -> &Goods {
        &self.goods[self.goods_index[&line.sku]]
    }

    /// Full price of an order.
    pub(crate) fn total_minor(&self, journey: &Journey) -> i64 {
        journey.lines.iter().map(|line| self.goods_of(line).price_minor * line.quantity).sum()
    }

    /// What its coupon and points take off.
    pub(crate) fn discount_minor(&self, journey: &Journey) -> i64 {
        journey.points + journey.coupon.as_ref().map_or(0, |coupon| self.coupon_value_minor[coupon])
    }

    fn take(&mut self, line: Line) -> Result<(), (&'static str, String)> {
        if self.header.version == 0 && !matches!(line, Line::Sale(_)) {
            return Err(("E2902", "the first line must be {\"sale\": {\"version\": 1, ...}}".to_owned()));
        }
        match line {
            Line::Sale(header) => self.take_header(header),
            Line::Promotion(promotion) => {
                within("pay_within_s", promotion.pay_within_s, 1, 2_592_000)?;
                index("promotion", &mut self.promotion_index, &promotion.id, self.promotions.len())?;
                self.promotions.push(promotion);
                Ok(())
            }
            Line::Goods(goods) => {
                within("price_minor", goods.price_minor, 1, 1_000_000_000)?;
                within("stock", goods.stock, 0, MAX_AMOUNT)?;
                within("standby", goods.standby, 0, MAX_AMOUNT)?;
                index("goods", &mut self.goods_index, &goods.sku, self.goods.len())?;
                self.goods.push(goods);
                Ok(())
            }
            Line::Customer(customer) => self.take_customer(customer),
            Line::Journey(journey) => self.take_journey(journey),
        }
    }

    fn take_header(&mut self, header: Header) -> Result<(), (&'static str, String)> {
        if self.header.version != 0 {
            return Err(("E2904", "a second {\"sale\": ...} line".to_owned()));
        }
        if header.version != 1 {
            return Err((
                "E2902",
                format!("version {} of the format is unknown: this program reads 1", header.version),
            ));
        }
        if header.currency.len() != 3 || !header.currency.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(("E2905", format!("currency `{}` is not an ISO 4217 code such as CNY", header.currency)));
        }
        self.header = header;
        Ok(())
    }

    fn take_customer(&mut self, customer: Customer) -> Result<(), (&'static str, String)> {
        within("points", customer.points, 0, MAX_AMOUNT)?;
        index("customer", &mut self.customer_index, &customer.id, self.customers.len())?;
        for coupon in &customer.coupons {
            within("value_minor", coupon.value_minor, 1, 1_000_000_000)?;
            if self.coupon_value_minor.insert(coupon.id.clone(), coupon.value_minor).is_some() {
                return Err(("E2904", format!("coupon `{}` is already somebody's", coupon.id)));
            }
        }
        self.customers.push(customer);
        Ok(())
    }

    fn take_journey(&mut self, journey: Journey) -> Result<(), (&'static str, String)> {
        let known = |what, found: bool, id: &str| {
            let reason = || format!("{what} `{id}` is not in the lines above");
            if found { Ok(()) } else { Err(("E2903", reason())) }
        };
        known("promotion", self.promotion_index.contains_key(&journey.promotion), &journey.promotion)?;
        known("customer", self.customer_index.contains_key(&journey.customer), &journey.customer)?;
        within("lines", journey.lines.len() as i64, 1, MAX_LINES as i64)?;
        for line in &journey.lines {
            known("goods", self.goods_index.contains_key(&line.sku), &line.sku)?;
            within("quantity", line.quantity, 1, 1_000)?;
        }
        if let Some(coupon) = &journey.coupon {
            known("coupon", self.coupon_value_minor.contains_key(coupon), coupon)?;
        }
        within("points", journey.points, 0, MAX_AMOUNT)?;
        within("at_ms", i64::try_from(journey.at_ms).unwrap_or(i64::MAX), 0, 3_600_000)?;
        let due = self.total_minor(&journey) - self.discount_minor(&journey);
        if due < 0 {
            let reason = format!("coupon and points are worth {} more than the goods", -due);
            return Err(("E2905", reason));
        }
        index("order", &mut self.order_index, &journey.order, self.journeys.len())?;
        self.journeys.push(journey);
        Ok(())
    }
}

fn within(field: &str, value: i64, low: i64, high: i64) -> Result<(), (&'static str, String)> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(("E2905", format!("{field} is {value}: expected {low} to {high}")))
    }
}

fn index(
    what: &str,
    index: &mut FxHashMap<String, usize>,
    id: &str,
    place: usize,
) -> Result<(), (&'static str, String)> {
    if id.is_empty() || id.len() > 64 {
        return Err(("E2905", format!("the id of a {what} must have 1 to 64 characters")));
    }
    match index.insert(id.to_owned(), place) {
        None => Ok(()),
        Some(_) => Err(("E2904", format!("{what} `{id}` is there already"))),
    }
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"{"sale":{"version":1,"name":"s","currency":"CNY"}}
{"promotion":{"id":"P","name":"p","stock_strategy":"reserve","pay_within_s":3}}
{"goods":{"sku":"A","name":"a","price_minor":500,"stock":3}}
{"customer":{"id":"u","name":"李","points":9,"coupons":[{"id":"C","value_minor":100}]}}
"#;

    fn refusal(text: &str) -> String {
        Sale::parse(Path::new("s.ndjson"), text).expect_err("a bad sale is refused").to_string()
    }

    fn journey(part: &str) -> String {
        let body = r#""customer":"u","promotion":"P","lines":[{"sku":"A","quantity":1}],"story":"pay""#;
        format!("{HEAD}{{\"journey\":{{\"order\":\"1\",\"at_ms\":0,{}}}}}\n", if part.is_empty() { body } else { part })
    }

    #[test]
    fn a_good_sale_is_read_with_its_amounts() {
        let part = r#""customer":"u","promotion":"P","lines":[{"sku":"A","quantity":2}],"coupon":"C","points":9,"story":"lapse""#;
        let sale = Sale::parse(Path::new("s.ndjson"), &journey(part)).unwrap();
        let journey = &sale.journeys[0];
        assert_eq!((sale.total_minor(journey), sale.discount_minor(journey)), (1_000, 109));
        assert_eq!(sale.promotion_of(journey).pay_within_s, 3);
    }

    #[test]
    fn a_bad_sale_is_refused_with_place_code_and_reason() {
        let cases = [
            (String::new(), "s.ndjson:1:1: error[E2902]: the sale has no journey"),
            (HEAD.to_owned(), "s.ndjson:4:1: error[E2902]: the sale has no journey"),
            ("{\"goods\":{".to_owned(), "s.ndjson:1:10: error[E2901]: EOF"),
            (HEAD.replace("\"version\":1", "\"version\":2"), "s.ndjson:1:1: error[E2902]: version 2"),
            (HEAD.replace("\"stock\":3", "\"stok\":3"), "s.ndjson:3:55: error[E2901]: unknown field `stok`"),
            (HEAD.replace("\"stock\":3", "\"stock\":-3"), "s.ndjson:3:1: error[E2905]: stock is -3"),
            (HEAD.replace("\"stock\":3", "\"stock\":1.5"), "error[E2901]: invalid type"),
            (HEAD.replace("reserve", "later"), "error[E2901]: unknown variant `later`"),
            (HEAD.replace("CNY", "yuan"), "s.ndjson:1:1: error[E2905]: currency `yuan`"),
            (format!("{HEAD}{HEAD}"), "s.ndjson:5:1: error[E2904]: a second"),
            (
                format!("{0}{1}", journey(""), journey("").lines().last().unwrap()),
                "s.ndjson:6:1: error[E2904]: order `1`",
            ),
            (journey("").replace("\"u\",\"promo", "\"v\",\"promo"), "s.ndjson:5:1: error[E2903]: customer `v`"),
            (journey("").replace("\"A\",\"quantity\":1", "\"A\",\"quantity\":0"), "error[E2905]: quantity is 0"),
            (journey("").replace(",\"story\"", ",\"points\":501,\"story\""), "error[E2905]: coupon and points"),
            (journey("").replace("\"pay\"", "\"pray\""), "error[E2901]: unknown variant `pray`"),
        ];
        for (text, expected) in cases {
            let error = refusal(&text);
            assert!(error.contains(expected), "{text}\n{error}\n{expected}");
        }
    }

    #[test]
    fn the_shipped_sale_is_what_its_seed_makes_and_is_whole() {
        assert_eq!(crate::demo::SHIPPED_SALE, crate::demo::generate::generate(crate::demo::SHIPPED_SEED));
        let sale = Sale::parse(Path::new("demo/sale.ndjson"), crate::demo::SHIPPED_SALE).unwrap();
        assert!(sale.journeys.len() >= 3_000);
        for story in Story::ALL {
            assert!(sale.journeys.iter().any(|journey| journey.story == story), "nobody has the story {story:?}");
        }
    }
}
