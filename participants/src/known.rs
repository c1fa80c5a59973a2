//! What one assignment knows of its shard's rows, so that a batch does not read again what an earlier one has written.
//!
//! Only the shard's owner writes these rows, under its fence, so what is known here is what the store has as long as the
//! assignment lasts (Z6). It changes with a commit or a read, is forgotten with the assignment and with every batch that
//! failed, unless that was by a row of the other side of a fused shard; and each change of a row carries what was known of it,
//! so that a mistake hits no row instead of a wrong one.
//!
//! Kept are effects that something will come for (open holds, open calls), their pending transfers and calls, and
//! accounts, also that there is none. Tokens are not: another shard may own one that is named here.

use crate::cells::Change;
use crate::desk::{Call, Desk};
use crate::effect::{Effect, EffectState};
use crate::ledger::{Account, Transfer, TransferKind};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Rows of a table that are surely kept, per shard; twice as many at most. What is pushed out is read again.
const ROWS: usize = 2_048;

/// The same for calls, whose commands may be large (Z20).
const CALLS: usize = 128;

/// Rows that were used last.
pub(crate) struct Recent<T, const MOST: usize = ROWS> {
    young: FxHashMap<Arc<str>, T>,
    old: FxHashMap<Arc<str>, T>,
}

impl<T, const MOST: usize> Default for Recent<T, MOST> {
    fn default() -> Self {
        Self { young: FxHashMap::default(), old: FxHashMap::default() }
    }
}

impl<T: Clone, const MOST: usize> Recent<T, MOST> {
    /// The row; asked for, it stays.
    pub(crate) fn get(&mut self, key: &Arc<str>) -> Option<T> {
        if let Some(row) = self.young.get(key) {
            return Some(row.clone());
        }
        let row = self.old.remove(key)?;
        self.put(Arc::clone(key), row.clone());
        Some(row)
    }

    pub(crate) fn put(&mut self, key: Arc<str>, row: T) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        // What the older half still has of it is hidden from now on.
        self.young.insert(key, row);
    }

    fn remove(&mut self, key: &str) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

/// The rows of one assignment.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) effects: Recent<Arc<Effect>>,
    pub(crate) calls: Recent<Arc<Call>, CALLS>,
    /// Pending ones that nothing has resolved.
    pub(crate) pending: Recent<Arc<Transfer>>,
    /// None: there is no such account.
    pub(crate) accounts: Recent<Option<Arc<Account>>>,
}

impl Known {
    /// An effect as the store has it.
    pub(crate) fn effect(&mut self, effect: &Arc<Effect>) {
        match effect.state {
            EffectState::Held | EffectState::Calling => self.effects.put(effect.id.clone(), Arc::clone(effect)),
            EffectState::Confirmed
            | EffectState::Done
            | EffectState::Released
            | EffectState::Refused
            | EffectState::ReleasedBefore
            | EffectState::Unknown => self.effects.remove(&effect.id),
        }
    }

    /// What a desk has changed is committed.
    pub(crate) fn committed(&mut self, desk: &Desk) {
        for Change { before, now } in desk.effects.changed() {
            match (before, now) {
                (_, Some(now)) => self.effect(now),
                (Some(before), None) => self.effects.remove(&before.id),
                (None, None) => {}
            }
        }
        for Change { before, now } in desk.calls.changed() {
            match (before, now) {
                (None, Some(now)) => self.calls.put(now.id.clone(), Arc::clone(now)),
                // Of a call that was answered and is wanted again, the row is the first.
                (Some(before), _) => self.calls.remove(&before.id),
                (None, None) => {}
            }
        }
        for transfer in desk.ledger.new_transfers() {
            if transfer.kind == TransferKind::Pending {
                self.pending.put(transfer.id.clone(), Arc::clone(transfer));
            }
        }
        // After those that open: a transfer may be opened and resolved in one batch.
        for resolved in desk.ledger.new_transfers().into_iter().filter_map(|transfer| transfer.refers_to.as_deref()) {
            self.pending.remove(resolved);
        }
        for account in desk.ledger.changed_accounts().into_iter().filter_map(|change| change.now) {
            self.accounts.put(account.id.clone(), Some(Arc::clone(account)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_is_pushed_out() {
        let key = |n: usize| Arc::<str>::from(n.to_string());
        let mut recent = Recent::<_, ROWS>::default();
        for n in 0..4 * ROWS {
            recent.put(key(n), n);
            assert_eq!(recent.get(&key(0)), Some(0), "after {n}");
        }
        assert_eq!([recent.get(&key(1)), recent.get(&key(4 * ROWS - 1))], [None, Some(4 * ROWS - 1)]);
        assert!(recent.young.len() + recent.old.len() <= 2 * ROWS);
    }

    #[test]
    fn an_older_row_never_shows_again() {
        let key = |n: usize| Arc::<str>::from(n.to_string());
        let mut recent = Recent::<_, ROWS>::default();
        recent.put(key(0), 0);
        (1..=ROWS).for_each(|n| recent.put(key(n), n));
        recent.put(key(0), 7);
        assert_eq!(recent.get(&key(0)), Some(7));
        recent.remove("0");
        assert_eq!(recent.get(&key(0)), None, "not from the older half");
    }
}
