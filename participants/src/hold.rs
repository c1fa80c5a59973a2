//! The life of a hold, the same for stock, coupons and points: held -> confirmed -> held again -> released, and every
//! undo, also one that comes before what it undoes.

use crate::desk::{Denial, Desk, Job, Made, transfer};
use crate::effect::{Effect, EffectState, Pledge};
use crate::ledger::{LedgerError, TransferKind};
use crate::points;
use endstate_events::Json;
use serde_json::json;
use std::sync::Arc;

/// Sets an amount aside for this effect.
pub(crate) fn pledge(
    desk: &mut Desk,
    job: &Job<'_>,
    debit: &Arc<str>,
    credit: &Arc<str>,
    amount: i64,
) -> Result<Pledge, LedgerError> {
    let pending = job.transfer(1, TransferKind::Pending, debit, credit, amount);
    desk.ledger.apply(std::slice::from_ref(&pending))?;
    Ok(Pledge { debit: pending.debit, credit: pending.credit, amount, open: Some(pending.id) })
}

/// Turns the hold that `of` names into a sale, a spending or a use.
pub(crate) fn confirm(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let mut hold = referred(desk, job)?.ok_or_else(|| Denial::Unknown("its hold was never met here".to_owned()))?;
    let refused = |what: &str| Err(Denial::refused(&format!("{}.{what}", job.command.participant)));
    match hold.state {
        EffectState::Held => {}
        EffectState::Released | EffectState::Refused | EffectState::ReleasedBefore => return refused("released"),
        EffectState::Confirmed => return refused("confirmed"),
        EffectState::Done | EffectState::Calling | EffectState::Unknown => return refused("not_held"),
    }
    resolve(desk, job.id, &mut hold, TransferKind::Post)?;
    change_token(desk, &hold, |token| token.used_by(&hold.id))?;
    hold.state = EffectState::Confirmed;
    desk.effects.put(hold.id.clone(), hold);
    Ok(Made::done(json!({})))
}

/// Undoes the effect that `of` names. One that was never met gets a tombstone, so that it never happens later.
pub(crate) fn undo(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let Some(effect) = referred(desk, job)? else {
        leave_tombstone(desk, job);
        return Ok(Made::done(json!({})));
    };
    match effect.state {
        EffectState::Refused | EffectState::ReleasedBefore | EffectState::Released => Ok(Made::done(json!({}))),
        EffectState::Held => release(desk, job.id, effect),
        EffectState::Done => reverse(desk, job, effect),
        // The confirm that the sender does not know of yet has to be undone first.
        EffectState::Confirmed => Err(Denial::Unknown("the hold is confirmed".to_owned())),
        EffectState::Calling | EffectState::Unknown => Err(Denial::Unknown("the effect is not settled".to_owned())),
    }
}

/// Marks the effect that `of` names as never to be made, if it was not met yet.
pub(crate) fn leave_tombstone(desk: &mut Desk, job: &Job<'_>) {
    let Some(of) = &job.command.of else { return };
    let id: Arc<str> = of.effect_id.to_string().into();
    if desk.effects.get(&id).is_none() {
        desk.effects.put(id.clone(), Effect::tombstone(job.command, id, job.lane, job.now_ms));
    }
}

/// Gives back what a hold set aside; `id` names the transfer that does it.
pub(crate) fn release(desk: &mut Desk, id: &Arc<str>, mut hold: Effect) -> Result<Made, Denial> {
    resolve(desk, id, &mut hold, TransferKind::Void)?;
    change_token(desk, &hold, |token| token.freed_by(&hold.id))?;
    hold.state = EffectState::Released;
    desk.effects.put(hold.id.clone(), hold);
    Ok(Made::done(json!({})))
}

/// Undoes what was done at once, and confirms.
fn reverse(desk: &mut Desk, job: &Job<'_>, mut effect: Effect) -> Result<Made, Denial> {
    let data = match (&*effect.participant, &*effect.action) {
        (_, "confirm") => unconfirm(desk, job, &effect)?,
        ("points", "award") => points::undo_award(desk, job, &effect)?,
        _ => {
            if let Some(Pledge { debit, credit, amount, .. }) = &effect.pledge {
                let back = job.transfer(1, TransferKind::Direct, credit, debit, *amount);
                desk.ledger.apply(&[back]).map_err(not_now)?;
            }
            json!({})
        }
    };
    effect.state = EffectState::Released;
    desk.effects.put(effect.id.clone(), effect);
    Ok(Made::done(data))
}

/// Makes a confirmed hold a hold again, which its release then gives back.
fn unconfirm(desk: &mut Desk, job: &Job<'_>, confirm: &Effect) -> Result<Json, Denial> {
    let hold = confirm.of.as_deref().and_then(|id| desk.effects.get(id));
    let Some(mut hold) = hold.filter(|hold| hold.state == EffectState::Confirmed).cloned() else {
        return Err(Denial::Unknown("its hold is not confirmed".to_owned()));
    };
    if let Some(pledge) = &mut hold.pledge {
        let back = job.transfer(1, TransferKind::Direct, &pledge.credit, &pledge.debit, pledge.amount);
        let again = job.transfer(2, TransferKind::Pending, &pledge.debit, &pledge.credit, pledge.amount);
        pledge.open = Some(again.id.clone());
        desk.ledger.apply(&[back, again]).map_err(not_now)?;
    }
    change_token(desk, &hold, |token| token.unused_by(&hold.id))?;
    hold.state = EffectState::Held;
    desk.effects.put(hold.id.clone(), hold);
    Ok(json!({}))
}

/// Posts or voids what the effect set aside.
pub(crate) fn resolve(desk: &mut Desk, id: &Arc<str>, effect: &mut Effect, kind: TransferKind) -> Result<(), Denial> {
    let Some(pledge) = &mut effect.pledge else { return Ok(()) };
    let Some(open) = pledge.open.take() else { return Ok(()) };
    // An effect that resolves its own pledge (a refund) has given its first id to the pending transfer.
    let nth = if *id == open { 2 } else { 1 };
    let mut transfer = transfer(id, nth, kind, &pledge.debit, &pledge.credit, pledge.amount);
    transfer.refers_to = Some(open);
    desk.ledger.apply(&[transfer]).map_err(not_now)
}

/// The effect that `of` names; an error when the command names none, or one of another participant.
fn referred(desk: &Desk, job: &Job<'_>) -> Result<Option<Effect>, Denial> {
    let of = job.command.of.as_ref().ok_or_else(|| Denial::refused(crate::desk::BAD_PAYLOAD))?;
    let effect = desk.effects.get(&of.effect_id.to_string()).cloned();
    match effect {
        Some(effect) if *effect.participant != *job.command.participant => {
            Err(Denial::Unknown(format!("{} belongs to participant {}", effect.id, effect.participant)))
        }
        effect => Ok(effect),
    }
}

fn change_token(
    desk: &mut Desk,
    hold: &Effect,
    change: impl Fn(&crate::token::Token) -> Option<crate::token::Token>,
) -> Result<(), Denial> {
    let Some(id) = &hold.token else { return Ok(()) };
    let changed = desk.tokens.get(id).and_then(change);
    let token = changed.ok_or_else(|| Denial::Unknown(format!("token {id} is not where its hold left it")))?;
    desk.tokens.put(id.clone(), token);
    Ok(())
}

/// A ledger that contradicts the record of the effect: nothing is changed, people have to look.
fn not_now(error: LedgerError) -> Denial {
    Denial::Unknown(error.to_string())
}
