//! Random histories over hand-built definitions: the invariants hold at every event, a saga can always be brought to
//! an end, and replay equals the live row (which [`crate::toy`] checks after every input).

use crate::control::{Control, Outcome};
use crate::event::{Event, Fact};
use crate::invariant;
use crate::plan::{AtDeadline, Mismatch, Pivot, Refused};
use crate::toy::{Run, Toy};
use endstate_events::{CommandKind, EffectId, ForcedEnd, InputBody, Operation, Reply, Verdict};
use proptest::prelude::*;
use serde_json::json;

/// One thing that the world does.
#[derive(Clone, Debug)]
enum Act {
    /// Answers one of the commands ever sent, again perhaps.
    Answer(prop::sample::Index, Verdict),
    /// Lets time pass.
    Tick,
    /// A payment with this number and amount.
    Pay(u8, u64),
    Cancel(&'static str, &'static str),
    Operate(Operation),
    /// An input goes to the dead letters.
    Bury,
    /// Its events are put together.
    Snapshot,
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        8 => Just(Verdict::Done { data: json!({ "ok": true }) }),
        2 => Just(Verdict::Refused { code: "toys.no".into(), detail: String::new() }),
        1 => Just(Verdict::unknown("")),
        1 => Just(Verdict::NeverSeen),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => Just(Operation::Retry),
        1 => Just(Operation::Compensate),
        1 => Just(Operation::Wake { step: "hold".into() }),
        1 => Just(Operation::Force { end: ForcedEnd::Completed }),
        1 => Just(Operation::Force { end: ForcedEnd::Cancelled }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        16 => (any::<prop::sample::Index>(), verdict()).prop_map(|(which, verdict)| Act::Answer(which, verdict)),
        6 => Just(Act::Tick),
        3 => (0..3u8, prop_oneof![4 => Just(7u64), 1 => Just(6)]).prop_map(|(no, amount)| Act::Pay(no, amount)),
        1 => prop_oneof![Just(("user", "owner")), Just(("early", "owner"))].prop_map(|(r, role)| Act::Cancel(r, role)),
        1 => operation().prop_map(Act::Operate),
        1 => Just(Act::Bury),
        2 => Just(Act::Snapshot),
    ]
}

fn toy() -> impl Strategy<Value = Toy> {
    let shapes = prop_oneof![
        Just(Toy::bench()),
        (0..3u8).prop_map(Toy::order),
        Just(parking()),
        Just(Toy { plan: crate::plan::Plan { pivot: Pivot::Start, ..Toy::bench().plan }, ..Toy::bench() }),
    ];
    (shapes, prop::collection::vec(0..5usize, 0..2)).prop_map(|(toy, skipped)| Toy { skipped, ..toy })
}

/// Everything that parks, skips or waits.
fn parking() -> Toy {
    Toy::empty()
        .stage("hold")
        .step("hold")
        .each(2)
        .refused(Refused::Park)
        .step("maybe")
        .refused(Refused::Skip)
        .stage("approve")
        .wait(AtDeadline::Park, true)
        .mismatch(Mismatch::Park)
        .pivot()
        .stage("use")
        .step("use")
        .of("hold")
        .refused(Refused::Reverse)
        .step("also")
        .of("maybe")
        .with(|step| step.best_effort = true)
        .stage("pause")
        .wait(AtDeadline::Reverse, false)
        .reversal("refund")
        .step("refund")
        .with(|step| step.undo = None)
        .refused(Refused::Skip)
        .wait(AtDeadline::Next, false)
}

/// Commands sent so far.
fn commands(run: &Run) -> Vec<EffectId> {
    let mut ids: Vec<EffectId> = vec![];
    for effect in &run.effects {
        if let crate::effect::Effect::Send(command) = effect
            && command.kind != CommandKind::Ask
        {
            ids.push(command.effect_id.clone());
        }
    }
    ids
}

fn perform(run: &mut Run, act: &Act, position: usize) {
    match act {
        Act::Answer(which, verdict) => {
            let sent = commands(run);
            if !sent.is_empty() {
                let reply = Reply { effect_id: which.get(&sent).clone(), verdict: verdict.clone() };
                run.input(&format!("r{position}"), InputBody::Reply(reply));
            }
        }
        Act::Tick => {
            run.tick();
        }
        Act::Pay(no, amount) => {
            run.paid(&format!("p{no}-{amount}"), *amount);
        }
        Act::Cancel(reason, role) => {
            run.cancel(reason, role);
        }
        Act::Operate(operation) => {
            run.operate(operation.clone());
        }
        Act::Bury => {
            run.bury();
        }
        Act::Snapshot => {
            run.snapshot();
        }
    }
}

/// Every event of the history against the invariants.
fn check(run: &Run) {
    let plan = &run.toy.plan;
    let mut before = Control::default();
    for event in &run.events {
        let Some(fact) = event.fact.control() else { continue };
        let after = crate::control::apply(before, &fact);
        if let Some(broken) = invariant::broken_by(plan, &before, &fact, &after) {
            panic!("{}: {} broken by {fact:?} on {before:#?}", broken.id, broken.says);
        }
        before = after;
    }
}

fn check_rest(run: &Run) {
    if let Some(broken) = invariant::broken_at_rest(&run.toy.plan, &run.saga.control) {
        panic!("{}: {} broken at {:#?}", broken.id, broken.says, run.saga.control);
    }
}

/// Everybody answers done, operators wake what is parked: an end must come.
fn bring_to_an_end(run: &mut Run) {
    for round in 0.. {
        assert!(round < 500, "no end: {:#?}", run.saga.control);
        if run.saga.control.is_ended() {
            return;
        }
        if run.is_parked() {
            run.operate(Operation::Retry);
        }
        if round == 20 {
            // A wait whose deadline parks it ends only by its event.
            run.paid("end", 7);
        }
        let sent = commands(run);
        for effect_id in sent {
            run.reply(effect_id, Verdict::Done { data: json!({}) });
            check_rest(run);
        }
        run.tick();
        check_rest(run);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_invariants_and_can_end(toy in toy(), acts in prop::collection::vec(act(), 0..60)) {
        let mut run = Run::start(toy);
        check_rest(&run);
        for (position, act) in acts.iter().enumerate() {
            let ended = run.saga.control.is_ended().then(|| run.saga.clone());
            perform(&mut run, act, position);
            check_rest(&run);
            if let Some(ended) = ended {
                prop_assert_eq!(&ended, &run.saga);
            }
        }
        bring_to_an_end(&mut run);
        check(&run);
    }

    /// Whatever happened before and after: since any snapshot, replay gives the live row, and every event before it may
    /// be gone.
    #[test]
    fn replay_from_any_snapshot_gives_the_live_row(toy in toy(), acts in prop::collection::vec(act(), 0..60)) {
        let mut run = Run::start(toy);
        for (position, act) in acts.iter().enumerate() {
            perform(&mut run, act, position);
        }
        let is_snapshot = |event: &&Event| matches!(event.fact, Fact::Snapshot(_));
        for (index, event) in run.events.iter().enumerate().filter(|(_, event)| is_snapshot(event)) {
            let Fact::Snapshot(before) = &event.fact else { continue };
            prop_assert_eq!(&crate::fold::replay(&run.events[..index]).unwrap(), &**before);
            prop_assert_eq!(&crate::fold::replay(&run.events[index..]).unwrap(), &run.saga);
            // A day in the middle has gone, one before it has not.
            let kept = run.events[..index / 3].iter().chain(&run.events[index * 2 / 3..]);
            prop_assert_eq!(&crate::fold::replay(kept).unwrap(), &run.saga);
        }
    }

    /// Every payment is taken by the wait or starts a linked saga, once the saga has ended.
    #[test]
    fn z12_no_payment_is_lost(items in 0..3u8, acts in prop::collection::vec(act(), 0..60)) {
        let mut run = Run::start(Toy::order(items));
        for (position, act) in acts.iter().enumerate() {
            perform(&mut run, act, position);
        }
        bring_to_an_end(&mut run);
        run.paid("last", 7);
        let mut paid: Vec<String> = acts.iter().filter_map(|act| match act {
            Act::Pay(no, amount) => Some(format!("p{no}-{amount}")),
            Act::Answer(..) | Act::Tick | Act::Cancel(..) | Act::Operate(_) | Act::Bury | Act::Snapshot => None,
        }).collect();
        paid.push("last".into());
        paid.sort();
        paid.dedup();
        let mut found = run.linked();
        found.extend(run.events.iter().filter_map(|event| match &event.fact {
            Fact::EventTaken { id, .. } => Some(id.to_string()),
            _ => None,
        }));
        found.sort();
        found.dedup();
        prop_assert_eq!(paid, found);
        let outcome = run.saga.control.outcome();
        let taken = !run.saga.data.waits[1].is_null();
        prop_assert!(outcome != Some(Outcome::Completed) || taken);
        prop_assert!(outcome != Some(Outcome::Cancelled) || !taken);
    }
}
