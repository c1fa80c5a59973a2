//! A rolling upgrade (Z10): records of a newer program reach an older one.

use crate::system::{System, done, source};
use endstate_events::{SCHEMA_VERSION, SagaId, Topic};
use endstate_outbox::{Turn, dead_letter};
use serde_json::json;
use std::sync::Arc;

/// A record of a newer program is no poison: its shard waits there for that program, and has done what lies before.
#[tokio::test]
async fn z10_a_newer_record_stops_its_shard_until_the_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    let statuses = async |system: &System, sagas: &[SagaId]| {
        let mut statuses = Vec::new();
        for saga in sagas {
            statuses.push(system.saga(*saga).await.unwrap().status.to_string());
        }
        statuses
    };
    let sagas: Vec<SagaId> = {
        let mut system = System::open(folder.path(), 10).await;
        system.definitions.load(&source("bench_saga"), 0).await.unwrap();
        let starts = (0..).map(|n| system.start("bench_saga", json!({ "number": format!("n-{n}"), "fail_at": "" })));
        let of_shard_0 = starts.filter(|(_, start)| start.partition == 0).take(3);
        let (sagas, starts): (Vec<_>, Vec<_>) = of_shard_0.unzip();
        system.queue(&starts).await;
        system.run_until_idle().await;
        let reply = |saga: &SagaId| system.message(Topic::Progress, *saga, saga.to_string(), done(*saga, "reserve"));
        let mut replies: Vec<_> = sagas.iter().map(reply).collect();
        Arc::make_mut(&mut replies[1].envelope).schema = SCHEMA_VERSION + 1;
        system.queue(&replies).await;
        assert_eq!(system.shards[0].turn().await, Turn::Worked);
        for _ in 0..3 {
            assert!(matches!(system.shards[0].turn().await, Turn::Wait(_)));
        }
        assert_eq!(statuses(&system, &sagas).await, ["locking", "reserving", "reserving"]);
        assert!(dead_letter::list(&*system.store, 0, 10).await.unwrap().is_empty());
        let [newer, known] = [SCHEMA_VERSION + 1, SCHEMA_VERSION].map(|version| format!("\"schema\":{version},"));
        system.rewrite_progress(&newer, &known).await;
        sagas
    };
    // The next program knows that version.
    let mut system = System::open(folder.path(), 10).await;
    system.run_until_idle().await;
    assert_eq!(statuses(&system, &sagas).await, ["locking", "locking", "locking"]);
}
