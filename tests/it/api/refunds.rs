//! Refunds of lines: of completed orders only, and each unit once.

use super::*;

const WAIT: (&str, &str) = ("prefer", "wait=20");

fn refund(number: &str, order: &str, quantity: i64) -> Value {
    json!({"order_no": order, "refund_no": number, "reason": "broken", "needs_approval": false,
        "lines": [{"line_no": "1", "quantity": quantity}]})
}

async fn refunded(server: &Server, number: &str, quantity: i64) -> Value {
    let answer = server.post_with("/v1/sagas/refund_order", &[WAIT], &refund(number, "O-1", quantity)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.body["status"].clone()
}

async fn tea(server: &Server) -> Value {
    let books = server.get("/v1/books").await;
    let items = books.body["items"].as_array().unwrap();
    assert!(items.iter().all(|book| book["balanced"] == true), "{}", books.body);
    items.iter().find(|book| book["asset"] == "stock:tea").unwrap().clone()
}

async fn with_order(quantity: i64) -> Server {
    let server = with_tea().await;
    let mut order = order("O-1", "ann", 0);
    order["lines"][0]["quantity"] = quantity.into();
    let placed = server.post_with("/v1/orders", &[WAIT], &order).await;
    assert_eq!(placed.body["outcome"], "completed", "{}", placed.body);
    server
}

#[tokio::test]
async fn a_line_is_refunded_up_to_what_was_ordered_and_no_further() {
    let server = with_order(3).await;
    assert_eq!(refunded(&server, "R-1", 4).await, "refund_refused", "more than was ordered");
    assert_eq!(refunded(&server, "R-2", 2).await, "refunded");
    assert_eq!(refunded(&server, "R-3", 2).await, "refund_refused", "one is left");
    let reason = server.get("/v1/sagas/refund_order/R-3").await;
    assert_eq!(reason.body["reason"], "returns.exceeded", "{}", reason.body);
    assert_eq!(refunded(&server, "R-4", 1).await, "refunded");
    assert_eq!(refunded(&server, "R-5", 1).await, "refund_refused");
    let tea = tea(&server).await;
    assert_eq!((&tea["used"], &tea["left"]), (&json!(0), &json!(5)));
}

#[tokio::test]
async fn of_two_refunds_of_a_line_at_the_same_moment_one_is_refused() {
    let server = with_order(1).await;
    let (one, other) = tokio::join!(refunded(&server, "R-1", 1), refunded(&server, "R-2", 1));
    let mut statuses = [one, other].map(|status| status.as_str().unwrap().to_owned());
    statuses.sort();
    assert_eq!(statuses, ["refund_refused", "refunded"]);
    assert_eq!(tea(&server).await["left"], 5);
}

#[tokio::test]
async fn an_order_that_did_not_complete_is_not_refunded() {
    let server = with_tea().await;
    server.post("/v1/orders", &order("O-1", "ann", 500)).await;
    let path = "/v1/sagas/flash_sale_order/O-1";
    server.until(path, |answer| answer.body["phase"] == "waiting").await;
    let open = server.post("/v1/sagas/refund_order", &refund("R-1", "O-1", 1)).await;
    assert_eq!((open.status, open.code()), (StatusCode::CONFLICT, "E2319"));
    assert_eq!(open.headers["location"], path);
    server.post_with(&format!("{path}/cancel"), &[WAIT], &json!({"reason": "user"})).await;
    let closed = server.post("/v1/sagas/refund_order", &refund("R-1", "O-1", 1)).await;
    assert_eq!(closed.code(), "E2319", "nobody paid for it");
    assert_eq!(tea(&server).await["left"], 5, "nothing came out of anybody else's sale");
}

#[tokio::test]
async fn a_line_that_the_order_does_not_have_is_refused_at_once() {
    let server = with_order(1).await;
    let mut unknown = refund("R-1", "O-1", 1);
    unknown["lines"][0]["line_no"] = json!("nine");
    let refused = server.post("/v1/sagas/refund_order", &unknown).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::UNPROCESSABLE_ENTITY, "E2302"), "{}", refused.body);
    assert!(refused.body["detail"].as_str().unwrap().contains("values.lines"), "{}", refused.body);
    assert_eq!(refunded(&server, "R-1", 1).await, "refunded", "nothing was queued, and the number is free");
    let letters = server.get("/v1/dead-letters").await;
    assert_eq!(letters.body["items"], json!([]), "{}", letters.body);
}
