//! What operators settle: requests that are sent again under their key, and discrepancies that are closed.

use super::*;
use endstate_orchestrator::discrepancy;
use endstate_outbox::{Commit, Kind, Rows, Statement, Write};

static DIFFER: Statement = Statement {
    name: "test.differ",
    columns: &[Kind::Text, Kind::Text, Kind::Int],
    sql: "with r(kind, detail, time_ms) as ({rows}) insert into discrepancy (kind, detail, time_ms) select * from r",
};

/// A server whose books differ in one place.
async fn differing() -> Server {
    let server = Server::start().await;
    let row = Rows::one(["not_undone".into(), "one pack of tea".into(), 1.into()]);
    let writes = vec![Write::exact(&DIFFER, row)];
    server.store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
    server
}

#[tokio::test]
async fn a_discrepancy_is_closed_once_by_an_operator_with_a_reason() {
    let server = differing().await;
    let reader = format!("Bearer {}", server.token("rita", [Scope::LedgerRead, Scope::LedgerWrite]).await);
    let olga = format!("Bearer {}", server.token("olga", [Scope::LedgerRead, Scope::SagasOperate]).await);
    let otto = format!("Bearer {}", server.token("otto", [Scope::SagasOperate]).await);
    let close = async |bearer: &str, id: &str, body: Value| {
        server.post_with(&format!("/v1/discrepancies/{id}/close"), &[("authorization", bearer)], &body).await
    };
    let list = async |state: &str| {
        let path = format!("/v1/discrepancies{state}");
        let request = Request::get(path).header("authorization", &olga).body(Body::empty()).unwrap();
        server.send(request).await.body["items"].as_array().unwrap().clone()
    };
    assert_eq!((list("").await.len(), list("?state=open").await.len(), list("?state=fixed").await.len()), (1, 1, 0));
    let fixed = json!({ "state": "fixed", "reason": "OPS-1: counted the shelf" });
    let refused = close(&reader, "1", fixed.clone()).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "E2103"));
    for (body, pointer) in [
        (json!({ "state": "fixed" }), "/reason"),
        (json!({ "state": "open", "reason": "no" }), "/state"),
        (json!({ "reason": "no" }), "/state"),
    ] {
        let wrong = close(&olga, "1", body).await;
        assert_eq!((wrong.code(), wrong.body["errors"][0]["pointer"].as_str()), ("E2002", Some(pointer)));
    }
    assert_eq!(close(&olga, "17", fixed.clone()).await.code(), "E2209");
    assert_eq!(list("?state=open").await.len(), 1, "nothing was closed yet");
    assert_eq!(discrepancy::open(&*server.store).await.unwrap(), (1, Some(1)), "what the metrics show");

    let closed = close(&olga, "1", fixed.clone()).await;
    assert_eq!(
        (closed.status, &closed.body["state"], &closed.body["closed_by"]),
        (StatusCode::OK, &json!("fixed"), &json!("olga"))
    );
    assert!(closed.body["closed_at"].is_string());
    assert_eq!(close(&olga, "1", fixed.clone()).await.body, closed.body, "sent again, it answers the same");
    assert_eq!(close(&otto, "1", fixed).await.body, closed.body, "and who was first stays");
    let other = close(&otto, "1", json!({ "state": "explained", "reason": "it was me" })).await;
    assert_eq!((other.status, other.code()), (StatusCode::CONFLICT, "E2320"));
    assert_eq!((list("?state=open").await.len(), list("?state=fixed").await), (0, vec![closed.body]));
    assert_eq!(discrepancy::open(&*server.store).await.unwrap(), (0, None));
}

#[tokio::test]
async fn a_cancel_sent_again_under_its_key_is_answered_alike() {
    let server = with_tea().await;
    let made = server.post("/v1/orders", &order("O-1", "ann", 100)).await;
    assert!(made.status.is_success(), "{}", made.body);
    let cancel = async |key: &str, reason: &str| {
        let headers = [("idempotency-key", key), ("prefer", "wait=20")];
        server.post_with("/v1/sagas/flash_sale_order/O-1/cancel", &headers, &json!({ "reason": reason })).await
    };
    let first = cancel("K-1", "user").await;
    assert_eq!((first.status, &first.body["answer"]), (StatusCode::OK, &json!("accepted")), "{}", first.body);
    server.until("/v1/sagas/flash_sale_order/O-1", |answer| answer.body["phase"] == "ended").await;
    let again = cancel("K-1", "user").await;
    assert_eq!(
        (again.status, &again.body["answer"], &again.body["input"]),
        (StatusCode::OK, &json!("accepted"), &json!("K-1"))
    );
    let other = server
        .post_with(
            "/v1/sagas/flash_sale_order/O-1/compensate",
            &[("idempotency-key", "K-1")],
            &json!({ "reason": "K" }),
        )
        .await;
    assert_eq!((other.status, other.code()), (StatusCode::CONFLICT, "E2321"), "{}", other.body);
    assert_eq!(cancel("K-2", "user").await.code(), "E2304", "another request is another request");
}
