//! Poison (Z10): an input that nobody can handle parks its saga, and is sent again.

use crate::hazards::bench;
use crate::system::{System, done, source};
use async_trait::async_trait;
use endstate_events::{Actor, Direction, EffectId, InputBody, Operation, Reply, SagaId, Topic, Verdict};
use endstate_orchestrator::persist;
use endstate_outbox::{
    Assignment, Commit, CommitError, Outgoing, Row, Rows, ShardId, Statement, Store, StoreError, Value, Write,
    dead_letter,
};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the store refuses while it does: a control character, as it is and as JSON has it.
pub(crate) const BANE: &str = "wolfs\u{7}bane";
const BANE_IN_JSON: &str = "wolfs\\u0007bane";

/// A store that refuses some data, as a constraint does.
pub(crate) struct Picky {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) refuses: Arc<AtomicBool>,
}

#[async_trait]
impl Store for Picky {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        self.inner.read(statement, rows).await
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        self.inner.assign(shard).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        let bad = |text: &str| text.contains(BANE) || text.contains(BANE_IN_JSON);
        let has_bane = |write: &Write| write.rows.cells().iter().filter_map(Value::text).any(bad);
        if self.refuses.load(Ordering::Relaxed) && commit.writes.iter().any(has_bane) {
            return Err(CommitError::Data("a column does not take it".to_owned()));
        }
        self.inner.commit(commit).await
    }

    async fn outgoing(&self, shard: ShardId, from: i64, limit: usize) -> Result<Vec<(i64, Outgoing)>, StoreError> {
        self.inner.outgoing(shard, from, limit).await
    }

    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }
}

fn reply(saga: SagaId, step: &str, direction: Direction, text: &str) -> InputBody {
    let effect_id = EffectId { saga, step: step.into(), item: String::new(), direction, round: 0 };
    InputBody::Reply(Reply { effect_id, verdict: Verdict::Done { data: json!({ "of": text }) } })
}

fn operate(operation: Operation) -> InputBody {
    let actor = Actor { subject: "olga".into(), role: "operator".into() };
    InputBody::Operate { operation, reason: "looked at it".into(), actor }
}

impl System {
    async fn send(&mut self, saga: SagaId, id: &str, body: InputBody) {
        let message = self.message(Topic::Progress, saga, id.into(), body);
        self.queue(&[message]).await;
        self.run_until_idle().await;
    }

    async fn begun(&mut self, number: &str) -> SagaId {
        let (saga, start) = self.start("bench_saga", bench(number));
        self.queue(&[start]).await;
        self.run_until_idle().await;
        saga
    }

    async fn phase(&self, id: SagaId) -> &'static str {
        let saga = self.saga(id).await.unwrap();
        let definition = self.definitions.get(&saga.definition, saga.definition_version).unwrap();
        saga.control.phase(definition.plan()).label()
    }

    async fn facts(&self, id: SagaId) -> Vec<&'static str> {
        let pages = persist::load_timeline(&*self.store, id).await.unwrap();
        pages.iter().flat_map(|(_, _, events)| events).map(|event| event.fact.label()).collect()
    }
}

#[tokio::test]
async fn z10_a_dead_letter_parks_its_saga_and_its_replay_cures_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 10).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let (poor, other) = (system.begun("poor").await, system.begun("other").await);
    system.refuses.store(true, Ordering::Relaxed);
    let bad = system.message(Topic::Progress, poor, "bad".into(), reply(poor, "reserve", Direction::Do, BANE));
    let good = system.message(Topic::Progress, other, "good".into(), done(other, "reserve"));
    system.queue(&[bad, good]).await;
    system.run_until_idle().await;

    assert_eq!((system.phase(poor).await, system.phase(other).await), ("parked", "running"));
    assert_eq!(system.facts(poor).await.last(), Some(&"dead_lettered"));
    let told = system.told().await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&*told[0].kind, &*told[0].number), ("parked", "poor"));
    assert!(told[0].text.contains("input bad went to the dead letters: a column does not take it"), "{}", told[0].text);

    // A person has removed the cause and sends the letter again: it counts, and the saga goes on when told to.
    system.refuses.store(false, Ordering::Relaxed);
    let letters = dead_letter::list(&*system.store, 0, 10).await.unwrap();
    system.replay(letters[0].id).await;
    system.run_until_idle().await;
    assert_eq!((system.phase(poor).await, &*system.saga(poor).await.unwrap().status), ("parked", "reserving"));
    system.send(poor, "retry", operate(Operation::Retry)).await;
    assert_eq!((system.phase(poor).await, &*system.saga(poor).await.unwrap().status), ("running", "locking"));
    for step in ["lock", "deduct", "confirm"] {
        system.send(poor, step, done(poor, step)).await;
    }
    assert_eq!(system.phase(poor).await, "ended");
}

/// Without a replay the participant is asked again, as ever: what a letter said is heard another time.
#[tokio::test]
async fn z10_a_saga_parked_by_a_dead_letter_still_asks_and_can_be_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 10).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let saga = system.begun("poor").await;
    system.refuses.store(true, Ordering::Relaxed);
    system.send(saga, "bad", reply(saga, "reserve", Direction::Do, BANE)).await;
    system.clock.advance(60_000);
    system.run_until_idle().await;
    assert_eq!((system.phase(saga).await, system.facts(saga).await.last()), ("parked", Some(&"run_asked")));
    system.send(saga, "again", reply(saga, "reserve", Direction::Do, BANE)).await;
    let told = system.told().await;
    let kinds: Vec<_> = told.iter().map(|alert| &*alert.kind).collect();
    assert_eq!(kinds, ["parked", "dead_letter"]);

    system.send(saga, "back", operate(Operation::Compensate)).await;
    assert_eq!(system.phase(saga).await, "compensating");
    system.send(saga, "undone", reply(saga, "reserve", Direction::Undo, "")).await;
    assert_eq!(system.phase(saga).await, "ended");

    // An ended saga never changes.
    let before = system.saga(saga).await;
    system.told().await;
    let strange = InputBody::Event { name: BANE.into(), data: json!({}) };
    system.send(saga, "late", strange).await;
    assert_eq!(system.saga(saga).await, before);
}

/// A record of which only the address can be read.
#[tokio::test]
async fn z10_a_record_that_cannot_be_read_parks_its_saga_too() {
    let folder = tempfile::tempdir().unwrap();
    let saga = {
        let mut system = System::open(folder.path(), 10).await;
        system.definitions.load(&source("bench_saga"), 0).await.unwrap();
        let saga = system.begun("poor").await;
        let message = system.message(Topic::Progress, saga, "riddle".into(), done(saga, "reserve"));
        system.queue(&[message]).await;
        system.rewrite_progress(r#""kind":"reply""#, r#""kind":"riddle""#).await;
        saga
    };
    let mut system = System::open(folder.path(), 10).await;
    system.run_until_idle().await;
    assert_eq!((system.phase(saga).await, system.facts(saga).await.last()), ("parked", Some(&"dead_lettered")));
    assert!(system.told().await[0].text.contains("input riddle"));
    system.send(saga, "retry", operate(Operation::Retry)).await;
    system.send(saga, "clear", done(saga, "reserve")).await;
    assert_eq!(&*system.saga(saga).await.unwrap().status, "locking");
}

/// A command that its participant's shard put aside is answered by nobody: the saga parks, once, and asks no more; a letter
/// that is sent again, and a person, bring it on.
#[tokio::test]
async fn z10_a_command_that_was_put_aside_parks_its_saga_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 10).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let saga = system.begun("poor").await;
    let notice = || crate::system::reply(saga, "reserve", Verdict::put_aside("put aside: E5003: too old"));
    system.send(saga, "notice", notice()).await;
    assert_eq!((system.phase(saga).await, system.facts(saga).await.last()), ("parked", Some(&"dead_lettered")));
    system.send(saga, "notice", notice()).await;
    for _ in 0..20 {
        system.clock.advance(300_000);
        system.run_until_idle().await;
    }
    let told = system.told().await;
    assert_eq!(told.iter().map(|alert| &*alert.kind).collect::<Vec<_>>(), ["parked"]);
    assert!(told[0].text.contains("reserve::do:0 went to the dead letters: put aside: E5003"), "{}", told[0].text);
    assert_eq!(system.commands(saga).await.len(), 1, "each more would be another letter");

    system.send(saga, "retry", operate(Operation::Retry)).await;
    let commands = system.commands(saga).await;
    assert_eq!((commands.len(), &commands[0]), (2, &commands[1]), "the same effect");
    for step in ["reserve", "lock", "deduct", "confirm"] {
        system.send(saga, step, done(saga, step)).await;
        // The letter of a command that was sent before may come to nothing still.
        system.send(saga, "late", notice()).await;
    }
    assert_eq!(system.phase(saga).await, "ended");
    assert!(system.told().await.is_empty());
}

/// There is no saga yet that could park: people are told.
#[tokio::test]
async fn z10_a_start_that_is_poison_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 10).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    system.refuses.store(true, Ordering::Relaxed);
    let (saga, start) = system.start("bench_saga", bench(BANE));
    system.queue(&[start]).await;
    system.run_until_idle().await;
    assert!(system.saga(saga).await.is_none());
    let told = system.told().await;
    assert_eq!((told.len(), &*told[0].kind, &*told[0].number), (1, "dead_letter", "wolfs\u{fffd}bane"));

    system.refuses.store(false, Ordering::Relaxed);
    let letters = dead_letter::list(&*system.store, 0, 10).await.unwrap();
    system.replay(letters[0].id).await;
    system.run_until_idle().await;
    assert_eq!(system.phase(saga).await, "running");
}

/// The others are asked for in the same turn, and what is due of it as soon as it can be.
#[tokio::test]
async fn z10_a_timer_that_cannot_be_carried_out_holds_up_no_other_saga() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 10).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let mut starts = (0..).map(|number| system.start("bench_saga", bench(&format!("n-{number}"))));
    let mut of_shard_0 = || starts.by_ref().find(|(_, start)| start.partition == 0).unwrap();
    let sagas = [of_shard_0(), of_shard_0(), of_shard_0()];
    let [first, poor, last] = [sagas[0].0, sagas[1].0, sagas[2].0];
    for (saga, start) in sagas {
        system.queue(&[start]).await;
        system.run_until_idle().await;
        system.send(saga, "one", reply(saga, "reserve", Direction::Do, if saga == poor { BANE } else { "" })).await;
        system.clock.advance(1);
    }

    system.refuses.store(true, Ordering::Relaxed);
    system.clock.advance(60_000);
    system.run_until_idle().await;
    let asked = async |system: &System, saga| system.facts(saga).await.last() == Some(&"run_asked");
    assert!(asked(&system, first).await && asked(&system, last).await);
    assert!(!asked(&system, poor).await);
    let told = system.told().await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&*told[0].kind, told[0].number.starts_with("n-"), told[0].saga), ("timer", true, Some(poor)));
    assert!(told[0].text.ends_with("a column does not take it"), "{}", told[0].text);

    system.refuses.store(false, Ordering::Relaxed);
    system.clock.advance(60_000);
    system.run_until_idle().await;
    assert!(asked(&system, poor).await);
}
