//! Rules over the laid-out plan that need no sample.

use super::{Linked, Linker, MAX_RUNS, MAX_STAGES, MAX_STEPS};
use crate::definition::diagnostic::{Code, Diagnostic};
use crate::definition::draft::{StageDraft, StepDraft};
use crate::definition::gateway::Starter;
use crate::plan::{AfterPivot, AtDeadline, Pivot, Refused};

impl Linker<'_> {
    /// Checks everything that `link` leaves open.
    pub(super) fn check_rules(&self, linked: &Linked) {
        self.check_limits(linked);
        let plan = &linked.plan;
        for (index, stage) in self.draft.stages.iter().enumerate() {
            let before = match plan.pivot {
                Pivot::Never => true,
                Pivot::Start => false,
                Pivot::Stage(pivot) => index <= pivot,
            };
            stage.steps.iter().for_each(|step| self.check_step(step, before));
            if before {
                self.check_deadline_before(stage);
            }
        }
        for stage in &self.draft.reverse {
            stage.steps.iter().for_each(|step| self.check_step(step, false));
        }
        self.check_ends(linked);
        self.check_starter();
        if let Some((name, _)) = self.draft.values.iter().enumerate().find_map(|(index, (name, template))| {
            self.draft.values[..index].iter().any(|(other, _)| other.value == name.value).then_some((name, template))
        }) {
            self.complaints.add(Code::BadName, &name.at, format!("there are two values `{}`", name.value));
        }
    }

    fn check_starter(&self) {
        let Some(starter) = &self.draft.started_by else { return };
        let wrong = match starter.value {
            Starter::Owner if self.draft.owner.is_none() => "`started_by: owner` needs `owner`: who that is",
            Starter::Link if !self.draft.starts_on.is_empty() => {
                "`started_by: link` and `starts_on` exclude each other"
            }
            Starter::Owner | Starter::Service | Starter::Link => return,
        };
        self.complaints.add(Code::WrongValue, &starter.at, wrong);
    }

    fn check_limits(&self, linked: &Linked) {
        let plan = &linked.plan;
        let runs: usize = linked.steps.iter().map(|step| step.bound).sum();
        let too_many = [
            (plan.stages.len(), MAX_STAGES, "stages"),
            (plan.steps.len(), MAX_STEPS, "steps"),
            (runs, MAX_RUNS, "runs (steps, each `each` counted with its `maxItems`)"),
        ];
        for (count, limit, what) in too_many.into_iter().filter(|(count, limit, _)| count > limit) {
            self.complaints.add(
                Code::TooManyRuns,
                &self.draft.at,
                format!("{count} {what}, at most {limit} are possible"),
            );
        }
        if self.draft.stages.is_empty() {
            self.complaints.add(Code::MissingKey, &self.draft.at, "a definition needs at least one stage");
        }
    }

    fn check_step(&self, step: &StepDraft, before_pivot: bool) {
        let name = &step.name.value;
        let complain = |code, reason: String, fix: String| {
            self.complaints.push(Diagnostic::new(code, &step.name.at, reason).fix(fix));
        };
        if step.undo.is_some() && step.no_undo.is_some() {
            complain(
                Code::WrongValue,
                format!("step `{name}` has `undo` and `no_undo`"),
                "keep one of them".to_owned(),
            );
        }
        if before_pivot && step.undo.is_none() && step.no_undo.is_none() {
            let reason = format!("step `{name}` stands before the pivot and has neither `undo` nor `no_undo`");
            complain(Code::NoUndo, reason, self.undo_fix(step));
        }
        if !before_pivot && !step.best_effort {
            let fix = "write `refused: park`, `reverse` or `skip`, or `best_effort: true`".to_owned();
            match step.refused {
                None => {
                    let reason = format!("step `{name}` stands after the pivot and does not say what a refusal means");
                    complain(Code::NoRefusedRule, reason, fix);
                }
                Some(Refused::Compensate) => {
                    let reason = format!("step `{name}` stands after the pivot: it cannot be compensated");
                    complain(Code::NoRefusedRule, reason, fix);
                }
                Some(Refused::Park | Refused::Reverse | Refused::Skip) => {}
            }
        }
        match (&step.each, &step.item_key, &step.of) {
            (Some(_), _, Some(of)) => {
                let reason =
                    format!("step `{name}` runs once for each run of `{}`; it has no list of its own", of.value);
                complain(Code::BadReference, reason, "remove `each`".to_owned());
            }
            (Some(_), None, None) => {
                let reason = format!("step `{name}` has `each` and needs `item_key`, a unique key of each item");
                complain(Code::MissingKey, reason, "write `item_key: =item.FIELD`".to_owned());
            }
            (None, Some(_), _) => {
                let reason = format!("step `{name}` has `item_key` without `each`");
                complain(Code::MissingKey, reason, "write `each: =input.LIST`".to_owned());
            }
            (Some(_), Some(_), None) | (None, None, _) => {}
        }
    }

    fn undo_fix(&self, step: &StepDraft) -> String {
        let usual = step.call.as_ref().and_then(|call| {
            let action = self.catalogue.action(&call.value.participant, &call.value.action)?;
            Some(format!("{}.{}", call.value.participant, action.undo.as_ref()?))
        });
        match usual {
            Some(undo) => format!("write `undo: {undo}`"),
            None => {
                "write `undo: PARTICIPANT.ACTION`, or `no_undo: REASON` when there is nothing to give back".to_owned()
            }
        }
    }

    /// Before the pivot a deadline cannot reverse; plans would treat it as a cancel without a reason.
    fn check_deadline_before(&self, stage: &StageDraft) {
        use crate::definition::draft::DeadlineDraft;
        let Some(wait) = &stage.wait else { return };
        if let Some(DeadlineDraft::Reverse) = wait.at_deadline {
            let diagnostic =
                Diagnostic::new(Code::WrongValue, &wait.at, "before the pivot a deadline cancels, it does not reverse");
            self.complaints.push(diagnostic.fix("write `at_deadline: { cancel: REASON }`"));
        }
    }

    fn check_ends(&self, linked: &Linked) {
        let plan = &linked.plan;
        let ends = &self.draft.ends;
        let pivot = plan.pivot != Pivot::Never;
        let needed = [
            ("completed", ends.completed.is_none(), "every definition can complete"),
            ("forced", ends.forced.is_none(), "an operator can force every saga to an end"),
            (
                "cancelled",
                self.draft.pivot_at_start.is_none() && ends.cancelled.is_none(),
                "it can be cancelled before the pivot",
            ),
            (
                "reversed",
                pivot && ends.reversed.is_none(),
                "after the pivot it can be reversed, at least by an operator",
            ),
        ];
        for (name, _, why) in needed.into_iter().filter(|(_, missing, _)| *missing) {
            self.complaints.add(Code::MissingEnd, &ends.at, format!("`ends` needs a status for `{name}`: {why}"));
        }
        if pivot {
            return;
        }
        let reverses = plan.reasons.iter().any(|reason| reason.after_pivot == AfterPivot::Reverse)
            || plan.steps.iter().any(|step| step.refused == Refused::Reverse)
            || plan
                .stages
                .iter()
                .filter_map(|stage| stage.wait.as_ref())
                .any(|wait| wait.at_deadline == AtDeadline::Reverse);
        if reverses || !self.draft.reverse.is_empty() {
            let reason = "without a pivot there is nothing to reverse: everything is compensated";
            self.complaints.add(Code::PivotMisplaced, &self.draft.at, reason);
        }
    }
}
