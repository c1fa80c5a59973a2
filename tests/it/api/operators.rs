//! What operators do beside single sagas: dead letters sent again, jobs run by hand. Each leaves who and why.

use super::*;
use endstate_events::{
    ACTIVE_VERSION, Envelope, Input, InputBody, Message, SCHEMA_VERSION, SagaId, Slot, Start, Topic,
};
use endstate_outbox::Outgoing;

const OPERATE: [Scope; 4] = [Scope::SagasOperate, Scope::AuditRead, Scope::SagasRead, Scope::DefinitionsWrite];

/// One operator of a server that has tokens.
struct Operator<'a> {
    server: &'a Server,
    bearer: String,
}

impl<'a> Operator<'a> {
    async fn of(server: &'a Server) -> Self {
        Self { server, bearer: format!("Bearer {}", server.token("olga", OPERATE).await) }
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.server.post_with(path, &[("authorization", &self.bearer)], body).await
    }

    async fn get(&self, path: &str) -> Answer {
        let request = Request::get(path).header("authorization", &self.bearer);
        self.server.send(request.body(Body::empty()).unwrap()).await
    }

    async fn until(&self, path: &str, fits: impl Fn(&Answer) -> bool) -> Answer {
        until(path, async || self.get(path).await, fits).await
    }
}

/// A start of a version that its sender believed to be loaded.
async fn queue_start(server: &Server, number: &str, version: u32) {
    let saga = SagaId::mint(SystemClock.now_ms(), Slot::of(number), 7);
    let start = Start {
        definition: "bench_saga".into(),
        version,
        number: number.into(),
        key: number.into(),
        owner: None,
        input: bench(number, ""),
        body_hash: "ab".repeat(32),
        link: None,
    };
    queue(server, Topic::Start, saga, number, InputBody::Start(Box::new(start))).await;
}

async fn queue(server: &Server, topic: Topic, saga: SagaId, id: &str, body: InputBody) {
    let message = Message::Input(Input { saga, body });
    let (id, time_ms) = (id.to_owned(), SystemClock.now_ms());
    let envelope = Envelope { key: id.clone(), id, schema: SCHEMA_VERSION, time_ms, lane: Lane::Live, message };
    let partition = saga.slot().partition(server.store.partitions());
    server.store.bus().produce(vec![Outgoing { topic, partition, envelope: envelope.into() }]).await.unwrap();
}

#[tokio::test]
async fn a_dead_letter_is_sent_again_once_its_cause_is_gone() {
    let server = Server::start().await;
    let operator = Operator::of(&server).await;
    queue_start(&server, "early", 2).await;
    let letters = operator.until("/v1/dead-letters", |a| a.body["items"][0]["id"].is_number()).await;
    let letter = &letters.body["items"][0];
    assert!(letter["reason"].as_str().unwrap().starts_with("E3001"), "{letter}");
    assert_eq!((letter["topic"].as_str(), letter.get("replayed_at")), (Some("start"), None));
    let path = format!("/v1/dead-letters/{}/replay", letter["id"]);

    let silent = operator.post(&path, &json!({})).await;
    assert_eq!((silent.code(), silent.body["errors"][0]["pointer"].as_str()), ("E2002", Some("/reason")));
    let bench = shipped().into_iter().find(|source| source.text.contains("saga: bench_saga")).unwrap();
    let mut second = bench.clone();
    second.text = second.text.replace("version: 1", "version: 2");
    let loaded = operator.post("/v1/definitions", &serde_json::to_value(&second).unwrap()).await;
    assert_eq!(loaded.status, StatusCode::CREATED, "{}", loaded.body);
    let replayed = operator.post(&path, &json!({"reason": "OPS-7: version 2 is loaded"})).await;
    assert_eq!((replayed.status, &replayed.body["by"]), (StatusCode::ACCEPTED, &json!("olga")), "{}", replayed.body);

    let saga = operator.until("/v1/sagas/bench_saga/early", |answer| answer.body["phase"] == "ended").await;
    assert_eq!((&saga.body["outcome"], &saga.body["definition_version"]), (&json!("completed"), &json!(2)));
    let marked = operator.get("/v1/dead-letters").await;
    assert_eq!(marked.body["items"].as_array().unwrap().len(), 1, "{}", marked.body);
    let letter = &marked.body["items"][0];
    assert!(letter["replayed_at"].is_string());
    assert_eq!(
        (&letter["replayed_by"], &letter["replay_reason"]),
        (&json!("olga"), &json!("OPS-7: version 2 is loaded"))
    );
    assert_eq!(operator.post(&path, &json!({"reason": "again"})).await.code(), "E2205", "a letter is sent once");
}

#[tokio::test]
async fn a_start_that_was_queued_without_a_version_gets_the_active_one() {
    let server = Server::start().await;
    let operator = Operator::of(&server).await;
    queue_start(&server, "unversioned", ACTIVE_VERSION).await;
    let saga = operator.until("/v1/sagas/bench_saga/unversioned", |answer| answer.body["phase"] == "ended").await;
    assert_eq!(saga.body["definition_version"], 1);
}

#[tokio::test]
async fn jobs_are_listed_and_run_by_hand() {
    let server = Server::start().await;
    let operator = Operator::of(&server).await;
    let listed = operator.get("/v1/jobs").await;
    let names: Vec<_> = listed.body["items"].as_array().unwrap().iter().map(|job| job["job"].clone()).collect();
    assert_eq!(names, ["sweep", "orphans"]);
    assert!(listed.body["items"][0].get("last_run").is_none(), "{}", listed.body);

    let nobody = SagaId::mint(SystemClock.now_ms(), Slot::of("nobody"), 7);
    let event = InputBody::Event { name: "payment.captured".into(), data: json!({}) };
    queue(&server, Topic::Progress, nobody, "E-1", event).await;
    let run = "/v1/jobs/orphans/run";
    let mut looked = operator.post(run, &json!({"reason": "OPS-9", "dry_run": true})).await;
    for _ in 0..500 {
        if looked.body["found"] == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        looked = operator.post(run, &json!({"reason": "OPS-9", "dry_run": true})).await;
    }
    assert_eq!((looked.status, &looked.body["outcome"]), (StatusCode::OK, &json!("done")), "{}", looked.body);
    assert_eq!((&looked.body["found"], &looked.body["changed"]), (&json!(1), &json!(0)));
    assert_eq!(looked.body["details"][0]["orphan"], "E-1");

    let ran = operator.post(run, &json!({"reason": "OPS-10"})).await;
    assert_eq!((&ran.body["dry_run"], &ran.body["by"]), (&json!(false), &json!("olga")), "{}", ran.body);
    let runs = operator.get("/v1/jobs/orphans/runs?limit=1").await;
    assert_eq!(runs.body["items"][0], ran.body, "the record is what the run was answered with");
    let before = operator.get(&format!("/v1/jobs/orphans/runs?cursor={}", runs.body["next"].as_str().unwrap())).await;
    assert_eq!(
        (&before.body["items"][0]["dry_run"], &before.body["items"][0]["reason"]),
        (&json!(true), &json!("OPS-9"))
    );
    assert_eq!(operator.get("/v1/jobs").await.body["items"][1]["last_run"], ran.body);

    assert_eq!(operator.post("/v1/jobs/dance/run", &json!({"reason": "x"})).await.code(), "E2208");
    assert_eq!(operator.get("/v1/jobs/dance/runs").await.code(), "E2208");
    let silent = operator.post(run, &json!({"dry_run": "yes"})).await;
    let pointers: Vec<_> = silent.body["errors"].as_array().unwrap().iter().map(|e| e["pointer"].clone()).collect();
    assert_eq!(pointers, ["/reason", "/dry_run"]);
}
