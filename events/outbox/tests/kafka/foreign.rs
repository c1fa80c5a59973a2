//! Topics of other teams: written to, looked at, and in nobody's way when they take nothing.

use crate::rig::{PATIENCE, Rig, item, send, take};
use endstate_events::{ForeignTopic, Message, Side, Topic};
use endstate_outbox::kafka::FOREIGN_WINDOW;
use endstate_outbox::{Bus as _, KafkaBus, KafkaSettings, Outgoing, Parcel, ShardId};
use std::time::Duration;

fn theirs(rig: &Rig, name: &str) -> ForeignTopic {
    ForeignTopic::named(&format!("{}.{name}", rig.settings.environment)).unwrap()
}

fn to(topic: ForeignTopic, item: &str) -> Outgoing {
    Outgoing { topic: Topic::Foreign(topic), partition: 0, ..send(item) }
}

#[tokio::test]
async fn a_foreign_topic_is_looked_at_and_made_only_if_told() {
    let rig = Rig::new();
    let (bus, topic) = (rig.bus().await, theirs(&rig, "wrap"));
    let said = bus.reach(topic, None).await.unwrap_err().to_string();
    assert!(said.contains("there is no topic"), "{said}");
    assert!(bus.reach(topic, None).await.is_err(), "looking makes none");
    let generous = KafkaBus::open(KafkaSettings { foreign_partitions: 3, ..rig.settings.clone() }).await.unwrap();
    generous.reach(topic, None).await.unwrap();
    bus.reach(topic, Some(3)).await.unwrap();
    let said = bus.reach(topic, Some(4)).await.unwrap_err().to_string();
    assert!(said.contains("3 partitions instead of 4"), "{said}");
    bus.produce((0..9).map(|n| to(topic, &n.to_string())).collect()).await.unwrap();
    // One key, so one partition, in order; which one is the producer's choice.
    let mut consumers: Vec<_> = (0..3).map(|partition| bus.consumer(Topic::Foreign(topic), partition, 0)).collect();
    let (mut items, mut used) = (Vec::new(), 0);
    let taking = async {
        while items.len() < 9 {
            for consumer in &mut consumers {
                let taken = consumer.take(100).await.unwrap();
                used += usize::from(!taken.is_empty() && items.is_empty());
                items.extend(taken.iter().map(item));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taking).await.expect("they arrive");
    assert_eq!(used, 1);
    assert_eq!(items, (0..9).map(|n| n.to_string()).collect::<Vec<_>>());
    generous.close().await;
    bus.close().await;
    rig.admin().delete_topics(&[topic.name()], &rdkafka::admin::AdminOptions::new()).await.unwrap();
    rig.wipe().await;
}

/// Whoever deletes a topic of theirs stops their commands, and nobody else's.
#[tokio::test]
async fn z10_a_foreign_topic_that_takes_nothing_stops_neither_others_nor_the_mark() {
    let rig = Rig::new();
    let (bus, gone) = (rig.bus().await, theirs(&rig, "gone"));
    let mut relay = bus.relay(ShardId { side: Side::Orchestrator, index: 0 }, 0).unwrap();
    let count = FOREIGN_WINDOW + 200;
    let messages: Vec<_> = (0..count).flat_map(|n| [to(gone, &n.to_string()), send(&n.to_string())]).collect();
    let total = messages.len() as i64;
    // Ours come in between, as batches bring them.
    let parcels = messages.chunks(100).flat_map(|some| Parcel::pack(some.to_vec(), |_, _| Ok(())).unwrap()).collect();
    let publishing = tokio::time::timeout(PATIENCE, relay.publish(0, parcels)).await;
    publishing.expect("nobody waits for room in a topic that takes nothing").unwrap();
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    assert_eq!(take(&mut *consumer, count).await.unwrap().len(), count, "ours arrive");
    assert!(relay.published().unwrap() < total, "theirs are still tried");
    let marked = async {
        while relay.published().unwrap() < total {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, marked).await.expect("what was given up holds no mark");
    bus.close().await;
    rig.wipe().await;
}

#[tokio::test]
async fn a_command_to_another_team_says_where_its_reply_goes() {
    use rdkafka::Message as _;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::message::Headers as _;
    let rig = Rig::new();
    let topic = theirs(&rig, "wrap");
    let bus = KafkaBus::open(KafkaSettings { foreign_partitions: 1, ..rig.settings.clone() }).await.unwrap();
    bus.reach(topic, None).await.unwrap();
    bus.produce(vec![to(topic, "a")]).await.unwrap();
    let mut config = rig.config();
    config.set("group.id", format!("{}.their", rig.settings.environment)).set("auto.offset.reset", "earliest");
    let tool: BaseConsumer = config.create().unwrap();
    tool.subscribe(&[topic.name()]).unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    let record = loop {
        assert!(std::time::Instant::now() < until, "the command arrives");
        if let Some(Ok(record)) = tool.poll(Duration::from_millis(100)) {
            break record;
        }
    };
    let header = |name: &str| {
        let found = record.headers().unwrap().iter().find(|header| header.key == name);
        String::from_utf8(found.unwrap().value.unwrap().to_vec()).unwrap()
    };
    assert_eq!(header("ce_replytopic"), rig.name(Topic::Progress));
    assert_eq!((header("ce_replypartition").as_str(), header("ce_type").as_str()), ("0", "endstate.command"));
    let sent = to(topic, "a");
    let Message::Command(command) = &sent.envelope.message else { panic!("a command") };
    assert_eq!((header("ce_replykey"), header("ce_id")), (command.saga().to_string(), command.effect_id.to_string()));
    assert_eq!(record.key(), Some("k".as_bytes()));
    bus.close().await;
    rig.admin().delete_topics(&[topic.name()], &rdkafka::admin::AdminOptions::new()).await.unwrap();
    rig.wipe().await;
}
