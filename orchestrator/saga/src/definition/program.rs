//! Evaluation for `decide`: the plan's questions answered by the compiled expressions.

use super::Definition;
use super::draft::Within;
use super::duration;
use crate::expression::{Expression, Failure, Scope, Template, brief};
use crate::plan::{EvalError, Item, Items, LateStart, Payload, Plan, Program};
use crate::saga::Saga;
use crate::size;
use endstate_events::Json;
use serde_json::Map;
use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;

/// Longest key of an item: it becomes part of effect ids.
const MAX_ITEM_KEY: usize = 128;

/// Names the expression that failed.
pub(super) fn failed(place: impl Display) -> impl FnOnce(Failure) -> EvalError {
    move |failure| EvalError { place: place.to_string(), reason: failure.0 }
}

impl Program for Definition {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn values(&self, saga: &Saga) -> Result<Json, EvalError> {
        let mut values = Json::Object(Map::new());
        let mut bytes = 0;
        for (name, template) in &self.values {
            let scope = Scope::of(&self.plan, saga).with_values(&values);
            let value = template.evaluate(&scope).map_err(failed(format_args!("values.{name}")))?.into_owned();
            bytes += size::of(&value);
            let fits = size::check("what is computed", bytes, size::PAYLOAD_BYTES);
            fits.map_err(|reason| failed(format_args!("values.{name}"))(Failure(reason)))?;
            if let Json::Object(map) = &mut values {
                map.insert(name.to_string(), value);
            }
        }
        Ok(values)
    }

    fn has_values(&self) -> bool {
        !self.values.is_empty()
    }

    fn stage_applies(&self, stage: usize, saga: &Saga) -> Result<bool, EvalError> {
        let Some(when) = &self.stages[stage].when else { return Ok(true) };
        let place = || format!("stages.{}.when", self.plan.stages[stage].name);
        when.condition(&Scope::of(&self.plan, saga)).map_err(|failure| failed(place())(failure))
    }

    fn items(&self, step: usize, saga: &Saga) -> Result<Items, EvalError> {
        let rules = &self.steps[step];
        let name = &self.plan.steps[step].name;
        let scope = Scope::of(&self.plan, saga);
        if let Some(when) = &rules.when
            && !when.condition(&scope).map_err(failed(format_args!("steps.{name}.when")))?
        {
            return Ok(Items::None);
        }
        let (Some(each), Some(item_key)) = (&rules.each, &rules.item_key) else { return Ok(Items::One) };
        let list = each.evaluate(&scope).map_err(failed(format_args!("steps.{name}.each")))?;
        let place = format!("steps.{name}.each");
        let Json::Array(list) = &*list else {
            return Err(failed(place)(Failure(format!("expected a list, got {}", brief(&list)))));
        };
        if list.is_empty() {
            return Ok(Items::None);
        }
        if list.len() > rules.bound {
            let reason = format!("{} items, at most {} were declared", list.len(), rules.bound);
            return Err(failed(place)(Failure(reason)));
        }
        let items = list.iter().map(|value| self.item(step, item_key, value, saga)).collect::<Result<Vec<_>, _>>()?;
        let mut seen = HashSet::with_capacity(items.len());
        match items.iter().find(|item| !seen.insert(&item.key)) {
            Some(item) => Err(failed(place)(Failure(format!("two items have the key `{}`", item.key)))),
            None => Ok(Items::Each(items)),
        }
    }

    fn payload(&self, step: usize, item: Option<&Item>, saga: &Saga) -> Result<Payload, EvalError> {
        let rules = &self.steps[step];
        let scope = Scope::of(&self.plan, saga).with_item(item.map(|item| &*item.value));
        let place = || format!("steps.{}.with", self.plan.steps[step].name);
        payload(&rules.with, rules.key.as_deref(), &scope).map_err(|failure| failed(place())(failure))
    }

    fn within_ms(&self, stage: usize, saga: &Saga) -> Result<u64, EvalError> {
        let place = || format!("stages.{}.wait.within", self.plan.stages[stage].name);
        match self.stages[stage].wait.as_ref().map(|wait| &wait.within) {
            None => Err(failed(place())(Failure("the stage has no wait".to_owned()))),
            Some(Within::Fixed(ms)) => Ok(*ms),
            Some(Within::Computed(expression)) => {
                let scope = Scope::of(&self.plan, saga);
                let value = expression.evaluate(&scope).map_err(failed(place()))?;
                duration_of(&value).map_err(|reason| failed(place())(Failure(reason)))
            }
        }
    }

    fn event_matches(&self, stage: usize, event: &Json, saga: &Saga) -> Result<bool, EvalError> {
        let matches = self.stages[stage].wait.as_ref().and_then(|wait| wait.matches.as_ref());
        let Some(matches) = matches else { return Ok(true) };
        let place = || format!("stages.{}.wait.where", self.plan.stages[stage].name);
        let scope = Scope::of(&self.plan, saga).with_event(event);
        matches.condition(&scope).map_err(|failure| failed(place())(failure))
    }

    fn ask(&self, stage: usize, saga: &Saga) -> Result<Payload, EvalError> {
        let place = || format!("stages.{}.wait.ask", self.plan.stages[stage].name);
        let Some(wait) = &self.stages[stage].wait else {
            return Err(failed(place())(Failure("the stage has no wait".to_owned())));
        };
        payload(&wait.ask_with, wait.ask_key.as_deref(), &Scope::of(&self.plan, saga))
            .map_err(|failure| failed(place())(failure))
    }

    fn late(&self, event: usize, data: &Json, saga: &Saga) -> Result<LateStart, EvalError> {
        let place = |part: &str| format!("late.{}.{part}", self.plan.events[event].name);
        let Some(rule) = &self.events[event].late else {
            return Err(failed(place("start"))(Failure("the event has no late rule".to_owned())));
        };
        let scope = Scope::of(&self.plan, saga).with_event(data);
        let input = rule.with.evaluate(&scope).map_err(failed(place("with")))?.into_owned();
        let fits = size::check("the input", size::of(&input), size::PAYLOAD_BYTES)
            .and_then(|()| size::check("the snapshot", size::of(&saga.snapshot(&self.plan)), size::SNAPSHOT_BYTES));
        fits.map_err(|reason| failed(place("with"))(Failure(reason)))?;
        let number = rule.number.name(&scope).map_err(failed(place("number")))?;
        Ok(LateStart { definition: Arc::clone(&rule.start), number, input })
    }
}

impl Definition {
    fn item(&self, step: usize, item_key: &Expression, value: &Json, saga: &Saga) -> Result<Item, EvalError> {
        let place = || format!("steps.{}.item_key", self.plan.steps[step].name);
        let scope = Scope::of(&self.plan, saga).with_item(Some(value));
        let key = item_key.name(&scope).map_err(failed(place()))?;
        if key.len() > MAX_ITEM_KEY {
            return Err(failed(place())(Failure(format!("the key is longer than {MAX_ITEM_KEY} bytes"))));
        }
        Ok(Item { key: key.into(), value: Arc::new(value.clone()) })
    }
}

/// A payload and the routing key inside it.
fn payload(with: &Template, key: Option<&str>, scope: &Scope<'_>) -> Result<Payload, Failure> {
    let with = with.evaluate(scope)?.into_owned();
    size::check("the payload", size::of(&with), size::PAYLOAD_BYTES).map_err(Failure)?;
    let key = match key.map(|field| (field, with.get(field))) {
        None => None,
        Some((_, Some(Json::String(text)))) if !text.is_empty() => Some(Arc::from(text.as_str())),
        Some((_, Some(Json::Number(number)))) => Some(Arc::from(number.to_string())),
        Some((field, _)) => return Err(Failure(format!("`{field}` routes the command and must be text or a number"))),
    };
    Ok(Payload { with, key })
}

/// Whole seconds, or the text of a duration.
pub(super) fn duration_of(value: &Json) -> Result<u64, String> {
    match (value.as_i64(), value.as_str()) {
        (Some(seconds), _) => duration::of_seconds(seconds),
        (None, Some(text)) => duration::parse(text),
        (None, None) => Err(format!("expected seconds or a duration, got {}", brief(value))),
    }
}
