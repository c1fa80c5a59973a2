//! The ledger alone: all or nothing, once, and never below zero.

use endstate_events::{Lane, MinorUnits};
use endstate_participants::ledger::{Account, AccountKind, Ledger, LedgerError, Transfer, TransferKind};
use std::collections::BTreeSet;
use std::sync::Arc;

const ORIGIN: &str = "stock:A:origin#0";
const MAIN: &str = "stock:A:available";
const SOLD: &str = "stock:A:sold#0";

/// Ten units of A, and points that have nothing to do with them.
fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    for (asset, kind) in [
        ("stock:A", AccountKind::Origin),
        ("stock:A", AccountKind::Available),
        ("stock:A", AccountKind::Sold),
        ("points", AccountKind::Redeemed),
    ] {
        ledger.ensure(Account::empty(Lane::Live, asset, "", kind, 0));
    }
    ledger.apply(&[direct("open", ORIGIN, MAIN, 10)]).unwrap();
    ledger
}

fn transfer(id: &str, kind: TransferKind, debit: &str, credit: &str, amount: i64) -> Transfer {
    Transfer { id: id.into(), kind, debit: debit.into(), credit: credit.into(), amount, refers_to: None }
}

fn direct(id: &str, debit: &str, credit: &str, amount: i64) -> Transfer {
    transfer(id, TransferKind::Direct, debit, credit, amount)
}

fn pending(id: &str, amount: i64) -> Transfer {
    transfer(id, TransferKind::Pending, MAIN, SOLD, amount)
}

fn resolving(id: &str, kind: TransferKind, of: &str, amount: i64) -> Transfer {
    Transfer { refers_to: Some(of.into()), ..transfer(id, kind, MAIN, SOLD, amount) }
}

fn main_balance(ledger: &Ledger) -> (i64, i64) {
    let account = ledger.account(MAIN).unwrap();
    (account.posted, account.pending)
}

#[test]
fn what_is_pending_counts_at_once_and_is_resolved_once() {
    let mut ledger = ledger();
    ledger.apply(&[pending("p", 6)]).unwrap();
    assert_eq!(main_balance(&ledger), (10, 6));
    assert_eq!(ledger.apply(&[pending("q", 5)]), Err(LedgerError::Short(MAIN.into())));
    assert_eq!(ledger.apply(&[direct("d", MAIN, SOLD, 5)]), Err(LedgerError::Short(MAIN.into())));
    ledger.apply(&[pending("r", 4)]).unwrap();
    ledger.apply(&[resolving("post", TransferKind::Post, "p", 6)]).unwrap();
    ledger.apply(&[resolving("void", TransferKind::Void, "r", 4)]).unwrap();
    assert_eq!(main_balance(&ledger), (4, 0));
    assert_eq!(ledger.account(SOLD).unwrap().posted, 6);
    for (kind, of, amount) in [(TransferKind::Void, "p", 6), (TransferKind::Post, "r", 4), (TransferKind::Post, "p", 6)]
    {
        let again = ledger.apply(&[resolving("again", kind, of, amount)]);
        assert_eq!(again, Err(LedgerError::Resolved(of.into())));
    }
    ledger.apply(&[resolving("post", TransferKind::Post, "p", 6)]).expect("the same transfer is known");
    assert_eq!(main_balance(&ledger), (4, 0));
}

#[test]
fn what_resolves_must_fit_what_it_resolves() {
    let mut ledger = ledger();
    ledger.apply(&[pending("p", 6)]).unwrap();
    let wrong = [
        resolving("x", TransferKind::Post, "p", 5),
        resolving("x", TransferKind::Post, "nothing", 6),
        resolving("x", TransferKind::Void, "open", 10),
        Transfer { debit: SOLD.into(), credit: MAIN.into(), ..resolving("x", TransferKind::Post, "p", 6) },
        transfer("x", TransferKind::Post, MAIN, SOLD, 6),
    ];
    for transfer in wrong {
        assert_eq!(ledger.apply(&[transfer]), Err(LedgerError::NotPending("x".into())));
    }
    assert_eq!(main_balance(&ledger), (10, 6));
}

#[test]
fn a_request_is_applied_whole_or_not_at_all() {
    let mut ledger = ledger();
    ledger.apply(&[pending("p", 2)]).unwrap();
    let before: Vec<_> = [ORIGIN, MAIN, SOLD].map(|id| ledger.account(id).cloned()).into();
    let request = [
        direct("a", MAIN, SOLD, 3),
        direct("open", ORIGIN, MAIN, 10),
        resolving("v", TransferKind::Void, "p", 2),
        direct("b", MAIN, SOLD, 8),
    ];
    assert_eq!(ledger.apply(&request), Err(LedgerError::Short(MAIN.into())));
    let after: Vec<_> = [ORIGIN, MAIN, SOLD].map(|id| ledger.account(id).cloned()).into();
    assert_eq!(before, after);
    assert!(ledger.transfer("a").is_none() && ledger.transfer("open").is_some());
    ledger.apply(&request[..3]).expect("nothing of it was left behind");
    assert_eq!(main_balance(&ledger), (7, 0));
}

#[test]
fn the_same_id_with_another_body_is_a_conflict() {
    let mut ledger = ledger();
    for changed in [direct("open", ORIGIN, MAIN, 11), direct("open", ORIGIN, SOLD, 10), pending("open", 10)] {
        assert_eq!(ledger.apply(&[changed]), Err(LedgerError::Conflict("open".into())));
    }
    ledger.apply(&[direct("open", ORIGIN, MAIN, 10)]).unwrap();
    assert_eq!(main_balance(&ledger), (10, 0));
}

#[test]
fn amounts_and_accounts_are_checked() {
    let mut ledger = ledger();
    let most = MinorUnits::MAX.get();
    for amount in [0, -1, i64::MIN, most + 1, i64::MAX] {
        assert_eq!(ledger.apply(&[direct("x", ORIGIN, MAIN, amount)]), Err(LedgerError::Amount("x".into())));
    }
    assert_eq!(
        ledger.apply(&[direct("x", ORIGIN, MAIN, most)]),
        Err(LedgerError::Amount("x".into())),
        "a sum too large"
    );
    assert_eq!(ledger.apply(&[direct("x", MAIN, MAIN, 1)]), Err(LedgerError::Unfit("x".into())));
    assert_eq!(ledger.apply(&[direct("x", MAIN, "points:redeemed#0", 1)]), Err(LedgerError::Unfit("x".into())));
    let nowhere: Arc<str> = "nowhere".into();
    assert_eq!(ledger.apply(&[direct("x", MAIN, &nowhere, 1)]), Err(LedgerError::NoAccount(nowhere)));
    ledger.apply(&[direct("all", MAIN, SOLD, 10)]).expect("the last unit can be sold");
}

#[test]
fn lanes_and_shards_have_accounts_of_their_own() {
    let id = |lane, kind, shard| Account::empty(lane, "points", "ann", kind, shard).id.to_string();
    assert_eq!(id(Lane::Live, AccountKind::Available, 3), "points:ann:available");
    assert_eq!(id(Lane::Load, AccountKind::Available, 3), "load/points:ann:available");
    assert_eq!(id(Lane::Test, AccountKind::Order, 3), "test/points:ann:order#3");
}

#[test]
fn a_batch_goes_on_from_what_is_stored_and_writes_only_what_is_new() {
    let mut stored = ledger();
    stored.apply(&[pending("p", 6), pending("r", 4), resolving("post", TransferKind::Post, "p", 6)]).unwrap();
    let mut ledger = Ledger::default();
    stored.accounts().for_each(|account| ledger.load_account(account.clone()));
    for id in ["open", "p", "r", "post"] {
        ledger.load_transfer(stored.transfer(id).unwrap().clone());
    }
    assert_eq!((ledger.changed_accounts().len(), ledger.new_transfers().len()), (0, 0), "nothing has happened yet");
    assert_eq!(main_balance(&ledger), (4, 4));

    let again = ledger.apply(&[resolving("void", TransferKind::Void, "p", 6)]);
    assert_eq!(again, Err(LedgerError::Resolved("p".into())), "posted by an earlier batch");
    ledger.apply(&[pending("r", 4)]).expect("the same transfer is known");
    ledger.apply(&[resolving("void", TransferKind::Void, "r", 4)]).unwrap();
    let empty = ["bob", "ann"].map(|owner| Account::empty(Lane::Live, "stock:A", owner, AccountKind::Available, 0));
    let [_, ann] = empty.map(|account| ledger.ensure(account));
    let written: Vec<_> = ledger.changed_accounts().iter().map(|change| change.now.unwrap().id.to_string()).collect();
    assert_eq!(written, [MAIN], "an account that nothing names is not written");
    ledger.apply(&[direct("gift", MAIN, &ann, 1)]).unwrap();
    assert_eq!(ledger.changed_accounts().len(), 2);
    let written: Vec<_> = ledger.new_transfers().iter().map(|transfer| transfer.id.to_string()).collect();
    assert_eq!(written.iter().map(String::as_str).collect::<BTreeSet<_>>(), ["gift", "void"].into());
}

#[test]
fn kinds_of_transfers_are_read_as_they_are_written() {
    for (kind, label) in [
        (TransferKind::Pending, "pending"),
        (TransferKind::Post, "post"),
        (TransferKind::Void, "void"),
        (TransferKind::Direct, "direct"),
    ] {
        assert_eq!((kind.label(), TransferKind::from_label(label)), (label, Some(kind)));
    }
    assert_eq!(TransferKind::from_label("gift"), None);
}
