//! One command on the desk: what was answered before is answered again, anything new is decided, outside parties are
//! called later. Pure: everything comes in with the desk and the job.

use crate::desk::{Call, Denial, Desk, Job, Made};
use crate::effect::{Effect, EffectState, body_hash};
use crate::ledger::TransferKind;
use crate::payment::{Captured, captures};
use crate::reads::Reads;
use crate::{bench, coupon, hold, payment, points, returns, stock};
use endstate_events::{CommandKind, Direction, Verdict};
use std::sync::Arc;

/// Decides one command. `None`: no answer yet, an outside party is being called.
pub fn decide(desk: &mut Desk, job: &Job<'_>) -> Option<Verdict> {
    if job.command.participant == bench::NAME {
        return Some(bench::decide(job.command));
    }
    if job.command.kind == CommandKind::Ask {
        return ask(desk, job);
    }
    match desk.effects.get(job.id) {
        None => {
            let made = act(desk, job);
            settle(desk, job, made)
        }
        Some(known) if known.body.is_some_and(|body| body != body_hash(job.command)) => Some(known.conflict()),
        Some(known) if known.state == EffectState::Unknown => call_again(desk, job),
        Some(known) => known.verdict(),
    }
}

/// Adds what the command may touch. Effects are read before, because they name accounts, too.
pub fn reads(job: &Job<'_>, reads: &mut Reads) {
    match job.command.participant.as_str() {
        "stock" => stock::reads(job, reads),
        "coupon" => coupon::reads(job, reads),
        "points" => points::reads(job, reads),
        "returns" => returns::reads(job, reads),
        "payment" => payment::reads(job, reads),
        _ => {}
    }
}

fn act(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let command = job.command;
    match (command.participant.as_str(), command.action.as_str()) {
        ("stock" | "coupon" | "points", "open" | "adjust" | "void") if !job.is_operation() => {
            Err(Denial::Unknown(format!("E5002: {}.{} is for operators", command.participant, command.action)))
        }
        ("stock" | "coupon" | "points" | "returns", _) if job.is_undo() => hold::undo(desk, job),
        ("stock" | "coupon" | "points", "release" | "unconfirm") => hold::undo(desk, job),
        ("stock" | "coupon" | "points", "confirm") => hold::confirm(desk, job),
        ("stock", "hold") => stock::hold(desk, job),
        ("stock", "take") => stock::take(desk, job),
        ("stock", "put_back") => stock::put_back(desk, job),
        ("stock", "open") => stock::open(desk, job),
        ("stock", "adjust") => stock::adjust(desk, job),
        ("coupon", "hold") => coupon::hold(desk, job),
        ("coupon", "give_back") => coupon::give_back(desk, job),
        ("coupon", "open") => coupon::open(desk, job),
        ("coupon", "void") => coupon::void(desk, job),
        ("points", "hold") => points::hold(desk, job),
        ("points", "award") => points::award(desk, job),
        ("points", "take_back") => points::take_back(desk, job),
        ("points", "give_back") => points::give_back(desk, job),
        ("points", "adjust") => points::adjust(desk, job),
        ("returns", "claim") => returns::claim(desk, job),
        ("payment", "book") => payment::book(desk, job),
        ("payment", "refund") => payment::refund(desk, job),
        ("payment", "open" | "close" | "ask") | ("notify", "send") => Ok(call(desk, job)),
        (participant @ ("stock" | "coupon" | "points" | "returns" | "payment" | "notify"), action) => {
            Err(Denial::Unknown(format!("E5001: participant {participant} has no action {action}")))
        }
        // Everybody else is outside; the caller knows from the catalogue where.
        _ => Ok(call(desk, job)),
    }
}

/// An outside party has its own tombstones; ours stops a late command before it goes out.
fn call(desk: &mut Desk, job: &Job<'_>) -> Made {
    if job.is_undo() {
        hold::leave_tombstone(desk, job);
    }
    payment::called()
}

fn settle(desk: &mut Desk, job: &Job<'_>, made: Result<Made, Denial>) -> Option<Verdict> {
    let mut effect = Effect::of_command(job.command, job.id.clone(), job.lane, EffectState::Refused, job.now_ms);
    match made {
        Ok(made) => {
            effect.state = made.state;
            effect.data = made.data;
            effect.pledge = made.pledge;
            effect.token = made.token;
        }
        Err(Denial::Refused { code, detail }) => {
            effect.code = Some(code.into());
            effect.data = detail.into();
        }
        Err(Denial::Unknown(reason)) => return Some(Verdict::unknown(reason)),
    }
    let verdict = effect.verdict();
    if effect.state == EffectState::Calling {
        intend(desk, job);
    }
    desk.effects.put(job.id.clone(), effect);
    verdict
}

/// What became of an effect; asks the outside party when only it can know.
fn ask(desk: &mut Desk, job: &Job<'_>) -> Option<Verdict> {
    match desk.effects.get(job.id) {
        None => Some(Verdict::NeverSeen),
        Some(known) if known.state == EffectState::Unknown => call_again(desk, job),
        Some(known) => known.verdict(),
    }
}

fn call_again(desk: &mut Desk, job: &Job<'_>) -> Option<Verdict> {
    let effect = desk.effects.get(job.id)?;
    let effect = Effect { state: EffectState::Calling, ..effect.clone() };
    desk.effects.put(job.id.clone(), effect);
    intend(desk, job);
    None
}

fn intend(desk: &mut Desk, job: &Job<'_>) {
    let command = Arc::new(job.command.clone());
    let call = Call { id: job.id.clone(), lane: job.lane, command, time_ms: job.now_ms };
    desk.intents.push(call.clone());
    desk.calls.put(job.id.clone(), call);
}

/// What an outside party's answer means.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The command that it answers.
    pub call: Call,
    /// What the saga is told.
    pub verdict: Verdict,
    /// Payments that the answer revealed; the saga hears of them first.
    pub captures: Vec<Captured>,
}

/// Books the answer to an open call. `None` when no such call is open: answered before.
pub fn answered(desk: &mut Desk, id: &Arc<str>, verdict: Verdict) -> Option<Answered> {
    let call = desk.calls.get(id)?.clone();
    let mut effect = desk.effects.get(id)?.clone();
    let command = &call.command;
    let undoes = command.effect_id.direction == Direction::Undo;
    let mut revealed = Vec::new();
    effect.state = match &verdict {
        Verdict::Done { data } => {
            revealed = captures(data);
            effect.data = data.clone();
            // The answer to a question is not kept: the next one is asked again.
            let asked = (command.participant.as_str(), command.action.as_str()) == ("payment", "ask");
            if asked { EffectState::Unknown } else { EffectState::Done }
        }
        // An undo that is refused is no vouch for ever: an operator sends it again under the same id.
        Verdict::Refused { .. } if undoes => EffectState::Unknown,
        Verdict::Refused { code, detail } => {
            effect.code = Some(code.as_str().into());
            effect.data = detail.as_str().into();
            EffectState::Refused
        }
        Verdict::Unknown { .. } | Verdict::NeverSeen => EffectState::Unknown,
    };
    let resolved = match effect.state {
        EffectState::Done => hold::resolve(desk, id, &mut effect, TransferKind::Post),
        EffectState::Refused => hold::resolve(desk, id, &mut effect, TransferKind::Void),
        _ => Ok(()),
    };
    if let Err(denial) = resolved {
        tracing::error!(effect = %id, ?denial, "E5010: the ledger contradicts an outside party's answer");
    }
    if effect.state == EffectState::Done && undoes {
        mark_undone(desk, &effect);
    }
    desk.effects.put(id.clone(), effect);
    desk.calls.remove(id);
    Some(Answered { call, verdict, captures: revealed })
}

/// What an outside party undid is made no more.
fn mark_undone(desk: &mut Desk, undo: &Effect) {
    let Some(of) = undo.of.as_deref().and_then(|of| desk.effects.get(of)) else { return };
    if matches!(of.state, EffectState::Done | EffectState::Unknown) {
        let of = Effect { state: EffectState::Released, ..of.clone() };
        desk.effects.put(of.id.clone(), of);
    }
}

/// What the self-check of an old hold brought: true when the hold was given back.
pub fn inquired(desk: &mut Desk, hold: &Arc<str>, undo: &Arc<str>) -> bool {
    let held = desk.effects.get(hold).filter(|effect| effect.state == EffectState::Held).cloned();
    held.is_some_and(|effect| hold::release(desk, undo, effect).is_ok())
}
