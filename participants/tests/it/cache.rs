//! A run that remembers, and trusts that what is new is new, answers as a desk does that has everything: whatever comes
//! again, contradicts itself, comes the wrong way round, and however batches, rounds and assignments cut it.

use crate::known::{Counting, book, payment};
use crate::store::sent;
use crate::world::*;
use endstate_events::*;
use endstate_outbox::*;
use endstate_participants::desk::Desk;
use endstate_participants::{HandOver, Participants, Settings, books};
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

const SHARD: ShardId = ShardId { side: Side::Participants, index: 0 };

/// One shard's handler over a store, driven by hand.
struct Driven {
    _folder: tempfile::TempDir,
    store: Arc<Counting>,
    handler: Participants,
    assignment: Assignment,
    _calls: mpsc::Receiver<HandOver>,
}

impl Driven {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = crate::place::open(folder.path()).await;
        let store = Arc::new(Counting::new(store));
        let (caller, calls) = mpsc::channel(1_000);
        let mut handler = Participants::new(store.clone(), caller, Settings::default());
        let assignment = store.assign(SHARD).await.unwrap();
        handler.assigned(&assignment).await.unwrap();
        Self { _folder: folder, store, handler, assignment, _calls: calls }
    }

    async fn assign(&mut self) {
        self.assignment = self.store.assign(SHARD).await.unwrap();
        self.handler.assigned(&self.assignment).await.unwrap();
    }

    async fn decide(&mut self, rounds: &[Vec<Command>], attempt: u32) -> Result<(Outcome, Vec<Outgoing>), DecideError> {
        let (messages, poisoned, assignment) = (Vec::new(), Vec::new(), self.assignment);
        let batch =
            Batch { messages, poisoned, now_ms: NOW_MS, timers_ms: None, timers: Timers::All, assignment, attempt };
        let mut open = self.handler.open(&batch).await?;
        let mut out = Vec::new();
        for round in rounds {
            let messages = round.iter().map(|command| sent(command, NOW_MS));
            let messages: Vec<_> = messages.map(|message| (message.topic, message.envelope)).collect();
            out.extend(self.handler.round(&mut open, &messages).await?);
        }
        Ok((self.handler.close(open)?, out))
    }

    /// One transaction of some rounds, decided again as a shard does; what was answered, in order.
    async fn batch(&mut self, rounds: &[Vec<Command>]) -> Vec<Verdict> {
        for attempt in 0..3 {
            let (outcome, out) = match self.decide(rounds, attempt).await {
                Ok(decided) => decided,
                Err(DecideError::Data(_)) => {
                    self.handler.rolled_back();
                    continue;
                }
                Err(DecideError::Store(error)) => panic!("{error}"),
            };
            assert!(outcome.dead_letters.is_empty());
            match self.store.commit(Commit { writes: outcome.writes, ..Commit::default() }).await {
                Ok(_) => {
                    self.handler.committed();
                    return out.into_iter().map(verdict).collect();
                }
                Err(CommitError::Conflict { statement, .. }) => self.handler.conflicted(statement),
                Err(CommitError::Data(_)) => self.handler.rolled_back(),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("with everything read it must fit");
    }

    /// How many reads some rounds take.
    async fn reads_of(&mut self, rounds: &[Vec<Command>]) -> u64 {
        let before = self.store.reads.load(Ordering::Relaxed);
        self.batch(rounds).await;
        self.store.reads.load(Ordering::Relaxed) - before
    }
}

fn verdict(message: Outgoing) -> Verdict {
    match &message.envelope.message {
        Message::Input(Input { body: InputBody::Reply(reply), .. }) => reply.verdict.clone(),
        other => panic!("{other:?}"),
    }
}

fn opening() -> Vec<Command> {
    let changes = [
        ("stock.open", json!({ "unit": "A", "quantity": 9_000 })),
        ("stock.open", json!({ "unit": "B", "quantity": 7 })),
        ("coupon.open", json!({ "coupon": "C", "user": "ann" })),
        ("points.adjust", json!({ "user": "ann", "delta": 60 })),
    ];
    let named = changes.into_iter().enumerate();
    named.map(|(index, (call, with))| change(&format!("open-{index}"), call, with)).collect()
}

#[tokio::test]
async fn what_failed_by_the_other_sides_row_is_still_known() {
    let mut driven = Driven::open().await;
    driven.batch(&[opening()]).await;
    driven.batch(&[vec![hold_stock(1, "A", 1)]]).await;
    assert_eq!(driven.reads_of(&[vec![hold_stock(2, "A", 1)]]).await, 0);
    // A start is repeated: the sagas' side of the batch breaks, and with it ours.
    driven.decide(&[vec![hold_stock(3, "A", 1)]], 0).await.unwrap();
    driven.handler.conflicted("saga_number.claim");
    assert_eq!(
        driven.reads_of(&[vec![hold_stock(3, "A", 1)], vec![about("confirm", &hold_stock(2, "A", 1))]]).await,
        0
    );
    let books = books::read(&*driven.store).await.unwrap();
    let stock = books.iter().find(|book| book.asset == "stock:A").unwrap();
    assert_eq!((stock.held, stock.used, stock.balanced), (2, 1, true), "and what was decided then is not");
    // A row of ours is another than what is known: nothing is believed any more.
    driven.decide(&[vec![hold_stock(4, "A", 1)]], 0).await.unwrap();
    driven.handler.conflicted("participants.change_accounts");
    assert!(driven.reads_of(&[vec![hold_stock(4, "A", 1)]]).await > 0);
}

#[tokio::test]
async fn what_comes_again_in_a_later_round_is_answered_as_in_the_first() {
    let mut driven = Driven::open().await;
    driven.batch(&[opening()]).await;
    let (hold, paid) = (hold_stock(1, "B", 4), book(1, 0, &payment(1, "P1", 70)));
    let rounds =
        [vec![hold.clone(), paid.clone()], vec![hold.clone(), about("confirm", &hold)], vec![hold.clone(), paid]];
    let first = driven.batch(&rounds).await;
    assert!(first.iter().all(|verdict| matches!(verdict, Verdict::Done { .. })), "{first:?}");
    // All of it once more, from the store: the first round has it, the next two find it.
    driven.assign().await;
    assert_eq!(driven.batch(&rounds).await, first);
    let books = books::read(&*driven.store).await.unwrap();
    let left = |asset: &str| books.iter().find(|book| book.asset == asset).map(|book| (book.used, book.left));
    assert_eq!((left("stock:B"), left("money:CNY")), (Some((4, 3)), Some((0, 70))));
}

/// A new effect whose transfer was trusted not to be there, and is not made after all: only a look tells why.
#[tokio::test]
async fn z12_what_was_trusted_and_is_not_inserted_is_looked_up() {
    let mut driven = Driven::open().await;
    let paid = payment(1, "P1", 70);
    driven.batch(&[vec![book(1, 0, &paid)]]).await;
    driven.assign().await;
    let other = payment(1, "P1", 10);
    let answers = driven.batch(&[vec![book(1, 1, &paid)], vec![book(1, 2, &other), book(1, 1, &paid)]]).await;
    let codes = answers.iter().map(|verdict| match verdict {
        Verdict::Refused { code, .. } => code.clone(),
        verdict => verdict.label().to_owned(),
    });
    assert_eq!(codes.collect::<Vec<_>>(), ["done", "payment.conflict", "done"]);
    let books = books::read(&*driven.store).await.unwrap();
    assert_eq!(books.iter().find(|book| book.asset == "money:CNY").unwrap().left, 70);
}

#[tokio::test]
async fn what_was_pushed_out_is_read_again() {
    let mut driven = Driven::open().await;
    driven.batch(&[opening()]).await;
    let holds: Vec<Command> = (0..5_000).map(|n| hold_stock(n, "A", 1)).collect();
    for part in holds.chunks(500) {
        driven.batch(&[part.to_vec()]).await;
    }
    assert_eq!(driven.reads_of(&[vec![about("confirm", &holds[4_999])]]).await, 0);
    assert!(driven.reads_of(&[vec![about("confirm", &holds[0])]]).await > 0);
    let books = books::read(&*driven.store).await.unwrap();
    let stock = books.iter().find(|book| book.asset == "stock:A").unwrap();
    assert_eq!((stock.held, stock.used, stock.left, stock.balanced), (4_998, 2, 4_000, true));
}

fn command(n: u64, what: u8, quantity: i64) -> Command {
    let hold = hold_stock(n, "B", 1 + i64::try_from(n).unwrap());
    let (award, spend) = (points(n, "award", "ann", 20), points(n, "hold", "ann", 20));
    let coupon = hold_coupon(n, "C", "ann");
    match what {
        0..3 => hold,
        // Its id with another body.
        3 => hold_stock(n, "B", quantity),
        4 => about("confirm", &hold),
        5 => undo("unconfirm", &about("confirm", &hold)),
        6 => undo("release", &hold),
        7 => ask(&hold),
        8 => ask(&about("confirm", &hold)),
        9 => award,
        10 => undo("take_back", &award),
        11 => spend,
        12 => about("confirm", &spend),
        13 => undo("release", &spend),
        14 => coupon,
        15 => about("confirm", &coupon),
        16 => undo("release", &coupon),
        17 => ask(&coupon),
        18 => book(n, 0, &payment(n, &format!("P{}", n % 3), 10 * quantity)),
        _ => book(n, u8::try_from(quantity).unwrap(), &payment(n % 2, "P0", 10)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_run_that_remembers_equals_one_that_has_everything(
        acts in prop::collection::vec((0..5_u64, 0..20_u8, 1..5_i64, 0..9_u8), 1..90)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut driven = Driven::open().await;
            let mut desk = Desk::default();
            driven.batch(&[opening()]).await;
            opening().iter().for_each(|command| _ = decide_on(&mut desk, command));
            let mut rounds: Vec<Vec<Command>> = vec![Vec::new()];
            let mut expected = Vec::new();
            for (n, what, quantity, cut) in acts {
                let command = command(n, what, quantity);
                expected.extend(decide_on(&mut desk, &command));
                rounds.last_mut().unwrap().push(command);
                match cut {
                    0..4 => {}
                    4 | 5 => rounds.push(Vec::new()),
                    _ => {
                        prop_assert_eq!(driven.batch(&rounds).await, std::mem::take(&mut expected), "{:#?}", rounds);
                        rounds = vec![Vec::new()];
                        if cut == 8 {
                            driven.assign().await;
                        }
                    }
                }
            }
            prop_assert_eq!(driven.batch(&rounds).await, expected, "{:#?}", rounds);
            let books = books::read(&*driven.store).await.unwrap();
            prop_assert!(books.iter().all(|book| book.balanced), "{:?}", books);
            let stock = books.iter().find(|book| book.asset == "stock:B").unwrap();
            let (posted, pending) = balance(&desk, "stock:B:available");
            prop_assert_eq!((stock.left, stock.held), (posted - pending, pending));
            Ok(())
        })?;
    }
}
