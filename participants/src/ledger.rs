//! The ledger: accounts and immutable transfers, for everything that can be counted (stock units, points, money).
//!
//! Pure. A transfer moves an amount of one asset from its debit account to its credit account, at once (`direct`) or in
//! two phases: `pending` sets the amount aside, and then exactly one of `post` or `void` resolves it. What is set aside
//! counts against the account at once. The same id is the same transfer for ever.
//!
//! Both accounts belong to the shard that decides, so a batch never locks or reads across shards.

use crate::cells::{Cells, Change};
use endstate_events::{Lane, MinorUnits};
use rustc_hash::FxHashSet;
use std::sync::Arc;

/// What an account is for. The spelling is part of its id and of the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AccountKind {
    /// What can be held, taken or spent.
    Available,
    /// Stock that is used only when the main stock is short.
    Standby,
    /// Contra account: where opened stock came from.
    Origin,
    /// Contra account: stock that was sold.
    Sold,
    /// Contra account: where points come from.
    Issuer,
    /// Contra account: points that were spent.
    Redeemed,
    /// Points taken back that the user had spent already.
    Debt,
    /// Contra account: what the payment provider took for us.
    PspClearing,
    /// Money that an order holds.
    Order,
    /// Money that went back.
    RefundClearing,
}

impl AccountKind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Available,
        Self::Standby,
        Self::Origin,
        Self::Sold,
        Self::Issuer,
        Self::Redeemed,
        Self::Debt,
        Self::PspClearing,
        Self::Order,
        Self::RefundClearing,
    ];

    /// The spelling used in ids and columns.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Standby => "standby",
            Self::Origin => "origin",
            Self::Sold => "sold",
            Self::Issuer => "issuer",
            Self::Redeemed => "redeemed",
            Self::Debt => "debt",
            Self::PspClearing => "psp_clearing",
            Self::Order => "order",
            Self::RefundClearing => "refund_clearing",
        }
    }

    /// Whether the balance may be below zero: only where value enters the system, and for what users owe.
    #[must_use]
    pub fn may_be_negative(self) -> bool {
        match self {
            Self::Origin | Self::Issuer | Self::PspClearing | Self::Debt => true,
            Self::Available | Self::Standby | Self::Sold | Self::Redeemed | Self::Order | Self::RefundClearing => false,
        }
    }

    /// Whether each shard has its own account of this kind, summed when read.
    #[must_use]
    pub fn is_per_shard(self) -> bool {
        match self {
            Self::Origin
            | Self::Sold
            | Self::Issuer
            | Self::Redeemed
            | Self::PspClearing
            | Self::Order
            | Self::RefundClearing => true,
            Self::Available | Self::Standby | Self::Debt => false,
        }
    }
}

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `ASSET:OWNER:KIND`, with `#SHARD` where every shard has its own, and the lane in front unless it is live.
    pub id: Arc<str>,
    /// What it counts; transfers stay within one asset.
    pub asset: Arc<str>,
    /// Whose it is; empty for contra accounts.
    pub owner: Arc<str>,
    /// What it is for.
    pub kind: AccountKind,
    /// Sum of all posted transfers, credits minus debits.
    pub posted: i64,
    /// Sum of pending debits not yet resolved; never negative.
    pub pending: i64,
}

impl Account {
    /// An account with nothing in it.
    #[must_use]
    pub fn empty(lane: Lane, asset: &str, owner: &str, kind: AccountKind, shard: u16) -> Self {
        let asset: Arc<str> = scoped(lane, asset);
        let mut id = String::with_capacity(asset.len() + owner.len() + 24);
        id.push_str(&asset);
        if !owner.is_empty() {
            id.push(':');
            id.push_str(owner);
        }
        id.push(':');
        id.push_str(kind.label());
        if kind.is_per_shard() {
            id.push('#');
            id.push_str(&shard.to_string());
        }
        Self { id: id.into(), asset, owner: owner.into(), kind, posted: 0, pending: 0 }
    }

    /// What can be debited now.
    #[must_use]
    pub fn available(&self) -> i64 {
        self.posted - self.pending
    }

    fn covers(&self, amount: i64) -> bool {
        self.kind.may_be_negative() || self.available() >= amount
    }
}

/// A name with its lane in front, unless the lane is live: lanes never share accounts.
#[must_use]
pub fn scoped(lane: Lane, name: &str) -> Arc<str> {
    match lane {
        Lane::Live => name.into(),
        Lane::Test | Lane::Load => format!("{}/{name}", lane.label()).into(),
    }
}

/// How a transfer moves its amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransferKind {
    /// Sets the amount aside on the debit account.
    Pending,
    /// Moves what the pending transfer set aside.
    Post,
    /// Gives back what the pending transfer set aside.
    Void,
    /// Moves at once.
    Direct,
}

impl TransferKind {
    /// The spelling used in columns.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Post => "post",
            Self::Void => "void",
            Self::Direct => "direct",
        }
    }

    /// Reads the spelling.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        [Self::Pending, Self::Post, Self::Void, Self::Direct].into_iter().find(|kind| kind.label() == label)
    }
}

/// One transfer; immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The effect's id, with `/N` for its further transfers; or the payment's, `payment:PROVIDER/NUMBER#SHARD`.
    pub id: Arc<str>,
    /// How it moves.
    pub kind: TransferKind,
    /// The account that gives.
    pub debit: Arc<str>,
    /// The account that gets.
    pub credit: Arc<str>,
    /// How much; above zero.
    pub amount: i64,
    /// The pending transfer that a post or void resolves.
    pub refers_to: Option<Arc<str>>,
}

/// Why the ledger does not make a transfer. Nothing of the request is applied then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The debit account has too little.
    #[error("account {0} does not cover the amount")]
    Short(Arc<str>),
    /// The id is known with another body.
    #[error("transfer {0} is known with another body")]
    Conflict(Arc<str>),
    /// No such account here.
    #[error("there is no account {0}")]
    NoAccount(Arc<str>),
    /// The accounts count different things, or are the same.
    #[error("transfer {0} joins accounts that do not fit")]
    Unfit(Arc<str>),
    /// The amount is not positive, or a balance would leave the range of exact integers.
    #[error("transfer {0} has an amount out of range")]
    Amount(Arc<str>),
    /// A post or void refers to no pending transfer with its accounts and amount.
    #[error("transfer {0} refers to no such pending transfer")]
    NotPending(Arc<str>),
    /// The pending transfer was posted or voided before.
    #[error("transfer {0} was resolved before")]
    Resolved(Arc<str>),
}

/// Working copy of the accounts and transfers that one batch touches.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub(crate) accounts: Cells<Account>,
    pub(crate) transfers: Cells<Transfer>,
    /// Pending transfer -> what resolved it.
    resolved: Cells<Arc<str>>,
}

impl Ledger {
    /// Takes over an account as the store has it.
    pub fn load_account(&mut self, account: impl Into<Arc<Account>>) {
        let account = account.into();
        self.accounts.load(account.id.clone(), account);
    }

    /// Takes over a known transfer.
    pub fn load_transfer(&mut self, transfer: impl Into<Arc<Transfer>>) {
        let transfer = transfer.into();
        if let Some(pending) = &transfer.refers_to {
            self.resolved.load(pending.clone(), transfer.id.clone());
        }
        self.transfers.load(transfer.id.clone(), transfer);
    }

    /// An account as it is now.
    #[must_use]
    pub fn account(&self, id: &str) -> Option<&Account> {
        self.accounts.get(id)
    }

    /// A known or new transfer.
    #[must_use]
    pub fn transfer(&self, id: &str) -> Option<&Transfer> {
        self.transfers.get(id)
    }

    /// Makes sure that the account exists, and gives its id.
    pub fn ensure(&mut self, account: Account) -> Arc<str> {
        let id = account.id.clone();
        if self.accounts.get(&id).is_none() {
            self.accounts.put(id.clone(), account);
        }
        id
    }

    /// Applies all transfers in order, or none. A transfer that is known with the same body changes nothing.
    pub fn apply(&mut self, transfers: &[Transfer]) -> Result<(), LedgerError> {
        let mut journal = Vec::new();
        for transfer in transfers {
            if let Err(error) = self.make(transfer, &mut journal) {
                self.undo(journal);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Rows of `account` to write. Refused commands leave no empty accounts behind: a new one is written when a new
    /// transfer names it.
    #[must_use]
    pub fn changed_accounts(&self) -> Vec<Change<'_, Account>> {
        let transfers = self.transfers.changed().filter_map(|change| change.now);
        let used: FxHashSet<&str> = transfers.flat_map(|transfer| [&*transfer.debit, &*transfer.credit]).collect();
        let is_used = |account: &Arc<Account>| used.contains(&*account.id);
        let mut changed = self.accounts.changes();
        changed.retain(|change| change.before.is_some() || change.now.is_some_and(is_used));
        changed
    }

    /// Rows of `transfer` to write.
    #[must_use]
    pub fn new_transfers(&self) -> Vec<&Arc<Transfer>> {
        self.transfers.changes().into_iter().filter_map(|change| change.now).collect()
    }

    /// All accounts as they are now, in no order.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.rows()
    }

    fn make(&mut self, transfer: &Transfer, journal: &mut Vec<Made>) -> Result<(), LedgerError> {
        match self.transfers.get(&transfer.id) {
            Some(known) if known == transfer => return Ok(()),
            Some(_) => return Err(LedgerError::Conflict(transfer.id.clone())),
            None => {}
        }
        let (debit, credit) = self.moved(transfer)?;
        let before = [&debit.id, &credit.id].map(|id| self.accounts.get(id).cloned());
        journal.push(Made { transfer: transfer.id.clone(), resolved: transfer.refers_to.clone(), before });
        self.accounts.put(debit.id.clone(), debit);
        self.accounts.put(credit.id.clone(), credit);
        if let Some(pending) = &transfer.refers_to {
            self.resolved.put(pending.clone(), transfer.id.clone());
        }
        self.transfers.put(transfer.id.clone(), transfer.clone());
        Ok(())
    }

    /// Both accounts as they are after the transfer.
    fn moved(&self, transfer: &Transfer) -> Result<(Account, Account), LedgerError> {
        let id = || transfer.id.clone();
        let account = |id: &Arc<str>| self.accounts.get(id).cloned().ok_or_else(|| LedgerError::NoAccount(id.clone()));
        let (mut debit, mut credit) = (account(&transfer.debit)?, account(&transfer.credit)?);
        let amount = transfer.amount;
        if debit.asset != credit.asset || debit.id == credit.id {
            return Err(LedgerError::Unfit(id()));
        }
        if !(1..=MinorUnits::MAX.get()).contains(&amount) {
            return Err(LedgerError::Amount(id()));
        }
        match transfer.kind {
            TransferKind::Pending | TransferKind::Direct if !debit.covers(amount) => {
                return Err(LedgerError::Short(debit.id));
            }
            TransferKind::Pending => debit.pending += amount,
            TransferKind::Direct => debit.posted -= amount,
            TransferKind::Post => {
                self.check_pending(transfer)?;
                debit.pending -= amount;
                debit.posted -= amount;
            }
            TransferKind::Void => {
                self.check_pending(transfer)?;
                debit.pending -= amount;
            }
        }
        if matches!(transfer.kind, TransferKind::Post | TransferKind::Direct) {
            credit.posted += amount;
        }
        let exact = |n: i64| MinorUnits::new(n).is_ok();
        if [debit.posted, debit.pending, credit.posted].into_iter().all(exact) {
            Ok((debit, credit))
        } else {
            Err(LedgerError::Amount(id()))
        }
    }

    fn check_pending(&self, transfer: &Transfer) -> Result<(), LedgerError> {
        let refers_to = transfer.refers_to.as_deref().unwrap_or_default();
        let fits = |pending: &&Transfer| {
            pending.kind == TransferKind::Pending
                && (&pending.debit, &pending.credit, pending.amount)
                    == (&transfer.debit, &transfer.credit, transfer.amount)
        };
        self.transfers.get(refers_to).filter(fits).ok_or_else(|| LedgerError::NotPending(transfer.id.clone()))?;
        match self.resolved.get(refers_to) {
            Some(_) => Err(LedgerError::Resolved(refers_to.into())),
            None => Ok(()),
        }
    }

    fn undo(&mut self, journal: Vec<Made>) {
        for made in journal.into_iter().rev() {
            for account in made.before.into_iter().flatten() {
                self.accounts.put(account.id.clone(), account);
            }
            self.transfers.remove(&made.transfer);
            if let Some(pending) = made.resolved {
                self.resolved.remove(&pending);
            }
        }
    }
}

/// What one transfer of a request changed, for taking the whole request back.
#[derive(Debug)]
struct Made {
    transfer: Arc<str>,
    resolved: Option<Arc<str>>,
    before: [Option<Account>; 2],
}
