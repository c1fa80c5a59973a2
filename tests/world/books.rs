//! The books that must agree at the end: the provider's, the ledger's, and what the sagas say of themselves.

use super::check::{Check, fault, int, text};
use super::run::World;
use endstate_events::SagaId;
use endstate_orchestrator::persist;
use endstate_outbox::{Kind, Statement};
use endstate_saga::control::Outcome;
use endstate_saga::saga::Saga;
use std::collections::BTreeMap;

static ACCOUNTS: Statement = Statement {
    name: "world.accounts",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select a.asset, a.owner, a.kind, a.posted, a.pending, a.may_be_negative \
          from r cross join account a",
};
static TOKENS: Statement = Statement {
    name: "world.tokens",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select t.id, t.state from r cross join token t",
};
static DISCREPANCIES: Statement = Statement {
    name: "world.discrepancies",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select d.saga, d.kind, d.detail from r cross join discrepancy d",
};
fn amount(saga: &Saga, of: &str, name: &str) -> i64 {
    let json = if of == "values" { &saga.data.values } else { &saga.data.input };
    json[name].as_i64().unwrap_or_default()
}

/// Everything that is compared, read once.
pub(crate) struct Books {
    pub(crate) sagas: BTreeMap<SagaId, Saga>,
    /// Sums of (posted, pending) by asset, owner and kind.
    accounts: BTreeMap<(String, String, String), (i64, i64)>,
    pub(crate) discrepancies: Vec<(Option<SagaId>, String)>,
}

impl Books {
    fn posted(&self, asset: &str, owner: &str, kind: &str) -> i64 {
        self.accounts.get(&(asset.to_owned(), owner.to_owned(), kind.to_owned())).map_or(0, |(posted, _)| *posted)
    }

    fn of<'a>(&'a self, definition: &'a str) -> impl Iterator<Item = &'a Saga> {
        self.sagas.values().filter(move |saga| *saga.definition == *definition)
    }

    pub(crate) fn is_exact(&self, world: &World, saga: &Saga) -> bool {
        let order = world.orders.iter().find(|order| order.number == *saga.number);
        order.is_none_or(|order| order.exact)
    }
}

impl World {
    pub(crate) async fn books(&self) -> Books {
        let ids: Vec<SagaId> = self.seen.values().map(|seen| seen.id).collect();
        let stored = persist::load_sagas(&*self.system.store(), &ids).await.expect("the rows can be read");
        let mut accounts: BTreeMap<_, (i64, i64)> = BTreeMap::new();
        for row in self.system.read(&ACCOUNTS).await {
            let sums = accounts.entry((text(&row[0]), text(&row[1]), text(&row[2]))).or_default();
            *sums = (sums.0 + int(&row[3]), sums.1 + int(&row[4]));
        }
        let discrepancies = self.system.read(&DISCREPANCIES).await;
        let discrepancies = discrepancies.iter().map(|row| (row[0].id().map(SagaId), text(&row[1]))).collect();
        Books { sagas: stored.into_iter().map(|s| (s.saga.id, s.saga)).collect(), accounts, discrepancies }
    }

    /// Every transfer leaves a zero sum, and nothing is below zero but where value enters and what users owe.
    pub(crate) async fn check_accounts(&self, books: &Books) -> Check {
        let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
        let forced = |owner: &str| {
            let order = owner.parse().ok().and_then(|id: SagaId| books.sagas.get(&id));
            owner.starts_with("forced-") || order.is_some_and(|order| !books.is_exact(self, order))
        };
        for ((asset, owner, _), (posted, pending)) in &books.accounts {
            *sums.entry(asset).or_default() += posted;
            if *pending != 0 && !asset.starts_with("stock:forced-") && !forced(owner) {
                return Err(fault(None, format!("{pending} of {asset} are still set aside")));
            }
        }
        if let Some((asset, sum)) = sums.into_iter().find(|(_, sum)| *sum != 0) {
            return Err(fault(None, format!("{asset} sums to {sum}")));
        }
        for row in self.system.read(&ACCOUNTS).await {
            let kind = text(&row[2]);
            let may = matches!(kind.as_str(), "origin" | "issuer" | "psp_clearing" | "debt");
            if int(&row[3]) < 0 && !may {
                return Err(fault(
                    None,
                    format!("{} {} of {} is {}", text(&row[0]), kind, text(&row[1]), int(&row[3])),
                ));
            }
        }
        Ok(())
    }

    /// What the provider took and gave back, against what the sagas and the ledger say.
    pub(crate) fn check_money(&self, books: &Books) -> Check {
        let (captures, refunds) = self.provider.book(|book| (book.captures.clone(), book.refunds.clone()));
        let back_of = |provider_no: &str| -> i64 {
            let of = refunds.iter().filter(|(_, refund)| refund.provider_no == provider_no);
            of.map(|(_, refund)| refund.amount_minor.get()).sum()
        };
        for captured in &captures {
            let Some(order) = books.sagas.get(&captured.saga) else {
                return Err(fault(captured.saga, format!("money for an unknown saga: {captured:?}")));
            };
            if !books.is_exact(self, order) {
                continue;
            }
            let completed = order.control.outcome() == Some(Outcome::Completed);
            let kept =
                completed && order.data.waits.iter().any(|wait| wait["provider_no"] == captured.provider_no.as_str());
            let expected = if kept { refunded_by_orders(books, order) } else { captured.amount_minor.get() };
            let back = back_of(&captured.provider_no);
            if back != expected {
                let text = format!("of {captured:?}, kept: {kept}, {back} went back, {expected} should have");
                return Err(fault(order.id, text));
            }
            let asset = format!("money:{}", captured.currency);
            let of = captures.iter().filter(|c| c.saga == order.id && c.currency == captured.currency);
            let there: i64 = of.map(|c| c.amount_minor.get() - back_of(&c.provider_no)).sum();
            let posted = books.posted(&asset, &order.id.to_string(), "order");
            if posted != there {
                return Err(fault(order.id, format!("the ledger holds {posted} {asset}, the provider {there}")));
            }
        }
        for order in books.of("flash_sale_order").filter(|order| books.is_exact(self, order)) {
            let due = amount(order, "values", "due");
            let completed = order.control.outcome() == Some(Outcome::Completed);
            let paid =
                captures.iter().any(|c| c.saga == order.id && c.amount_minor.get() == due && c.currency == "CNY");
            if completed && due > 0 && !paid {
                return Err(fault(order.id, "completed, and nobody paid".to_owned()));
            }
        }
        Ok(())
    }

    pub(crate) fn check_stock(&self, books: &Books) -> Check {
        let mut sold: BTreeMap<String, i64> = BTreeMap::new();
        let mut add = |unit: &str, quantity: i64| *sold.entry(format!("stock:{unit}")).or_default() += quantity;
        for order in completed(books, "flash_sale_order").filter(|order| books.is_exact(self, order)) {
            for line in order.data.input["lines"].as_array().into_iter().flatten() {
                add(line["sku"].as_str().unwrap_or_default(), line["quantity"].as_i64().unwrap_or_default());
            }
        }
        for gift in completed(books, "gift_order") {
            add(gift.data.input["sku"].as_str().unwrap_or_default(), 1);
        }
        for refund in completed(books, "refund_order") {
            for line in refund.data.values["lines"].as_array().into_iter().flatten() {
                add(line["sku"].as_str().unwrap_or_default(), -line["quantity"].as_i64().unwrap_or_default());
            }
        }
        for (unit, main, standby) in &self.shelf.units {
            let asset = format!("stock:{unit}");
            let (expected, used) = (sold.get(&asset).copied().unwrap_or(0), books.posted(&asset, "", "sold"));
            let left = books.posted(&asset, "", "available") + books.posted(&asset, "", "standby");
            if used != expected || left != main + standby - expected {
                let text =
                    format!("{asset}: {used} sold and {left} left, by the orders {expected} of {main} + {standby}");
                return Err(fault(None, text));
            }
        }
        Ok(())
    }

    pub(crate) fn check_points(&self, books: &Books) -> Check {
        for (user, opened) in &self.shelf.users {
            let mine = |saga: &&Saga| saga.owner.as_deref() == Some(user);
            let orders = completed(books, "flash_sale_order").filter(mine);
            let orders: i64 = orders.map(|o| amount(o, "values", "award") - amount(o, "input", "points")).sum();
            let refunds = completed(books, "refund_order").filter(mine);
            let refunds: i64 =
                refunds.map(|r| amount(r, "values", "points_spent") - amount(r, "values", "points_earned")).sum();
            let there = books.posted("points", user, "available") + books.posted("points", user, "debt");
            if there != opened + orders + refunds {
                let text = format!("{user} has {there} points, not {opened} + {orders} + {refunds}");
                return Err(fault(None, text));
            }
        }
        Ok(())
    }

    pub(crate) async fn check_coupons(&self, books: &Books) -> Check {
        let rows = self.system.read(&TOKENS).await;
        for (coupon, _) in &self.shelf.coupons {
            let uses = completed(books, "flash_sale_order").filter(|o| o.data.input["coupon_id"] == coupon.as_str());
            let used = uses.count();
            let returned = completed(books, "refund_order").filter(|refund| {
                refund.data.values["whole"] == true && refund.data.order["input"]["coupon_id"] == coupon.as_str()
            });
            let still = used.saturating_sub(returned.count());
            let state = rows.iter().find(|row| text(&row[0]) == format!("coupon:{coupon}")).map(|row| text(&row[1]));
            if state.as_deref() != Some(if still == 0 { "free" } else { "used" }) || still > 1 {
                return Err(fault(None, format!("{coupon} is {state:?}, used by {still} orders")));
            }
        }
        Ok(())
    }
}

fn completed<'a>(books: &'a Books, definition: &'a str) -> impl Iterator<Item = &'a Saga> {
    books.of(definition).filter(|saga| saga.control.outcome() == Some(Outcome::Completed))
}

/// What went back of a completed order's payment by refunds of its lines.
fn refunded_by_orders(books: &Books, order: &Saga) -> i64 {
    let of = completed(books, "refund_order").filter(|refund| refund.data.input["order_no"] == *order.number);
    of.map(|refund| amount(refund, "values", "refund_minor")).sum()
}
