//! Who may call what: every operation of the description is tried with too little.

use super::*;
use axum::http::{HeaderName, Method};
use std::collections::BTreeSet;

/// (method, path with its parameters filled in, scopes of which any one is enough) of every operation.
fn operations(description: &Value) -> Vec<(Method, String, BTreeSet<String>)> {
    let mut found = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let security = operation["security"].as_array().into_iter().flatten();
            let scopes = security
                .flat_map(|any| any["token"].as_array().unwrap())
                .map(|scope| scope.as_str().unwrap().to_owned());
            let path = path
                .split('/')
                .map(|part| if part.starts_with('{') { "x" } else { part })
                .collect::<Vec<_>>()
                .join("/");
            found.push((method.to_uppercase().parse().unwrap(), path, scopes.collect()));
        }
    }
    found
}

fn call(method: &Method, path: &str, token: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn every_operation_refuses_a_token_that_lacks_its_scope() {
    let server = Server::start().await;
    let description = server.get("/openapi.json").await.body;
    let operations = operations(&description);
    assert!(operations.len() > 30, "{}", operations.len());
    let open: BTreeSet<_> =
        operations.iter().filter(|(_, _, any)| any.is_empty()).map(|(_, path, _)| path.as_str()).collect();
    let watching = ["/livez", "/readyz", "/startupz", "/v1/callbacks/x"];
    let pages = ["/errors", "/errors/x", "/runbook", "/runbook/x"];
    assert_eq!(open, watching.into_iter().chain(pages).collect());
    for (method, path, any) in operations.iter().filter(|(_, _, any)| !any.is_empty()) {
        let others = Scope::ALL.iter().copied().filter(|scope| !any.contains(scope.label()));
        let low = server.token("low", others).await;
        let refused = server.send(call(method, path, Some(&low))).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "E2103"), "{method} {path}");
        assert_eq!(server.send(call(method, path, None)).await.code(), "E2101", "{method} {path}");
        for scope in any {
            let enough = server.token("enough", [Scope::find(scope).unwrap()]).await;
            let answer = server.send(call(method, path, Some(&enough))).await;
            assert_ne!(answer.status, StatusCode::FORBIDDEN, "{method} {path} with {scope}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn operators_actions_need_more_than_reading_and_writing() {
    let server = Server::start().await;
    let low = server.token("low", [Scope::SagasRead, Scope::OrdersWrite, Scope::OrdersRead, Scope::EventsWrite]).await;
    let header = format!("Bearer {low}");
    let reason = json!({"reason": "because", "end": "completed"});
    for path in [
        "/v1/sagas/bench_saga/N/retry",
        "/v1/sagas/bench_saga/N/compensate",
        "/v1/sagas/bench_saga/N/force",
        "/v1/definitions/bench_saga/steps/lock/wake",
        "/v1/dead-letters/1/replay",
        "/v1/jobs/sweep/run",
        "/v1/operations",
        "/v1/definitions/bench_saga/activate",
        "/v1/tokens",
    ] {
        let refused = server.post_with(path, &[("authorization", &header)], &reason).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "E2103"), "{path}");
    }
    let operate = format!("Bearer {}", server.token("operator", [Scope::SagasOperate]).await);
    let forced = server.post_with("/v1/sagas/bench_saga/N/force", &[("authorization", &operate)], &reason).await;
    assert_eq!(forced.code(), "E2103", "forcing needs its own scope");
}

/// Every shipped definition with an input that is ann's.
fn starts() -> Vec<(&'static str, Value)> {
    let payment = json!({"provider": "simpay", "provider_no": "P-1", "amount_minor": 500, "currency": "CNY",
        "saga": "0193a0b2-7c00-8abc-9def-0123456789ab"});
    let refund = json!({"order_no": "O-0", "refund_no": "R-1", "reason": "broken", "needs_approval": false,
        "lines": [{"line_no": "1", "quantity": 1}]});
    let back = json!({"order": "0193a0b2-7c00-8abc-9def-0123456789ab", "order_no": "O-0", "key": "ann/sale-1",
        "user_id": "ann", "payment": payment});
    vec![
        ("bench_saga", bench("B-1", "")),
        ("flash_sale_order", order("O-1", "ann", 500)),
        ("refund_order", refund),
        ("refund_payment", back),
    ]
}

#[tokio::test]
async fn customers_start_none_of_the_shipped_definitions_and_refunds_of_payments_start_by_themselves() {
    let server = Server::start().await;
    let shipped_names: BTreeSet<_> = server.definitions.list().iter().map(|listed| listed.name.clone()).collect();
    assert_eq!(shipped_names, starts().iter().map(|(name, _)| (*name).to_owned()).collect());
    let customer = server.token("ann", [Scope::OrdersOwn]).await;
    let shop = server.token("shop", [Scope::OrdersWrite]).await;
    let operator = server.token("olga", [Scope::SagasOperate]).await;
    let start = async |name: &str, body: &Value, token: &str| {
        let bearer = format!("Bearer {token}");
        server.post_with(&format!("/v1/sagas/{name}"), &[("authorization", &bearer)], body).await
    };
    for (name, body) in starts() {
        let refused = start(name, &body, &customer).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "E2103"), "{name}: {}", refused.body);
        let (able, unable) = if name == "refund_payment" { (&operator, &shop) } else { (&shop, &operator) };
        assert_eq!(start(name, &body, unable).await.code(), "E2103", "{name}");
        let taken = start(name, &body, able).await;
        // The refund's order does not exist; whoever may start one is told so.
        let expected = if name == "refund_order" { StatusCode::NOT_FOUND } else { StatusCode::ACCEPTED };
        assert_eq!(taken.status, expected, "{name}: {}", taken.body);
    }
    let bearer = format!("Bearer {customer}");
    let order = server.post_with("/v1/orders", &[("authorization", &bearer)], &order("O-2", "ann", 0)).await;
    assert_eq!(order.code(), "E2103", "nobody sets their own price");
}

#[tokio::test]
async fn where_the_definition_says_owner_customers_start_their_own_and_live_ones_only() {
    let server = Server::start().await;
    let mut open = shipped().into_iter().find(|source| source.text.contains("saga: flash_sale_order\n")).unwrap();
    open.text = open.text.replace("version: 1", "version: 2").replace("started_by: service", "started_by: owner");
    server.definitions.load(&open, SystemClock.now_ms()).await.unwrap();
    server.definitions.activate("flash_sale_order", 2, SystemClock.now_ms()).await.unwrap();
    let bearer = format!("Bearer {}", server.token("ann", [Scope::OrdersOwn]).await);
    let by_ann = [("authorization", bearer.as_str())];
    let own = server.post_with("/v1/orders", &by_ann, &order("O-1", "ann", 500)).await;
    assert_eq!(own.status, StatusCode::ACCEPTED, "{}", own.body);
    assert_eq!(server.post_with("/v1/orders", &by_ann, &order("O-2", "bob", 500)).await.code(), "E2103");
    let rehearsal = [by_ann[0], ("endstate-lane", "test")];
    assert_eq!(server.post_with("/v1/orders", &rehearsal, &order("O-3", "ann", 500)).await.code(), "E2103");
}

#[tokio::test]
async fn somebody_elses_saga_looks_as_if_there_was_none() {
    let server = Server::start().await;
    server.post("/v1/orders", &order("O-1", "ann", 500)).await;
    let (ann, bob) = (server.token("ann", [Scope::OrdersOwn]).await, server.token("bob", [Scope::OrdersOwn]).await);
    for path in ["/v1/my/orders/O-1", "/v1/sagas/flash_sale_order/O-1"] {
        assert_eq!(server.send(call(&Method::GET, path, Some(&ann))).await.status, StatusCode::OK, "{path}");
        let other = server.send(call(&Method::GET, path, Some(&bob))).await;
        let none = server.send(call(&Method::GET, &path.replace("O-1", "O-9"), Some(&bob))).await;
        assert_eq!((other.code(), &other.body), ("E2202", &none.body), "{path}");
    }
    let header = format!("Bearer {bob}");
    let cancel = server
        .post_with("/v1/sagas/flash_sale_order/O-1/cancel", &[("authorization", &header)], &json!({"reason": "user"}))
        .await;
    assert_eq!(cancel.code(), "E2202");
    let list = server.send(call(&Method::GET, "/v1/my/orders?owner=ann", Some(&bob))).await;
    assert_eq!(list.code(), "E2005", "the owner of one's own list is not a filter");
    let everyone = server.token("office", Scope::ALL.iter().copied()).await;
    let own = server.send(call(&Method::GET, "/v1/my/orders/O-1", Some(&everyone))).await;
    assert_eq!(own.code(), "E2202", "`my` is one's own, whatever else one may see");
}

#[tokio::test]
async fn without_tokens_only_this_machine_is_served_and_with_one_nobody_else() {
    let server = Server::start().await;
    let from = |address: [u8; 4], host: &str| {
        let mut request = call(&Method::GET, "/v1/sagas", None);
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((address, 1))));
        request.headers_mut().insert("host", host.parse().unwrap());
        request
    };
    assert_eq!(server.send(from([127, 0, 0, 1], "localhost:7600")).await.status, StatusCode::OK);
    assert_eq!(server.send(from([127, 0, 0, 1], "evil.example")).await.code(), "E2104", "DNS rebinding");
    assert_eq!(server.send(from([10, 0, 0, 9], "localhost")).await.code(), "E2104");
    let token = server.token("reader", [Scope::SagasRead]).await;
    assert_eq!(server.send(from([127, 0, 0, 1], "localhost")).await.code(), "E2101");
    assert_eq!(server.send(call(&Method::GET, "/v1/sagas", Some(&token))).await.status, StatusCode::OK);
}

/// A page that a browser on this machine shows may send calls that need neither a body nor a header of their own.
#[tokio::test]
async fn without_tokens_pages_of_other_origins_are_not_served() {
    let server = Server::start().await;
    let with = |method: &Method, header: &str, value: &str| {
        let path = if method.is_safe() { "/v1/sagas" } else { "/v1/definitions/flash_sale_order/rollback" };
        let mut request = call(method, path, None);
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))));
        request.headers_mut().insert("host", "localhost:7600".parse().unwrap());
        request.headers_mut().insert(HeaderName::try_from(header).unwrap(), value.parse().unwrap());
        request
    };
    for (method, header, value) in [
        (Method::POST, "origin", "https://evil.example"),
        (Method::POST, "origin", "http://localhost:3000"),
        (Method::POST, "origin", "null"),
        (Method::GET, "origin", "http://localhost"),
        (Method::POST, "sec-fetch-site", "cross-site"),
        (Method::POST, "sec-fetch-site", "same-site"),
    ] {
        let answer = server.send(with(&method, header, value)).await;
        assert_eq!((answer.code(), answer.status), ("E2104", StatusCode::FORBIDDEN), "{method} {header}: {value}");
    }
    for (header, value) in
        [("origin", "http://localhost:7600"), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]
    {
        let answer = server.send(with(&Method::GET, header, value)).await;
        assert_eq!(answer.status, StatusCode::OK, "{header}: {value}: the console, and links to it");
    }
}

#[tokio::test]
async fn tokens_are_made_shown_once_and_revoked() {
    let server = Server::start().await;
    let made = server
        .post("/v1/tokens", &json!({"subject": "ops", "scopes": ["tokens:write", "sagas:read"], "expires_days": 1}))
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let secret = made.body["token"].as_str().unwrap();
    let bearer = format!("Bearer {secret}");
    let listed = server.send(call(&Method::GET, "/v1/tokens", Some(secret))).await;
    assert_eq!(listed.body["items"][0]["subject"], "ops");
    // The secret itself may hold a `_`, so it is what follows `es_ID_`, not what follows the last one.
    let hidden = secret.splitn(3, '_').nth(2).filter(|hidden| hidden.len() == 43).expect("es_ID_SECRET");
    assert!(!listed.body.to_string().contains(hidden), "the secret is shown once");
    let more = json!({"subject": "x", "scopes": ["sagas:force"]});
    let more = server.post_with("/v1/tokens", &[("authorization", &bearer)], &more).await;
    assert_eq!(more.code(), "E2103", "nobody gives away more than they have");
    let unknown = json!({"subject": "x", "scopes": ["root"]});
    assert_eq!(server.post_with("/v1/tokens", &[("authorization", &bearer)], &unknown).await.code(), "E2002");
    let path = format!("/v1/tokens/{}", made.body["id"].as_str().unwrap());
    assert_eq!(server.send(call(&Method::DELETE, &path, Some(secret))).await.status, StatusCode::NO_CONTENT);
    assert_eq!(server.send(call(&Method::GET, "/v1/sagas", Some(secret))).await.code(), "E2102");
    let changed = format!("{}x", &secret[..secret.len() - 1]);
    for wrong in [changed.as_str(), "es_", "es_x_y", "Basic", "' or 1=1"] {
        assert_eq!(server.send(call(&Method::GET, "/v1/sagas", Some(wrong))).await.code(), "E2102", "{wrong}");
    }
    assert_eq!(server.send(call(&Method::GET, "/v1/sagas", None)).await.code(), "E2101", "the door stays closed");
}
