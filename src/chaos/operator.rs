//! A person who looks: has what is parked go on, and closes the discrepancies that a case makes on purpose. After a promotion
//! there may be refunds that no retry ends, because the money has gone back already: those sagas the person forces; and
//! orders whose participant now says that it has let go of what they count on: those the person turns back.

use super::load::Load;
use super::twice;
use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// How often the person looks.
const AGAIN: Duration = Duration::from_millis(500);

/// What a message that cannot be read leaves behind when its saga had ended.
const EXPLAINED: &str = "dead_letter";

/// What a forced end leaves behind for a refund that was not made.
const NOT_DONE: &str = "not_done";

/// The status of an order, or of a payment's refund, that is parked at its refund.
const REFUND_FAILED: &str = "refund_failed";

/// The refusal of a refund whose money has gone back already.
const EXCEEDED: &str = "payment.exceeded";

/// Refusals after which the person stops asking: the first one's, and two retries'.
const ENOUGH: usize = 3;

/// Looks until dropped; ends only with an error.
pub(super) async fn work(load: &Load) -> anyhow::Error {
    loop {
        if let Err(error) = look(load).await {
            return error;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn look(load: &Load) -> anyhow::Result<()> {
    let office = &load.run.office;
    let promoted = load.run.promoted().is_some();
    let parked = office.must(Method::GET, "/v1/sagas?phase=parked&limit=200", None, None).await?;
    let parked = parked["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    for saga in parked.iter().filter(|saga| !promoted || is_its_turn(saga, parked)) {
        let path = format!("/v1/sagas/{}/{}", text(saga, "definition"), text(saga, "number"));
        let timeline = match promoted {
            true => office.call(Method::GET, &format!("{path}/timeline"), None, None).await?.body,
            false => Value::Null,
        };
        if saga["status"] == REFUND_FAILED && is_past_help(&timeline) {
            act(load, &format!("{path}/force"), &json!({ "reason": "went back already", "end": "cancelled" })).await?;
            continue;
        }
        if is_contradicted(&timeline) {
            act(load, &format!("{path}/compensate"), &json!({ "reason": "nothing to go on with" })).await?;
            continue;
        }
        act(load, &format!("{path}/retry"), &json!({ "reason": "looked at" })).await?;
    }
    let open = office.must(Method::GET, "/v1/discrepancies?state=open&limit=200", None, None).await?;
    let open = open["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let forced: BTreeSet<String> = match promoted && open.iter().any(|item| item["kind"] == NOT_DONE) {
        true => twice::forced_sagas(load).await?.iter().map(|saga| text(saga, "saga").to_owned()).collect(),
        false => BTreeSet::new(),
    };
    for item in open {
        let reason = if item["kind"] == EXPLAINED {
            "the message was made unreadable on purpose"
        } else if item["kind"] == NOT_DONE && forced.contains(text(item, "saga")) {
            "its money had gone back already"
        } else {
            continue;
        };
        let path = format!("/v1/discrepancies/{}/close", item["id"]);
        act(load, &path, &json!({ "state": "explained", "reason": reason })).await?;
    }
    Ok(())
}

fn text<'a>(item: &'a Value, name: &str) -> &'a str {
    item[name].as_str().unwrap_or_default()
}

/// What the person does; refused only when the saga went on by itself meanwhile, or is not there yet after a promotion.
async fn act(load: &Load, path: &str, body: &Value) -> anyhow::Result<()> {
    let answer = load.run.office.call(Method::POST, path, None, Some(body)).await?;
    let status = answer.status.as_u16();
    let is_passed = status == 409 || status == 404 && load.run.promoted().is_some();
    ensure!(answer.status.is_success() || is_passed, "{path}: {} {}", answer.status, answer.body);
    Ok(())
}

/// An order and the refund of its payment may want the same money back, and refuse each other while both ask: the orders
/// wait until no payment's refund is parked.
fn is_its_turn(saga: &Value, parked: &[Value]) -> bool {
    let is_failed =
        |saga: &Value, definition: &str| saga["definition"] == definition && saga["status"] == REFUND_FAILED;
    !is_failed(saga, twice::ORDER) || !parked.iter().any(|other| is_failed(other, twice::PAYMENT))
}

/// Whether the saga's refund was refused again and again because the money has gone back.
fn is_past_help(timeline: &Value) -> bool {
    let of_refund =
        timeline["items"].as_array().into_iter().flatten().filter(|entry| entry["data"]["step"] == "refund");
    let refused = of_refund.map(|entry| entry["event"] == "run_refused" && entry["data"]["code"] == EXCEEDED);
    let (mut refusals, mut last) = (0, false);
    for is_refused in refused {
        refusals += usize::from(is_refused);
        last = is_refused;
    }
    last && refusals >= ENOUGH
}

/// Whether a participant contradicts what the saga knows, while it still goes forward.
fn is_contradicted(timeline: &Value) -> bool {
    let (mut contradicted, mut forward) = (false, true);
    for entry in timeline["items"].as_array().into_iter().flatten() {
        match entry["event"].as_str().unwrap_or_default() {
            "contradicted" => contradicted = true,
            "contradiction_accepted" => contradicted = false,
            "turned_back" => forward = false,
            _ => {}
        }
    }
    contradicted && forward
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refund_that_was_refused_again_and_again_is_past_help() {
        let entry = |event: &str, step: &str, code: &str| json!({"event": event, "data": {"step": step, "code": code}});
        let refused = || entry("run_refused", "refund", EXCEEDED);
        let retried = || entry("run_retried", "refund", "");
        let is_past_help = |entries: &[Value]| is_past_help(&json!({ "items": entries }));
        let thrice = [refused(), retried(), refused(), retried(), refused()];
        assert!(is_past_help(&thrice));
        assert!(!is_past_help(&thrice[..3]), "once more");
        assert!(!is_past_help(&thrice[..4]), "it has not been answered");
        let other = || entry("run_refused", "refund", "payment.unknown");
        assert!(!is_past_help(&[other(), retried(), other(), retried(), other()]), "another refusal");
        let stock = || entry("run_refused", "take_stock", EXCEEDED);
        assert!(!is_past_help(&[stock(), stock(), stock()]), "another step");
    }

    #[test]
    fn only_a_saga_that_goes_forward_is_turned_back_by_a_contradiction() {
        let is_contradicted = |events: &[&str]| {
            let items: Vec<Value> = events.iter().map(|event| json!({ "event": event, "data": {} })).collect();
            is_contradicted(&json!({ "items": items }))
        };
        assert!(is_contradicted(&["started", "contradicted", "run_done"]));
        assert!(!is_contradicted(&["started", "contradicted", "contradiction_accepted"]));
        assert!(!is_contradicted(&["started", "turned_back", "contradicted"]));
        assert!(!is_contradicted(&["started", "run_refused"]));
    }

    #[test]
    fn an_order_waits_for_the_refund_of_a_payment() {
        let saga = |definition: &str, status: &str| json!({ "definition": definition, "status": status });
        let order = saga(twice::ORDER, REFUND_FAILED);
        let payment = saga(twice::PAYMENT, REFUND_FAILED);
        assert!(is_its_turn(&order, std::slice::from_ref(&order)));
        let parked = [order, payment, saga(twice::ORDER, "paid")];
        let turns: Vec<bool> = parked.iter().map(|saga| is_its_turn(saga, &parked)).collect();
        assert_eq!(turns, [false, true, true]);
    }
}
