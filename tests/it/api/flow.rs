//! Orders and sagas from start to end.

use super::*;
use endstate_participants::provider::{SIGNATURE, TIMESTAMP, sign};
use std::time::Duration;

const WAIT: (&str, &str) = ("prefer", "wait=20");

#[tokio::test]
async fn a_start_is_answered_when_it_ended_and_its_repeat_with_the_first_saga() {
    let server = Server::start().await;
    let first = server.post_with("/v1/sagas/bench_saga", &[WAIT], &bench("B/1 ä", "")).await;
    assert_eq!((first.status, first.body["outcome"].as_str()), (StatusCode::OK, Some("completed")), "{}", first.body);
    assert_eq!(first.headers["preference-applied"], "wait=20");
    assert_eq!(first.headers["location"], "/v1/sagas/bench_saga/B%2F1%20%C3%A4");

    let again = server.post_with("/v1/sagas/bench_saga", &[WAIT], &bench("B/1 ä", "")).await;
    assert_eq!((again.status, &again.body["saga"]), (StatusCode::OK, &first.body["saga"]));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let other = server.post("/v1/sagas/bench_saga", &bench("B/1 ä", "lock")).await;
    assert_eq!((other.status, other.code()), (StatusCode::CONFLICT, "E2301"));
    assert_eq!(other.headers["location"], first.headers["location"]);
    let key = server.post_with("/v1/sagas/bench_saga", &[("idempotency-key", "x")], &bench("B-2", "")).await;
    assert_eq!(key.code(), "E2303");

    let shown = server.get("/v1/sagas/bench_saga/B%2F1%20%C3%A4").await;
    assert_eq!((shown.status, shown.body["phase"].as_str()), (StatusCode::OK, Some("ended")));
    let timeline = server.get("/v1/sagas/bench_saga/B%2F1%20%C3%A4/timeline").await;
    let events = timeline.body["items"].as_array().unwrap();
    assert_eq!(events[0]["event"], "started");
    assert!(
        events.iter().any(|event| event["event"] == "run_done" && event["data"]["step"] == "deduct"),
        "{events:#?}"
    );
    assert_eq!(events.last().unwrap()["event"], "status_changed", "{events:#?}");
}

#[tokio::test]
async fn lists_filter_and_go_on_from_their_cursor() {
    let server = Server::start().await;
    for n in 0..5 {
        let fail_at = if n == 3 { "deduct" } else { "" };
        server.post_with("/v1/sagas/bench_saga", &[WAIT], &bench(&format!("L-{n}"), fail_at)).await;
    }
    let all = server.until("/v1/sagas?phase=ended&limit=200", |a| a.body["items"].as_array().unwrap().len() == 5).await;
    assert!(all.body["next"].is_null());
    let cancelled = server.get("/v1/sagas?outcome=cancelled").await;
    assert_eq!(cancelled.body["items"][0]["number"], "L-3");
    let (mut path, mut numbers) = ("/v1/sagas?definition=bench_saga&limit=2".to_owned(), Vec::new());
    loop {
        let page = server.get(&path).await;
        let items = page.body["items"].as_array().unwrap();
        numbers.extend(items.iter().map(|item| item["number"].as_str().unwrap().to_owned()));
        let Some(next) = page.body["next"].as_str() else { break };
        path = format!("/v1/sagas?definition=bench_saga&limit=2&cursor={next}");
    }
    numbers.sort();
    assert_eq!(numbers, ["L-0", "L-1", "L-2", "L-3", "L-4"]);
    let stream = server.get("/v1/events?limit=1000").await;
    let completed = stream.body["items"].as_array().unwrap().iter().filter(|change| change["status"] == "completed");
    assert_eq!(completed.count(), 4);
    let after = server.get(&format!("/v1/events?after={}", stream.body["next"].as_str().unwrap())).await;
    assert_eq!(after.body["items"], json!([]));
}

#[tokio::test]
async fn an_order_is_seen_by_its_buyer_and_by_the_back_office() {
    let server = with_tea().await;
    let buyer = server.token("ann", [Scope::OrdersOwn]).await;
    let office = server.token("office", [Scope::OrdersRead, Scope::LedgerRead]).await;
    let shop = format!("Bearer {}", server.token("shop", [Scope::OrdersWrite]).await);
    let by_shop = [WAIT, ("authorization", shop.as_str())];
    let placed = server.post_with("/v1/orders", &by_shop, &order("O-1", "ann", 0)).await;
    assert_eq!((placed.status, placed.body["status"].as_str()), (StatusCode::OK, Some("completed")), "{}", placed.body);

    let get = |path: &str, token: &str| {
        Request::get(path).header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap()
    };
    let mine = server.send(get("/v1/my/orders/O-1", &buyer)).await;
    assert_eq!((&mine.body["goods"][0]["sku"], &mine.body["total_minor"]), (&json!("tea"), &json!(1_000)));
    assert!(mine.body.get("user").is_none() && mine.body.get("saga").is_none());
    let theirs = server.send(get("/v1/orders/O-1", &office)).await;
    assert_eq!((&theirs.body["user"], &theirs.body["store"]), (&json!("ann"), &json!("flagship")));
    assert_eq!(theirs.body["saga"]["outcome"], "completed");
    let books = server.send(get("/v1/books", &office)).await;
    let tea = books.body["items"].as_array().unwrap().iter().find(|book| book["asset"] == "stock:tea").unwrap();
    assert_eq!(
        *tea,
        json!({"asset": "stock:tea", "opened": 5, "held": 0, "used": 1, "returned": 0, "left": 4, "owed": 0, "balanced": true})
    );
}

#[tokio::test]
async fn events_and_cancels_land_in_the_timeline() {
    let server = with_tea().await;
    server.post("/v1/orders", &order("O-1", "ann", 500)).await;
    let order = "/v1/sagas/flash_sale_order/O-1";
    let saga = server.until(order, |answer| answer.body["phase"] == "waiting").await;
    assert_eq!((&saga.body["status"], &saga.body["view"]["payment_no"]), (&json!("awaiting_payment"), &json!("PAY-1")));

    let callback = json!({"event_id": "E-1", "provider": "simpay", "provider_no": "P-1", "saga": saga.body["saga"],
        "amount_minor": 400, "currency": "CNY", "captured_ms": 1})
    .to_string();
    let now = SystemClock.now_ms();
    let call = |time: i64, signature: String, body: String| {
        let request =
            Request::post("/v1/callbacks/simpay").header(TIMESTAMP, time.to_string()).header(SIGNATURE, signature);
        request.body(Body::from(body)).unwrap()
    };
    for _ in 0..3 {
        let taken = server.send(call(now, sign(SECRET, now, callback.as_bytes()), callback.clone())).await;
        assert_eq!((taken.status, taken.body), (StatusCode::OK, json!("success")));
    }
    let forged = server.send(call(now, sign(b"guess", now, callback.as_bytes()), callback.clone())).await;
    assert_eq!(forged.code(), "E2401");
    let old = now - 301_000;
    let stale = server.send(call(old, sign(SECRET, old, callback.as_bytes()), callback.clone())).await;
    assert_eq!(stale.code(), "E2402");

    let timeline = format!("{order}/timeline");
    let count = |answer: &Answer, name: &str| {
        answer.body["items"].as_array().unwrap().iter().filter(|event| event["event"] == name).count()
    };
    let kept = server.until(&timeline, |answer| count(answer, "event_kept") + count(answer, "event_late") > 0).await;
    assert_eq!(count(&kept, "event_kept") + count(&kept, "event_late"), 1, "a callback three times is one event");
    let linked = server.until(order, |answer| answer.body["linked"][0]["status"].is_string()).await;
    assert_eq!(linked.body["linked"][0]["definition"], "refund_payment", "a wrong amount goes back");

    let unknown = server.post(&format!("{order}/cancel"), &json!({"reason": "bored"})).await;
    assert_eq!((unknown.code(), unknown.body["errors"][0]["pointer"].as_str()), ("E2305", Some("/reason")));
    let deadline = server.post(&format!("{order}/cancel"), &json!({"reason": "unpaid"})).await;
    assert_eq!(deadline.code(), "E2306");
    let cancelled = server.post_with(&format!("{order}/cancel"), &[WAIT], &json!({"reason": "user"})).await;
    assert_eq!(
        (cancelled.status, &cancelled.body["answer"]),
        (StatusCode::OK, &json!("accepted")),
        "{}",
        cancelled.body
    );
    assert_eq!((&cancelled.body["status"], &cancelled.body["outcome"]), (&json!("closed"), &json!("cancelled")));
    assert_eq!(cancelled.headers["preference-applied"], "wait=20");
    assert_eq!(count(&server.get(&timeline).await, "cancel_requested"), 1);
}

#[tokio::test]
async fn what_a_saga_refuses_is_a_conflict_with_its_reason_and_where_it_stands() {
    let server = with_tea().await;
    server.post_with("/v1/orders", &[WAIT], &order("O-1", "ann", 0)).await;
    let ended = "/v1/sagas/flash_sale_order/O-1";
    let cancel = server.post(&format!("{ended}/cancel"), &json!({"reason": "user"})).await;
    assert_eq!((cancel.status, cancel.code()), (StatusCode::CONFLICT, "E2304"));
    let detail = cancel.body["detail"].as_str().unwrap();
    assert!(detail.contains("its status is completed, its phase ended"), "{detail}");
    assert_eq!(cancel.headers["location"], ended);
    let retry = server.post(&format!("{ended}/retry"), &json!({"reason": "OPS-1"})).await;
    assert_eq!((retry.status, retry.code()), (StatusCode::CONFLICT, "E2304"));

    server.post("/v1/orders", &order("O-2", "ann", 500)).await;
    let waiting = "/v1/sagas/flash_sale_order/O-2";
    server.until(waiting, |answer| answer.body["phase"] == "waiting").await;
    let retry = server.post(&format!("{waiting}/retry"), &json!({"reason": "OPS-1"})).await;
    assert_eq!((retry.status, retry.code()), (StatusCode::CONFLICT, "E2314"));
    let page = server.get(retry.body["type"].as_str().unwrap()).await;
    assert!(page.body.as_str().unwrap().contains("## Cure"));
}

#[tokio::test]
async fn what_is_not_decided_in_time_is_answered_as_queued() {
    let server = Server::deciding_within(Duration::from_millis(50)).await;
    server.post("/v1/sagas/bench_saga", &bench("Q-1", "")).await;
    let saga = "/v1/sagas/bench_saga/Q-1";
    server.until(saga, |answer| answer.status == StatusCode::OK).await;
    server.stop.cancel();
    for headers in [&[][..], &[("prefer", "wait=0")]] {
        let cancel = server.post_with(&format!("{saga}/compensate"), headers, &json!({"reason": "OPS-1"})).await;
        assert_eq!(cancel.status, StatusCode::ACCEPTED, "{}", cancel.body);
        assert_eq!((&cancel.body["answer"], &cancel.headers["location"]), (&json!("queued"), &saga.parse().unwrap()));
    }
    // Either of these starts may become the saga of the number, so neither answer names one.
    for fail_at in ["", "lock"] {
        let start = server.post("/v1/sagas/bench_saga", &bench("Q-2", fail_at)).await;
        assert_eq!(start.status, StatusCode::ACCEPTED, "{}", start.body);
        assert_eq!(start.body, json!({"definition": "bench_saga", "number": "Q-2"}));
        assert_eq!(start.headers["location"], "/v1/sagas/bench_saga/Q-2");
        assert!(!start.headers.contains_key("idempotent-replayed"));
    }
}

#[tokio::test]
async fn what_operators_do_needs_a_reason_and_lands_in_the_timeline() {
    let server = with_tea().await;
    server.post("/v1/orders", &order("O-2", "ann", 500)).await;
    let order = "/v1/sagas/flash_sale_order/O-2";
    server.until(order, |answer| answer.body["phase"] == "waiting").await;
    let silent = server.post(&format!("{order}/compensate"), &json!({})).await;
    assert_eq!((silent.code(), silent.body["errors"][0]["pointer"].as_str()), ("E2002", Some("/reason")));
    let woken = server.post("/v1/definitions/flash_sale_order/steps/refund/wake", &json!({"reason": "OPS-1"})).await;
    assert_eq!((woken.status, &woken.body["sagas"]), (StatusCode::OK, &json!(0)));
    let nowhere = server.post("/v1/definitions/flash_sale_order/steps/dance/wake", &json!({"reason": "OPS-1"})).await;
    assert_eq!(nowhere.code(), "E2207");
    let endless = server.post(&format!("{order}/force"), &json!({"reason": "OPS-1", "end": "forgotten"})).await;
    assert_eq!(endless.body["errors"][0]["pointer"], "/end");
    let forced = server.post(&format!("{order}/force"), &json!({"reason": "OPS-1", "end": "cancelled"})).await;
    assert_eq!((forced.status, &forced.body["answer"]), (StatusCode::OK, &json!("accepted")), "{}", forced.body);
    let timeline = server.get(&format!("{order}/timeline")).await;
    let operated =
        timeline.body["items"].as_array().unwrap().iter().find(|event| event["event"] == "operated").unwrap();
    assert_eq!(
        (&operated["data"]["reason"], &operated["data"]["actor"]["subject"]),
        (&json!("OPS-1"), &json!("local"))
    );
}

#[tokio::test]
async fn an_operation_is_done_once_and_its_id_is_not_used_again() {
    let server = with_tea().await;
    let line = |quantity: i64| json!({"participant": "stock", "action": "open", "with": {"unit": "tea", "quantity": quantity, "standby": false}});
    let same = json!({"operation": "open-1", "lines": [line(5)]});
    assert_eq!(server.post("/v1/operations", &same).await.status, StatusCode::ACCEPTED);
    let other = server.post("/v1/operations", &json!({"operation": "open-1", "lines": [line(6)]})).await;
    assert_eq!(other.code(), "E2310");
    let text = format!("{}\n\n{}\n", line(1), line(2));
    let request = Request::post("/v1/operations").header("content-type", "application/x-ndjson");
    let lines = server.send(request.header("idempotency-key", "open-2").body(text.into()).unwrap()).await;
    assert_eq!(lines.body, json!({"operation": "open-2", "lines": 2}));
    server.until("/v1/operations/open-2", |answer| answer.body["items"].as_array().unwrap().len() == 2).await;
    let books = server.get("/v1/books").await;
    assert_eq!(books.body["items"][0]["opened"], 8);
}

#[tokio::test]
async fn definitions_are_listed_loaded_switched_and_rolled_back() {
    let server = Server::start().await;
    let bench = shipped().into_iter().find(|source| source.text.contains("saga: bench_saga")).unwrap();
    let mut second = bench.clone();
    second.text = second.text.replace("version: 1", "version: 2");
    let changed = json!({"file": bench.file, "text": bench.text.replace("locking", "locked"), "schemas": bench.schemas,
        "samples": bench.samples, "catalogues": bench.catalogues, "siblings": bench.siblings});
    assert_eq!(server.post("/v1/definitions", &changed).await.code(), "E2309");
    let broken =
        json!({"file": "x.yaml", "text": "saga: [", "schemas": {}, "samples": {}, "catalogues": {}, "siblings": []});
    let broken = server.post("/v1/definitions", &broken).await;
    assert_eq!(broken.code(), "E2308");
    assert!(broken.body["errors"][0]["detail"].as_str().unwrap().contains("x.yaml:1:"), "{}", broken.body);

    let active = |answer: &Answer| {
        let items = answer.body["items"].as_array().unwrap().iter();
        items
            .filter(|item| item["name"] == "bench_saga" && item["active"] == true)
            .map(|item| item["version"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    let loaded = server.post("/v1/definitions", &serde_json::to_value(&second).unwrap()).await;
    assert_eq!((loaded.status, active(&loaded)), (StatusCode::CREATED, vec![1]), "{}", loaded.body);
    let switched = server.post("/v1/definitions/bench_saga/activate", &json!({"version": 2})).await;
    assert_eq!(active(&switched), [2]);
    let started = server.post_with("/v1/sagas/bench_saga", &[WAIT], &super::bench("V-2", "")).await;
    assert_eq!(started.status, StatusCode::OK);
    assert_eq!(server.get("/v1/sagas/bench_saga/V-2").await.body["definition_version"], 2);
    assert_eq!(active(&server.post("/v1/definitions/bench_saga/rollback", &json!({})).await), [1]);
    assert_eq!(server.post("/v1/definitions/bench_saga/activate", &json!({"version": 9})).await.code(), "E2201");
}

#[tokio::test]
async fn a_server_has_started_once_all_its_shards_are_assigned() {
    let server = Server::asleep().await;
    assert_eq!(server.get("/livez").await.status, StatusCode::OK);
    let starting = server.get("/startupz").await;
    assert_eq!(starting.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(starting.body, "starting: 0 of 8 shards assigned\n");
    let verbose = server.get("/readyz?verbose").await;
    assert_eq!(verbose.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(verbose.body.as_str().unwrap().contains("FAIL shards assigned"), "{}", verbose.body);
    let server = server.running();
    server.until("/startupz", |answer| answer.status == StatusCode::OK).await;
    server.until("/readyz", |answer| answer.status == StatusCode::OK).await;
    server.stop.cancel();
    server.until("/readyz", |answer| answer.status == StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(server.get("/startupz").await.status, StatusCode::OK, "it did start");
}

#[tokio::test]
async fn a_draining_server_says_so_before_it_stops() {
    let server = Server::start().await;
    server.until("/readyz", |answer| answer.status == StatusCode::OK).await;
    server.drain.start();
    assert_eq!(server.get("/livez").await.status, StatusCode::OK);
    let verbose = server.get("/readyz?verbose").await;
    assert_eq!(verbose.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(verbose.body.as_str().unwrap().contains("FAIL not draining"));
    let still = server.post("/v1/sagas/bench_saga", &bench("D-0", "")).await;
    assert!(still.status.is_success(), "load balancers need a moment to look elsewhere");
    server.drain.close();
    let refused = server.post("/v1/sagas/bench_saga", &bench("D-1", "")).await;
    assert_eq!((refused.code(), &refused.headers["retry-after"]), ("E2502", &"1".parse().unwrap()));
}

#[tokio::test]
async fn an_event_of_another_team_starts_the_sagas_that_wait_for_its_type() {
    let server = Server::start().await;
    let mut source = shipped().into_iter().find(|source| source.text.contains("saga: bench_saga")).unwrap();
    source.text = source.text.replace("version: 1", "version: 2")
        + r#"events:
  shop.counted:
    description: A shop has counted its shelves.
    schema:
      type: object
      required: [shop, day, differs]
      properties: { shop: { type: string }, day: { type: string }, differs: { type: boolean } }
    example: { shop: s-1, day: "2026-11-22", differs: true }
starts_on:
  shop.counted:
    when: =event.differs
    with: { number: =event.shop + "/" + event.day, fail_at: "" }
"#;
    let loaded = server.post("/v1/definitions", &serde_json::to_value(&source).unwrap()).await;
    assert_eq!(loaded.status, StatusCode::CREATED, "{}", loaded.body);
    let counted = |id: &str, data: Value| json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "shop.counted", "data": data});
    let send = |event: Value| {
        let request = Request::post("/v1/events").header("content-type", "application/cloudevents+json");
        server.send(request.body(Body::from(event.to_string())).unwrap())
    };
    let differs = json!({"shop": "s-1", "day": "2026-11-22", "differs": true});
    assert_eq!(
        send(counted("e-1", differs.clone())).await.code(),
        "E2311",
        "version 1 is active and waits for nothing"
    );
    server.post("/v1/definitions/bench_saga/activate", &json!({"version": 2})).await;
    let first = send(counted("e-1", differs.clone())).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.body);
    let started = &first.body["started"][0];
    assert_eq!((&started["definition"], &started["number"]), (&json!("bench_saga"), &json!("s-1/2026-11-22")));
    let saga = server.until("/v1/sagas/bench_saga/s-1%2F2026-11-22", |answer| answer.body["phase"] == "ended").await;
    assert_eq!((&saga.body["outcome"], &saga.body["definition_version"]), (&json!("completed"), &json!(2)));

    let again = send(counted("e-1", differs)).await;
    assert_eq!(again.body["started"][0]["saga"], started["saga"], "told again, it is the same saga");
    let alike = send(counted("e-2", json!({"shop": "s-1", "day": "2026-11-23", "differs": false}))).await;
    assert_eq!((alike.status, &alike.body["started"]), (StatusCode::ACCEPTED, &json!([])), "its `when` does not hold");
    let data = json!({"shop": "s-2", "day": "2026-11-22", "differs": true}).to_string();
    let binary = Request::post("/v1/events").header("content-type", "application/json");
    let binary = binary.header("ce-specversion", "1.0").header("ce-id", "e-3").header("ce-source", "/shop");
    let binary = server.send(binary.header("ce-type", "shop.counted").body(Body::from(data)).unwrap()).await;
    assert_eq!(binary.body["started"][0]["number"], "s-2/2026-11-22", "{}", binary.body);
}
