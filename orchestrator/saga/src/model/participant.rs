//! A participant as a run's effects see it, and what it holds in the end.
//!
//! While a saga lives, the model lets a command meet its participant only when its reply is delivered: nothing else
//! reads the participant's state. What is left when the saga has ended, late commands and undos, is followed here one
//! run at a time: every order in which the commands ever sent can arrive, with every choice the participant has, as far
//! as they fit the answers that the saga knows.

use super::rules::Rules;
use crate::control::{Answer, Contradiction, Forward, Run, Undo};
use endstate_events::Direction;

/// One effect id at its participant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Effect {
    /// Never met.
    #[default]
    None,
    /// It holds.
    Done,
    /// Refused, for ever.
    Refused,
    /// Its undo came first: it can never be made.
    Tombstone,
    /// Made and undone.
    Undone,
}

/// What a participant does with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meeting {
    /// The effect afterwards.
    pub(crate) effect: Effect,
    /// The answer; an undo's is remembered under the undo's id.
    pub(crate) answer: Answer,
}

/// Everything an honest participant may do with a command for an effect. It repeats itself when asked twice.
pub(crate) fn meet(effect: Effect, direction: Direction) -> Vec<Meeting> {
    let to = |effect, answer| Meeting { effect, answer };
    match (direction, effect) {
        (Direction::Do, Effect::None) => vec![to(Effect::Done, Answer::Done), to(Effect::Refused, Answer::Refused)],
        (Direction::Do, Effect::Done | Effect::Undone) => vec![to(effect, Answer::Done)],
        (Direction::Do, Effect::Refused | Effect::Tombstone) => vec![to(effect, Answer::Refused)],
        (Direction::Undo, Effect::None) => vec![to(Effect::Tombstone, Answer::Done)],
        (Direction::Undo, Effect::Done) => vec![to(Effect::Undone, Answer::Done), to(effect, Answer::Refused)],
        (Direction::Undo, Effect::Refused | Effect::Tombstone | Effect::Undone) => vec![to(effect, Answer::Done)],
    }
}

/// The rounds of a run that the model may keep.
pub(crate) const MAX_ROUNDS: usize = 4;

/// A run's effects and answers, by round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct World {
    effects: [Effect; MAX_ROUNDS],
    done_answers: [Option<Answer>; MAX_ROUNDS],
    undo_answers: [Option<Answer>; MAX_ROUNDS],
}

/// What can hold of a run at its participant once everything sent has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remains {
    /// An effect may be left.
    pub(crate) present: bool,
    /// There may be none.
    pub(crate) absent: bool,
}

/// Follows a run of an ended saga to the end of its commands.
pub(crate) fn remains(rules: &dyn Rules, run: &Run) -> Remains {
    let mut commands: Vec<(Direction, usize)> =
        (0..=usize::from(run.round)).map(|round| (Direction::Do, round)).collect();
    if run.undo != Undo::None {
        let first = usize::from(run.round.min(run.undo_round));
        commands.extend((first..=usize::from(run.undo_round)).map(|round| (Direction::Undo, round)));
    }
    let mut found = Remains::default();
    arrive(rules, run, World::default(), &mut commands, &mut found);
    found
}

fn arrive(rules: &dyn Rules, run: &Run, world: World, commands: &mut Vec<(Direction, usize)>, found: &mut Remains) {
    if commands.is_empty() {
        if fits(run, &world) {
            let present = world.effects.contains(&Effect::Done);
            found.present |= present;
            found.absent |= !present;
        }
        return;
    }
    for index in 0..commands.len() {
        let (direction, round) = commands.remove(index);
        let target = match direction {
            Direction::Do => round,
            Direction::Undo => usize::from(rules.round_undone(run)),
        };
        for Meeting { effect, answer } in rules.meet(world.effects[target], direction) {
            let mut world = world;
            world.effects[target] = effect;
            match direction {
                Direction::Do => world.done_answers[round] = Some(answer),
                Direction::Undo => world.undo_answers[round] = Some(answer),
            }
            arrive(rules, run, world, commands, found);
        }
        commands.insert(index, (direction, round));
    }
}

/// Whether a world gave the answers that the saga knows. An earlier round was refused, else there were no later one.
fn fits(run: &Run, world: &World) -> bool {
    let (round, undo_round) = (usize::from(run.round), usize::from(run.undo_round));
    let forward = match run.forward {
        Forward::InFlight | Forward::Exhausted | Forward::Abandoned => true,
        Forward::Done => world.done_answers[round] == Some(Answer::Done),
        Forward::Refused => world.done_answers[round] == Some(Answer::Refused),
    };
    let undo = match run.undo {
        Undo::None | Undo::InFlight | Undo::Abandoned => true,
        Undo::Done => world.undo_answers[undo_round] == Some(Answer::Done),
        Undo::Refused => world.undo_answers[undo_round] == Some(Answer::Refused),
    };
    let earlier = world.done_answers[..round].iter().all(|answer| *answer == Some(Answer::Refused))
        && world.undo_answers[..undo_round].iter().flatten().all(|answer| *answer == Answer::Refused);
    run.contradiction == Contradiction::None && forward && undo && earlier
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Contradiction;
    use crate::model::rules::Production;

    fn run(forward: Forward, undo: Undo) -> Run {
        Run { step: 0, forward, undo, contradiction: Contradiction::None, round: 0, undo_round: 0 }
    }

    #[test]
    fn an_undone_run_leaves_nothing_whatever_comes_late() {
        for forward in [Forward::InFlight, Forward::Exhausted, Forward::Abandoned, Forward::Done] {
            assert_eq!(remains(&Production, &run(forward, Undo::Done)), Remains { present: false, absent: true });
        }
    }

    #[test]
    fn an_unknown_run_leaves_either() {
        assert_eq!(remains(&Production, &run(Forward::InFlight, Undo::None)), Remains { present: true, absent: true });
        assert_eq!(remains(&Production, &run(Forward::Done, Undo::None)), Remains { present: true, absent: false });
        assert_eq!(remains(&Production, &run(Forward::Refused, Undo::None)), Remains { present: false, absent: true });
    }
}
