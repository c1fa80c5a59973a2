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
use endstate_outbox::{Alert, Commit, Consumer, Delivered, Outgoing, StoreError, alert};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Records that are taken at once.
const BATCH: usize = 256;

/// Pause before something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How often an event waits for the saga that it names: the saga's start may be on its way.
const LOOKS: u32 = 10;

/// One topic that is listened to.
#[derive(Clone)]
pub struct Listener {
    gateway: Gateway,
    topic: ForeignTopic,
    /// The participant that speaks there; none: nobody who is in a catalogue.
    teller: Option<Arc<str>>,
    /// Whether it begins at the oldest record where nothing was read before.
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
                ended = self.read(partition) => {
                    let Err(reason) = ended;
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
                let (low, high) = bus.edges(self.topic, partition).await.map_err(|error| error.to_string())?;
                let position = if self.from_beginning { low } else { high };
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
        let (mut queued, mut letters) = (Vec::new(), Vec::new());
        for record in &taken {
            let outcome = match self.heard(record, &mut queued).await? {
                Ok(inputs) if inputs.is_empty() => "ignored",
                Ok(inputs) => {
                    queued.extend(inputs);
                    "taken"
                }
                Err(reason) => {
                    letters.push(self.letter(partition, record, reason));
                    "refused"
                }
            };
            Metric::ForeignEvents.add(1, &[outcome]);
        }
        self.produce(queued).await?;
        self.put_aside(letters).await?;
        let store = &**self.gateway.store();
        position::save(store, self.topic, partition, last + 1).await.map_err(|error| error.to_string())
    }

    /// What a record means; inside, why it goes to the dead letters.
    async fn heard(
        &self,
        record: &Delivered,
        queued: &mut Vec<Outgoing>,
    ) -> Result<Result<Vec<Outgoing>, String>, String> {
        let envelope = match &record.envelope {
            Ok(envelope) => self.spoken(envelope),
            Err(unreadable) => return Ok(Err(unreadable.reason.clone())),
        };
        let mut looks = 0;
        loop {
            match inputs_of(&self.gateway, &envelope).await {
                Ok(inputs) => return Ok(Ok(inputs)),
                // Its start may be among what was just read: nothing comes of that before it is queued.
                Err(Fault::NoSaga(_)) if looks < LOOKS => {
                    looks += 1;
                    self.produce(std::mem::take(queued)).await?;
                    tokio::time::sleep(AGAIN / 2).await;
                }
                Err(Fault::NoSaga(reason) | Fault::Refused(reason)) => return Ok(Err(reason)),
                Err(Fault::Passing(reason)) => return Err(reason),
            }
        }
    }

    /// The event with who speaks in this topic.
    fn spoken(&self, envelope: &Envelope) -> Envelope {
        let mut envelope = envelope.clone();
        if let Message::Foreign(event) = &mut envelope.message {
            event.teller = self.teller.as_deref().map(str::to_owned);
        }
        envelope
    }

    async fn produce(&self, messages: Vec<Outgoing>) -> Result<(), String> {
        self.gateway.bus().produce(messages).await.map_err(|error| error.to_string())
    }

    fn letter(&self, partition: u16, record: &Delivered, reason: String) -> DeadLetter {
        let bytes = match &record.envelope {
            Ok(envelope) => serde_json::to_string(&self.spoken(envelope)).unwrap_or_default(),
            Err(unreadable) => unreadable.bytes.clone(),
        };
        let (topic, offset, time_ms) = (Topic::Foreign(self.topic), record.offset, self.gateway.clock().now_ms());
        // A NUL can be refused by a database's text type; the letter must always fit.
        let [bytes, reason] = [bytes, reason].map(|text| text.replace('\0', "\\u0000"));
        DeadLetter { topic, partition, offset, bytes, reason, time_ms }
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
            Alert::new("dead_letter", &[&name, partition, offset], text, *time_ms)
        };
        let alerts: Vec<Alert> = letters.iter().map(told).collect();
        let partitions = self.gateway.store().partitions();
        let copies = letters.iter().map(|letter| dead_letter::copy(letter, partitions)).collect();
        self.produce(copies).await?;
        let commit =
            Commit { dead_letters: letters, writes: alert::write(&alerts).into_iter().collect(), ..Commit::default() };
        self.gateway.store().commit(commit).await.map(drop).map_err(|error| error.to_string())
    }

    async fn tell_lost(&self, partition: u16, error: &StoreError) {
        let StoreError::Lost { position, .. } = error else { return };
        let alert = Alert::new(
            "events",
            &[&self.topic.name(), &partition, position],
            error.to_string(),
            self.gateway.clock().now_ms(),
        );
        let commit = Commit { writes: alert::write(&[alert]).into_iter().collect(), ..Commit::default() };
        if let Err(error) = self.gateway.store().commit(commit).await {
            tracing::warn!(%error, "the alert about a topic was not written; the next try writes it");
        }
    }
}
