//! A producer of another team that writes with Kafka's transactions: the mark that ends one takes an offset, and is no
//! record. Timers must not wait for what never comes (Z7), nor step over what does.

use crate::rig::{PATIENCE, Rig, item, send, take};
use endstate_events::{Topic, cloud_event};
use endstate_outbox::{Bus as _, Consumer};
use futures_util::FutureExt as _;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// A producer with transactions, of whoever.
fn transactional(rig: &Rig) -> BaseProducer {
    let mut config = rig.config();
    config.set("transactional.id", rig.settings.environment.as_str());
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    producer
}

/// Writes a message as another team does, a CloudEvent in binary mode, and waits until the broker has it.
fn write(producer: &BaseProducer, rig: &Rig, named: &str) {
    let envelope = send(named).envelope;
    let body = cloud_event::data(&envelope.message).unwrap();
    let headers = cloud_event::attributes(&envelope, &rig.settings.environment)
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (name, value)| {
            headers.insert(Header { key: &format!("ce_{name}"), value: Some(value.as_bytes()) })
        });
    let name = rig.name(Topic::Commands);
    let record = BaseRecord::to(&name).partition(2).key("k").payload(&body).headers(headers);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(PATIENCE).unwrap();
}

/// Takes until the end is reached that the broker tells, which must bring no message.
pub(crate) async fn at_end(consumer: &mut dyn Consumer) {
    let reached = async {
        loop {
            assert!(consumer.look().await, "the broker answers");
            assert!(consumer.take(10).await.unwrap().is_empty(), "nothing more was sent");
            if consumer.at_end() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("behind the mark is nothing to wait for");
}

#[tokio::test]
async fn z07_behind_the_mark_of_a_transaction_nothing_is_waited_for() {
    let rig = Rig::new();
    let bus = rig.bus().await;
    let producer = transactional(&rig);
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    write(&producer, &rig, "a");
    producer.commit_transaction(PATIENCE).unwrap();
    let first = take(&mut *consumer, 1).await.unwrap();
    assert_eq!(item(&first[0]), "a");
    at_end(&mut *consumer).await;

    // Whoever is assigned in front of the mark, in this process or another, has read all as well.
    for bus in [&bus, &rig.bus().await] {
        consumer = bus.consumer(Topic::Commands, 2, first[0].next);
        at_end(&mut *consumer).await;
    }
    // One that goes back does not take what an older assignment has passed for read.
    consumer = bus.consumer(Topic::Commands, 2, 0);
    while consumer.ready().now_or_never().is_none() {
        assert!(consumer.look().await && consumer.take(0).await.unwrap().is_empty());
        assert!(!consumer.at_end(), "a record is to come");
    }
    assert_eq!(take(&mut *consumer, 1).await.unwrap(), first);

    // What was taken back is no message either, and what comes behind is read.
    producer.begin_transaction().unwrap();
    write(&producer, &rig, "b");
    producer.abort_transaction(PATIENCE).unwrap();
    at_end(&mut *consumer).await;
    bus.produce(vec![send("c")]).await.unwrap();
    assert_eq!(item(&take(&mut *consumer, 1).await.unwrap()[0]), "c");
    drop(consumer);
    bus.close().await;
    rig.wipe().await;
}
