//! Events that others send: whose they are, what they must hold, and under which id they are known.

use super::*;

const WAIT: (&str, &str) = ("prefer", "wait=20");

/// A server on which the refund R-1 of the completed order O-1 waits for approval.
pub(super) async fn with_refund() -> Server {
    let server = with_tea().await;
    let placed = server.post_with("/v1/orders", &[WAIT], &order("O-1", "ann", 0)).await;
    assert_eq!(placed.body["outcome"], "completed", "{}", placed.body);
    let refund = json!({"order_no": "O-1", "refund_no": "R-1", "reason": "broken", "needs_approval": true,
        "lines": [{"line_no": "1", "quantity": 1}]});
    let asked = server.post("/v1/sagas/refund_order", &refund).await;
    assert_eq!(asked.status, StatusCode::ACCEPTED, "{}", asked.body);
    server
}

pub(super) fn cloud_event(event: &Value, kind: &str) -> Request<Body> {
    Request::post("/v1/events").header("content-type", kind).body(Body::from(event.to_string())).unwrap()
}

pub(super) const STRUCTURED: &str = "application/cloudevents+json";

#[tokio::test]
async fn an_event_of_another_team_finds_its_saga_or_is_refused() {
    let server = with_refund().await;
    let event = json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "refund.approved",
        "subject": "refund_order/R-1", "data": {"refund_no": "R-1"}, "traceparent": "00-1"});
    let taken = server.send(cloud_event(&event, STRUCTURED)).await;
    assert_eq!((taken.status, &taken.body["started"]), (StatusCode::ACCEPTED, &json!([])), "{}", taken.body);
    let refund = server.until("/v1/sagas/refund_order/R-1", |answer| answer.body["phase"] == "ended").await;
    assert_eq!(refund.body["status"], "refunded", "{}", refund.body);
    let nobody = json!({"specversion": "1.0", "id": "2", "source": "/shop", "type": "shop.closed", "data": {}});
    assert_eq!(server.send(cloud_event(&nobody, STRUCTURED)).await.code(), "E2311");
    assert_eq!(server.send(cloud_event(&event, "text/plain")).await.code(), "E2004");
    let plain = Request::post("/v1/events").header("content-type", "application/json");
    let binary = plain.header("ce-specversion", "1.0").header("ce-id", "3").header("ce-source", "/shop");
    let binary =
        binary.header("ce-type", "no.such").header("ce-subject", "refund_order/R-1").body(Body::from("{}")).unwrap();
    assert_eq!(server.send(binary).await.code(), "E2307");
}

#[tokio::test]
async fn nobody_but_the_provider_says_that_an_order_was_paid() {
    let server = with_tea().await;
    server.post("/v1/orders", &order("O-1", "ann", 500)).await;
    let path = "/v1/sagas/flash_sale_order/O-1";
    let saga = server.until(path, |answer| answer.body["phase"] == "waiting").await;
    let invented = json!({"provider": "simpay", "provider_no": "P-1", "amount_minor": 500, "currency": "CNY",
        "saga": saga.body["saga"]});
    let told = format!("{path}/events/payment.captured");
    let direct = server.post_with(&told, &[("idempotency-key", "payment/simpay/P-1")], &invented).await;
    assert_eq!((direct.status, direct.code()), (StatusCode::FORBIDDEN, "E2318"));
    let event = json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "payment.captured",
        "subject": "flash_sale_order/O-1", "data": invented});
    assert_eq!(server.send(cloud_event(&event, STRUCTURED)).await.code(), "E2318");
    let timeline = server.get(&format!("{path}/timeline")).await;
    assert!(!timeline.body.to_string().contains("P-1"), "{}", timeline.body);
}

#[tokio::test]
async fn what_an_http_participant_says_comes_in_its_own_name() {
    let server = Server::start().await;
    let yaml = "saga: parcel\nversion: 1\ninput: in.json\nnumber: =input.no\nkey: =input.no\nstages:\n  - stage: go\n    wait: \
        { event: courier.delivered, within: 1d, at_deadline: next }\nends: { completed: there, cancelled: gone, forced: gone }\n";
    let courier = "courier:\n  transport: { http: { url: 'http://127.0.0.1:1' } }\n  actions: {}\n  events:\n    delivered:\n      \
        schema: { type: object, required: [by], properties: { by: { type: string } } }\n      example: { by: bike }\n";
    let bench = shipped().into_iter().find(|source| source.text.contains("saga: bench_saga")).unwrap();
    let parcel = endstate_saga::definition::Source {
        file: "parcel.yaml".into(),
        text: yaml.into(),
        schemas: [("in.json".to_owned(), r#"{"type":"object","properties":{"no":{"type":"string"}}}"#.to_owned())]
            .into(),
        samples: [("one.json".to_owned(), r#"{"input":{"no":"1"}}"#.to_owned())].into(),
        catalogues: bench.catalogues.into_iter().chain([("courier.yaml".to_owned(), courier.to_owned())]).collect(),
        siblings: Vec::new(),
    };
    server.definitions.load(&parcel, SystemClock.now_ms()).await.unwrap();
    server.post("/v1/sagas/parcel", &json!({"no": "1"})).await;
    let tell = async |subject: &str| {
        let bearer = format!("Bearer {}", server.token(subject, [Scope::EventsWrite]).await);
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", "d-1")];
        server.post_with("/v1/sagas/parcel/1/events/courier.delivered", &headers, &json!({"by": "bike"})).await
    };
    assert_eq!(tell("shop").await.code(), "E2318");
    assert_eq!(tell("courier").await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_malformed_event_is_refused_with_the_place_and_parks_nothing() {
    let server = with_refund().await;
    let path = "/v1/sagas/refund_order/R-1";
    server.until(path, |answer| answer.body["phase"] == "waiting").await;
    let told = format!("{path}/events/refund.approved");
    let direct = server.post_with(&told, &[("idempotency-key", "e-1")], &json!({})).await;
    assert_eq!((direct.status, direct.code()), (StatusCode::UNPROCESSABLE_ENTITY, "E2302"));
    assert!(direct.body["detail"].as_str().unwrap().contains("refund_no"), "{}", direct.body);
    let event = json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "refund.approved",
        "subject": "refund_order/R-1", "data": {"refund_no": 1}});
    let cloud = server.send(cloud_event(&event, STRUCTURED)).await;
    assert_eq!((cloud.code(), &cloud.body["errors"][0]["pointer"]), ("E2302", &json!("/data/refund_no")));
    assert_eq!(server.get(path).await.body["phase"], "waiting");

    let right = json!({"refund_no": "R-1"});
    let taken = server.post_with(&told, &[("idempotency-key", "e-1")], &right).await;
    assert_eq!((taken.status, &taken.body["input"]), (StatusCode::ACCEPTED, &json!("event/refund.approved/e-1")));
    server.until(path, |answer| answer.body["phase"] == "ended").await;
}

/// A definition of which one saga starts for each shop that has counted its shelves; `more` are further lines of it.
pub(super) fn counted(name: &str, more: &str, declared: &str, input: &Value) -> endstate_saga::definition::Source {
    let text = format!(
        r#"saga: {name}
version: 1
input: in.json
number: =input.shop
key: =input.shop
events:
  shop.counted:
    schema: {declared}
    example: {{ shop: s-1, shelves: 4 }}
stages:
  - stage: look
    status: looking
    steps:
      look: {{ call: bench.reserve, with: {{ fail: false }}, undo: bench.unreserve }}
{more}
ends: {{ completed: seen, cancelled: gone, forced: gone }}
"#
    );
    let bench = shipped().into_iter().find(|source| source.text.contains("saga: bench_saga")).unwrap();
    endstate_saga::definition::Source {
        file: format!("{name}.yaml"),
        text,
        schemas: [("in.json".to_owned(), input.to_string())].into(),
        samples: [("one.json".to_owned(), r#"{"input":{"shop":"s-1","shelves":4}}"#.to_owned())].into(),
        ..bench
    }
}

#[tokio::test]
async fn of_the_sagas_that_an_event_starts_all_start_or_none() {
    let server = Server::start().await;
    let input = |shelves: Value| {
        let properties = json!({"shop": {"type": "string"}, "shelves": shelves});
        json!({"type": "object", "required": ["shop", "shelves"], "properties": properties})
    };
    let easy = counted(
        "audit",
        "starts_on: { shop.counted: { with: { shop: =event.shop, shelves: 1 } } }",
        "{ type: object, properties: { shop: { type: string } } }",
        &input(json!({"type": "integer"})),
    );
    let strict = counted(
        "recount",
        "starts_on: { shop.counted: { when: =event.shelves != 7, with: { shop: =event.shop, shelves: =event.shelves } } }\n\
         values: { each: =100 / input.shelves }",
        "{ type: object, properties: { shop: { type: string }, shelves: { type: integer } } }",
        &input(json!({"type": "integer", "maximum": 50})),
    );
    for source in [easy, strict] {
        server.definitions.load(&source, SystemClock.now_ms()).await.unwrap();
    }
    let tell = async |id: &str, data: Value| {
        let event = json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "shop.counted", "data": data});
        server.send(cloud_event(&event, STRUCTURED)).await
    };
    let refused = [
        ("breaks the declaration of the second", json!({"shop": "s-1", "shelves": "many"}), "/data/shelves"),
        ("has nothing that the second asks for", json!({"shop": "s-1"}), "starts_on.shop.counted.when"),
        ("makes an input that does not fit the second", json!({"shop": "s-1", "shelves": 51}), "/shelves"),
        ("makes an input that the second cannot compute with", json!({"shop": "s-1", "shelves": 0}), "values"),
    ];
    for (what, data, place) in refused {
        let answer = tell(what, data).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNPROCESSABLE_ENTITY, "E2302"), "{what}");
        assert!(answer.body.to_string().contains(place), "{what}: {}", answer.body);
        for path in ["/v1/sagas/audit/s-1", "/v1/sagas/recount/s-1"] {
            assert_eq!(server.get(path).await.status, StatusCode::NOT_FOUND, "{what}: {path}");
        }
    }

    let names = |answer: &Answer| {
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        let started = answer.body["started"].as_array().unwrap().iter();
        let named =
            |item: &Value| ["definition", "number", "saga"].map(|field| item[field].as_str().unwrap().to_owned());
        started.map(named).collect::<Vec<_>>()
    };
    let both = names(&tell("e-1", json!({"shop": "s-1", "shelves": 4})).await);
    let told: Vec<_> = both.iter().map(|[definition, number, _]| (&**definition, &**number)).collect();
    assert_eq!(told, [("audit", "s-1"), ("recount", "s-1")]);
    for [definition, number, saga] in &both {
        let path = format!("/v1/sagas/{definition}/{number}");
        let ended = server.until(&path, |answer| answer.body["phase"] == "ended").await;
        assert_eq!((&ended.body["saga"], &ended.body["status"]), (&json!(saga), &json!("seen")));
    }
    assert_eq!(names(&tell("e-1", json!({"shop": "s-1", "shelves": 4})).await), both, "told again, they are the same");
    let one = names(&tell("e-2", json!({"shop": "s-2", "shelves": 7})).await);
    assert_eq!(
        one.iter().map(|[definition, ..]| &**definition).collect::<Vec<_>>(),
        ["audit"],
        "a `when` refuses nothing"
    );
}
