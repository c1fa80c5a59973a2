//! What is sent, and what an early timer, an odd event or an unknown answer changes.

use super::{Denied, Setting, decide_due};
use crate::control::Outcome;
use crate::effect::Effect;
use crate::toy::{PARTITIONS, Run, Toy};
use endstate_events::{Direction, ForcedEnd, InputBody, Operation, Verdict};
use serde_json::json;

/// How many facts a timer records that fires at this time.
fn facts_at(run: &Run, now_ms: i64) -> usize {
    decide_due(&run.toy, run.saga.clone(), now_ms, Setting { now_ms, partitions: PARTITIONS }).events.len()
}

fn waiting() -> Run {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").done("coupon").done("open");
    run
}

#[test]
fn a_command_carries_what_was_evaluated_over_its_item() {
    let mut run = Run::start(Toy::order(2));
    let carried = |run: &Run| run.commands().map(|command| command.with.clone()).collect::<Vec<_>>();
    let hold = |n| json!({ "step": "hold", "item": { "n": n } });
    assert_eq!(carried(&run), [hold(0), hold(1), json!({ "step": "coupon", "item": null })]);
    run.done("hold/0").done("hold/1").done("coupon").done("open").paid("p1", 7);
    assert_eq!(carried(&run)[1], json!({ "step": "confirm", "item": { "n": 1 } }), "the item of the hold");
    let keys: Vec<_> = run.commands().map(|command| command.key.as_str()).collect();
    assert_eq!(keys, ["unit-0", "unit-1", "k"], "they go where their holds went");
}

#[test]
fn a_step_about_another_is_skipped_when_its_condition_does_not_hold() {
    let mut toy = Toy::order(1);
    toy.items[toy.plan.step("confirm").unwrap()] = 0;
    let mut run = Run::start(toy);
    run.done("hold/0").done("coupon").done("open").paid("p1", 7);
    assert_eq!(run.sent(), ["do book#0"]);
}

#[test]
fn a_timer_that_fires_too_early_does_nothing() {
    let mut run = waiting();
    for _ in ["the deadline", "the ask"] {
        let due_ms = run.saga.due_ms(&run.toy.plan).unwrap();
        assert_eq!((facts_at(&run, due_ms - 1), facts_at(&run, due_ms) > 0), (0, true));
        run.tick();
    }
}

#[test]
fn a_timer_of_a_saga_that_has_ended_does_nothing() {
    let mut run = waiting();
    run.tick();
    run.operate(Operation::Force { end: ForcedEnd::Completed });
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Forced));
    assert_eq!(facts_at(&run, i64::MAX / 2), 0);
}

#[test]
fn an_event_that_nobody_knows_or_that_cannot_be_read_is_not_taken() {
    let mut run = waiting();
    run.input("e1", InputBody::Event { name: "sent".into(), data: json!({}) });
    assert_eq!(run.last.denied, Some(Denied::UnknownEvent("sent".into())));
    run.input("e2", InputBody::Event { name: "paid".into(), data: json!({ "no": "odd" }) });
    assert!(run.is_parked() && run.linked().is_empty(), "nobody can say whether it matches");
    assert_eq!(run.alerts(), ["toy n1 is parked on a wait"]);
}

#[test]
fn an_unknown_answer_to_an_undo_brings_its_next_try_nearer() {
    let mut run = Run::start(Toy::bench());
    run.cancel("user", "owner");
    let due_ms = run.saga.due_ms(&run.toy.plan).unwrap();
    let id = run.effect_id("reserve", "", Direction::Undo, 0);
    run.reply(id, Verdict::unknown("busy"));
    assert!(run.saga.due_ms(&run.toy.plan).unwrap() < due_ms);
}

#[test]
fn stages_that_had_all_begun_are_not_told_as_missing() {
    let mut run = waiting();
    run.paid("p1", 7).done("confirm/0").done("book").operate(Operation::Force { end: ForcedEnd::Completed });
    let told = run.last.effects.iter().filter(|effect| matches!(effect, Effect::Discrepancy { .. }));
    assert_eq!(told.count(), 1, "the step that was under way");
}
