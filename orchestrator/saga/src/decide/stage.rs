//! Entering stages: conditions and payloads evaluated once, recorded, sent.

use super::turn::Turn;
use crate::control::{self, Conditions};
use crate::event::Fact;
use crate::plan::{EvalError, Item, Items, MAX_RUNS, Program};
use crate::saga::{RunData, Saga};
use crate::size;
use endstate_events::{CommandKind, Direction};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// The definition's answers about one saga; what was evaluated to count it is kept for sending.
pub(super) struct Evaluated<'a, P: ?Sized> {
    program: &'a P,
    saga: &'a Saga,
    /// Items by step.
    pub(super) items: RefCell<Vec<(usize, Items)>>,
    /// The kept event that matches.
    pub(super) kept: Cell<Option<usize>>,
}

impl<'a, P: Program + ?Sized> Evaluated<'a, P> {
    pub(super) fn new(program: &'a P, saga: &'a Saga) -> Self {
        Self { program, saga, items: RefCell::default(), kept: Cell::default() }
    }
}

impl<P: Program + ?Sized> Conditions for Evaluated<'_, P> {
    fn stage_applies(&self, stage: usize) -> Result<bool, EvalError> {
        self.program.stage_applies(stage, self.saga)
    }

    fn items(&self, step: usize) -> Result<u8, EvalError> {
        let items = self.program.items(step, self.saga)?;
        let count = match &items {
            Items::None => 0,
            Items::One => 1,
            Items::Each(items) => items.len(),
        };
        self.items.borrow_mut().push((step, items));
        u8::try_from(count).map_err(|_| too_many(&self.program.plan().steps[step].name))
    }

    fn step_applies(&self, step: usize) -> Result<bool, EvalError> {
        Ok(self.program.items(step, self.saga)? != Items::None)
    }

    fn kept_matches(&self, stage: usize) -> Result<bool, EvalError> {
        let conditional = self.program.plan().stages[stage].wait.as_ref().is_some_and(|wait| wait.conditional);
        for (index, kept) in self.saga.data.kept.iter().enumerate() {
            if usize::from(kept.stage) == stage
                && (!conditional || self.program.event_matches(stage, &kept.data, self.saga)?)
            {
                self.kept.set(Some(index));
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn too_many(step: &str) -> EvalError {
    EvalError { place: format!("steps.{step}.each"), reason: format!("more than {MAX_RUNS} runs in one saga") }
}

impl<P: Program + ?Sized> Turn<'_, P> {
    pub(super) fn enter(&mut self, stage: u8, counts: &[(u8, u8)], items: Vec<(usize, Items)>) {
        match self.runs_to_send(counts, items) {
            Err(error) => self.fault(&error),
            Ok(runs) => {
                let first = self.saga.data.runs.len();
                let last = first + runs.len();
                self.record(Fact::StageEntered { stage, runs });
                (first..last).for_each(|run| self.send(run, Direction::Do, CommandKind::Do));
            }
        }
    }

    fn runs_to_send(&self, counts: &[(u8, u8)], mut items: Vec<(usize, Items)>) -> Result<Vec<RunData>, EvalError> {
        let plan = self.plan();
        let total: usize = counts.iter().map(|(_, count)| usize::from(*count)).sum();
        if self.saga.data.runs.len() + total > MAX_RUNS {
            return Err(too_many(counts.last().map_or("", |(step, _)| &plan.steps[usize::from(*step)].name)));
        }
        let mut runs = Vec::with_capacity(total);
        for (index, _) in counts {
            let step = &plan.steps[usize::from(*index)];
            let due_ms = step.retry.first_timer_ms() as i64;
            if step.call.is_saga() {
                let bytes = size::of(&self.saga.snapshot(plan));
                fits(&step.name, "the snapshot", bytes, size::SNAPSHOT_BYTES)?;
            }
            let blank = RunData { step: *index, item_key: Arc::from(""), due_ms, ..RunData::default() };
            if let Some(of) = step.of {
                for (position, state) in self.saga.control.runs().iter().enumerate() {
                    if usize::from(state.step) == of && control::advance::refers_to(state) {
                        runs.push(self.run_of(blank.clone(), position)?);
                    }
                }
                continue;
            }
            let found = items.iter().position(|(step, _)| step == &usize::from(*index));
            match found.map(|found| items.swap_remove(found).1) {
                None | Some(Items::None) => {}
                Some(Items::One) => runs.push(self.evaluated(blank, None)?),
                Some(Items::Each(items)) => {
                    unique(&step.name, &items)?;
                    for item in items {
                        runs.push(self.evaluated(blank.clone(), Some(item))?);
                    }
                }
            }
        }
        let bytes = runs.iter().map(|run| size::of(&run.with)).sum();
        let last = counts.last().map_or("", |(step, _)| &plan.steps[usize::from(*step)].name);
        fits(last, "what the stage sends", bytes, size::STAGE_BYTES)?;
        Ok(runs)
    }

    fn evaluated(&self, blank: RunData, item: Option<Item>) -> Result<RunData, EvalError> {
        let payload = self.program.payload(usize::from(blank.step), item.as_ref(), &self.saga)?;
        let run = RunData { with: Arc::new(payload.with), key: payload.key, ..blank };
        Ok(match item {
            None => run,
            Some(Item { key, value }) => RunData { item_key: key, item: value, ..run },
        })
    }

    /// A run of an `of:` step: the item and key of the run it refers to.
    fn run_of(&self, blank: RunData, of: usize) -> Result<RunData, EvalError> {
        let original = &self.saga.data.runs[of];
        let item = Item { key: original.item_key.clone(), value: original.item.clone() };
        let item = (!original.item_key.is_empty()).then_some(item);
        let run = self.evaluated(blank, item)?;
        Ok(RunData { key: original.key.clone(), of: Some(of as u8), ..run })
    }
}

fn fits(step: &str, what: &str, bytes: usize, most: usize) -> Result<(), EvalError> {
    size::check(what, bytes, most).map_err(|reason| EvalError { place: format!("steps.{step}.with"), reason })
}

/// Two items under one key would share an effect id (Z9).
fn unique(step: &str, items: &[Item]) -> Result<(), EvalError> {
    let mut keys: Vec<&str> = items.iter().map(|item| &*item.key).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => {
            let reason = format!("two items have the key `{}`", pair[0]);
            Err(EvalError { place: format!("steps.{step}.item_key"), reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn z9_two_items_with_one_key_are_refused() {
        let item = |key: &str| Item { key: key.into(), value: Arc::new(json!({})) };
        assert_eq!(unique("hold", &[item("b"), item("a"), item("c")]), Ok(()));
        let refused = unique("hold", &[item("b"), item("a"), item("b")]).unwrap_err();
        assert_eq!(refused.to_string(), "steps.hold.item_key: two items have the key `b`");
    }

    #[test]
    fn z20_what_is_too_large_is_not_sent() {
        assert_eq!(fits("hold", "it", size::STAGE_BYTES, size::STAGE_BYTES), Ok(()));
        let refused = fits("hold", "it", size::STAGE_BYTES + 1, size::STAGE_BYTES).unwrap_err();
        assert_eq!(refused.place, "steps.hold.with");
    }
}
