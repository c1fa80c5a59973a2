//! What a broker can do to a position: Z3, and topics that are not as they must be.

use crate::rig::{PARTITIONS, Rig, item, refusal, send, take};
use endstate_events::Topic;
use endstate_outbox::kafka::raw::{Raw, RawRecord};
use endstate_outbox::{Bus as _, Delivered, KafkaBus, KafkaSettings};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use std::time::Duration;

fn numbered(count: usize) -> Vec<endstate_outbox::Outgoing> {
    (0..count).map(|n| send(&n.to_string())).collect()
}

/// Ten messages, each a record of its own, as they are read.
async fn one_by_one(bus: &KafkaBus) -> Vec<Delivered> {
    for message in numbered(10) {
        bus.produce(vec![message]).await.unwrap();
    }
    take(&mut *bus.consumer(Topic::Commands, 2, 0), 10).await.unwrap()
}

#[tokio::test]
async fn z03_a_group_that_was_reset_moves_no_position() {
    let rig = Rig::new();
    let bus = rig.bus().await;
    let all = one_by_one(&bus).await;
    for group in ["endstate.participants", "endstate.reader"] {
        for offset in [Offset::Offset(0), Offset::Offset(10)] {
            let mut config = rig.config();
            config.set("group.id", format!("{}.{group}", rig.settings.environment));
            let tool: BaseConsumer = config.create().unwrap();
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&rig.name(Topic::Commands), 2, offset).unwrap();
            tool.commit(&list, CommitMode::Sync).unwrap();
            let mut consumer = bus.consumer(Topic::Commands, 2, all[6].offset);
            assert_eq!(item(&take(&mut *consumer, 4).await.unwrap()[0]), "6");
        }
    }
    bus.close().await;
    rig.wipe().await;
}

#[tokio::test]
async fn z03_records_deleted_unread_stop_the_shard() {
    let rig = Rig::new();
    let bus = rig.bus().await;
    let all = one_by_one(&bus).await;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&rig.name(Topic::Commands), 2, Offset::Offset(5)).unwrap();
    rig.admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
    let said = refusal(&mut *bus.consumer(Topic::Commands, 2, all[3].offset)).await;
    assert!(said.starts_with("E4060") && said.contains("begins at 5"), "{said}");
    let mut consumer = bus.consumer(Topic::Commands, 2, all[5].offset);
    assert_eq!(take(&mut *consumer, 5).await.unwrap(), all[5..], "at its beginning it can be read");
    bus.close().await;
    rig.wipe().await;
}

/// Deletes the topic and makes it anew.
async fn make_anew(rig: &Rig) {
    let (admin, name) = (rig.admin(), rig.name(Topic::Commands));
    admin.delete_topics(&[&name], &AdminOptions::new()).await.unwrap();
    let topic = NewTopic::new(&name, i32::from(PARTITIONS), TopicReplication::Fixed(1));
    let made = async {
        // Deletion goes on for a while after it was acknowledged.
        while admin.create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(crate::rig::PATIENCE, made).await.expect("the topic is made anew");
}

#[tokio::test]
async fn z03_a_topic_that_was_made_anew_stops_the_shard() {
    let rig = Rig::new();
    let bus = rig.bus().await;
    let all = one_by_one(&bus).await;
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    take(&mut *consumer, 10).await.unwrap();
    make_anew(&rig).await;
    // By a program that starts now, and by the one that was reading.
    let fresh = rig.bus().await;
    // Behind a record, and behind the first message of one: what comes in its place is another record.
    for position in [all[9].next, all[0].offset + 1] {
        let said = refusal(&mut *fresh.consumer(Topic::Commands, 2, position)).await;
        assert!(said.starts_with("E4060") && said.contains("ends at 0"), "{said}");
    }
    let said = refusal(&mut *consumer).await;
    assert!(said.starts_with("E4060") || said.starts_with("E4001"), "{said}");
    fresh.close().await;
    bus.close().await;
    rig.wipe().await;
}

/// Long enough for the position, and yet another log: the record in front of the position tells.
#[tokio::test]
async fn z03_a_topic_that_was_made_anew_and_has_grown_beyond_the_position_stops_the_shard() {
    let rig = Rig::new();
    let bus = rig.bus().await;
    bus.produce(numbered(3)).await.unwrap();
    let mut all = one_by_one(&bus).await;
    all.extend(take(&mut *bus.consumer(Topic::Commands, 2, all[9].next), 3).await.unwrap());
    // Behind the last record, behind one in the middle, and within the one that holds three.
    let places = [12, 5, 1].map(|at| (at + 1, all[at].next, Some(all[at].record)));
    assert!(all[1].record == all[2].record && all[2].record != all[3].record, "one hash for each record");
    for (rest, position, record) in places {
        let mut again = bus.consumer_behind(Topic::Commands, 2, position, record);
        assert_eq!(take(&mut *again, 13 - rest).await.unwrap(), all[rest..], "the same log goes on");
        crate::strangers::at_end(&mut *again).await;
    }
    make_anew(&rig).await;
    let fresh = rig.bus().await;
    for n in 20..50 {
        fresh.produce(vec![send(&n.to_string())]).await.unwrap();
    }
    for (_, position, record) in places {
        let said = refusal(&mut *fresh.consumer_behind(Topic::Commands, 2, position, record)).await;
        assert!(said.starts_with("E4060") && said.contains("another record"), "{said}");
    }
    // Where nobody knows what was read there, the position has to do; and what is not kept any more tells nothing.
    let mut unknown = fresh.consumer_behind(Topic::Commands, 2, all[5].next, None);
    assert!(take(&mut *unknown, 1).await.is_ok());
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&rig.name(Topic::Commands), 2, Offset::Offset(11)).unwrap();
    rig.admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
    let mut later = fresh.consumer_behind(Topic::Commands, 2, all[12].next, places[0].2);
    assert_eq!(item(&take(&mut *later, 1).await.unwrap()[0]), "31");
    fresh.close().await;
    bus.close().await;
    rig.wipe().await;
}

#[tokio::test]
async fn z17_a_topic_with_other_settings_is_refused() {
    let rig = Rig::new();
    rig.bus().await.close().await;
    for (settings, reason) in [
        (KafkaSettings { partitions: 8, ..rig.settings.clone() }, "4 partitions"),
        (KafkaSettings { retention: Duration::from_secs(30 * 24 * 3600), ..rig.settings.clone() }, "retention.ms"),
        (KafkaSettings { min_insync: 2, ..rig.settings.clone() }, "min.insync.replicas"),
    ] {
        let said = KafkaBus::open(settings).await.err().expect("refused").to_string();
        assert!(said.starts_with("E4062") && said.contains(reason), "{said}");
    }
    rig.wipe().await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named() {
    let rig = Rig::new();
    let settings = KafkaSettings { brokers: "127.0.0.1:1".to_owned(), ..rig.settings.clone() };
    let said = KafkaBus::open(settings).await.err().expect("refused").to_string();
    assert!(said.starts_with("E4061") && said.contains("127.0.0.1:1"), "{said}");
}

/// What is queued when a timer is due is known to be there before any of it has arrived.
#[tokio::test]
async fn z07_the_broker_tells_where_a_partition_ends_now() {
    let rig = Rig::new();
    let bus = rig.bus().await;
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    let settled = async {
        while !consumer.at_end() {
            assert!(consumer.take(10).await.unwrap().is_empty());
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::rig::PATIENCE, settled).await.expect("it is empty, and known to be");
    for round in 1..=20 {
        bus.produce(numbered(5)).await.unwrap();
        assert!(consumer.look().await, "the broker answers");
        for taken in 1..=5 {
            assert!(!consumer.at_end() || taken == 1, "round {round}: {taken} of 5");
            let mut found = consumer.take(1).await.unwrap();
            while found.is_empty() {
                assert!(!consumer.at_end(), "round {round}: five are queued, {} were taken", taken - 1);
                consumer.ready().await;
                found = consumer.take(1).await.unwrap();
            }
        }
        assert!(consumer.at_end());
    }
    bus.close().await;
    rig.wipe().await;
}

#[tokio::test]
async fn z10_bytes_of_strangers_are_read_as_what_they_are() {
    let rig = Rig::new();
    let bus = rig.bus().await;
    let raw = Raw::new(&rig.settings.brokers, rig.settings.environment.clone());
    let header = ("ce_type".to_owned(), b"nonsense".to_vec());
    let sent = RawRecord { key: Some(b"k".to_vec()), payload: vec![0xff, b'x'], headers: vec![header] };
    raw.send(Topic::Commands, 2, vec![sent.clone()]).await.unwrap();
    assert_eq!(raw.read(Topic::Commands, 2, 5).await.unwrap(), [sent]);
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    assert!(take(&mut *consumer, 1).await.unwrap()[0].envelope.is_err());
    drop(consumer);
    bus.close().await;
    rig.wipe().await;
}

/// What is bad in a record of several messages, or about it, is told, and the others are read.
#[tokio::test]
async fn z10_a_bad_message_does_not_hide_its_neighbours_in_one_record() {
    let rig = Rig::new();
    let bus = rig.bus().await;
    let raw = Raw::new(&rig.settings.brokers, rig.settings.environment.clone());
    bus.produce(numbered(2)).await.unwrap();
    let [good] = &*raw.read(Topic::Commands, 2, 5).await.unwrap() else { panic!("two messages in one record") };
    let body = std::str::from_utf8(&good.payload).unwrap();
    let with = |payload: String| RawRecord { payload: payload.into_bytes(), ..good.clone() };
    let mut stranger = good.clone();
    let environment = stranger.headers.iter_mut().find(|(name, _)| name == "ce_environment").unwrap();
    environment.1 = b"staging".to_vec();
    let bad = body.replacen(r#""id":""#, r#""id":7,"was":""#, 1);
    let mut newer = good.clone();
    let kind = newer.headers.iter_mut().find(|(name, _)| name == "content-type").unwrap();
    kind.1 = b"application/vnd.endstate.parcel.2+json".to_vec();
    let sent = vec![with(bad), with("[]".to_owned()), stranger, with("[{}".to_owned()), good.clone(), newer];
    raw.send(Topic::Commands, 2, sent).await.unwrap();
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    let mut all = take(&mut *consumer, 10).await.unwrap();
    let last = all.pop().unwrap();
    assert!(last.envelope.is_err_and(|kept| kept.newer), "of a kind that only a newer program knows");
    assert!(all.iter().all(|record| record.envelope.as_ref().err().is_none_or(|bad| !bad.newer)), "{all:?}");
    let read: Vec<_> =
        all.iter().map(|record| record.envelope.as_ref().map_or("-".to_owned(), |_| item(record))).collect();
    assert_eq!(read, ["0", "1", "-", "1", "-", "-", "-", "0", "1"]);
    let reasons: Vec<_> = all.iter().filter_map(|record| Some(&*record.envelope.as_ref().err()?.reason)).collect();
    for (reason, told) in reasons.iter().zip(["invalid type", "holds 0", "`staging`", "no JSON array"]) {
        assert!(reason.contains(told), "{reason}");
    }
    assert!(all.windows(2).all(|pair| pair[0].next == pair[1].offset), "each has a position of its own");
    // Who stopped in the middle of a record goes on there.
    for from in 1..9 {
        let mut again = bus.consumer(Topic::Commands, 2, all[from].offset);
        assert_eq!(take(&mut *again, 9 - from).await.unwrap()[..9 - from], all[from..]);
    }
    bus.close().await;
    rig.wipe().await;
}
