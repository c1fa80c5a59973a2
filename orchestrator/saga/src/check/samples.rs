//! A dry run of a definition on each sample: every stage entered that applies, every payload evaluated and held against
//! its action's schema, every step answered with its example.

use crate::control::Control;
use crate::definition::{Code, Complaints, Definition, Diagnostic, Position, Sample, Shape};
use crate::expression::Scope;
use crate::plan::{EvalError, Item, Items, Program};
use crate::saga::{Data, RunData, Saga};
use endstate_events::{Json, Lane, SagaId, Slot};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ways that a condition was seen to go.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    yes: bool,
    no: bool,
}

/// A condition of the definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    Stage(usize),
    Step(usize),
    Matches(usize),
}

/// What the samples covered.
#[derive(Default)]
struct Coverage {
    ways: BTreeMap<Condition, Ways>,
    entered: Vec<bool>,
}

impl Coverage {
    fn take(&mut self, condition: Condition, way: bool) {
        let ways = self.ways.entry(condition).or_default();
        ways.yes |= way;
        ways.no |= !way;
    }
}

pub(super) fn check(definition: &Definition, complaints: &Complaints) {
    if definition.samples.is_empty() {
        let diagnostic = Diagnostic::new(Code::NoSamples, &definition.at, "the definition has no samples");
        complaints.push(diagnostic.fix(format!("add samples/{}/NAME.json: {{ \"input\": ... }}", definition.name())));
        return;
    }
    let mut coverage = Coverage { entered: vec![false; definition.stages.len()], ..Coverage::default() };
    for sample in &definition.samples {
        if let Some(run) = DryRun::begin(definition, sample, complaints) {
            run.finish(&mut coverage);
        }
    }
    report_coverage(definition, &coverage, complaints);
}

fn report_coverage(definition: &Definition, coverage: &Coverage, complaints: &Complaints) {
    for (stage, rules) in definition.stages.iter().enumerate() {
        if !coverage.entered[stage] {
            let reason = format!("no sample enters stage `{}`", definition.plan.stages[stage].name);
            complaints.add(Code::Unreachable, &rules.at, reason);
        }
        if let Some(when) = &rules.when {
            report_ways(coverage, Condition::Stage(stage), &when.at, &when.text, complaints);
        }
        if let Some(matches) = rules.wait.as_ref().and_then(|wait| wait.matches.as_ref()) {
            report_ways(coverage, Condition::Matches(stage), &matches.at, &matches.text, complaints);
        }
    }
    for (step, rules) in definition.steps.iter().enumerate() {
        if let Some(when) = rules.when.as_ref().filter(|_| coverage.entered[definition.plan.steps[step].stage]) {
            report_ways(coverage, Condition::Step(step), &when.at, &when.text, complaints);
        }
    }
}

fn report_ways(coverage: &Coverage, condition: Condition, at: &Position, text: &str, complaints: &Complaints) {
    let ways = coverage.ways.get(&condition).copied().unwrap_or_default();
    // A stage whose condition never holds is unreachable, and said so.
    let covered = ways.yes && ways.no;
    if covered || (matches!(condition, Condition::Stage(_)) && !ways.yes) {
        return;
    }
    let missing = if ways.yes { "false" } else { "true" };
    let diagnostic = Diagnostic::new(Code::NotCovered, at, format!("no sample makes `={text}` {missing}"));
    complaints.push(diagnostic.fix(format!("add a sample in which it is {missing}")));
}

/// One sample on its way.
struct DryRun<'a> {
    definition: &'a Definition,
    sample: &'a Sample,
    complaints: &'a Complaints,
    saga: Saga,
}

/// A saga as a sample begins one. Also used by cases and the model check.
///
/// # Errors
/// When number, key or owner cannot be evaluated.
pub(crate) fn saga_of(definition: &Definition, sample: &Sample) -> Result<Saga, EvalError> {
    let identity = definition.identify(&sample.input, &sample.order)?;
    let key = identity.key.unwrap_or_else(|| "order-key".to_owned());
    Ok(Saga {
        id: SagaId::mint(0, Slot::of(&key), 0),
        definition: Arc::clone(definition.name()),
        definition_version: definition.version(),
        number: identity.number.into(),
        key: key.into(),
        owner: identity.owner.map(Arc::from),
        lane: Lane::Test,
        version: 0,
        started_ms: 0,
        changed_ms: 0,
        status: Arc::from(""),
        reason: None,
        snapshot_ms: None,
        control: Control::default(),
        data: Data {
            input: Arc::new(sample.input.clone()),
            order: Arc::new(sample.order.clone()),
            waits: std::iter::repeat_with(Arc::default).take(definition.stages.len()).collect(),
            ..Data::default()
        },
        link: None,
    })
}

impl<'a> DryRun<'a> {
    fn begin(definition: &'a Definition, sample: &'a Sample, complaints: &'a Complaints) -> Option<Self> {
        let at = Position::start_of(&Arc::from(format!("samples/{}/{}.json", definition.name(), sample.name)));
        let misfits = definition.misfits(&sample.input);
        for misfit in &misfits {
            complaints.add(Code::BadSample, &at, format!("the input does not fit its schema: {misfit}"));
        }
        let step = |name: &str| definition.plan.step(name).is_some();
        let stage = |name: &str| definition.plan.stages.iter().any(|stage| &*stage.name == name);
        let strangers = sample.replies.keys().filter(|name| !step(name)).map(|name| ("step", name));
        for (what, name) in
            strangers.chain(sample.events.keys().filter(|name| !stage(name)).map(|name| ("stage", name)))
        {
            complaints.add(Code::BadSample, &at, format!("there is no {what} `{name}`"));
        }
        if definition.order.is_some() == sample.order.is_null() {
            let reason = "a sample has `order` exactly when the definition declares `order`";
            complaints.add(Code::BadSample, &at, reason);
            return None;
        }
        if !misfits.is_empty() {
            return None;
        }
        let saga = saga_of(definition, sample);
        let run = |saga| Self { definition, sample, complaints, saga };
        saga.map(run).map_err(|error| complaints.add(Code::SampleFails, &definition.at, on(sample, &error))).ok()
    }

    fn finish(mut self, coverage: &mut Coverage) {
        match self.definition.values(&self.saga) {
            Ok(values) => self.saga.data.values = Arc::new(values),
            Err(error) => return self.fail(&self.definition.at, &error),
        }
        for stage in 0..self.definition.stages.len() {
            self.stage(stage, coverage);
        }
        self.late();
        self.starts_on();
    }

    /// Events that start sagas, on their examples: what they start must fit the input schema.
    fn starts_on(&self) {
        for rule in &self.definition.starts_on {
            match self.definition.start_input(&rule.event, &rule.kind.example) {
                Err(error) => self.fail(&rule.at, &error),
                Ok(input) => {
                    for misfit in input.map(|input| self.definition.misfits(&input)).unwrap_or_default() {
                        let reason = format!("what `{}` starts does not fit the input schema: {misfit}", rule.event);
                        self.complaints.add(Code::PayloadBreaksSchema, &rule.at, reason);
                    }
                }
            }
        }
    }

    fn fail(&self, at: &Position, error: &EvalError) {
        self.complaints.add(Code::SampleFails, at, on(self.sample, error));
    }

    fn stage(&mut self, stage: usize, coverage: &mut Coverage) {
        let rules = &self.definition.stages[stage];
        let applies = match self.definition.stage_applies(stage, &self.saga) {
            Ok(applies) => applies,
            Err(error) => return self.fail(rules.when.as_ref().map_or(&rules.at, |when| &when.at), &error),
        };
        if rules.when.is_some() {
            coverage.take(Condition::Stage(stage), applies);
        }
        if !applies {
            return;
        }
        coverage.entered[stage] = true;
        let steps = self.definition.plan.stages[stage].steps.clone();
        let runs: Vec<_> = steps.flat_map(|step| self.step(step, coverage)).collect();
        self.saga.data.runs.extend(runs);
        self.wait(stage, coverage);
    }

    fn step(&self, step: usize, coverage: &mut Coverage) -> Vec<RunData> {
        let rules = &self.definition.steps[step];
        let items = match self.definition.items(step, &self.saga) {
            Ok(items) => items,
            Err(error) => {
                self.fail(&rules.at, &error);
                return Vec::new();
            }
        };
        // An empty list skips the step too, which says nothing about its condition.
        let way =
            rules.when.as_ref().and_then(|when| when.condition(&Scope::of(&self.definition.plan, &self.saga)).ok());
        if let Some(way) = way {
            coverage.take(Condition::Step(step), way);
        }
        let items: Vec<Option<Item>> = match (items, self.definition.plan.steps[step].of) {
            (Items::None, _) => Vec::new(),
            (Items::One, None) => vec![None],
            (Items::Each(items), _) => items.into_iter().map(Some).collect(),
            (Items::One, Some(of)) => self.saga.data.runs_of(of).map(item_of).collect(),
        };
        items.iter().enumerate().filter_map(|(index, item)| self.run(step, index, item.as_ref())).collect()
    }

    fn run(&self, step: usize, index: usize, item: Option<&Item>) -> Option<RunData> {
        let rules = &self.definition.steps[step];
        let payload = match self.definition.payload(step, item, &self.saga) {
            Ok(payload) => payload,
            Err(error) => {
                self.fail(&rules.with_at, &error);
                return None;
            }
        };
        let shape =
            rules.action.as_ref().filter(|action| !action.with.is_null()).map(|action| Shape::compile(&action.with));
        for misfit in shape.and_then(Result::ok).map(|shape| shape.misfits(&payload.with)).unwrap_or_default() {
            let call = &self.definition.plan.steps[step].call;
            let reason = format!(
                "the payload of step `{}` breaks the schema of {}.{} on sample `{}`: {misfit}",
                self.definition.plan.steps[step].name, call.participant, call.action, self.sample.name
            );
            self.complaints.add(Code::PayloadBreaksSchema, &rules.with_at, reason);
        }
        Some(RunData {
            step: u8::try_from(step).unwrap_or(u8::MAX),
            item_key: item.map_or_else(|| Arc::from(""), |item| Arc::clone(&item.key)),
            item: item.map_or_else(|| Arc::new(Json::Null), |item| Arc::clone(&item.value)),
            with: Arc::new(payload.with),
            reply: Arc::new(self.definition.example_reply(self.sample, step, index)),
            key: payload.key,
            ..RunData::default()
        })
    }

    fn wait(&mut self, stage: usize, coverage: &mut Coverage) {
        let (Some(rules), Some(wait)) = (&self.definition.stages[stage].wait, &self.definition.plan.stages[stage].wait)
        else {
            return;
        };
        if let Err(error) = self.definition.within_ms(stage, &self.saga) {
            self.fail(&rules.at, &error);
        }
        if wait.ask.is_some()
            && let Err(error) = self.definition.ask(stage, &self.saga)
        {
            self.fail(&rules.at, &error);
        }
        for event in self.definition.example_events(self.sample, stage) {
            let kind = &self.definition.events[wait.event].kind;
            for misfit in Shape::compile(&kind.schema).map(|shape| shape.misfits(&event)).unwrap_or_default() {
                let reason = format!(
                    "an event of stage `{}` does not fit its schema: {misfit}",
                    self.definition.plan.stages[stage].name
                );
                self.complaints.add(Code::BadSample, &rules.at, format!("sample `{}`: {reason}", self.sample.name));
            }
            match self.definition.event_matches(stage, &event, &self.saga) {
                Err(error) => self.fail(rules.matches.as_ref().map_or(&rules.at, |matches| &matches.at), &error),
                Ok(matches) => {
                    coverage.take(Condition::Matches(stage), matches);
                    if matches && self.saga.data.waits[stage].is_null() {
                        self.saga.data.waits[stage] = Arc::new(event);
                    }
                }
            }
        }
    }

    /// Late rules on the events of the sample.
    fn late(&self) {
        for (index, rules) in self.definition.events.iter().enumerate() {
            let Some(late) = &rules.late else { continue };
            let waits = self.definition.plan.stages.iter().enumerate();
            let stages = waits.filter(|(_, stage)| stage.wait.as_ref().is_some_and(|wait| wait.event == index));
            let events = stages.flat_map(|(stage, _)| self.definition.example_events(self.sample, stage));
            for event in events.chain([rules.kind.example.clone()]).filter(|event| !event.is_null()) {
                if let Err(error) = self.definition.late(index, &event, &self.saga) {
                    self.fail(&late.at, &error);
                }
            }
        }
    }
}

fn item_of(run: &RunData) -> Option<Item> {
    let item = Item { key: Arc::clone(&run.item_key), value: Arc::clone(&run.item) };
    (!run.item_key.is_empty()).then_some(item)
}

fn on(sample: &Sample, error: &EvalError) -> String {
    format!("on sample `{}`: {error}", sample.name)
}
