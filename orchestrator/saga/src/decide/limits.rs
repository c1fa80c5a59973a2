//! How far things go: ladders, rounds, numbers of runs, sizes; and what linked sagas get to know.

use super::{Arrival, Denied, Setting, decide};
use crate::control::{Contradiction, Control, ControlEvent, ControlInput, Reaction, Rejection, apply, react};
use crate::effect::{self, DiscrepancyKind, Effect};
use crate::plan::{MAX_RUNS, Refused};
use crate::toy::{PARTITIONS, Run, Toy};
use endstate_events::{Direction, Input, InputBody, Json, Lane, Operation, Reply, Verdict};
use std::collections::BTreeSet;

#[test]
fn every_step_of_the_ladder_comes_at_its_time() {
    let mut run = Run::start(Toy::bench());
    let mut times = vec![];
    while run.saga.reason.is_none() {
        assert!(run.tick());
        times.push(run.now_ms - 1_000);
    }
    assert_eq!(times, [10, 16, 23, 28], "asked, sent again twice, given up");
    times.clear();
    for _ in 0..6 {
        assert!(run.tick());
        times.push(run.now_ms - 1_028);
    }
    assert_eq!(times, [10, 16, 23, 28, 35, 42], "the undo goes on at its last interval");
}

#[test]
fn a_wait_asks_at_its_times() {
    let mut run = Run::start(Toy::order(1));
    run.done("hold/0").done("coupon").done("open");
    let mut times = vec![];
    while run.saga.reason.is_none() {
        assert!(run.tick());
        times.push(run.now_ms - 1_000);
    }
    assert_eq!(times, [1_000, 1_006, 1_013, 1_018], "the deadline, asked again twice, given up");
}

#[test]
fn what_was_retried_255_times_is_not_retried_again() {
    let plan = Toy::empty().stage("a").step("x").refused(Refused::Park).plan;
    let entered = [ControlEvent::StageEntered { stage: 0, counts: vec![(0, 1)] }];
    let refused = |direction: Direction| {
        let more = match direction {
            Direction::Do => vec![ControlEvent::RunRefused { run: 0 }],
            Direction::Undo => vec![
                ControlEvent::TurnedBack { reversal: false },
                ControlEvent::UndosSent { runs: vec![0] },
                ControlEvent::UndoRefused { run: 0 },
            ],
        };
        entered.iter().chain(&more).fold(Control::default(), apply)
    };
    for direction in [Direction::Do, Direction::Undo] {
        let mut control = refused(direction);
        for round in [254, 255] {
            (control.runs_mut()[0].round, control.runs_mut()[0].undo_round) = (round, round);
            let reaction = react(&plan, &control, ControlInput::Retry);
            let expected = if round == u8::MAX {
                Reaction::Rejected(Rejection::RoundsUsedUp)
            } else {
                Reaction::Events(vec![ControlEvent::RunRetried { run: 0, direction }])
            };
            assert_eq!(reaction, expected, "{direction:?} {round}");
        }
    }
}

#[test]
fn as_many_runs_as_a_saga_may_have_and_not_one_more() {
    let most = u8::try_from(MAX_RUNS).unwrap();
    let toy = Toy::empty().stage("a").step("x").each(most - 1).stage("b").step("y").stage("c").step("z");
    let mut run = Run::start(toy);
    (0..most - 1).for_each(|item| {
        run.done(&format!("x/{item}"));
    });
    assert_eq!(run.sent(), ["do y#0"]);
    run.done("y");
    assert!(run.is_parked() && run.sent().is_empty());
    assert_eq!(run.alerts(), ["toy n1 is parked because steps.z.each failed: more than 160 runs in one saga"]);
}

#[test]
fn what_nobody_knows_and_nobody_may_is_turned_down() {
    let run = Run::start(Toy::bench());
    let reply = Reply { effect_id: run.effect_id("reserve", "", Direction::Do, 0), verdict: Verdict::NeverSeen };
    let input = Input { saga: run.saga.id, body: InputBody::Reply(reply) };
    let arrival = Arrival { id: "r", time_ms: 1_000, lane: Lane::Live, input: &input };
    let decision = decide(&run.toy, None, arrival, Setting { now_ms: 1_000, partitions: PARTITIONS });
    assert_eq!((decision.denied, decision.saga), (Some(Denied::NoSaga), None));

    let mut run = Run::start(Toy::order(1));
    run.cancel("unpaid", "deadline");
    assert!(matches!(run.last.denied, Some(Denied::WrongRole { .. })), "nobody acts as the deadline");
    run.done("hold/0").done("coupon").done("open");
    let version = run.saga.version;
    run.operate(Operation::Retry);
    assert_eq!((&run.last.denied, run.saga.version), (&Some(Denied::NotParked), version), "it waits for a payment");
}

#[test]
fn z12_every_cause_has_a_linked_saga_of_its_own() {
    let run = Run::start(Toy::bench());
    let id = |cause: u32| effect::linked_id(&run.saga, &format!("payment {cause}"));
    assert_eq!((0..1_000).map(id).collect::<BTreeSet<_>>().len(), 1_000);
    assert_eq!(id(7), id(7));
}

#[test]
fn a_late_payment_shows_its_refund_what_was_done() {
    let mut run = Run::start(Toy::order(2));
    run.done("hold/0").done("hold/1").done("coupon").done("open").paid("p1", 7).paid("p2", 7);
    let snapshot =
        |effect: &Effect| if let Effect::Start(start) = effect { Some(start.link.snapshot.clone()) } else { None };
    let seen = run.last.effects.iter().find_map(snapshot).expect("a refund");
    assert_eq!(seen["steps"]["hold"], serde_json::json!([{ "of": "hold/0" }, { "of": "hold/1" }]));
    assert_eq!((&seen["steps"]["coupon"]["of"], &seen["steps"]["book"]), (&"coupon".into(), &Json::Null));
    assert_eq!(seen["waits"], serde_json::json!({ "pay": { "no": "p1", "amount": 7 } }));
}

#[test]
fn z13_the_answer_that_says_done_is_kept_whichever_comes_first() {
    for refused_first in [true, false] {
        let mut run = Run::start(Toy::empty().stage("a").step("x").refused(Refused::Skip).stage("b").step("y"));
        if refused_first {
            run.refuse("x").done("x")
        } else {
            run.done("x").refuse("x")
        };
        assert!(run.is_parked());
        assert_eq!(run.saga.data.runs[0].reply["of"], "x", "refused first: {refused_first}");
        run.operate(Operation::Compensate);
        assert_eq!((run.is_parked(), run.sent()), (false, vec!["undo -y#0".to_owned()]));
        assert_eq!(run.saga.control.runs()[0].contradiction, Contradiction::Accepted);
        run.done("-y");
        assert_eq!(run.sent(), ["undo -x#0"], "what may have been done is given back");
    }
}

#[test]
fn under_force_a_contradiction_is_a_discrepancy_and_holds_nobody_up() {
    let mut run = Run::start(Toy::bench());
    let end = endstate_events::ForcedEnd::Cancelled;
    run.done("reserve").operate(Operation::Force { end }).refuse("reserve");
    let told = |effect: &Effect| matches!(effect, Effect::Discrepancy { kind: DiscrepancyKind::Contradiction, .. });
    assert!(!run.is_parked() && run.last.effects.iter().any(told), "{:?}", run.last.effects);
    run.done("-lock").done("-reserve");
    assert!(run.saga.control.is_ended());
}
