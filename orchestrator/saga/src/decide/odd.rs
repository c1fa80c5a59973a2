//! What comes at an odd moment, and what is told to those who ask.

use crate::control::{Outcome, WaitState};
use crate::effect::Effect;
use crate::plan::{AtDeadline, Mismatch, Refused};
use crate::toy::{Run, Toy};
use endstate_events::{
    Direction, EffectId, ForcedEnd, InputBody, Json, Link, Operation, ReplyTo, SagaId, Slot, Topic, Verdict,
};
use serde_json::json;

/// What the self-check of a participant hears about a command.
fn keeps(run: &mut Run, step: &str) -> bool {
    let effect_id = run.effect_id(step, "", Direction::Do, 0);
    let reply_to = ReplyTo { topic: Topic::Commands, partition: 0 };
    run.input("asked", InputBody::Inquire { effect_id, reply_to });
    let told = |effect: &Effect| if let Effect::Answer { answer, .. } = effect { Some(answer.keep) } else { None };
    run.last.effects.iter().find_map(told).expect("it is answered")
}

#[test]
fn a_hold_is_kept_as_long_as_somebody_may_want_it() {
    let mut run = Run::start(Toy::bench());
    assert!(keeps(&mut run, "reserve"), "under way");
    assert!(!keeps(&mut run, "lock"), "never sent");
    run.done("reserve").refuse("lock");
    assert!(keeps(&mut run, "reserve"), "it is being given back");
    assert!(!keeps(&mut run, "lock"), "refused");
    run.done("-reserve");
    assert!(!keeps(&mut run, "reserve"), "given back");

    let mut run = Run::start(Toy::bench());
    run.done("reserve").operate(Operation::Force { end: ForcedEnd::Completed });
    assert!(keeps(&mut run, "reserve"), "done when the end was forced");
    assert!(!keeps(&mut run, "lock"), "nobody waits for it any more");
}

#[test]
fn a_called_saga_tells_its_caller_how_it_ended() {
    let effect_id = EffectId {
        saga: SagaId::mint(1, Slot::of("caller"), 1),
        step: "sub".into(),
        item: String::new(),
        direction: Direction::Do,
        round: 0,
    };
    let to = ReplyTo { topic: Topic::Progress, partition: 3 };
    let link = Link { order: effect_id.saga, snapshot: Json::Null, caller: Some((effect_id.clone(), to)) };
    let told = |run: &Run| {
        let replies = run.last.effects.iter().filter_map(|effect| match effect {
            Effect::Reply { to: there, reply } => Some((*there == to, reply.clone())),
            Effect::Send(_)
            | Effect::Start(_)
            | Effect::Publish(_)
            | Effect::Answer { .. }
            | Effect::Alert { .. }
            | Effect::Discrepancy { .. } => None,
        });
        replies.collect::<Vec<_>>()
    };
    let mut run = Run::linked_to(Toy::bench(), Some(link.clone()));
    run.done("reserve").done("lock").done("deduct");
    assert!(told(&run).is_empty());
    run.done("confirm");
    let [(there, reply)] = told(&run).try_into().expect("one reply");
    assert!(there, "{reply:?}");
    assert!(reply.effect_id == effect_id && matches!(reply.verdict, Verdict::Done { .. }), "{reply:?}");

    let mut run = Run::linked_to(Toy::bench(), Some(link));
    run.refuse("reserve");
    let [(there, reply)] = told(&run).try_into().expect("one reply");
    assert!(there, "{reply:?}");
    assert!(matches!(reply.verdict, Verdict::Refused { ref code, .. } if code == "saga.cancelled"), "{reply:?}");
}

#[test]
fn an_undo_has_a_ladder_of_its_own() {
    let mut run = Run::start(Toy::bench());
    run.tick();
    run.tick();
    assert_eq!(run.sent(), ["do reserve#0"], "its command was asked about and sent again");
    run.cancel("user", "owner").tick();
    assert_eq!(run.sent(), ["ask -reserve#0"]);
}

#[test]
fn an_operator_hurries_what_is_silent() {
    let mut run = Run::start(Toy::bench());
    run.operate(Operation::Retry);
    assert_eq!((run.sent(), run.last.denied.is_none()), (vec!["do reserve#0".to_owned()], true));
}

#[test]
fn an_answered_ask_of_another_round_says_nothing() {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").done("coupon").done("open").tick();
    let version = run.saga.version;
    run.done("ask.pay#1");
    assert_eq!((run.saga.version, run.saga.reason.is_none()), (version, true));
}

#[test]
fn a_parked_wait_does_not_end_by_an_answer() {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").done("coupon").done("open").tick();
    run.bury().done("ask.pay");
    assert!(run.is_parked() && run.saga.reason.is_none(), "nobody knows yet what the letter said");
}

#[test]
fn what_was_kept_is_forgotten_once_it_is_late() {
    let mut run = Run::start(Toy::order(1));
    run.paid("wrong", 6).paid("p1", 7).paid("p2", 7).done("hold/0").done("coupon").done("open");
    assert!(run.saga.data.kept.is_empty(), "{:?}", run.saga.data.kept);
}

#[test]
fn under_force_a_mismatch_is_late_and_parks_nobody() {
    let toy = || {
        let toy = Toy::empty().stage("a").step("x").pivot().stage("b").step("y").refused(Refused::Reverse);
        toy.reversal("back").step("r").refused(Refused::Park).wait(AtDeadline::Next, false).mismatch(Mismatch::Park)
    };
    let mut run = Run::start(toy());
    run.done("x").cancel("user", "owner").done("y").done("r").paid("wrong", 6);
    assert!(run.is_parked() && run.linked().is_empty(), "somebody looks");
    let mut run = Run::start(toy());
    run.done("x").operate(Operation::Force { end: ForcedEnd::Cancelled }).done("y").done("r").paid("wrong", 6);
    assert_eq!((run.is_parked(), run.linked()), (false, vec!["wrong".to_owned()]));
    while run.saga.control.outcome().is_none() {
        assert!(run.tick());
    }
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Forced));
}

#[test]
fn only_the_latest_round_of_a_step_holds_what_is_held() {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").done("coupon").done("open").paid("p1", 7).refuse("book").operate(Operation::Retry);
    let kept = |run: &mut Run, direction, round| {
        let effect_id = run.effect_id("book", "", direction, round);
        let reply_to = ReplyTo { topic: Topic::Commands, partition: 0 };
        run.input("asked", InputBody::Inquire { effect_id, reply_to });
        run.last.effects.iter().any(|effect| matches!(effect, Effect::Answer { answer, .. } if answer.keep))
    };
    assert!(kept(&mut run, Direction::Do, 1), "it is under way again");
    assert!(!kept(&mut run, Direction::Do, 0), "refused, under this round's id for ever");
    assert!(!kept(&mut run, Direction::Undo, 1), "nothing is held by an undo");
}

#[test]
fn an_answer_to_an_undo_of_an_old_round_settles_nothing() {
    let mut run = Run::start(Toy::bench());
    run.done("reserve").refuse("lock").refuse("-reserve");
    assert!(run.is_parked());
    run.operate(Operation::Retry);
    assert_eq!(run.sent(), ["undo -reserve#1"]);
    run.done("-reserve");
    assert_eq!(run.saga.control.outcome(), None, "that round was refused");
    run.done("-reserve#1");
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Cancelled));
}

#[test]
fn a_contradiction_that_a_person_has_looked_at_counts_as_done() {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").done("coupon").done("open").paid("p1", 7).done("confirm/0").refuse("book").done("book");
    assert!(run.is_parked());
    run.operate(Operation::Retry);
    assert_eq!((run.is_parked(), run.sent()), (false, vec!["do tell#0".to_owned()]));
}

#[test]
fn a_step_about_another_that_never_ran_does_not_run() {
    let mut toy = Toy::order(1);
    toy.items[toy.plan.step("hold").unwrap()] = 0;
    let mut run = Run::start(toy);
    run.done("coupon").done("open").paid("p1", 7);
    assert_eq!(run.sent(), ["do book#0"], "nothing was held that could be confirmed");
    assert_eq!(run.saga.control.runs().len(), run.saga.data.runs.len());
}

#[test]
fn a_step_about_another_needs_nothing_else_to_have_run() {
    let mut run = Run::start(Toy::empty().stage("a").step("hold").stage("b").step("confirm").of("hold"));
    assert_eq!(run.done("hold").sent(), ["do confirm#0"]);
}

#[test]
fn a_wait_without_a_condition_takes_what_comes() {
    let mut toy = Toy::order(1);
    toy.plan.stages[1].wait.as_mut().unwrap().conditional = false;
    let mut run = Run::start(toy);
    run.done("hold/0").done("coupon").done("open").paid("p1", 6);
    assert_eq!(run.sent(), ["do confirm/0#0", "do book#0"]);
}

/// A saga that is being forced back, whose reversal waits for an event.
fn forced_back() -> Run {
    let toy = Toy::empty().stage("a").step("x").pivot().stage("b").step("y").refused(Refused::Reverse);
    let toy = toy.reversal("back").step("r").refused(Refused::Park).wait(AtDeadline::Next, false);
    let mut run = Run::start(toy);
    run.done("x").operate(Operation::Force { end: ForcedEnd::Cancelled }).done("y");
    run
}

/// An event of which nobody can say whether it matches.
fn odd(run: &mut Run) {
    run.input("odd", InputBody::Event { name: "paid".into(), data: json!({ "no": "odd" }) });
}

#[test]
fn under_force_an_event_that_cannot_be_read_is_late() {
    let mut run = forced_back();
    run.done("r");
    odd(&mut run);
    assert_eq!((run.is_parked(), run.linked()), (false, vec!["odd".to_owned()]));
}

#[test]
fn under_force_a_wait_that_cannot_be_opened_is_passed_and_told() {
    let mut run = forced_back();
    odd(&mut run);
    assert!(run.linked().is_empty(), "kept for the wait");
    run.done("r");
    let told = run.last.effects.iter().filter(|effect| matches!(effect, Effect::Discrepancy { .. }));
    assert_eq!((told.count(), run.is_parked()), (1, false));
    assert_eq!(run.saga.control.wait(2), WaitState::Passed);
    while run.saga.control.outcome().is_none() {
        assert!(run.tick());
    }
    assert_eq!(run.saga.control.outcome(), Some(Outcome::Forced));
}
