//! Plans and samples made by hand for the tests of the checker.

use super::Sample;
use crate::plan::{
    AfterPivot, AtDeadline, Call, Ends, EventRule, Mismatch, Pivot, Plan, Reason, Refused, Retry, Stage, Step, Wait,
};
use std::sync::Arc;

/// Builds a plan stage by stage.
pub(super) struct Build(pub(super) Plan);

fn retry() -> Retry {
    Retry { timeout_ms: 5_000, ask_after_ms: 10_000, waits_ms: Arc::from([1_000]) }
}

fn call(action: &str) -> Call {
    Call { participant: "test".into(), action: action.into() }
}

impl Build {
    /// An empty plan.
    pub(super) fn new(pivot: Pivot) -> Self {
        let ends = Ends {
            completed: "completed".into(),
            cancelled: "cancelled".into(),
            reversed: "reversed".into(),
            forced: "forced".into(),
        };
        Self(Plan {
            definition: "test".into(),
            version: 1,
            stages: Vec::new(),
            forward_stages: 0,
            steps: Vec::new(),
            pivot,
            events: Vec::new(),
            reasons: Vec::new(),
            ends,
        })
    }

    /// A forward stage.
    pub(super) fn stage(mut self, name: &str) -> Self {
        assert_eq!(self.0.forward_stages, self.0.stages.len(), "forward stages come first");
        self.0.forward_stages += 1;
        self.any_stage(name)
    }

    /// A reversal stage.
    pub(super) fn reversal(self, name: &str) -> Self {
        self.any_stage(name)
    }

    fn any_stage(mut self, name: &str) -> Self {
        let from = self.0.steps.len();
        let conditional = true;
        self.0.stages.push(Stage { name: name.into(), status: None, steps: from..from, wait: None, conditional });
        self
    }

    /// A step of the last stage; with an undo unless changed.
    pub(super) fn step(mut self, name: &str, change: impl FnOnce(&mut Step)) -> Self {
        let stage = self.0.stages.len() - 1;
        let mut step = Step {
            name: name.into(),
            stage,
            call: call(name),
            undo: Some(call("undo")),
            refused: Refused::Compensate,
            best_effort: false,
            of: None,
            each: false,
            retry: retry(),
            parked_status: None,
        };
        change(&mut step);
        self.0.steps.push(step);
        self.0.stages[stage].steps.end += 1;
        self
    }

    /// The last stage waits for an event, which is late once passed.
    pub(super) fn wait(mut self, event: &str, change: impl FnOnce(&mut Wait)) -> Self {
        let known = self.0.event(event);
        let event = known.unwrap_or_else(|| {
            self.0.events.push(EventRule { name: event.into(), late: true });
            self.0.events.len() - 1
        });
        let mut wait = Wait {
            event,
            conditional: true,
            mismatch: Mismatch::Late,
            at_deadline: AtDeadline::Next,
            ask: None,
            retry: retry(),
        };
        change(&mut wait);
        if let Some(stage) = self.0.stages.last_mut() {
            stage.wait = Some(wait);
        }
        self
    }

    /// A reason to cancel.
    pub(super) fn reason(mut self, name: &str, role: &str, after_pivot: AfterPivot) -> Self {
        self.0.reasons.push(Reason { name: name.into(), role: role.into(), after_pivot });
        self
    }

    /// The action of an ask.
    pub(super) fn ask() -> Option<Call> {
        Some(call("ask"))
    }
}

/// A sample in which everything applies; each of `items` has that many runs.
pub(super) fn sample(plan: &Plan, name: &str, items: &[(&str, u8)]) -> Sample {
    let runs = plan
        .steps
        .iter()
        .map(|step| items.iter().find(|(name, _)| *name == &*step.name).map_or(1, |(_, count)| *count));
    Sample {
        name: name.into(),
        stages: vec![true; plan.stages.len()],
        runs: runs.collect(),
        applies: vec![true; plan.steps.len()],
    }
}

/// The plan of `flash_sale_order`.
pub(super) fn flash_sale() -> Plan {
    let after = |refused: Refused| move |step: &mut Step| step.refused = refused;
    let of = |of: usize| {
        move |step: &mut Step| {
            step.of = Some(of);
            step.refused = Refused::Reverse;
        }
    };
    Build::new(Pivot::Stage(1))
        .reason("unpaid", "deadline", AfterPivot::Refuse)
        .reason("user", "owner", AfterPivot::Reverse)
        .reason("risk", "risk", AfterPivot::Reverse)
        .stage("reserve")
        .step("hold_stock", |step| step.each = true)
        .step("hold_coupon", |_| {})
        .step("hold_points", |_| {})
        .stage("pay")
        .step("open_payment", |_| {})
        .wait("payment.captured", |wait| {
            wait.ask = Build::ask();
            wait.at_deadline = AtDeadline::Cancel { reason: 0 };
        })
        .stage("confirm")
        .step("book_payment", |step| {
            step.undo = None;
            step.refused = Refused::Park;
        })
        .step("confirm_stock", of(0))
        .step("confirm_coupon", of(1))
        .step("confirm_points", of(2))
        .stage("finish")
        .step("award_points", after(Refused::Park))
        .step("tell_buyer", |step| {
            step.undo = None;
            step.best_effort = true;
        })
        .reversal("refund")
        .step("refund", |step| {
            step.of = Some(3);
            step.undo = None;
            step.refused = Refused::Park;
        })
        .0
}

/// Items, coupon, points of a flash sale.
pub(super) fn order(plan: &Plan, items: u8, coupon: u8, points: u8) -> Sample {
    let name = format!("{items} items, {coupon} coupons, {points} points");
    sample(plan, &name, &[("hold_stock", items), ("hold_coupon", coupon), ("hold_points", points)])
}

/// One item and its payment, and nothing else.
pub(super) fn bare_order(plan: &Plan) -> Sample {
    let none = ["hold_coupon", "hold_points", "book_payment", "award_points", "tell_buyer"].map(|step| (step, 0));
    sample(plan, "one item, no more", &none)
}
