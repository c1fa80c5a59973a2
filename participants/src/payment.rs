//! Payments: the book of what the provider took and gave back. The provider itself is called by the caller; what it
//! answers comes back here.
//!
//! A payment is (provider, its number). The money it brought moves from the shard's `psp_clearing` to the order's
//! account once, whoever books it first; a refund sets its amount aside before the provider is called, so that no two
//! refunds give back the same money (Z8, Z12).

use crate::desk::{Denial, Desk, Job, Made};
use crate::effect::EffectState;
use crate::hold;
use crate::ledger::{AccountKind, LedgerError, Transfer, TransferKind, scoped};
use crate::reads::Reads;
use endstate_events::{
    CommandKind, Envelope, Input, InputBody, Lane, Message, MinorUnits, ReplyTo, SCHEMA_VERSION, SagaId, Topic,
};
use endstate_outbox::Outgoing;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// Name of the event that a capture is to its saga.
pub const CAPTURED: &str = "payment.captured";

/// Money that a provider took for a saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// The provider's name.
    pub provider: String,
    /// Its number of the payment.
    pub provider_no: String,
    /// How much it took.
    pub amount_minor: MinorUnits,
    /// In which currency.
    pub currency: String,
    /// The saga that the payment was opened for: our merchant reference.
    pub saga: SagaId,
}

impl Captured {
    /// The input that tells the saga. Its id is the payment's identity: a callback eight times, the answer to an ask
    /// and what a close finds are all the same input.
    #[must_use]
    pub fn message(&self, lane: Lane, partitions: u16, now_ms: i64) -> Outgoing {
        let to = ReplyTo::progress(self.saga.slot(), partitions);
        let body = InputBody::Event { name: CAPTURED.to_owned(), data: json!(self) };
        let envelope = Envelope {
            id: format!("payment/{}/{}", self.provider, self.provider_no),
            schema: SCHEMA_VERSION,
            time_ms: now_ms,
            key: self.saga.to_string(),
            lane,
            message: Message::Input(Input { saga: self.saga, body }),
        };
        Outgoing { topic: Topic::Progress, partition: to.partition, envelope: envelope.into() }
    }
}

#[derive(Debug, Deserialize)]
struct Booking {
    payment: Captured,
}

/// What `refund` is told.
#[derive(Debug, Deserialize)]
pub(crate) struct Refund {
    pub(crate) payment: Captured,
    pub(crate) amount_minor: MinorUnits,
}

/// The accounts and transfers that a command may touch.
pub(crate) fn reads(job: &Job<'_>, reads: &mut Reads) {
    let Ok(Booking { payment }) = job.with() else { return };
    let capture = capture(job, &payment);
    reads.account(capture.debit);
    if job.command.kind == CommandKind::Do && job.command.action == "book" {
        return reads.new_transfer(capture.id, capture.credit);
    }
    reads.account(capture.credit);
    reads.account(job.account(&asset(&payment), "", AccountKind::RefundClearing).id);
    reads.transfer(capture.id);
}

fn asset(payment: &Captured) -> String {
    format!("money:{}", payment.currency)
}

/// The transfer that enters a payment: one id per payment and shard, whichever effect makes it.
fn capture(job: &Job<'_>, payment: &Captured) -> Transfer {
    let asset = asset(payment);
    let id = format!("payment:{}/{}#{}", payment.provider, payment.provider_no, job.shard);
    Transfer {
        id: scoped(job.lane, &id),
        kind: TransferKind::Direct,
        debit: job.account(&asset, "", AccountKind::PspClearing).id,
        credit: job.account(&asset, &payment.saga.to_string(), AccountKind::Order).id,
        amount: payment.amount_minor.get(),
        refers_to: None,
    }
}

/// Enters a captured payment.
pub(crate) fn book(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let Booking { payment } = job.with()?;
    enter(desk, job, &payment)?;
    Ok(Made::done(json!({})))
}

/// Sets the amount aside; then the provider is called.
pub(crate) fn refund(desk: &mut Desk, job: &Job<'_>) -> Result<Made, Denial> {
    let Refund { payment, amount_minor } = job.with()?;
    let order = enter(desk, job, &payment)?;
    let clearing = desk.ledger.ensure(job.account(&asset(&payment), "", AccountKind::RefundClearing));
    let pledge = hold::pledge(desk, job, &order, &clearing, amount_minor.get()).map_err(denied)?;
    Ok(Made { pledge: Some(pledge), ..called() })
}

fn enter(desk: &mut Desk, job: &Job<'_>, payment: &Captured) -> Result<Arc<str>, Denial> {
    let asset = asset(payment);
    desk.ledger.ensure(job.account(&asset, "", AccountKind::PspClearing));
    let order = desk.ledger.ensure(job.account(&asset, &payment.saga.to_string(), AccountKind::Order));
    desk.ledger.apply(&[capture(job, payment)]).map_err(denied)?;
    Ok(order)
}

/// An effect that an outside party makes.
pub(crate) fn called() -> Made {
    Made { state: EffectState::Calling, ..Made::done(serde_json::Value::Null) }
}

/// The captures that an answer to `close` or `ask` speaks of; the saga must hear of each.
#[must_use]
pub(crate) fn captures(data: &endstate_events::Json) -> Vec<Captured> {
    data.get("captures").and_then(|captures| Vec::deserialize(captures).ok()).unwrap_or_default()
}

fn denied(error: LedgerError) -> Denial {
    match error {
        LedgerError::Short(_) => Denial::refused("payment.exceeded"),
        LedgerError::Conflict(_) => Denial::refused("payment.conflict"),
        LedgerError::Amount(_) => {
            Denial::Refused { code: crate::desk::BAD_PAYLOAD.to_owned(), detail: error.to_string() }
        }
        LedgerError::NoAccount(_) | LedgerError::Unfit(_) | LedgerError::NotPending(_) | LedgerError::Resolved(_) => {
            Denial::Unknown(error.to_string())
        }
    }
}
