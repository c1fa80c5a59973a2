//! What the tests stand on: an environment of its own on the broker for each test, gone afterwards.

use endstate_events::{Command, CommandKind, Direction, EffectId, Envelope, Environment, Json, Lane, Message, ReplyTo};
use endstate_events::{SCHEMA_VERSION, SagaId, Slot, Topic};
use endstate_outbox::{Consumer, Delivered, KafkaBus, KafkaSettings, Outgoing, StoreError};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const PARTITIONS: u16 = 4;

/// Long enough for a busy machine; nothing passes or fails by it but a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The broker's address.
pub(crate) fn brokers() -> String {
    std::env::var("ENDSTATE_TEST_KAFKA")
        .unwrap_or_else(|_| panic!("no broker: run `scripts/services run -- cargo test --workspace --test kafka`"))
}

/// An environment on the broker that nobody else has.
pub(crate) struct Rig {
    pub(crate) settings: KafkaSettings,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let name = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let settings = KafkaSettings {
            brokers: brokers(),
            environment: Environment::new(&name).unwrap(),
            partitions: PARTITIONS,
            replication: 1,
            min_insync: 1,
            foreign_partitions: 0,
            retention: Duration::from_secs(7 * 24 * 3600),
            session: Duration::from_secs(6),
            client: BTreeMap::new(),
        };
        Self { settings }
    }

    pub(crate) async fn bus(&self) -> Arc<KafkaBus> {
        KafkaBus::open(self.settings.clone()).await.unwrap()
    }

    pub(crate) fn name(&self, topic: Topic) -> String {
        topic.name(&self.settings.environment).into_owned()
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.settings.brokers);
        config
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }

    /// Deletes what the test has made.
    pub(crate) async fn wipe(&self) {
        let names = Topic::ALL.map(|topic| self.name(topic));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.admin().delete_topics(&names, &AdminOptions::new()).await.unwrap();
    }
}

/// A command to partition 2, told from others by its item.
pub(crate) fn send(item: &str) -> Outgoing {
    send_sized(item, 0)
}

pub(crate) fn send_sized(item: &str, bytes: usize) -> Outgoing {
    send_text(item, "x".repeat(bytes))
}

pub(crate) fn send_text(item: &str, text: String) -> Outgoing {
    let saga = SagaId::mint(1, Slot::of("k"), 7);
    let effect_id = EffectId { saga, step: "hold".into(), item: item.into(), direction: Direction::Do, round: 0 };
    let command = Command {
        effect_id: effect_id.clone(),
        kind: CommandKind::Do,
        participant: "stock".into(),
        action: "hold".into(),
        number: "n".into(),
        definition: "d".into(),
        definition_version: 1,
        key: "k".into(),
        with: Json::from(text),
        of: None,
        reply_to: ReplyTo { topic: Topic::Progress, partition: 0 },
    };
    let envelope = Envelope {
        id: effect_id.to_string(),
        schema: SCHEMA_VERSION,
        time_ms: 1,
        key: "k".into(),
        lane: Lane::Load,
        message: Message::Command(command),
    };
    Outgoing { topic: Topic::Commands, partition: 2, envelope: envelope.into() }
}

pub(crate) fn item(record: &Delivered) -> String {
    match &record.envelope.as_ref().expect("it can be read").message {
        Message::Command(command) => command.effect_id.item.clone(),
        other => other.label().to_owned(),
    }
}

/// Takes until there are `count` records, some at a time.
pub(crate) async fn take(consumer: &mut dyn Consumer, count: usize) -> Result<Vec<Delivered>, StoreError> {
    let taking = async {
        let mut all = Vec::new();
        while all.len() < count {
            consumer.ready().await;
            all.extend(consumer.take((count - all.len()).min(100)).await?);
        }
        Ok(all)
    };
    tokio::time::timeout(PATIENCE, taking).await.expect("records arrive")
}

/// The error that ends a consumer.
pub(crate) async fn refusal(consumer: &mut dyn Consumer) -> String {
    take(consumer, 1).await.expect_err("nothing can be read").to_string()
}
