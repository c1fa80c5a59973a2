//! The store, the bus and the shard loop together, on a real file.

mod relay;
mod store;
mod timers;
mod trouble;

use endstate_events::{Command, CommandKind, Direction, EffectId, Envelope, Environment, Json, Lane, Message, ReplyTo};
use endstate_events::{SCHEMA_VERSION, SagaId, Side, Slot, Topic};
use endstate_outbox::sqlite::Made;
use endstate_outbox::*;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::Mutex;
use store::conformance::PUT;

fn command(name: &str) -> Arc<Envelope> {
    let saga = SagaId::mint(1, Slot::of("k"), 7);
    let effect_id = EffectId { saga, step: "hold".into(), item: name.into(), direction: Direction::Do, round: 0 };
    Arc::new(Envelope {
        id: effect_id.to_string(),
        schema: SCHEMA_VERSION,
        time_ms: 1,
        key: "k".into(),
        lane: Lane::Live,
        message: Message::Command(Command {
            effect_id,
            kind: CommandKind::Do,
            participant: "stock".into(),
            action: "hold".into(),
            number: "n".into(),
            definition: "d".into(),
            definition_version: 1,
            key: "k".into(),
            with: Json::Null,
            of: None,
            reply_to: ReplyTo { topic: Topic::Progress, partition: 0 },
        }),
    })
}

fn send(name: &str) -> Outgoing {
    Outgoing { topic: Topic::Commands, partition: 2, envelope: command(name) }
}

/// Writes down every item it sees, refuses items named `poison`, and counts assignments.
#[derive(Default)]
struct Scribe {
    seen: Arc<Mutex<Vec<String>>>,
    /// Whether timers might fire, batch by batch.
    timers: Arc<Mutex<Vec<bool>>>,
    /// Refuses every batch in which timers might fire.
    bad_timer: bool,
    pending: Vec<String>,
    assigned: Arc<Mutex<u32>>,
}

fn item(envelope: &Envelope) -> String {
    match &envelope.message {
        Message::Command(command) => command.effect_id.item.clone(),
        other => other.label().to_owned(),
    }
}

impl Handler for Scribe {
    fn topics(&self) -> &[Topic] {
        &[Topic::Commands]
    }
    fn room(&self, _: Topic) -> usize {
        100
    }
    async fn assigned(&mut self, _: &Assignment) -> Result<(), StoreError> {
        *self.assigned.lock().unwrap() += 1;
        Ok(())
    }
    async fn decide(&mut self, batch: &Batch) -> Result<Outcome, DecideError> {
        self.timers.lock().unwrap().push(batch.timers_ms.is_some());
        if batch.timers_ms.is_some() && self.bad_timer {
            return Err(DecideError::Data("a timer cannot be decided".into()));
        }
        let mut rows = Rows::new();
        for (_, envelope) in &batch.messages {
            assert!(item(envelope) != "panic", "asked to");
            if item(envelope) == "poison" {
                return Err(DecideError::Data("I do not eat this".into()));
            }
            rows.push([item(envelope).into(), "seen".into()]);
            self.pending.push(item(envelope));
        }
        Ok(Outcome { writes: vec![Write::exact(&PUT, rows)], seqs: batch.messages.len() as i64, ..Outcome::default() })
    }
    fn committed(&mut self) {
        self.seen.lock().unwrap().append(&mut self.pending);
    }
    fn rolled_back(&mut self) {
        self.pending.clear();
    }
    fn due_ms(&self) -> Option<i64> {
        None
    }
}

fn shard(store: &Arc<SqliteStore>, handler: Scribe) -> Shard<Scribe> {
    let id = ShardId { side: Side::Participants, index: 2 };
    Shard::new(id, store.clone(), store.bus(), Arc::new(SystemClock), handler)
}

async fn turn_until_idle(shard: &mut Shard<Scribe>) {
    while shard.turn().await != Turn::Idle {}
}

#[tokio::test]
async fn messages_survive_a_restart_and_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    {
        let store = SqliteStore::open(folder.path()).await.unwrap();
        store.bus().produce(vec![send("a"), send("b"), send("c")]).await.unwrap();
        let mut shard = shard(&store, Scribe { seen: seen.clone(), ..Scribe::default() });
        turn_until_idle(&mut shard).await;
        store.bus().produce(vec![send("d"), send("e")]).await.unwrap();
        assert_eq!(store.bus().lag(Topic::Commands, 2), 2);
    }
    let store = reopen(folder.path()).await;
    let mut shard = shard(&store, Scribe { seen: seen.clone(), ..Scribe::default() });
    turn_until_idle(&mut shard).await;
    assert_eq!(store.bus().lag(Topic::Commands, 2), 0);
    assert_eq!(*seen.lock().unwrap(), ["a", "b", "c", "d", "e"]);
}

/// The writer's task ends a moment after the store is dropped; its lock goes with the store.
async fn reopen(folder: &std::path::Path) -> Arc<SqliteStore> {
    SqliteStore::open(folder).await.unwrap()
}

#[tokio::test]
async fn z10_one_poisonous_record_does_not_hurt_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    store.bus().produce(["a", "b", "poison", "c", "d"].map(send).to_vec()).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut shard = shard(&store, Scribe { seen: seen.clone(), ..Scribe::default() });
    turn_until_idle(&mut shard).await;
    assert_eq!(*seen.lock().unwrap(), ["a", "b", "c", "d"]);
    let letters = dead_letter::list(&*store, 0, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].letter.offset, letters[0].letter.reason.as_str()), (2, "I do not eat this"));
    let wish = dead_letter::Replay { by: "ann".into(), reason: "fixed".into() };
    dead_letter::replay(&*store, &*store.bus(), letters[0].id, &wish, 5, async |letter| Ok(vec![letter]))
        .await
        .unwrap();
    let again =
        dead_letter::replay(&*store, &*store.bus(), letters[0].id, &wish, 6, async |letter| Ok(vec![letter])).await;
    assert!(matches!(again, Err(dead_letter::ReplayError::Replayed(_))));
    let marked = dead_letter::list(&*store, 0, 10).await.unwrap().remove(0);
    assert_eq!((marked.replayed_ms, marked.replayed), (Some(5), Some(wish)));
    turn_until_idle(&mut shard).await;
    assert_eq!(dead_letter::list(&*store, 0, 10).await.unwrap().len(), 2, "still poison, put aside again");
}

#[tokio::test]
async fn a_record_that_makes_deciding_panic_goes_to_the_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let scribe = Scribe::default();
    let seen = Arc::clone(&scribe.seen);
    let mut shard = shard(&store, scribe);
    store.bus().produce(["a", "panic", "b"].map(send).into()).await.unwrap();
    turn_until_idle(&mut shard).await;
    assert_eq!(*seen.lock().unwrap(), ["a", "b"]);
    let letters = dead_letter::list(&*store, 0, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].letter.reason.contains("panicked: asked to"), "{:?}", letters[0]);
}

#[tokio::test]
async fn timers_wait_for_what_lies_behind_a_newer_record() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let scribe = Scribe::default();
    let timers = Arc::clone(&scribe.timers);
    let mut shard = shard(&store, scribe);
    let mut newer = send("newer");
    newer.envelope = Arc::new(Envelope { schema: SCHEMA_VERSION + 1, ..(*newer.envelope).clone() });
    store.bus().produce(vec![send("a")]).await.unwrap();
    shard.turn().await;
    store.bus().produce(vec![send("b"), newer]).await.unwrap();
    shard.turn().await;
    assert_eq!(*timers.lock().unwrap(), [true, false], "nobody knows what the newer record is");
}

#[tokio::test]
async fn z10_a_timer_that_cannot_be_decided_takes_no_record_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let scribe = Scribe { bad_timer: true, ..Scribe::default() };
    let seen = Arc::clone(&scribe.seen);
    let mut shard = shard(&store, scribe);
    store.bus().produce(vec![send("a"), send("b"), send("c")]).await.unwrap();
    assert!(matches!(shard.turn().await, Turn::Wait(_)), "the timer is a doubt");
    assert_eq!(*seen.lock().unwrap(), ["a", "b", "c"]);
    assert!(dead_letter::list(&*store, 0, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn z06_a_second_owner_fences_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let (seen, assigned) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let mut first = shard(&store, Scribe { seen: seen.clone(), assigned: assigned.clone(), ..Scribe::default() });
    assert_eq!(first.turn().await, Turn::Idle);
    let other = store.assign(ShardId { side: Side::Participants, index: 2 }).await.unwrap();
    assert_eq!(other.epoch, 2);
    store.bus().produce(vec![send("a")]).await.unwrap();
    assert!(matches!(first.turn().await, Turn::Wait(_)), "its commit hits no row");
    assert!(seen.lock().unwrap().is_empty());
    turn_until_idle(&mut first).await;
    assert_eq!((*assigned.lock().unwrap(), seen.lock().unwrap().len()), (2, 1), "assigned again, nothing lost");
}

#[tokio::test]
async fn z16_offsets_go_on_rising_after_a_purge_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    {
        let store = SqliteStore::open(folder.path()).await.unwrap();
        store.bus().produce(vec![send("a"), send("b")]).await.unwrap();
        let mut shard = shard(&store, Scribe { seen: seen.clone(), ..Scribe::default() });
        assert_eq!(store.bus().purge(0).await.unwrap(), 0, "unread rows stay");
        turn_until_idle(&mut shard).await;
        assert_eq!(store.bus().purge(0).await.unwrap(), 1, "the one row of both messages");
    }
    let store = reopen(folder.path()).await;
    store.bus().produce(vec![send("c")]).await.unwrap();
    let mut shard = shard(&store, Scribe { seen: seen.clone(), ..Scribe::default() });
    turn_until_idle(&mut shard).await;
    assert_eq!(*seen.lock().unwrap(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_slow_consumer_reads_from_the_table_what_memory_did_not_keep() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let mut consumer = store.bus().consumer(Topic::Commands, 2, 0);
    for page in 0..30 {
        let names: Vec<_> = (0..1000).map(|n| send(&format!("{:05}", page * 1000 + n))).collect();
        store.bus().produce(names).await.unwrap();
    }
    let mut all = Vec::new();
    loop {
        consumer.ready().await;
        let taken = consumer.take(700).await.unwrap();
        all.extend(taken.into_iter().map(|d| (d.offset, item(&d.envelope.unwrap()))));
        if all.len() == 30_000 {
            break;
        }
    }
    assert!(all.iter().enumerate().all(|(n, (offset, item))| *offset == n as i64 && *item == format!("{n:05}")));
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _store = SqliteStore::open(folder.path()).await.unwrap();
    let Err(error) = SqliteStore::open(folder.path()).await else { panic!("opened twice") };
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn every_commit_is_on_disk_before_it_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    assert_eq!(store.synchronous().await.unwrap(), 2);
}

#[tokio::test]
async fn z17_a_store_of_another_environment_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let named = |name| Made { environment: Environment::new(name).unwrap(), ..Made::default() };
    let [staging, prod] = ["staging", "prod"].map(named);
    drop(SqliteStore::open_as(folder.path(), &staging).await.unwrap());
    let Err(error) = SqliteStore::open_as(folder.path(), &prod).await else { panic!("staging opened as prod") };
    assert!(matches!(error, StoreError::Unfit { .. }), "{error}");
    let said = error.to_string();
    assert!(said.starts_with("E4003") && said.contains("`staging`") && said.contains("`prod`"), "{said}");
    SqliteStore::open_as(folder.path(), &staging).await.unwrap();
}

#[tokio::test]
async fn z17_a_store_keeps_the_number_of_its_partitions() {
    let folder = tempfile::tempdir().unwrap();
    let of = |partitions| Made { partitions: NonZeroU16::new(partitions), ..Made::default() };
    assert_eq!(SqliteStore::open_as(folder.path(), &of(2)).await.unwrap().partitions(), 2);
    let Err(error) = SqliteStore::open_as(folder.path(), &of(4)).await else { panic!("opened with four") };
    let said = error.to_string();
    assert!(said.starts_with("E4003") && said.contains("partitions `2`") && said.contains("`4`"), "{said}");
    let store = SqliteStore::open(folder.path()).await.unwrap();
    assert_eq!(store.partitions(), 2, "who does not ask takes what there is");
    let last = Outgoing { partition: 1, ..send("a") };
    store.bus().produce(vec![last]).await.unwrap();
    assert_eq!(store.bus().consumer(Topic::Commands, 1, 0).take(10).await.unwrap().len(), 1);
}
