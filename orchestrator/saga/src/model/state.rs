//! A state of the model: control, which runs hang together, the events that are kept; its packed form and its normal
//! form under swaps of equal chains.

use super::shape::Shape;
use crate::control::wire::{CONTRADICTIONS, COURSES, FORWARDS, UNDOS, WAITS, index_of};
use crate::control::{Contradiction, Control, Course, Forward, Run, Undo, WaitState};
use crate::plan::{MAX_RUNS, MAX_STAGES, Plan};

/// A state of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// What production decides on.
    pub(super) control: Control,
    /// The run at the root of each run's chain: itself, or for an `of:` step the run it refers to, and so on.
    pub(super) roots: [u8; MAX_RUNS],
    /// The events kept for each stage's wait.
    pub(super) kept: [Kept; MAX_STAGES],
}

/// How many events are kept for a wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// Those that satisfy its `where`.
    pub(super) right: u8,
    /// Those that do not.
    pub(super) wrong: u8,
}

impl Kept {
    pub(super) fn total(self) -> u8 {
        self.right + self.wrong
    }
}

impl Default for State {
    fn default() -> Self {
        Self { control: Control::default(), roots: [0; MAX_RUNS], kept: [Kept::default(); MAX_STAGES] }
    }
}

impl State {
    /// The packed form; equal states have equal bytes.
    pub(super) fn pack(&self, stages: usize, bytes: &mut Vec<u8>) {
        let control = &self.control;
        bytes.clear();
        let course = COURSES.iter().position(|(course, _)| *course == control.course).unwrap_or(0);
        bytes.push(course as u8 | u8::from(control.forced) << 4 | u8::from(control.faulted) << 5);
        bytes.push(control.next);
        for (wait, kept) in control.waits()[..stages].iter().zip(&self.kept) {
            bytes.push(index_of(&WAITS, wait) | kept.right << 4 | kept.wrong << 6);
        }
        for (run, root) in control.runs().iter().zip(&self.roots) {
            let packed = index_of(&FORWARDS, &run.forward)
                | index_of(&UNDOS, &run.undo) << 3
                | index_of(&CONTRADICTIONS, &run.contradiction) << 6;
            bytes.extend([run.step, packed, *root, run.round << 4 | run.undo_round]);
        }
    }

    /// The state of a packed form.
    pub(super) fn unpack(stages: usize, bytes: &[u8]) -> Self {
        let (head, rest) = bytes.split_at(2);
        let (waits, runs) = rest.split_at(stages);
        let run = |digits: &[u8]| Run {
            step: digits[0],
            forward: FORWARDS[usize::from(digits[1] & 7)],
            undo: UNDOS[usize::from(digits[1] >> 3 & 7)],
            contradiction: CONTRADICTIONS[usize::from(digits[1] >> 6)],
            round: digits[3] >> 4,
            undo_round: digits[3] & 15,
        };
        let course: Course = COURSES[usize::from(head[0] & 15)].0;
        let mut state = Self {
            control: Control::of_parts(
                (course, head[1], head[0] & 16 != 0, head[0] & 32 != 0),
                waits.iter().map(|byte| WAITS[usize::from(byte & 15)]),
                runs.chunks_exact(4).map(run),
            ),
            ..Self::default()
        };
        for (kept, byte) in state.kept.iter_mut().zip(waits) {
            *kept = Kept { right: byte >> 4 & 3, wrong: byte >> 6 };
        }
        for (root, digits) in state.roots.iter_mut().zip(runs.chunks_exact(4)) {
            *root = digits[2];
        }
        state
    }

    /// Forgets what the future does not hang on. Rounds: replies of old ones were proved to change nothing. What was
    /// known of a step whose undo is sent, or that only waits for its undo: the undo holds for done and unknown alike.
    pub(super) fn forget(&mut self, plan: &Plan) {
        let gives_back = match self.control.course {
            Course::Compensating | Course::Returning => true,
            Course::Forward | Course::Settling | Course::Reversing | Course::Ended(_) => false,
        };
        for run in self.control.runs_mut() {
            run.round = 0;
            run.undo_round = 0;
            let unknown = match run.forward {
                Forward::InFlight | Forward::Exhausted | Forward::Abandoned => true,
                Forward::Done => run.undo != Undo::None,
                Forward::Refused => false,
            };
            let step = &plan.steps[usize::from(run.step)];
            let is_given_back = step.undo.is_some() && !plan.is_reversal(step.stage);
            if unknown
                && is_given_back
                && run.contradiction == Contradiction::None
                && (gives_back || run.undo != Undo::None)
            {
                run.forward = Forward::InFlight;
            }
        }
    }

    /// The normal form: equal chains in order.
    pub(super) fn sort_chains(&mut self, shape: &Shape) {
        if shape.is_symmetric() {
            let mut chains = Chains::of(self, shape);
            if chains.sort(shape) {
                chains.lay_out(self, shape);
            }
        }
    }

    /// The same state with the chains of one class placed elsewhere: those in `first` (a bit per chain of the class)
    /// come to the places of the runs of `step`.
    pub(super) fn rearranged(&self, shape: &Shape, step: usize, first: u32) -> Self {
        let mut state = *self;
        let mut chains = Chains::of(self, shape);
        let places = chains.places(shape, shape.class(step));
        let (mut chosen, mut others): (Vec<_>, Vec<_>) = places
            .iter()
            .enumerate()
            .map(|(bit, place)| (first >> bit & 1 == 1, chains.0[*place].1))
            .partition(|(chosen, _)| *chosen);
        chosen.reverse();
        others.reverse();
        for place in places {
            let from = if chains.0[place].0 == shape.root(step) { &mut chosen } else { &mut others };
            if let Some((_, key)) = from.pop() {
                chains.0[place].1 = key;
            }
        }
        chains.lay_out(&mut state, shape);
        state
    }

    /// How many chains are in the class of `step`, and how many of them are that step's own.
    pub(super) fn chains_like(&self, shape: &Shape, step: usize) -> (u32, u32) {
        let roots =
            || self.control.runs().iter().map(|run| usize::from(run.step)).filter(|run| shape.root(*run) == *run);
        let all = roots().filter(|root| shape.class(*root) == shape.class(step)).count();
        let own = roots().filter(|root| *root == shape.root(step)).count();
        (all as u32, own as u32)
    }

    /// True when a wait that keeps or parks on an event has one, and only then.
    pub(super) fn kept_agrees(&self, stage: usize) -> bool {
        let keeps = match self.control.wait(stage) {
            WaitState::Kept | WaitState::ParkedMismatch => true,
            WaitState::NotOpen
            | WaitState::Open
            | WaitState::Asked
            | WaitState::Taken
            | WaitState::Passed
            | WaitState::Skipped
            | WaitState::ParkedDeadline => false,
        };
        keeps == (self.kept[stage].total() > 0)
    }
}

/// Most steps of one chain that symmetry follows.
pub(super) const MAX_MEMBERS: usize = 4;

/// The runs of one chain, member by member, packed; 0 where it has none.
type Key = [u32; MAX_MEMBERS];

/// A state's chains: (step at the root, runs), in the order of the roots.
struct Chains(Vec<(usize, Key)>);

impl Chains {
    fn of(state: &State, shape: &Shape) -> Self {
        let mut chains: Vec<(usize, Key)> = Vec::with_capacity(8);
        let mut chain_of = [0u8; MAX_RUNS];
        for (index, run) in state.control.runs().iter().enumerate() {
            let step = usize::from(run.step);
            if shape.root(step) == step {
                chain_of[index] = chains.len() as u8;
                chains.push((step, [0; MAX_MEMBERS]));
            }
            let chain = usize::from(chain_of[usize::from(state.roots[index])]);
            chains[chain].1[shape.member(step)] = pack_run(run);
        }
        Self(chains)
    }

    fn places(&self, shape: &Shape, class: usize) -> Vec<usize> {
        (0..self.0.len()).filter(|place| shape.class(self.0[*place].0) == class).collect()
    }

    /// Sorts the chains of each class; false when they were in order.
    fn sort(&mut self, shape: &Shape) -> bool {
        let mut moved = false;
        // Insertion between neighbours of a class: chains are few and nearly always in order.
        for right in 1..self.0.len() {
            let mut place = right;
            while let Some(left) =
                (0..place).rev().find(|left| shape.class(self.0[*left].0) == shape.class(self.0[place].0))
            {
                if self.0[left].1 <= self.0[place].1 {
                    break;
                }
                let key = self.0[left].1;
                self.0[left].1 = self.0[place].1;
                self.0[place].1 = key;
                moved = true;
                place = left;
            }
        }
        moved
    }

    /// Writes the chains back: stages in the order they were entered, steps in plan order, runs in the order of roots.
    fn lay_out(&self, state: &mut State, shape: &Shape) {
        let len = state.control.runs().len();
        let mut position = 0;
        let mut root_at = [0u8; MAX_RUNS];
        while position < len {
            let stage = shape.stage(usize::from(state.control.runs()[position].step));
            for step in shape.steps(stage) {
                for (chain, (root, key)) in self.0.iter().enumerate() {
                    let packed = key[shape.member(step)];
                    if *root != shape.root(step) || packed == 0 {
                        continue;
                    }
                    if *root == step {
                        root_at[chain] = position as u8;
                    }
                    state.control.runs_mut()[position] = unpack_run(step, packed);
                    state.roots[position] = root_at[chain];
                    position += 1;
                }
            }
        }
    }
}

/// Never 0, so that 0 can mean "none".
fn pack_run(run: &Run) -> u32 {
    1 | u32::from(index_of(&FORWARDS, &run.forward)) << 1
        | u32::from(index_of(&UNDOS, &run.undo)) << 4
        | u32::from(index_of(&CONTRADICTIONS, &run.contradiction)) << 7
        | u32::from(run.round) << 9
        | u32::from(run.undo_round) << 17
}

fn unpack_run(step: usize, packed: u32) -> Run {
    Run {
        step: step as u8,
        forward: FORWARDS[(packed >> 1 & 7) as usize],
        undo: UNDOS[(packed >> 4 & 7) as usize],
        contradiction: CONTRADICTIONS[(packed >> 7 & 3) as usize],
        round: (packed >> 9) as u8,
        undo_round: (packed >> 17) as u8,
    }
}
