//! Definitions built by hand, for tests of the core without the language.

use crate::decide::{Arrival, Decision, Setting, decide, decide_dead_letter, decide_due, snapshot};
use crate::effect::Effect;
use crate::event::Event;
use crate::fold;
use crate::plan::{
    AfterPivot, AtDeadline, Call, Ends, EvalError, EventRule, Item, Items, LateStart, Mismatch, Payload, Pivot, Plan,
    Program, Reason, Refused, Retry, Stage, Step, Wait,
};
use crate::saga::Saga;
use endstate_events::{
    Actor, Command, Direction, EffectId, Input, InputBody, Json, Lane, Link, Operation, Reply, SagaId, Slot, Start,
    Verdict,
};
use serde_json::json;
use std::sync::Arc;

/// A definition whose expressions are constants.
#[derive(Clone, Debug)]
pub(crate) struct Toy {
    pub(crate) plan: Plan,
    /// Stages whose `when` does not hold.
    pub(crate) skipped: Vec<usize>,
    /// Number of items by step; 1 without `each`.
    pub(crate) items: Vec<u8>,
    /// Steps whose payload cannot be evaluated.
    pub(crate) broken: Vec<usize>,
}

fn call(participant: &str, action: &str) -> Call {
    Call { participant: participant.into(), action: action.into() }
}

fn retry() -> Retry {
    Retry { timeout_ms: 5, ask_after_ms: 10, waits_ms: Arc::new([1, 2]) }
}

impl Toy {
    /// A definition without stages, with an event `paid` that is refunded when late, and reasons `user` and `unpaid`.
    pub(crate) fn empty() -> Self {
        let reason = |name: &str, role: &str, after_pivot| Reason { name: name.into(), role: role.into(), after_pivot };
        Self {
            plan: Plan {
                definition: "toy".into(),
                version: 1,
                stages: vec![],
                forward_stages: 0,
                steps: vec![],
                pivot: Pivot::Never,
                events: vec![EventRule { name: "paid".into(), late: true }],
                reasons: vec![
                    reason("user", "owner", AfterPivot::Reverse),
                    reason("unpaid", "deadline", AfterPivot::Refuse),
                    reason("early", "owner", AfterPivot::Refuse),
                ],
                ends: Ends {
                    completed: "completed".into(),
                    cancelled: "closed".into(),
                    reversed: "refunded".into(),
                    forced: "forced".into(),
                },
            },
            skipped: vec![],
            items: vec![],
            broken: vec![],
        }
    }

    pub(crate) fn stage(mut self, name: &str) -> Self {
        let at = self.plan.steps.len();
        let status = Some(name.into());
        self.plan.stages.push(Stage { name: name.into(), status, steps: at..at, wait: None, conditional: true });
        self.plan.forward_stages += 1;
        self
    }

    pub(crate) fn reversal(mut self, name: &str) -> Self {
        self = self.stage(name);
        self.plan.forward_stages -= 1;
        self
    }

    /// Adds a step with an undo to the last stage.
    pub(crate) fn step(mut self, name: &str) -> Self {
        let stage = self.plan.stages.len() - 1;
        self.plan.steps.push(Step {
            name: name.into(),
            stage,
            call: call("toys", name),
            undo: Some(call("toys", "undo")),
            refused: Refused::Compensate,
            best_effort: false,
            of: None,
            each: false,
            retry: retry(),
            parked_status: None,
        });
        self.plan.stages[stage].steps.end += 1;
        self.items.push(1);
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Step)) -> Self {
        change(self.plan.steps.last_mut().unwrap());
        self
    }

    pub(crate) fn each(mut self, items: u8) -> Self {
        self.plan.steps.last_mut().unwrap().each = true;
        *self.items.last_mut().unwrap() = items;
        self
    }

    pub(crate) fn refused(self, refused: Refused) -> Self {
        self.with(|step| step.refused = refused)
    }

    pub(crate) fn of(mut self, name: &str) -> Self {
        let of = self.plan.step(name);
        self.plan.steps.last_mut().unwrap().of = of;
        self
    }

    /// Adds a wait for `paid` to the last stage.
    pub(crate) fn wait(mut self, at_deadline: AtDeadline, asks: bool) -> Self {
        self.plan.stages.last_mut().unwrap().wait = Some(Wait {
            event: 0,
            conditional: true,
            mismatch: Mismatch::Late,
            at_deadline,
            ask: asks.then(|| call("toys", "ask")),
            retry: retry(),
        });
        self
    }

    pub(crate) fn mismatch(mut self, mismatch: Mismatch) -> Self {
        self.plan.stages.last_mut().unwrap().wait.as_mut().unwrap().mismatch = mismatch;
        self
    }

    pub(crate) fn pivot(mut self) -> Self {
        self.plan.pivot = Pivot::Stage(self.plan.stages.len() - 1);
        self
    }

    /// The shape of a flash sale order.
    pub(crate) fn order(items: u8) -> Self {
        Self::empty()
            .stage("reserve")
            .step("hold")
            .each(items)
            .step("coupon")
            .stage("pay")
            .step("open")
            .wait(AtDeadline::Cancel { reason: 1 }, true)
            .pivot()
            .stage("confirm")
            .step("confirm")
            .of("hold")
            .refused(Refused::Reverse)
            .step("book")
            .with(|step| step.undo = None)
            .refused(Refused::Park)
            .stage("finish")
            .step("tell")
            .with(|step| (step.undo, step.best_effort) = (None, true))
            .reversal("refund")
            .step("refund")
            .with(|step| (step.undo, step.parked_status) = (None, Some("refund_failed".into())))
            .of("open")
            .refused(Refused::Park)
    }

    /// Four steps in a row.
    pub(crate) fn bench() -> Self {
        ["reserve", "lock", "deduct", "confirm"].into_iter().fold(Self::empty(), |toy, name| toy.stage(name).step(name))
    }
}

fn broken(place: &str) -> EvalError {
    EvalError { place: place.to_owned(), reason: "no such field".to_owned() }
}

impl Program for Toy {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn values(&self, _: &Saga) -> Result<Json, EvalError> {
        Ok(json!({ "due": 7 }))
    }

    fn stage_applies(&self, stage: usize, _: &Saga) -> Result<bool, EvalError> {
        Ok(!self.skipped.contains(&stage))
    }

    fn items(&self, step: usize, _: &Saga) -> Result<Items, EvalError> {
        let item = |n| Item { key: format!("{n}").into(), value: Arc::new(json!({ "n": n })) };
        Ok(match (self.items[step], self.plan.steps[step].each) {
            (0, _) => Items::None,
            (_, false) => Items::One,
            (count, true) => Items::Each((0..count).map(item).collect()),
        })
    }

    fn payload(&self, step: usize, item: Option<&Item>, _: &Saga) -> Result<Payload, EvalError> {
        if self.broken.contains(&step) {
            return Err(broken(&self.plan.steps[step].name));
        }
        let with = json!({ "step": *self.plan.steps[step].name, "item": item.map(|item| &*item.value) });
        // A step about another keeps that one's key.
        let item = item.filter(|_| self.plan.steps[step].of.is_none());
        Ok(Payload { with, key: item.map(|item| format!("unit-{}", item.key).into()) })
    }

    fn within_ms(&self, _: usize, _: &Saga) -> Result<u64, EvalError> {
        Ok(1_000)
    }

    fn event_matches(&self, _: usize, event: &Json, _: &Saga) -> Result<bool, EvalError> {
        event["amount"].as_u64().map(|amount| amount == 7).ok_or_else(|| broken("waits.pay.where"))
    }

    fn ask(&self, _: usize, _: &Saga) -> Result<Payload, EvalError> {
        Ok(Payload { with: json!({}), key: None })
    }

    fn late(&self, _: usize, data: &Json, _: &Saga) -> Result<LateStart, EvalError> {
        let number = data["no"].as_str().ok_or_else(|| broken("late.paid.number"))?;
        Ok(LateStart { definition: "refund".into(), number: number.into(), input: data.clone() })
    }
}

/// One saga and everything it ever caused.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) toy: Toy,
    pub(crate) saga: Saga,
    pub(crate) events: Vec<Event>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) last: Decision,
    pub(crate) now_ms: i64,
}

pub(crate) const PARTITIONS: u16 = 4;

impl Run {
    pub(crate) fn start(toy: Toy) -> Self {
        Self::linked_to(toy, None)
    }

    pub(crate) fn linked_to(toy: Toy, link: Option<Link>) -> Self {
        let id = SagaId::mint(1_000, Slot::of("k"), 7);
        let start = Start {
            definition: "toy".into(),
            version: 1,
            number: "n1".into(),
            key: "k".into(),
            owner: Some("u1".into()),
            input: json!({ "total": 7 }),
            body_hash: String::new(),
            link,
        };
        let input = Input { saga: id, body: InputBody::Start(Box::new(start)) };
        let arrival = Arrival { id: "n1", time_ms: 1_000, lane: Lane::Live, input: &input };
        let first = decide(&toy, None, arrival, Setting { now_ms: 1_000, partitions: PARTITIONS });
        let saga = first.saga.clone().expect("it starts");
        let (events, effects) = (first.events.clone(), first.effects.clone());
        let run = Self { toy, saga, events, effects, last: first, now_ms: 1_000 };
        run.check();
        run
    }

    fn settle(&mut self, decision: Decision) {
        self.saga = decision.saga.clone().expect("it stays");
        self.events.extend(decision.events.iter().cloned());
        self.effects.extend(decision.effects.iter().cloned());
        self.last = decision;
        self.check();
    }

    /// Replay equals the live row, and the row survives its text.
    fn check(&self) {
        let replayed = fold::replay(&self.events).unwrap();
        assert_eq!(replayed, self.saga);
        // Without restarting at its snapshots it is the same saga.
        let mut folded = fold::begin(&self.events[0]).unwrap();
        self.events[1..].iter().for_each(|event| fold::apply(&mut folded, event));
        assert_eq!(folded, self.saga);
        assert_eq!(self.saga.version, self.events.len() as u64);
        let text = serde_json::to_string(&self.saga).unwrap();
        assert_eq!(serde_json::from_str::<Saga>(&text).unwrap(), self.saga, "{text}");
        for event in &self.last.events {
            let text = serde_json::to_string(event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), *event, "{text}");
        }
    }

    pub(crate) fn input(&mut self, id: &str, body: InputBody) -> &mut Self {
        let input = Input { saga: self.saga.id, body };
        let arrival = Arrival { id, time_ms: self.now_ms, lane: Lane::Live, input: &input };
        let setting = Setting { now_ms: self.now_ms, partitions: PARTITIONS };
        let decision = decide(&self.toy, Some(self.saga.clone()), arrival, setting);
        self.settle(decision);
        self
    }

    /// Lets time pass up to the next timer and fires it; false when there is none.
    pub(crate) fn tick(&mut self) -> bool {
        let Some(due_ms) = self.saga.due_ms(&self.toy.plan) else { return false };
        self.now_ms = self.now_ms.max(due_ms);
        let setting = Setting { now_ms: self.now_ms, partitions: PARTITIONS };
        let decision = decide_due(&self.toy, self.saga.clone(), setting.now_ms, setting);
        self.settle(decision);
        true
    }

    /// Its events are put together.
    pub(crate) fn snapshot(&mut self) -> &mut Self {
        let decision = snapshot(self.saga.clone(), self.now_ms);
        self.settle(decision);
        self
    }

    /// An input that nobody could handle went to the dead letters.
    pub(crate) fn bury(&mut self) -> &mut Self {
        let setting = Setting { now_ms: self.now_ms, partitions: PARTITIONS };
        let decision = decide_dead_letter(&self.toy, self.saga.clone(), "poison", "unfit", setting);
        self.settle(decision);
        self
    }

    /// What people were told in the last turn.
    pub(crate) fn alerts(&self) -> Vec<&str> {
        let effects = self.last.effects.iter();
        effects.filter_map(|e| if let Effect::Alert { text, .. } = e { Some(text.as_str()) } else { None }).collect()
    }

    pub(crate) fn effect_id(&self, step: &str, item: &str, direction: Direction, round: u8) -> EffectId {
        EffectId { saga: self.saga.id, step: step.into(), item: item.into(), direction, round }
    }

    pub(crate) fn reply(&mut self, effect_id: EffectId, verdict: Verdict) -> &mut Self {
        self.input("reply", InputBody::Reply(Reply { effect_id, verdict }))
    }

    /// The command of `STEP[/ITEM]`, or of its undo with a leading `-`, is done.
    pub(crate) fn done(&mut self, what: &str) -> &mut Self {
        let id = self.name(what);
        self.reply(id, Verdict::Done { data: json!({ "of": what }) })
    }

    pub(crate) fn refuse(&mut self, what: &str) -> &mut Self {
        let id = self.name(what);
        self.reply(id, Verdict::Refused { code: "toys.broken".into(), detail: String::new() })
    }

    fn name(&self, what: &str) -> EffectId {
        let (direction, rest) = match what.strip_prefix('-') {
            Some(rest) => (Direction::Undo, rest),
            None => (Direction::Do, what),
        };
        let (rest, round) = rest.split_once('#').unwrap_or((rest, "0"));
        let (step, item) = rest.split_once('/').unwrap_or((rest, ""));
        self.effect_id(step, item, direction, round.parse().unwrap())
    }

    pub(crate) fn paid(&mut self, no: &str, amount: u64) -> &mut Self {
        let data = json!({ "no": no, "amount": amount });
        self.input(no, InputBody::Event { name: "paid".into(), data })
    }

    /// The id of a new request.
    fn request(&self) -> String {
        format!("request-{}", self.saga.version)
    }

    pub(crate) fn cancel(&mut self, reason: &str, role: &str) -> &mut Self {
        let actor = Actor { subject: "somebody".into(), role: role.into() };
        self.input(&self.request(), InputBody::Cancel { reason: reason.into(), actor })
    }

    pub(crate) fn operate(&mut self, operation: Operation) -> &mut Self {
        let actor = Actor { subject: "op".into(), role: "operator".into() };
        self.input(&self.request(), InputBody::Operate { operation, reason: "because".into(), actor })
    }

    /// Commands sent in the last turn: `do hold/0#0`.
    pub(crate) fn sent(&self) -> Vec<String> {
        let line = |command: &Command| {
            let EffectId { step, item, direction, round, .. } = &command.effect_id;
            let slash = if item.is_empty() { "" } else { "/" };
            let minus = if *direction == Direction::Undo { "-" } else { "" };
            format!("{} {minus}{step}{slash}{item}#{round}", command.kind.label())
        };
        self.commands().map(line).collect()
    }

    pub(crate) fn commands(&self) -> impl Iterator<Item = &Command> {
        self.last.effects.iter().filter_map(|effect| match effect {
            Effect::Send(command) => Some(&**command),
            Effect::Start(_)
            | Effect::Publish(_)
            | Effect::Reply { .. }
            | Effect::Answer { .. }
            | Effect::Alert { .. }
            | Effect::Discrepancy { .. } => None,
        })
    }

    /// Numbers of the linked sagas started so far.
    pub(crate) fn linked(&self) -> Vec<String> {
        let number = |effect: &Effect| match effect {
            Effect::Start(start) => Some(start.number.clone()),
            Effect::Send(_)
            | Effect::Publish(_)
            | Effect::Reply { .. }
            | Effect::Answer { .. }
            | Effect::Alert { .. }
            | Effect::Discrepancy { .. } => None,
        };
        self.effects.iter().filter_map(number).collect()
    }

    pub(crate) fn status(&self) -> &str {
        &self.saga.status
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.saga.control.is_parked(&self.toy.plan)
    }
}
