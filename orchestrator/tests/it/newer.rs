//! A rolling upgrade (Z10): records of a newer program reach an older one.

use crate::hazards::damage_definition;
use crate::system::{System, done, source};
use endstate_events::{ACTIVE_VERSION, Input, InputBody, Message, SCHEMA_VERSION, SagaId, Topic};
use endstate_orchestrator::definitions::Definitions;
use endstate_orchestrator::job::Job as _;
use endstate_orchestrator::orphan::Orphans;
use endstate_outbox::{Clock as _, Turn, dead_letter};
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

/// An accepted start of a version that only a newer program can read is no poison either: it waits for that program.
#[tokio::test]
async fn z15_a_start_of_a_version_that_cannot_be_read_waits_for_the_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 10).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let (saga, start) = system.start("bench_saga", json!({ "number": "early", "fail_at": "" }));
    damage_definition(&system, "bench_saga").await;
    drop(system);
    let mut older = System::open(folder.path(), 10).await;
    older.queue(&[start]).await;
    older.run_until_idle().await;
    assert_eq!(dead_letter::list(&*older.store, 0, 10).await.unwrap(), []);
    let orphans = Orphans::new(older.gateway());
    let now_ms = older.clock.now_ms();
    for _ in 0..2 {
        assert_eq!(
            orphans.run(now_ms, false).await.unwrap().details,
            [json!({ "orphan": "early", "saga": saga, "sent": false })]
        );
    }
    let told = older.told().await;
    assert_eq!(told.iter().map(|alert| &*alert.kind).collect::<Vec<_>>(), ["orphan"], "people know, once");
    assert!(told[0].text.contains("version 1 of bench_saga"), "{}", told[0].text);

    older.definitions.load(&source("bench_saga"), 0).await.unwrap();
    assert_eq!(orphans.run(now_ms, false).await.unwrap().changed, 1);
    older.run_until_idle().await;
    assert_eq!(&*older.saga(saga).await.unwrap().status, "reserving");
    assert_eq!(orphans.run(now_ms, false).await.unwrap().found, 0);
}

/// Who made it knew of no active version, and the one that is active cannot be read here either.
#[tokio::test]
async fn z15_a_start_of_the_active_version_waits_for_the_upgrade_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 10).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let (saga, mut start) = system.start("bench_saga", json!({ "number": "early", "fail_at": "" }));
    if let Message::Input(Input { body: InputBody::Start(start), .. }) = &mut Arc::make_mut(&mut start.envelope).message
    {
        start.version = ACTIVE_VERSION;
    }
    damage_definition(&system, "bench_saga").await;
    drop(system);
    let mut older = System::open(folder.path(), 10).await;
    older.queue(&[start]).await;
    older.run_until_idle().await;
    let orphans = Orphans::new(older.gateway());
    assert_eq!(orphans.run(older.clock.now_ms(), false).await.unwrap().found, 1);
    let told = older.told().await;
    assert!(told[0].text.contains("the active version of bench_saga"), "{}", told[0].text);

    older.definitions.load(&source("bench_saga"), 0).await.unwrap();
    assert_eq!(orphans.run(older.clock.now_ms(), false).await.unwrap().changed, 1);
    older.run_until_idle().await;
    assert_eq!(older.saga(saga).await.unwrap().definition_version, 1);
}

/// Its owner has taken the shard from a process that had heard of the version.
#[tokio::test]
async fn a_saga_of_a_version_that_nobody_here_has_heard_of_is_decided_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 10).await;
    let unheard = Definitions::open(system.store.clone()).await.unwrap();
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let saga = system.begin("bench_saga", json!({ "number": "B-1", "fail_at": "" })).await;
    system.definitions = unheard;
    system.shards = system.anew(None);
    system.tell(saga, "reserve", done(saga, "reserve")).await;
    assert_eq!(&*system.saga(saga).await.unwrap().status, "locking");
    assert_eq!(Orphans::new(system.gateway()).run(system.clock.now_ms(), false).await.unwrap().found, 0);
}
