//! Who owns what: shards move with the group's members.

use crate::rig::{PARTITIONS, PATIENCE, Rig};
use endstate_events::{Side, Topic};
use endstate_outbox::Bus as _;
use std::collections::BTreeSet;
use tokio::sync::watch;

async fn until(
    owned: &mut watch::Receiver<BTreeSet<u16>>,
    enough: impl FnMut(&BTreeSet<u16>) -> bool,
) -> BTreeSet<u16> {
    let waited = tokio::time::timeout(PATIENCE, owned.wait_for(enough)).await;
    waited.expect("the group settles").unwrap().clone()
}

#[tokio::test]
async fn shards_are_shared_and_come_back_when_a_member_leaves() {
    let rig = Rig::new();
    let (first, second) = (rig.bus().await, rig.bus().await);
    let all: BTreeSet<u16> = (0..PARTITIONS).collect();
    for side in [Side::Orchestrator, Side::Participants] {
        let mut mine = first.owned(side).unwrap();
        assert_eq!(until(&mut mine, |owned| owned.len() == 4).await, all, "alone, it owns them all");
    }
    let mut mine = first.owned(Side::Orchestrator).unwrap();
    let mut theirs = second.owned(Side::Orchestrator).unwrap();
    let left = until(&mut mine, |owned| owned.len() == 2).await;
    let right = until(&mut theirs, |owned| owned.len() == 2).await;
    assert_eq!(left.union(&right).copied().collect::<BTreeSet<_>>(), all, "each shard has one owner");
    assert_eq!(first.owned(Side::Participants).unwrap().borrow().len(), 4, "the other side is not concerned");
    second.close().await;
    assert_eq!(until(&mut mine, |owned| owned.len() == 4).await, all);
    first.close().await;
    assert!(mine.borrow().is_empty(), "who has left owns nothing");
    rig.wipe().await;
}

#[tokio::test]
async fn tools_see_the_positions_of_an_owner() {
    use crate::rig::{send, take};
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    let rig = Rig::new();
    let bus = rig.bus().await;
    let mut mine = bus.owned(Side::Participants).unwrap();
    until(&mut mine, |owned| owned.len() == 4).await;
    for n in 0..5 {
        bus.produce(vec![send(&n.to_string())]).await.unwrap();
    }
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    take(&mut *consumer, 5).await.unwrap();
    assert!(consumer.take(1).await.unwrap().is_empty(), "it looks for more: the others are committed");
    let mut config = rig.config();
    config.set("group.id", format!("{}.endstate.participants", rig.settings.environment));
    let tool: BaseConsumer = config.create().unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition(&rig.name(Topic::Commands), 2);
    let shown = async {
        loop {
            let committed = tool.committed_offsets(list.clone(), PATIENCE).unwrap();
            if committed.elements()[0].offset() == rdkafka::Offset::Offset(5) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, shown).await.expect("the position is shown");
    bus.close().await;
    rig.wipe().await;
}
