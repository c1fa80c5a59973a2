//! Z20 as the system sees it: the peak of resident memory, in a process of its own.

use crate::system::{System, done, source};
use endstate_events::{Envelope, SagaId, Slot, Topic};
use endstate_orchestrator::persist;
use endstate_outbox::{Clock as _, Commit, Kind, Outgoing, Rows, Statement, Turn, Write};
use endstate_saga::saga::Saga;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// Timers that are due at once, and messages that lie unread.
const MANY: u64 = 100_000;

/// Replies that came during a long outage.
const REPLIES: usize = 25_000;

/// What all of that may take, in MiB, beyond what the process has before. 100,000 sagas in memory would take more than
/// twice as much.
const BOUND_MIB: u64 = 256;

/// Set for the process in which it is measured.
const MEASURE: &str = "ENDSTATE_TEST_MEASURE_MEMORY";

static INSERT: Statement = Statement {
    name: "test.insert_sagas",
    columns: &[Kind::Id, Kind::Int, Kind::Int, Kind::Text],
    sql: "with r(id, version, due, state) as ({rows}) insert into saga (id, shard, version, phase, due, state) \
          select id, 0, version, 'running', due, state from r where true",
};

#[test]
fn z20_a_hundred_thousand_timers_unread_messages_and_replies_stay_within_a_bound() {
    if !Path::new("/proc/self/clear_refs").exists() {
        return; // Only Linux tells.
    }
    if std::env::var_os(MEASURE).is_some() {
        return tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(measure());
    }
    let name = "memory::z20_a_hundred_thousand_timers_unread_messages_and_replies_stay_within_a_bound";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let child = child.args([name, "--exact", "--nocapture"]).env(MEASURE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}\n{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("peak"), "it measured nothing: {said}");
}

/// Resident memory in MiB: now, or its peak.
fn resident_mib(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Stores sagas of shard 0 whose first command is not answered; returns them.
async fn store_sagas(folder: &Path) -> Vec<SagaId> {
    let mut system = System::open(folder, 10).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let number = (0..).map(|n| format!("n-{n}")).find(|n| Slot::of(n).partition(system.store.partitions()) == 0);
    let first = system.begin("bench_saga", json!({ "number": number, "fail_at": "" })).await;
    let stored = persist::load_sagas(&*system.store, &[first]).await.unwrap().remove(0);
    let mut sagas = vec![first];
    for page in 0..MANY.div_ceil(1_000) {
        let mut rows = Rows::new();
        for n in (page * 1_000..MANY.min(page * 1_000 + 1_000)).skip(usize::from(page == 0)) {
            let id = SagaId::mint(system.clock.now_ms(), first.slot(), 1_000 + n);
            let saga = Saga { id, number: format!("{n}").into(), ..stored.saga.clone() };
            let state = serde_json::to_string(&saga).unwrap();
            rows.push([id.0.into(), (saga.version as i64).into(), stored.due_ms.into(), state.into()]);
            sagas.push(id);
        }
        let commit = Commit { writes: vec![Write::exact(&INSERT, rows)], ..Commit::default() };
        system.store.commit(commit).await.unwrap();
    }
    sagas
}

async fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let sagas = store_sagas(folder.path()).await;
    let mut system = System::open(folder.path(), 10_000).await;
    // Participants that are there and take nothing. The first saga's command is the only one before the timers.
    let partitions = 0..system.store.partitions();
    let mut down: Vec<_> = partitions.map(|p| system.bus.consumer(Topic::Commands, p, 0)).collect();
    system.clock.advance(60_000);
    let before = resident_mib("VmRSS");
    std::fs::write("/proc/self/clear_refs", "5").unwrap(); // the peak begins anew
    let report = |what: &str, peak: u64| {
        println!("{what}: from {before} MiB to a peak of {peak}");
        assert!(peak.saturating_sub(before) <= BOUND_MIB, "{what}: from {before} MiB to {peak}");
    };

    while system.shards[0].turn().await == Turn::Worked {}
    let next = persist::load_due(&*system.store, 0, 1).await.unwrap()[0].1;
    assert!(next > system.clock.now_ms(), "all of them have fired");
    report("timers due at once", resident_mib("VmHWM"));

    let command = down[0].take(1).await.unwrap().remove(0).envelope.unwrap();
    for page in sagas.chunks(1_000) {
        let again =
            |_| Outgoing { topic: Topic::Commands, partition: 0, envelope: Arc::new(Envelope::clone(&command)) };
        system.queue(&page.iter().map(again).collect::<Vec<_>>()).await;
    }
    let mut taken = 0;
    while let count @ 1.. = down[0].take(512).await.unwrap().len() {
        taken += count;
    }
    assert!(taken >= sagas.len(), "nothing was lost");
    report("messages that nobody took", resident_mib("VmHWM"));

    for page in sagas[..REPLIES].chunks(1_000) {
        let reply = |saga: &SagaId| system.message(Topic::Progress, *saga, saga.to_string(), done(*saga, "reserve"));
        let replies: Vec<_> = page.iter().map(reply).collect();
        system.queue(&replies).await;
    }
    while system.shards[0].turn().await == Turn::Worked {}
    report("replies of a long outage", resident_mib("VmHWM"));
    let last = system.saga(sagas[REPLIES - 1]).await.unwrap();
    assert_eq!(&*last.status, "locking");
}
