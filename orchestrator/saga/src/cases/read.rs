//! Case files as written.

use super::CaseFile;
use crate::definition::{
    Code, Complaints, Definition, Diagnostic, Fields, Kind, Node, Position, Sample, parse_duration,
};
use endstate_events::{ForcedEnd, Json, Operation};
use std::sync::Arc;

/// One case.
pub(super) struct Case {
    pub(super) name: Arc<str>,
    pub(super) at: Position,
    pub(super) sample: Sample,
    pub(super) moves: Vec<(Position, Move)>,
}

/// One thing that happens, or that is expected.
pub(super) enum Move {
    Answer { target: Target, answer: Answer },
    Silence(Target),
    Event { name: Arc<str>, id: String, data: Json },
    Cancel { reason: String, role: Option<String> },
    Operate(Operation),
    DeadLetter(String),
    Advance(u64),
    Expect(Expect),
}

/// What a participant answers.
pub(super) enum Answer {
    Done(Option<Json>),
    Refused(Option<String>),
    Unknown,
    NeverSeen,
}

/// Awaited commands: `hold_stock`, `hold_stock/2`, `undo hold_stock`, `ask pay`, or `all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    All,
    Run { step: String, item: Option<String>, undo: bool },
    Ask { stage: String },
}

/// What is expected; what is not written is not looked at.
#[derive(Default)]
pub(super) struct Expect {
    pub(super) sent: Option<Vec<String>>,
    pub(super) linked: Option<Vec<String>>,
    pub(super) statuses: Option<Vec<String>>,
    /// `status`, `phase`, `outcome`, `reason`, `denied`: name and text.
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) discrepancies: Option<u64>,
}

const CASE: [&str; 5] = ["case", "description", "given", "when", "then"];
const GIVEN: [&str; 3] = ["sample", "input", "order"];
const FACTS: [&str; 5] = ["status", "phase", "outcome", "reason", "denied"];
const EXPECT: [&str; 9] =
    ["status", "phase", "outcome", "reason", "denied", "sent", "linked", "statuses", "discrepancies"];

pub(super) fn read_cases(file: &CaseFile, definition: &Definition, complaints: &Complaints) -> Vec<Case> {
    let name: Arc<str> = Arc::from(file.file.as_str());
    let node = match Node::parse(&name, &file.text) {
        Ok(node) => node,
        Err(diagnostic) => {
            complaints.push(diagnostic);
            return Vec::new();
        }
    };
    let Kind::List(cases) = &node.kind else {
        complaints.add(Code::BadCase, &node.at, "a case file is a list of cases");
        return Vec::new();
    };
    cases.iter().filter_map(|case| Reader { definition, complaints }.case(case)).collect()
}

struct Reader<'a> {
    definition: &'a Definition,
    complaints: &'a Complaints,
}

impl Reader<'_> {
    fn bad<T>(&self, at: &Position, reason: impl Into<String>) -> Option<T> {
        self.complaints.add(Code::BadCase, at, reason);
        None
    }

    fn case(&self, node: &Node) -> Option<Case> {
        let fields = Fields::of(node, "a case", &CASE, self.complaints)?;
        fields.require("case");
        let sample = self.given(fields.require("given")?)?;
        let mut moves = Vec::new();
        for item in fields.list("when") {
            moves.extend(self.moves(item, &sample)?);
        }
        let then = fields.require("then")?;
        moves.push((then.at.clone(), Move::Expect(self.expect(then)?)));
        Some(Case { name: fields.text("case")?, at: node.at.clone(), sample, moves })
    }

    fn given(&self, node: &Node) -> Option<Sample> {
        let fields = Fields::of(node, "given", &GIVEN, self.complaints)?;
        let mut sample = match fields.text("sample") {
            Some(name) => match self.definition.samples().iter().find(|sample| sample.name == *name) {
                Some(sample) => sample.clone(),
                None => {
                    let names = self.definition.samples().iter().map(|sample| sample.name.as_str());
                    let diagnostic = Diagnostic::new(Code::BadCase, &node.at, format!("there is no sample `{name}`"));
                    self.complaints.push(diagnostic.suggest(&name, names));
                    return None;
                }
            },
            None => Sample::default(),
        };
        for (key, part) in [("input", &mut sample.input), ("order", &mut sample.order)] {
            if let Some(node) = fields.get(key) {
                merge(part, node.json());
            }
        }
        match self.definition.misfits(&sample.input).first() {
            Some(misfit) => self.bad(&node.at, format!("the input does not fit its schema: {misfit}")),
            None => Some(sample),
        }
    }

    /// One entry of `when`: a mapping with one key. A list of targets is a move for each.
    fn moves(&self, node: &Node, sample: &Sample) -> Option<Vec<(Position, Move)>> {
        let Kind::Map(entries) = &node.kind else { return self.bad(&node.at, "a move is a mapping with one key") };
        let [(key, value)] = entries.as_slice() else { return self.bad(&node.at, "a move is a mapping with one key") };
        let one = |made: Move| Some(vec![(key.at.clone(), made)]);
        match key.name.as_str() {
            "done" | "refused" | "unknown" | "never_seen" | "silence" => match &value.kind {
                Kind::List(targets) => {
                    targets.iter().map(|node| Some((node.at.clone(), self.answer(&key.name, node)?))).collect()
                }
                _ => one(self.answer(&key.name, value)?),
            },
            "event" => one(self.event(value, sample)?),
            "cancel" => one(self.cancel(value)?),
            "operate" => one(Move::Operate(self.operate(value)?)),
            "dead_letter" => one(Move::DeadLetter(value.text().unwrap_or_default().to_owned())),
            "advance" => match parse_duration(value.text().unwrap_or_default()) {
                Ok(ms) => one(Move::Advance(ms)),
                Err(reason) => self.bad(&value.at, reason),
            },
            "expect" => one(Move::Expect(self.expect(value)?)),
            other => {
                let known = [
                    "done",
                    "refused",
                    "unknown",
                    "never_seen",
                    "silence",
                    "event",
                    "cancel",
                    "operate",
                    "dead_letter",
                    "advance",
                    "expect",
                ];
                let diagnostic = Diagnostic::new(Code::BadCase, &key.at, format!("there is no move `{other}`"));
                self.complaints.push(diagnostic.suggest(other, known));
                None
            }
        }
    }

    fn answer(&self, kind: &str, node: &Node) -> Option<Move> {
        let fields = match &node.kind {
            Kind::Text(text) => return self.answer_of(kind, self.target(text, &node.at)?, None, None),
            _ => Fields::of(node, "an answer", &["step", "data", "code"], self.complaints)?,
        };
        fields.require("step")?;
        let target = self.target(&fields.text("step")?, &node.at)?;
        let code = fields.text("code").map(|code| code.to_string());
        self.answer_of(kind, target, fields.get("data").map(Node::json), code)
    }

    fn answer_of(&self, kind: &str, target: Target, data: Option<Json>, code: Option<String>) -> Option<Move> {
        let answer = match kind {
            "done" => Answer::Done(data),
            "refused" => Answer::Refused(code),
            "unknown" => Answer::Unknown,
            "never_seen" => Answer::NeverSeen,
            _ => return Some(Move::Silence(target)),
        };
        Some(Move::Answer { target, answer })
    }

    fn target(&self, text: &str, at: &Position) -> Option<Target> {
        if text == "all" {
            return Some(Target::All);
        }
        if let Some(stage) = text.strip_prefix("ask ") {
            return Some(Target::Ask { stage: stage.to_owned() });
        }
        let (undo, name) = text.strip_prefix("undo ").map_or((false, text), |name| (true, name));
        let (step, item) = name.split_once('/').map_or((name, None), |(step, item)| (step, Some(item.to_owned())));
        if self.definition.plan().step(step).is_none() {
            let names = self.definition.plan().steps.iter().map(|step| &*step.name);
            let diagnostic = Diagnostic::new(Code::BadCase, at, format!("there is no step `{step}`"));
            self.complaints.push(diagnostic.suggest(step, names));
            return None;
        }
        Some(Target::Run { step: step.to_owned(), item, undo })
    }

    /// `event: STAGE` is the sample's last event of that wait; a mapping may name another id and replace parts of it.
    fn event(&self, node: &Node, sample: &Sample) -> Option<Move> {
        let (stage, id, changes, name) = match &node.kind {
            Kind::Text(stage) => (Some(Arc::from(stage.as_str())), None, None, None),
            _ => {
                let fields = Fields::of(node, "an event", &["stage", "name", "id", "data"], self.complaints)?;
                (fields.text("stage"), fields.text("id"), fields.get("data").map(Node::json), fields.text("name"))
            }
        };
        let plan = self.definition.plan();
        let (name, mut data) = match (stage, name) {
            (Some(stage), _) => {
                let found = plan.stages.iter().position(|candidate| candidate.name == stage);
                let waits = found.and_then(|index| Some((index, plan.stages[index].wait.as_ref()?)));
                let Some((index, wait)) = waits else {
                    return self.bad(&node.at, format!("there is no stage `{stage}` with a wait"));
                };
                let example = self.definition.example_events(sample, index).pop().unwrap_or_default();
                (Arc::clone(&plan.events[wait.event].name), example)
            }
            (None, Some(name)) => match plan.event(&name) {
                Some(index) => (name, self.definition.example_event(index)),
                None => return self.bad(&node.at, format!("the definition knows no event `{name}`")),
            },
            (None, None) => return self.bad(&node.at, "an event names its `stage` or its `name`"),
        };
        if let Some(changes) = changes {
            merge(&mut data, changes);
        }
        Some(Move::Event { id: id.map_or_else(|| data.to_string(), |id| id.to_string()), name, data })
    }

    fn cancel(&self, node: &Node) -> Option<Move> {
        if let Some(reason) = node.text() {
            return Some(Move::Cancel { reason: reason.to_owned(), role: None });
        }
        let fields = Fields::of(node, "a cancel", &["reason", "role"], self.complaints)?;
        fields.require("reason")?;
        Some(Move::Cancel {
            reason: fields.text("reason")?.to_string(),
            role: fields.text("role").map(|role| role.to_string()),
        })
    }

    fn operate(&self, node: &Node) -> Option<Operation> {
        match node.text() {
            Some("retry") => return Some(Operation::Retry),
            Some("compensate") => return Some(Operation::Compensate),
            _ => {}
        }
        let fields = Fields::of(node, "operate", &["force", "wake"], self.complaints)?;
        let ends = [("completed", ForcedEnd::Completed), ("cancelled", ForcedEnd::Cancelled)];
        let force = fields.word("force", &ends).map(|end| Operation::Force { end });
        force.or_else(|| fields.text("wake").map(|step| Operation::Wake { step: step.to_string() })).or_else(|| {
            self.bad(&node.at, "`operate` is retry, compensate, { force: completed | cancelled } or { wake: STEP }")
        })
    }

    fn expect(&self, node: &Node) -> Option<Expect> {
        let fields = Fields::of(node, "an expectation", &EXPECT, self.complaints)?;
        let list = |key: &str| {
            fields.get(key).map(|_| fields.list(key).iter().filter_map(|node| node.text().map(str::to_owned)).collect())
        };
        Some(Expect {
            sent: list("sent"),
            linked: list("linked"),
            statuses: list("statuses"),
            facts: FACTS.into_iter().filter_map(|key| Some((key, fields.text(key)?.to_string()))).collect(),
            discrepancies: fields.get("discrepancies").and_then(|node| node.json().as_u64()),
        })
    }
}

/// Lays `changes` over `base`, mapping by mapping; null removes.
fn merge(base: &mut Json, changes: Json) {
    match (base, changes) {
        (Json::Object(base), Json::Object(changes)) => {
            for (name, change) in changes {
                if change.is_null() {
                    base.remove(&name);
                } else {
                    merge(base.entry(name).or_insert(Json::Null), change);
                }
            }
        }
        (base, changes) => *base = changes,
    }
}
