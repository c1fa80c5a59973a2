//! Coupons: tokens that belong to a user and are used once.

use crate::desk::{Denial, Desk, Job, Made};
use crate::effect::EffectState;
use crate::ledger::scoped;
use crate::reads::Reads;
use crate::token::{Token, TokenState};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

#[derive(Debug, Deserialize)]
struct Named {
    coupon: String,
    user: String,
}

fn token_id(job: &Job<'_>, coupon: &str) -> Arc<str> {
    scoped(job.lane, &format!("coupon:{coupon}"))
}

/// The tokens that a command may touch.
pub(crate) fn reads(job: &Job<'_>, reads: &mut Reads) {
    if let Ok(Named { coupon, .. }) = job.with() {
        reads.token(token_id(job, &coupon));
    }
}

/// Keeps the coupon for the order.
pub(crate) fn hold(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let (with, token) = owned(desk, job)?;
    let held = token.held_by(job.id).ok_or_else(|| match token.state {
        TokenState::Held => Denial::refused("coupon.held"),
        TokenState::Used => Denial::refused("coupon.used"),
        TokenState::Void | TokenState::Free => Denial::refused("coupon.unknown"),
    })?;
    let id = held.id.clone();
    desk.tokens.put(id.clone(), held);
    let data = json!({ "coupon": with.coupon });
    Ok(Made { state: EffectState::Held, data, pledge: None, token: Some(id) })
}

/// As a step of its own, frees a used coupon, because the whole order was refunded.
pub(crate) fn give_back(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let (_, token) = owned(desk, job)?;
    if token.state != TokenState::Used {
        return Err(Denial::refused("coupon.unused"));
    }
    desk.tokens.put(token.id.clone(), token.freed());
    Ok(Made::done(json!({})))
}

/// An operator gives a coupon to a user.
pub(crate) fn open(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let with: Named = job.with()?;
    let id = token_id(job, &with.coupon);
    if desk.tokens.get(&id).is_some() {
        return Err(Denial::refused("coupon.exists"));
    }
    let token = Token { id: id.clone(), owner: with.user.into(), state: TokenState::Free, holder: None };
    desk.tokens.put(id, token);
    Ok(Made::done(json!({ "coupon": with.coupon })))
}

/// An operator withdraws a coupon that nobody holds.
pub(crate) fn void(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let (with, token) = owned(desk, job)?;
    let voided = token.voided().ok_or_else(|| Denial::refused("coupon.not_free"))?;
    desk.tokens.put(voided.id.clone(), voided);
    Ok(Made::done(json!({ "coupon": with.coupon })))
}

/// The token, when it exists and is the user's.
fn owned(desk: &Desk, job: &Job<'_>) -> Result<(Named, Token), Denial> {
    let with: Named = job.with()?;
    let token = desk.tokens.get(&token_id(job, &with.coupon)).ok_or_else(|| Denial::refused("coupon.unknown"))?;
    if *token.owner == *with.user { Ok((with, token.clone())) } else { Err(Denial::refused("coupon.foreign")) }
}
