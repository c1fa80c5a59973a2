//! Sagas beside sagas: a step that is a saga, the self-check that asks a saga about an old hold (H3), and a saga that cannot be
//! read.

use crate::hazards::damage_definition;
use crate::system::{System, done, job, odd_job, reply, source};
use endstate_events::{
    Actor, Command, Direction, EffectId, InputBody, Message, Operation, Reply, ReplyTo, SagaId, Topic, Verdict,
};
use endstate_orchestrator::definitions::Definitions;
use endstate_orchestrator::job::Job as _;
use endstate_orchestrator::orphan::Orphans;
use endstate_outbox::{Clock as _, Commit, Kind, Rows, Statement, Write, dead_letter};
use endstate_saga::control::Outcome;
use serde_json::json;
use std::path::Path;

pub(crate) async fn open(folder: &Path) -> System {
    let system = System::open(folder, 100).await;
    for source in [source("bench_saga"), odd_job()] {
        system.definitions.load(&source, 0).await.unwrap();
    }
    system
}

/// A job that has come as far as its step that is a saga; returns it and the saga it called.
async fn delegating(system: &mut System, number: &str) -> (SagaId, SagaId) {
    let saga = system.begin("odd_job", job(number)).await;
    for step in ["make", "hint"] {
        system.tell(saga, step, done(saga, step)).await;
    }
    let signal = InputBody::Event { name: "lab.signal".to_owned(), data: json!({ "value": 1 }) };
    system.tell(saga, "signal", signal).await;
    system.tell(saga, "divide", done(saga, "divide")).await;
    assert_eq!(&*system.saga(saga).await.unwrap().status, "delegating");
    let called = called_by(system, saga).await;
    assert_eq!(called.len(), 1, "{called:?}");
    (saga, called[0])
}

/// The sagas that were called on behalf of one.
async fn called_by(system: &System, saga: SagaId) -> Vec<SagaId> {
    let commands = system.to_participants().await;
    let number = system.saga(saga).await.unwrap().number;
    let called = |message: &Message| match message {
        Message::Command(command) if command.number.starts_with(&format!("odd_job/{number}:")) => Some(command.saga()),
        _ => None,
    };
    let mut called: Vec<_> = commands.iter().filter_map(called).collect();
    called.dedup();
    called
}

/// In the middle of an upgrade: whoever works for a saga cannot read the version of the one that it calls.
#[tokio::test]
async fn z15_a_called_saga_of_a_version_that_cannot_be_read_waits_for_the_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let saga = system.begin("odd_job", job("J-1")).await;
    for step in ["make", "hint"] {
        system.tell(saga, step, done(saga, step)).await;
    }
    let signal = InputBody::Event { name: "lab.signal".to_owned(), data: json!({ "value": 1 }) };
    system.tell(saga, "signal", signal).await;
    damage_definition(&system, "bench_saga").await;
    drop(system);
    let mut older = System::open(folder.path(), 100).await;
    older.tell(saga, "divide", done(saga, "divide")).await;
    assert_eq!(dead_letter::list(&*older.store, 0, 10).await.unwrap(), []);

    older.definitions.load(&source("bench_saga"), 0).await.unwrap();
    assert_eq!(Orphans::new(older.gateway()).run(older.clock.now_ms(), false).await.unwrap().changed, 1);
    older.run_until_idle().await;
    assert_eq!(called_by(&older, saga).await.len(), 1, "it was started, and sends its own commands");
}

/// Another process has loaded it, and this one has not looked since: what it starts is no dead letter.
#[tokio::test]
async fn a_saga_that_nobody_here_has_heard_of_is_started_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 100).await;
    system.definitions.load(&odd_job(), 0).await.unwrap();
    let elsewhere = Definitions::open(system.store.clone()).await.unwrap();
    elsewhere.load(&source("bench_saga"), 0).await.unwrap();
    assert!(!system.definitions.is_active("bench_saga"));
    let (_, called) = delegating(&mut system, "J-1").await;
    assert_eq!(system.saga(called).await.unwrap().definition_version, 1);
    assert_eq!(dead_letter::list(&*system.store, 0, 10).await.unwrap(), []);
}

const STEPS: [&str; 4] = ["reserve", "lock", "deduct", "confirm"];

#[tokio::test]
async fn a_step_that_is_a_saga_is_done_when_that_saga_completes() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let (saga, called) = delegating(&mut system, "J-1").await;
    let sub = system.saga(called).await.unwrap();
    assert_eq!(&*sub.definition, "bench_saga");
    assert_eq!(called.slot(), saga.slot(), "both lie on one shard");
    for step in STEPS {
        assert!(!system.saga(saga).await.unwrap().control.is_ended());
        system.tell(called, step, done(called, step)).await;
    }
    assert_eq!(system.saga(called).await.unwrap().control.outcome(), Some(Outcome::Completed));
    assert_eq!(system.saga(saga).await.unwrap().control.outcome(), Some(Outcome::Completed));
}

#[tokio::test]
async fn a_step_that_is_a_saga_is_refused_when_that_saga_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let (saga, called) = delegating(&mut system, "J-1").await;
    let no = Verdict::Refused { code: "bench.failed".to_owned(), detail: String::new() };
    system.tell(called, "reserve", reply(called, "reserve", no)).await;
    assert_eq!(system.saga(called).await.unwrap().control.outcome(), Some(Outcome::Cancelled));
    assert_eq!(system.saga(saga).await.unwrap().reason.as_deref(), Some("saga.cancelled"), "it gives back");
    let mut undone = 0;
    while let Some(undo) = undos(&system, saga).await.get(undone) {
        undone += 1;
        system.tell(saga, &undo.effect_id.to_string(), undone_by(undo)).await;
    }
    assert_eq!(undone, 2, "what was made, and the share");
    assert_eq!(system.saga(saga).await.unwrap().control.outcome(), Some(Outcome::Cancelled));
}

fn undone_by(undo: &Command) -> InputBody {
    InputBody::Reply(Reply { effect_id: undo.effect_id.clone(), verdict: Verdict::Done { data: json!({}) } })
}

async fn undos(system: &System, saga: SagaId) -> Vec<Command> {
    let commands = system.commands(saga).await.into_iter();
    commands.filter(|command| command.effect_id.direction == Direction::Undo).collect()
}

/// Its answer may be lost, and it may take longer than any ladder: it is called again under the same id, which is the
/// same saga, and it is never given up.
#[tokio::test]
async fn a_step_that_is_a_saga_is_called_once_however_long_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let (saga, called) = delegating(&mut system, "J-1").await;
    for _ in 0..8 {
        system.clock.advance(60_000);
        system.run_until_idle().await;
    }
    assert_eq!(called_by(&system, saga).await, [called], "called again, it is the same saga");
    assert!(!system.saga(saga).await.unwrap().control.is_ended());
    assert_eq!(&*system.told().await[0].kind, "silent", "people know");
    for step in STEPS {
        system.tell(called, step, done(called, step)).await;
    }
    assert_eq!(system.saga(saga).await.unwrap().control.outcome(), Some(Outcome::Completed));
}

/// Nobody has loaded what it calls: the start is put aside, the caller parks and calls no more until a person has looked.
#[tokio::test]
async fn z10_a_saga_whose_call_is_put_aside_parks_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 100).await;
    system.definitions.load(&odd_job(), 0).await.unwrap();
    let saga = system.begin("odd_job", job("J-1")).await;
    for step in ["make", "hint"] {
        system.tell(saga, step, done(saga, step)).await;
    }
    let signal = InputBody::Event { name: "lab.signal".to_owned(), data: json!({ "value": 1 }) };
    system.tell(saga, "signal", signal).await;
    system.tell(saga, "divide", done(saga, "divide")).await;
    for _ in 0..20 {
        system.clock.advance(300_000);
        system.run_until_idle().await;
    }
    let letters = dead_letter::list(&*system.store, 0, 10).await.unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    let told = system.told().await;
    assert_eq!(told.iter().map(|alert| (&*alert.kind, alert.saga)).collect::<Vec<_>>(), [("parked", Some(saga))]);
    assert!(told[0].text.contains("E3001"), "{}", told[0].text);

    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let actor = Actor { subject: "olga".into(), role: "operator".into() };
    let retry = InputBody::Operate { operation: Operation::Retry, reason: "loaded".into(), actor };
    system.tell(saga, "retry", retry).await;
    let called = called_by(&system, saga).await;
    assert_eq!(called.len(), 1);
    for step in STEPS {
        system.tell(called[0], step, done(called[0], step)).await;
    }
    assert_eq!(system.saga(saga).await.unwrap().control.outcome(), Some(Outcome::Completed));
}

/// Somebody started a saga of their own under the number that the step would take: nobody waits for that one.
#[tokio::test]
async fn a_step_that_is_a_saga_is_refused_when_its_number_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let (_, called) = delegating(&mut system, "J-1").await;
    let number = system.saga(called).await.unwrap().number.replace("J-1", "J-2");
    system.begin("bench_saga", json!({ "number": number, "fail_at": "lock" })).await;
    let saga = system.begin("odd_job", job("J-2")).await;
    for step in ["make", "hint"] {
        system.tell(saga, step, done(saga, step)).await;
    }
    let signal = InputBody::Event { name: "lab.signal".to_owned(), data: json!({ "value": 1 }) };
    system.tell(saga, "signal", signal).await;
    system.tell(saga, "divide", done(saga, "divide")).await;
    assert_eq!(system.saga(saga).await.unwrap().reason.as_deref(), Some("saga.number_taken"), "it gives back");
}

/// Definitions number their sagas apart: two that call the same one with the same number do not meet.
#[tokio::test]
async fn sagas_of_two_definitions_with_one_number_call_two_sagas() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let mut even = odd_job();
    even.text = even.text.replace("saga: odd_job", "saga: even_job");
    system.definitions.load(&even, 0).await.unwrap();
    let (_, called) = delegating(&mut system, "J-1").await;
    let saga = system.begin("even_job", job("J-1")).await;
    for step in ["make", "hint"] {
        system.tell(saga, step, done(saga, step)).await;
    }
    let signal = InputBody::Event { name: "lab.signal".to_owned(), data: json!({ "value": 1 }) };
    system.tell(saga, "signal", signal).await;
    system.tell(saga, "divide", done(saga, "divide")).await;
    let row = system.saga(saga).await.unwrap();
    assert_eq!((&*row.status, row.reason), ("delegating", None), "not refused");
    let first = system.saga(called).await.unwrap();
    assert_eq!(first.number.to_string(), "odd_job/J-1:sub::do:0");
}

/// What was called by an older program has another number, and is the same saga all the same: its id comes from the effect.
#[tokio::test]
async fn a_saga_that_was_called_under_another_number_is_not_called_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let (saga, called) = delegating(&mut system, "J-1").await;
    static RENUMBER: Statement = Statement {
        name: "test.renumber",
        columns: &[Kind::Text, Kind::Text],
        sql: "with r(old, new) as ({rows}) update saga_number set number = r.new from r where number = r.old",
    };
    let number = system.saga(called).await.unwrap().number;
    let old = number.trim_start_matches("odd_job/");
    assert_ne!(old, &*number);
    let writes = vec![Write::exact(&RENUMBER, Rows::one([(&*number).into(), old.into()]))];
    system.store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
    for _ in 0..8 {
        system.clock.advance(60_000);
        system.run_until_idle().await;
    }
    assert_eq!(called_by(&system, saga).await, [called]);
    static CLAIMED: Statement = Statement {
        name: "test.claimed",
        columns: &[Kind::Text],
        sql: "with r(definition) as ({rows}) select n.number from saga_number n join r on r.definition = n.definition",
    };
    let claimed = system.store.read(&CLAIMED, Rows::one(["bench_saga".into()])).await.unwrap();
    assert_eq!(claimed, [vec![old.into()]], "no second number");
    for step in STEPS {
        system.tell(called, step, done(called, step)).await;
    }
    assert_eq!(system.saga(saga).await.unwrap().control.outcome(), Some(Outcome::Completed));
}

/// A row that cannot be read (a newer program's, or a damaged one) stops its own saga and no other (E3004).
#[tokio::test]
async fn a_row_that_cannot_be_read_stops_one_saga_only() {
    let folder = tempfile::tempdir().unwrap();
    let (damaged, healthy, state) = {
        let mut system = open(folder.path()).await;
        let damaged = system.begin("bench_saga", json!({ "number": "B-1", "fail_at": "" })).await;
        let mut twin = 1;
        let healthy = loop {
            twin += 1;
            let saga = system.begin("bench_saga", json!({ "number": format!("B-{twin}"), "fail_at": "" })).await;
            if saga.slot().partition(system.store.partitions()) == damaged.slot().partition(system.store.partitions()) {
                break saga;
            }
        };
        let state = system.store.read(&STATE, Rows::one([damaged.0.into()])).await.unwrap();
        let state = state[0][0].text().unwrap().to_owned();
        mend(&system, damaged, "{}").await;
        (damaged, healthy, state)
    };
    let mut system = open(folder.path()).await;
    system.clock.advance(60_000);
    system.run_until_idle().await;
    for step in STEPS {
        system.tell(damaged, step, done(damaged, step)).await;
        system.tell(healthy, step, done(healthy, step)).await;
    }
    assert_eq!(system.saga(healthy).await.unwrap().control.outcome(), Some(Outcome::Completed));
    let told = system.told().await;
    assert_eq!((told.len(), &*told[0].kind, told[0].saga), (1, "unreadable", Some(damaged)), "told once");
    assert!(told[0].text.starts_with("E3004"), "{}", told[0].text);

    // What came for it is kept, and finds it once its row can be read again.
    mend(&system, damaged, &state).await;
    let orphans = Orphans::new(system.gateway());
    assert_eq!(orphans.run(system.clock.now_ms(), false).await.unwrap().changed, STEPS.len());
    system.run_until_idle().await;
    assert_eq!(system.saga(damaged).await.unwrap().control.outcome(), Some(Outcome::Completed));
}

pub(crate) static STATE: Statement = Statement {
    name: "test.state",
    columns: &[Kind::Id],
    sql: "with r(id) as ({rows}) select s.state from saga s join r on r.id = s.id",
};
static MEND: Statement = Statement {
    name: "test.mend",
    columns: &[Kind::Id, Kind::Text],
    sql: "with r(id, state) as ({rows}) update saga set state = r.state from r where saga.id = r.id",
};

/// Writes the state of a saga's row.
pub(crate) async fn mend(system: &System, saga: SagaId, state: &str) {
    let writes = vec![Write::exact(&MEND, Rows::one([saga.0.into(), state.into()]))];
    system.store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
}

/// Asks like the self-check of a hold, and returns whether it is to be kept.
async fn inquire(system: &mut System, effect_id: &EffectId) -> bool {
    let before = answers(system, effect_id).await.len();
    let reply_to = ReplyTo { topic: Topic::Commands, partition: 0 };
    let body = InputBody::Inquire { effect_id: effect_id.clone(), reply_to };
    system.tell(effect_id.saga, &format!("{effect_id}/inquire/{before}"), body).await;
    let answers = answers(system, effect_id).await;
    assert_eq!(answers.len(), before + 1, "{effect_id}: each question has its answer");
    answers[before]
}

async fn answers(system: &System, effect_id: &EffectId) -> Vec<bool> {
    let keep = |message| match message {
        Message::Inquired(answer) if answer.effect_id == *effect_id => Some(answer.keep),
        _ => None,
    };
    system.to_participants().await.into_iter().filter_map(keep).collect()
}

#[tokio::test]
async fn an_old_hold_is_kept_while_its_saga_needs_it_and_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let saga = system.begin("bench_saga", json!({ "number": "B-1", "fail_at": "" })).await;
    let sent = system.commands(saga).await[0].effect_id.clone();
    assert!(inquire(&mut system, &sent).await, "its answer may be on the way");
    system.tell(saga, "reserve", done(saga, "reserve")).await;
    assert!(inquire(&mut system, &sent).await, "it is needed");
    let other_round = EffectId { round: 1, ..sent.clone() };
    assert!(!inquire(&mut system, &other_round).await, "nobody retried");
    let other_step = EffectId { step: "no_such_step".to_owned(), ..sent.clone() };
    assert!(!inquire(&mut system, &other_step).await);
    let stranger =
        EffectId { saga: system.start("bench_saga", json!({ "number": "B-2", "fail_at": "" })).0, ..sent.clone() };
    assert!(!inquire(&mut system, &stranger).await, "nobody knows its saga");

    let no = Verdict::Refused { code: "bench.failed".to_owned(), detail: String::new() };
    system.tell(saga, "lock", reply(saga, "lock", no)).await;
    let undo = undos(&system, saga).await.remove(0);
    assert_eq!(undo.of.as_ref().map(|of| &of.effect_id), Some(&sent));
    system.tell(saga, "undone", undone_by(&undo)).await;
    assert!(system.saga(saga).await.unwrap().control.is_ended());
    assert!(!inquire(&mut system, &sent).await, "given back: nothing of it is needed any more");
}
