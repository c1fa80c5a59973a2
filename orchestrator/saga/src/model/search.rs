//! Breadth-first search of one sample: fingerprints of the states met, parents for the shortest trace, edges for the
//! properties of the whole.

use super::follow::World;
use super::moves::{Move, Mover, moves};
use super::property::Property;
use super::state::State;
use super::trace::Trace;
use super::{CheckError, Rounds, SampleReport, Violation};
use crate::control::{Control, ControlEvent, Outcome};
use rustc_hash::FxHashSet;
use std::collections::BTreeMap;
use std::time::Instant;

/// One bit in an edge's target: a move of the world.
const WORLD: u32 = 1 << 31;
/// One bit in an edge's target: a move of the world or of an operator who helps.
const HELPED: u32 = 1 << 30;
const TARGET: u32 = HELPED - 1;
/// The target that stands for every ended state.
const END: u32 = TARGET;

/// What was found of one sample.
pub(super) struct Found {
    pub(super) report: SampleReport,
    pub(super) violations: Vec<Violation>,
    pub(super) seen: Seen,
}

/// What samples reach.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) outcomes: Vec<Outcome>,
    /// Stages entered, by index.
    pub(super) stages: Vec<bool>,
    /// Steps done, by index.
    pub(super) done: Vec<bool>,
    /// Steps undone, by index.
    pub(super) undone: Vec<bool>,
}

pub(super) struct Search<'a> {
    world: &'a World<'a>,
    stages: usize,
    /// Fingerprint of each state, in the order met.
    prints: Vec<u64>,
    /// Open addressing from fingerprint to 1 + index; 0 is free. A power of two, at most half full.
    table: Vec<u32>,
    /// Of each state the one it was first met from, and the number of the move.
    parents: Vec<(u32, u16)>,
    /// Where each state's edges begin.
    begins: Vec<u32>,
    edges: Vec<u32>,
    /// Whether each state is parked.
    parked: Vec<bool>,
    /// Fingerprints of the ended states. They never change, so that they are examined and forgotten.
    ended: FxHashSet<u64>,
    violations: BTreeMap<Property, (u32, Option<Move>)>,
    seen: Seen,
    /// Counts what is held, in bytes, at its largest.
    bytes: usize,
}

impl<'a> Search<'a> {
    /// Explores everything that can happen.
    pub(super) fn run(world: &'a World<'a>) -> Result<Found, CheckError> {
        let began = Instant::now();
        let plan = world.plan;
        let mut search = Self {
            world,
            stages: plan.stages.len(),
            prints: Vec::new(),
            table: vec![0; 1 << 12],
            parents: Vec::new(),
            begins: Vec::new(),
            edges: Vec::new(),
            parked: Vec::new(),
            ended: FxHashSet::default(),
            violations: BTreeMap::new(),
            seen: Seen {
                outcomes: Vec::new(),
                stages: vec![false; plan.stages.len()],
                done: vec![false; plan.steps.len()],
                undone: vec![false; plan.steps.len()],
            },
            bytes: 0,
        };
        let depth = search.explore()?;
        search.liveness();
        let edges = search.edges.len() as u64;
        let report = SampleReport {
            name: world.sample.name.clone(),
            states: search.prints.len() as u64,
            edges,
            depth,
            ends: search.ended.len() as u64,
            millis: began.elapsed().as_millis() as u64,
            bytes: search.bytes as u64,
        };
        let violations = search.violations.iter().map(|(property, (state, last))| Violation {
            property: *property,
            sample: world.sample.name.clone(),
            trace: search.trace(*state, last.as_ref()),
        });
        Ok(Found { report, violations: violations.collect(), seen: search.seen.clone() })
    }

    /// The search itself, level by level; gives the number of levels.
    fn explore(&mut self) -> Result<u32, CheckError> {
        let (initial, events) = self.world.initial();
        self.note(&initial.control, &events);
        let (mut level, mut next, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        self.meet(&initial, (0, 0), &mut next, &mut bytes);
        let (mut index, mut depth, mut possible) = (0u32, 0, Vec::new());
        while !next.is_empty() {
            std::mem::swap(&mut level, &mut next);
            next.clear();
            depth += 1;
            let mut rest = level.as_slice();
            while let Some((length, tail)) = rest.split_first_chunk::<2>() {
                let (packed, tail) = tail.split_at(usize::from(u16::from_le_bytes(*length)));
                rest = tail;
                self.expand(index, &State::unpack(self.stages, packed), &mut possible, &mut next, &mut bytes)?;
                index += 1;
            }
            self.bytes = self.bytes.max(self.size() + level.capacity() + next.capacity());
        }
        self.begins.push(self.edges.len() as u32);
        Ok(depth)
    }

    /// Examines one state and meets those that follow.
    fn expand(
        &mut self,
        index: u32,
        state: &State,
        possible: &mut Vec<Move>,
        next: &mut Vec<u8>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), CheckError> {
        self.begins.push(self.edges.len() as u32);
        self.parked.push(state.control.is_parked(self.world.plan));
        let mut broken = Vec::new();
        self.world.examine(state, &mut broken);
        broken.into_iter().for_each(|property| self.violated(property, index, None));
        moves(self.world.plan, self.world.shape, self.world.options, state, possible);
        for (number, mv) in possible.iter().enumerate() {
            let Some(followed) = self.world.follow(state, mv) else { continue };
            for property in followed.broken {
                self.violated(property, index, Some(*mv));
            }
            if self.world.is_out_of_bounds(&followed.state) {
                continue;
            }
            self.note(&followed.state.control, &followed.events);
            let target = if followed.state.control.is_ended() {
                self.end(&followed.state, index, *mv, bytes);
                END
            } else {
                self.meet(&followed.state, (index, number as u16), next, bytes)
            };
            if self.prints.len() as u64 > self.world.options.limit {
                return Err(CheckError::TooManyStates {
                    sample: self.world.sample.name.clone(),
                    limit: self.world.options.limit,
                });
            }
            if target != index {
                self.edges.push(
                    target
                        | match mv.mover {
                            Mover::World => WORLD | HELPED,
                            Mover::Help => HELPED,
                            Mover::Chance => 0,
                        },
                );
            }
        }
        Ok(())
    }

    /// Examines an ended state: nothing that still comes may change it.
    fn end(&mut self, state: &State, from: u32, last: Move, bytes: &mut Vec<u8>) {
        state.pack(self.stages, bytes);
        if !self.ended.insert(fingerprint(bytes)) {
            return;
        }
        let mut broken = Vec::new();
        self.world.examine(state, &mut broken);
        let mut possible = Vec::new();
        moves(self.world.plan, self.world.shape, self.world.options, state, &mut possible);
        let late = possible.iter().filter_map(|mv| self.world.follow(state, mv));
        broken.extend(late.flat_map(|followed| followed.broken));
        broken.into_iter().for_each(|property| self.violated(property, from, Some(last)));
    }

    /// The index of a state, which is queued when it is new.
    fn meet(&mut self, state: &State, parent: (u32, u16), next: &mut Vec<u8>, bytes: &mut Vec<u8>) -> u32 {
        state.pack(self.stages, bytes);
        let print = fingerprint(bytes);
        let mask = self.table.len() - 1;
        let mut slot = print as usize & mask;
        while self.table[slot] != 0 {
            let index = self.table[slot] - 1;
            if self.prints[index as usize] == print {
                return index;
            }
            slot = (slot + 1) & mask;
        }
        let index = self.prints.len() as u32;
        self.table[slot] = index + 1;
        self.prints.push(print);
        self.parents.push(parent);
        next.extend((bytes.len() as u16).to_le_bytes());
        next.extend_from_slice(bytes);
        if self.prints.len() * 2 > self.table.len() {
            self.grow();
        }
        index
    }

    fn grow(&mut self) {
        let mask = self.table.len() * 2 - 1;
        let mut table = vec![0; mask + 1];
        for (index, print) in self.prints.iter().enumerate() {
            let mut slot = *print as usize & mask;
            while table[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            table[slot] = index as u32 + 1;
        }
        self.table = table;
    }

    fn size(&self) -> usize {
        8 * self.prints.capacity()
            + 4 * (self.table.capacity() + self.edges.capacity() + self.begins.capacity())
            + 8 * self.parents.capacity()
            + self.parked.capacity()
            + 16 * self.ended.capacity()
    }

    fn violated(&mut self, property: Property, state: u32, last: Option<Move>) {
        self.violations.entry(property).or_insert((state, last));
    }

    /// Notes what is reached.
    fn note(&mut self, after: &Control, events: &[ControlEvent]) {
        for event in events {
            if let ControlEvent::StageEntered { stage, .. } = event {
                self.seen.stages[usize::from(*stage)] = true;
            } else if let ControlEvent::RunDone { run } | ControlEvent::UndoDone { run } = event {
                let done = matches!(event, ControlEvent::RunDone { .. });
                let steps = if done { &mut self.seen.done } else { &mut self.seen.undone };
                if let Some(run) = after.runs().get(usize::from(*run)) {
                    steps[usize::from(run.step)] = true;
                }
            } else if let ControlEvent::Ended { outcome } = event
                && !self.seen.outcomes.contains(outcome)
            {
                self.seen.outcomes.push(*outcome);
            }
        }
    }

    /// What must be reachable from every state.
    fn liveness(&mut self) {
        // Where rounds are bounded, the operator's help is too.
        let helps = self.world.options.rounds == Rounds::Forgotten;
        let goals = [
            (WORLD, self.parked.clone(), Property::ComesToRest),
            (HELPED, vec![false; self.parked.len()], Property::CanEnd),
        ];
        for (bit, mut reaches, property) in goals.into_iter().take(if helps { 2 } else { 1 }) {
            // States far from the start tend to lead to later ones: backwards, few sweeps suffice.
            let mut changed = true;
            while changed {
                changed = false;
                for state in (0..reaches.len()).rev() {
                    if !reaches[state] {
                        let edges = self.begins[state] as usize..self.begins[state + 1] as usize;
                        reaches[state] = self.edges[edges]
                            .iter()
                            .any(|edge| edge & bit != 0 && (edge & TARGET == END || reaches[(edge & TARGET) as usize]));
                        changed |= reaches[state];
                    }
                }
            }
            if let Some(state) = reaches.iter().position(|reaches| !reaches) {
                self.violated(property, state as u32, None);
            }
        }
    }

    /// The shortest way to a state, and on by one more move.
    fn trace(&self, state: u32, last: Option<&Move>) -> Trace {
        let mut numbers = Vec::new();
        let mut at = state;
        while at != 0 {
            let (parent, number) = self.parents[at as usize];
            numbers.push(number);
            at = parent;
        }
        numbers.reverse();
        Trace::replay(self.world, &numbers, last)
    }
}

/// 64 bits of a packed state: with ten million states the chance that two share one is 3 in a million.
fn fingerprint(bytes: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| {
        let product = u128::from(hash ^ word) * u128::from(MULTIPLIER);
        (product as u64) ^ ((product >> 64) as u64) ^ hash.rotate_left(29)
    };
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    let hash = words.fold(bytes.len() as u64 ^ MULTIPLIER, mix);
    mix(mix(hash, 0), hash >> 32)
}
