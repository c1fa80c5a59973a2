//! Participants that know a history which is lost (Z14): a standby was promoted without the last commits, and a decision to
//! turn back had been made and sent by then.

use crate::control::Outcome;
use crate::effect::{DiscrepancyKind, Effect};
use crate::event::Fact;
use crate::toy::{Run, Toy};
use endstate_events::{Direction, Verdict};

fn waiting() -> Run {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").done("coupon").done("open");
    run
}

fn turned_back(run: &Run) -> Option<(bool, &str)> {
    run.events.iter().find_map(|event| {
        let Fact::TurnedBack { reversal, reason } = &event.fact else { return None };
        Some((*reversal, &**reason))
    })
}

#[test]
fn z14_an_order_whose_lost_cancel_took_effect_is_cancelled_again() {
    let mut run = waiting();
    run.done("-open");
    assert_eq!((turned_back(&run), run.sent()), (Some((false, "undone")), vec!["undo -open#0".to_owned()]));
    run.paid("p1", 7);
    assert_eq!(run.linked(), ["p1"], "it is late, as it was then");
    run.done("-open").done("-hold/0").done("-coupon");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Cancelled));
    assert!(!run.is_parked(), "nobody need look");
}

#[test]
fn z14_what_is_still_unknown_of_a_step_counts_as_undone_too() {
    let mut run = Run::start(Toy::order(1));
    run.done("coupon").done("-hold/0");
    assert_eq!(run.sent(), ["undo -hold/0#0", "undo -coupon#0"]);
}

#[test]
fn z14_a_paid_order_whose_holds_are_gone_is_reversed() {
    let mut run = waiting();
    run.paid("p1", 7).done("-hold/0");
    assert_eq!(turned_back(&run), Some((true, "undone")));
    run.done("confirm/0").done("book");
    assert_eq!(run.sent(), ["do refund#0"]);
    run.done("refund").done("-confirm/0").done("-open").done("-hold/0").done("-coupon");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Reversed));
}

#[test]
fn z14_of_a_completed_order_people_are_told_what_was_undone() {
    let mut run = waiting();
    run.paid("p1", 7).done("confirm/0").done("book").done("tell");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Completed));
    let before = run.events.len();
    run.done("-hold/0");
    let [Effect::Discrepancy { kind, effect_id, .. }, Effect::Alert { .. }] = &run.last.effects[..] else {
        panic!("{:?}", run.last.effects)
    };
    let of_undo = run.effect_id("hold", "0", Direction::Undo, 0);
    assert_eq!((kind, effect_id), (&DiscrepancyKind::Contradiction, &Some(of_undo)));
    assert_eq!(run.events.len(), before, "it stays as it ended");
}

#[test]
fn z14_only_what_may_be_made_and_is_said_to_be_undone_turns_a_saga_back() {
    let mut run = waiting();
    let undo = |round| run.effect_id("hold", "0", Direction::Undo, round);
    let (first, second) = (undo(0), undo(1));
    let before = run.events.len();
    run.done("-hold/0#1").reply(second, Verdict::unknown("busy"));
    run.refuse("-hold/0").reply(first.clone(), Verdict::unknown("busy")).reply(first, Verdict::NeverSeen);
    assert_eq!((run.events.len(), turned_back(&run)), (before, None));

    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").refuse("coupon");
    let sent = run.sent();
    run.done("-coupon");
    assert_eq!((sent, run.sent()), (vec!["undo -hold/0#0".to_owned()], vec![]), "a refused step has nothing to undo");
}

/// It is one refund, and its effects have one id, whatever the history.
#[test]
fn z14_a_late_event_starts_the_same_saga_however_late_it_was_found_to_be() {
    let started = |run: &Run| {
        let start = |effect: &Effect| if let Effect::Start(start) = effect { Some(start.id) } else { None };
        run.last.effects.iter().find_map(start).unwrap()
    };
    let mut late = waiting();
    late.done("-open").tick();
    late.paid("p1", 7);
    let mut kept = Run::start(Toy::order(1));
    kept.paid("p1", 7).refuse("coupon");
    assert_eq!(started(&late), started(&kept));
}
