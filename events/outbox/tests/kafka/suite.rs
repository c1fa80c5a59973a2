//! What every bus promises, on each.

use crate::rig::{PARTITIONS, Rig, item, send, send_sized, take};
use endstate_events::{SCHEMA_VERSION, Topic};
use endstate_outbox::{Bus, BusError, Delivered, Outgoing, Parcel, ShardId, SqliteStore};
use std::sync::Arc;

fn numbered(range: std::ops::Range<usize>) -> Vec<Outgoing> {
    range.map(|n| send(&format!("{n:05}"))).collect()
}

/// All of them, each where the one before ends.
fn assert_in_order(records: &[Delivered], first: usize) {
    let numbers: Vec<_> = records.iter().map(item).collect();
    assert_eq!(numbers, (first..first + records.len()).map(|n| format!("{n:05}")).collect::<Vec<_>>());
    assert!(records.windows(2).all(|pair| pair[0].next == pair[1].offset));
    assert!(records.iter().all(|record| record.next > record.offset));
}

async fn order_and_positions(bus: &dyn Bus) {
    bus.produce(numbered(0..50)).await.unwrap();
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    let first = take(&mut *consumer, 50).await.unwrap();
    assert_in_order(&first, 0);
    assert_eq!(first[0].offset, 0, "a partition begins at 0");
    assert!(consumer.take(10).await.unwrap().is_empty(), "nothing twice");
    bus.produce(numbered(50..60)).await.unwrap();
    let second = take(&mut *consumer, 10).await.unwrap();
    assert_in_order(&second, 50);
    assert_eq!(second[0].offset, first[49].next, "the same consumer goes on");
    let produced = numbered(0..1)[0].envelope.clone();
    assert_eq!(first[0].envelope.as_ref().unwrap(), &produced, "nothing of a message is lost on its way");
}

async fn resumes_where_it_is_told(bus: &dyn Bus) {
    // Together or one by one: whoever reads them cannot tell.
    bus.produce(numbered(0..10)).await.unwrap();
    for n in 10..20 {
        bus.produce(numbered(n..n + 1)).await.unwrap();
    }
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    let all = take(&mut *consumer, 20).await.unwrap();
    assert_in_order(&all, 0);
    // Made anew before the old one is gone, as a shard does that reads a record again.
    for from in [7, 3, 9, 10, 19] {
        consumer = bus.consumer(Topic::Commands, 2, all[from].offset);
        assert_eq!(take(&mut *consumer, 20 - from).await.unwrap(), all[from..], "from the message with this position");
    }
    drop(consumer);
    let mut consumer = bus.consumer(Topic::Commands, 2, all[19].next);
    bus.produce(numbered(20..21)).await.unwrap();
    assert_in_order(&take(&mut *consumer, 1).await.unwrap(), 20);
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
    assert_in_order(&all, 0);
}

async fn what_is_too_large_hurts_nobody(bus: &dyn Bus) {
    let refused = bus.produce(vec![send_sized("large", 3_000_000)]).await;
    assert!(matches!(refused, Ok(()) | Err(BusError::Refused(_))), "taken or refused, never unknown: {refused:?}");
    bus.produce(vec![send_sized("half", 500_000), send("small")]).await.unwrap();
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    let taken = take(&mut *consumer, 2 + usize::from(refused.is_ok())).await.unwrap();
    assert!(taken.iter().map(item).collect::<Vec<_>>().ends_with(&["half".to_owned(), "small".to_owned()]));
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
    let packed = |range| Parcel::pack(numbered(range), |_, _| Ok(())).unwrap();
    first.publish(1, packed(0..5)).await.unwrap();
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    take(&mut *consumer, 5).await.unwrap();
    let mut again = bus.relay(shard, 4).unwrap();
    again.publish(4, packed(3..5)).await.unwrap();
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
