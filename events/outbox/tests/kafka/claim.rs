//! One environment on one broker is one store's (Z17).

use crate::rig::{PARTITIONS, Rig, item, send, take};
use endstate_events::{Side, Topic};
use endstate_outbox::{Bus as _, KafkaBus, Positions};
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::{Offset, TopicPartitionList};

const STORES: [&str; 2] = ["0f5b1f0e-3a6f-4d52-9c3b-1f1f9a7a0001", "0f5b1f0e-3a6f-4d52-9c3b-1f1f9a7a0002"];

#[tokio::test]
async fn z17_of_two_stores_that_claim_one_environment_at_once_one_has_it_for_ever() {
    let rig = Rig::new();
    assert_eq!(KafkaBus::claimed(&rig.settings).await, Ok(None), "nobody has been here");
    let claim = |store: usize| KafkaBus::claim(&rig.settings, STORES[store]);
    // Two processes of one, and one of the other.
    let (a, b, c) = tokio::join!(claim(0), claim(1), claim(0));
    assert_eq!(a, c, "what one process of a store hears the others hear");
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    let (winner, loser) = if a.is_ok() { (0, 1) } else { (1, 0) };
    for _ in 0..2 {
        assert_eq!(claim(winner).await, Ok(()));
        let said = claim(loser).await.unwrap_err().to_string();
        assert!(said.starts_with("E4068") && said.contains(STORES[winner]), "{said}");
    }
    assert_eq!(KafkaBus::claimed(&rig.settings).await.unwrap().as_deref(), Some(STORES[winner]));

    // Who deletes everything begins anew, with whichever store.
    KafkaBus::wipe(&rig.settings).await.unwrap();
    let gone = async { while KafkaBus::claimed(&rig.settings).await != Ok(None) {} };
    tokio::time::timeout(crate::rig::PATIENCE, gone).await.expect("the claim is gone");
    assert_eq!(claim(loser).await, Ok(()));
    KafkaBus::wipe(&rig.settings).await.unwrap();
}

#[tokio::test]
async fn z17_a_claim_that_would_not_last_is_refused() {
    let rig = Rig::new();
    KafkaBus::claim(&rig.settings, STORES[0]).await.unwrap();
    let name = format!("{}.endstate.store", rig.settings.environment);
    let change = AlterConfig::new(ResourceSpecifier::Topic(&name)).set("retention.ms", "86400000");
    rig.admin().alter_configs(&[change], &AdminOptions::new()).await.unwrap();
    let said = KafkaBus::claim(&rig.settings, STORES[0]).await.unwrap_err().to_string();
    assert!(said.starts_with("E4062") && said.contains("retention.ms is `86400000`"), "{said}");
    KafkaBus::wipe(&rig.settings).await.unwrap();
}

#[tokio::test]
async fn z17_brokers_say_which_cluster_they_are() {
    let rig = Rig::new();
    let cluster = KafkaBus::cluster(&rig.settings).await.unwrap();
    assert!(!cluster.is_empty());
    assert_eq!(KafkaBus::cluster(&rig.settings).await, Ok(cluster));
    assert_eq!(KafkaBus::claimed(&rig.settings).await, Ok(None), "nothing is made by asking");
}

/// A log that was copied without its first records.
#[tokio::test]
async fn z17_where_topics_begin_that_brokers_have_is_found_out_and_those_that_they_lack_begin_at_0() {
    let rig = Rig::new();
    let begins = async || {
        let all = KafkaBus::beginnings(&rig.settings).await.unwrap();
        assert_eq!(all.len(), 2 * usize::from(PARTITIONS));
        all.into_iter().filter(|(_, positions)| *positions != Positions::default()).collect::<Vec<_>>()
    };
    assert_eq!(begins().await, [], "they have none");
    let bus = rig.bus().await;
    bus.produce((0..9).map(|n| send(&n.to_string())).collect()).await.unwrap();
    assert_eq!(begins().await, []);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&rig.name(Topic::Commands), 2, Offset::End).unwrap();
    rig.admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
    let begun = begins().await;
    let [(shard, positions)] = &*begun else { panic!("{begun:?}") };
    assert_eq!((shard.side, shard.index), (Side::Participants, 2));
    // What comes next is read where the log begins, and nothing is missed.
    bus.produce(vec![send("next")]).await.unwrap();
    let mut consumer = bus.consumer(Topic::Commands, 2, positions.of(Topic::Commands));
    assert_eq!(item(&take(&mut *consumer, 1).await.unwrap()[0]), "next");
    bus.close().await;
    rig.wipe().await;
}
