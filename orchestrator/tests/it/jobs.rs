//! The jobs that push what is stuck (H1) and keep what has no saga (Z12).

use crate::system::{System, done, job, odd_job, reply, source};
use endstate_events::{InputBody, SagaId, Topic, Verdict};
use endstate_orchestrator::job::{Job, JobError, Jobs, Report};
use endstate_orchestrator::orphan::Orphans;
use endstate_orchestrator::persist;
use endstate_orchestrator::sweep::Sweep;
use endstate_outbox::{Clock as _, Commit, Kind, Rows, Statement, StoreError, Write};
use endstate_saga::event::Fact;
use serde_json::json;
use std::path::Path;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use uuid::Uuid;

pub(crate) const MINUTE_MS: i64 = 60_000;

static SET_DUE: Statement = Statement {
    name: "test.set_due",
    columns: &[Kind::Id, Kind::Int],
    sql: "with r(saga, due) as ({rows}) update saga set due = r.due from r where saga.id = r.saga",
};

/// A system that knows the definitions of these tests.
pub(crate) async fn open(folder: &Path) -> System {
    let system = System::open(folder, 100).await;
    for source in [source("bench_saga"), odd_job()] {
        system.definitions.load(&source, 0).await.unwrap();
    }
    system
}

fn sweep(system: &System, limit: u32) -> Sweep {
    Sweep::new(system.gateway(), MINUTE_MS, limit)
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

pub(crate) async fn facts(system: &System, saga: SagaId) -> Vec<Fact> {
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
    assert_eq!(&*system.told().await[0].kind, "parked");
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
pub(crate) async fn parked(system: &mut System, number: &str) -> SagaId {
    let saga = waiting(system, number).await;
    system.clock.advance(MINUTE_MS + 1);
    system.run_until_idle().await;
    saga
}

/// A job that made is refused parks, with its command sent and unanswered.
async fn strict(folder: &Path) -> (System, SagaId) {
    let mut system = System::open(folder, 100).await;
    let mut strict = odd_job();
    strict.text =
        strict.text.replace("undo: lab.unmake }\n      hint", "undo: lab.unmake, refused: park }\n      hint");
    assert!(strict.text.contains("refused: park"));
    for source in [source("bench_saga"), strict] {
        system.definitions.load(&source, 0).await.unwrap();
    }
    let saga = system.begin("odd_job", job("S-1")).await;
    (system, saga)
}

/// The shard lags: what parks the saga is queued, not read, and its row still says running when the sweep comes by.
async fn pushed_while_queued(system: &mut System, saga: SagaId, queued: InputBody) -> Vec<Fact> {
    let message = system.message(Topic::Progress, saga, "queued".to_owned(), queued);
    system.queue(&[message]).await;
    let due_ms = persist::load_sagas(&*system.store, &[saga]).await.unwrap()[0].due_ms.unwrap();
    let known = facts(system, saga).await.len();
    assert_eq!(sweep(system, 10).run(due_ms + 2 * MINUTE_MS, false).await.unwrap().changed, 1);
    system.run_until_idle().await;
    let saga_row = system.saga(saga).await.unwrap();
    let definition = system.definitions.get(&saga_row.definition, saga_row.definition_version).unwrap();
    assert_eq!(saga_row.control.phase(definition.plan()).label(), "parked");
    let told = system.told().await;
    assert_eq!(told.iter().map(|alert| &*alert.kind).collect::<Vec<_>>(), ["parked"], "{told:?}");
    facts(system, saga).await.split_off(known)
}

#[tokio::test]
async fn the_sweep_wakes_nothing_that_parked_since_it_looked() {
    let folder = tempfile::tempdir().unwrap();
    let (mut system, saga) = strict(folder.path()).await;
    let no = Verdict::Refused { code: "lab.refused".to_owned(), detail: String::new() };
    let since = pushed_while_queued(&mut system, saga, reply(saga, "make", no)).await;
    assert!(matches!(&since[..], [Fact::RunRefused { .. }]), "{since:?}");
}

#[tokio::test]
async fn the_sweep_accepts_no_contradiction() {
    let folder = tempfile::tempdir().unwrap();
    let (mut system, saga) = strict(folder.path()).await;
    system.tell(saga, "make", done(saga, "make")).await;
    let no = Verdict::Refused { code: "lab.refused".to_owned(), detail: String::new() };
    let since = pushed_while_queued(&mut system, saga, reply(saga, "make", no)).await;
    assert!(matches!(&since[..], [Fact::Contradicted { .. }]), "{since:?}");
}

#[tokio::test]
async fn the_sweep_clears_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    let (mut system, saga) = strict(folder.path()).await;
    system.refuses.store(true, Ordering::Relaxed);
    let bane = Verdict::Done { data: json!({ "of": crate::poison::BANE }) };
    let since = pushed_while_queued(&mut system, saga, reply(saga, "make", bane)).await;
    assert!(matches!(&since[..], [Fact::DeadLettered { .. }]), "{since:?}");
}

/// While timers do not fire, pushes move none: those that came first must not be all that are ever pushed.
#[tokio::test]
async fn each_saga_past_its_time_has_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let mut sagas = Vec::new();
    for number in ["T-1", "T-2", "T-3"] {
        sagas.push(system.begin("bench_saga", json!({ "number": number, "fail_at": "" })).await);
    }
    let (sweep, now_ms) = (sweep(&system, 2), system.clock.now_ms() + 60 * MINUTE_MS);
    let mut pushed = Vec::new();
    for run in 0..3 {
        let report = sweep.run(now_ms + run, false).await.unwrap();
        pushed.push(
            report.details.iter().map(|detail| detail["overdue"].as_str().unwrap().to_owned()).collect::<Vec<_>>(),
        );
        assert_eq!(sweep.run(now_ms + run, true).await.unwrap().changed, 0, "a look moves nothing");
    }
    assert_eq!(pushed.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 2]);
    let mut all = pushed[..2].concat();
    all.sort();
    let mut expected: Vec<_> = sagas.iter().map(ToString::to_string).collect();
    expected.sort();
    assert_eq!((all, &pushed[2]), (expected, &pushed[0]));
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
    let other = Orphans::new(system.gateway());
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
async fn runs_that_ended_long_ago_go_and_what_ran_since_a_job_was_last_done_stays() {
    let folder = tempfile::tempdir().unwrap();
    let system = open(folder.path()).await;
    let jobs = Jobs::new(system.store.clone(), system.clock.clone(), Uuid::from_u128(1), Vec::new());
    let (orphans, sweep) = (Orphans::new(system.gateway()), sweep(&system, 10));
    // Orphans: done, done, looked at. The sweep: done, and again on the last day.
    for dry_run in [false, false, true] {
        jobs.run(&orphans, dry_run, None).await.unwrap();
        system.clock.advance(MINUTE_MS);
    }
    jobs.run(&sweep, false, None).await.unwrap();
    system.clock.advance(31 * 24 * 60 * MINUTE_MS);
    jobs.run(&sweep, false, None).await.unwrap();
    let counts = |report: Report| (report.found, report.changed);
    assert_eq!(counts(system.archive(&[], true).await), (2, 0));
    assert_eq!(counts(system.archive(&[], false).await), (2, 2));
    assert_eq!(counts(system.archive(&[], false).await), (0, 0));
    let kept = |name| jobs.runs(name, i64::MAX, 10);
    let orphans: Vec<_> = kept("orphans").await.unwrap().iter().map(|run| run.dry_run).collect();
    assert_eq!(orphans, [true, false], "when it was last done, and what came after");
    assert_eq!(kept("sweep").await.unwrap().len(), 1);
}
