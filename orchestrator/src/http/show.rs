//! Sagas as callers see them: bodies, rows of the view, timelines with names instead of indices.

use super::model::{SagaBody, TimelineEntry};
use crate::definitions::Definitions;
use crate::view::{Render, Undrawn, ViewRow};
use async_trait::async_trait;
use endstate_events::Json;
use endstate_http::{Timestamp, headers};
use endstate_outbox::StoreError;
use endstate_saga::definition::Definition;
use endstate_saga::event::{Event, Fact};
use endstate_saga::saga::{RunData, Saga};
use serde_json::{Map, json};

/// Bytes of a value that lists find a saga by: an index takes no long ones, and a definition need not bound them.
const INDEXED: usize = 512;

/// Address of a saga.
#[must_use]
pub fn location(definition: &str, number: &str) -> String {
    format!("/v1/sagas/{}/{}", headers::segment(definition), headers::segment(number))
}

/// A saga's row of the view.
#[must_use]
pub fn row(definition: &Definition, saga: &Saga) -> ViewRow {
    let outcome = saga.control.outcome();
    ViewRow {
        saga: saga.id,
        version: i64::try_from(saga.version).unwrap_or(i64::MAX),
        definition: saga.definition.to_string(),
        definition_version: saga.definition_version,
        number: saga.number.to_string(),
        // Never a part of it: that may be somebody else.
        owner: saga.owner.as_deref().filter(|owner| owner.len() <= INDEXED).map(str::to_owned),
        lane: saga.lane,
        status: saga.status.to_string(),
        phase: saga.control.phase(definition.plan()).label().to_owned(),
        outcome: outcome.map(|outcome| outcome.label().to_owned()),
        reason: saga.reason.as_deref().map(str::to_owned),
        view: definition.view_attributes(saga),
        search: pairs(definition.search_attributes(saga)),
        order: saga.link.as_ref().map(|link| link.order),
        started_ms: saga.started_ms,
        updated_ms: saga.changed_ms,
        ended_ms: outcome.map(|_| saga.changed_ms),
    }
}

/// A saga's body.
#[must_use]
pub fn body(definition: &Definition, saga: &Saga) -> SagaBody {
    row(definition, saga).into()
}

/// As much of a value as lists find it by.
#[must_use]
pub fn indexed(value: &str) -> &str {
    &value[..value.floor_char_boundary(INDEXED)]
}

/// One pair per value: a list is found by each of its elements.
fn pairs(attributes: Json) -> Vec<(String, String)> {
    let Json::Object(attributes) = attributes else { return Vec::new() };
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, value) in attributes {
        let values = if let Json::Array(values) = value { values } else { vec![value] };
        for value in values {
            let text = if let Json::String(text) = value { text } else { value.to_string() };
            let pair = (name.clone(), indexed(&text).to_owned());
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
    }
    pairs
}

#[async_trait]
impl Render for Definitions {
    fn render(&self, state: &str) -> Result<ViewRow, Undrawn> {
        let saga: Saga = serde_json::from_str(state).map_err(|error| Undrawn::Unreadable(error.to_string()))?;
        let definition = self.get(&saga.definition, saga.definition_version).ok_or_else(|| Undrawn::Undefined {
            definition: saga.definition.to_string(),
            version: saga.definition_version,
        })?;
        Ok(row(&definition, &saga))
    }

    async fn learn(&self, missing: Vec<(String, u32)>) -> Result<(), StoreError> {
        self.ensure(missing.iter().map(|(definition, version)| (definition.as_str(), *version))).await
    }
}

/// A saga's events for people: steps, items and stages by name.
#[must_use]
pub fn timeline(definition: &Definition, pages: Vec<(u64, i64, Vec<Event>)>) -> Vec<TimelineEntry> {
    let plan = definition.plan();
    let stage = |value: &Json| {
        let stage = value.as_u64().and_then(|stage| plan.stages.get(stage as usize));
        stage.map_or(Json::Null, |stage| json!(*stage.name))
    };
    let named = |run: &RunData| {
        let step = plan.steps.get(usize::from(run.step)).map_or("", |step| &*step.name);
        (step.to_owned(), run.item_key.to_string())
    };
    let mut runs: Vec<(String, String)> = Vec::new();
    let mut entries = Vec::new();
    let (mut next, mut whole) = (0, true);
    for (before, _, events) in pages {
        // Behind a gap nobody knows which run has which number, up to the snapshot that says it.
        whole &= before == next;
        next = before + events.len() as u64;
        for (version, event) in (before + 1..).zip(events) {
            if !whole && !matches!(event.fact, Fact::Snapshot(_)) {
                continue;
            }
            if let Fact::StageEntered { runs: entered, .. } = &event.fact {
                runs.extend(entered.iter().map(named));
            }
            if let Fact::Snapshot(saga) = &event.fact {
                (runs, whole) = (saga.data.runs.iter().map(named).collect(), true);
                entries.push(put_together(definition, saga, version, event.at_ms));
                continue;
            }
            let (name, mut data) = unfold(serde_json::to_value(&event.fact).unwrap_or_default());
            if let Some(index) = data.get("stage").map(&stage).filter(|name| !name.is_null()) {
                data.insert("stage".into(), index);
            }
            if let Some(run) = data.get("run").and_then(Json::as_u64).and_then(|run| runs.get(run as usize)) {
                data.remove("run");
                name_run(&mut data, run);
            }
            if let Some(Json::Array(list)) = data.get_mut("runs") {
                for value in list {
                    rename(value, &runs, plan);
                }
            }
            let (at, version) = (Timestamp(event.at_ms), i64::try_from(version).unwrap_or(i64::MAX));
            entries.push(TimelineEntry { version, at, event: name, data: Json::Object(data) });
        }
    }
    entries
}

/// What a timeline says of earlier events that were put together: of them, those of days that have gone are not shown.
fn put_together(definition: &Definition, saga: &Saga, version: u64, at_ms: i64) -> TimelineEntry {
    let data = json!({
        "says": format!("the {} earlier events were put together; of those, old ones are not kept", saga.version),
        "events": saga.version,
        "status": *saga.status,
        "phase": saga.control.phase(definition.plan()).label(),
        "reason": saga.reason,
        "state": saga.snapshot(definition.plan()),
    });
    let version = i64::try_from(version).unwrap_or(i64::MAX);
    TimelineEntry { version, at: Timestamp(at_ms), event: "snapshot".to_owned(), data }
}

fn name_run(data: &mut Map<String, Json>, (step, item): &(String, String)) {
    data.insert("step".into(), json!(step));
    if !item.is_empty() {
        data.insert("item".into(), json!(item));
    }
}

/// An entered run (its short field names spelled out), or the (run, time) of an undo.
fn rename(value: &mut Json, runs: &[(String, String)], plan: &endstate_saga::plan::Plan) {
    let mut named = Map::new();
    if let Json::Object(run) = value {
        let step = run.get("s").and_then(Json::as_u64).and_then(|step| plan.steps.get(step as usize));
        let item = run.get("i").and_then(Json::as_str).unwrap_or_default().to_owned();
        name_run(&mut named, &(step.map_or_else(String::new, |step| step.name.to_string()), item));
        named.insert("with".into(), run.get("w").cloned().unwrap_or_default());
    } else if let Some(run) = value.get(0).and_then(Json::as_u64).and_then(|run| runs.get(run as usize)) {
        name_run(&mut named, run);
    }
    *value = Json::Object(named);
}

/// Name and members of an externally tagged enum.
fn unfold(fact: Json) -> (String, Map<String, Json>) {
    match fact {
        Json::Object(fact) => match fact.into_iter().next() {
            Some((name, Json::Object(members))) => (name, members),
            Some((name, _)) => (name, Map::new()),
            None => (String::new(), Map::new()),
        },
        Json::String(name) => (name, Map::new()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) => (String::new(), Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_length_fit_into_the_indexes() {
        let long = "é".repeat(4_000);
        let pairs = pairs(json!({ "goods": [&long, "tea"], "n": 7 }));
        assert_eq!(pairs[0], ("goods".to_owned(), indexed(&long).to_owned()));
        assert!(pairs[0].1.len() <= INDEXED && long.starts_with(&pairs[0].1));
        assert_eq!(pairs[1..], [("goods".into(), "tea".into()), ("n".into(), "7".into())]);
    }
}
