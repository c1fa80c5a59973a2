//! The reversal's own waits and expressions, with and without force.

use crate::control::Outcome;
use crate::effect::{DiscrepancyKind, Effect};
use crate::plan::{AtDeadline, Mismatch, Refused};
use crate::toy::{Run, Toy};
use endstate_events::{ForcedEnd, Operation};

/// Reverses by one step and a wait.
fn toy(at_deadline: AtDeadline) -> Toy {
    let toy = Toy::empty().stage("a").step("x").pivot().stage("b").step("y").refused(Refused::Reverse);
    toy.reversal("back").step("r").refused(Refused::Park).wait(at_deadline, false).mismatch(Mismatch::Park)
}

/// A saga that is being reversed; `r` is under way.
fn reversing(toy: Toy, force: bool) -> Run {
    let mut run = Run::start(toy);
    run.done("x");
    if force {
        run.operate(Operation::Force { end: ForcedEnd::Cancelled })
    } else {
        run.cancel("user", "owner")
    };
    run.done("y");
    run
}

/// Lets time pass until the end.
fn end(run: &mut Run) -> Option<Outcome> {
    for _ in 0..100 {
        if run.saga.control.is_ended() || !run.tick() {
            break;
        }
    }
    run.saga.control.outcome()
}

#[test]
fn a_reversal_whose_time_is_up_parks_and_does_not_turn_back_again() {
    for at_deadline in [AtDeadline::Park, AtDeadline::Reverse, AtDeadline::Cancel { reason: 1 }] {
        let mut run = reversing(toy(at_deadline), false);
        run.done("r").tick();
        assert!(run.is_parked(), "{at_deadline:?}");
        run.operate(Operation::Retry).paid("p1", 7).done("-y").done("-x");
        assert_eq!(run.saga.control.outcome(), Some(Outcome::Reversed), "{at_deadline:?}");
    }
}

#[test]
fn under_force_a_reversal_ends_whatever_its_wait_says() {
    for at_deadline in [AtDeadline::Next, AtDeadline::Park, AtDeadline::Reverse, AtDeadline::Cancel { reason: 1 }] {
        let mut run = reversing(toy(at_deadline), true);
        run.done("r").tick();
        assert!(!run.is_parked(), "{at_deadline:?}");
        run.done("-y").done("-x");
        assert_eq!(run.saga.control.outcome(), Some(Outcome::Forced), "{at_deadline:?}");
    }
}

#[test]
fn a_kept_event_that_does_not_match_parks_the_reversal_but_not_under_force() {
    let mut run = reversing(toy(AtDeadline::Next), false);
    run.paid("wrong", 6).done("r");
    assert!(run.is_parked() && run.linked().is_empty(), "somebody looks");
    let mut run = reversing(toy(AtDeadline::Next), true);
    run.paid("wrong", 6).done("r");
    assert_eq!((run.is_parked(), run.linked()), (false, vec!["wrong".to_owned()]));
    assert_eq!(end(&mut run), Some(Outcome::Forced));
}

#[test]
fn under_force_what_cannot_be_evaluated_is_passed_over_and_told() {
    let mut broken = toy(AtDeadline::Next);
    broken.broken.push(2);
    let mut run = reversing(broken, false);
    assert!(run.is_parked());
    assert_eq!(run.alerts(), ["toy n1 is parked because r failed: no such field"]);
    run.operate(Operation::Force { end: ForcedEnd::Cancelled });
    let told = |effect: &Effect| matches!(effect, Effect::Discrepancy { kind: DiscrepancyKind::NotDone, .. });
    assert!(!run.is_parked() && run.last.effects.iter().any(told), "{:?}", run.last.effects);
    assert_eq!(run.sent(), ["undo -y#0"]);
    run.done("-y").done("-x");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Forced));
}
