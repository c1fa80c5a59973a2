//! From a draft to a definition: names resolved against the catalogue, the plan laid out, static rules checked.

mod rules;

use super::catalogue::{load_catalogue, read_own_event};
use super::diagnostic::{Code, Diagnostic};
use super::draft::{DeadlineDraft, Draft, LinkDraft, RetryDraft, StageDraft, StepDraft, WaitDraft};
use super::gateway::hex;
use super::node::{Node, Position};
use super::reader::{Complaints, Placed};
use super::sample::{json_error, read_samples};
use super::schema::{Found, Shape, resolve};
use super::source::Source;
use super::{Definition, EventRules, LateRule, OrderRule, ReplyShape, StageRules, StartsOn, StepRules, WaitRules};
use crate::expression::{Expression, Path, Root, Template};
use crate::plan::{
    AtDeadline, Call, Ends, EventRule, MAX_RUNS, MAX_STAGES, Mismatch, Pivot, Plan, Reason, Refused, Retry, Stage,
    Step, Wait,
};
use endstate_events::{Action, Catalogue, EventKind, Json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Most steps: their index is a byte in a saga's row.
const MAX_STEPS: usize = 255;

/// How closely a definition is looked at: for its author, or, accepted before, only for what it cannot run without.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    Author,
    Stored,
}

pub(super) fn load(source: &Source, care: Care) -> Result<Definition, Vec<Diagnostic>> {
    let file: Arc<str> = Arc::from(source.file.as_str());
    let node = Node::parse(&file, &source.text).map_err(|diagnostic| vec![diagnostic])?;
    let catalogue = load_catalogue(source.catalogue_files())?;
    let complaints = Complaints::default();
    let Some(draft) = Draft::read(&node, &complaints) else { return Err(complaints.into_sorted()) };
    let input = read_input_schema(&draft, source, &complaints);
    let advice = Complaints::default();
    let samples = read_samples(&source.samples, if care == Care::Author { &complaints } else { &advice });
    let (input_schema, input_shape) = match input {
        Some(input) => input,
        None => return Err(complaints.into_sorted()),
    };
    let linker =
        Linker { draft: &draft, source, catalogue: &catalogue, input_schema: &input_schema, complaints: &complaints };
    let linked = linker.link();
    if care == Care::Author {
        linker.check_rules(&linked);
    }
    let Linked { plan, stages, steps, events, starts_on } = linked;
    let definition = draft.number.clone().map(|number| Definition {
        sha256: fingerprint(source, &draft, &steps),
        at: draft.at.clone(),
        source: source.clone(),
        catalogue: Arc::new(catalogue.clone()),
        input_schema: input_schema.clone(),
        input_shape,
        number,
        key: draft.key.clone(),
        owner: draft.owner.clone(),
        started_by: draft.started_by.as_ref().map(|starter| starter.value).unwrap_or_default(),
        order: draft.order.as_ref().map(|order| OrderRule {
            saga: Arc::clone(&order.saga.value),
            number: order.number.clone(),
            outcome: order.outcome,
        }),
        values: named(&draft.values),
        search: named(&draft.search),
        view: named(&draft.view),
        plan,
        stages,
        steps,
        events,
        starts_on,
        replies: ReplyShape::all(&catalogue),
        samples,
    });
    if let Some(definition) = definition.as_ref().filter(|_| care == Care::Author) {
        crate::check::paths::check(definition, &complaints);
    }
    let diagnostics = complaints.into_sorted();
    definition.filter(|_| diagnostics.is_empty()).ok_or(diagnostics)
}

fn named(templates: &[(Placed<Arc<str>>, Template)]) -> Vec<(Arc<str>, Template)> {
    templates.iter().map(|(name, template)| (Arc::clone(&name.value), template.clone())).collect()
}

/// All that matters when sagas run. Samples and descriptions in catalogues may change; a version's meaning may not.
fn fingerprint(source: &Source, draft: &Draft, steps: &[StepRules]) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    part(&source.text);
    if let Some(schema) = draft.input.as_ref().and_then(|input| source.schemas.get(&*input.value)) {
        part(schema);
    }
    steps.iter().for_each(|step| part(step.key.as_deref().unwrap_or("")));
    hex(&hash.finalize())
}

fn read_input_schema(draft: &Draft, source: &Source, complaints: &Complaints) -> Option<(Json, Shape)> {
    let input = draft.input.as_ref()?;
    let Some(text) = source.schemas.get(&*input.value) else {
        complaints.add(Code::CannotRead, &input.at, format!("the schema `{}` is not there", input.value));
        return None;
    };
    let schema: Json = match serde_json::from_str(text) {
        Ok(schema) => schema,
        Err(error) => {
            complaints.push(json_error(Code::BadSchema, &input.value, &error));
            return None;
        }
    };
    match Shape::compile(&schema) {
        Ok(shape) if schema.get("properties").is_some() => Some((schema, shape)),
        Ok(_) => {
            complaints.add(
                Code::BadSchema,
                &input.at,
                "the schema of an input describes an object and has `properties`",
            );
            None
        }
        Err(reason) => {
            complaints.add(Code::BadSchema, &input.at, reason);
            None
        }
    }
}

/// What linking yields, before the definition is put together.
struct Linked {
    plan: Plan,
    stages: Vec<StageRules>,
    steps: Vec<StepRules>,
    events: Vec<EventRules>,
    starts_on: Vec<StartsOn>,
}

/// Resolves one draft.
struct Linker<'a> {
    draft: &'a Draft,
    source: &'a Source,
    catalogue: &'a Catalogue,
    input_schema: &'a Json,
    complaints: &'a Complaints,
}

impl Linker<'_> {
    fn link(&self) -> Linked {
        let events = self.link_events();
        let mut linked = Linked {
            plan: self.empty_plan(&events),
            stages: Vec::new(),
            steps: Vec::new(),
            starts_on: self.link_starts_on(),
            events,
        };
        for stage in &self.draft.stages {
            self.link_stage(stage, &mut linked);
        }
        linked.plan.forward_stages = linked.plan.stages.len();
        for stage in &self.draft.reverse {
            self.link_stage(stage, &mut linked);
        }
        linked
    }

    fn empty_plan(&self, events: &[EventRules]) -> Plan {
        let ends = &self.draft.ends;
        let status = |status: &Option<Arc<str>>| status.clone();
        let forced = status(&ends.forced).unwrap_or_else(|| Arc::from("closed"));
        let cancelled = status(&ends.cancelled).unwrap_or_else(|| Arc::clone(&forced));
        Plan {
            definition: Arc::clone(&self.draft.name),
            version: self.draft.version,
            stages: Vec::new(),
            forward_stages: 0,
            steps: Vec::new(),
            pivot: if self.draft.pivot_at_start.is_some() { Pivot::Start } else { Pivot::Never },
            events: self
                .event_names()
                .iter()
                .zip(events)
                .map(|(name, rules)| EventRule { name: Arc::clone(name), late: rules.late.is_some() })
                .collect(),
            reasons: self
                .draft
                .cancel
                .iter()
                .map(|reason| Reason {
                    name: Arc::clone(&reason.name.value),
                    role: Arc::clone(&reason.role),
                    after_pivot: reason.after_pivot,
                })
                .collect(),
            ends: Ends {
                completed: status(&ends.completed).unwrap_or_else(|| Arc::from("completed")),
                reversed: status(&ends.reversed).unwrap_or_else(|| Arc::clone(&forced)),
                cancelled,
                forced,
            },
        }
    }

    /// Names of the events of waits and late rules, each once, in the order of the file.
    fn event_names(&self) -> Vec<Arc<str>> {
        let waits =
            self.draft.stages.iter().chain(&self.draft.reverse).filter_map(|stage| stage.wait.as_ref()?.event.as_ref());
        let mut names: Vec<Arc<str>> = Vec::new();
        for name in waits.chain(self.draft.late.iter().map(|late| &late.event)) {
            if !names.contains(&name.value) {
                names.push(Arc::clone(&name.value));
            }
        }
        names
    }

    fn link_events(&self) -> Vec<EventRules> {
        let names = self.event_names();
        let link = |name: &Arc<str>| {
            let late = self.draft.late.iter().find(|late| late.event.value == *name);
            let waits = self.draft.stages.iter().chain(&self.draft.reverse).filter_map(|stage| stage.wait.as_ref());
            let at = late
                .map(|late| &late.event)
                .or_else(|| waits.filter_map(|wait| wait.event.as_ref()).find(|event| event.value == *name))
                .map_or(&self.draft.at, |event| &event.at);
            let kind = self.event_kind(name, at);
            let shape = Shape::compile(&kind.schema).ok();
            EventRules { kind, shape, late: late.and_then(|late| self.link_late(late)) }
        };
        names.iter().map(link).collect()
    }

    /// An event's declaration: the definition's own, or the catalogue's.
    fn event_kind(&self, name: &str, at: &Position) -> EventKind {
        let own = self.draft.events.iter().find(|(own, _)| *own.value == *name);
        if let Some((_, node)) = own {
            return read_own_event(node, self.complaints).unwrap_or_default();
        }
        if let Some(kind) = self.catalogue.event(name) {
            return kind.clone();
        }
        let known: Vec<String> = self
            .catalogue
            .participants
            .iter()
            .flat_map(|(participant, it)| it.events.keys().map(move |event| format!("{participant}.{event}")))
            .chain(self.draft.events.iter().map(|(own, _)| own.value.to_string()))
            .collect();
        let diagnostic = Diagnostic::new(Code::UnknownEvent, at, format!("there is no event `{name}`"))
            .suggest(name, known.iter().map(String::as_str));
        self.complaints.push(match diagnostic.fix {
            Some(_) => diagnostic,
            None => diagnostic.fix(format!("declare it: `events: {{ {name}: {{ schema: {{ ... }} }} }}`")),
        });
        EventKind { schema: serde_json::json!({ "additionalProperties": true }), ..EventKind::default() }
    }

    fn link_late(&self, late: &LinkDraft) -> Option<LateRule> {
        let start = late.start.as_ref()?;
        self.known_saga(start);
        Some(LateRule {
            at: late.event.at.clone(),
            start: Arc::clone(&start.value),
            number: late.number.clone()?,
            with: late.with.clone(),
        })
    }

    fn link_starts_on(&self) -> Vec<StartsOn> {
        let link = |rule: &LinkDraft| StartsOn::of(rule, self.event_kind(&rule.event.value, &rule.event.at));
        self.draft.starts_on.iter().map(link).collect()
    }

    fn known_saga(&self, name: &Placed<Arc<str>>) {
        let siblings = &self.source.siblings;
        if !siblings.is_empty() && !siblings.iter().any(|sibling| **sibling == *name.value) {
            let reason = format!("there is no definition `{}` beside this one", name.value);
            let diagnostic = Diagnostic::new(Code::UnknownSaga, &name.at, reason);
            self.complaints.push(diagnostic.suggest(&name.value, siblings.iter().map(String::as_str)));
        }
    }

    fn link_stage(&self, draft: &StageDraft, linked: &mut Linked) {
        let index = linked.plan.stages.len();
        let first = linked.plan.steps.len();
        if linked.plan.stages.iter().any(|stage| stage.name == draft.name.value) {
            self.complaints.add(Code::BadName, &draft.name.at, format!("there are two stages `{}`", draft.name.value));
        }
        for step in &draft.steps {
            self.link_step(step, index, linked);
        }
        if let Some(at) = &draft.pivot {
            if linked.plan.pivot != Pivot::Never || linked.plan.forward_stages > 0 {
                self.complaints.add(Code::PivotMisplaced, at, "there is one pivot, and it is a forward stage");
            } else {
                linked.plan.pivot = Pivot::Stage(index);
            }
        }
        linked.plan.stages.push(Stage {
            name: Arc::clone(&draft.name.value),
            status: draft.status.clone(),
            steps: first..linked.plan.steps.len(),
            wait: draft.wait.as_ref().and_then(|wait| self.link_wait(wait, &linked.plan)),
            conditional: draft.when.is_some(),
        });
        linked.stages.push(StageRules {
            at: draft.name.at.clone(),
            when: draft.when.clone(),
            wait: draft.wait.as_ref().and_then(|wait| self.wait_rules(wait)),
        });
    }

    fn link_wait(&self, draft: &WaitDraft, plan: &Plan) -> Option<Wait> {
        let event = plan.event(&draft.event.as_ref()?.value)?;
        let late = plan.events[event].late;
        let mismatch = draft.mismatch.unwrap_or(if late { Mismatch::Late } else { Mismatch::Park });
        if mismatch == Mismatch::Late && !late {
            let reason = format!("`mismatch: late` needs a `late` rule for `{}`", plan.events[event].name);
            self.complaints.add(Code::WrongValue, &draft.at, reason);
        }
        let at_deadline = match draft.at_deadline.as_ref()? {
            DeadlineDraft::Next => AtDeadline::Next,
            DeadlineDraft::Reverse => AtDeadline::Reverse,
            DeadlineDraft::Park => AtDeadline::Park,
            DeadlineDraft::Cancel(reason) => AtDeadline::Cancel { reason: self.reason(reason, plan)? },
        };
        if let Some(ask) = &draft.ask {
            self.action(ask);
        }
        Some(Wait {
            event,
            conditional: draft.matches.is_some(),
            mismatch,
            at_deadline,
            ask: draft.ask.as_ref().map(|ask| ask.value.clone()),
            retry: self.retry(&RetryDraft::default()),
        })
    }

    fn reason(&self, reason: &Placed<Arc<str>>, plan: &Plan) -> Option<usize> {
        let index = plan.reason(&reason.value);
        if index.is_none() {
            let text = format!("`{}` is not among the reasons of `cancel`", reason.value);
            let diagnostic = Diagnostic::new(Code::UnknownReason, &reason.at, text);
            self.complaints.push(diagnostic.suggest(&reason.value, plan.reasons.iter().map(|reason| &*reason.name)));
        }
        index
    }

    fn wait_rules(&self, draft: &WaitDraft) -> Option<WaitRules> {
        let ask = draft.ask.as_ref().and_then(|ask| self.catalogue.action(&ask.value.participant, &ask.value.action));
        Some(WaitRules {
            at: draft.at.clone(),
            matches: draft.matches.clone(),
            within: draft.within.clone()?,
            ask_with: draft.ask_with.clone(),
            ask_key: ask.and_then(|action| action.key.clone()),
        })
    }

    /// Looks an action up; complains when there is none.
    fn action(&self, call: &Placed<Call>) -> Option<&Action> {
        let Call { participant, action } = &call.value;
        let Some(found) = self.catalogue.participants.get(&**participant) else {
            let reason = format!("there is no participant `{participant}`");
            let names = self.catalogue.participants.keys().map(String::as_str);
            self.complaints
                .push(Diagnostic::new(Code::UnknownParticipant, &call.at, reason).suggest(participant, names));
            return None;
        };
        let known = found.actions.get(&**action);
        if known.is_none() {
            let reason = format!("`{participant}` has no action `{action}`");
            let names = found.actions.keys().map(String::as_str);
            self.complaints.push(Diagnostic::new(Code::UnknownAction, &call.at, reason).suggest(action, names));
        }
        known
    }

    fn link_step(&self, draft: &StepDraft, stage: usize, linked: &mut Linked) {
        if linked.plan.step(&draft.name.value).is_some() {
            self.complaints.add(Code::BadName, &draft.name.at, format!("there are two steps `{}`", draft.name.value));
        }
        let Some(call) = &draft.call else { return };
        let action = if call.value.is_saga() {
            self.known_saga(&Placed { value: Arc::clone(&call.value.action), at: call.at.clone() });
            None
        } else {
            self.action(call).cloned().map(Arc::new)
        };
        if let Some(undo) = draft.undo.as_ref().filter(|undo| !undo.value.is_saga()) {
            self.action(undo);
        }
        let of = draft.of.as_ref().and_then(|of| self.of(of, stage, &linked.plan));
        let bound = match (of, &draft.each) {
            (Some(of), _) => linked.steps[of].bound,
            (None, Some(each)) => self.bound(each, &draft.name),
            (None, None) => 1,
        };
        linked.plan.steps.push(Step {
            name: Arc::clone(&draft.name.value),
            stage,
            call: call.value.clone(),
            undo: draft.undo.as_ref().map(|undo| undo.value.clone()),
            refused: draft.refused.unwrap_or(if draft.best_effort { Refused::Skip } else { Refused::Compensate }),
            best_effort: draft.best_effort,
            of,
            each: of.map_or(draft.each.is_some(), |of| linked.plan.steps[of].each),
            retry: self.retry(&draft.retry),
            parked_status: draft.parked_status.clone(),
        });
        linked.steps.push(StepRules {
            at: draft.name.at.clone(),
            when: draft.when.clone(),
            each: draft.each.clone(),
            item_key: draft.item_key.clone(),
            with: draft.with.clone(),
            with_at: draft.with_at.clone(),
            key: action.as_ref().and_then(|action| action.key.clone()),
            action,
            no_undo: draft.no_undo.clone(),
            bound,
        });
    }

    fn of(&self, of: &Placed<Arc<str>>, stage: usize, plan: &Plan) -> Option<usize> {
        let complain = |reason: String| {
            let names = plan.steps.iter().filter(|step| step.stage < stage).map(|step| &*step.name);
            self.complaints.push(Diagnostic::new(Code::BadReference, &of.at, reason).suggest(&of.value, names));
        };
        let Some(index) = plan.step(&of.value) else {
            complain(format!("no earlier stage has a step `{}`", of.value));
            return None;
        };
        if plan.steps[index].stage == stage {
            complain(format!("`{}` runs in the same stage: there is no earlier run to refer to", of.value));
            return None;
        }
        if plan.steps[index].of.is_some() {
            complain(format!("`{}` itself uses `of`", of.value));
            return None;
        }
        Some(index)
    }

    /// Most items of a list under `each`.
    fn bound(&self, each: &Expression, step: &Placed<Arc<str>>) -> usize {
        let bound = each.list.as_ref().and_then(|path| self.bound_of(path, 0));
        bound.unwrap_or_else(|| {
            let reason = format!("nothing bounds the list `={}` of step `{}`", each.text, step.value);
            let diagnostic = Diagnostic::new(Code::UnboundedList, &each.at, reason);
            self.complaints.push(diagnostic.fix("give the list `maxItems` in its schema, and let `each` be its path"));
            1
        })
    }

    fn bound_of(&self, path: &Path, depth: usize) -> Option<usize> {
        use crate::expression::Segment;
        match (path.root, path.segments.as_slice()) {
            (Root::Input, segments) => match resolve(self.input_schema, segments) {
                Found::Schema(schema) => usize::try_from(schema.get("maxItems")?.as_u64()?).ok(),
                Found::Open | Found::Missing { .. } => None,
            },
            // A value's list is bounded by the list it is made from; values see earlier values only.
            (Root::Values, [Segment::Field(name)]) if depth < self.draft.values.len() => {
                let (_, template) = self.draft.values.iter().find(|(value, _)| *value.value == **name)?;
                match template {
                    Template::Computed(expression) => self.bound_of(expression.list.as_ref()?, depth + 1),
                    Template::Literal(Json::Array(items)) => Some(items.len()),
                    Template::List(items) => Some(items.len()),
                    Template::Literal(_) | Template::Map(_) => None,
                }
            }
            _ => None,
        }
    }

    /// A ladder: what a step writes, else what the definition writes, else the defaults.
    fn retry(&self, own: &RetryDraft) -> Retry {
        const DEFAULT_WAITS: [(u64, usize); 3] = [(1_000, 5), (30_000, 10), (300_000, 12)];
        let common = &self.draft.retry;
        let waits = own.waits_ms.clone().or_else(|| common.waits_ms.clone());
        Retry {
            timeout_ms: own.timeout_ms.or(common.timeout_ms).unwrap_or(5_000),
            ask_after_ms: own.ask_after_ms.or(common.ask_after_ms).unwrap_or(10_000),
            waits_ms: waits.unwrap_or_else(|| {
                DEFAULT_WAITS.iter().flat_map(|(wait, times)| std::iter::repeat_n(*wait, *times)).collect()
            }),
        }
    }
}
