//! Counts sagas as their batches are committed: begun, parked, ended, and how long they took; and what became of their steps.

use crate::decide::Changed;
use crate::waiters::Claim;
use endstate_outbox::metric::{Counter, Histogram, Metric};
use endstate_saga::control::Phase;
use endstate_saga::event::{Event, Fact};
use endstate_saga::plan::{Plan, Step};
use endstate_saga::saga::{RunData, Saga};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A shard's counters, looked up once per definition.
#[derive(Default)]
pub(crate) struct Tally(FxHashMap<Arc<str>, Counts>);

struct Counts {
    started: Counter,
    parked: Counter,
    ended: FxHashMap<&'static str, (Counter, Histogram)>,
    /// By version, step and outcome.
    steps: FxHashMap<(u32, u8, &'static str), (Counter, Histogram)>,
}

impl Tally {
    /// One saga of a committed batch.
    pub(crate) fn take(&mut self, changed: &Changed, now_ms: i64) {
        let Some(saga) = &changed.saga else { return };
        let definition = &saga.definition;
        let counts = self.0.entry(Arc::clone(definition)).or_insert_with(|| Counts {
            started: Metric::SagasStarted.counter(&[definition]),
            parked: Metric::SagasParked.counter(&[definition]),
            ended: FxHashMap::default(),
            steps: FxHashMap::default(),
        });
        if let Some((definition, events)) = &changed.story {
            counts.steps(saga, definition.plan(), events);
        }
        if matches!(changed.claim, Some(Claim::First)) {
            counts.started.increment(1);
        }
        if changed.was == Some(changed.phase) {
            return;
        }
        if changed.phase == Phase::Parked {
            counts.parked.increment(1);
        }
        if let Some(outcome) = saga.control.outcome() {
            let (ended, took) = counts.ended.entry(outcome.label()).or_insert_with(|| {
                let labels = [&**definition, outcome.label()];
                (Metric::SagasEnded.counter(&labels), Metric::SagaDuration.histogram(&labels))
            });
            ended.increment(1);
            took.record((now_ms - saga.started_ms).max(0) as f64 / 1_000.0);
        }
    }
}

impl Counts {
    /// What a batch's events say of the commands that were sent.
    fn steps(&mut self, saga: &Saga, plan: &Plan, events: &[Event]) {
        for (index, event) in events.iter().enumerate() {
            let Some((number, outcome)) = told(&event.fact) else { continue };
            let Some(run) = saga.data.runs.get(usize::from(number)) else { continue };
            let Some(step) = plan.steps.get(usize::from(run.step)) else { continue };
            let (count, took) = self.steps.entry((saga.definition_version, run.step, outcome)).or_insert_with(|| {
                let (definition, step) = (&*saga.definition, &*step.name);
                let count = Metric::StepOutcomes.counter(&[definition, step, outcome]);
                (count, Metric::StepDuration.histogram(&[definition, step]))
            });
            count.increment(1);
            if let Some(took_ms) = took_ms(event, number, run, step, &events[index + 1..]) {
                took.record(took_ms as f64 / 1_000.0);
            }
        }
    }
}

/// The run that a fact is about, and what became of its command; none for what says nothing of a command.
fn told(fact: &Fact) -> Option<(u8, &'static str)> {
    Some(match fact {
        Fact::RunDone { run, .. } => (*run, "done"),
        Fact::RunRefused { run, .. } => (*run, "refused"),
        Fact::RunExhausted { run } => (*run, "exhausted"),
        Fact::RunAbandoned { run } => (*run, "abandoned"),
        Fact::RunAsked { run, .. } => (*run, "asked"),
        Fact::RunResent { run, .. } => (*run, "sent_again"),
        Fact::Contradicted { run, .. } => (*run, "contradicted"),
        Fact::UndoDone { run } => (*run, "undone"),
        Fact::UndoRefused { run, .. } => (*run, "undo_refused"),
        Fact::UndoAbandoned { run } => (*run, "undo_abandoned"),
        _ => return None,
    })
}

/// Time from a command to its answer. The state knows when the first timer is due, and thereby when the command was sent; of
/// one that was asked about or sent again it knows no more, nor once the batch has sent the run's undo, or sent it anew.
fn took_ms(event: &Event, number: u8, run: &RunData, step: &Step, later: &[Event]) -> Option<i64> {
    let answers = matches!(
        event.fact,
        Fact::RunDone { .. } | Fact::RunRefused { .. } | Fact::UndoDone { .. } | Fact::UndoRefused { .. }
    );
    let sent_anew = |event: &Event| match &event.fact {
        Fact::UndosSent { runs } => runs.iter().any(|(run, _)| *run == number),
        Fact::RunRetried { run, .. } => *run == number,
        _ => false,
    };
    if !answers || run.asked || run.attempt > 0 || later.iter().any(sent_anew) {
        return None;
    }
    let first_timer_ms = i64::try_from(step.retry.first_timer_ms()).ok()?;
    Some((event.at_ms - (run.due_ms - first_timer_ms)).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use endstate_events::Json;
    use endstate_saga::plan::{Call, Refused, Retry};

    fn step() -> Step {
        let retry = Retry { timeout_ms: 5_000, ask_after_ms: 3_000, waits_ms: Arc::new([1_000]) };
        let call = Call { participant: "stock".into(), action: "hold".into() };
        let (undo, of, parked_status) = (None, None, None);
        let (name, refused, best_effort, each) = ("hold".into(), Refused::Compensate, false, false);
        Step { name, stage: 0, call, undo, refused, best_effort, of, each, retry, parked_status }
    }

    /// Sent at 10,000.
    fn run() -> RunData {
        serde_json::from_value(serde_json::json!({"s": 0, "w": {}, "d": 13_000})).unwrap()
    }

    fn at(at_ms: i64, fact: Fact) -> Event {
        Event { at_ms, fact }
    }

    #[test]
    fn an_answer_took_the_time_since_its_command_was_sent() {
        let done = at(10_250, Fact::RunDone { run: 0, reply: Arc::new(Json::Null) });
        let took = |run: &RunData, later: &[Event]| took_ms(&done, 0, run, &step(), later);
        assert_eq!(took(&run(), &[]), Some(250));
        assert_eq!(took(&RunData { asked: true, ..run() }, &[]), None, "its timer is another");
        assert_eq!(took(&RunData { attempt: 1, ..run() }, &[]), None, "it was sent again");
        let undo = |run| at(10_250, Fact::UndosSent { runs: vec![(run, 3_000)] });
        assert_eq!(took(&run(), &[undo(0)]), None, "the state is the undo's");
        assert_eq!(took(&run(), &[undo(1)]), Some(250));
        let asked = at(13_000, Fact::RunAsked { run: 0, in_ms: 5_000 });
        assert_eq!(told(&asked.fact), Some((0, "asked")));
        assert_eq!(took_ms(&asked, 0, &run(), &step(), &[]), None, "nobody has answered");
    }
}
