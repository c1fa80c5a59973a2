//! Broken rules, each of which the check must find: the test of the checker.

use super::follow::Fixed;
use super::participant::{self, Effect, Meeting};
use super::plans::{bare_order, flash_sale, order};
use super::rules::Rules;
use super::{Options, Participants, Property, Rounds, Sample, check_rules};
use crate::control::{
    self, Answer, Control, ControlEvent, ControlInput, Course, Forward, Ignored, Outcome, Reaction, Rejection, Run,
    Undo, WaitState,
};
use crate::plan::{EvalError, Plan};
use endstate_events::Direction;

type React = fn(&Plan, &Control, ControlInput) -> Option<Reaction>;
type Happen = fn(&Plan, &Control, &ControlEvent) -> Option<Vec<ControlEvent>>;

/// Production's rules but for what is broken; none leaves a rule as it is.
struct Mutant {
    react: React,
    happen: Happen,
    apply: fn(&mut Control, &ControlEvent),
    round_undone: fn(&Run) -> u8,
    meet: fn(Effect, Direction) -> Vec<Meeting>,
}

const SOUND: Mutant = Mutant {
    react: |_, _, _| None,
    happen: |_, _, _| None,
    apply: control::apply_to,
    round_undone: |run| run.round,
    meet: participant::meet,
};

impl Mutant {
    fn add(&self, plan: &Plan, control: &mut Control, event: ControlEvent, all: &mut Vec<ControlEvent>) {
        for event in (self.happen)(plan, control, &event).unwrap_or_else(|| vec![event]) {
            (self.apply)(control, &event);
            all.push(event);
        }
    }
}

impl Rules for Mutant {
    fn step(
        &self,
        plan: &Plan,
        control: &Control,
        input: ControlInput,
        conditions: &Fixed<'_>,
    ) -> Result<(Reaction, Control), EvalError> {
        let events = match self.react(plan, control, input) {
            Reaction::Events(events) => events,
            quiet => return Ok((quiet, *control)),
        };
        let (mut after, mut all) = (*control, Vec::new());
        events.into_iter().for_each(|event| self.add(plan, &mut after, event, &mut all));
        while let Some(event) = control::advance(plan, &after, conditions)? {
            let before = all.len();
            self.add(plan, &mut after, event, &mut all);
            // A broken rule may go round in circles.
            if all.len() == before || all.len() > 64 {
                break;
            }
        }
        Ok((Reaction::Events(all), after))
    }

    fn apply(&self, _: &Plan, control: &mut Control, event: &ControlEvent) {
        (self.apply)(control, event);
    }

    fn react(&self, plan: &Plan, control: &Control, input: ControlInput) -> Reaction {
        (self.react)(plan, control, input).unwrap_or_else(|| control::react(plan, control, input))
    }

    fn round_undone(&self, run: &Run) -> u8 {
        (self.round_undone)(run)
    }

    fn meet(&self, effect: Effect, direction: Direction) -> Vec<Meeting> {
        (self.meet)(effect, direction)
    }
}

fn events(events: impl Into<Vec<ControlEvent>>) -> Option<Reaction> {
    Some(Reaction::Events(events.into()))
}

const KEPT_ROUNDS: Options = Options { rounds: Rounds::Kept { most: 1 }, ..QUICK };
const LIARS: Options = Options { participants: Participants::Contradictory, kept: 0, ..QUICK };
const AHEAD: Options = Options { participants: Participants::Ahead, kept: 0, ..QUICK };
const QUICK: Options = Options {
    limit: 1_000_000,
    kept: 1,
    participants: Participants::Honest,
    rounds: Rounds::Forgotten,
    faults: false,
    dead_letters: true,
    symmetry: true,
};

/// A sample that is explored in no time.
fn small(plan: &Plan, options: &Options) -> Sample {
    match options.participants {
        Participants::Honest | Participants::Ahead => order(plan, 1, 0, 0),
        Participants::Contradictory => bare_order(plan),
    }
}

/// Explores one small sale under broken rules and expects the property to break.
#[track_caller]
fn finds(property: Property, options: &Options, mutant: &Mutant) {
    let plan = flash_sale();
    let sample = small(&plan, options);
    let report = check_rules(&plan, std::slice::from_ref(&sample), options, mutant).unwrap();
    let found = report.violations.iter().find(|violation| violation.property == property);
    let all: Vec<_> = report.violations.iter().map(|violation| violation.property).collect();
    let found = found.unwrap_or_else(|| panic!("{property:?} was not found to be broken, only {all:?}"));
    assert!(!found.trace.moves.is_empty(), "{found}");
}

fn ends_early(outcome: Outcome) -> ControlEvent {
    ControlEvent::Ended { outcome }
}

#[test]
fn rules_as_they_are_break_nothing() {
    let plan = flash_sale();
    for options in [QUICK, KEPT_ROUNDS, LIARS, AHEAD] {
        let sample = small(&plan, &options);
        let report = check_rules(&plan, std::slice::from_ref(&sample), &options, &SOUND).unwrap();
        assert!(report.violations.is_empty(), "{}", report.violations[0]);
    }
}

#[test]
fn no_undo_for_unknown_steps() {
    let happen: Happen = |_, before, event| {
        let ControlEvent::UndosSent { runs } = event else { return None };
        let is_done = |run: &u8| before.runs()[usize::from(*run)].forward == Forward::Done;
        let runs: Vec<u8> = runs.iter().copied().filter(is_done).collect();
        Some(vec![if runs.is_empty() { ends_early(Outcome::Cancelled) } else { ControlEvent::UndosSent { runs } }])
    };
    finds(Property::NothingIsLeft, &QUICK, &Mutant { happen, ..SOUND });
    finds(Property::Invariant("INV-3"), &QUICK, &Mutant { happen, ..SOUND });
}

#[test]
fn a_late_capture_is_kept() {
    let react: React = |plan, control, input| match (input, control.course) {
        (ControlInput::Event { .. }, Course::Compensating | Course::Returning) => {
            let stage = plan.stages.iter().position(|stage| stage.wait.is_some())? as u8;
            events([ControlEvent::EventKept { stage }])
        }
        _ => None,
    };
    finds(Property::KeptAgrees, &QUICK, &Mutant { react, ..SOUND });
}

#[test]
fn a_capture_is_taken_twice() {
    let react: React = |_, control, input| {
        let stage = control.waits().iter().position(|wait| *wait == WaitState::Taken)? as u8;
        match input {
            ControlInput::Event { .. } if !control.is_ended() => events([ControlEvent::EventTaken { stage }]),
            _ => None,
        }
    };
    finds(Property::TakenOnce, &QUICK, &Mutant { react, ..SOUND });
}

#[test]
fn close_hides_a_capture_that_it_found() {
    let react: React = |plan, control, input| {
        let payment = plan.step("open_payment")?;
        let closed = control.runs().iter().any(|run| usize::from(run.step) == payment && run.undo == Undo::Done);
        match input {
            ControlInput::Event { .. } if closed => Some(Reaction::Ignored(Ignored::NotAwaited)),
            _ => None,
        }
    };
    finds(Property::EventHasOneFate, &QUICK, &Mutant { react, ..SOUND });
}

#[test]
fn a_release_before_its_hold_leaves_no_tombstone() {
    let meet = |effect, direction| match (direction, effect) {
        (Direction::Undo, Effect::None) => vec![Meeting { effect, answer: Answer::Done }],
        _ => participant::meet(effect, direction),
    };
    finds(Property::NothingIsLeft, &QUICK, &Mutant { meet, ..SOUND });
}

#[test]
fn force_forgets_open_undos() {
    let react: React = |_, control, input| match input {
        ControlInput::ForceCancelled if !control.is_ended() => events([ends_early(Outcome::Forced)]),
        _ => None,
    };
    finds(Property::ForceLeavesNothingOpen, &QUICK, &Mutant { react, ..SOUND });
}

#[test]
fn a_reply_of_an_old_round_counts() {
    let react: React = |plan, control, input| match input {
        ControlInput::Reply { run, direction: Direction::Do, round, answer } => {
            let now = control.runs().get(usize::from(run))?.round;
            let input = ControlInput::Reply { run, direction: Direction::Do, round: round.max(now), answer };
            Some(control::react(plan, control, input))
        }
        _ => None,
    };
    finds(Property::OldRoundsAreInert, &QUICK, &Mutant { react, ..SOUND });
}

#[test]
fn a_saga_ends_while_undos_are_open() {
    let happen: Happen = |_, _, event| match event {
        ControlEvent::UndosSent { .. } => Some(vec![event.clone(), ends_early(Outcome::Cancelled)]),
        _ => None,
    };
    finds(Property::Invariant("INV-3"), &QUICK, &Mutant { happen, ..SOUND });
    finds(Property::NothingIsLeft, &QUICK, &Mutant { happen, ..SOUND });
}

#[test]
fn an_undo_does_not_name_its_forward_round() {
    finds(Property::NothingIsLeft, &KEPT_ROUNDS, &Mutant { round_undone: |_| 0, ..SOUND });
}

#[test]
fn a_refund_that_was_refused_is_let_go() {
    let happen: Happen = |plan, before, event| match event {
        ControlEvent::RunRefused { run } if before.course == Course::Reversing => {
            let step = &plan.steps[usize::from(before.runs()[usize::from(*run)].step)];
            plan.is_reversal(step.stage).then(|| vec![event.clone(), ControlEvent::RunAbandoned { run: *run }])
        }
        _ => None,
    };
    finds(Property::MoneyGoesBack, &QUICK, &Mutant { happen, ..SOUND });
}

#[test]
fn a_repeated_reply_counts() {
    let react: React = |_, _, input| match input {
        ControlInput::Reply { run, direction: Direction::Do, answer: Answer::Done, .. } => {
            events([ControlEvent::RunDone { run }])
        }
        _ => None,
    };
    finds(Property::RepliesAreInert, &QUICK, &Mutant { react, ..SOUND });
    finds(Property::Invariant("INV-1"), &QUICK, &Mutant { react, ..SOUND });
}

#[test]
fn a_timer_does_nothing() {
    let react: React = |_, _, input| match input {
        ControlInput::Exhausted { .. } => Some(Reaction::Ignored(Ignored::Duplicate)),
        _ => None,
    };
    finds(Property::AwaitedHasTimer, &QUICK, &Mutant { react, ..SOUND });
}

#[test]
fn an_undo_is_never_believed() {
    let react: React = |_, _, input| match input {
        ControlInput::Reply { direction: Direction::Undo, .. } => Some(Reaction::Ignored(Ignored::Overtaken)),
        _ => None,
    };
    finds(Property::ComesToRest, &QUICK, &Mutant { react, ..SOUND });
}

#[test]
fn an_undo_of_a_lost_history_is_ignored() {
    let react: React = |_, control, input| match input {
        ControlInput::Reply { run, direction: Direction::Undo, .. } => {
            let never_sent = control.runs().get(usize::from(run))?.undo == Undo::None;
            never_sent.then_some(Reaction::Ignored(Ignored::NeverSent))
        }
        _ => None,
    };
    finds(Property::UndoneIsHeard, &AHEAD, &Mutant { react, ..SOUND });
}

#[test]
fn an_operator_is_not_heard() {
    let react: React = |_, _, input| match input {
        ControlInput::Retry | ControlInput::Wake { .. } | ControlInput::Compensate => {
            Some(Reaction::Rejected(Rejection::NotParked))
        }
        _ => None,
    };
    finds(Property::CanEnd, &QUICK, &Mutant { react, ..SOUND });
}

/// One broken rule for each of the other invariants.
#[test]
fn each_invariant_has_a_mutant() {
    let happens: [(&'static str, &Options, Happen); 12] = [
        ("INV-2", &QUICK, |_, before, event| match event {
            ControlEvent::StageEntered { .. } if before.course == Course::Forward => {
                Some(vec![ends_early(Outcome::Completed)])
            }
            _ => None,
        }),
        ("INV-4", &QUICK, |_, before, event| match event {
            ControlEvent::UndosSent { .. } => {
                Some(vec![ControlEvent::UndosSent { runs: (0..before.runs().len() as u8).collect() }])
            }
            _ => None,
        }),
        ("INV-5", &QUICK, |plan, before, event| match event {
            ControlEvent::UndosSent { .. } => {
                let runs = before.runs().iter().enumerate().filter(|(_, run)| before.needs_undo(plan, run));
                Some(vec![ControlEvent::UndosSent { runs: runs.map(|(index, _)| index as u8).collect() }])
            }
            _ => None,
        }),
        ("INV-6", &QUICK, |_, _, event| match event {
            ControlEvent::TurnedBack { reversal } => Some(vec![ControlEvent::TurnedBack { reversal: !reversal }]),
            _ => None,
        }),
        ("INV-7", &QUICK, |_, _, event| match event {
            ControlEvent::ReversalBegan { .. } => Some(vec![ControlEvent::ReturnBegan]),
            _ => None,
        }),
        ("INV-9", &QUICK, |_, _, event| match event {
            ControlEvent::EventTaken { stage } => Some(vec![event.clone(), ControlEvent::WaitReset { stage: *stage }]),
            _ => None,
        }),
        ("INV-10", &QUICK, |_, _, event| match event {
            ControlEvent::UndosSent { .. } => Some(vec![]),
            _ => None,
        }),
        ("INV-11", &QUICK, |_, _, event| match event {
            ControlEvent::TurnedBack { .. } => {
                Some(vec![event.clone(), ControlEvent::RunRetried { run: 0, direction: Direction::Do }])
            }
            _ => None,
        }),
        ("INV-12", &QUICK, |_, _, event| match event {
            ControlEvent::UndoAbandoned { .. } => Some(vec![ControlEvent::Faulted]),
            _ => None,
        }),
        ("INV-13", &QUICK, |_, _, event| match event {
            ControlEvent::KeptLate { .. } => Some(vec![]),
            _ => None,
        }),
        ("INV-14", &LIARS, |_, _, event| match event {
            ControlEvent::Contradicted { .. } => Some(vec![event.clone(), ends_early(Outcome::Completed)]),
            _ => None,
        }),
        ("INV-15", &QUICK, |_, _, event| match event {
            ControlEvent::Faulted => Some(vec![event.clone(), ends_early(Outcome::Completed)]),
            _ => None,
        }),
    ];
    for (id, options, happen) in happens {
        finds(Property::Invariant(id), options, &Mutant { happen, ..SOUND });
    }
    // The undo's round starts at 0 again.
    let apply = |control: &mut Control, event: &ControlEvent| {
        control::apply_to(control, event);
        if let ControlEvent::UndosSent { runs } = event {
            runs.iter().for_each(|run| control.runs_mut()[usize::from(*run)].undo_round = 0);
        }
    };
    finds(Property::Invariant("INV-8"), &KEPT_ROUNDS, &Mutant { apply, ..SOUND });
}
