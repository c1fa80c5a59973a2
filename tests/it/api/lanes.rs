//! Test and load traffic beside live traffic: neither moves what belongs to the other, and a number is one saga in all.

use super::*;

const WAIT: (&str, &str) = ("prefer", "wait=20");
const TEST: (&str, &str) = ("endstate-lane", "test");

/// Five packs of tea on the shelf of each lane, and the test order `O-1` for two of them, which has completed.
async fn with_test_order() -> Server {
    let server = with_tea().await;
    let lines =
        json!([{"participant": "stock", "action": "open", "with": {"unit": "tea", "quantity": 5, "standby": false}}]);
    server.post_with("/v1/operations", &[TEST], &json!({"operation": "open-test", "lines": lines})).await;
    server.until("/v1/operations/open-test", |answer| answer.body["items"][0]["verdict"] == "done").await;
    let mut order = order("O-1", "ann", 0);
    order["lines"][0]["quantity"] = 2.into();
    let placed = server.post_with("/v1/orders", &[WAIT, TEST], &order).await;
    assert_eq!(placed.body["outcome"], "completed", "{}", placed.body);
    server
}

fn refund(number: &str) -> Value {
    json!({"order_no": "O-1", "refund_no": number, "reason": "broken", "needs_approval": false,
        "lines": [{"line_no": "1", "quantity": 2}]})
}

async fn book(server: &Server, asset: &str) -> Value {
    let books = server.get("/v1/books").await.body;
    books["items"].as_array().unwrap().iter().find(|book| book["asset"] == asset).cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_refund_of_a_test_order_runs_in_its_lane_and_moves_no_live_stock() {
    let server = with_test_order().await;
    let live = book(&server, "stock:tea").await;
    assert_eq!((&live["left"], &book(&server, "test/stock:tea").await["left"]), (&json!(5), &json!(3)));
    for lane in ["live", "load"] {
        let headers = [("endstate-lane", lane)];
        let refused = server.post_with("/v1/sagas/refund_order", &headers, &refund("R-1")).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, "E2007"), "{lane}");
        assert!(refused.body["detail"].as_str().unwrap().contains("lane test"), "{}", refused.body);
    }
    let refunded = server.post_with("/v1/sagas/refund_order", &[WAIT], &refund("R-1")).await;
    assert_eq!(refunded.body["status"], "refunded", "{}", refunded.body);
    assert_eq!(book(&server, "stock:tea").await, live);
    assert_eq!(book(&server, "test/stock:tea").await["left"], 5);
    let repeated = server.post_with("/v1/sagas/refund_order", &[WAIT, TEST], &refund("R-1")).await;
    assert_eq!(repeated.headers["idempotent-replayed"], "true", "that is the lane it ran in");
}

#[tokio::test]
async fn a_number_that_a_rehearsal_has_used_is_not_answered_with_the_rehearsal() {
    let server = with_tea().await;
    let order = order("O-1", "ann", 0);
    let rehearsal = [WAIT, ("endstate-lane", "load")];
    let first = server.post_with("/v1/orders", &rehearsal, &order).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.body);
    let live = server.post_with("/v1/orders", &[WAIT], &order).await;
    assert_eq!((live.status, live.code()), (StatusCode::CONFLICT, "E2301"));
    let again = server.post_with("/v1/orders", &rehearsal, &order).await;
    assert_eq!(again.headers["idempotent-replayed"], "true", "{}", again.body);
    assert_eq!(again.body["saga"], first.body["saga"]);
}
