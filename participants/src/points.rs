//! Points, per user: what can be spent, and a debt account for points taken back after they were spent (Z22). Whatever
//! a user gets settles the debt first.

use crate::desk::{Denial, Desk, Job, Made};
use crate::effect::{Effect, EffectState, Pledge};
use crate::hold;
use crate::ledger::{AccountKind, LedgerError, Transfer, TransferKind};
use crate::reads::Reads;
use endstate_events::Json;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

const ASSET: &str = "points";

#[derive(Debug, Deserialize)]
struct Points {
    user: String,
    points: i64,
}

/// The accounts that a command may touch, its own and those of what it undoes.
pub(crate) fn reads(job: &Job<'_>, reads: &mut Reads) {
    #[derive(Deserialize)]
    struct Named {
        user: String,
    }
    let of = job.command.of.as_ref().map(|of| &of.with);
    for payload in [Some(&job.command.with), of].into_iter().flatten() {
        let Ok(Named { user }) = Named::deserialize(payload) else { continue };
        for kind in [AccountKind::Available, AccountKind::Debt] {
            reads.account(job.account(ASSET, &user, kind).id);
        }
        for kind in [AccountKind::Issuer, AccountKind::Redeemed] {
            reads.account(job.account(ASSET, "", kind).id);
        }
    }
}

/// Keeps points for the order.
pub(crate) fn hold(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let with: Points = job.with()?;
    let redeemed = desk.ledger.ensure(job.account(ASSET, "", AccountKind::Redeemed));
    let user = job.account(ASSET, &with.user, AccountKind::Available).id;
    let pledge = hold::pledge(desk, job, &user, &redeemed, with.points).map_err(denied)?;
    let data = json!({ "points": with.points });
    Ok(Made { state: EffectState::Held, data, pledge: Some(pledge), token: None })
}

/// Gives points that the order earned.
pub(crate) fn award(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    give(desk, job, AccountKind::Issuer)
}

/// As a step of its own, returns spent points, because lines of the order were refunded.
pub(crate) fn give_back(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    give(desk, job, AccountKind::Redeemed)
}

fn give(desk: &mut Desk, job: &Job<'_>, source: AccountKind) -> Result<Made, Denial> {
    let Points { user, points } = job.with()?;
    let source = desk.ledger.ensure(job.account(ASSET, "", source));
    let account = desk.ledger.ensure(job.account(ASSET, &user, AccountKind::Available));
    let debt = job.account(ASSET, &user, AccountKind::Debt);
    let owed = desk.ledger.account(&debt.id).map_or(0, |debt| -debt.posted);
    let settled = owed.min(points).max(0);
    let transfers = [
        job.transfer(1, TransferKind::Direct, &source, &account, points - settled),
        job.transfer(2, TransferKind::Direct, &source, &debt.id, settled),
    ];
    apply_amounts(desk, points, &transfers).map_err(denied)?;
    let pledge = Pledge { debit: source, credit: account, amount: points, open: None };
    let data = json!({ "points": points, "debt": owed - settled });
    Ok(Made { pledge: Some(pledge), ..Made::done(data) })
}

/// Takes points back; what the user has spent becomes a debt. Never refuses for want of points.
pub(crate) fn take_back(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let Points { user, points } = job.with()?;
    collect(desk, job, &user, points).map(Made::done)
}

/// Undoes an award in the same way.
pub(crate) fn undo_award(desk: &mut Desk, job: &Job<'_>, award: &Effect) -> Result<Json, Denial> {
    let Some(pledge) = &award.pledge else { return Ok(json!({})) };
    let Some(user) = desk.ledger.account(&pledge.credit).map(|account| account.owner.clone()) else {
        return Err(Denial::Unknown(format!("account {} is not here", pledge.credit)));
    };
    collect(desk, job, &user, pledge.amount)
}

fn collect(desk: &mut Desk, job: &Job<'_>, user: &str, points: i64) -> Result<Json, Denial> {
    let issuer = desk.ledger.ensure(job.account(ASSET, "", AccountKind::Issuer));
    let account = desk.ledger.ensure(job.account(ASSET, user, AccountKind::Available));
    let there = desk.ledger.account(&account).map_or(0, crate::ledger::Account::available);
    let missing = (points - there.min(points)).max(0);
    let mut debt = job.account(ASSET, user, AccountKind::Debt).id;
    if missing > 0 {
        debt = desk.ledger.ensure(job.account(ASSET, user, AccountKind::Debt));
    }
    let transfers = [
        job.transfer(1, TransferKind::Direct, &account, &issuer, points - missing),
        job.transfer(2, TransferKind::Direct, &debt, &issuer, missing),
    ];
    apply_amounts(desk, points, &transfers).map_err(denied)?;
    let owed = desk.ledger.account(&debt).map_or(0, |debt: &crate::ledger::Account| -debt.posted);
    Ok(json!({ "points": points, "debt": owed }))
}

/// An operator gives points to a user, or takes them.
pub(crate) fn adjust(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    #[derive(Deserialize)]
    struct Adjustment {
        user: String,
        delta: i64,
    }
    let Adjustment { user, delta } = job.with()?;
    let issuer = desk.ledger.ensure(job.account(ASSET, "", AccountKind::Issuer));
    let account = desk.ledger.ensure(job.account(ASSET, &user, AccountKind::Available));
    let (debit, credit) = if delta > 0 { (&issuer, &account) } else { (&account, &issuer) };
    let amount = delta.checked_abs().unwrap_or_default();
    desk.ledger.apply(&[job.transfer(1, TransferKind::Direct, debit, credit, amount)]).map_err(denied)?;
    let left = desk.ledger.account(&account).map_or(0, crate::ledger::Account::available);
    Ok(Made::done(json!({ "user": user, "available": left })))
}

/// Applies those of the transfers that move something; a negative total is refused, nothing at all is fine.
fn apply_amounts(desk: &mut Desk, total: i64, transfers: &[Transfer]) -> Result<(), LedgerError> {
    if total < 0 {
        return Err(LedgerError::Amount(Arc::clone(&transfers[0].id)));
    }
    let moving: Vec<_> = transfers.iter().filter(|transfer| transfer.amount > 0).cloned().collect();
    desk.ledger.apply(&moving)
}

fn denied(error: LedgerError) -> Denial {
    match error {
        LedgerError::Short(_) | LedgerError::NoAccount(_) => Denial::refused("points.short"),
        LedgerError::Amount(_) => {
            Denial::Refused { code: crate::desk::BAD_PAYLOAD.to_owned(), detail: error.to_string() }
        }
        LedgerError::Conflict(_) | LedgerError::Unfit(_) | LedgerError::NotPending(_) | LedgerError::Resolved(_) => {
            Denial::Unknown(error.to_string())
        }
    }
}
