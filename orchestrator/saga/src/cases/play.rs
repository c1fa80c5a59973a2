//! Playing one case on the production `decide`.

use super::coverage::Coverage;
use super::read::{Answer, Case, Expect, Move, Target};
use crate::control::Outcome;
use crate::decide::{Arrival, Decision, Setting, decide, decide_dead_letter, decide_due};
use crate::definition::{Definition, Position};
use crate::effect::{ASK_PREFIX, Effect};
use crate::saga::Saga;
use endstate_events::{
    Actor, CommandKind, Direction, EffectId, Input, InputBody, Json, Lane, Link, Reply, SagaId, Slot, Start, Verdict,
};

/// Most timers fired in one move: a case that waits for ever fails instead of hanging.
const MAX_TIMERS: usize = 10_000;

/// Why a case failed, and at which line.
pub(super) struct Failure {
    pub(super) at: Position,
    pub(super) reason: String,
}

pub(super) fn play(definition: &Definition, case: &Case, coverage: &mut Coverage) -> Result<(), Failure> {
    let fail = |at: &Position| {
        let at = at.clone();
        move |reason| Failure { at, reason }
    };
    let mut player = Player::start(definition, case, coverage).map_err(fail(&case.at))?;
    for (at, made) in &case.moves {
        player.make(made).map_err(fail(at))?;
    }
    player.coverage.ended(player.saga()?.control.outcome());
    Ok(())
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { at: Position::start_of(&"".into()), reason }
    }
}

struct Player<'a> {
    definition: &'a Definition,
    case: &'a Case,
    coverage: &'a mut Coverage,
    saga: Option<Saga>,
    now_ms: i64,
    /// Commands, linked sagas and statuses since the last expectation that looked at them.
    sent: Vec<String>,
    linked: Vec<String>,
    statuses: Vec<String>,
    discrepancies: u64,
    denied: Option<String>,
}

impl<'a> Player<'a> {
    fn start(definition: &'a Definition, case: &'a Case, coverage: &'a mut Coverage) -> Result<Self, String> {
        let (input, order) = (&case.sample.input, &case.sample.order);
        let identity = definition.identify(input, order).map_err(|error| error.to_string())?;
        let key = identity.key.unwrap_or_else(|| "order-key".to_owned());
        let now_ms = 1_700_000_000_000;
        let id = SagaId::mint(now_ms, Slot::of(&key), 1);
        let link = (!order.is_null()).then(|| Link { order: id, snapshot: order.clone(), caller: None });
        let start = Start {
            definition: definition.name().to_string(),
            version: definition.version(),
            number: identity.number,
            key,
            owner: identity.owner,
            input: input.clone(),
            body_hash: String::new(),
            link,
        };
        let mut player = Self {
            definition,
            case,
            coverage,
            saga: None,
            now_ms,
            sent: Vec::new(),
            linked: Vec::new(),
            statuses: Vec::new(),
            discrepancies: 0,
            denied: None,
        };
        player.input("start", Input { saga: id, body: InputBody::Start(Box::new(start)) });
        player.saga.as_ref().map(|_| ()).ok_or_else(|| player.denied.clone().unwrap_or_default())?;
        Ok(player)
    }

    fn saga(&self) -> Result<&Saga, String> {
        self.saga.as_ref().ok_or_else(|| "there is no saga".to_owned())
    }

    fn setting(&self) -> Setting {
        Setting { now_ms: self.now_ms, partitions: 4 }
    }

    fn input(&mut self, id: &str, input: Input) {
        let arrival = Arrival { id, time_ms: self.now_ms, lane: Lane::Test, input: &input };
        let decision = decide(self.definition, self.saga.take(), arrival, self.setting());
        self.take(decision);
    }

    fn take(&mut self, decision: Decision) {
        self.saga = decision.saga;
        if let Some(saga) = &self.saga {
            self.coverage.facts(&self.definition.plan, saga, &decision.events);
        }
        if let Some(denied) = decision.denied {
            self.denied = Some(denied.label().to_owned());
        }
        for effect in decision.effects {
            match effect {
                Effect::Send(command) => self.sent.push(label(command.kind, &command.effect_id)),
                Effect::Start(start) => match &start.link.caller {
                    Some((effect_id, _)) => self.sent.push(label(CommandKind::Do, effect_id)),
                    None => self.linked.push(format!("{} {}", start.definition, start.number)),
                },
                Effect::Publish(event) => self.statuses.push(event.status),
                Effect::Discrepancy { .. } => self.discrepancies += 1,
                Effect::Reply { .. } | Effect::Answer { .. } | Effect::Alert { .. } => {}
            }
        }
    }

    fn make(&mut self, made: &Move) -> Result<(), String> {
        let id = self.saga()?.id;
        let actor = |role: &str| Actor { subject: "case".to_owned(), role: role.to_owned() };
        let body = match made {
            Move::Answer { target, answer } => return self.answer(target, answer),
            Move::Silence(target) => return self.silence(target),
            Move::Advance(ms) => {
                return self.advance(self.now_ms + i64::try_from(*ms).unwrap_or(i64::MAX / 2));
            }
            Move::Expect(expect) => return self.expect(expect),
            Move::DeadLetter(reason) => return self.dead_letter(reason),
            Move::Event { name, id: event, data } => {
                let input = Input { saga: id, body: InputBody::Event { name: name.to_string(), data: data.clone() } };
                self.input(event, input);
                return Ok(());
            }
            Move::Cancel { reason, role } => {
                let plan = &self.definition.plan;
                let usual = plan.reason(reason).map_or("nobody", |index| &*plan.reasons[index].role);
                InputBody::Cancel { reason: reason.clone(), actor: actor(role.as_deref().unwrap_or(usual)) }
            }
            Move::Operate(operation) => InputBody::Operate {
                operation: operation.clone(),
                reason: "the case says so".to_owned(),
                actor: actor("operator"),
            },
        };
        // A request that was taken moves the version: each is another one.
        let request = format!("case-{}", self.saga()?.version);
        self.input(&request, Input { saga: id, body });
        Ok(())
    }

    /// An input that nobody could handle.
    fn dead_letter(&mut self, reason: &str) -> Result<(), String> {
        let Some(saga) = self.saga.take() else { return Err("there is no saga".to_owned()) };
        let decision = decide_dead_letter(self.definition, saga, "poison", reason, self.setting());
        self.take(decision);
        Ok(())
    }

    /// The runs that a target names and that await an answer.
    fn awaited(&self, target: &Target) -> Result<Vec<(usize, Direction)>, String> {
        let saga = self.saga()?;
        let runs = (0..saga.data.runs.len()).filter_map(|run| Some((run, saga.control.awaits(run)?)));
        let wanted = |(run, direction): &(usize, Direction)| match target {
            Target::All => true,
            Target::Ask { .. } => false,
            Target::Run { step, item, undo } => {
                let data = &saga.data.runs[*run];
                let name = &self.definition.plan.steps[usize::from(data.step)].name;
                let fits = item.as_ref().is_none_or(|item| **item == *data.item_key);
                **name == **step && fits && *undo == (*direction == Direction::Undo)
            }
        };
        Ok(runs.filter(wanted).collect())
    }

    fn answer(&mut self, target: &Target, answer: &Answer) -> Result<(), String> {
        if let Target::Ask { stage } = target {
            return self.answer_ask(stage, answer);
        }
        let runs = self.awaited(target)?;
        if runs.is_empty() {
            return Err(format!("no command awaits this answer; awaited: {}", self.awaited_labels()?));
        }
        for (run, direction) in runs {
            let saga = self.saga()?;
            // An answer before it may have settled this one.
            if saga.control.awaits(run) != Some(direction) {
                continue;
            }
            let effect_id = saga.effect_id(&self.definition.plan, run, direction);
            let verdict = self.verdict(run, direction, answer)?;
            let input = Input { saga: saga.id, body: InputBody::Reply(Reply { effect_id, verdict }) };
            self.input("reply", input);
        }
        Ok(())
    }

    fn verdict(&self, run: usize, direction: Direction, answer: &Answer) -> Result<Verdict, String> {
        let saga = self.saga()?;
        let step = usize::from(saga.data.runs[run].step);
        Ok(match answer {
            Answer::Done(Some(data)) => Verdict::Done { data: data.clone() },
            Answer::Done(None) if direction == Direction::Undo => Verdict::Done { data: Json::Null },
            Answer::Done(None) => {
                let first = saga.data.runs.iter().position(|other| usize::from(other.step) == step).unwrap_or(run);
                Verdict::Done { data: self.definition.example_reply(&self.case.sample, step, run - first) }
            }
            Answer::Refused(code) => {
                let usual = self.definition.steps[step].action.as_ref().and_then(|action| action.refusals.first());
                let code = code.as_ref().or(usual).cloned().unwrap_or_else(|| "refused".to_owned());
                Verdict::Refused { code, detail: String::new() }
            }
            Answer::Unknown => Verdict::unknown(""),
            Answer::NeverSeen => Verdict::NeverSeen,
        })
    }

    fn answer_ask(&mut self, stage: &str, answer: &Answer) -> Result<(), String> {
        let saga = self.saga()?;
        let Some(ask) = &saga.data.ask else { return Err("nothing was asked".to_owned()) };
        let effect_id = EffectId {
            saga: saga.id,
            step: format!("{ASK_PREFIX}{stage}"),
            item: String::new(),
            direction: Direction::Do,
            round: ask.round,
        };
        let verdict = match answer {
            Answer::Done(data) => Verdict::Done { data: data.clone().unwrap_or_default() },
            Answer::Refused(code) => {
                Verdict::Refused { code: code.clone().unwrap_or_else(|| "refused".to_owned()), detail: String::new() }
            }
            Answer::Unknown => Verdict::unknown(""),
            Answer::NeverSeen => Verdict::NeverSeen,
        };
        let input = Input { saga: saga.id, body: InputBody::Reply(Reply { effect_id, verdict }) };
        self.input("reply", input);
        Ok(())
    }

    /// Lets time pass until the commands of a target are not awaited any more.
    fn silence(&mut self, target: &Target) -> Result<(), String> {
        if self.awaited(target)?.is_empty() {
            return Err(format!("no such command is awaited; awaited: {}", self.awaited_labels()?));
        }
        for _ in 0..MAX_TIMERS {
            if self.awaited(target)?.is_empty() {
                return Ok(());
            }
            let Some(due_ms) = self.saga()?.due_ms(&self.definition.plan) else { return Ok(()) };
            self.advance(due_ms)?;
        }
        Err("it goes on for ever: an undo or a called saga never gives up".to_owned())
    }

    /// Lets time pass, firing what comes due on the way.
    fn advance(&mut self, until_ms: i64) -> Result<(), String> {
        for _ in 0..MAX_TIMERS {
            let due_ms = self.saga()?.due_ms(&self.definition.plan).filter(|due_ms| *due_ms <= until_ms);
            let Some(due_ms) = due_ms else {
                self.now_ms = self.now_ms.max(until_ms);
                return Ok(());
            };
            self.now_ms = self.now_ms.max(due_ms);
            let Some(saga) = self.saga.take() else { return Err("there is no saga".to_owned()) };
            let decision = decide_due(self.definition, saga, self.setting().now_ms, self.setting());
            self.take(decision);
        }
        Err("timers fire without end".to_owned())
    }

    fn awaited_labels(&self) -> Result<String, String> {
        let saga = self.saga()?;
        let labels = self.awaited(&Target::All)?.into_iter().map(|(run, direction)| {
            let kind = if direction == Direction::Undo { CommandKind::Undo } else { CommandKind::Do };
            label(kind, &saga.effect_id(&self.definition.plan, run, direction))
        });
        let labels: Vec<_> = labels.collect();
        Ok(if labels.is_empty() { "nothing".to_owned() } else { labels.join(", ") })
    }

    fn expect(&mut self, expect: &Expect) -> Result<(), String> {
        let denied = self.denied.take();
        let saga = self.saga()?;
        let outcome = saga.control.outcome().map(Outcome::label);
        for (name, expected) in &expect.facts {
            let actual = match *name {
                "status" => Some(&*saga.status),
                "phase" => Some(saga.control.phase(&self.definition.plan).label()),
                "outcome" => outcome,
                "reason" => saga.reason.as_deref(),
                _ => denied.as_deref(),
            };
            if actual != Some(expected) {
                return Err(format!("{name} is `{}`, expected `{expected}`", actual.unwrap_or("none")));
            }
        }
        if let Some(denied) = denied.filter(|_| !expect.facts.iter().any(|(name, _)| *name == "denied")) {
            return Err(format!("a move was turned down: {denied}"));
        }
        compare("sent", expect.sent.as_ref(), &mut self.sent)?;
        compare("linked", expect.linked.as_ref(), &mut self.linked)?;
        compare("statuses", expect.statuses.as_ref(), &mut self.statuses)?;
        match expect.discrepancies {
            Some(expected) if expected != self.discrepancies => {
                Err(format!("{} discrepancies, expected {expected}", self.discrepancies))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Compares what happened since the last look; looking empties it.
fn compare(what: &str, expected: Option<&Vec<String>>, actual: &mut Vec<String>) -> Result<(), String> {
    let Some(expected) = expected else { return Ok(()) };
    let actual = std::mem::take(actual);
    if actual == *expected {
        return Ok(());
    }
    Err(format!("{what} is [{}], expected [{}]", actual.join(", "), expected.join(", ")))
}

/// `hold_stock/1`, `undo hold_stock/1`, `ask hold_stock/1`; the ask of a wait is `ask pay`.
fn label(kind: CommandKind, effect_id: &EffectId) -> String {
    if let Some(stage) = effect_id.step.strip_prefix(ASK_PREFIX) {
        return format!("ask {stage}");
    }
    let item = if effect_id.item.is_empty() { String::new() } else { format!("/{}", effect_id.item) };
    let name = format!("{}{item}", effect_id.step);
    match (kind, effect_id.direction) {
        (CommandKind::Ask, _) => format!("ask {name}"),
        (CommandKind::Do | CommandKind::Undo, Direction::Undo) | (CommandKind::Undo, Direction::Do) => {
            format!("undo {name}")
        }
        (CommandKind::Do, Direction::Do) => name,
    }
}
