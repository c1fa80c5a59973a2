//! What every bus promises, on each.

use crate::rig::{PARTITIONS, Rig, item, send, send_sized, take};
use endstate_events::{SCHEMA_VERSION, Topic};
use endstate_outbox::{Bus, BusError, Outgoing, ShardId, SqliteStore};
use std::sync::Arc;

fn numbered(range: std::ops::Range<usize>) -> Vec<Outgoing> {
    range.map(|n| send(&format!("{n:05}"))).collect()
}

async fn order_and_positions(bus: &dyn Bus) {
    bus.produce(numbered(0..50)).await.unwrap();
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    let first = take(&mut *consumer, 50).await.unwrap();
    assert!(first.iter().enumerate().all(|(n, record)| record.offset == n as i64 && item(record) == format!("{n:05}")));
    assert!(consumer.take(10).await.unwrap().is_empty(), "nothing twice");
    bus.produce(numbered(50..60)).await.unwrap();
    assert_eq!(take(&mut *consumer, 10).await.unwrap()[0].offset, 50, "the same consumer goes on");
    let produced = numbered(0..1)[0].envelope.clone();
    assert_eq!(first[0].envelope.as_ref().unwrap(), &produced, "nothing of a message is lost on its way");
}

async fn resumes_where_it_is_told(bus: &dyn Bus) {
    bus.produce(numbered(0..20)).await.unwrap();
    let mut consumer = bus.consumer(Topic::Commands, 2, 7);
    assert_eq!(item(&take(&mut *consumer, 13).await.unwrap()[0]), "00007");
    // Made anew before the old one is gone, as a shard does that reads a record again.
    consumer = bus.consumer(Topic::Commands, 2, 3);
    let again = take(&mut *consumer, 17).await.unwrap();
    assert_eq!(again.iter().map(|record| record.offset).collect::<Vec<_>>(), (3..20).collect::<Vec<_>>());
    drop(consumer);
    let mut consumer = bus.consumer(Topic::Commands, 2, 19);
    assert_eq!(take(&mut *consumer, 1).await.unwrap()[0].offset, 19);
}

async fn partitions_and_topics_are_apart(bus: &dyn Bus) {
    let mut all = Vec::new();
    for (partition, topic) in (0..PARTITIONS).zip(Topic::ALL) {
        all.push(Outgoing { topic, partition, ..send(topic.label()) });
    }
    bus.produce(all).await.unwrap();
    for (partition, topic) in (0..PARTITIONS).zip(Topic::ALL) {
        let mut consumer = bus.consumer(topic, partition, 0);
        let taken = take(&mut *consumer, 1).await.unwrap();
        assert_eq!((item(&taken[0]).as_str(), taken[0].topic, taken[0].offset), (topic.label(), topic, 0));
        assert!(consumer.take(10).await.unwrap().is_empty());
    }
}

async fn a_slow_reader_misses_nothing(bus: &dyn Bus) {
    for page in 0..12 {
        bus.produce(numbered(page * 1000..(page + 1) * 1000)).await.unwrap();
    }
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    let all = take(&mut *consumer, 12_000).await.unwrap();
    assert!(all.iter().enumerate().all(|(n, record)| record.offset == n as i64 && item(record) == format!("{n:05}")));
}

async fn what_is_too_large_hurts_nobody(bus: &dyn Bus) {
    let refused = bus.produce(vec![send_sized("large", 3_000_000)]).await;
    assert!(matches!(refused, Ok(()) | Err(BusError::Refused(_))), "taken or refused, never unknown: {refused:?}");
    bus.produce(vec![send_sized("half", 500_000), send("small")]).await.unwrap();
    let mut consumer = bus.consumer(Topic::Commands, 2, i64::from(refused.is_ok()));
    let taken = take(&mut *consumer, 2).await.unwrap();
    assert_eq!(taken.iter().map(item).collect::<Vec<_>>(), ["half", "small"]);
}

async fn a_newer_message_is_told_as_newer(bus: &dyn Bus) {
    let mut newer = send("newer");
    Arc::make_mut(&mut newer.envelope).schema = SCHEMA_VERSION + 1;
    bus.produce(vec![newer]).await.unwrap();
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    let taken = take(&mut *consumer, 1).await.unwrap();
    let schema = match &taken[0].envelope {
        Ok(envelope) => i64::from(envelope.schema),
        Err(kept) => serde_json::from_str::<serde_json::Value>(&kept.bytes).unwrap()["schema"].as_i64().unwrap(),
    };
    assert_eq!(schema, i64::from(SCHEMA_VERSION) + 1);
}

/// Only where commit is not delivery: what a relay carries can be read, also twice.
async fn a_relay_publishes_and_publishes_again(bus: &dyn Bus) {
    let shard = ShardId { side: endstate_events::Side::Orchestrator, index: 0 };
    let Some(mut first) = bus.relay(shard, 1) else { return };
    let packed = |relay: &dyn endstate_outbox::Relay, range| {
        numbered(range).into_iter().map(|message| relay.pack(message).unwrap()).collect::<Vec<_>>()
    };
    let messages = packed(&*first, 0..5);
    first.publish(1, messages).await.unwrap();
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    take(&mut *consumer, 5).await.unwrap();
    let mut again = bus.relay(shard, 4).unwrap();
    let messages = packed(&*again, 3..5);
    again.publish(4, messages).await.unwrap();
    let twice = take(&mut *consumer, 2).await.unwrap();
    assert_eq!(twice.iter().map(item).collect::<Vec<_>>(), ["00003", "00004"]);
    // Read by somebody, so acknowledged, but the report may be a moment behind.
    let acknowledged = async {
        while again.published().unwrap() < 6 || first.published().unwrap() < 6 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::rig::PATIENCE, acknowledged).await.expect("all is acknowledged");
}

/// One test per promise and bus.
macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        mod local {
            use super::*;
            $(
                #[tokio::test]
                async fn $promise() {
                    let folder = tempfile::tempdir().unwrap();
                    let store = SqliteStore::open(folder.path()).await.unwrap();
                    super::$promise(&*store.bus()).await;
                }
            )*
        }
        mod kafka {
            use super::*;
            $(
                #[tokio::test]
                async fn $promise() {
                    let rig = Rig::new();
                    let bus = rig.bus().await;
                    super::$promise(&*bus).await;
                    bus.close().await;
                    rig.wipe().await;
                }
            )*
        }
    };
}

promises!(
    order_and_positions,
    resumes_where_it_is_told,
    partitions_and_topics_are_apart,
    a_slow_reader_misses_nothing,
    what_is_too_large_hurts_nobody,
    a_newer_message_is_told_as_newer,
    a_relay_publishes_and_publishes_again,
);
