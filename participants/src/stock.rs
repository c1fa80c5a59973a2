//! Stock, per stock unit (B9, B10): the main account, a standby account for what payments find short, and one account
//! of what was sold. Quota is another thing (B12): this is what really lies in the warehouse.

use crate::desk::{Denial, Desk, Job, Made};
use crate::effect::{EffectState, Pledge};
use crate::hold;
use crate::ledger::{AccountKind, LedgerError, TransferKind};
use crate::reads::Reads;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

#[derive(Debug, Deserialize)]
struct Units {
    unit: String,
    quantity: i64,
    #[serde(default)]
    standby: bool,
}

/// An operator's change of a stock unit.
#[derive(Debug, Deserialize)]
struct Adjustment {
    unit: String,
    /// Units that come (above zero) or go.
    delta: i64,
    #[serde(default)]
    standby: bool,
}

fn asset(unit: &str) -> String {
    format!("stock:{unit}")
}

/// The accounts that a command may touch.
pub(crate) fn reads(job: &Job<'_>, reads: &mut Reads) {
    #[derive(Deserialize)]
    struct Named {
        unit: String,
    }
    if let Ok(Named { unit }) = job.with() {
        for kind in [AccountKind::Available, AccountKind::Standby, AccountKind::Sold, AccountKind::Origin] {
            reads.account(job.account(&asset(&unit), "", kind).id);
        }
    }
}

/// Keeps units for the order (strategy `reserve`).
pub(crate) fn hold(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    move_out(desk, job, EffectState::Held)
}

/// Sells units at once (strategies `at_order` and `at_payment`).
pub(crate) fn take(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    move_out(desk, job, EffectState::Done)
}

fn move_out(desk: &mut Desk, job: &Job<'_>, state: EffectState) -> Result<Made, Denial> {
    let with: Units = job.with()?;
    let asset = asset(&with.unit);
    let sold = desk.ledger.ensure(job.account(&asset, "", AccountKind::Sold));
    let main = job.account(&asset, "", AccountKind::Available).id;
    let standby = job.account(&asset, "", AccountKind::Standby).id;
    let mut from_standby = 0;
    let mut moved = move_from(desk, job, &main, &sold, with.quantity, state);
    if matches!(moved, Err(LedgerError::Short(_))) && with.standby && desk.ledger.account(&standby).is_some() {
        moved = move_from(desk, job, &standby, &sold, with.quantity, state);
        from_standby = with.quantity;
    }
    let pledge = moved.map_err(denied)?;
    let data = json!({ "unit": with.unit, "quantity": with.quantity, "standby": from_standby });
    Ok(Made { state, data, pledge: Some(pledge), token: None })
}

fn move_from(
    desk: &mut Desk,
    job: &Job<'_>,
    debit: &Arc<str>,
    sold: &Arc<str>,
    quantity: i64,
    state: EffectState,
) -> Result<Pledge, LedgerError> {
    if state == EffectState::Held {
        return hold::pledge(desk, job, debit, sold, quantity);
    }
    let direct = job.transfer(1, TransferKind::Direct, debit, sold, quantity);
    desk.ledger.apply(std::slice::from_ref(&direct))?;
    Ok(Pledge { debit: direct.debit, credit: direct.credit, amount: quantity, open: None })
}

/// As a step of its own, returns sold units to the main stock.
pub(crate) fn put_back(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let with: Units = job.with()?;
    let asset = asset(&with.unit);
    let sold = job.account(&asset, "", AccountKind::Sold).id;
    let main = job.account(&asset, "", AccountKind::Available).id;
    let back = job.transfer(1, TransferKind::Direct, &sold, &main, with.quantity);
    desk.ledger.apply(&[back]).map_err(|error| match error {
        LedgerError::Short(_) => Denial::refused("stock.unsold"),
        error => denied(error),
    })?;
    let pledge = Pledge { debit: sold, credit: main, amount: with.quantity, open: None };
    Ok(Made { pledge: Some(pledge), ..Made::done(json!({ "unit": with.unit, "quantity": with.quantity })) })
}

/// An operator opens a unit, or adds to it.
pub(crate) fn open(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let Units { unit, quantity, standby } = job.with()?;
    if quantity < 1 {
        return Err(Denial::refused(crate::desk::BAD_PAYLOAD));
    }
    change(desk, job, &Adjustment { unit, delta: quantity, standby })
}

/// An operator adds or takes away units that came or went outside the sale.
pub(crate) fn adjust(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let with: Adjustment = job.with()?;
    let kind = if with.standby { AccountKind::Standby } else { AccountKind::Available };
    if desk.ledger.account(&job.account(&asset(&with.unit), "", kind).id).is_none() {
        return Err(Denial::refused("stock.unknown"));
    }
    change(desk, job, &with)
}

fn change(desk: &mut Desk, job: &Job<'_>, with: &Adjustment) -> Result<Made, Denial> {
    let asset = asset(&with.unit);
    let kind = if with.standby { AccountKind::Standby } else { AccountKind::Available };
    let origin = desk.ledger.ensure(job.account(&asset, "", AccountKind::Origin));
    let account = desk.ledger.ensure(job.account(&asset, "", kind));
    let (debit, credit) = if with.delta > 0 { (&origin, &account) } else { (&account, &origin) };
    let amount = with.delta.checked_abs().unwrap_or_default();
    desk.ledger.apply(&[job.transfer(1, TransferKind::Direct, debit, credit, amount)]).map_err(denied)?;
    let left = desk.ledger.account(&account).map_or(0, crate::ledger::Account::available);
    Ok(Made::done(json!({ "unit": with.unit, "available": left })))
}

fn denied(error: LedgerError) -> Denial {
    match error {
        LedgerError::Short(_) => Denial::refused("stock.short"),
        LedgerError::NoAccount(_) => Denial::refused("stock.unknown"),
        LedgerError::Amount(_) => {
            Denial::Refused { code: crate::desk::BAD_PAYLOAD.to_owned(), detail: error.to_string() }
        }
        LedgerError::Conflict(_) | LedgerError::Unfit(_) | LedgerError::NotPending(_) | LedgerError::Resolved(_) => {
            Denial::Unknown(error.to_string())
        }
    }
}
