//! What must hold after every command on a desk.

use endstate_participants::desk::Desk;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What must hold at every moment.
pub(crate) fn check_books(desk: &Desk) {
    let mut sums: BTreeMap<Arc<str>, i64> = BTreeMap::new();
    for account in desk.ledger.accounts() {
        assert!(account.pending >= 0, "{account:?}");
        assert!(account.kind.may_be_negative() || account.available() >= 0, "{account:?}");
        *sums.entry(account.asset.clone()).or_default() += account.posted;
    }
    assert!(sums.values().all(|sum| *sum == 0), "{sums:?}");
}
