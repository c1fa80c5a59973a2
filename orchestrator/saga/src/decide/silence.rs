//! Silence, and answers that decide nothing.

use crate::control::Outcome;
use crate::decide::asks_of;
use crate::effect::{DiscrepancyKind, Effect};
use crate::toy::{PARTITIONS, Run, Toy};
use endstate_events::{Direction, ForcedEnd, Operation, Verdict};

#[test]
fn an_unanswered_ask_runs_through_its_retries() {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").done("coupon").done("open");
    let mut asked = 0;
    while run.saga.reason.is_none() {
        assert!(run.tick());
        asked += run.sent().iter().filter(|sent| sent.contains("ask.pay")).count();
    }
    assert_eq!(asked, 3);
}

#[test]
fn a_silent_step_is_asked_about_sent_again_and_compensated() {
    let mut run = Run::start(Toy::bench());
    let mut sent = vec![];
    while run.saga.reason.is_none() {
        assert!(run.tick());
        sent.extend(run.sent());
    }
    assert_eq!(sent, ["ask reserve#0", "do reserve#0", "do reserve#0", "undo -reserve#0"]);
    assert_eq!(run.saga.reason.as_deref(), Some("exhausted"));
}

#[test]
fn an_undo_never_gives_up_and_alerts_once() {
    let mut run = Run::start(Toy::bench());
    run.cancel("user", "owner");
    (0..20).for_each(|_| assert!(run.tick()));
    let alerts = run.effects.iter().filter(|effect| matches!(effect, Effect::Alert { .. })).count();
    assert_eq!((alerts, run.is_parked()), (1, false));
    run.done("-reserve");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Cancelled));
}

#[test]
fn never_seen_sends_again_at_once() {
    let mut run = Run::start(Toy::bench());
    let id = run.effect_id("reserve", "", Direction::Do, 0);
    run.reply(id, Verdict::NeverSeen);
    assert_eq!(run.sent(), ["do reserve#0"]);
}

#[test]
fn one_ask_stands_for_all_and_its_answer_brings_the_others() {
    let mut run = Run::start(Toy::order(2));
    let others = |run: &Run, participant: &str| asks_of(&run.toy, &run.saga, participant, PARTITIONS).len();
    assert_eq!(others(&run, "toys"), 0, "nothing was asked yet");
    run.tick();
    assert_eq!(run.sent(), ["ask hold/0#0"]);
    assert_eq!((others(&run, "toys"), others(&run, "games")), (3, 0));
    run.done("coupon");
    assert_eq!(others(&run, "toys"), 2);
    run.tick();
    assert_eq!((run.sent().len(), others(&run, "toys")), (2, 0), "what was sent again has asked");
}

#[test]
fn an_unknown_answer_brings_the_next_try_nearer_once() {
    let mut run = Run::start(Toy::bench());
    let id = run.effect_id("reserve", "", Direction::Do, 0);
    let unknown = || Verdict::unknown("busy");
    let due_ms = run.saga.due_ms(&run.toy.plan).unwrap();
    run.reply(id.clone(), unknown());
    let (version, sooner_ms) = (run.saga.version, run.saga.due_ms(&run.toy.plan).unwrap());
    assert!(sooner_ms < due_ms && run.sent().is_empty());
    run.reply(id, unknown());
    assert_eq!(run.saga.version, version, "it is as near as it can be");
}

#[test]
fn an_undo_that_goes_on_for_ever_is_not_hurried() {
    let mut run = Run::start(Toy::bench());
    run.cancel("user", "owner");
    (0..10).for_each(|_| assert!(run.tick()));
    let version = run.saga.version;
    let id = run.effect_id("reserve", "", Direction::Undo, 0);
    run.reply(id, Verdict::unknown("busy"));
    assert_eq!(run.saga.version, version);
}

#[test]
fn an_answer_to_an_undo_that_was_never_sent_is_nothing() {
    let mut run = Run::start(Toy::bench());
    run.done("reserve").cancel("user", "owner");
    let version = run.saga.version;
    run.done("-reserve").done("-lock#1");
    assert_eq!(run.saga.version, version);
    run.done("-lock").done("-reserve");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Cancelled));
}

#[test]
fn what_was_given_back_by_force_names_no_stages() {
    let mut run = Run::start(Toy::bench());
    run.done("reserve").operate(Operation::Force { end: ForcedEnd::Cancelled }).done("-lock").done("-reserve");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Forced));
    let missing = |effect: &Effect| matches!(effect, Effect::Discrepancy { kind: DiscrepancyKind::NotDone, .. });
    assert!(!run.effects.iter().any(missing), "{:?}", run.effects);
}
