//! The desk of one batch: working copies of everything its commands touch, and what they ask for.

use crate::cells::Cells;
use crate::effect::Effect;
use crate::ledger::{Account, AccountKind, Ledger, Transfer, TransferKind};
use crate::token::Token;
use endstate_events::{Command, CommandKind, Json, Lane, Verdict};
use serde::Deserialize;
use std::sync::Arc;

/// Working copies of one batch of one shard.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    /// The shard that all accounts here belong to.
    pub shard: u16,
    /// Accounts and transfers.
    pub ledger: Ledger,
    /// Tokens.
    pub tokens: Cells<Token>,
    /// What was done before, by effect id.
    pub effects: Cells<Effect>,
    /// Open calls to outside parties, by effect id.
    pub calls: Cells<Call>,
    /// Calls decided on in this batch, for the caller: one that is answered and wanted again at once looks unchanged.
    pub intents: Vec<Call>,
    /// Log of operators' changes.
    pub operations: Vec<Operation>,
}

/// The intent to call an outside party; exists as long as the call is open.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The effect id's text.
    pub id: Arc<str>,
    /// Kind of traffic.
    pub lane: Lane,
    /// What to tell, or what to ask about.
    pub command: Arc<Command>,
    /// When it was decided.
    pub time_ms: i64,
}

/// One operator's change, with what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// The operator's id for the whole, and the number of this line.
    pub id: Arc<str>,
    /// `PARTICIPANT.ACTION`.
    pub action: String,
    /// What was asked.
    pub with: Json,
    /// What came of it.
    pub verdict: Verdict,
}

/// One command on the desk.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The command.
    pub command: &'a Command,
    /// Its effect id's text.
    pub id: &'a Arc<str>,
    /// Kind of traffic.
    pub lane: Lane,
    /// The shard.
    pub shard: u16,
    /// The batch's time.
    pub now_ms: i64,
}

/// What an action made.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The state its record starts with.
    pub state: crate::effect::EffectState,
    /// Data of the reply.
    pub data: Json,
    /// What stands behind it in the ledger.
    pub pledge: Option<crate::effect::Pledge>,
    /// The token behind it.
    pub token: Option<Arc<str>>,
}

/// Why an action made nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No effect, now and for ever; recorded.
    Refused {
        /// Refusal code.
        code: String,
        /// For people.
        detail: String,
    },
    /// Cannot be said now; not recorded, the sender tries again.
    Unknown(String),
}

impl Denial {
    /// A refusal without further words.
    #[must_use]
    pub fn refused(code: &str) -> Self {
        Self::Refused { code: code.to_owned(), detail: String::new() }
    }
}

/// Code of a payload that the action cannot read; the catalogue's schema normally stops it before.
pub const BAD_PAYLOAD: &str = "payload";

impl<'a> Job<'a> {
    /// Reads the payload.
    pub fn with<T: Deserialize<'a>>(&self) -> Result<T, Denial> {
        T::deserialize(&self.command.with)
            .map_err(|error| Denial::Refused { code: BAD_PAYLOAD.to_owned(), detail: error.to_string() })
    }

    /// An account of this job's lane and shard, empty.
    #[must_use]
    pub fn account(&self, asset: &str, owner: &str, kind: AccountKind) -> Account {
        Account::empty(self.lane, asset, owner, kind, self.shard)
    }

    /// A transfer of this effect; `nth` counts from 1.
    #[must_use]
    pub fn transfer(&self, nth: u8, kind: TransferKind, debit: &Arc<str>, credit: &Arc<str>, amount: i64) -> Transfer {
        transfer(self.id, nth, kind, debit, credit, amount)
    }

    /// Whether an operator sent it, instead of a saga.
    #[must_use]
    pub fn is_operation(&self) -> bool {
        crate::operation::is_operation(&self.command.effect_id)
    }

    /// Whether it undoes another effect.
    #[must_use]
    pub fn is_undo(&self) -> bool {
        self.command.kind == CommandKind::Undo
    }
}

/// The transfer `nth` (from 1) of the effect `id`.
#[must_use]
pub fn transfer(
    id: &Arc<str>,
    nth: u8,
    kind: TransferKind,
    debit: &Arc<str>,
    credit: &Arc<str>,
    amount: i64,
) -> Transfer {
    let id = if nth == 1 { id.clone() } else { format!("{id}/{nth}").into() };
    Transfer { id, kind, debit: debit.clone(), credit: credit.clone(), amount, refers_to: None }
}

impl Made {
    /// Done, with nothing behind it.
    #[must_use]
    pub fn done(data: Json) -> Self {
        Self { state: crate::effect::EffectState::Done, data, pledge: None, token: None }
    }
}
