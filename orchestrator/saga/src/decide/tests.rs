//! Decisions, told as stories.

use crate::control::Outcome;
use crate::decide::Denied;
use crate::effect::{DiscrepancyKind, Effect};
use crate::plan::{AtDeadline, Mismatch, Refused};
use crate::toy::{Run, Toy};
use endstate_events::{ForcedEnd, Operation};

fn paid_order() -> Run {
    let mut run = Run::start(Toy::order(2));
    run.done("hold/0").done("hold/1").done("coupon").done("open").paid("p1", 7);
    run
}

#[test]
fn four_steps_in_a_row_complete() {
    let mut run = Run::start(Toy::bench());
    for (step, next) in [("reserve", "do lock#0"), ("lock", "do deduct#0"), ("deduct", "do confirm#0")] {
        run.done(step);
        assert_eq!(run.sent(), [next]);
    }
    run.done("confirm");
    assert_eq!((run.saga.control.outcome(), run.status()), (Some(Outcome::Completed), "completed"));
    assert_eq!(run.saga.due_ms(&run.toy.plan), None);
}

#[test]
fn a_refusal_undoes_what_was_done_latest_first() {
    let mut run = Run::start(Toy::bench());
    run.done("reserve").done("lock").refuse("deduct");
    assert_eq!(run.sent(), ["undo -lock#0"]);
    run.done("-lock");
    assert_eq!(run.sent(), ["undo -reserve#0"]);
    let of = run.commands().next().unwrap().of.clone().unwrap();
    assert_eq!(
        (of.effect_id, of.reply["of"].as_str()),
        (run.effect_id("reserve", "", endstate_events::Direction::Do, 0), Some("reserve"))
    );
    run.done("-reserve");
    assert_eq!((run.saga.control.outcome(), run.status()), (Some(Outcome::Cancelled), "closed"));
    assert_eq!(run.saga.reason.as_deref(), Some("toys.broken"));
}

#[test]
fn in_flight_counts_as_unknown_and_is_undone() {
    let mut run = Run::start(Toy::order(2));
    run.done("hold/0").refuse("coupon");
    assert_eq!(run.sent(), ["undo -hold/0#0", "undo -hold/1#0"]);
    run.done("hold/1").done("-hold/0");
    assert_eq!(run.saga.control.outcome(), None);
    run.done("-hold/1");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Cancelled));
}

#[test]
fn an_order_is_paid_and_completes() {
    let mut run = paid_order();
    assert_eq!(run.sent(), ["do confirm/0#0", "do confirm/1#0", "do book#0"]);
    let confirm = run.commands().next().unwrap();
    assert_eq!(confirm.key, "unit-0");
    assert_eq!(confirm.of.as_ref().unwrap().effect_id.step, "hold");
    assert_eq!(run.status(), "confirm");
    run.done("confirm/0").done("confirm/1").done("book");
    assert_eq!(run.sent(), ["do tell#0"]);
    run.refuse("tell");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Completed));
}

#[test]
fn a_repeated_payment_is_nothing_and_a_second_one_is_late() {
    let mut run = paid_order();
    let version = run.saga.version;
    run.paid("p1", 7);
    assert_eq!((run.saga.version, run.linked()), (version, vec![]));
    run.paid("p2", 7);
    assert_eq!(run.linked(), ["p2"]);
    run.paid("p2", 7);
    assert_eq!(run.linked(), ["p2"]);
}

#[test]
fn a_payment_kept_early_is_taken_and_the_rest_is_late() {
    let mut run = Run::start(Toy::order(1));
    run.paid("wrong", 6).paid("p1", 7).paid("p2", 7);
    run.done("hold/0").done("coupon").done("open");
    assert_eq!(run.saga.data.waits[1]["no"], "p1");
    assert_eq!(run.linked(), ["wrong", "p2"]);
}

#[test]
fn z21_a_kept_payment_becomes_late_when_compensation_begins() {
    let mut run = Run::start(Toy::order(1));
    run.paid("p1", 7).done("hold/0").refuse("coupon");
    assert_eq!(run.linked(), ["p1"]);
    run.paid("p2", 7).done("-hold/0");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Cancelled));
    let ended = run.saga.clone();
    run.paid("p3", 7).paid("p2", 7);
    assert_eq!((run.linked(), &run.saga), (vec!["p1".to_owned(), "p2".into(), "p3".into()], &ended));
}

#[test]
fn z12_a_wrong_amount_is_late_and_the_wait_goes_on() {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").done("coupon").done("open").paid("wrong", 6);
    assert_eq!((run.linked(), run.status()), (vec!["wrong".to_owned()], "pay"));
    run.paid("right", 7);
    assert_eq!(run.status(), "confirm");
}

#[test]
fn the_deadline_asks_before_it_cancels() {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").done("coupon").done("open");
    run.tick();
    assert_eq!(run.sent(), ["do ask.pay#0"]);
    run.done("ask.pay");
    assert_eq!((run.sent(), run.saga.reason.as_deref()), (vec!["undo -open#0".to_owned()], Some("unpaid")));
    run.paid("p1", 7);
    assert_eq!(run.linked(), ["p1"]);
}

#[test]
fn z13_a_refused_confirm_reverses() {
    let mut run = paid_order();
    run.refuse("confirm/0");
    assert_eq!(run.sent(), Vec::<String>::new());
    run.done("confirm/1").done("book");
    assert_eq!((run.sent(), run.status()), (vec!["do refund#0".to_owned()], "refund"));
    run.done("refund");
    assert_eq!(run.sent(), ["undo -confirm/1#0"]);
    run.done("-confirm/1");
    assert_eq!(run.sent(), ["undo -open#0"]);
    run.done("-open");
    assert_eq!(run.sent(), ["undo -hold/0#0", "undo -hold/1#0", "undo -coupon#0"]);
    run.done("-coupon").done("-hold/1").done("-hold/0");
    assert_eq!((run.saga.control.outcome(), run.status()), (Some(Outcome::Reversed), "refunded"));
}

#[test]
fn a_step_exhausted_while_settling_is_undone() {
    let mut run = paid_order();
    run.done("book").done("confirm/0").refuse("confirm/1");
    run = paid_order();
    run.done("confirm/0").done("book").cancel("user", "owner");
    while run.status() != "refund" {
        assert!(run.tick());
    }
    run.done("refund");
    assert_eq!(run.sent(), ["undo -confirm/0#0", "undo -confirm/1#0"]);
}

#[test]
fn exhausted_after_the_pivot_parks_and_wakes() {
    let mut run = paid_order();
    run.done("confirm/0").done("confirm/1");
    while !run.is_parked() {
        assert!(run.tick());
    }
    assert!(!run.tick());
    run.operate(Operation::Wake { step: "hold".into() });
    assert_eq!(run.last.denied, Some(Denied::NotParked));
    run.operate(Operation::Wake { step: "book".into() });
    assert_eq!((run.sent(), run.is_parked()), (vec!["do book#0".to_owned()], false));
}

#[test]
fn a_refused_refund_parks_shows_it_and_is_retried_in_a_new_round() {
    let mut run = paid_order();
    run.cancel("user", "owner").done("confirm/0").done("confirm/1").done("book").refuse("refund");
    assert_eq!((run.is_parked(), run.status()), (true, "refund_failed"));
    run.operate(Operation::Retry);
    assert_eq!((run.sent(), run.status()), (vec!["do refund#1".to_owned()], "refund"));
    run.refuse("refund");
    assert!(!run.is_parked(), "an old round's answer is inert");
    run.done("refund#1");
    assert_eq!(run.sent(), ["undo -confirm/0#0", "undo -confirm/1#0"]);
}

#[test]
fn a_refused_undo_parks_and_goes_on_in_a_new_round() {
    let mut run = Run::start(Toy::bench());
    run.done("reserve").cancel("user", "owner").done("-lock").refuse("-reserve");
    assert!(run.is_parked());
    run.operate(Operation::Retry);
    assert_eq!(run.sent(), ["undo -reserve#1"]);
    run.done("-reserve#1");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Cancelled));
}

#[test]
fn z13_a_contradiction_parks_and_counts_as_done() {
    let mut run = paid_order();
    run.refuse("coupon");
    assert!(run.is_parked());
    run.done("confirm/0").done("confirm/1").done("book");
    assert_eq!(run.sent(), Vec::<String>::new());
    run.operate(Operation::Retry).refuse("coupon");
    assert!(!run.is_parked());
    run.done("tell");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Completed));
    run.refuse("hold/0");
    assert!(matches!(run.last.effects[0], crate::effect::Effect::Discrepancy { .. }));
}

#[test]
fn cancel_knows_roles_pivot_and_end() {
    let mut run = Run::start(Toy::order(1));
    run.cancel("user", "risk");
    assert!(matches!(run.last.denied, Some(Denied::WrongRole { .. })));
    let mut run = paid_order();
    run.cancel("early", "owner");
    assert_eq!(run.last.denied, Some(Denied::AfterPivot));
    run.done("confirm/0").done("confirm/1").done("book").done("tell").cancel("user", "owner");
    assert_eq!(run.last.denied, Some(Denied::Ended("completed")));
}

#[test]
fn a_skipped_pivot_counts_as_passed() {
    let mut toy = Toy::order(1);
    toy.skipped.push(1);
    let mut run = Run::start(toy);
    run.paid("p0", 7).done("hold/0").done("coupon");
    assert_eq!((run.sent(), run.linked()), (vec!["do confirm/0#0".to_owned(), "do book#0".into()], vec!["p0".into()]));
    run.cancel("user", "owner").done("confirm/0").done("book");
    assert_eq!(run.sent(), ["undo -confirm/0#0"], "no refund: nothing was opened");
}

#[test]
fn force_completed_ends_at_once_and_names_what_is_missing() {
    let mut run = paid_order();
    run.done("book").operate(Operation::Force { end: ForcedEnd::Completed });
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Forced));
    let discrepancies = run.last.effects.iter().filter(|e| matches!(e, crate::effect::Effect::Discrepancy { .. }));
    assert_eq!(discrepancies.count(), 3, "two confirms and the stage never begun");
    assert_eq!(run.saga.due_ms(&run.toy.plan), None);
}

#[test]
fn force_cancelled_refunds_undoes_and_lets_go_of_the_silent() {
    let mut run = paid_order();
    run.done("confirm/0").done("confirm/1").operate(Operation::Force { end: ForcedEnd::Cancelled });
    while run.saga.control.outcome().is_none() {
        assert!(run.tick());
    }
    assert_eq!((run.saga.control.outcome(), run.status()), (Some(Outcome::Forced), "forced"));
    let discrepancies = run.effects.iter().filter(|e| matches!(e, crate::effect::Effect::Discrepancy { .. }));
    assert_eq!(discrepancies.count(), 7, "the refund, two confirms, open, coupon and two holds");
}

#[test]
fn a_failed_expression_parks_and_is_tried_again() {
    let mut toy = Toy::order(1);
    toy.broken.push(2);
    let mut run = Run::start(toy);
    run.done("hold/0").done("coupon");
    assert!(run.is_parked());
    run.operate(Operation::Retry);
    assert!(run.is_parked());
    run.toy.broken.clear();
    run.operate(Operation::Retry);
    assert_eq!(run.sent(), ["do open#0"]);
    run.paid("broken", 6).cancel("user", "owner");
    assert_eq!(run.sent(), ["undo -open#0"]);
}

#[test]
fn a_wait_that_parks_is_woken_or_paid() {
    let toy = || Toy::empty().stage("pay").step("open").wait(AtDeadline::Park, false).mismatch(Mismatch::Park);
    let mut run = Run::start(toy());
    run.done("open").paid("wrong", 6);
    assert!(run.is_parked() && !run.tick());
    run.operate(Operation::Retry);
    assert_eq!((run.is_parked(), run.linked()), (false, vec!["wrong".to_owned()]));
    run.tick();
    assert!(run.is_parked());
    run.paid("p1", 7);
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Completed));
}

#[test]
fn the_deadline_of_a_parked_saga_fires_when_it_wakes() {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").done("coupon").done("open").refuse("coupon");
    assert!(run.is_parked() && !run.tick());
    run.now_ms += 5_000;
    run.operate(Operation::Retry);
    run.tick();
    assert_eq!(run.sent(), ["do ask.pay#0"]);
}

#[test]
fn a_skipped_refusal_goes_on() {
    let toy =
        Toy::empty().stage("a").step("x").refused(Refused::Skip).stage("b").step("y").stage("c").step("z").of("x");
    let mut run = Run::start(toy);
    run.refuse("x").done("y");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Completed), "nothing to do `of` what was refused");
}

#[test]
fn z10_a_dead_letter_parks_until_a_person_acts() {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").bury();
    assert!(run.is_parked());
    assert_eq!(run.alerts(), ["toy n1 is parked because input poison went to the dead letters: unfit"]);
    run.bury();
    assert_eq!(run.alerts(), ["input poison went to the dead letters: unfit"], "told again, as a fact of its own");

    // What comes is heard, what is silent is asked; nothing new is begun.
    run.done("coupon");
    assert!(run.is_parked() && run.sent().is_empty());
    run.operate(Operation::Retry);
    assert_eq!((run.is_parked(), run.sent()), (false, vec!["do open#0".to_owned()]));
}

#[test]
fn z10_a_dead_letter_waits_out_a_deadline_and_gives_way_to_compensation() {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").done("coupon").done("open").bury();
    assert!(run.is_parked() && !run.tick(), "no deadline fires while nobody knows what the letter said");
    run.operate(Operation::Compensate);
    assert_eq!((run.is_parked(), run.sent()), (false, vec!["undo -open#0".to_owned()]));
    run.bury().done("-open");
    assert!(run.is_parked() && run.sent().is_empty());
    run.operate(Operation::Retry);
    assert_eq!(run.sent().len(), 2, "the undos of the stage before");
}

#[test]
fn z10_a_dead_letter_after_the_end_is_a_discrepancy() {
    let mut run = paid_order();
    run.done("confirm/0").done("confirm/1").done("book").done("tell");
    let ended = run.saga.clone();
    run.bury();
    let booked = |effect: &Effect| matches!(effect, Effect::Discrepancy { kind: DiscrepancyKind::DeadLetter, .. });
    assert!(run.saga == ended && run.last.effects.iter().any(booked));

    let mut run = Run::start(Toy::order(1));
    run.operate(Operation::Force { end: ForcedEnd::Cancelled }).bury();
    assert!(!run.is_parked() && run.last.effects.iter().any(booked), "nothing parks under force");
}
