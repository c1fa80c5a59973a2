//! A definition as written: every construct typed and placed, names not yet resolved.

use super::diagnostic::{Code, Diagnostic};
use super::duration;
use super::gateway::{OrderReference, Starter};
use super::keys::{DEFINITION, STAGE, STEP, WAIT};
use super::node::{Kind, Node, Position};
use super::reader::{self, Complaints, Fields, Placed};
use crate::control::Outcome;
use crate::expression::{Expression, Template};
use crate::plan::{AfterPivot, Call, Mismatch, Refused};
use std::sync::Arc;

/// A definition as written.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) at: Position,
    pub(super) name: Arc<str>,
    pub(super) version: u32,
    pub(super) input: Option<Placed<Arc<str>>>,
    pub(super) number: Option<Expression>,
    pub(super) key: Option<Expression>,
    pub(super) owner: Option<Expression>,
    pub(super) started_by: Option<Placed<Starter>>,
    pub(super) search: Vec<(Placed<Arc<str>>, Template)>,
    pub(super) view: Vec<(Placed<Arc<str>>, Template)>,
    pub(super) values: Vec<(Placed<Arc<str>>, Template)>,
    pub(super) retry: RetryDraft,
    pub(super) pivot_at_start: Option<Position>,
    pub(super) stages: Vec<StageDraft>,
    pub(super) reverse: Vec<StageDraft>,
    pub(super) cancel: Vec<ReasonDraft>,
    pub(super) late: Vec<LinkDraft>,
    pub(super) starts_on: Vec<LinkDraft>,
    pub(super) order: Option<OrderDraft>,
    pub(super) events: Vec<(Placed<Arc<str>>, Node)>,
    pub(super) ends: EndsDraft,
}

/// A stage as written.
#[derive(Debug)]
pub(super) struct StageDraft {
    pub(super) name: Placed<Arc<str>>,
    pub(super) status: Option<Arc<str>>,
    pub(super) when: Option<Expression>,
    pub(super) steps: Vec<StepDraft>,
    pub(super) wait: Option<WaitDraft>,
    pub(super) pivot: Option<Position>,
}

/// A step as written.
#[derive(Debug)]
pub(super) struct StepDraft {
    pub(super) name: Placed<Arc<str>>,
    pub(super) call: Option<Placed<Call>>,
    pub(super) each: Option<Expression>,
    pub(super) item_key: Option<Expression>,
    pub(super) when: Option<Expression>,
    pub(super) with: Template,
    pub(super) with_at: Position,
    pub(super) undo: Option<Placed<Call>>,
    pub(super) no_undo: Option<Arc<str>>,
    pub(super) of: Option<Placed<Arc<str>>>,
    pub(super) refused: Option<Refused>,
    pub(super) best_effort: bool,
    pub(super) parked_status: Option<Arc<str>>,
    pub(super) retry: RetryDraft,
}

/// A wait as written.
#[derive(Debug)]
pub(super) struct WaitDraft {
    pub(super) at: Position,
    pub(super) event: Option<Placed<Arc<str>>>,
    pub(super) matches: Option<Expression>,
    pub(super) mismatch: Option<Mismatch>,
    pub(super) within: Option<Within>,
    pub(super) ask: Option<Placed<Call>>,
    pub(super) ask_with: Template,
    pub(super) at_deadline: Option<DeadlineDraft>,
}

/// How long a wait stays open.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Within {
    /// A duration, in milliseconds.
    Fixed(u64),
    /// An expression that gives whole seconds, or the text of a duration.
    Computed(Expression),
}

/// What happens at a deadline, as written.
#[derive(Clone, Debug)]
pub(super) enum DeadlineDraft {
    Next,
    Reverse,
    Park,
    Cancel(Placed<Arc<str>>),
}

/// Parts of a ladder that are written; the rest is inherited.
#[derive(Clone, Debug, Default)]
pub(super) struct RetryDraft {
    pub(super) timeout_ms: Option<u64>,
    pub(super) ask_after_ms: Option<u64>,
    pub(super) waits_ms: Option<Arc<[u64]>>,
}

/// A cancel reason as written.
#[derive(Debug)]
pub(super) struct ReasonDraft {
    pub(super) name: Placed<Arc<str>>,
    pub(super) role: Arc<str>,
    pub(super) after_pivot: AfterPivot,
}

/// `late` and `starts_on`: an event that starts a saga.
#[derive(Debug)]
pub(super) struct LinkDraft {
    pub(super) event: Placed<Arc<str>>,
    pub(super) start: Option<Placed<Arc<str>>>,
    pub(super) when: Option<Expression>,
    pub(super) number: Option<Expression>,
    pub(super) with: Template,
}

/// The order that a saga belongs to.
#[derive(Debug)]
pub(super) struct OrderDraft {
    pub(super) saga: Placed<Arc<str>>,
    pub(super) number: Expression,
    pub(super) outcome: Option<Outcome>,
}

/// Statuses of the ends as written.
#[derive(Debug)]
pub(super) struct EndsDraft {
    pub(super) at: Position,
    pub(super) completed: Option<Arc<str>>,
    pub(super) cancelled: Option<Arc<str>>,
    pub(super) reversed: Option<Arc<str>>,
    pub(super) forced: Option<Arc<str>>,
}

impl Draft {
    /// Reads the whole; `None` when it is not even a mapping with a name.
    pub(super) fn read(node: &Node, complaints: &Complaints) -> Option<Self> {
        let fields = Fields::of(node, "a definition", &DEFINITION, complaints)?;
        let name = fields.require("saga").and_then(|node| reader::text(node, "saga", complaints))?;
        if let Some(node) = fields.get("saga") {
            reader::check_name(&name, &node.at, complaints);
        }
        let placed_text = |key: &str| {
            let node = fields.require(key)?;
            Some(Placed { value: reader::text(node, key, complaints)?, at: node.at.clone() })
        };
        let pivot_at_start =
            fields.word("pivot", &[("start", ())]).and_then(|()| fields.get("pivot").map(|node| node.at.clone()));
        fields.require("number");
        fields.require("stages");
        let order = fields.get("order").and_then(|node| read_order(node, complaints));
        if order.is_none() && fields.get("order").is_none() {
            fields.require("key");
        }
        Some(Self {
            at: node.at.clone(),
            name,
            version: fields.require("version").and_then(|node| read_version(node, complaints)).unwrap_or(0),
            input: placed_text("input"),
            number: fields.expression("number"),
            key: fields.expression("key"),
            owner: fields.expression("owner"),
            started_by: fields
                .word("started_by", &Starter::WORDS)
                .zip(fields.get("started_by"))
                .map(|(value, node)| Placed { value, at: node.at.clone() }),
            search: read_templates(fields.named("search"), complaints),
            view: read_templates(fields.named("view"), complaints),
            values: read_templates(fields.named("values"), complaints),
            retry: read_retry(&fields, complaints),
            pivot_at_start,
            stages: fields.list("stages").iter().filter_map(|node| read_stage(node, complaints)).collect(),
            reverse: fields.list("reverse").iter().filter_map(|node| read_stage(node, complaints)).collect(),
            cancel: read_reasons(&fields, complaints),
            late: read_links(fields.entries("late"), true, complaints),
            starts_on: read_links(fields.entries("starts_on"), false, complaints),
            order,
            events: fields.entries("events").into_iter().map(|(name, node)| (name, node.clone())).collect(),
            ends: read_ends(&fields, complaints),
        })
    }
}

fn read_version(node: &Node, complaints: &Complaints) -> Option<u32> {
    let number = match &node.kind {
        Kind::Number(number) => {
            number.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0)
        }
        Kind::Null | Kind::Bool(_) | Kind::Text(_) | Kind::List(_) | Kind::Map(_) => None,
    };
    if number.is_none() {
        complaints.add(Code::WrongValue, &node.at, "`version` is a whole number from 1");
    }
    number
}

fn read_templates(
    entries: Vec<(Placed<Arc<str>>, &Node)>,
    complaints: &Complaints,
) -> Vec<(Placed<Arc<str>>, Template)> {
    entries.into_iter().filter_map(|(name, node)| Some((name, reader::template(node, complaints)?))).collect()
}

fn read_stage(node: &Node, complaints: &Complaints) -> Option<StageDraft> {
    let fields = Fields::of(node, "a stage", &STAGE, complaints)?;
    let name = fields.require("stage")?;
    let value = reader::text(name, "stage", complaints)?;
    reader::check_name(&value, &name.at, complaints);
    let pivot = fields.flag("pivot").then(|| fields.get("pivot").map(|node| node.at.clone())).flatten();
    let stage = StageDraft {
        name: Placed { value, at: name.at.clone() },
        status: fields.text("status"),
        when: fields.expression("when"),
        steps: fields.named("steps").into_iter().filter_map(|(name, node)| read_step(name, node, complaints)).collect(),
        wait: fields.get("wait").and_then(|node| read_wait(node, complaints)),
        pivot,
    };
    if fields.get("steps").is_none() && fields.get("wait").is_none() {
        complaints.add(
            Code::MissingKey,
            &node.at,
            format!("stage `{}` needs `steps`, a `wait`, or both", stage.name.value),
        );
    }
    Some(stage)
}

fn read_step(name: Placed<Arc<str>>, node: &Node, complaints: &Complaints) -> Option<StepDraft> {
    let fields = Fields::of(node, "a step", &STEP, complaints)?;
    fields.require("call");
    let words = [
        ("compensate", Refused::Compensate),
        ("park", Refused::Park),
        ("reverse", Refused::Reverse),
        ("skip", Refused::Skip),
    ];
    Some(StepDraft {
        name,
        call: fields.call("call"),
        each: fields.expression("each"),
        item_key: fields.expression("item_key"),
        when: fields.expression("when"),
        with: fields.template("with").unwrap_or_else(empty),
        with_at: fields.get("with").unwrap_or(node).at.clone(),
        undo: fields.call("undo"),
        no_undo: fields.text("no_undo"),
        of: fields.text("of").zip(fields.get("of")).map(|(value, node)| Placed { value, at: node.at.clone() }),
        refused: fields.word("refused", &words),
        best_effort: fields.flag("best_effort"),
        parked_status: fields.text("parked_status"),
        retry: read_retry(&fields, complaints),
    })
}

/// The payload of a step without `with`.
fn empty() -> Template {
    Template::Literal(serde_json::json!({}))
}

fn read_wait(node: &Node, complaints: &Complaints) -> Option<WaitDraft> {
    let fields = Fields::of(node, "a wait", &WAIT, complaints)?;
    fields.require("event");
    let mut missing = ["within", "at_deadline"].into_iter().filter(|key| fields.get(key).is_none()).peekable();
    if missing.peek().is_some() {
        let keys = missing.map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" and ");
        let diagnostic =
            Diagnostic::new(Code::NoDeadline, &node.at, format!("a wait needs {keys}: it may not last for ever"));
        complaints
            .push(diagnostic.fix("write `within: 20m` and `at_deadline: next | reverse | park | { cancel: REASON }`"));
    }
    Some(WaitDraft {
        at: node.at.clone(),
        event: fields.text("event").zip(fields.get("event")).map(|(value, node)| Placed { value, at: node.at.clone() }),
        matches: fields.expression("where"),
        mismatch: fields.word("mismatch", &[("late", Mismatch::Late), ("park", Mismatch::Park)]),
        within: fields.get("within").and_then(|node| read_within(node, complaints)),
        ask: fields.call("ask"),
        ask_with: fields.template("ask_with").unwrap_or_else(empty),
        at_deadline: fields.get("at_deadline").and_then(|node| read_deadline(node, complaints)),
    })
}

fn read_within(node: &Node, complaints: &Complaints) -> Option<Within> {
    let written = reader::text(node, "within", complaints)?;
    if written.starts_with('=') {
        return reader::expression(node, "within", complaints).map(Within::Computed);
    }
    reader::placed_duration(&written, node, complaints).map(Within::Fixed)
}

fn read_deadline(node: &Node, complaints: &Complaints) -> Option<DeadlineDraft> {
    if node.text().is_some() {
        let words = [("next", 0u8), ("reverse", 1), ("park", 2)];
        return reader::word(node, "at_deadline", &words, complaints).map(|word| match word {
            0 => DeadlineDraft::Next,
            1 => DeadlineDraft::Reverse,
            _ => DeadlineDraft::Park,
        });
    }
    let fields = Fields::of(node, "at_deadline", &["cancel"], complaints)?;
    let reason = fields.require("cancel")?;
    let value = reader::text(reason, "cancel", complaints)?;
    Some(DeadlineDraft::Cancel(Placed { value, at: reason.at.clone() }))
}

fn read_retry(fields: &Fields<'_>, complaints: &Complaints) -> RetryDraft {
    let Some(node) = fields.get("retry") else { return RetryDraft::default() };
    let Some(fields) = Fields::of(node, "retry", &["timeout", "ask_after", "waits"], complaints) else {
        return RetryDraft::default();
    };
    let mut waits = Vec::new();
    for node in fields.list("waits") {
        let Some(written) = reader::text(node, "waits", complaints) else { continue };
        match duration::parse_rung(&written) {
            Ok(rung) => waits.extend(rung),
            Err(reason) => complaints.add(Code::BadDuration, &node.at, reason),
        }
    }
    if fields.get("waits").is_some() && waits.is_empty() {
        complaints.add(Code::WrongValue, &node.at, "`waits` needs at least one duration");
    }
    RetryDraft {
        timeout_ms: fields.duration("timeout"),
        ask_after_ms: fields.duration("ask_after"),
        waits_ms: (!waits.is_empty()).then(|| waits.into()),
    }
}

fn read_reasons(fields: &Fields<'_>, complaints: &Complaints) -> Vec<ReasonDraft> {
    let read = |(name, node): (Placed<Arc<str>>, &Node)| {
        let fields = Fields::of(node, "a cancel reason", &["role", "after_pivot", "description"], complaints)?;
        fields.require("role");
        let words = [("refuse", AfterPivot::Refuse), ("reverse", AfterPivot::Reverse)];
        Some(ReasonDraft {
            name,
            role: fields.text("role")?,
            after_pivot: fields.word("after_pivot", &words).unwrap_or(AfterPivot::Refuse),
        })
    };
    fields.named("cancel").into_iter().filter_map(read).collect()
}

fn read_links(entries: Vec<(Placed<Arc<str>>, &Node)>, late: bool, complaints: &Complaints) -> Vec<LinkDraft> {
    let known: &[&str] = if late { &["start", "number", "with"] } else { &["when", "with"] };
    let what = if late { "a late rule" } else { "a starts_on rule" };
    let read = |(event, node): (Placed<Arc<str>>, &Node)| {
        let fields = Fields::of(node, what, known, complaints)?;
        for key in if late { &["start", "number", "with"][..] } else { &["with"][..] } {
            fields.require(key);
        }
        Some(LinkDraft {
            event,
            start: fields
                .text("start")
                .zip(fields.get("start"))
                .map(|(value, node)| Placed { value, at: node.at.clone() }),
            when: fields.expression("when"),
            number: fields.expression("number"),
            with: fields.template("with").unwrap_or_else(empty),
        })
    };
    entries.into_iter().filter_map(read).collect()
}

fn read_order(node: &Node, complaints: &Complaints) -> Option<OrderDraft> {
    let fields = Fields::of(node, "order", &["saga", "number", "outcome"], complaints)?;
    let saga = fields.require("saga")?;
    fields.require("number")?;
    let value = reader::text(saga, "saga", complaints)?;
    Some(OrderDraft {
        saga: Placed { value, at: saga.at.clone() },
        number: fields.expression("number")?,
        outcome: fields.word("outcome", &OrderReference::OUTCOMES),
    })
}

fn read_ends(fields: &Fields<'_>, complaints: &Complaints) -> EndsDraft {
    let nothing =
        |at: &Position| EndsDraft { at: at.clone(), completed: None, cancelled: None, reversed: None, forced: None };
    let Some(node) = fields.require("ends") else { return nothing(&fields.node.at) };
    let known = ["completed", "cancelled", "reversed", "forced"];
    let Some(fields) = Fields::of(node, "ends", &known, complaints) else { return nothing(&node.at) };
    EndsDraft {
        at: node.at.clone(),
        completed: fields.text("completed"),
        cancelled: fields.text("cancelled"),
        reversed: fields.text("reversed"),
        forced: fields.text("forced"),
    }
}
