//! Events of other teams, read in topics of theirs: each becomes the inputs that it means, in `start` and `progress`, and
//! the position behind it is kept in the database once the broker has them.
//!
//! There is no transaction over both. A record that was read and not yet kept is read again, by this process or by the
//! next owner of its partition, and gives the same inputs under the same ids: an event's id is its source and id, a
//! start's saga is derived from them. So what comes twice changes nothing, and who owns a partition need not be fenced.

mod inputs;
mod position;

pub(crate) use inputs::EVENT_ID;
pub use inputs::{Fault, inputs_of};
pub(crate) use position::STATEMENTS;

use crate::gateway::Gateway;
use endstate_events::{Envelope, ForeignTopic, Message, Topic};
use endstate_outbox::dead_letter::{self, DeadLetter};
use endstate_outbox::metric::Metric;
use endstate_outbox::{Alert, BusError, Commit, Consumer, Delivered, Outgoing, StoreError, alert};
use futures_util::FutureExt as _;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Records that are taken at once.
const BATCH: usize = 256;

/// Pause before something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How often events wait for the sagas that they name, all of a batch together: their starts may be on their way.
const LOOKS: u32 = 10;

/// Records that were taken at once, and what has become of them.
struct Heard<'a> {
    partition: u16,
    taken: &'a [Delivered],
    /// What they mean, by their place among those taken.
    queued: Vec<(usize, Vec<Outgoing>)>,
    letters: Vec<DeadLetter>,
}

/// The saga that an event is for, as it names it.
fn subject_of(record: &Delivered) -> Option<&str> {
    match &record.envelope.as_ref().ok()?.message {
        Message::Foreign(event) => event.subject.as_deref(),
        _ => None,
    }
}

/// One topic that is listened to.
#[derive(Clone)]
pub struct Listener {
    gateway: Gateway,
    topic: ForeignTopic,
    /// The participant that speaks there; none: nobody who is in a catalogue.
    teller: Option<Arc<str>>,
    /// Whether it begins at the oldest record where nothing was read before; else at the end that the topic had then.
    from_beginning: bool,
}

impl Listener {
    /// Listens to `topic`. Events of a participant are taken only where `teller` names it.
    #[must_use]
    pub fn new(gateway: Gateway, topic: ForeignTopic, teller: Option<String>, from_beginning: bool) -> Self {
        Self { gateway, topic, teller: teller.map(Into::into), from_beginning }
    }

    /// Listens to the partitions that this process owns, as that changes, until it is stopped.
    pub async fn run(self, mut owned: watch::Receiver<BTreeSet<u16>>, stop: CancellationToken) {
        let mut running: BTreeMap<u16, (CancellationToken, JoinHandle<()>)> = BTreeMap::new();
        while !stop.is_cancelled() {
            let wanted = owned.borrow_and_update().clone();
            running.retain(|partition, (stop, _)| {
                let stays = wanted.contains(partition);
                if !stays {
                    stop.cancel();
                }
                stays
            });
            for partition in wanted {
                running.entry(partition).or_insert_with(|| {
                    let stop = stop.child_token();
                    (stop.clone(), tokio::spawn(self.clone().follow(partition, stop)))
                });
            }
            tokio::select! {
                changed = owned.changed() => if changed.is_err() { stop.cancelled().await },
                () = stop.cancelled() => {}
            }
        }
        for (_, (_, task)) in running {
            task.await.ok();
        }
    }

    /// Reads one partition; whatever goes wrong, it begins again where the database says.
    async fn follow(self, partition: u16, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                ended = AssertUnwindSafe(self.read(partition)).catch_unwind() => {
                    let reason = match ended {
                        Ok(Err(reason)) => reason,
                        // Nobody else reads it as long as it is ours.
                        Err(_) => "reading it panicked".to_owned(),
                    };
                    tracing::warn!(topic = self.topic.name(), partition, reason, "events of another team are read again");
                }
                () = stop.cancelled() => return,
            }
            stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
        }
    }

    async fn read(&self, partition: u16) -> Result<std::convert::Infallible, String> {
        let text = |error: StoreError| error.to_string();
        let (store, bus) = (&**self.gateway.store(), self.gateway.bus());
        let position = match position::load(store, self.topic, partition).await.map_err(text)? {
            Some(position) => position,
            None => {
                let failed = |error: BusError| error.to_string();
                let width = bus.reach(self.topic, None).await.map_err(failed)?;
                // What was added since is new from its first record on.
                let added = i64::from(partition) >= position::first_width(store, self.topic, width).await?;
                let (low, high) = bus.edges(self.topic, partition).await.map_err(failed)?;
                let position = if self.from_beginning || added { low } else { high };
                position::save(store, self.topic, partition, position).await.map_err(|error| error.to_string())?;
                position
            }
        };
        let mut consumer = bus.consumer(Topic::Foreign(self.topic), partition, position);
        loop {
            consumer.ready().await;
            self.take(&mut *consumer, partition).await?;
        }
    }

    /// Takes what is ready, queues what it means, and keeps the position behind it.
    async fn take(&self, consumer: &mut dyn Consumer, partition: u16) -> Result<(), String> {
        let taken = match consumer.take(BATCH).await {
            Ok(taken) => taken,
            Err(error) => {
                self.tell_lost(partition, &error).await;
                return Err(error.to_string());
            }
        };
        let Some(last) = taken.last().map(|record| record.offset) else { return Ok(()) };
        let mut batch = Heard { partition, taken: &taken, queued: Vec::new(), letters: Vec::new() };
        let mut caught_up = false;
        let mut waiting = self.go_through(&mut batch, (0..taken.len()).collect(), &mut caught_up).await?;
        // The starts of those that wait may be among what was just read: nothing comes of that before it is queued. They wait
        // together, so that a batch waits once, however many they are.
        for _ in 0..LOOKS {
            self.queue(&mut batch).await?;
            if waiting.is_empty() {
                break;
            }
            tokio::time::sleep(AGAIN / 2).await;
            let indices = waiting.into_iter().map(|(index, _)| index).collect();
            waiting = self.go_through(&mut batch, indices, &mut caught_up).await?;
        }
        self.queue(&mut batch).await?;
        for (index, reason) in waiting {
            batch.letters.push(self.letter(partition, &taken[index], &reason));
            Metric::ForeignEvents.add(1, &["refused"]);
        }
        self.put_aside(batch.letters).await?;
        let store = &**self.gateway.store();
        position::save(store, self.topic, partition, last + 1).await.map_err(|error| error.to_string())
    }

    /// Hears those of the batch's records, in their order. Returns those whose saga is not there, and why; what else is for that
    /// saga stays behind them.
    async fn go_through(
        &self,
        batch: &mut Heard<'_>,
        indices: Vec<usize>,
        caught_up: &mut bool,
    ) -> Result<Vec<(usize, String)>, String> {
        let mut waiting = Vec::new();
        let mut absent: FxHashMap<&str, String> = FxHashMap::default();
        for index in indices {
            let record = &batch.taken[index];
            let subject = subject_of(record);
            if let Some(reason) = subject.and_then(|subject| absent.get(subject)) {
                waiting.push((index, reason.clone()));
                continue;
            }
            let mut heard = self.heard(record).await;
            // Another process may have loaded a moment ago what has a use for it. Once is enough for all: they were taken
            // before.
            if matches!(&heard, Ok(inputs) if inputs.is_empty()) && !std::mem::replace(caught_up, true) {
                self.gateway.definitions().catch_up().await.map_err(|error| error.to_string())?;
                heard = self.heard(record).await;
            }
            let outcome = match heard {
                Ok(inputs) if inputs.is_empty() => "ignored",
                Ok(inputs) => {
                    batch.queued.push((index, inputs));
                    "taken"
                }
                Err(Fault::NoSaga(reason)) => {
                    absent.extend(subject.map(|subject| (subject, reason.clone())));
                    waiting.push((index, reason));
                    continue;
                }
                Err(Fault::Refused(reason)) => {
                    batch.letters.push(self.letter(batch.partition, record, &reason));
                    "refused"
                }
                Err(Fault::Passing(reason)) => return Err(reason),
            };
            Metric::ForeignEvents.add(1, &[outcome]);
        }
        Ok(waiting)
    }

    /// What a record means.
    async fn heard(&self, record: &Delivered) -> Result<Vec<Outgoing>, Fault> {
        match &record.envelope {
            Ok(envelope) => inputs_of(&self.gateway, &self.spoken(envelope)).await,
            Err(unreadable) => Err(Fault::Refused(unreadable.reason.clone())),
        }
    }

    /// Queues what was heard. What the bus can never take goes to the dead letters, and nothing else with it.
    async fn queue(&self, batch: &mut Heard<'_>) -> Result<(), String> {
        let queued = std::mem::take(&mut batch.queued);
        if queued.is_empty() {
            return Ok(());
        }
        let all = queued.iter().flat_map(|(_, messages)| messages.iter().cloned()).collect();
        match self.gateway.bus().produce(all).await {
            Ok(()) => return Ok(()),
            Err(BusError::Refused(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
        for (index, messages) in queued {
            match self.gateway.bus().produce(messages).await {
                Ok(()) => {}
                Err(BusError::Refused(reason)) => {
                    batch.letters.push(self.letter(batch.partition, &batch.taken[index], &reason));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// The event with who speaks in this topic.
    fn spoken(&self, envelope: &Envelope) -> Envelope {
        let mut envelope = envelope.clone();
        if let Message::Foreign(event) = &mut envelope.message {
            event.teller = self.teller.as_deref().map(str::to_owned);
        }
        envelope
    }

    fn letter(&self, partition: u16, record: &Delivered, reason: &str) -> DeadLetter {
        let bytes = match &record.envelope {
            Ok(envelope) => serde_json::to_string(&self.spoken(envelope)).unwrap_or_default(),
            Err(unreadable) => unreadable.bytes.clone(),
        };
        let place = (partition, record.offset);
        DeadLetter::new(Topic::Foreign(self.topic), place, &bytes, reason, self.gateway.clock().now_ms())
    }

    async fn put_aside(&self, letters: Vec<DeadLetter>) -> Result<(), String> {
        if letters.is_empty() {
            return Ok(());
        }
        let told = |letter: &DeadLetter| {
            let DeadLetter { partition, offset, reason, time_ms, .. } = letter;
            let name = self.topic.name();
            tracing::error!(topic = name, partition, offset, reason, "E4032: an event goes to the dead letters");
            let text = format!("an event in {name}/{partition} at {offset} went to the dead letters: {reason}");
            Alert::new("dead_letter", &[&name, partition, offset, &letter.mark()], text, *time_ms)
        };
        let alerts: Vec<Alert> = letters.iter().map(told).collect();
        let partitions = self.gateway.store().partitions();
        let copies = letters.iter().map(|letter| dead_letter::copy(letter, partitions)).collect();
        match self.gateway.bus().produce(copies).await {
            // The letter itself is in the table.
            Ok(()) | Err(BusError::Refused(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
        let commit =
            Commit { dead_letters: letters, writes: alert::write(&alerts).into_iter().collect(), ..Commit::default() };
        self.gateway.store().commit(commit).await.map(drop).map_err(|error| error.to_string())
    }

    async fn tell_lost(&self, partition: u16, error: &StoreError) {
        let StoreError::Lost { offset, .. } = error else { return };
        let alert = Alert::new(
            "events",
            &[&self.topic.name(), &partition, offset],
            error.to_string(),
            self.gateway.clock().now_ms(),
        );
        let commit = Commit { writes: alert::write(&[alert]).into_iter().collect(), ..Commit::default() };
        if let Err(error) = self.gateway.store().commit(commit).await {
            tracing::warn!(%error, "the alert about a topic was not written; the next try writes it");
        }
    }
}
