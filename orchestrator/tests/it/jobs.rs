//! The jobs that push what is stuck (H1), keep what has no saga (Z12), and tell people (H2).

use crate::system::{System, done, job, odd_job, source};
use axum::Json as Body;
use axum::http::StatusCode;
use axum::routing::post;
use endstate_events::{InputBody, Json, SagaId};
use endstate_http::Trust;
use endstate_orchestrator::alert::{self, Channel};
use endstate_orchestrator::job::{Job, JobError, Jobs, Report};
use endstate_orchestrator::orphan::Orphans;
use endstate_orchestrator::persist;
use endstate_orchestrator::sweep::Sweep;
use endstate_outbox::{Clock as _, Commit, Kind, Rows, Statement, Store as _, StoreError, Write};
use endstate_saga::event::Fact;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;
use uuid::Uuid;

const MINUTE_MS: i64 = 60_000;

static SET_DUE: Statement = Statement {
    name: "test.set_due",
    columns: &[Kind::Id, Kind::Int],
    sql: "with r(saga, due) as ({rows}) update saga set due = r.due from r where saga.id = r.saga",
};
static ORPHANS: Statement = Statement {
    name: "test.orphans",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select o.tries, o.body from r cross join orphan o",
};

/// A system that knows the definitions of these tests.
async fn open(folder: &Path) -> System {
    let system = System::open(folder, 100).await;
    for source in [source("bench_saga"), odd_job()] {
        system.definitions.load(&source, 0).await.unwrap();
    }
    system
}

fn sweep(system: &System, limit: u32) -> Sweep {
    Sweep::new(system.gateway(), system.alerts_in.clone(), MINUTE_MS, limit)
}

/// The same store after its process died, and an owner of the saga's shard that believes its timer to be far away:
/// nothing but the sweep looks at that saga. Then time goes by until the timer is long over.
async fn forget_timer(system: System, folder: &Path, saga: SagaId) -> System {
    let due_ms = persist::load_sagas(&*system.store, &[saga]).await.unwrap()[0].due_ms.unwrap();
    let now_ms = system.clock.now_ms();
    set_due(&system, saga, now_ms + 1_000 * MINUTE_MS).await;
    drop(system);
    let mut system = System::open(folder, 100).await;
    system.clock.advance(now_ms - system.clock.now_ms());
    system.run_until_idle().await;
    set_due(&system, saga, due_ms).await;
    system.clock.advance(due_ms - now_ms + 5 * MINUTE_MS);
    system
}

async fn set_due(system: &System, saga: SagaId, due_ms: i64) {
    let write = Write::exact(&SET_DUE, Rows::one([saga.0.into(), due_ms.into()]));
    system.store.commit(Commit { writes: vec![write], ..Commit::default() }).await.unwrap();
}

async fn facts(system: &System, saga: SagaId) -> Vec<Fact> {
    let timeline = persist::load_timeline(&*system.store, saga).await.unwrap();
    timeline.into_iter().flat_map(|(_, _, events)| events).map(|event| event.fact).collect()
}

#[tokio::test]
async fn a_saga_past_its_time_is_found_and_pushed() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let saga = system.begin("bench_saga", json!({ "number": "stuck", "fail_at": "" })).await;
    let mut system = forget_timer(system, folder.path(), saga).await;
    let before = (facts(&system, saga).await, system.commands(saga).await);
    assert_eq!(before.1.len(), 1);

    let jobs = Jobs::new(system.store.clone(), system.clock.clone(), Uuid::from_u128(1), Vec::new());
    let sweep = sweep(&system, 10);
    let looked = jobs.run(&sweep, true, None).await.unwrap();
    assert_eq!((looked.found, looked.changed), (1, 0));
    assert_eq!(looked.details, json!([{ "overdue": saga, "phase": "running", "late_s": 300, "error": null }]));
    system.run_until_idle().await;
    assert_eq!((facts(&system, saga).await, system.commands(saga).await), before, "a dry run changes nothing");

    let pushed = jobs.run(&sweep, false, None).await.unwrap();
    assert_eq!((pushed.found, pushed.changed), (1, 1));
    system.run_until_idle().await;
    let by_whom = |fact: &Fact| matches!(fact, Fact::Operated { actor, .. } if actor.subject == "sweep");
    assert_eq!(facts(&system, saga).await.iter().filter(|fact| by_whom(fact)).count(), 1);
    let commands = system.commands(saga).await;
    assert_eq!(commands.len(), 2, "{commands:?}");
    assert_eq!(commands[0], commands[1], "the same command again, under the same id");
    system.clock.advance(1_000);
    system.run_until_idle().await;
    assert_eq!(jobs.run(&sweep, false, None).await.unwrap().found, 0, "its time is ahead of it again");

    let runs = jobs.runs("sweep", i64::MAX, 10).await.unwrap();
    let records: Vec<_> = runs.iter().map(|run| (run.dry_run, run.found, run.changed)).collect();
    assert_eq!(records, [(false, 0, 0), (false, 1, 1), (true, 1, 0)]);
    system.tell(saga, "reply", done(saga, "reserve")).await;
    assert_eq!(&*system.saga(saga).await.unwrap().status, "locking", "and it goes on");
}

#[tokio::test]
async fn a_wait_past_its_deadline_is_pushed_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let saga = waiting(&mut system, "W-1").await;
    let mut system = forget_timer(system, folder.path(), saga).await;
    system.run_until_idle().await;
    assert!(!facts(&system, saga).await.contains(&Fact::DeadlineParked { stage: 1 }), "nobody looked");
    assert_eq!(sweep(&system, 10).run(system.clock.now_ms(), false).await.unwrap().changed, 1);
    system.run_until_idle().await;
    system.clock.advance(1_000);
    system.run_until_idle().await;
    assert!(facts(&system, saga).await.contains(&Fact::DeadlineParked { stage: 1 }), "the deadline was decided");
    assert_eq!(system.alerts.try_recv().unwrap().kind, "parked");
}

/// A job that waits for its signal.
async fn waiting(system: &mut System, number: &str) -> SagaId {
    let saga = system.begin("odd_job", job(number)).await;
    for step in ["make", "hint"] {
        system.tell(saga, step, done(saga, step)).await;
    }
    assert_eq!(&*system.saga(saga).await.unwrap().status, "listening");
    saga
}

/// A job whose signal did not come in time.
async fn parked(system: &mut System, number: &str) -> SagaId {
    let saga = waiting(system, number).await;
    system.clock.advance(MINUTE_MS + 1);
    system.run_until_idle().await;
    saga
}

#[tokio::test]
async fn a_second_runner_is_kept_out_while_the_sweep_runs() {
    let folder = tempfile::tempdir().unwrap();
    let system = open(folder.path()).await;
    let jobs = |owner| Jobs::new(system.store.clone(), system.clock.clone(), Uuid::from_u128(owner), Vec::new());
    let (first, second) = (jobs(1), jobs(2));
    let (go, mut went) = (tokio::sync::Notify::new(), mpsc::unbounded_channel());
    let slow = Held { inner: sweep(&system, 10), began: went.0, go };
    let running = first.run(&slow, false, None);
    tokio::pin!(running);
    tokio::select! {
        _ = &mut running => unreachable!("nobody lets it go"),
        _ = went.1.recv() => {}
    }
    assert!(matches!(second.run(&slow.inner, false, None).await, Err(JobError::Taken("sweep"))));
    let other = Orphans::new(system.gateway(), system.alerts_in.clone());
    assert!(second.run(&other, false, None).await.is_ok(), "another job");
    slow.go.notify_one();
    running.await.unwrap();
    assert!(second.run(&slow.inner, false, None).await.is_ok());
}

/// A sweep that stops in the middle until it is let go.
struct Held {
    inner: Sweep,
    began: mpsc::UnboundedSender<()>,
    go: tokio::sync::Notify,
}

#[async_trait::async_trait]
impl Job for Held {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn about(&self) -> &'static str {
        self.inner.about()
    }

    async fn run(&self, now_ms: i64, dry_run: bool) -> Result<Report, StoreError> {
        self.began.send(()).unwrap();
        self.go.notified().await;
        self.inner.run(now_ms, dry_run).await
    }
}

#[tokio::test]
async fn a_parked_saga_is_told_of_once_and_once_more_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let first = sweep(&system, 2);
    let mut sagas = Vec::new();
    for n in 0..3 {
        sagas.push(parked(&mut system, &format!("P-{n}")).await);
        let told = system.alerts.try_recv().unwrap();
        assert_eq!((told.saga, told.kind), (sagas[n], "parked"));
    }
    system.project().await;
    assert_eq!(first.run(system.clock.now_ms(), false).await.unwrap().found, 0, "their shards have told");

    // The next process cannot know which alerts got out. Two a run, and in the end each of the three once.
    system.clock.advance(1);
    let next = sweep(&system, 2);
    assert_eq!(next.run(system.clock.now_ms(), true).await.unwrap().changed, 0);
    assert!(system.alerts.try_recv().is_err(), "a dry run tells nobody");
    let found = |report: Report| (report.found, report.changed);
    assert_eq!(found(next.run(system.clock.now_ms(), false).await.unwrap()), (2, 2));
    assert_eq!(found(next.run(system.clock.now_ms(), false).await.unwrap()), (1, 1));
    assert_eq!(found(next.run(system.clock.now_ms(), false).await.unwrap()), (0, 0));
    let mut told = Vec::new();
    while let Ok(alert) = system.alerts.try_recv() {
        told.push(alert.saga);
    }
    told.sort_unstable();
    sagas.sort_unstable();
    assert_eq!(told, sagas);
}

fn signal() -> InputBody {
    InputBody::Event { name: "lab.signal".to_owned(), data: json!({ "value": 1 }) }
}

#[tokio::test]
async fn z12_an_input_without_a_saga_is_kept_told_of_once_and_finds_its_saga() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let (saga, start) = system.start("odd_job", job("late"));
    system.tell(saga, "signal-1", signal()).await;
    let orphans = Orphans::new(system.gateway(), system.alerts_in.clone());
    let tries = async |system: &System| {
        let rows = system.store.read(&ORPHANS, Rows::one([1.into()])).await.unwrap();
        rows.iter().map(|row| row[0].int().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(tries(&system).await, [0], "it is kept");

    let looked = orphans.run(system.clock.now_ms(), true).await.unwrap();
    assert_eq!((looked.found, looked.changed), (1, 0));
    assert_eq!(looked.details, [json!({ "orphan": "signal-1", "saga": saga, "sent": false })]);
    assert_eq!((tries(&system).await, system.alerts.try_recv().is_ok()), (vec![0], false), "a dry run does nothing");
    for run in 1..=3 {
        assert_eq!(orphans.run(system.clock.now_ms(), false).await.unwrap().changed, 0);
        assert_eq!(tries(&system).await, [run]);
    }
    let told = system.alerts.try_recv().unwrap();
    assert_eq!((told.kind, told.saga), ("orphan", saga));
    assert!(told.text.contains("signal-1"));
    assert!(system.alerts.try_recv().is_err(), "told once");

    system.queue(&[start]).await;
    system.run_until_idle().await;
    let sent = orphans.run(system.clock.now_ms(), false).await.unwrap();
    assert_eq!((sent.found, sent.changed), (1, 1));
    assert!(tries(&system).await.is_empty());
    system.run_until_idle().await;
    assert!(facts(&system, saga).await.iter().any(|fact| matches!(fact, Fact::EventKept(_))), "it waits for its wait");
    for step in ["make", "hint"] {
        system.tell(saga, step, done(saga, step)).await;
    }
    assert_eq!(&*system.saga(saga).await.unwrap().status, "dividing", "and is taken there");
    assert_eq!(orphans.run(system.clock.now_ms(), false).await.unwrap().found, 0);
}

/// A receiver that refuses the first posts; returns its address and what it took.
async fn webhook(refusals: usize) -> (String, mpsc::UnboundedReceiver<Json>) {
    let (took, taken) = mpsc::unbounded_channel();
    let posts = Arc::new(AtomicUsize::new(0));
    let take = move |Body(alert): Body<Json>| {
        let (took, posts) = (took.clone(), Arc::clone(&posts));
        async move {
            if posts.fetch_add(1, Ordering::SeqCst) < refusals {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            took.send(alert).ok();
            StatusCode::NO_CONTENT
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/alerts", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, axum::Router::new().route("/alerts", post(take))).into_future());
    (url, taken)
}

/// Has everything delivered that people are told of a saga which parks, sweeps included.
async fn deliver_parked(folder: &Path, number: &str, webhook_url: Option<String>) {
    let mut system = open(&folder.join("data")).await;
    let sweep = sweep(&system, 10);
    parked(&mut system, number).await;
    system.project().await;
    for _ in 0..2 {
        sweep.run(system.clock.now_ms(), false).await.unwrap();
    }
    drop(sweep);
    deliver(system, folder, webhook_url).await;
}

async fn deliver(system: System, folder: &Path, webhook_url: Option<String>) {
    let (file, public_url, trust) = (folder.join("alerts.ndjson"), "https://ops.example/".to_owned(), Trust::system());
    let channel = Channel { webhook_url, file, public_url, trust };
    // The last sender goes with the shards: delivery ends when all is delivered.
    let System { alerts, alerts_in, shards, clock, .. } = system;
    drop((alerts_in, shards));
    alert::deliver(alerts, channel, clock).await;
}

/// What no webhook took.
fn kept(folder: &Path) -> Vec<Json> {
    let kept = std::fs::read_to_string(folder.join("alerts.ndjson")).unwrap();
    kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn an_alert_reaches_a_receiver_that_was_down_at_first_once_and_with_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let (url, mut taken) = webhook(1).await;
    deliver_parked(folder.path(), "N 1/\u{e4}", Some(url)).await;
    let alert = taken.try_recv().unwrap();
    assert_eq!((&alert["kind"], &alert["definition"]), (&json!("parked"), &json!("odd_job")));
    assert_eq!(alert["text"], "odd_job N 1/\u{e4} is parked on a wait");
    assert_eq!(alert["link"], "https://ops.example/v1/sagas/odd_job/N%201%2F%C3%A4/timeline");
    assert!(taken.try_recv().is_err(), "one cause, one alert");
    assert!(!folder.path().join("alerts.ndjson").exists(), "the receiver took it");
}

#[tokio::test]
async fn an_alert_that_no_receiver_takes_is_kept_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    deliver_parked(folder.path(), "N-1", None).await;
    let kept = kept(folder.path());
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0]["link"], "https://ops.example/v1/sagas/odd_job/N-1/timeline");
}

#[tokio::test]
async fn an_alert_about_an_input_without_a_saga_leads_to_the_job_that_tries_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(&folder.path().join("data")).await;
    let (nobody, _) = system.start("odd_job", job("nobody"));
    system.tell(nobody, "signal-1", signal()).await;
    let orphans = Orphans::new(system.gateway(), system.alerts_in.clone());
    orphans.run(system.clock.now_ms(), false).await.unwrap();
    assert_eq!(orphans.name(), "orphans");
    drop(orphans);
    deliver(system, folder.path(), None).await;
    let kept = kept(folder.path());
    assert_eq!((&kept[0]["kind"], &kept[0]["saga"]), (&json!("orphan"), &json!(nobody)));
    assert_eq!(kept[0]["link"], "https://ops.example/v1/jobs/orphans/runs");
}
