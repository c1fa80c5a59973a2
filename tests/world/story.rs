//! One order told by hand: the plainest one, for stories and cases to change.

use super::journey::{Act, Doing, Order};
use endstate_events::Json;
use serde_json::json;

/// One line, nothing special.
pub(crate) fn input(number: &str, user: &str, points: i64) -> Json {
    json!({
        "order_no": number, "user_id": user, "activity_id": "spring", "store": "harbour", "currency": "CNY",
        "total_minor": 50_000, "discount_minor": 0, "points": points, "stock_strategy": "reserve", "pay_within_s": 600,
        "lines": [{ "line_no": "0", "sku": "tea", "quantity": 1, "price_minor": 50_000 }],
    })
}

/// That order, and what happens around it.
pub(crate) fn order(number: &str, user: &str, points: i64, acts: Vec<(i64, Doing)>) -> Order {
    let acts = std::iter::once((0, Doing::Start)).chain(acts);
    let acts = acts.map(|(after_ms, doing)| Act { after_ms, doing }).collect();
    let (journey, definition) = ("pays", "flash_sale_order");
    let (number, input) = (number.to_owned(), input(number, user, points));
    Order { journey, definition, number, input, acts, ready_ms: 0, exact: true }
}

/// Pays what is due, and the provider tells it that often.
pub(crate) fn pays(callbacks: u32) -> Doing {
    Doing::Pay { wrong_by: 0, currency: "CNY", late: false, callbacks }
}
