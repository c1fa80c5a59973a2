//! Definitions: from YAML to a [`Plan`] with compiled expressions.
//!
//! The way of a file: [`Source`] collects its texts, `node` reads YAML with positions, `draft` types every construct,
//! `link` resolves names against the catalogue and lays out the plan. The result evaluates its expressions for `decide`
//! ([`Program`](crate::plan::Program)) and for the gateway.

mod catalogue;
mod code;
mod diagnostic;
mod draft;
mod duration;
mod gateway;
pub(crate) mod keys;
mod link;
mod node;
mod program;
mod reader;
mod sample;
pub(crate) mod schema;
mod shipped;
mod source;
#[cfg(test)]
mod answers;
#[cfg(test)]
pub(crate) mod gift;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod tests;

pub use catalogue::{BUILTIN, BUILTIN_NAME, load_catalogue};
pub use diagnostic::{Code, Diagnostic};
pub(crate) use draft::Within;
pub(crate) use duration::parse as parse_duration;
pub use gateway::{Identity, OrderReference, Starter, body_hash};
pub use node::{Key, Kind, Node, Position};
pub use reader::Complaints;
pub(crate) use reader::Fields;
pub use sample::Sample;
pub use schema::{Misfit, Shape};
pub use shipped::shipped;
pub use source::Source;
pub(crate) use source::paths_of;

use crate::control::Outcome;
use crate::expression::{Expression, Template};
use crate::plan::Plan;

use endstate_events::{Action, Catalogue, EventKind, Json, Transport};
use link::Care;
use std::sync::Arc;

/// One loaded version of a definition.
#[derive(Debug)]
pub struct Definition {
    pub(crate) plan: Plan,
    pub(crate) at: Position,
    pub(crate) source: Source,
    pub(crate) sha256: String,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) input_schema: Json,
    pub(crate) input_shape: Shape,
    pub(crate) number: Expression,
    pub(crate) key: Option<Expression>,
    pub(crate) owner: Option<Expression>,
    pub(crate) started_by: Starter,
    pub(crate) order: Option<OrderRule>,
    pub(crate) values: Vec<(Arc<str>, Template)>,
    pub(crate) search: Vec<(Arc<str>, Template)>,
    pub(crate) view: Vec<(Arc<str>, Template)>,
    pub(crate) stages: Vec<StageRules>,
    pub(crate) steps: Vec<StepRules>,
    pub(crate) events: Vec<EventRules>,
    pub(crate) starts_on: Vec<StartsOn>,
    pub(crate) replies: Vec<ReplyShape>,
    pub(crate) samples: Vec<Sample>,
}

/// Expressions of a stage; beside the plan's stage of the same index.
#[derive(Debug)]
pub(crate) struct StageRules {
    pub(crate) at: Position,
    pub(crate) when: Option<Expression>,
    pub(crate) wait: Option<WaitRules>,
}

/// Expressions of a wait.
#[derive(Debug)]
pub(crate) struct WaitRules {
    pub(crate) at: Position,
    pub(crate) matches: Option<Expression>,
    pub(crate) within: Within,
    pub(crate) ask_with: Template,
    pub(crate) ask_key: Option<String>,
}

/// Expressions of a step; beside the plan's step of the same index.
#[derive(Debug)]
pub(crate) struct StepRules {
    pub(crate) at: Position,
    pub(crate) when: Option<Expression>,
    pub(crate) each: Option<Expression>,
    pub(crate) item_key: Option<Expression>,
    pub(crate) with: Template,
    pub(crate) with_at: Position,
    /// The field of the payload that routes the command.
    pub(crate) key: Option<String>,
    /// What the catalogue says; `None` for a called saga.
    pub(crate) action: Option<Arc<Action>>,
    /// Why nothing undoes it.
    pub(crate) no_undo: Option<Arc<str>>,
    /// Most runs.
    pub(crate) bound: usize,
}

/// An event of the definition; beside the plan's event of the same index.
#[derive(Debug)]
pub(crate) struct EventRules {
    pub(crate) kind: EventKind,
    /// Its compiled schema.
    pub(crate) shape: Option<Shape>,
    pub(crate) late: Option<LateRule>,
}

/// What a late event starts.
#[derive(Debug)]
pub(crate) struct LateRule {
    pub(crate) at: Position,
    pub(crate) start: Arc<str>,
    pub(crate) number: Expression,
    pub(crate) with: Template,
}

/// An event of another team that starts a saga.
#[derive(Debug)]
pub(crate) struct StartsOn {
    pub(crate) at: Position,
    pub(crate) event: Arc<str>,
    pub(crate) kind: EventKind,
    /// Its compiled schema.
    pub(crate) shape: Option<Shape>,
    pub(crate) when: Option<Expression>,
    pub(crate) with: Template,
}

impl StartsOn {
    fn of(rule: &draft::LinkDraft, kind: EventKind) -> Self {
        Self {
            at: rule.event.at.clone(),
            event: Arc::clone(&rule.event.value),
            shape: Shape::compile(&kind.schema).ok(),
            kind,
            when: rule.when.clone(),
            with: rule.with.clone(),
        }
    }
}

/// What a participant promises that its replies look like.
#[derive(Debug)]
pub(crate) struct ReplyShape {
    pub(crate) participant: String,
    pub(crate) action: String,
    pub(crate) shape: Shape,
}

impl ReplyShape {
    /// Those of the catalogue's participants outside this program; nobody checks what is built in.
    fn all(catalogue: &Catalogue) -> Vec<Self> {
        let outside = catalogue.participants.iter().filter(|(_, known)| known.transport != Transport::Builtin);
        let actions = outside.flat_map(|(name, known)| known.actions.iter().map(move |action| (name, action)));
        let shape = |(participant, (action, known)): (&String, (&String, &Action))| {
            let schema = Some(&known.reply).filter(|schema| !schema.is_null())?;
            let (participant, action) = (participant.clone(), action.clone());
            // A schema that does not compile was never loaded.
            Some(Self { participant, action, shape: Shape::compile(schema).ok()? })
        };
        actions.filter_map(shape).collect()
    }
}

/// The order that a saga belongs to.
#[derive(Debug)]
pub(crate) struct OrderRule {
    pub(crate) saga: Arc<str>,
    pub(crate) number: Expression,
    /// How it must have ended; none: however it stands.
    pub(crate) outcome: Option<Outcome>,
}

impl Definition {
    /// Loads a definition from its texts: everything that can be told without running it is checked. What needs its
    /// samples is [`crate::check::check`].
    ///
    /// # Errors
    /// All complaints, in the order of the file.
    pub fn load(source: &Source) -> Result<Self, Vec<Diagnostic>> {
        link::load(source, Care::Author)
    }

    /// Loads a definition that was accepted before, perhaps by an older program: what it means must be clear, but rules
    /// and samples are its author's affair and were looked at then. A rule that is made stricter later stops no saga.
    ///
    /// # Errors
    /// Why it can no longer be understood.
    pub fn reload(source: &Source) -> Result<Self, Vec<Diagnostic>> {
        link::load(source, Care::Stored)
    }

    /// Its control shape.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.plan.definition
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.plan.version
    }

    /// Its texts.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// SHA-256, in hex, of all that matters when sagas run: the definition, its schemas, and how its actions route.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The participants it was loaded with.
    #[must_use]
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// The JSON Schema of its input.
    #[must_use]
    pub fn input_schema(&self) -> &Json {
        &self.input_schema
    }

    /// Its samples, by name.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Why nothing undoes a step, in its author's words.
    #[must_use]
    pub fn no_undo(&self, step: usize) -> Option<&str> {
        self.steps[step].no_undo.as_deref()
    }

    /// Example data of a step's reply: the sample's, or else the catalogue's. Under `each` a sample may give a list, one
    /// reply per item.
    #[must_use]
    pub fn example_reply(&self, sample: &Sample, step: usize, item: usize) -> Json {
        let given = sample.replies.get(&*self.plan.steps[step].name);
        match given {
            Some(Json::Array(replies)) if self.plan.steps[step].each => replies.get(item).cloned(),
            Some(reply) => Some(reply.clone()),
            None => self.steps[step].action.as_ref().map(|action| action.example.clone()),
        }
        .unwrap_or_else(|| serde_json::json!({}))
    }

    /// The example of an event's declaration; an index of the plan's events.
    #[must_use]
    pub fn example_event(&self, event: usize) -> Json {
        self.events[event].kind.example.clone()
    }

    /// Example events of a stage's wait: the sample's, or else the example of the event's declaration.
    #[must_use]
    pub fn example_events(&self, sample: &Sample, stage: usize) -> Vec<Json> {
        let Some(wait) = &self.plan.stages[stage].wait else { return Vec::new() };
        match sample.events.get(&*self.plan.stages[stage].name) {
            Some(events) => events.clone(),
            None => vec![self.events[wait.event].kind.example.clone()],
        }
    }
}
