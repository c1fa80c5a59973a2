//! Every path that an expression reads must exist: in the input schema, in the reply schema of an earlier step, in the
//! schema of an event. There is no type checker in CEL; a misspelt field would otherwise fail in flight.

use crate::definition::schema::{Found, resolve};
use crate::definition::{Code, Complaints, Definition, Diagnostic, Within};
use crate::expression::{Expression, Path, Root, Segment, Template};
use endstate_events::Json;

/// What an expression can see at its place.
#[derive(Clone, Copy)]
struct Site<'d> {
    roots: &'static [Root],
    /// Steps of stages below this index have run.
    steps_below: usize,
    /// Waits of stages below this index are over.
    waits_below: usize,
    /// Values before this index are computed.
    values_below: usize,
    /// The event at hand.
    event: Option<&'d Json>,
    /// The list whose item is at hand.
    item: Option<&'d Expression>,
}

const BEFORE: &[Root] = &[Root::Input, Root::Order];
const VALUES: &[Root] = &[Root::Input, Root::Order, Root::Values, Root::Saga];
const RUNNING: &[Root] = &[Root::Input, Root::Order, Root::Values, Root::Saga, Root::Steps, Root::Waits];
const WITH_ITEM: &[Root] = &[Root::Input, Root::Order, Root::Values, Root::Saga, Root::Steps, Root::Waits, Root::Item];
const WITH_EVENT: &[Root] =
    &[Root::Input, Root::Order, Root::Values, Root::Saga, Root::Steps, Root::Waits, Root::Event];
const LATE: &[Root] = &[Root::Input, Root::Order, Root::Values, Root::Saga, Root::Event];
const EVENT_ONLY: &[Root] = &[Root::Event];

/// Fields of `saga`.
const FACTS: [&str; 7] = ["id", "definition", "version", "number", "key", "owner", "started_ms"];

/// Fields of `order`.
const ORDER: [&str; 6] = ["id", "number", "input", "values", "steps", "waits"];

/// Checks every expression of a definition.
pub(crate) fn check(definition: &Definition, complaints: &Complaints) {
    let paths = Paths { definition, complaints };
    let none = Site { roots: BEFORE, steps_below: 0, waits_below: 0, values_below: 0, event: None, item: None };
    paths.expressions([Some(&definition.number), definition.key.as_ref(), definition.owner.as_ref()], none);
    paths.expressions([definition.order.as_ref().map(|order| &order.number)], Site { roots: &[Root::Input], ..none });
    for (index, (_, template)) in definition.values.iter().enumerate() {
        paths.template(template, Site { roots: VALUES, values_below: index, ..none });
    }
    let all = usize::MAX;
    let running = Site { roots: RUNNING, values_below: all, ..none };
    for (_, template) in definition.search.iter().chain(&definition.view) {
        paths.template(template, Site { steps_below: all, waits_below: all, ..running });
    }
    for stage in 0..definition.stages.len() {
        paths.stage(stage, Site { steps_below: stage, waits_below: stage, ..running });
    }
    for event in &definition.events {
        if let Some(late) = &event.late {
            let site = Site { roots: LATE, event: Some(&event.kind.schema), values_below: all, ..none };
            paths.expressions([Some(&late.number)], site);
            paths.template(&late.with, site);
        }
    }
    for rule in &definition.starts_on {
        let site = Site { roots: EVENT_ONLY, event: Some(&rule.kind.schema), ..none };
        paths.expressions([rule.when.as_ref()], site);
        paths.template(&rule.with, site);
    }
}

struct Paths<'a> {
    definition: &'a Definition,
    complaints: &'a Complaints,
}

impl<'a> Paths<'a> {
    fn stage(&self, index: usize, site: Site<'a>) {
        let rules = &self.definition.stages[index];
        self.expressions([rules.when.as_ref()], site);
        for step in self.definition.plan.stages[index].steps.clone() {
            let rules = &self.definition.steps[step];
            self.expressions([rules.when.as_ref(), rules.each.as_ref()], site);
            let list = self.definition.plan.steps[step].of.map_or(step, |of| of);
            let each = self.definition.steps[list].each.as_ref();
            let with_item = Site { roots: if each.is_some() { WITH_ITEM } else { RUNNING }, item: each, ..site };
            self.expressions([rules.item_key.as_ref()], with_item);
            self.template(&rules.with, with_item);
        }
        if let (Some(wait), Some(planned)) = (&rules.wait, &self.definition.plan.stages[index].wait) {
            // The stage's own steps have run when its wait opens.
            let site = Site { steps_below: index + 1, ..site };
            if let Within::Computed(within) = &wait.within {
                self.expressions([Some(within)], site);
            }
            self.template(&wait.ask_with, site);
            let schema = &self.definition.events[planned.event].kind.schema;
            self.expressions([wait.matches.as_ref()], Site { roots: WITH_EVENT, event: Some(schema), ..site });
        }
    }

    fn template(&self, template: &Template, site: Site<'a>) {
        template.expressions().into_iter().for_each(|expression| self.expression(expression, site));
    }

    fn expressions<'e>(&self, expressions: impl IntoIterator<Item = Option<&'e Expression>>, site: Site<'a>) {
        expressions.into_iter().flatten().for_each(|expression| self.expression(expression, site));
    }

    fn expression(&self, expression: &Expression, site: Site<'a>) {
        for path in &*expression.paths {
            if let Err(diagnostic) = self.path(path, expression, site) {
                self.complaints.push(*diagnostic);
            }
        }
    }

    fn path(&self, path: &Path, expression: &Expression, site: Site<'a>) -> Result<(), Box<Diagnostic>> {
        let root = path.root.label();
        let unknown = |reason: String| Diagnostic::new(Code::UnknownReference, &expression.at, reason);
        if !site.roots.contains(&path.root) {
            return Err(Box::new(unknown(format!("`{root}` is not visible here")).fix(visible(site.roots))));
        }
        if path.root == Root::Order && self.definition.order.is_none() {
            return Err(Box::new(unknown("the definition declares no `order`".to_owned())));
        }
        let found = match path.root {
            Root::Input => resolve(&self.definition.input_schema, &path.segments),
            Root::Event => site.event.map_or(Found::Open, |schema| resolve(schema, &path.segments)),
            Root::Item => self.item(path, site),
            Root::Saga => one_of(&path.segments, FACTS.into_iter()),
            Root::Order => one_of(&path.segments, ORDER.into_iter()),
            Root::Values => {
                let known = self.definition.values.iter().take(site.values_below).map(|(name, _)| &**name);
                one_of(&path.segments, known)
            }
            Root::Steps => self.step(path, site),
            Root::Waits => self.wait(path, site),
        };
        match found {
            Found::Schema(_) | Found::Open => Ok(()),
            Found::Missing { field, known } => {
                let diagnostic =
                    Diagnostic::new(Code::UnknownPath, &expression.at, format!("`{path}`: there is no `{field}`"));
                let suggested = diagnostic.suggest(&field, known.iter().copied());
                Err(Box::new(match suggested.fix {
                    None if !known.is_empty() => suggested.fix(format!("known here: {}", known.join(", "))),
                    _ => suggested,
                }))
            }
        }
    }

    /// `steps.NAME...`: an earlier step, then its reply's schema.
    fn step(&self, path: &Path, site: Site<'a>) -> Found<'a> {
        let Some((Segment::Field(name), rest)) = path.segments.split_first() else { return Found::Open };
        let plan = &self.definition.plan;
        let earlier = || plan.steps.iter().enumerate().filter(|(_, step)| step.stage < site.steps_below);
        let Some((index, step)) = earlier().find(|(_, step)| &*step.name == name) else {
            return Found::Missing { field: name.clone(), known: earlier().map(|(_, step)| &*step.name).collect() };
        };
        let Some(action) = &self.definition.steps[index].action else { return Found::Open };
        let rest = match rest.split_first() {
            Some((Segment::Element, rest)) if step.each => rest,
            Some((Segment::Field(field), _)) if step.each => {
                return Found::Missing { field: field.clone(), known: Vec::new() };
            }
            _ => rest,
        };
        if action.reply.is_null() { Found::Open } else { resolve(&action.reply, rest) }
    }

    /// `waits.STAGE...`: an earlier wait, then its event's schema.
    fn wait(&self, path: &Path, site: Site<'a>) -> Found<'a> {
        let Some((Segment::Field(name), rest)) = path.segments.split_first() else { return Found::Open };
        let stages = &self.definition.plan.stages;
        let earlier =
            || stages.iter().take(site.waits_below).filter_map(|stage| Some((&*stage.name, stage.wait.as_ref()?)));
        let Some((_, wait)) = earlier().find(|(stage, _)| stage == name) else {
            return Found::Missing { field: name.clone(), known: earlier().map(|(stage, _)| stage).collect() };
        };
        resolve(&self.definition.events[wait.event].kind.schema, rest)
    }

    /// `item...`: the element of the list at hand, when the list is a path of the input.
    fn item(&self, path: &Path, site: Site<'a>) -> Found<'a> {
        let list = site.item.and_then(|each| each.list.as_ref()).filter(|list| list.root == Root::Input);
        let Some(list) = list else { return Found::Open };
        let segments: Vec<_> =
            list.segments.iter().cloned().chain([Segment::Element]).chain(path.segments.iter().cloned()).collect();
        resolve(&self.definition.input_schema, &segments)
    }
}

fn one_of<'s>(segments: &[Segment], known: impl Iterator<Item = &'s str>) -> Found<'s> {
    let Some(Segment::Field(name)) = segments.first() else { return Found::Open };
    let known: Vec<_> = known.collect();
    if known.contains(&name.as_str()) { Found::Open } else { Found::Missing { field: name.clone(), known } }
}

fn visible(roots: &[Root]) -> String {
    let names: Vec<_> = roots.iter().map(|root| root.label()).collect();
    format!("visible here: {}", names.join(", "))
}
