//! A shard over a bus that is not its store: numbers, the published mark, publishing again, and every way to lose the
//! broker. Store and bus are scripted, so that each acknowledgement comes when the test says so.

use crate::{item, send};
use async_trait::async_trait;
use endstate_events::{Envelope, Side, Topic};
use endstate_outbox::*;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

const SHARD: ShardId = ShardId { side: Side::Participants, index: 2 };

/// What the database and the broker hold, and what the script wants of them.
#[derive(Default)]
struct World {
    row: Option<Assignment>,
    outbox: Vec<Outgoing>,
    dead_letters: Vec<DeadLetter>,
    commits: usize,
    inbox: Vec<Delivered>,
    /// Sizes of the pages that were read from the outbox.
    pages: Vec<usize>,
    /// What the broker was given, with its number.
    published: Vec<(i64, String)>,
    /// What it had been given when something was first consumed.
    published_before_consuming: Option<usize>,
    acknowledged: i64,
    broken: bool,
    /// The broker takes nothing; who is told when something was to be published.
    stuck: Option<CancellationToken>,
}

#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<World>>);

impl Scripted {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// A record that makes the handler send `count` messages.
    fn arrives(&self, count: usize) {
        let mut world = self.world();
        let offset = world.inbox.len() as i64;
        let envelope = Ok(send(&count.to_string()).envelope);
        world.inbox.push(Delivered { topic: Topic::Commands, offset, next: offset + 1, envelope, bytes: 1, record: 0 });
    }

    fn shard(&self, clock: &Arc<ManualClock>) -> Shard<Echo> {
        Shard::new(SHARD, Arc::new(self.clone()), Arc::new(self.clone()), clock.clone(), Echo)
    }

    fn row(&self) -> Assignment {
        self.world().row.unwrap()
    }
}

#[async_trait]
impl Store for Scripted {
    async fn read(&self, _: &'static Statement, _: Rows) -> Result<Vec<Row>, StoreError> {
        Ok(Vec::new())
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        let mut world = self.world();
        let first = Assignment {
            shard,
            epoch: 0,
            positions: Positions::default(),
            next_seq: 1,
            next_outbox_seq: 1,
            published_seq: 1,
        };
        let row = world.row.unwrap_or(first);
        let row = Assignment { epoch: row.epoch + 1, ..row };
        world.row = Some(row);
        Ok(row)
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        let mut world = self.world();
        for fence in &commit.fences {
            if world.row != Some(fence.before) {
                return Err(CommitError::Fenced(fence.before.shard));
            }
            let numbered = fence.next_outbox_seq - fence.before.next_outbox_seq;
            let messages = commit.messages.iter().map(Parcel::len).sum::<usize>();
            assert_eq!(numbered, messages as i64, "each message has one number");
            world.row = Some(fence.after());
        }
        world.outbox.extend(commit.messages.iter().flat_map(Parcel::messages));
        world.dead_letters.extend(commit.dead_letters);
        world.commits += 1;
        Ok(Vec::new())
    }

    async fn outgoing(&self, _: ShardId, from: i64, limit: usize) -> Result<Vec<(i64, Outgoing)>, StoreError> {
        let mut world = self.world();
        let numbered = (1..).zip(world.outbox.iter().cloned());
        let page: Vec<_> = numbered.skip_while(|(seq, _)| *seq < from).take(limit).collect();
        world.pages.push(page.len());
        Ok(page)
    }

    fn partitions(&self) -> u16 {
        4
    }
}

#[async_trait]
impl Bus for Scripted {
    async fn produce(&self, _: Vec<Outgoing>) -> Result<(), BusError> {
        unreachable!("shards publish through their relay")
    }

    fn consumer(&self, _: Topic, _: u16, position: i64) -> Box<dyn Consumer> {
        Box::new(Inbox { world: self.clone(), position: position as usize })
    }

    fn relay(&self, _: ShardId, published_seq: i64) -> Option<Box<dyn Relay>> {
        let mut world = self.world();
        world.acknowledged = published_seq;
        world.broken = false;
        drop(world);
        Some(Box::new(Carrier(self.clone())))
    }
}

struct Inbox {
    world: Scripted,
    position: usize,
}

#[async_trait]
impl Consumer for Inbox {
    async fn take(&mut self, limit: usize) -> Result<Vec<Delivered>, StoreError> {
        let mut world = self.world.world();
        let published = world.published.len();
        world.published_before_consuming.get_or_insert(published);
        let taken: Vec<_> = world.inbox.iter().skip(self.position).take(limit).cloned().collect();
        self.position += taken.len();
        Ok(taken)
    }

    fn at_end(&self) -> bool {
        self.position >= self.world.world().inbox.len()
    }

    async fn ready(&mut self) {}
}

struct Carrier(Scripted);

#[async_trait]
impl Relay for Carrier {
    fn fits(&self, envelope: &Envelope, _: usize) -> Result<(), String> {
        if item(envelope) == "13" { Err("13 bytes are too many".to_owned()) } else { Ok(()) }
    }

    async fn publish(&mut self, first_seq: i64, parcels: Vec<Parcel>) -> Result<(), RelayError> {
        let stuck = self.0.world().stuck.clone();
        if let Some(tried) = stuck {
            tried.cancel();
            std::future::pending::<()>().await;
        }
        let mut world = self.0.world();
        if world.broken {
            return Err(RelayError("the producer is dead".to_owned()));
        }
        world
            .published
            .extend((first_seq..).zip(parcels.iter().flat_map(Parcel::envelopes).map(|envelope| item(envelope))));
        Ok(())
    }

    fn published(&self) -> Result<i64, RelayError> {
        let world = self.0.world();
        if world.broken { Err(RelayError("the producer is dead".to_owned())) } else { Ok(world.acknowledged) }
    }
}

/// Sends as many messages as a record says, alternating between two partitions.
struct Echo;

impl Handler for Echo {
    fn topics(&self) -> &'static [Topic] {
        &[Topic::Commands]
    }
    fn room(&self, _: Topic) -> usize {
        1
    }
    async fn assigned(&mut self, _: &Assignment) -> Result<(), StoreError> {
        Ok(())
    }
    async fn decide(&mut self, batch: &Batch) -> Result<Outcome, DecideError> {
        let wanted = batch.messages.iter().map(|(_, envelope)| item(envelope).parse::<usize>().unwrap());
        let messages = wanted.flat_map(|count| {
            (0..count).map(move |n| Outgoing { partition: (n % 2) as u16, ..send(&count.to_string()) })
        });
        Ok(Outcome { messages: messages.collect(), ..Outcome::default() })
    }
    fn committed(&mut self) {}
    fn rolled_back(&mut self) {}
    fn due_ms(&self) -> Option<i64> {
        None
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(1_000_000))
}

#[tokio::test]
async fn what_was_acknowledged_rides_in_the_next_batch() {
    let (world, clock) = (Scripted::default(), clock());
    let mut shard = world.shard(&clock);
    world.arrives(3);
    assert_eq!(shard.turn().await, Turn::Worked);
    assert_eq!((world.row().next_outbox_seq, world.row().published_seq), (4, 1));
    assert_eq!(world.world().published.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 2, 3]);
    world.world().acknowledged = 3;
    world.arrives(1);
    assert_eq!(shard.turn().await, Turn::Worked);
    assert_eq!((world.row().next_outbox_seq, world.row().published_seq), (5, 3));
}

#[tokio::test]
async fn z19_an_idle_shard_saves_its_mark_after_a_second_and_only_once() {
    let (world, clock) = (Scripted::default(), clock());
    let mut shard = world.shard(&clock);
    world.arrives(2);
    assert_eq!(shard.turn().await, Turn::Worked);
    world.world().acknowledged = 3;
    assert_eq!(shard.turn().await, Turn::Idle);
    assert_eq!(world.row().published_seq, 1, "not yet: work may come that saves it for free");
    clock.advance(1_000);
    shard.turn().await;
    assert_eq!((world.row().published_seq, world.world().commits), (3, 2));
    clock.advance(5_000);
    assert_eq!(shard.turn().await, Turn::Idle);
    assert_eq!(world.world().commits, 2, "nothing new, nothing written");
}

#[tokio::test]
async fn a_partition_that_takes_nothing_keeps_no_shard_from_being_handed_over() {
    let (world, clock) = (Scripted::default(), clock());
    // In the batch that it is working on, then when it is just assigned.
    for records in [1, 0] {
        let stop = CancellationToken::new();
        world.world().stuck = Some(stop.clone());
        (0..records).for_each(|_| world.arrives(2));
        world.shard(&clock).run(stop).await;
        assert_eq!((world.row().next_outbox_seq, world.world().published.len()), (3, 0), "it is committed");
    }
    world.world().stuck = None;
    world.shard(&clock).turn().await;
    assert_eq!(world.world().published.len(), 2, "the next owner publishes it");
}

#[tokio::test]
async fn z20_a_new_owner_publishes_the_rest_in_pages_before_it_consumes() {
    let (world, clock) = (Scripted::default(), clock());
    let mut first = world.shard(&clock);
    world.arrives(2_500);
    assert_eq!(first.turn().await, Turn::Worked);
    world.world().acknowledged = 101;
    world.arrives(1);
    assert_eq!(first.turn().await, Turn::Worked);
    drop(first);
    {
        let mut world = world.world();
        world.published.clear();
        world.published_before_consuming = None;
    }
    world.arrives(1);
    assert_eq!(world.shard(&clock).turn().await, Turn::Worked);
    let seen = world.world();
    assert_eq!(seen.pages, [1_000, 1_000, 401]);
    assert_eq!(seen.published_before_consuming, Some(2_401), "all above the mark, before the first record");
    assert!(seen.published.iter().map(|(seq, _)| *seq).eq(101..=2_502), "in order, each once");
}

#[tokio::test]
async fn a_dead_producer_means_a_new_assignment_that_publishes_again() {
    let (world, clock) = (Scripted::default(), clock());
    let mut shard = world.shard(&clock);
    world.arrives(2);
    assert_eq!(shard.turn().await, Turn::Worked);
    world.world().broken = true;
    assert!(matches!(shard.turn().await, Turn::Wait(_)), "also an idle shard notices");
    assert_eq!(shard.turn().await, Turn::Idle);
    assert_eq!(world.row().epoch, 2);
    let numbers: Vec<_> = world.world().published.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(numbers, [1, 2, 1, 2]);
}

#[tokio::test]
async fn z10_a_message_that_no_broker_takes_never_reaches_the_outbox() {
    let (world, clock) = (Scripted::default(), clock());
    let mut shard = world.shard(&clock);
    for count in [1, 13, 2] {
        world.arrives(count);
    }
    while shard.turn().await != Turn::Idle {}
    let seen = world.world();
    let sent = seen.outbox.iter().filter(|message| message.topic == Topic::Commands).count();
    assert_eq!(sent, 3, "its neighbours are sent");
    let reasons: VecDeque<_> = seen.dead_letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, ["13 bytes are too many"]);
}
