//! Each invariant on states made by hand: a sound one passes, and each way of breaking it is found.

use super::*;
use crate::control::{Forward, Run as Step};
use crate::toy::Toy;

const SETTLED: [Forward; 6] = [Forward::Done; 6];

/// A state of the toy order: its stages are reserve (hold, coupon), pay (open, and a wait, the pivot), confirm (confirm,
/// book without undo), finish (tell without undo) and, in reversal, refund (refund without undo).
#[derive(Clone)]
struct State {
    course: Course,
    next: u8,
    forced: bool,
    faulted: bool,
    waits: [WaitState; 5],
    runs: Vec<Step>,
}

fn run(step: usize, forward: Forward) -> Step {
    let (undo, contradiction) = (Undo::None, Contradiction::None);
    Step { step: step as u8, forward, undo, contradiction, round: 0, undo_round: 0 }
}

/// Steps from the first on, in this course.
fn state(course: Course, next: u8, steps: &[Forward]) -> State {
    let runs = steps.iter().enumerate().map(|(step, forward)| run(step, *forward)).collect();
    let mut waits = [WaitState::NotOpen; 5];
    if next > 2 {
        waits[1] = WaitState::Taken;
    }
    State { course, next, forced: false, faulted: false, waits, runs }
}

impl State {
    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    fn undone(&self, undos: &[(usize, Undo)]) -> Self {
        self.with(|state| undos.iter().for_each(|(run, undo)| state.runs[*run].undo = *undo))
    }

    fn control(&self) -> Control {
        let parts = (self.course, self.next, self.forced, self.faulted);
        Control::of_parts(parts, self.waits.iter().copied(), self.runs.iter().copied())
    }
}

/// What a saga that rests in this state breaks.
#[track_caller]
fn at_rest(state: &State, expected: &str) {
    let found = broken_at_rest(&Toy::order(1).plan, &state.control()).map_or("", |invariant| invariant.id);
    assert_eq!(found, expected, "{:?}", state.control());
}

/// What an event breaks that leads from one state to another.
#[track_caller]
fn by(before: &State, event: &ControlEvent, after: &State, expected: &str) {
    let found = broken_by(&Toy::order(1).plan, &before.control(), event, &after.control());
    assert_eq!(found.map_or("", |invariant| invariant.id), expected, "{event:?} in {:?}", before.control());
}

fn completed() -> State {
    state(Course::Ended(Outcome::Completed), 4, &SETTLED)
}

fn forward() -> State {
    state(Course::Forward, 1, &[Forward::Done, Forward::InFlight])
}

fn compensating() -> State {
    state(Course::Compensating, 1, &[Forward::Done, Forward::Done]).undone(&[(0, Undo::InFlight), (1, Undo::InFlight)])
}

fn returning() -> State {
    state(Course::Returning, 5, &SETTLED)
        .with(|state| state.runs.push(run(6, Forward::Done)))
        .undone(&[(3, Undo::InFlight)])
}

#[test]
fn what_is_completed_is_complete() {
    at_rest(&completed(), "");
    at_rest(&completed().with(|state| state.next = 3), "INV-2");
    at_rest(&completed().with(|state| state.waits[1] = WaitState::Open), "INV-2");
    at_rest(&completed().with(|state| state.runs[4].forward = Forward::InFlight), "INV-2");
    at_rest(&completed().undone(&[(0, Undo::Done)]), "INV-2");
}

#[test]
fn what_was_given_back_is_undone_and_nothing_else_is() {
    let cancelled =
        state(Course::Ended(Outcome::Cancelled), 1, &[Forward::Done, Forward::Refused]).undone(&[(0, Undo::Done)]);
    at_rest(&cancelled, "");
    at_rest(&cancelled.undone(&[(0, Undo::None)]), "INV-3");
    at_rest(&cancelled.undone(&[(0, Undo::Abandoned)]), "INV-3");
    at_rest(&cancelled.undone(&[(1, Undo::Done)]), "INV-4");
    let reversed = returning().with(|state| state.course = Course::Ended(Outcome::Reversed)).undone(&[
        (0, Undo::Done),
        (1, Undo::Done),
        (2, Undo::Done),
        (3, Undo::Done),
    ]);
    at_rest(&reversed, "");
    at_rest(&reversed.undone(&[(2, Undo::InFlight)]), "INV-3");
    at_rest(&reversed.undone(&[(4, Undo::Done)]), "INV-4");
    at_rest(&reversed.undone(&[(6, Undo::Done)]), "INV-4");
}

#[test]
fn a_reversal_comes_before_its_undos() {
    at_rest(&returning(), "");
    at_rest(&returning().with(|state| state.next = 4), "INV-7");
    at_rest(&returning().with(|state| state.runs[6].forward = Forward::InFlight), "INV-7");
    let reversing = returning().with(|state| state.course = Course::Reversing);
    at_rest(&reversing, "INV-7");
    at_rest(&reversing.undone(&[(3, Undo::None)]).with(|state| state.runs[6].forward = Forward::InFlight), "");
    let settling =
        state(Course::Settling, 3, &[Forward::Done; 4]).with(|state| state.runs[3].forward = Forward::InFlight);
    at_rest(&settling, "");
    at_rest(&settling.undone(&[(0, Undo::InFlight)]), "INV-7");
}

#[test]
fn whoever_rests_waits_for_something() {
    at_rest(&forward(), "");
    at_rest(&state(Course::Forward, 1, &[Forward::Done, Forward::Done]), "INV-10");
    let waiting = state(Course::Forward, 2, &[Forward::Done; 3]);
    at_rest(&waiting.with(|state| state.waits[1] = WaitState::Open), "");
    at_rest(&waiting.with(|state| state.waits[1] = WaitState::ParkedDeadline), "");
    at_rest(&waiting, "INV-10");
    let forced = waiting.with(|state| (state.forced, state.waits[1]) = (true, WaitState::Open));
    at_rest(&forced, "");
    at_rest(&forced.with(|state| state.faulted = true), "INV-12");
}

#[test]
fn an_event_is_kept_only_for_a_wait_that_will_open() {
    let kept = |state: State, stage: usize| state.with(|state| state.waits[stage] = WaitState::Kept);
    at_rest(&kept(forward(), 1), "");
    at_rest(&kept(forward(), 3), "");
    at_rest(&kept(forward(), 4), "INV-13");
    at_rest(&kept(compensating(), 1), "INV-13");
    let reversing = state(Course::Reversing, 5, &SETTLED).with(|state| state.runs.push(run(6, Forward::InFlight)));
    at_rest(&kept(reversing.clone(), 4), "");
    at_rest(&kept(reversing, 3), "INV-13");
}

#[test]
fn what_has_ended_never_changes() {
    let late = ControlEvent::EventLate { event: 0 };
    by(&completed(), &late, &completed(), "");
    by(&completed(), &late, &completed().with(|state| state.faulted = true), "INV-1");
    by(&forward(), &late, &forward().with(|state| state.faulted = true), "");
}

#[test]
fn undos_go_from_the_latest_stage_to_the_first() {
    let all = state(Course::Compensating, 3, &[Forward::Done; 4]);
    let sent = |runs: &[u8]| ControlEvent::UndosSent { runs: runs.to_vec() };
    by(&all, &sent(&[3]), &all, "");
    by(&all, &sent(&[2]), &all, "INV-5");
    by(&all, &sent(&[3, 2]), &all, "INV-5");
    let later = all.undone(&[(3, Undo::Done), (2, Undo::Done)]);
    by(&later, &sent(&[0, 1]), &later, "");
    by(&later.undone(&[(2, Undo::InFlight)]), &sent(&[0, 1]), &later, "INV-5");
    let without = later.with(|state| (state.runs[2].forward, state.runs[2].undo) = (Forward::Refused, Undo::None));
    by(&without, &sent(&[0, 1]), &without, "");
}

#[test]
fn the_pivot_decides_how_it_turns_back() {
    let turned = |reversal| ControlEvent::TurnedBack { reversal };
    by(&forward(), &turned(false), &forward(), "");
    by(&forward(), &turned(true), &forward(), "INV-6");
    let after = state(Course::Forward, 3, &[Forward::Done; 4]);
    by(&after, &turned(true), &after, "");
    by(&after, &turned(false), &after, "INV-6");
    by(&compensating(), &turned(false), &compensating(), "INV-6");
    // The pivot's own wait ran out: what it waited for never came.
    let lapsed = state(Course::Forward, 2, &[Forward::Done; 3]).with(|state| state.waits[1] = WaitState::Passed);
    by(&lapsed, &turned(false), &lapsed, "");
    by(&lapsed, &turned(true), &lapsed, "INV-6");
    let further = after.with(|state| state.waits[1] = WaitState::Passed);
    by(&further, &turned(true), &further, "");
}

#[test]
fn runs_and_rounds_only_rise_and_what_was_taken_stays() {
    let event = ControlEvent::RunDone { run: 1 };
    let before = forward().with(|state| state.runs.iter_mut().for_each(|run| (run.round, run.undo_round) = (1, 1)));
    let changed = |change: fn(&mut Step)| before.with(|state| change(&mut state.runs[1]));
    by(&before, &event, &before.with(|state| state.runs.push(run(2, Forward::InFlight))), "");
    by(&before, &event, &changed(|run| (run.round, run.undo_round) = (2, 3)), "");
    by(&before, &event, &before.with(|state| state.runs.truncate(1)), "INV-8");
    by(&before, &event, &changed(|run| run.step = 0), "INV-8");
    by(&before, &event, &changed(|run| run.round = 0), "INV-8");
    by(&before, &event, &changed(|run| run.undo_round = 0), "INV-8");
    by(&before, &event, &changed(|run| (run.round, run.undo) = (2, Undo::InFlight)), "INV-8");
    by(&before, &event, &changed(|run| run.round = 2), "");
    let taken = state(Course::Forward, 3, &[Forward::Done; 4]);
    by(&taken, &event, &taken.with(|state| state.waits[1] = WaitState::Passed), "INV-9");
    by(&forward(), &event, &forward().with(|state| state.waits[1] = WaitState::Kept), "");
}

#[test]
fn no_step_is_sent_while_a_saga_gives_back_but_those_of_the_reversal() {
    let entered = |stage| ControlEvent::StageEntered { stage, counts: Vec::new() };
    let retried = ControlEvent::RunRetried { run: 0, direction: Direction::Do };
    let undo = |run| ControlEvent::UndosSent { runs: vec![run] };
    let reversing = state(Course::Reversing, 4, &SETTLED);
    for (state, event, expected) in [
        (forward(), entered(1), ""),
        (forward(), entered(4), "INV-11"),
        (reversing.clone(), entered(4), ""),
        (reversing.clone(), entered(1), "INV-11"),
        (compensating(), entered(1), "INV-11"),
        (forward(), retried.clone(), ""),
        (compensating(), retried.clone(), "INV-11"),
        (compensating(), ControlEvent::RunRetried { run: 0, direction: Direction::Undo }, ""),
        (reversing.undone(&[(0, Undo::Done)]), retried, "INV-11"),
        (compensating(), undo(0), ""),
        (returning(), undo(3), ""),
        (forward(), undo(1), "INV-11"),
        (reversing, undo(3), "INV-11"),
    ] {
        by(&state, &event, &state, expected);
    }
}

#[test]
fn nothing_is_begun_over_a_contradiction_or_a_fault() {
    let begun = [
        ControlEvent::StageEntered { stage: 1, counts: Vec::new() },
        ControlEvent::WaitOpened { stage: 1 },
        ControlEvent::ReturnBegan,
        ControlEvent::ReversalBegan { stage: 4 },
        ControlEvent::Ended { outcome: Outcome::Completed },
    ];
    let contradicted = forward().with(|state| state.runs[0].contradiction = Contradiction::Open);
    let faulted = forward().with(|state| state.faulted = true);
    for event in &begun {
        by(&forward(), event, &forward(), "");
        by(&contradicted, event, &contradicted, "INV-14");
        by(&contradicted.with(|state| state.forced = true), event, &contradicted, "");
        by(&contradicted.with(|state| state.runs[0].contradiction = Contradiction::Accepted), event, &contradicted, "");
        by(&faulted, event, &faulted, "INV-15");
    }
    for event in [ControlEvent::RunDone { run: 1 }, ControlEvent::Ended { outcome: Outcome::Forced }] {
        by(&contradicted, &event, &contradicted, "");
        by(&faulted, &event, &faulted, "");
    }
}
