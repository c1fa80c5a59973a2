//! Input that strangers send: each gets an answer that says what is wrong and where, and nothing else happens.

use super::*;
use std::time::Duration;

const SAGAS: &str = "/v1/sagas/bench_saga";

async fn raw(server: &Server, path: &str, body: impl Into<Body>) -> Answer {
    server.send(Request::post(path).header("content-type", "application/json").body(body.into()).unwrap()).await
}

#[tokio::test]
async fn bodies_that_are_no_input_are_refused_precisely() {
    let server = Server::start().await;
    let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    for (body, code, pointer) in [
        ("", "E2001", ""),
        ("{", "E2001", ""),
        ("{\"number\": \"a\", \"fail_at\": }", "E2001", ""),
        ("[]", "E2302", ""),
        ("{\"number\": 1, \"fail_at\": \"\"}", "E2302", "/number"),
        ("{\"number\": \"a\"}", "E2302", ""),
        ("{\"number\": \"a\", \"fail_at\": \"never\"}", "E2302", "/fail_at"),
        ("{\"number\": \"a\", \"number\": \"b\", \"fail_at\": \"\"}", "E2009", "/number"),
        ("{\"number\": \"a\\u0000b\", \"fail_at\": \"\"}", "E2008", "/number"),
        ("{\"number\": \"a\", \"fail_at\": \"\", \"n\": 9007199254740993}", "E2011", "/n"),
        (&deep[..200_000], "E2010", ""),
    ] {
        let answer = raw(&server, SAGAS, body.to_owned()).await;
        let short: String = body.chars().take(60).collect();
        assert!(answer.status.is_client_error());
        assert_eq!(answer.code(), code, "{short}: {}", answer.body);
        if !pointer.is_empty() {
            assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{short}");
        }
        let page = server.get(answer.body["type"].as_str().unwrap()).await;
        assert_eq!(page.status, StatusCode::OK, "every problem's type leads to its page");
    }
    for code in ["E1060", "e3001", "E4032.md", "E5005"] {
        let page = server.get(&format!("/errors/{code}")).await;
        let text = page.body.as_str().unwrap();
        assert!(
            page.status == StatusCode::OK
                && text.to_lowercase().starts_with(&format!("# {}: ", &code[..5].to_lowercase()))
        );
    }
    assert!(server.get("/errors").await.body.as_str().unwrap().contains("[E1060](E1060.md)"));
    let page = server.get("/runbook/SagasParked").await;
    assert!(page.status == StatusCode::OK && page.body.as_str().unwrap().starts_with("# SagasParked\n"));
    assert!(server.get("/runbook").await.body.as_str().unwrap().contains("[SagasParked](SagasParked.md)"));
    let large = raw(&server, SAGAS, "x".repeat(300 * 1024)).await;
    assert_eq!((large.status, large.code()), (StatusCode::PAYLOAD_TOO_LARGE, "E2003"));
    let form =
        Request::post(SAGAS).header("content-type", "application/x-www-form-urlencoded").body("a=b".into()).unwrap();
    assert_eq!(server.send(form).await.code(), "E2004");
    assert_eq!(server.get("/v1/sagas").await.body["items"], json!([]), "none of them became a saga");
}

#[tokio::test]
async fn amounts_outside_their_range_are_refused() {
    let server = Server::start().await;
    for (member, value) in [
        ("total_minor", json!(-1)),
        ("total_minor", json!(9_007_199_254_740_992_i64)),
        ("total_minor", json!(1.5)),
        ("total_minor", json!("100")),
        ("discount_minor", json!(-1)),
        ("points", json!(1e300)),
        ("pay_within_s", json!(0)),
        ("lines", json!([])),
        ("currency", json!("BITCOIN")),
    ] {
        let mut input = order("O-1", "ann", 0);
        input[member] = value.clone();
        let answer = server.post("/v1/orders", &input).await;
        assert!(["E2302", "E2011"].contains(&answer.code()), "{member} {value}: {}", answer.body);
        assert_eq!(answer.body["errors"][0]["pointer"], format!("/{member}"), "{value}");
    }
}

#[tokio::test]
async fn words_of_sql_are_only_words() {
    let server = Server::start().await;
    let number = "x'); drop table saga; --";
    let started = server.post_with(SAGAS, &[("prefer", "wait=20")], &bench(number, "")).await;
    assert_eq!(started.status, StatusCode::OK, "{}", started.body);
    let path = started.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(server.get(&path).await.body["number"], number);
    for query in [
        "owner=%27%20or%201%3D1--",
        "number=%25",
        "status=%27%3B",
        "search.goods=%27%29%20or%20%28%27a%27%3D%27a",
        "goods=x",
    ] {
        let answer = server.get(&format!("/v1/sagas?{query}")).await;
        assert_eq!((answer.status, &answer.body["items"]), (StatusCode::OK, &json!([])), "{query}");
    }
    server.until("/v1/sagas?number=x%27", |answer| answer.body["items"].as_array().unwrap().len() == 1).await;
}

#[tokio::test]
async fn unknown_addresses_ids_parameters_and_cursors_are_refused() {
    let server = Server::start().await;
    for (path, status, code) in [
        ("/v1/nothing", 404, "E2203"),
        ("/v1/sagas/bench_saga/none", 404, "E2202"),
        ("/v1/sagas/none/none", 404, "E2202"),
        ("/v1/sagas/bench_saga/a%00b", 404, "E2202"),
        ("/v1/my/orders/none", 404, "E2202"),
        ("/v1/sagas?colour=red", 400, "E2005"),
        ("/v1/sagas?limit=0", 400, "E2005"),
        ("/v1/sagas?limit=1&limit=2", 400, "E2005"),
        ("/v1/sagas?limit=99999999999999999999", 400, "E2005"),
        ("/v1/sagas?phase=dreaming", 400, "E2005"),
        ("/v1/sagas?since=yesterday", 400, "E2005"),
        ("/v1/sagas?search.a=1&search.b=2", 400, "E2005"),
        ("/v1/sagas?number=a%00", 422, "E2008"),
        ("/v1/sagas?cursor=AAAA", 400, "E2006"),
        ("/v1/events?after=x", 400, "E2006"),
        ("/v1/dead-letters?cursor=x", 400, "E2006"),
        ("/errors/E9999", 404, "E2203"),
        ("/runbook/Nothing", 404, "E2203"),
    ] {
        let answer = server.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{path}: {}", answer.body);
    }
    let none = server.post("/v1/sagas/none", &json!({})).await;
    assert_eq!((none.status, none.code()), (StatusCode::NOT_FOUND, "E2201"));
    let letter = server.post("/v1/dead-letters/x/replay", &json!({"reason": "r"})).await;
    assert_eq!(letter.code(), "E2205");
    let provider = server.post("/v1/callbacks/none", &json!({})).await;
    assert_eq!(provider.code(), "E2403");
    let method = server.send(Request::delete(SAGAS).body(Body::empty()).unwrap()).await;
    assert_eq!((method.status, method.code()), (StatusCode::METHOD_NOT_ALLOWED, "E2204"));
}

#[tokio::test]
async fn headers_that_cannot_be_understood_are_refused() {
    let server = Server::start().await;
    let long = "k".repeat(201);
    for (name, value, code) in [
        ("prefer", "wait=soon", "E2007"),
        ("idempotency-key", long.as_str(), "E2007"),
        ("idempotency-key", "", "E2007"),
        ("endstate-lane", "fast", "E2007"),
    ] {
        let answer = server.post_with(SAGAS, &[(name, value)], &bench("H-1", "")).await;
        assert_eq!(answer.code(), code, "{name}: {value}");
    }
    let event = server.post("/v1/sagas/flash_sale_order/O-1/events/payment.captured", &json!({})).await;
    assert_eq!(event.code(), "E2007", "an event needs its id");
}

#[tokio::test]
async fn a_full_server_says_when_to_come_back() {
    let server = Server::with(Limits { calls: 0, ..Limits::default() }).await;
    let busy = server.get("/livez").await;
    assert_eq!((busy.status, busy.code()), (StatusCode::SERVICE_UNAVAILABLE, "E2501"));
    assert_eq!(busy.headers["retry-after"], "1");
    let hasty = Server::with(Limits { time: Duration::from_millis(20), ..Limits::default() }).await;
    let request = Request::get("/v1/events").header("prefer", "wait=20").body(Body::empty()).unwrap();
    assert_eq!(hasty.send(request).await.code(), "E2503");
}

/// As large as a call may be, and fit for its definition: it is a saga like any other.
#[tokio::test]
async fn an_input_just_below_the_limit_starts_a_saga_and_one_above_it_does_not() {
    let server = Server::start().await;
    let mut noted = shipped().into_iter().find(|source| source.text.contains("saga: bench_saga")).unwrap();
    noted.text = noted.text.replace("version: 1", "version: 2");
    let schema = noted.schemas.values_mut().next().unwrap();
    *schema = schema.replace("\"properties\": {", "\"properties\": { \"note\": { \"type\": \"string\" },");
    server.definitions.load(&noted, 1).await.unwrap();
    server.definitions.activate("bench_saga", 2, 1).await.unwrap();
    let input = |bytes: usize| json!({ "number": "large", "fail_at": "", "note": "x".repeat(bytes) }).to_string();
    let above = raw(&server, SAGAS, input(256 * 1024)).await;
    assert_eq!((above.status, above.code()), (StatusCode::PAYLOAD_TOO_LARGE, "E2003"));
    let below = raw(&server, SAGAS, input(256 * 1024 - 100)).await;
    assert!(below.status.is_success(), "{}", below.body);
    let ended = server.until("/v1/sagas/bench_saga/large", |answer| answer.body["phase"] == "ended").await;
    assert_eq!(ended.body["outcome"], "completed");
}
