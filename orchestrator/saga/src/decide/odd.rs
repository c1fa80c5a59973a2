//! What comes at an odd moment, and what is told to those who ask.

use crate::control::Outcome;
use crate::effect::Effect;
use crate::plan::{AtDeadline, Mismatch, Refused};
use crate::toy::{Run, Toy};
use endstate_events::{
    Direction, EffectId, ForcedEnd, InputBody, Json, Link, Operation, ReplyTo, SagaId, Slot, Topic, Verdict,
};

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
