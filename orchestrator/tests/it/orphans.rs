//! Inputs that come before their saga (Z12, Z14): kept, told of, and given to it in their order when it starts.

use crate::hazards::bench;
use crate::jobs::{facts, open};
use crate::linked::{STATE, mend};
use crate::poison::BANE;
use crate::system::{System, done, job, reply};
use endstate_events::{InputBody, SagaId, Topic, Verdict};
use endstate_orchestrator::job::Job as _;
use endstate_orchestrator::orphan::Orphans;
use endstate_outbox::{Clock as _, Commit, Kind, Outgoing, Rows, Statement, Write, dead_letter};
use endstate_saga::control::Outcome;
use endstate_saga::event::Fact;
use serde_json::json;
use std::sync::atomic::Ordering;

static ORPHANS: Statement = Statement {
    name: "test.orphans",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select o.tries, o.body from r cross join orphan o",
};

const STEPS: [&str; 4] = ["reserve", "lock", "deduct", "confirm"];

pub(crate) fn signal() -> InputBody {
    InputBody::Event { name: "lab.signal".to_owned(), data: json!({ "value": 1 }) }
}

/// How often each orphan was tried.
async fn tries(system: &System) -> Vec<i64> {
    let rows = system.store.read(&ORPHANS, Rows::one([1.into()])).await.unwrap();
    rows.iter().map(|row| row[0].int().unwrap()).collect()
}

/// What participants answered to every step of a saga, in their order.
fn answers(system: &System, saga: SagaId) -> Vec<Outgoing> {
    STEPS.iter().map(|step| system.message(Topic::Progress, saga, (*step).to_owned(), done(saga, step))).collect()
}

async fn outcome(system: &System, saga: SagaId) -> Option<Outcome> {
    system.saga(saga).await.unwrap().control.outcome()
}

#[tokio::test]
async fn z12_an_input_without_a_saga_is_kept_told_of_once_and_finds_its_saga() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let (saga, start) = system.start("odd_job", job("late"));
    system.tell(saga, "signal-1", signal()).await;
    let orphans = Orphans::new(system.gateway());
    assert_eq!(tries(&system).await, [0], "it is kept");

    let looked = orphans.run(system.clock.now_ms(), true).await.unwrap();
    assert_eq!((looked.found, looked.changed), (1, 0));
    assert_eq!(looked.details, [json!({ "orphan": "signal-1", "saga": saga, "sent": false })]);
    assert_eq!((tries(&system).await, system.told().await), (vec![0], vec![]), "a dry run does nothing");
    for run in 1..=3 {
        assert_eq!(orphans.run(system.clock.now_ms(), false).await.unwrap().changed, 0);
        assert_eq!(tries(&system).await, [run]);
    }
    let told = system.told().await;
    assert_eq!((told.len(), &*told[0].kind, told[0].saga), (1, "orphan", Some(saga)), "told once");
    assert!(told[0].text.contains("signal-1"));

    system.queue(&[start]).await;
    system.run_until_idle().await;
    assert!(tries(&system).await.is_empty());
    assert!(facts(&system, saga).await.iter().any(|fact| matches!(fact, Fact::EventKept(_))), "it waits for its wait");
    for step in ["make", "hint"] {
        system.tell(saga, step, done(saga, step)).await;
    }
    assert_eq!(&*system.saga(saga).await.unwrap().status, "dividing", "and is taken there");
    assert_eq!(orphans.run(system.clock.now_ms(), false).await.unwrap().found, 0);
}

/// Positions were put back, and what follows a start is read again before it: in batches of its own, by another owner, or in
/// the batch of the start.
#[tokio::test]
async fn z14_a_saga_is_given_what_was_read_before_its_start_in_its_order() {
    for (batches, begins_anew) in [(2, false), (2, true), (1, false)] {
        let folder = tempfile::tempdir().unwrap();
        let mut system = open(folder.path()).await;
        let (saga, start) = system.start("bench_saga", bench("early"));
        system.queue(&answers(&system, saga)).await;
        if batches == 2 {
            system.run_until_idle().await;
            assert_eq!(tries(&system).await.len(), STEPS.len());
        }
        if begins_anew {
            system.shards = system.anew(None);
        }
        system.queue(&[start]).await;
        system.run_until_idle().await;
        let case = format!("{batches} batches, begins anew: {begins_anew}");
        assert_eq!(outcome(&system, saga).await, Some(Outcome::Completed), "{case}");
        assert!(tries(&system).await.is_empty(), "{case}");
        assert_eq!(system.told().await, [], "nobody need look: {case}");
    }
}

/// What is read after the start was decided after it before, too.
#[tokio::test]
async fn z14_what_came_before_the_start_comes_before_what_came_after() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let (saga, start) = system.start("odd_job", job("refused"));
    let refusal = reply(saga, "make", Verdict::Refused { code: "lab.no".into(), detail: String::new() });
    system.tell(saga, "make", refusal).await;
    let later = system.message(Topic::Progress, saga, "make".into(), done(saga, "make"));
    system.queue(&[later, start]).await;
    system.run_until_idle().await;
    let is_answer = |fact: &Fact| matches!(fact, Fact::RunDone { .. } | Fact::RunRefused { .. });
    let answers: Vec<Fact> = facts(&system, saga).await.into_iter().filter(is_answer).collect();
    assert!(matches!(answers[..], [Fact::RunRefused { .. }, ..]), "{answers:?}");
}

/// It may be the orphan that nobody can handle: its saga starts without it.
#[tokio::test]
async fn z14_an_orphan_that_the_store_refuses_keeps_no_saga_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let (saga, start) = system.start("bench_saga", bench("poisoned"));
    let bane = reply(saga, "reserve", Verdict::Done { data: json!({ "of": BANE }) });
    system.tell(saga, "reserve", bane).await;
    system.refuses.store(true, Ordering::Relaxed);
    system.queue(&[start]).await;
    system.run_until_idle().await;
    assert_eq!(&*system.saga(saga).await.unwrap().status, "reserving");
    assert!(dead_letter::list(&*system.store, 0, 10).await.unwrap().is_empty());
    assert_eq!(tries(&system).await, [0], "it is kept");

    let orphans = Orphans::new(system.gateway());
    assert_eq!(orphans.run(system.clock.now_ms(), false).await.unwrap().changed, 1);
    system.run_until_idle().await;
    let letters = dead_letter::list(&*system.store, 0, 10).await.unwrap();
    assert_eq!(letters.len(), 1, "it is put aside as what it is, for a person to look at");
}

/// A start that was accepted twice, by the broker and into the database, say, is one start, and its orphans are given once.
#[tokio::test]
async fn z14_a_start_that_comes_twice_in_a_batch_is_given_its_orphans_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let (saga, start) = system.start("bench_saga", bench("twice"));
    system.queue(&answers(&system, saga)).await;
    system.run_until_idle().await;
    system.queue(&[start.clone(), start]).await;
    system.run_until_idle().await;
    assert_eq!(outcome(&system, saga).await, Some(Outcome::Completed));
    assert!(tries(&system).await.is_empty());
}

/// Whose neighbour in the batch is poison gets its orphans all the same.
#[tokio::test]
async fn z14_a_start_beside_one_that_the_store_refuses_is_given_its_orphans() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let (_, bane) = system.start("bench_saga", bench(BANE));
    let mut numbers = 0..;
    let (saga, start) = loop {
        let number = format!("beside-{}", numbers.next().unwrap());
        let (saga, start) = system.start("bench_saga", bench(&number));
        if start.partition == bane.partition {
            break (saga, start);
        }
    };
    system.queue(&answers(&system, saga)).await;
    system.run_until_idle().await;
    system.refuses.store(true, Ordering::Relaxed);
    system.queue(&[start, bane]).await;
    system.run_until_idle().await;
    assert_eq!(outcome(&system, saga).await, Some(Outcome::Completed));
    assert!(tries(&system).await.is_empty());
}

/// A batch stays one, however much waited for a saga; what is left comes by the job.
#[tokio::test]
async fn z14_a_start_is_given_no_more_than_a_batch_holds() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let (saga, start) = system.start("bench_saga", bench("heavy"));
    for index in 0..5 {
        let heavy = reply(saga, "reserve", Verdict::unknown("x".repeat(1024 * 1024)));
        system.tell(saga, &format!("heavy-{index}"), heavy).await;
    }
    system.queue(&[start]).await;
    system.run_until_idle().await;
    assert_eq!(&*system.saga(saga).await.unwrap().status, "reserving");
    assert_eq!(tries(&system).await, [0, 0], "three are given, 4 MiB at most");
    assert_eq!(Orphans::new(system.gateway()).run(system.clock.now_ms(), false).await.unwrap().changed, 2);
    system.run_until_idle().await;
    assert!(tries(&system).await.is_empty());
}

/// Its event was there before its deadline, though the owner of then could not read the saga.
#[tokio::test]
async fn z12_what_came_while_a_saga_stood_still_comes_before_its_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let saga = system.begin("odd_job", job("still")).await;
    for step in ["make", "hint"] {
        system.tell(saga, step, done(saga, step)).await;
    }
    let state = system.store.read(&STATE, Rows::one([saga.0.into()])).await.unwrap();
    mend(&system, saga, "{}").await;
    system.shards = system.anew(None);
    system.tell(saga, "signal-1", signal()).await;
    assert_eq!(tries(&system).await, [0], "it is kept");
    system.clock.advance(61_000);
    system.run_until_idle().await;
    mend(&system, saga, state[0][0].text().unwrap()).await;
    system.clock.advance(61_000);
    system.run_until_idle().await;
    assert_eq!(&*system.saga(saga).await.unwrap().status, "dividing");
    assert!(tries(&system).await.is_empty());
}

/// An orphan as an owner left it; its body is what a test says.
static PUT: Statement = Statement {
    name: "test.put_orphan",
    columns: &[Kind::Id, Kind::Int, Kind::Int, Kind::Text],
    sql: "with r(saga, tried_ms, tries, body) as ({rows}) insert into orphan (shard, saga, time_ms, tried_ms, tries, body) \
          select 0, saga, 0, tried_ms, tries, body from r where true",
};

async fn put(system: &System, orphans: Rows) {
    let writes = vec![Write::exact(&PUT, orphans)];
    system.store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
}

/// Many wait for what nobody knows: whoever comes now, and whose saga has turned up, does not wait behind them.
#[tokio::test]
async fn z12_a_new_orphan_and_one_whose_saga_is_there_do_not_wait_behind_old_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let known = system.begin("odd_job", job("known")).await;
    let (nobody, _) = system.start("odd_job", job("never"));
    let body = |saga, id: &str| {
        let message = system.message(Topic::Progress, saga, id.to_owned(), signal());
        serde_json::to_string(&*message.envelope).unwrap()
    };
    let mut rows = Rows::new();
    for n in 0..1_200 {
        rows.push([nobody.0.into(), n.into(), 1.into(), body(nobody, &format!("old-{n}")).into()]);
    }
    rows.push([known.0.into(), (system.clock.now_ms() - 1).into(), 3.into(), body(known, "signal-1").into()]);
    put(&system, rows).await;
    system.tell(nobody, "new", signal()).await;

    let report = Orphans::new(system.gateway()).run(system.clock.now_ms(), false).await.unwrap();
    assert_eq!((report.found, report.changed), (501, 1));
    let told = system.told().await;
    assert!(matches!(&told[..], [alert] if alert.text.contains("input new ")), "{told:?}");
    system.run_until_idle().await;
    assert!(
        facts(&system, known).await.iter().any(|fact| matches!(fact, Fact::EventKept(_))),
        "it was given its input"
    );
    let tries = tries(&system).await;
    let of = |wanted| tries.iter().filter(|tries| **tries == wanted).count();
    assert_eq!((of(0), of(1), of(2)), (0, 702, 499), "the rest by turns");
}

/// What cannot be read is kept and told of, and the others go on.
#[tokio::test]
async fn z12_orphans_that_cannot_be_read_hold_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let known = system.begin("odd_job", job("known")).await;
    let (late, start) = system.start("odd_job", job("late"));
    let mut rows = Rows::new();
    for n in 0..600 {
        let saga = if n % 2 == 0 { known } else { late };
        rows.push([saga.0.into(), 0.into(), 0.into(), "{\"of\":\"a newer program\"}".into()]);
    }
    put(&system, rows).await;
    system.tell(late, "readable", signal()).await;
    let orphans = Orphans::new(system.gateway());
    let mut told = Vec::new();
    for _ in 0..3 {
        assert_eq!(orphans.run(system.clock.now_ms(), false).await.unwrap().changed, 0);
        told.extend(system.told().await);
        system.clock.advance(60_000);
    }
    assert_eq!(told.len(), 601, "of each once");
    assert!(told.iter().any(|alert| alert.text.contains("input readable ")));
    assert!(tries(&system).await.iter().all(|tries| *tries > 0), "all had their turn");
    system.queue(&[start]).await;
    system.run_until_idle().await;
    assert_eq!(tries(&system).await.len(), 600, "its saga was given what can be read");
}
