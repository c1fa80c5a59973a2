//! Folding: what a saga becomes by an event. The only place that writes to a saga, live or in a replay.

use crate::control::{self, Control, Undo};
use crate::event::{Event, Fact, Started};
use crate::saga::{Ask, Data, Request, RunData, Saga};
use endstate_events::{Direction, Json};
use std::sync::Arc;

/// The saga that a `Started` event begins, or a `Snapshot` holds; none for any other event.
#[must_use]
pub fn begin(event: &Event) -> Option<Saga> {
    if let Fact::Snapshot(saga) = &event.fact {
        let mut saga = (**saga).clone();
        apply(&mut saga, event);
        return Some(saga);
    }
    let Fact::Started(started) = &event.fact else { return None };
    let Started { id, definition, definition_version, number, key, owner, lane, started_ms, .. } = &**started;
    let nothing = Arc::new(Json::Null);
    Some(Saga {
        id: *id,
        definition: definition.clone(),
        definition_version: *definition_version,
        number: number.clone(),
        key: key.clone(),
        owner: owner.clone(),
        lane: *lane,
        version: 1,
        started_ms: *started_ms,
        changed_ms: event.at_ms,
        status: Arc::from(""),
        reason: None,
        snapshot_ms: None,
        control: Control::default(),
        data: Data {
            input: started.input.clone(),
            values: started.values.clone(),
            order: started.order.clone(),
            waits: vec![nothing; usize::from(started.stages)],
            ..Data::default()
        },
        link: started.link.clone(),
    })
}

/// What a saga becomes by its events: all since its start, or since a snapshot. Of those before a snapshot, some may be
/// gone. None when neither is among them.
#[must_use]
pub fn replay<'e>(events: impl IntoIterator<Item = &'e Event>) -> Option<Saga> {
    let events: Vec<&Event> = events.into_iter().collect();
    // Not from the first: between a start and a snapshot there may be a gap.
    let (from, mut saga) = (0..events.len()).rev().find_map(|index| Some((index, begin(events[index])?)))?;
    events[from + 1..].iter().for_each(|event| apply(&mut saga, event));
    Some(saga)
}

/// Applies one event after the first.
pub fn apply(saga: &mut Saga, event: &Event) {
    saga.version += 1;
    if let Fact::Snapshot(_) = &event.fact {
        // Nothing happened to it.
        saga.snapshot_ms = Some(event.at_ms);
        return;
    }
    saga.changed_ms = event.at_ms;
    record(saga, event.at_ms, &event.fact);
    if let Some(fact) = event.fact.control() {
        control::apply_to(&mut saga.control, &fact);
    }
}

/// The data half; control is still as before.
#[expect(clippy::too_many_lines, reason = "one arm per fact, to be read in one piece")]
fn record(saga: &mut Saga, at_ms: i64, fact: &Fact) {
    let data = &mut saga.data;
    match fact {
        Fact::StageEntered { runs, .. } => {
            data.runs.extend(runs.iter().map(|run| RunData { due_ms: at_ms + run.due_ms, ..run.clone() }));
        }
        Fact::RunDone { run, reply } => data.runs[usize::from(*run)].reply = reply.clone(),
        Fact::Contradicted { run, reply } => {
            let undone = saga.control.runs()[usize::from(*run)].undo != Undo::None;
            if !undone && !reply.is_null() {
                data.runs[usize::from(*run)].reply = reply.clone();
            }
        }
        Fact::UndosSent { runs } => {
            for (run, in_ms) in runs {
                rearm(&mut data.runs[usize::from(*run)], at_ms, *in_ms);
            }
        }
        Fact::RunRetried { run, in_ms, direction: Direction::Do | Direction::Undo } => {
            rearm(&mut data.runs[usize::from(*run)], at_ms, *in_ms);
        }
        Fact::RunAsked { run, in_ms } => {
            let run = &mut data.runs[usize::from(*run)];
            run.asked = true;
            run.due_ms = later(at_ms, *in_ms);
        }
        Fact::RunResent { run, attempt, in_ms } => {
            let run = &mut data.runs[usize::from(*run)];
            run.attempt = *attempt;
            run.due_ms = later(at_ms, *in_ms);
        }
        Fact::RunDelayed { run, in_ms } => data.runs[usize::from(*run)].due_ms = later(at_ms, *in_ms),
        Fact::WaitOpened { in_ms, .. } => data.deadline_ms = Some(later(at_ms, *in_ms)),
        Fact::EventKept(kept) => {
            data.consumed.push(kept.id.clone());
            data.kept.push(kept.clone());
        }
        Fact::EventTaken { stage, id, data: event } => take(data, *stage, id, event),
        Fact::EventMismatched { event, .. } => {
            data.deadline_ms = None;
            if let Some(kept) = event {
                data.consumed.push(kept.id.clone());
                data.kept.push(kept.clone());
            }
        }
        Fact::KeptLate { stage } => data.kept.retain(|kept| kept.stage != *stage),
        Fact::EventLate { id, .. } => data.consumed.push(id.clone()),
        Fact::WaitAsked(ask) => {
            data.ask = Some(Box::new(Ask { due_ms: at_ms + ask.due_ms, ..ask.clone() }));
        }
        Fact::WaitAskedAgain { attempt, in_ms } => {
            if let Some(ask) = &mut data.ask {
                ask.attempt = *attempt;
                ask.due_ms = later(at_ms, *in_ms);
            }
        }
        Fact::DeadlinePassed { .. } | Fact::DeadlineParked { .. } | Fact::WaitReset { .. } => data.deadline_ms = None,
        Fact::DeadLettered { run: Some(run), .. } => data.runs[usize::from(*run)].put_aside = true,
        Fact::FaultCleared | Fact::ForceBegan => take_up(data),
        Fact::TurnedBack { reason, .. } => {
            data.deadline_ms = None;
            take_up(data);
            saga.reason = Some(reason.clone());
        }
        Fact::Ended { .. } => data.deadline_ms = None,
        Fact::StatusChanged { status } => saga.status = status.clone(),
        Fact::Started(_)
        | Fact::StageSkipped { .. }
        | Fact::RunRefused { .. }
        | Fact::RunExhausted { .. }
        | Fact::RunAbandoned { .. }
        | Fact::UndoDone { .. }
        | Fact::UndoRefused { .. }
        | Fact::UndoAbandoned { .. }
        | Fact::ContradictionAccepted { .. }
        | Fact::ReversalBegan { .. }
        | Fact::ReturnBegan
        | Fact::Faulted { .. }
        | Fact::DeadLettered { run: None, .. }
        | Fact::Snapshot(_) => {}
        Fact::CancelRequested { .. } | Fact::Operated { .. } => {
            data.requests.extend(Request::of(fact));
            let old = data.requests.len().saturating_sub(Request::MOST);
            data.requests.drain(..old);
        }
    }
}

fn later(at_ms: i64, in_ms: u64) -> i64 {
    at_ms.saturating_add_unsigned(in_ms)
}

/// A command that is new, or in a new round: its ladder begins at the bottom.
fn rearm(run: &mut RunData, at_ms: i64, in_ms: u64) {
    run.attempt = 0;
    run.asked = false;
    run.put_aside = false;
    run.due_ms = later(at_ms, in_ms);
}

/// A person has looked: what was put aside may be sent again.
fn take_up(data: &mut Data) {
    data.runs.iter_mut().for_each(|run| run.put_aside = false);
}

fn take(data: &mut Data, stage: u8, id: &Arc<str>, event: &Arc<Json>) {
    let kept = data.kept.iter().position(|kept| kept.stage == stage && kept.id == *id);
    let event = match kept {
        Some(index) => data.kept.remove(index).data,
        None => {
            data.consumed.push(id.clone());
            event.clone()
        }
    };
    if let Some(taken) = data.waits.get_mut(usize::from(stage)) {
        *taken = event;
    }
    data.deadline_ms = None;
}
