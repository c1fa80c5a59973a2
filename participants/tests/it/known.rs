//! What an assignment knows is not read again, and never believed longer than it is true.

use crate::store::{System, line};
use crate::world::*;
use async_trait::async_trait;
use endstate_events::*;
use endstate_outbox::*;
use endstate_participants::books;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A store that counts how often it is read.
pub(crate) struct Counting {
    store: Arc<dyn Store>,
    pub(crate) reads: AtomicU64,
}

impl Counting {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, reads: AtomicU64::new(0) }
    }
}

#[async_trait]
impl Store for Counting {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store.read(statement, rows).await
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        self.store.assign(shard).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        self.store.commit(commit).await
    }

    async fn outgoing(&self, shard: ShardId, from: i64, limit: usize) -> Result<Vec<(i64, Outgoing)>, StoreError> {
        self.store.outgoing(shard, from, limit).await
    }

    fn partitions(&self) -> u16 {
        self.store.partitions()
    }
}

pub(crate) fn payment(n: u64, number: &str, amount: i64) -> Json {
    json!({ "provider": "simpay", "provider_no": number, "amount_minor": amount, "currency": "CNY", "saga": saga(n) })
}

pub(crate) fn book(n: u64, round: u8, payment: &Json) -> Command {
    let mut command = tell(n, "payment.book", "k", json!({ "payment": payment }));
    command.effect_id.round = round;
    command
}

/// What a command is answered when it is told.
async fn said(system: &mut System, command: &Command) -> String {
    let id = command.effect_id.to_string();
    let before = system.replies().await.get(&id).map_or(0, Vec::len);
    system.send(std::slice::from_ref(command)).await;
    system.settle().await;
    system.replies().await[&id][before..].join(" ")
}

async fn opened_on(system: &mut System) {
    let lines = [
        line("stock.open", json!({ "unit": "A", "quantity": 10 })),
        line("points.adjust", json!({ "user": "A", "delta": 100 })),
    ];
    system.operate("opening", &lines).await;
}

#[tokio::test]
async fn orders_of_known_accounts_read_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, bus) = crate::place::open(folder.path()).await;
    let counting = Arc::new(Counting::new(store));
    let mut system = System::on(counting.clone(), bus, 100);
    opened_on(&mut system).await;
    let mut reads = Vec::new();
    for n in 0..3 {
        let before = counting.reads.load(Ordering::Relaxed);
        let (stock, spent) = (hold_stock(n, "A", 1), points(n, "hold", "A", 10));
        let later = [about("confirm", &stock), about("confirm", &spent), points(n, "award", "A", 1)];
        system.send(&[stock, spent, tell(n, "payment.open", "k", json!({}))]).await;
        system.settle().await;
        system.send(&later).await;
        system.send(&[book(n, 0, &payment(n, &format!("P{n}"), 100))]).await;
        system.settle().await;
        reads.push(counting.reads.load(Ordering::Relaxed) - before);
    }
    // The first order finds out which accounts there are; the self-check of holds looks when its time comes.
    assert_eq!(reads[1..], [0, 0], "{reads:?}");
    let (stock, points) = (system.book("stock:A").await, system.book("points").await);
    assert_eq!((stock.used, points.used, points.left), (3, 30, 73));
    assert_eq!(system.book("money:CNY").await.left, 300);
}

#[tokio::test]
async fn a_batch_of_new_and_repeated_commands_answers_each_as_it_must() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path()).await;
    opened_on(&mut system).await;
    let (held, sold, short) = (hold_stock(1, "A", 2), hold_stock(2, "A", 3), hold_stock(3, "A", 99));
    let (confirmed, never) = (about("confirm", &sold), about("confirm", &hold_stock(9, "A", 1)));
    let late = hold_stock(4, "A", 1);
    let first = [held.clone(), sold.clone(), short.clone(), confirmed.clone(), undo("release", &late)];
    system.send(&first).await;
    system.settle().await;
    let again = [hold_stock(5, "A", 4), held, sold, short, confirmed, late.clone(), never, hold_stock(6, "A", 2)];
    system.send(&again).await;
    system.settle().await;
    let replies = system.replies().await;
    let expected = ["done", "done done", "done done", "stock.short stock.short", "done done", "released_before"];
    let expected = expected.into_iter().chain(["unknown", "stock.short"]);
    for (command, expected) in again.iter().zip(expected) {
        assert_eq!(replies[&command.effect_id.to_string()].join(" "), expected, "{}", command.effect_id);
    }
    let stock = system.book("stock:A").await;
    assert_eq!((stock.held, stock.used, stock.left), (6, 3, 1));
    assert_eq!(dead_letter::list(&*system.store, 0, 1).await.unwrap().len(), 0);
}

#[tokio::test]
async fn z12_a_payment_that_is_booked_already_is_booked_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path()).await;
    let paid = payment(1, "P1", 100);
    assert_eq!(said(&mut system, &book(1, 0, &paid)).await, "done");
    // Another effect with the same payment, and with another amount of it; and a second payment of the same order.
    assert_eq!(said(&mut system, &book(1, 1, &paid)).await, "done");
    assert_eq!(said(&mut system, &book(1, 2, &payment(1, "P1", 70))).await, "payment.conflict");
    assert_eq!(said(&mut system, &book(1, 3, &payment(1, "P2", 50))).await, "done");
    assert_eq!(said(&mut system, &book(1, 2, &payment(1, "P1", 70))).await, "payment.conflict");
    assert_eq!(system.book("money:CNY").await.left, 150);
}

#[tokio::test]
async fn z06_an_owner_that_comes_back_knows_what_another_did_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (store, bus) = crate::place::open(folder.path()).await;
    let mut first = System::on(store.clone(), bus.clone(), 100);
    opened_on(&mut first).await;
    let held = hold_stock(1, "A", 4);
    first.send(&[held.clone(), hold_stock(2, "A", 2)]).await;
    first.settle().await;

    // Another owner gives one hold back and sells most of the rest; the first remembers both, and is fenced.
    let mut second = System::on(store.clone(), bus, 100);
    let sold = tell(3, "stock.take", "A", json!({ "unit": "A", "quantity": 7 }));
    second.send(&[undo("release", &held), sold]).await;
    second.settle().await;
    let (confirm, more) = (about("confirm", &held), hold_stock(4, "A", 2));
    first.send(&[confirm.clone(), more.clone(), about("confirm", &hold_stock(2, "A", 2))]).await;
    first.settle().await;

    let replies = first.replies().await;
    assert_eq!(replies[&confirm.effect_id.to_string()], ["stock.released"]);
    assert_eq!(replies[&more.effect_id.to_string()], ["stock.short"]);
    let books = books::read(&*store).await.unwrap();
    let stock = books.iter().find(|book| book.asset == "stock:A").unwrap();
    assert_eq!((stock.used, stock.held, stock.left, stock.balanced), (9, 0, 1, true));
}
