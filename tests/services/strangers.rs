//! A participant of another team, over Kafka: its commands reach it, its word counts for its own effects and no others,
//! and what nobody can handle is told to other teams.

use crate::town::{PATIENCE, Process, Town};
use endstate_events::{
    Command, CommandKind, EffectId, Envelope, Environment, ForeignReply, ForeignTopic, Lane, Message, SCHEMA_VERSION,
    SagaId, Topic, Verdict,
};
use endstate_outbox::{Bus, Consumer, KafkaBus, KafkaSettings, Outgoing};
use endstate_saga::definition::Source;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Of the participant's topic: another number than our shards.
pub(crate) const THEIRS: u16 = 3;

/// Our shards.
const SHARDS: u16 = 8;

/// A client of the broker in the town's environment, as another team would have one.
pub(crate) async fn client(town: &Town) -> Arc<KafkaBus> {
    KafkaBus::open(settings(town)).await.unwrap()
}

/// What such a client must know.
pub(crate) fn settings(town: &Town) -> KafkaSettings {
    KafkaSettings {
        brokers: town.variable("ENDSTATE_KAFKA_BROKERS").to_owned(),
        environment: Environment::new(town.variable("ENDSTATE_ENVIRONMENT")).unwrap(),
        partitions: SHARDS,
        replication: 0,
        min_insync: 0,
        foreign_partitions: THEIRS,
        retention: Duration::from_secs(7 * 24 * 3600),
        session: Duration::from_secs(6),
        client: BTreeMap::new(),
    }
}

/// Where a reply goes, as a stranger would send it.
fn said(id: &str, (partition, effect_id): (u16, EffectId), verdict: Verdict) -> Outgoing {
    let key = effect_id.saga.to_string();
    let message = Message::Reply(ForeignReply { effect_id, verdict });
    let (id, lane) = (id.to_owned(), Lane::Live);
    let envelope = Envelope { id, schema: SCHEMA_VERSION, time_ms: 1, key, lane, message };
    Outgoing { topic: Topic::Progress, partition, envelope: envelope.into() }
}

/// A participant that wraps gifts. Which orders it wraps badly, or tells nobody about, its test says.
#[derive(Default)]
struct GiftWrap {
    known: Mutex<BTreeMap<String, Verdict>>,
    /// The first answer about these numbers breaks its schema.
    odd: Mutex<Vec<String>>,
    /// The first answer about these numbers is lost.
    lost: Mutex<Vec<String>>,
    seen: Mutex<Vec<(String, CommandKind)>>,
}

impl GiftWrap {
    fn decide(&self, command: &Command) -> Verdict {
        let mut known = self.known.lock().unwrap();
        let id = command.effect_id.to_string();
        if let Some(verdict) = known.get(&id) {
            return verdict.clone();
        }
        let verdict = match command.kind {
            CommandKind::Ask => return Verdict::NeverSeen,
            CommandKind::Undo => {
                let undone = command.of.as_ref().unwrap().effect_id.to_string();
                let code = "released_before".to_owned();
                known.entry(undone).or_insert(Verdict::Refused { code, detail: String::new() });
                Verdict::Done { data: json!({}) }
            }
            CommandKind::Do if command.with["paper"] == "gold" => Verdict::Done { data: json!({ "tag": "gift-1" }) },
            CommandKind::Do => Verdict::Refused { code: "gift_wrap.no_paper".to_owned(), detail: String::new() },
        };
        known.insert(id, verdict.clone());
        verdict
    }

    fn answer(&self, id: &str, command: &Command) -> Option<Outgoing> {
        self.seen.lock().unwrap().push((command.number.clone(), command.kind));
        let mut verdict = self.decide(command);
        let once = |list: &Mutex<Vec<String>>| {
            let mut list = list.lock().unwrap();
            let at = list.iter().position(|number| *number == command.number);
            at.map(|at| list.remove(at)).is_some()
        };
        if once(&self.lost) {
            return None;
        }
        if once(&self.odd) {
            verdict = Verdict::Done { data: json!({ "tag": 7 }) };
        }
        Some(said(id, (command.reply_to.partition, command.effect_id.clone()), verdict))
    }

    /// Reads its topic and answers where each command says.
    fn work(self: Arc<Self>, bus: Arc<KafkaBus>, topic: ForeignTopic) -> JoinHandle<()> {
        let consumer = |partition| bus.consumer(Topic::Foreign(topic), partition, 0);
        let mut consumers: Vec<Box<dyn Consumer>> = (0..THEIRS).map(consumer).collect();
        tokio::spawn(async move {
            loop {
                for consumer in &mut consumers {
                    for record in consumer.take(100).await.unwrap() {
                        let envelope = record.envelope.unwrap();
                        let Message::Command(command) = &envelope.message else { panic!("{envelope:?}") };
                        if let Some(reply) = self.answer(&envelope.id, command) {
                            bus.produce(vec![reply]).await.unwrap();
                        }
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    }
}

fn gift_order() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tutorial/kafka/gift_order.yaml");
    let mut source = Source::read(&file).unwrap();
    // Asked soon, so that nobody has to wait long for what is lost on purpose.
    source.text = source.text.replace("retry: { timeout: 3s, ask_after: 5s", "retry: { timeout: 1s, ask_after: 1s");
    serde_json::to_value(source).unwrap()
}

pub(crate) async fn open_stock(town: &Town, server: &Process) {
    let with = json!({"unit": "tea", "quantity": 500, "standby": false});
    let body = json!({"operation": "open-1", "lines": [{"participant": "stock", "action": "open", "with": with}]});
    town.post(std::slice::from_ref(&server.url), "/v1/operations", &body).await;
    let operation = format!("{}/v1/operations/open-1", server.url);
    town.until(&operation, |answer| answer["items"][0]["verdict"] == "done").await;
}

pub(crate) async fn start(town: &Town, server: &Process, number: &str, paper: &str) -> SagaId {
    let body = json!({"order_no": number, "user_id": "ann", "sku": "tea", "paper": paper});
    let started = town.post(std::slice::from_ref(&server.url), "/v1/sagas/gift_order", &body).await;
    started["saga"].as_str().unwrap().parse().unwrap()
}

pub(crate) async fn ended(town: &Town, server: &Process, number: &str) -> Value {
    let url = format!("{}/v1/sagas/gift_order/{number}", server.url);
    town.until(&url, |saga| saga["phase"] == "ended").await
}

#[tokio::test]
async fn a_participant_over_kafka_wraps_gifts_and_only_its_own_word_counts() {
    let town = Town::new();
    let server = town.serve("a", "gateway,orchestrator,participants,sweeper", true).await;
    let definitions = format!("{}/v1/definitions", server.url);
    let refused = town.http.post(&definitions).json(&gift_order()).send().await.unwrap();
    assert_eq!(refused.status(), 422, "its topic is not there, and not ours to make");
    let refused = refused.text().await.unwrap();
    assert!(refused.contains("E5017") && refused.contains("there is no topic"), "{refused}");

    let bus = client(&town).await;
    let name = format!("{}.gift_wrap.commands", town.variable("ENDSTATE_ENVIRONMENT"));
    let topic = ForeignTopic::named(&name).unwrap();
    bus.reach(topic, Some(THEIRS)).await.unwrap();
    assert_eq!(town.http.post(&definitions).json(&gift_order()).send().await.unwrap().status(), 201);
    open_stock(&town, &server).await;

    let wraps = Arc::new(GiftWrap::default());
    wraps.odd.lock().unwrap().push("G-odd".to_owned());
    wraps.lost.lock().unwrap().push("G-lost".to_owned());
    let work = wraps.clone().work(bus.clone(), topic);
    for (number, paper) in [("G-1", "gold"), ("G-no", "red"), ("G-odd", "gold"), ("G-lost", "gold")] {
        start(&town, &server, number, paper).await;
    }
    for number in ["G-1", "G-odd", "G-lost"] {
        let saga = ended(&town, &server, number).await;
        assert_eq!((&saga["outcome"], &saga["view"]["tag"]), (&json!("completed"), &json!("gift-1")), "{saga:#}");
    }
    let saga = ended(&town, &server, "G-no").await;
    assert_eq!((&saga["outcome"], &saga["reason"]), (&json!("cancelled"), &json!("gift_wrap.no_paper")), "{saga:#}");
    let asked = |number: &str| wraps.seen.lock().unwrap().contains(&(number.to_owned(), CommandKind::Ask));
    assert!(!asked("G-1") && (asked("G-lost") || asked("G-odd")), "{:?}", wraps.seen.lock().unwrap());

    strangers_are_not_believed(&town, &server, &bus).await;
    work.abort();
    assert!(server.terminate(), "{}", town.logs());
}

/// Somebody may write into `progress`, and speaks for participants that are not theirs, or of sagas that nobody knows.
async fn strangers_are_not_believed(town: &Town, server: &Process, bus: &KafkaBus) {
    let saga = start(town, server, "G-2", "gold").await;
    let effect = |saga: SagaId, step: &str| -> EffectId { format!("{saga}:{step}::do:0").parse().unwrap() };
    let at = |saga: SagaId| saga.slot().partition(SHARDS);
    let lie = || Verdict::Refused { code: "stock.short".to_owned(), detail: String::new() };
    let nobody: SagaId = "0193a0b2-7c00-8abc-9def-0123456789ab".parse().unwrap();
    let lies = vec![
        said("lie-1", (at(saga), effect(saga, "hold_stock")), lie()),
        said("lie-2", (at(saga), effect(saga, "sing")), lie()),
        said("lie-3", (at(nobody), effect(nobody, "wrap")), lie()),
    ];
    bus.produce(lies).await.unwrap();
    assert_eq!(ended(town, server, "G-2").await["outcome"], "completed");
    let letters = format!("{}/v1/dead-letters", server.url);
    let letters = town.until(&letters, |page| page["items"].as_array().is_some_and(|items| items.len() == 2)).await;
    let reasons: Vec<&str> =
        letters["items"].as_array().unwrap().iter().map(|i| i["reason"].as_str().unwrap()).collect();
    assert!(reasons.iter().all(|reason| reason.starts_with("E5018")), "{reasons:?}");
    let timeline = format!("{}/v1/sagas/gift_order/G-2/timeline", server.url);
    let timeline = town.until(&timeline, |page| page["items"].is_array()).await.to_string();
    assert!(!timeline.contains("dead_letter") && !timeline.contains("stock.short"), "{timeline}");

    // Other teams see the letters in their topic.
    let mut copies = Vec::new();
    let reading = async {
        let mut consumer = bus.consumer(Topic::DeadLetters, at(saga), 0);
        while copies.len() < 2 {
            consumer.ready().await;
            copies.extend(consumer.take(10).await.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the letters are told");
    for copy in copies {
        let Message::Letter(letter) = &copy.envelope.as_ref().unwrap().message else { panic!("{copy:?}") };
        assert!(letter.topic == "progress" && letter.reason.starts_with("E5018") && letter.bytes.contains("lie-"));
    }
}
