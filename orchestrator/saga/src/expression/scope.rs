//! What one evaluation sees: a saga's data under the names of the language.

use super::interpret;
use super::path::Root;
use crate::plan::Plan;
use crate::saga::{Data, Saga};
use endstate_events::Json;
use serde_json::{Map, json};
use std::borrow::Cow;
use std::cell::OnceCell;

static NULL: Json = Json::Null;

/// The roots of one evaluation. What must be assembled (`steps`, `waits`, `saga`) or converted for the interpreter is
/// made on first use and kept, so that the expressions of one payload share it.
#[derive(Debug)]
pub struct Scope<'a> {
    input: &'a Json,
    values: &'a Json,
    order: &'a Json,
    event: Option<&'a Json>,
    item: Option<&'a Json>,
    recorded: Option<(&'a Plan, &'a Data)>,
    saga: Option<&'a Saga>,
    steps: OnceCell<Json>,
    waits: OnceCell<Json>,
    facts: OnceCell<Json>,
    interpreted: [OnceCell<Option<cel::Value>>; Root::ALL.len()],
}

impl<'a> Scope<'a> {
    /// Before a saga exists: its input, and the order it belongs to (null if none).
    #[must_use]
    pub fn of_input(input: &'a Json, order: &'a Json) -> Self {
        Self {
            input,
            values: &NULL,
            order,
            event: None,
            item: None,
            recorded: None,
            saga: None,
            steps: OnceCell::new(),
            waits: OnceCell::new(),
            facts: OnceCell::new(),
            interpreted: Default::default(),
        }
    }

    /// Over a saga.
    #[must_use]
    pub fn of(plan: &'a Plan, saga: &'a Saga) -> Self {
        Self {
            values: &saga.data.values,
            recorded: Some((plan, &saga.data)),
            saga: Some(saga),
            ..Self::of_input(&saga.data.input, &saga.data.order)
        }
    }

    /// Adds the event at hand.
    #[must_use]
    pub fn with_event(self, event: &'a Json) -> Self {
        Self { event: Some(event), ..self }
    }

    /// Adds the item at hand.
    #[must_use]
    pub fn with_item(self, item: Option<&'a Json>) -> Self {
        Self { item, ..self }
    }

    /// Replaces the values, while they are being computed.
    #[must_use]
    pub fn with_values(self, values: &'a Json) -> Self {
        Self { values, ..self }
    }

    /// The value at a path of fields, if every part of it exists.
    pub(super) fn walk(&self, root: Root, fields: &[String]) -> Option<Cow<'_, Json>> {
        let (start, fields) = match (root, fields, self.recorded) {
            // The usual `steps.NAME.field` and `waits.STAGE.field` need no assembly of all steps.
            (Root::Steps, [step, rest @ ..], Some((plan, data))) => {
                let index = plan.step(step).filter(|index| !plan.steps[*index].each)?;
                (&*data.runs_of(index).next()?.reply, rest)
            }
            (Root::Waits, [stage, rest @ ..], Some((plan, data))) => {
                let index = plan.stages.iter().position(|candidate| *candidate.name == **stage)?;
                (&**data.waits.get(index)?, rest)
            }
            _ => (self.root(root)?, fields),
        };
        let taken = matches!(root, Root::Steps | Root::Waits) && start.is_null();
        if taken {
            return None;
        }
        fields.iter().try_fold(start, |value, field| value.as_object()?.get(field)).map(Cow::Borrowed)
    }

    /// The whole of a root.
    fn root(&self, root: Root) -> Option<&Json> {
        match root {
            Root::Input => Some(self.input),
            Root::Values => Some(self.values),
            Root::Order => Some(self.order),
            Root::Event => self.event,
            Root::Item => self.item,
            Root::Steps => Some(self.steps.get_or_init(|| self.recorded.map_or_else(|| json!({}), steps_of))),
            Root::Waits => Some(self.waits.get_or_init(|| self.recorded.map_or_else(|| json!({}), waits_of))),
            Root::Saga => self.saga.map(|saga| self.facts.get_or_init(|| facts_of(saga))),
        }
    }

    /// A root as the interpreter wants it.
    pub(super) fn interpreted(&self, root: Root) -> Option<cel::Value> {
        self.interpreted[root as usize].get_or_init(|| self.root(root).map(interpret::from_json)).clone()
    }
}

/// `steps`: replies of the steps that are done; a list in item order under `each`.
fn steps_of((plan, data): (&Plan, &Data)) -> Json {
    let mut steps = Map::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let mut replies = data.runs_of(index).map(|run| &*run.reply).peekable();
        if step.each {
            if replies.peek().is_some() {
                steps.insert(step.name.to_string(), replies.cloned().collect());
            }
        } else if let Some(reply) = replies.find(|reply| !reply.is_null()) {
            steps.insert(step.name.to_string(), reply.clone());
        }
    }
    Json::Object(steps)
}

/// `waits`: the events taken.
fn waits_of((plan, data): (&Plan, &Data)) -> Json {
    let taken = plan.stages.iter().zip(&data.waits).filter(|(_, event)| !event.is_null());
    taken.map(|(stage, event)| (stage.name.to_string(), (**event).clone())).collect::<Map<_, _>>().into()
}

/// `saga`: what identifies it.
fn facts_of(saga: &Saga) -> Json {
    json!({
        "id": saga.id, "definition": saga.definition, "version": saga.definition_version, "number": saga.number,
        "key": saga.key, "owner": saga.owner, "started_ms": saga.started_ms,
    })
}
