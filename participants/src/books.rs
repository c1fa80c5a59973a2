//! The books: per asset, what all accounts and tokens add up to. Read, never written.

use endstate_outbox::{Kind, Rows, Statement, Store, StoreError};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

use crate::ledger::AccountKind;

static ACCOUNTS: Statement = Statement {
    name: "books.read_accounts",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select a.asset, a.kind, cast(sum(a.posted) as bigint), cast(sum(a.pending) as bigint) from r cross join account a \
          group by a.asset, a.kind",
};

static TOKENS: Statement = Statement {
    name: "books.read_tokens",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select substr(t.id, 1, {instr|strpos}(t.id, ':') - 1), t.state, count(*) \
          from r cross join token t group by 1, 2",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&ACCOUNTS, &TOKENS];

/// One asset. Amounts are units, points, tokens, or minor units of money.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Book {
    /// `stock:SKU`, `points`, `coupon`, `money:CURRENCY` or `returns` (units that refunds claimed), with the lane in front unless it is live.
    #[schema(example = "stock:tea")]
    pub asset: String,
    /// Brought in: units opened, points given, money taken.
    #[schema(example = 500)]
    pub opened: i64,
    /// Set aside for orders that have no end yet.
    #[schema(example = 3)]
    pub held: i64,
    /// Sold, redeemed, used.
    #[schema(example = 120)]
    pub used: i64,
    /// Money given back.
    #[schema(example = 0)]
    pub returned: i64,
    /// What remains; for money, what the shop keeps. Debts count against it.
    #[schema(example = 377)]
    pub left: i64,
    /// What users owe because taken-back points were spent.
    #[schema(example = 0)]
    pub owed: i64,
    /// True when all accounts of the asset sum to zero, as every transfer leaves them.
    pub balanced: bool,
}

/// All books, by asset.
pub async fn read(store: &dyn Store) -> Result<Vec<Book>, StoreError> {
    let mut books: BTreeMap<String, (Book, i64)> = BTreeMap::new();
    for row in store.read(&ACCOUNTS, Rows::one([1.into()])).await? {
        let [asset, kind, posted, pending] = row.as_slice() else { continue };
        let (Some(asset), Some(posted), Some(pending)) = (asset.text(), posted.int(), pending.int()) else { continue };
        let Some(kind) = AccountKind::ALL.into_iter().find(|known| kind.text() == Some(known.label())) else {
            continue;
        };
        let (book, sum) = books.entry(asset.to_owned()).or_default();
        *sum += posted;
        enter(book, kind, posted, pending);
    }
    for row in store.read(&TOKENS, Rows::one([1.into()])).await? {
        let [asset, state, count] = row.as_slice() else { continue };
        let (Some(asset), Some(state), Some(count)) = (asset.text(), state.text(), count.int()) else { continue };
        let (book, _) = books.entry(asset.to_owned()).or_default();
        match state {
            "held" => book.held += count,
            "used" => book.used += count,
            "free" => book.left += count,
            // Void ones were opened, and are gone.
            _ => {}
        }
        book.opened += count;
    }
    Ok(books.into_iter().map(|(asset, (book, sum))| Book { asset, balanced: sum == 0, ..book }).collect())
}

fn enter(book: &mut Book, kind: AccountKind, posted: i64, pending: i64) {
    book.held += pending;
    match kind {
        AccountKind::Available | AccountKind::Standby => book.left += posted - pending,
        AccountKind::Origin | AccountKind::Issuer | AccountKind::PspClearing => book.opened -= posted,
        AccountKind::Sold | AccountKind::Redeemed => book.used += posted,
        AccountKind::Debt => {
            book.left += posted;
            book.owed -= posted;
        }
        AccountKind::Order => book.left += posted - pending,
        AccountKind::RefundClearing => book.returned += posted,
    }
}
