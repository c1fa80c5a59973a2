//! What a sample fixes: which stages apply and over how many items steps run, as production's expressions say.

use crate::check::saga_of;
use crate::definition::{self, Definition};
use crate::plan::{EvalError, Item, Items, Program};
use crate::saga::{RunData, Saga};
use endstate_events::Json;
use std::sync::Arc;

/// One sample, as control sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its name.
    pub name: String,
    /// Of each stage, whether its `when` holds.
    pub stages: Vec<bool>,
    /// Of each step without `of:`, how many runs it has; 0 skips it.
    pub runs: Vec<u8>,
    /// Of each `of:` step, whether its `when` holds.
    pub applies: Vec<bool>,
}

impl Sample {
    /// Evaluates the conditions of a definition on one of its samples, every step answered with its example.
    ///
    /// # Errors
    /// An expression fails on the sample; [`crate::check::check`] tells where.
    pub fn of(definition: &Definition, sample: &definition::Sample) -> Result<Self, EvalError> {
        let plan = definition.plan();
        let mut saga = saga_of(definition, sample)?;
        saga.data.values = Arc::new(definition.values(&saga)?);
        let mut found = Self {
            name: sample.name.clone(),
            stages: vec![false; plan.stages.len()],
            runs: vec![0; plan.steps.len()],
            applies: vec![false; plan.steps.len()],
        };
        for (stage, declared) in plan.stages.iter().enumerate() {
            if declared.conditional && !definition.stage_applies(stage, &saga)? {
                continue;
            }
            found.stages[stage] = true;
            let mut sent = Vec::new();
            for step in declared.steps.clone() {
                let items = items(definition, step, &saga)?;
                found.applies[step] = !items.is_empty();
                found.runs[step] = u8::try_from(items.len()).unwrap_or(u8::MAX);
                sent.extend(items.iter().enumerate().map(|(index, item)| RunData {
                    step: step as u8,
                    item_key: item.as_ref().map_or_else(|| Arc::from(""), |item| Arc::clone(&item.key)),
                    item: item.as_ref().map_or_else(Arc::default, |item| Arc::clone(&item.value)),
                    reply: Arc::new(definition.example_reply(sample, step, index)),
                    ..RunData::default()
                }));
            }
            saga.data.runs.extend(sent);
            if declared.wait.is_some() {
                saga.data.waits[stage] = Arc::new(taken(definition, sample, stage, &saga)?);
            }
        }
        Ok(found)
    }
}

/// The items of a step's runs; of an `of:` step one for each run it refers to.
fn items(definition: &Definition, step: usize, saga: &Saga) -> Result<Vec<Option<Item>>, EvalError> {
    Ok(match (definition.items(step, saga)?, definition.plan().steps[step].of) {
        (Items::None, _) => Vec::new(),
        (Items::One, None) => vec![None],
        (Items::Each(items), _) => items.into_iter().map(Some).collect(),
        (Items::One, Some(of)) => saga.data.runs_of(of).map(|_| None).collect(),
    })
}

/// The first example event that a wait takes.
fn taken(definition: &Definition, sample: &definition::Sample, stage: usize, saga: &Saga) -> Result<Json, EvalError> {
    for event in definition.example_events(sample, stage) {
        if definition.event_matches(stage, &event, saga)? {
            return Ok(event);
        }
    }
    Ok(Json::Null)
}
