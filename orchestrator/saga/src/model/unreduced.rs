//! The model without its reductions, for small sagas: every command, participant and reply explicit, rounds kept, equal
//! chains apart. What it can reach must be what the reduced model reaches. This is the test of the reductions.

use super::follow::World;
use super::moves::{Move, Mover, moves};
use super::participant::{Effect, meet};
use super::plans::{Build, sample};
use super::rules::Production;
use super::shape::Shape;
use super::state::State;
use super::{Options, Participants, Rounds, Sample};
use crate::control::{Answer, ControlEvent, ControlInput, Outcome, Undo};
use crate::plan::{AfterPivot, AtDeadline, Pivot, Plan, Refused};
use endstate_events::Direction;
use std::collections::{BTreeSet, HashSet, VecDeque};

const RUNS: usize = 8;
const ROUNDS: usize = 3;

/// One run outside the saga: commands on their way, the effects at the participant, the replies it gave. All of it only
/// grows, so that anything may come late, twice or in another order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Outside {
    effects: [Effect; ROUNDS],
    done_sent: [bool; ROUNDS],
    /// Of each undo sent, the round it undoes.
    undo_sent: [Option<u8>; ROUNDS],
    done_replies: [Option<Reply>; ROUNDS],
    undo_replies: [Option<Reply>; ROUNDS],
}

/// A participant's answer as a value that can be hashed.
type Reply = bool;

type Full = (State, [Outside; RUNS]);

/// Notes the commands that an event sends.
fn send(outside: &mut [Outside; RUNS], after: &State, from: &State, events: &[ControlEvent]) {
    let runs = after.control.runs();
    for new in &mut outside[from.control.runs().len()..runs.len()] {
        new.done_sent[0] = true;
    }
    for event in events {
        match event {
            ControlEvent::RunRetried { run, direction: Direction::Do } => {
                outside[usize::from(*run)].done_sent[usize::from(runs[usize::from(*run)].round)] = true;
            }
            ControlEvent::RunRetried { run, direction: Direction::Undo } => {
                let state = &runs[usize::from(*run)];
                outside[usize::from(*run)].undo_sent[usize::from(state.undo_round)] = Some(state.round);
            }
            ControlEvent::UndosSent { runs: sent } => {
                for run in sent {
                    let state = &runs[usize::from(*run)];
                    outside[usize::from(*run)].undo_sent[usize::from(state.undo_round)] = Some(state.round);
                }
            }
            _ => {}
        }
    }
}

/// Every way in which one more command can arrive.
fn arrivals(outside: &[Outside; RUNS]) -> Vec<[Outside; RUNS]> {
    let mut found = Vec::new();
    for run in 0..RUNS {
        for round in 0..ROUNDS {
            let here = &outside[run];
            if here.done_sent[round] && here.done_replies[round].is_none() {
                for meeting in meet(here.effects[round], Direction::Do) {
                    let mut next = *outside;
                    next[run].effects[round] = meeting.effect;
                    next[run].done_replies[round] = Some(meeting.answer == Answer::Done);
                    found.push(next);
                }
            }
            if let (Some(target), None) = (here.undo_sent[round], here.undo_replies[round]) {
                for meeting in meet(here.effects[usize::from(target)], Direction::Undo) {
                    let mut next = *outside;
                    next[run].effects[usize::from(target)] = meeting.effect;
                    next[run].undo_replies[round] = Some(meeting.answer == Answer::Done);
                    found.push(next);
                }
            }
        }
    }
    found
}

/// Every reply given so far; it may come now, again, or never.
fn replies(outside: &[Outside; RUNS]) -> Vec<ControlInput> {
    let mut found = Vec::new();
    for (run, here) in outside.iter().enumerate() {
        for round in 0..ROUNDS {
            let given = [(Direction::Do, here.done_replies[round]), (Direction::Undo, here.undo_replies[round])];
            for (direction, reply) in given {
                let answer = reply.map(|done| if done { Answer::Done } else { Answer::Refused });
                found.extend(answer.map(|answer| ControlInput::Reply {
                    run: run as u8,
                    direction,
                    round: round as u8,
                    answer,
                }));
            }
        }
    }
    found
}

/// What hangs on the future, packed.
fn projected(mut state: State, plan: &Plan) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.forget(plan);
    state.pack(plan.stages.len(), &mut bytes);
    bytes
}

/// Explores everything; gives the control states reached and the number of full states.
fn unreduced(world: &World<'_>) -> (BTreeSet<Vec<u8>>, usize) {
    let stages = world.plan.stages.len();
    let (initial, events) = world.initial();
    let mut outside = [Outside::default(); RUNS];
    send(&mut outside, &initial, &State::default(), &events);
    let key = |full: &Full| {
        let mut bytes = Vec::new();
        full.0.pack(stages, &mut bytes);
        (bytes, full.1)
    };
    let mut met: HashSet<(Vec<u8>, [Outside; RUNS])> = HashSet::new();
    let mut controls = BTreeSet::new();
    let mut queue: VecDeque<Full> = VecDeque::from([(initial, outside)]);
    met.insert(key(&queue[0]));
    while let Some((state, outside)) = queue.pop_front() {
        controls.insert(projected(state, world.plan));
        let mut next: Vec<Full> = arrivals(&outside).into_iter().map(|outside| (state, outside)).collect();
        if next.is_empty() {
            nothing_is_left(world.plan, &state, &outside);
        }
        if !state.control.is_ended() {
            let mut possible = Vec::new();
            moves(world.plan, world.shape, world.options, &state, &mut possible);
            let others = possible.into_iter().filter(|mv| !matches!(mv.input, ControlInput::Reply { .. }));
            let replies = replies(&outside).into_iter().map(|input| Move { input, mover: Mover::World, chosen: None });
            for mv in others.chain(replies) {
                let Some(followed) = world.follow(&state, &mv) else { continue };
                assert!(followed.broken.is_empty(), "{:?} after {mv:?} in {state:?}", followed.broken);
                if !world.is_out_of_bounds(&followed.state) {
                    let mut outside = outside;
                    send(&mut outside, &followed.state, &state, &followed.events);
                    next.push((followed.state, outside));
                }
            }
        }
        for full in next {
            if met.insert(key(&full)) {
                queue.push_back(full);
            }
        }
    }
    (controls, met.len())
}

/// When all commands have arrived, an end that gives back has left nothing.
fn nothing_is_left(plan: &Plan, state: &State, outside: &[Outside; RUNS]) {
    let Some(Outcome::Cancelled | Outcome::Reversed) = state.control.outcome() else { return };
    for (index, run) in state.control.runs().iter().enumerate() {
        let step = &plan.steps[usize::from(run.step)];
        let undoable = step.undo.is_some() && !plan.is_reversal(step.stage);
        let left = outside[index].effects.contains(&Effect::Done);
        assert!(!left || !undoable, "{run:?} leaves an effect: {:?}", outside[index]);
        assert!(run.undo != Undo::InFlight);
    }
}

/// The control states that the reduced model reaches.
fn reduced(world: &World<'_>) -> BTreeSet<Vec<u8>> {
    let (initial, _) = world.initial();
    let mut controls = BTreeSet::from([projected(initial, world.plan)]);
    let mut queue = VecDeque::from([initial]);
    while let Some(state) = queue.pop_front() {
        if state.control.is_ended() {
            continue;
        }
        let mut possible = Vec::new();
        moves(world.plan, world.shape, world.options, &state, &mut possible);
        for followed in possible.iter().filter_map(|mv| world.follow(&state, mv)) {
            let fits = !world.is_out_of_bounds(&followed.state);
            if fits && controls.insert(projected(followed.state, world.plan)) {
                queue.push_back(followed.state);
            }
        }
    }
    controls
}

fn options(rounds: Rounds, symmetry: bool) -> Options {
    Options {
        limit: 0,
        kept: 1,
        participants: Participants::Honest,
        rounds,
        faults: false,
        dead_letters: false,
        symmetry,
    }
}

#[track_caller]
fn agree(plan: &Plan, sample: &Sample) {
    let shape = Shape::of(plan, sample, false);
    let world = |options| World { plan, sample, shape: &shape, options, rules: &Production };
    let full = options(Rounds::Kept { most: 2 }, false);
    let (unreduced, states) = unreduced(&world(&full));
    let small = options(Rounds::Forgotten, false);
    let reduced = reduced(&world(&small));
    println!("{}: {states} states unreduced, {} control states", sample.name, reduced.len());
    let show = |bytes: &Vec<u8>| format!("{:?}", State::unpack(plan.stages.len(), bytes).control);
    assert_eq!(unreduced.difference(&reduced).next().map(show), None, "the reduced model misses a state");
    assert_eq!(reduced.difference(&unreduced).next().map(show), None, "the reduced model invents a state");
}

#[test]
fn a_hold_and_its_confirmation() {
    let plan = Build::new(Pivot::Stage(0))
        .reason("user", "owner", AfterPivot::Reverse)
        .stage("hold")
        .step("hold", |_| {})
        .stage("confirm")
        .step("confirm", |step| {
            step.of = Some(0);
            step.refused = Refused::Park;
        })
        .0;
    agree(&plan, &sample(&plan, "hold and confirm", &[]));
}

#[test]
fn two_holds_in_parallel() {
    let plan =
        Build::new(Pivot::Never).reason("user", "owner", AfterPivot::Reverse).stage("hold").step("hold", |_| {}).0;
    agree(&plan, &sample(&plan, "two holds", &[("hold", 2)]));
}

#[test]
fn a_payment() {
    let plan = Build::new(Pivot::Stage(0))
        .reason("unpaid", "deadline", AfterPivot::Refuse)
        .reason("user", "owner", AfterPivot::Reverse)
        .stage("pay")
        .step("open", |_| {})
        .wait("paid", |wait| {
            wait.ask = Build::ask();
            wait.at_deadline = AtDeadline::Cancel { reason: 0 };
        })
        .reversal("refund")
        .step("refund", |step| {
            step.of = Some(0);
            step.undo = None;
            step.refused = Refused::Park;
        })
        .0;
    agree(&plan, &sample(&plan, "payment", &[]));
}
