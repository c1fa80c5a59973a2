//! Definitions of other processes and other programs: what this one has not read yet, and what it cannot read.

use super::events::{STRUCTURED, cloud_event, counted, with_refund};
use super::*;
use endstate_outbox::{Commit, Kind, Rows, Statement, Write};
use endstate_saga::definition::Source;

/// As if a newer program had started the saga.
static NEWER: Statement = Statement {
    name: "test.newer",
    columns: &[Kind::Id],
    sql: "update saga set state = replace(state, '\"definition_version\":1', '\"definition_version\":9') \
          where id in ({rows})",
};

#[tokio::test]
async fn who_may_start_what_another_process_has_just_loaded_its_definition_says() {
    let server = Server::start().await;
    let mut source = shipped().into_iter().find(|source| source.file.contains("bench_saga")).unwrap();
    source.text = source.text.replacen("saga: bench_saga", "saga: later_saga", 1);
    let another = Definitions::open(server.store.clone()).await.unwrap();
    another.load(&source, SystemClock.now_ms()).await.unwrap();
    let ann = format!("Bearer {}", server.token("ann", [Scope::OrdersOwn]).await);
    let shop = format!("Bearer {}", server.token("shop", [Scope::OrdersWrite]).await);
    let start = async |bearer: &str| {
        server.post_with("/v1/sagas/later_saga", &[("authorization", bearer)], &bench("B-1", "")).await
    };
    let refused = start(&ann).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "E2103"), "it is started by services");
    let taken = start(&shop).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{}", taken.body);
}

#[tokio::test]
async fn a_saga_of_a_version_that_this_program_cannot_read_is_no_fault_of_the_server() {
    let server = Server::start().await;
    let placed = server.post_with("/v1/sagas/bench_saga", &[("prefer", "wait=20")], &bench("B-1", "")).await;
    assert_eq!(placed.status, StatusCode::OK, "{}", placed.body);
    let saga: uuid::Uuid = placed.body["saga"].as_str().unwrap().parse().unwrap();
    let writes = vec![Write::exact(&NEWER, Rows::one([saga.into()]))];
    server.store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
    let unread = server.get("/v1/sagas/bench_saga/B-1").await;
    assert_eq!((unread.status, unread.code()), (StatusCode::SERVICE_UNAVAILABLE, "E2507"));
    assert!(unread.body["detail"].as_str().unwrap().starts_with("E3003: "), "{}", unread.body);
    assert!(unread.headers.contains_key("retry-after"), "another process may be newer");
}

/// Another process activates a version of a definition, in a language that this program does not know.
async fn outgrow(server: &Server, source: &Source, name: &str, version: u32) {
    static DAMAGE: Statement = Statement {
        name: "test.outgrow",
        columns: &[Kind::Text, Kind::Int, Kind::Text],
        sql: "with r(name, version, source) as ({rows}) update definition set source = r.source from r \
              where definition.name = r.name and definition.version = r.version",
    };
    let another = Definitions::open(server.store.clone()).await.unwrap();
    another.load(source, SystemClock.now_ms()).await.unwrap();
    another.activate(name, version, SystemClock.now_ms()).await.unwrap();
    let row = [name.into(), i64::from(version).into(), "?".into()];
    let writes = vec![Write::exact(&DAMAGE, Rows::one(row))];
    server.store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
    server.definitions.refresh().await.unwrap();
}

/// A shipped definition, changed.
fn changed(name: &str, from: &str, to: &str) -> Source {
    let named = format!("saga: {name}\n");
    let mut source = shipped().into_iter().find(|source| source.text.contains(&named)).unwrap();
    assert!(source.text.contains(from), "{name}");
    source.text = source.text.replacen(from, to, 1);
    source
}

#[tokio::test]
async fn a_start_of_a_version_that_this_program_cannot_read_is_told_to_come_again() {
    let server = with_tea().await;
    let later = changed("bench_saga", "saga: bench_saga", "saga: later_saga");
    outgrow(&server, &later, "later_saga", 1).await;
    let orders = changed("flash_sale_order", "version: 1", "version: 2");
    outgrow(&server, &orders, "flash_sale_order", 2).await;
    let calls = [
        ("/v1/sagas/later_saga", bench("B-1", ""), "version 1 of `later_saga`"),
        ("/v1/orders", order("O-1", "ann", 0), "version 2 of `flash_sale_order`"),
        ("/v1/sagas/flash_sale_order", order("O-1", "ann", 0), "version 2 of `flash_sale_order`"),
    ];
    for (path, input, version) in &calls {
        let refused = server.post(path, input).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::SERVICE_UNAVAILABLE, "E2507"), "{path}");
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.starts_with("E3003: ") && detail.contains(version), "{detail}");
        assert!(refused.headers.contains_key("retry-after"), "another process may be newer");
    }
    let unknown = server.post("/v1/sagas/no_saga", &bench("B-1", "")).await;
    assert_eq!((unknown.status, unknown.code()), (StatusCode::NOT_FOUND, "E2201"), "nobody can read that");

    for source in [later, orders] {
        server.definitions.load(&source, SystemClock.now_ms()).await.unwrap();
    }
    for (path, input, _) in &calls[..2] {
        let taken = server.post_with(path, &[("prefer", "wait=20")], input).await;
        assert_eq!((taken.status, &taken.body["outcome"]), (StatusCode::OK, &json!("completed")), "{}", taken.body);
        assert!(!taken.headers.contains_key("idempotent-replayed"), "nothing was queued before");
    }
}

#[tokio::test]
async fn an_event_reaches_its_saga_though_the_active_version_is_too_new_for_this_program() {
    let server = with_refund().await;
    outgrow(&server, &changed("refund_order", "version: 1", "version: 2"), "refund_order", 2).await;
    let event = json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "refund.approved",
        "subject": "refund_order/R-1", "data": {"refund_no": "R-1"}});
    let taken = server.send(cloud_event(&event, STRUCTURED)).await;
    assert_eq!((taken.status, &taken.body["started"]), (StatusCode::ACCEPTED, &json!([])), "{}", taken.body);
    let refund = server.until("/v1/sagas/refund_order/R-1", |answer| answer.body["phase"] == "ended").await;
    assert_eq!(refund.body["status"], "refunded", "{}", refund.body);
}

/// A definition that starts on `shop.counted`.
fn counting(name: &str) -> Source {
    let starts = "starts_on: { shop.counted: { with: { shop: =event.shop } } }";
    let input = json!({"type": "object", "properties": {"shop": {"type": "string"}}});
    counted(name, starts, "{ type: object, properties: { shop: { type: string } } }", &input)
}

/// Counts its shelves.
fn count() -> Value {
    json!({"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "shop.counted", "data": {"shop": "s-1"}})
}

#[tokio::test]
async fn an_event_starts_what_another_process_has_just_loaded() {
    let server = Server::start().await;
    let another = Definitions::open(server.store.clone()).await.unwrap();
    another.load(&counting("audit"), SystemClock.now_ms()).await.unwrap();
    let taken = server.send(cloud_event(&count(), STRUCTURED)).await;
    assert_eq!((taken.status, &taken.body["started"][0]["number"]), (StatusCode::ACCEPTED, &json!("s-1")));
}

#[tokio::test]
async fn an_event_that_may_start_what_this_program_cannot_read_is_told_to_come_again() {
    let server = Server::start().await;
    let [first, second] = ["audit", "recount"].map(counting);
    for source in [&first, &second] {
        server.definitions.load(source, SystemClock.now_ms()).await.unwrap();
    }
    let newer = Source { text: second.text.replacen("version: 1", "version: 2", 1), ..second };
    outgrow(&server, &newer, "recount", 2).await;
    let refused = server.send(cloud_event(&count(), STRUCTURED)).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.body);
    assert_eq!(refused.code(), "E2507");
    assert_eq!(server.get("/v1/sagas/audit/s-1").await.status, StatusCode::NOT_FOUND, "all start or none");
    server.definitions.load(&newer, SystemClock.now_ms()).await.unwrap();
    let taken = server.send(cloud_event(&count(), STRUCTURED)).await;
    assert_eq!(taken.body["started"].as_array().map(Vec::len), Some(2), "{}", taken.body);
}
