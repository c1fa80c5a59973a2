//! What came back of an order's lines. A refund claims the units of a line before any money moves, so that no two
//! refunds, at the same moment or years apart, give back the same unit.
//!
//! A line is an account that opens with what was ordered. All refunds of an order run under its key, so one shard owns
//! the account; that it is never below zero is the last net.

use crate::desk::{BAD_PAYLOAD, Denial, Desk, Job, Made};
use crate::effect::Pledge;
use crate::ledger::{Account, AccountKind, LedgerError, Transfer, TransferKind, scoped};
use crate::reads::Reads;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

const ASSET: &str = "returns";

#[derive(Debug, Deserialize)]
struct Claim {
    /// The order's saga; unlike its number it holds no `/`, so that no two lines share an account.
    order: String,
    line: String,
    ordered: i64,
    quantity: i64,
}

impl Claim {
    fn owner(&self) -> String {
        format!("{}/{}", self.order, self.line)
    }

    fn account(&self, job: &Job<'_>) -> Account {
        job.account(ASSET, &self.owner(), AccountKind::Available)
    }

    /// The transfer that opens the line: one id per line, whichever refund comes first.
    fn opening(&self, job: &Job<'_>) -> Arc<str> {
        scoped(job.lane, &format!("{ASSET}:{}", self.owner()))
    }
}

/// The accounts and transfers that a command may touch.
pub(crate) fn reads(job: &Job<'_>, reads: &mut Reads) {
    let Ok(claim) = job.with::<Claim>() else { return };
    reads.account(claim.account(job).id);
    for kind in [AccountKind::Origin, AccountKind::Sold] {
        reads.account(job.account(ASSET, "", kind).id);
    }
    reads.transfer(claim.opening(job));
}

/// Claims units of a line; refused when fewer were ordered than have been claimed with these.
pub(crate) fn claim(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let claim: Claim = job.with()?;
    let origin = desk.ledger.ensure(job.account(ASSET, "", AccountKind::Origin));
    let claimed = desk.ledger.ensure(job.account(ASSET, "", AccountKind::Sold));
    let line = desk.ledger.ensure(claim.account(job));
    let opening = Transfer {
        id: claim.opening(job),
        kind: TransferKind::Direct,
        debit: origin,
        credit: line.clone(),
        amount: claim.ordered,
        refers_to: None,
    };
    let taken = job.transfer(1, TransferKind::Direct, &line, &claimed, claim.quantity);
    desk.ledger.apply(&[opening, taken]).map_err(denied)?;
    let pledge = Pledge { debit: line, credit: claimed, amount: claim.quantity, open: None };
    Ok(Made { pledge: Some(pledge), ..Made::done(json!({})) })
}

fn denied(error: LedgerError) -> Denial {
    match error {
        LedgerError::Short(_) => Denial::refused("returns.exceeded"),
        LedgerError::Amount(_) => Denial::Refused { code: BAD_PAYLOAD.to_owned(), detail: error.to_string() },
        LedgerError::Conflict(_)
        | LedgerError::NoAccount(_)
        | LedgerError::Unfit(_)
        | LedgerError::NotPending(_)
        | LedgerError::Resolved(_) => Denial::Unknown(error.to_string()),
    }
}
