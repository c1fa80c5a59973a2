//! What was told before a promotion may be lost with the last commits, and be decided anew, perhaps otherwise: so every order
//! and every refund is looked at again before the books are compared. What was told since the promotion must still be so.

use super::load::Load;
use crate::demo::journal::{Told, ended};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Between two looks at what has not ended.
const AGAIN: Duration = Duration::from_millis(200);

/// What a second look at everything found.
#[derive(Default)]
pub(super) struct Anew {
    /// What is told now.
    pub(super) orders: Vec<Told>,
    pub(super) wrong: Vec<String>,
    pub(super) expected: Vec<String>,
}

/// Looks at every order and refund again, until each has its end or for `limit`.
pub(super) async fn look(load: &Load, told: &[Told], limit: Duration) -> anyhow::Result<Anew> {
    let started = Instant::now();
    let shop = &load.run.office;
    let mut anew = Anew::default();
    for before in told {
        let mut now = before.clone();
        loop {
            let order = shop.order(&before.order).await?;
            let is_known = order.status.is_success();
            now.last = order.body;
            if let Some(refund) = before.refund.as_ref().and_then(|refund| refund["number"].as_str()) {
                now.refund = Some(shop.refund_view(refund).await?.body);
            }
            if is_known && now.is_final() || started.elapsed() > limit {
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        anew.add(before, now, load.run.promoted());
    }
    Ok(anew)
}

impl Anew {
    fn add(&mut self, before: &Told, now: Told, promoted: Option<Instant>) {
        if !now.is_final() {
            self.wrong.push(format!("order {} is not final any more: {}", now.order, now.last));
        }
        let refund = before.refund.as_ref().zip(now.refund.as_ref());
        let views = [
            ("order", Some((&before.last, &now.last)), before.last_asked),
            ("refund of order", refund, before.refund_asked),
        ];
        for (what, (then, now), asked) in views.into_iter().filter_map(|(what, both, asked)| Some((what, both?, asked)))
        {
            if !ended(then) || outcome(then) == outcome(now) {
                continue;
            }
            let text = format!("the {what} {} was {}, and is {}", before.order, outcome(then), outcome(now));
            match asked.zip(promoted).is_some_and(|(asked, promoted)| asked <= promoted) {
                true => self.expected.push(format!("as expected: decided anew: {text}")),
                false => self.wrong.push(format!("{text}, though it was told after the promotion")),
            }
        }
        self.orders.push(now);
    }
}

fn outcome(view: &Value) -> &str {
    view["outcome"].as_str().unwrap_or("open")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::sale::Sale;
    use serde_json::json;
    use std::path::Path;

    const SALE: &str = r#"{"sale":{"version":1,"name":"s","currency":"CNY"}}
{"promotion":{"id":"P","name":"p","stock_strategy":"reserve","pay_within_s":3}}
{"goods":{"sku":"A","name":"a","price_minor":1000,"stock":9}}
{"customer":{"id":"u","name":"u","points":0,"coupons":[]}}
{"journey":{"order":"1","at_ms":0,"customer":"u","promotion":"P","lines":[{"sku":"A","quantity":2}],"story":"pay"}}"#;

    #[test]
    fn only_what_was_told_before_the_promotion_may_end_otherwise() {
        let sale = Sale::parse(Path::new("s"), SALE).unwrap();
        let view = |outcome: &str| json!({"phase": "ended", "outcome": outcome});
        let asked = Instant::now();
        let (earlier, later) = (asked.checked_sub(Duration::from_secs(1)), asked.checked_add(Duration::from_secs(1)));
        let told = |outcome: &str, refund: &str| Told {
            last: view(outcome),
            last_asked: Some(asked),
            refund: Some(view(refund)),
            refund_asked: Some(asked),
            ..Told::new(&sale.journeys[0])
        };
        let found = |before: &Told, now: Told, promoted: Option<Instant>| {
            let mut anew = Anew::default();
            anew.add(before, now, promoted);
            (anew.wrong.len(), anew.expected.len())
        };
        let before = told("completed", "completed");
        for promoted in [None, earlier, later] {
            assert_eq!(found(&before, told("completed", "completed"), promoted), (0, 0), "{promoted:?}");
        }
        assert_eq!(found(&before, told("cancelled", "reversed"), later), (0, 2), "both were told before");
        assert_eq!(found(&before, told("cancelled", "completed"), earlier), (1, 0), "told since");
        assert_eq!(found(&before, told("completed", "reversed"), None), (1, 0), "nothing was promoted");
        let open = Told { last: json!({"phase": "waiting"}), ..told("", "completed") };
        assert_eq!(found(&before, open, later), (1, 1), "it must end again");
    }
}
