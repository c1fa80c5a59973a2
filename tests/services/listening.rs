//! Events of other teams, from topics of theirs: they start sagas and come to waits, once each, and what cannot be taken is
//! kept and can be sent again.

use crate::strangers::{THEIRS, client};
use crate::town::{Process, Town};
use endstate_events::{Envelope, Environment, ForeignEvent, ForeignTopic, Lane, Message, SCHEMA_VERSION, Topic};
use endstate_outbox::kafka::raw::{Raw, RawRecord};
use endstate_outbox::{Bus, KafkaBus, Outgoing};
use endstate_saga::definition::Source;
use serde_json::{Value, json};

const DEFINITION: &str = r#"
saga: shop_order
version: 1
input: schemas/shop_order.v1.json
number: =input.order_no
key: =input.order_no
starts_on:
  shop.placed:
    when: =event.total_minor > 0
    with: { order_no: =event.order_no, total_minor: =event.total_minor }
stages:
  - stage: approve
    status: waiting
    wait: { event: shop.approved, within: 1h, at_deadline: { cancel: late } }
cancel: { late: { role: deadline } }
ends: { completed: approved, cancelled: closed, forced: closed }
"#;

const CATALOGUE: &str = r#"
shop:
  transport: { kafka: { topic: "{environment}.shop.commands" } }
  actions: {}
  events:
    placed:
      schema:
        type: object
        required: [order_no, total_minor]
        properties: { order_no: { type: string }, total_minor: { type: integer } }
      example: { order_no: S-1, total_minor: 5 }
    approved:
      schema: { type: object, required: [by], properties: { by: { type: string } } }
      example: { by: olga }
"#;

fn definition() -> Value {
    let schema = json!({
        "type": "object", "required": ["order_no", "total_minor"], "additionalProperties": false,
        "properties": { "order_no": { "type": "string" }, "total_minor": { "type": "integer" } },
    });
    let sample = json!({ "input": { "order_no": "S-1", "total_minor": 5 } });
    let source = Source {
        file: "shop_order.yaml".to_owned(),
        text: DEFINITION.to_owned(),
        schemas: [("schemas/shop_order.v1.json".to_owned(), schema.to_string())].into(),
        samples: [("ok.json".to_owned(), sample.to_string())].into(),
        catalogues: [("catalogue/shop.yaml".to_owned(), CATALOGUE.to_owned())].into(),
        siblings: Default::default(),
    };
    serde_json::to_value(source).unwrap()
}

/// What a shop tells.
struct Shop<'a> {
    bus: &'a KafkaBus,
    topic: ForeignTopic,
}

impl Shop<'_> {
    async fn tell(&self, id: &str, kind: &str, subject: Option<&str>, data: &str) {
        let event = ForeignEvent {
            source: "/shop".to_owned(),
            id: id.to_owned(),
            kind: kind.to_owned(),
            subject: subject.map(str::to_owned),
            teller: None,
            data: data.to_owned(),
        };
        let (key, message) = (subject.unwrap_or(id).to_owned(), Message::Foreign(event));
        let (id, lane) = (id.to_owned(), Lane::Live);
        let envelope = Envelope { id, schema: SCHEMA_VERSION, time_ms: 1, key, lane, message };
        let outgoing = Outgoing { topic: Topic::Foreign(self.topic), partition: 0, envelope: envelope.into() };
        self.bus.produce(vec![outgoing]).await.unwrap();
    }

    async fn placed(&self, id: &str, number: &str, total_minor: i64) {
        let data = json!({ "order_no": number, "total_minor": total_minor }).to_string();
        self.tell(id, "shop.placed", None, &data).await;
    }

    async fn approved(&self, id: &str, number: &str) {
        self.tell(id, "shop.approved", Some(&format!("shop_order/{number}")), r#"{"by":"olga"}"#).await;
    }
}

async fn shown(town: &Town, server: &Process, number: &str, phase: &str) {
    let url = format!("{}/v1/sagas/shop_order/{number}", server.url);
    town.until(&url, |saga| saga["phase"] == phase).await;
}

/// The letters, once there are so many.
async fn letters(town: &Town, server: &Process, count: usize) -> Vec<Value> {
    let url = format!("{}/v1/dead-letters", server.url);
    let page = town.until(&url, |page| page["items"].as_array().is_some_and(|items| items.len() >= count)).await;
    page["items"].as_array().unwrap().clone()
}

async fn heard(town: &Town, server: &Process, outcome: &str) -> u64 {
    let scraped = town.http.get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
    let of = |line: &str| {
        line.starts_with("endstate_foreign_events_total") && line.contains(&format!("heard=\"{outcome}\""))
    };
    scraped.lines().filter(|line| of(line)).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn events_of_other_teams_start_sagas_and_come_to_waits_once() {
    let mut town = Town::new();
    let bus = client(&town).await;
    let environment = town.variable("ENDSTATE_ENVIRONMENT").to_owned();
    let topic = |name: &str| ForeignTopic::named(&format!("{environment}.{name}")).unwrap();
    let (shop, stranger) = (Shop { bus: &bus, topic: topic("shop") }, Shop { bus: &bus, topic: topic("others") });
    for topic in [shop.topic, stranger.topic] {
        bus.reach(topic, Some(THEIRS)).await.unwrap();
    }
    town.set("ENDSTATE_EVENTS_TOPICS", &format!("{}=shop {}", shop.topic.name(), stranger.topic.name()));
    town.set("ENDSTATE_EVENTS_FROM", "beginning");
    let server = town.serve("a", "gateway,orchestrator,participants,sweeper", true).await;
    let loaded = town.http.post(format!("{}/v1/definitions", server.url)).json(&definition()).send().await.unwrap();
    assert_eq!(loaded.status(), 201, "{}", loaded.text().await.unwrap());

    for _ in 0..2 {
        shop.placed("e-1", "S-1", 5).await;
    }
    shown(&town, &server, "S-1", "waiting").await;
    shop.placed("e-2", "S-2", 0).await;
    shop.placed("e-3", "S-3", 7).await;
    shop.approved("e-4", "S-3").await;
    shop.tell("e-5", "shop.sneezed", None, "[]").await;
    // What nobody can take.
    shop.placed("e-6", "S-1", 9).await;
    shop.tell("e-7", "shop.placed", None, r#"{"order_no":1}"#).await;
    shop.tell("e-8", "shop.placed", None, "{").await;
    shop.approved("e-9", "S-9").await;
    stranger.approved("e-10", "S-1").await;
    shown(&town, &server, "S-3", "ended").await;
    // Bytes that would be an event of the shop, if they were believed.
    let forged = ForeignEvent {
        source: "/shop".to_owned(),
        id: "e-0".to_owned(),
        kind: "shop.approved".to_owned(),
        subject: Some("shop_order/S-1".to_owned()),
        teller: Some("shop".to_owned()),
        data: r#"{"by":"mallory"}"#.to_owned(),
    };
    let (id, key, message) = ("e-0".to_owned(), "k".to_owned(), Message::Foreign(forged));
    let forged = Envelope { id, schema: SCHEMA_VERSION, time_ms: 1, key, lane: Lane::Live, message };
    let forged = RawRecord { payload: serde_json::to_vec(&forged).unwrap(), ..RawRecord::default() };
    let raw = Raw::new(town.variable("ENDSTATE_KAFKA_BROKERS"), Environment::new(&environment).unwrap());
    raw.send(Topic::Foreign(stranger.topic), 0, vec![forged]).await.unwrap();
    let found = letters(&town, &server, 6).await;
    let forged = found.iter().find(|letter| letter["bytes"].as_str().unwrap().contains("mallory")).unwrap();
    let again = format!("{}/v1/dead-letters/{}/replay", server.url, forged["id"]);
    let again = town.http.post(again).json(&json!({ "reason": "it looks fine" })).send().await.unwrap();
    let said = (again.status().as_u16(), again.text().await.unwrap());
    assert!(said.0 == 422 && said.1.contains("E2318"), "{said:?}");
    let reasons: Vec<&str> = found.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
    for expected in ["E2301", "E2302", "E2001", "E2202", "E2318"] {
        assert!(reasons.iter().any(|reason| reason.contains(expected)), "{expected}: {reasons:#?}");
    }
    shown(&town, &server, "S-1", "waiting").await;

    // While nobody listens, and after a start that reads on where the database says.
    assert!(server.terminate(), "{}", town.logs());
    shop.placed("e-11", "S-9", 5).await;
    let server = town.serve("b", "gateway,orchestrator,participants,sweeper", true).await;
    shown(&town, &server, "S-9", "waiting").await;
    assert_eq!((heard(&town, &server, "taken").await, heard(&town, &server, "refused").await), (1, 0));
    let letter = found.iter().find(|letter| letter["reason"].as_str().unwrap().contains("E2202")).unwrap();
    let again = format!("{}/v1/dead-letters/{}/replay", server.url, letter["id"]);
    let again = town.http.post(again).json(&json!({ "reason": "its order is there now" })).send().await.unwrap();
    assert_eq!(again.status(), 202, "{}", again.text().await.unwrap());
    shown(&town, &server, "S-9", "ended").await;

    let all = town
        .until(&format!("{}/v1/sagas", server.url), |page| {
            page["items"].as_array().is_some_and(|items| items.len() >= 3)
        })
        .await;
    let numbers: Vec<&str> =
        all["items"].as_array().unwrap().iter().map(|saga| saga["number"].as_str().unwrap()).collect();
    assert_eq!(numbers.len(), 3, "S-1, S-3 and S-9, once each: {numbers:?}");
    assert!(server.terminate(), "{}", town.logs());
}
