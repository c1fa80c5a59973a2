//! For whoever queues starts and shows sagas: inputs checked, numbers and keys computed, attributes read.

use super::program::failed;
use super::{Definition, Misfit};
use crate::control::Outcome;
use crate::expression::{Scope, Template};
use crate::plan::EvalError;
use crate::saga::Saga;
use endstate_events::{Json, Lane, Transport};
use serde_json::Map;
use sha2::{Digest, Sha256};
use std::sync::Arc;

static NULL: Json = Json::Null;

/// What identifies a saga before it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Business number.
    pub number: String,
    /// Routing key; `None` when the saga runs under its order's key.
    pub key: Option<String>,
    /// Who may read and cancel it.
    pub owner: Option<String>,
}

/// The saga that a saga belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderReference {
    /// Its definition's name.
    pub definition: Arc<str>,
    /// Its business number.
    pub number: String,
    /// How it must have ended; none: however it stands.
    pub outcome: Option<Outcome>,
}

impl OrderReference {
    /// The words of the language for an outcome.
    pub(super) const OUTCOMES: [(&str, Outcome); 4] = [
        ("completed", Outcome::Completed),
        ("cancelled", Outcome::Cancelled),
        ("reversed", Outcome::Reversed),
        ("forced", Outcome::Forced),
    ];
}

/// Who may ask for a saga of a definition from outside (`started_by`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Starter {
    /// Its owner, for themselves; and services.
    Owner,
    /// Services only: what decides about money comes from one of ours, not from the customer who pays.
    #[default]
    Service,
    /// Another saga, by `late` or `call`; by hand nobody below an operator.
    Link,
}

impl Starter {
    /// The words of the language.
    pub(crate) const WORDS: [(&'static str, Self); 3] =
        [("owner", Self::Owner), ("service", Self::Service), ("link", Self::Link)];
}

impl Definition {
    /// Who may ask for a saga of it from outside.
    #[must_use]
    pub fn started_by(&self) -> Starter {
        self.started_by
    }

    /// The participant of the catalogue that tells an event, and how it is reached; none for the definition's own events.
    #[must_use]
    pub fn teller<'e>(&self, event: &'e str) -> Option<(&'e str, &Transport)> {
        self.catalogue.event(event)?;
        let (participant, _) = event.split_once('.')?;
        Some((participant, &self.catalogue.participants.get(participant)?.transport))
    }

    /// Checks an event's data against its declaration; empty when it fits, or when nobody waits for such an event.
    #[must_use]
    pub fn event_misfits(&self, event: &str, data: &Json) -> Vec<Misfit> {
        let waited = self.plan.event(event).and_then(|index| self.events[index].shape.as_ref());
        let starts = || self.starts_on.iter().find(|rule| &*rule.event == event).and_then(|rule| rule.shape.as_ref());
        waited.or_else(starts).map(|shape| shape.misfits(data)).unwrap_or_default()
    }

    /// How the data of a done reply breaks what the catalogue promises; none when it fits, when nothing is promised, and
    /// for what is built in.
    #[must_use]
    pub fn reply_misfit(&self, participant: &str, action: &str, data: &Json) -> Option<Misfit> {
        let known = self.replies.iter().find(|known| known.participant == participant && known.action == action)?;
        known.shape.misfits(data).into_iter().next()
    }

    /// Checks an input against the definition's schema; empty when it fits.
    #[must_use]
    pub fn misfits(&self, input: &Json) -> Vec<Misfit> {
        self.input_shape.misfits(input)
    }

    /// The order that a start with this input belongs to, if the definition declares one (`order`). Its `input`, `steps`
    /// and `waits` must be copied into the start.
    ///
    /// # Errors
    /// When the expression fails on this input.
    pub fn order_reference(&self, input: &Json) -> Result<Option<OrderReference>, EvalError> {
        let Some(order) = &self.order else { return Ok(None) };
        let number = order.number.name(&Scope::of_input(input, &NULL)).map_err(failed("order.number"))?;
        Ok(Some(OrderReference { definition: Arc::clone(&order.saga), number, outcome: order.outcome }))
    }

    /// Number, key and owner of a start. `order` is the snapshot of the order it belongs to, null if none.
    ///
    /// # Errors
    /// When an expression fails on this input.
    pub fn identify(&self, input: &Json, order: &Json) -> Result<Identity, EvalError> {
        let scope = Scope::of_input(input, order);
        Ok(Identity {
            number: self.number.name(&scope).map_err(failed("number"))?,
            key: self.key.as_ref().map(|key| key.name(&scope)).transpose().map_err(failed("key"))?,
            owner: self.owner.as_ref().map(|owner| owner.name(&scope)).transpose().map_err(failed("owner"))?,
        })
    }

    /// The attributes by which lists find a saga. What is not known yet is left out.
    #[must_use]
    pub fn search_attributes(&self, saga: &Saga) -> Json {
        self.attributes(&self.search, saga)
    }

    /// What details of a saga show. What is not known yet is left out.
    #[must_use]
    pub fn view_attributes(&self, saga: &Saga) -> Json {
        self.attributes(&self.view, saga)
    }

    fn attributes(&self, templates: &[(Arc<str>, Template)], saga: &Saga) -> Json {
        let scope = Scope::of(&self.plan, saga);
        let known = templates.iter().filter_map(|(name, template)| {
            let value = template.evaluate(&scope).ok().filter(|value| !value.is_null())?;
            Some((name.to_string(), value.into_owned()))
        });
        known.collect::<Map<_, _>>().into()
    }

    /// Names of the events of other teams that start a saga of this definition.
    pub fn start_events(&self) -> impl Iterator<Item = &Arc<str>> {
        self.starts_on.iter().map(|rule| &rule.event)
    }

    /// The input of the saga that such an event starts; `None` when it starts none.
    ///
    /// # Errors
    /// When an expression fails on this event.
    pub fn start_input(&self, event: &str, data: &Json) -> Result<Option<Json>, EvalError> {
        let Some(rule) = self.starts_on.iter().find(|rule| &*rule.event == event) else { return Ok(None) };
        let scope = Scope::of_input(&NULL, &NULL).with_event(data);
        let applies = rule.when.as_ref().map_or(Ok(true), |when| when.condition(&scope));
        if !applies.map_err(failed(format_args!("starts_on.{event}.when")))? {
            return Ok(None);
        }
        let input = rule.with.evaluate(&scope).map_err(failed(format_args!("starts_on.{event}.with")))?;
        Ok(Some(input.into_owned()))
    }
}

/// SHA-256, in hex, of an input, its key and its lane, independent of the order of fields: the same number with another
/// body is refused, and so is one that rehearsed traffic has used up. Live hashes are those of programs that knew no
/// other lanes here.
#[must_use]
pub fn body_hash(input: &Json, key: &str, lane: Lane) -> String {
    let mut hash = Sha256::new();
    match lane {
        Lane::Live => {}
        // No key is that long, so no live body has the same hash.
        Lane::Test | Lane::Load => {
            hash.update(u64::MAX.to_be_bytes());
            hash.update(lane.label());
        }
    }
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key);
    let mut text = String::new();
    canonical(input, &mut text);
    hash.update(text);
    hex(&hash.finalize())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON with sorted fields and no spaces, whatever order the parser kept.
fn canonical(value: &Json, out: &mut String) {
    match value {
        Json::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (index, (name, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Json::from(name.as_str()).to_string());
                out.push(':');
                canonical(value, out);
            }
            out.push('}');
        }
        Json::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => out.push_str(&value.to_string()),
    }
}
