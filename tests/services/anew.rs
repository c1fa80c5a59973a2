//! Topics that were made anew while nobody looked, and have grown beyond what was read of the old ones (Z3).

use crate::roles::ALL;
use crate::strangers::{client, settings};
use crate::town::Town;
use endstate_events::{EffectId, Envelope, ForeignReply, Lane, Message, SCHEMA_VERSION, Topic, Verdict};
use endstate_outbox::{Bus as _, KafkaBus, Outgoing};
use serde_json::json;

/// Records in each partition of the new topics: more than were read of the old ones.
const RECORDS: i64 = 40;

/// Where the orchestrator's shards stand that have read anything.
const STAND: &str = "select shard, position_start, position_progress from shard \
                     where side = 'orchestrator' and position_progress > 0 order by shard";

/// A message that some shard would put aside, if it read it.
fn odd(topic: Topic, partition: u16, n: i64) -> Outgoing {
    let effect_id: EffectId = "0193a0b2-7c00-8abc-9def-0123456789ab:wrap::do:0".parse().unwrap();
    let message = Message::Reply(ForeignReply { effect_id, verdict: Verdict::NeverSeen });
    let (id, key) = (format!("odd-{n}"), "k".to_owned());
    let envelope = Envelope { id, schema: SCHEMA_VERSION, time_ms: 1, key, lane: Lane::Live, message };
    Outgoing { topic, partition, envelope: envelope.into() }
}

#[tokio::test]
async fn z03_a_shard_reads_nothing_of_topics_that_were_made_anew_and_tells_people() {
    let town = Town::new();
    let process = town.serve("a", ALL, true).await;
    for number in 0..4 {
        let body = json!({"number": format!("B-{number}"), "fail_at": ""});
        town.post(std::slice::from_ref(&process.url), "/v1/sagas/bench_saga", &body).await;
    }
    assert!(process.terminate(), "{}", town.logs());
    let stood = town.sql(STAND);
    let first = stood.lines().next().expect("a shard has read");
    let read: Vec<i64> = first.split('|').map(|number| number.parse().unwrap()).collect();
    assert!(read[1..].iter().all(|position| (1..RECORDS << 10).contains(position)), "{stood}");

    KafkaBus::wipe(&settings(&town)).await.unwrap();
    let bus = client(&town).await;
    let partition = u16::try_from(read[0]).unwrap();
    for topic in [Topic::Start, Topic::Progress] {
        for n in 0..RECORDS {
            bus.produce(vec![odd(topic, partition, n)]).await.unwrap();
        }
    }
    let (process, _) = town.start("b", ALL, true);
    town.logs_until("b", &format!("progress/{partition} cannot be read on")).await;
    let alerts =
        format!("select text from alert where text like '%orchestrator/{partition} %another record than was read%'");
    let told = town.sql_until(&alerts, |told| !told.is_empty()).await;
    assert!(told.contains("E4030") && told.contains("E4060"), "{told}");
    assert_eq!(town.sql(STAND), stood, "nothing is skipped");
    assert_eq!(town.sql("select count(*) from dead_letter"), "0", "nothing was read");
    process.kill();
    bus.close().await;
}
