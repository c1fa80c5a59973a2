//! Commands that are put aside, and what their sagas are told.

use crate::store::{MINUTE_MS, System, line, sent};
use crate::world::*;
use endstate_events::*;
use endstate_outbox::*;
use serde_json::json;
use std::sync::Arc;

/// Sagas that were told that a command of theirs is put aside, and why.
async fn told_aside(system: &System) -> Vec<(EffectId, String)> {
    let aside = |input: Input| match input.body {
        InputBody::Reply(Reply { effect_id, verdict: Verdict::Unknown { reason, put_aside: true } }) => {
            Some((effect_id, reason))
        }
        _ => None,
    };
    system.inputs().await.into_iter().filter_map(aside).collect()
}

#[tokio::test]
async fn z09_a_very_old_command_is_put_aside_and_its_saga_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path()).await;
    let command = hold_stock(1, "A", 1);
    let old = sent(&command, NOW_MS - 200 * 24 * 60 * MINUTE_MS);
    system.bus.produce(vec![old]).await.unwrap();
    system.settle().await;
    let letters = dead_letter::list(&*system.store, 0, 10).await.unwrap();
    assert!(letters[0].letter.reason.starts_with("E5003"), "{letters:?}");
    let told = told_aside(&system).await;
    assert_eq!((told.len(), &told[0].0), (1, &command.effect_id));
    assert!(told[0].1.starts_with("put aside: E5003"), "{told:?}");
    assert_eq!(system.replies().await.len(), 1, "nothing is said about the effect");
}

/// A store that refuses a unit's rows as long as it is told to.
struct Picky {
    inner: Arc<dyn Store>,
    refuses: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl Store for Picky {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        self.inner.read(statement, rows).await
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        self.inner.assign(shard).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        let cursed =
            |write: &Write| write.rows.cells().iter().filter_map(Value::text).any(|text| text.contains("cursed"));
        if self.refuses.load(std::sync::atomic::Ordering::SeqCst) && commit.writes.iter().any(cursed) {
            return Err(CommitError::Data("a row does not take \u{7} it".to_owned()));
        }
        self.inner.commit(commit).await
    }

    async fn outgoing(&self, shard: ShardId, from: i64, limit: usize) -> Result<Vec<(i64, Outgoing)>, StoreError> {
        self.inner.outgoing(shard, from, limit).await
    }

    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }
}

/// The command that makes a batch fail goes to the dead letters, its saga is told in the same commit, and the letter that is
/// sent again is answered like any command.
#[tokio::test]
async fn z10_a_command_that_the_store_refuses_is_told_of_and_its_letter_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (inner, bus) = crate::place::open(folder.path()).await;
    let picky = Arc::new(Picky { inner, refuses: false.into() });
    let mut system = System::on(picky.clone(), bus, 1_000);
    let open = |unit: &str| line("stock.open", json!({ "unit": unit, "quantity": 10 }));
    system.operate("opening", &[open("A"), open("cursed")]).await;
    picky.refuses.store(true, std::sync::atomic::Ordering::SeqCst);
    let (good, bad) = (hold_stock(1, "A", 1), hold_stock(2, "cursed", 2));
    system.send(&[good.clone(), bad.clone()]).await;
    system.settle().await;
    let told = told_aside(&system).await;
    assert_eq!(told, [(bad.effect_id.clone(), "put aside: a row does not take \u{fffd} it".to_owned())]);
    let replies = system.replies().await;
    assert_eq!(replies[&good.effect_id.to_string()], ["done"]);
    let letters = dead_letter::list(&*system.store, 0, 10).await.unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");

    picky.refuses.store(false, std::sync::atomic::Ordering::SeqCst);
    let wish = dead_letter::Replay { by: "olga".into(), reason: "its cause is gone".into() };
    let (store, bus) = (system.store.clone(), system.bus.clone());
    dead_letter::replay(&*store, &*bus, letters[0].id, &wish, NOW_MS, async |letter| Ok(vec![letter])).await.unwrap();
    // And its saga has sent it again as well.
    system.send(std::slice::from_ref(&bad)).await;
    system.settle().await;
    let replies = system.replies().await;
    assert_eq!(replies[&bad.effect_id.to_string()], ["unknown", "done", "done"]);
    let book = system.book("stock:cursed").await;
    assert_eq!((book.held, book.left), (2, 8), "once");
}
