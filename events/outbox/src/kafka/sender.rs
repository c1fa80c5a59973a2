//! The producers of a process: idempotent, acknowledged by all copies, explicit partitions. Shards hand them what they
//! have committed; callers wait for their messages' acknowledgements. Each kind of topic has a queue of its own.

use super::metric;
use super::settings::{ANSWER, CALL, KafkaSettings};
use super::topics::Names;
use super::window::{Place, Window};
use super::wire::{self, Outbound};
use crate::bus::{BusError, Outgoing, Relay, RelayError};
use crate::metric::Metric;
use crate::parcel::Parcel;
use async_trait::async_trait;
use endstate_events::{Envelope, Topic};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::statistics::{Broker, Statistics};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Pause while the producer's queue is full.
const FULL: Duration = Duration::from_millis(5);

/// Sends records, and learns what became of them.
pub(super) struct Sender {
    settings: KafkaSettings,
    names: Names,
    /// One for each kind of topic, made when it is needed first.
    producers: Mutex<[Option<Arc<ThreadedProducer<Reports>>>; 3]>,
    sent: Arc<Sent>,
    /// How long callers wait.
    patience: Duration,
    stop: CancellationToken,
}

/// What was sent since the bus was opened.
#[derive(Debug, Default)]
pub struct Sent {
    acknowledged: AtomicU64,
    /// Records and requests of each producer as its statistics told them last: both are of the same moment.
    told: Mutex<[(u64, u64); 3]>,
}

impl Sent {
    /// Records that the broker has acknowledged.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Records per request, and so per batch, because a request carries one; none before the first statistics.
    #[must_use]
    pub fn records_per_batch(&self) -> Option<f64> {
        let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let own = told[Kind::Ours as usize..=Kind::Others as usize].iter();
        let (records, requests) = own.fold((0, 0), |(records, requests), told| (records + told.0, requests + told.1));
        (requests > 0).then(|| records as f64 / requests as f64)
    }
}

/// What becomes of a record, and so which producer takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A shard reads it: every step of a saga waits for it.
    Ours,
    /// Others read it, and no saga waits.
    Others,
    /// It is for a topic of another team.
    Foreign,
}

impl Kind {
    fn of(topic: Topic) -> Self {
        match topic {
            Topic::Start | Topic::Progress | Topic::Commands => Self::Ours,
            Topic::Events | Topic::DeadLetters => Self::Others,
            Topic::Foreign(_) => Self::Foreign,
        }
    }

    /// Names its producer in metrics and in the log.
    fn label(self) -> &'static str {
        match self {
            Self::Ours => "producer_ours",
            Self::Others => "producer_others",
            Self::Foreign => "producer_foreign",
        }
    }

    fn settings(self, settings: &KafkaSettings) -> ClientConfig {
        match self {
            Self::Ours => settings.producer(),
            Self::Others => settings.producer_for_others(),
            Self::Foreign => settings.foreign_producer(),
        }
    }
}

/// Whom a delivery report is for.
pub(super) enum Ticket {
    /// Messages of a shard's outbox, numbered from `seq` on.
    Committed { window: Arc<Window>, seq: i64, count: usize, place: Place, handed: Instant },
    /// One of them, to a topic of another team.
    Foreign { window: Arc<Window>, seq: i64, place: Place },
    /// Messages that somebody waits for.
    Call(Arc<Call>),
}

/// Records that were queued together, and how many of them are unacknowledged.
pub(super) struct Call {
    open: AtomicUsize,
    failure: Mutex<Option<String>>,
    done: Notify,
}

impl Call {
    fn of(count: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(count), failure: Mutex::default(), done: Notify::new() })
    }

    fn report(&self, failure: Option<String>) {
        if let Some(reason) = failure {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        }
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    async fn answered(&self) -> Result<(), String> {
        self.done.notified().await;
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }
}

/// What the producer tells.
pub(super) struct Reports {
    /// Set when this producer can never send again.
    dead: AtomicBool,
    kind: Kind,
    sent: Arc<Sent>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        metric::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::Fatal)) {
            self.dead.store(true, Ordering::Release);
            let producer = self.kind.label();
            tracing::error!(%error, producer, reason, "E4064: a producer is dead; a new one takes its place");
        } else {
            metric::trouble(self.kind.label(), &error, reason);
        }
    }

    fn stats(&self, statistics: Statistics) {
        metric::producer(self.kind.label(), &statistics);
        let requests = |broker: &Broker| broker.req.get("Produce").copied().unwrap_or(0);
        let requests: i64 = statistics.brokers.values().map(requests).sum();
        let told = (statistics.txmsgs, requests);
        self.sent.told.lock().unwrap_or_else(PoisonError::into_inner)[self.kind as usize] =
            (u64::try_from(told.0).unwrap_or(0), u64::try_from(told.1).unwrap_or(0));
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let failure = result.as_ref().err().map(|(error, _)| error.to_string());
        let is_counted = failure.is_none() && self.kind != Kind::Foreign;
        self.sent.acknowledged.fetch_add(u64::from(is_counted), Ordering::Relaxed);
        match *ticket {
            Ticket::Committed { window, seq, count, place, handed } => match failure {
                None => {
                    Metric::PublishDelay.time(handed.elapsed(), &[place.0.label()]);
                    window.acknowledged(seq, count, place);
                }
                Some(reason) => window.failed(reason),
            },
            Ticket::Foreign { window, seq, place } => {
                if let Some(reason) = failure {
                    lost(place.0, &reason);
                }
                window.acknowledged(seq, 1, place);
            }
            Ticket::Call(call) => call.report(failure),
        }
    }
}

impl Sender {
    pub(super) fn new(settings: &KafkaSettings, stop: CancellationToken) -> Result<Arc<Self>, KafkaError> {
        let names = Names::of(&settings.environment);
        let (producers, sent) = (Mutex::default(), Arc::default());
        let sender = Self { settings: settings.clone(), names, producers, sent, patience: CALL, stop };
        // What is wrong with the settings shows at once.
        sender.producer(Kind::Ours)?;
        Ok(Arc::new(sender))
    }

    pub(super) fn sent(&self) -> &Sent {
        &self.sent
    }

    /// Queues messages and waits until all copies have them, but not for ever: what is given up may still arrive.
    pub(super) async fn produce(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        if messages.is_empty() {
            return Ok(());
        }
        let parcels = Parcel::pack(messages, wire::fits).map_err(BusError::Refused)?;
        let called = tokio::time::timeout(self.patience, self.call(&parcels)).await;
        called.unwrap_or_else(|_| Err(BusError::Unacknowledged(format!("no acknowledgement in {:?}", self.patience))))
    }

    async fn call(&self, parcels: &[Parcel]) -> Result<(), BusError> {
        let records = |parcel: &Parcel| if wire::is_whole(parcel.topic) { 1 } else { parcel.len() };
        let call = Call::of(parcels.iter().map(records).sum());
        let sent = |sent: Result<(), String>| sent.err().into_iter().for_each(|reason| call.report(Some(reason)));
        for parcel in parcels {
            let ticket = || Ticket::Call(Arc::clone(&call));
            if wire::is_whole(parcel.topic) {
                sent(self.send_whole(parcel, ticket()).await);
                continue;
            }
            for envelope in parcel.envelopes() {
                sent(self.send_one((parcel.topic, parcel.partition), envelope, ticket()).await);
            }
        }
        call.answered().await.map_err(BusError::Unacknowledged)
    }

    /// A parcel as one record.
    async fn send_whole(&self, parcel: &Parcel, ticket: Ticket) -> Result<(), String> {
        let outbound = Outbound::whole(parcel, &self.settings.environment);
        self.send((parcel.topic, parcel.partition), outbound, ticket).await
    }

    /// One message as one record.
    async fn send_one(&self, place: Place, envelope: &Envelope, ticket: Ticket) -> Result<(), String> {
        let outbound = Outbound::one(place.0, envelope, &self.settings.environment);
        self.send(place, outbound.map_err(|error| error.to_string())?, ticket).await
    }

    /// Hands a record to the producer; waits while its queue is full.
    async fn send(&self, (topic, partition): Place, outbound: Outbound<'_>, ticket: Ticket) -> Result<(), String> {
        let Outbound { key, body, headers } = outbound;
        let mut record = BaseRecord::<str, [u8], _>::with_opaque_to(self.names.get(topic), Box::new(ticket))
            .payload(&*body)
            .headers(headers);
        if let Some(key) = key {
            record = record.key(key);
        }
        let kind = Kind::of(topic);
        if kind != Kind::Foreign {
            record = record.partition(i32::from(partition));
        }
        loop {
            match self.producer(kind).map_err(|error| error.to_string())?.send(record) {
                Ok(()) => return Ok(()),
                // Where nobody waits for room, none is waited for.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if kind != Kind::Foreign => {
                    record = back;
                }
                Err((error, _)) => return Err(error.to_string()),
            }
            tokio::select! {
                () = tokio::time::sleep(FULL) => {}
                () = self.stop.cancelled() => return Err("the bus is closing".to_owned()),
            }
        }
    }

    /// The producer of a kind; a new one when the last is dead.
    fn producer(&self, kind: Kind) -> Result<Arc<ThreadedProducer<Reports>>, KafkaError> {
        use rdkafka::config::FromClientConfigAndContext as _;
        let current = &mut self.lock()[kind as usize];
        match current {
            Some(known) if !known.context().dead.load(Ordering::Acquire) => Ok(Arc::clone(known)),
            _ => {
                let reports = Reports { dead: AtomicBool::new(false), kind, sent: Arc::clone(&self.sent) };
                let made = ThreadedProducer::from_config_and_context(&kind.settings(&self.settings), reports)?;
                Ok(Arc::clone(current.insert(Arc::new(made))))
            }
        }
    }

    /// Waits until everything that was handed over is acknowledged, but not for ever. What is for other teams is not
    /// waited for.
    pub(super) fn flush(&self) {
        let [ours, others, _] = self.lock().clone();
        for producer in [others, ours].into_iter().flatten() {
            if let Err(error) = producer.flush(ANSWER) {
                tracing::warn!(%error, "not everything was acknowledged; the next owner publishes it again");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, [Option<Arc<ThreadedProducer<Reports>>>; 3]> {
        self.producers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries the messages of one assignment.
pub(super) struct Carrier {
    sender: Arc<Sender>,
    window: Arc<Window>,
}

impl Carrier {
    pub(super) fn new(sender: Arc<Sender>, published_seq: i64) -> Self {
        Self { sender, window: Arc::new(Window::from(published_seq)) }
    }
}

impl Carrier {
    /// Hands over a message to another team. Nobody waits for their topic: what does not get there is a command that was
    /// not answered, which its saga asks about and sends again (Z10).
    async fn offer(&self, seq: i64, place: Place, envelope: &Envelope) -> Result<(), RelayError> {
        if !self.window.enter_or_pass(seq, place)? {
            lost(place.0, "too much is on its way there");
            return Ok(());
        }
        let window = Arc::clone(&self.window);
        if let Err(reason) = self.sender.send_one(place, envelope, Ticket::Foreign { window, seq, place }).await {
            lost(place.0, &reason);
            self.window.acknowledged(seq, 1, place);
        }
        Ok(())
    }

    /// Waits for room for some messages.
    async fn enter(&self, seq: i64, count: usize, place: Place) -> Result<Ticket, RelayError> {
        tokio::select! {
            entered = self.window.enter(seq, count, place) => entered?,
            () = self.sender.stop.cancelled() => return Err(RelayError("the bus is closing".to_owned())),
        }
        Ok(Ticket::Committed { window: Arc::clone(&self.window), seq, count, place, handed: Instant::now() })
    }
}

/// A message that did not reach a topic of another team.
fn lost(topic: Topic, reason: &str) {
    Metric::LostCommands.add(1, &[]);
    tracing::warn!(topic = topic.label(), reason, "E4065: a command did not reach a topic of another team");
}

#[async_trait]
impl Relay for Carrier {
    fn fits(&self, envelope: &Envelope, bytes: usize) -> Result<(), String> {
        wire::fits(envelope, bytes)
    }

    async fn publish(&mut self, first_seq: i64, parcels: Vec<Parcel>) -> Result<(), RelayError> {
        let mut next_seq = first_seq;
        for parcel in &parcels {
            let (seq, count, place) = (next_seq, parcel.len(), (parcel.topic, parcel.partition));
            next_seq += count as i64;
            if wire::is_whole(parcel.topic) {
                let ticket = self.enter(seq, count, place).await?;
                self.sender.send_whole(parcel, ticket).await.map_err(RelayError)?;
                continue;
            }
            for (seq, envelope) in (seq..).zip(parcel.envelopes()) {
                if let Topic::Foreign(_) = parcel.topic {
                    self.offer(seq, place, envelope).await?;
                    continue;
                }
                let ticket = self.enter(seq, 1, place).await?;
                self.sender.send_one(place, envelope, ticket).await.map_err(RelayError)?;
            }
        }
        Ok(())
    }

    fn published(&self) -> Result<i64, RelayError> {
        self.window.mark()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use endstate_events::{InquiryAnswer, Lane, Message, SCHEMA_VERSION};
    use rdkafka::mocking::MockCluster;

    fn message() -> Outgoing {
        let effect_id = "0193a0b2-7c00-8abc-9def-0123456789ab:hold:line-1:do:0".parse().unwrap();
        let message = Message::Inquired(InquiryAnswer { effect_id, keep: true, known: true });
        let (id, key, lane) = ("i".to_owned(), "k".to_owned(), Lane::Live);
        let envelope = Envelope { id, schema: SCHEMA_VERSION, time_ms: 0, key, lane, message };
        Outgoing { topic: Topic::Commands, partition: 0, envelope: envelope.into() }
    }

    #[tokio::test]
    async fn z10_a_partition_that_takes_nothing_costs_a_caller_his_answer_and_a_shard_nothing() {
        let cluster = MockCluster::new(1).unwrap();
        let settings = KafkaSettings::of_test(&cluster.bootstrap_servers(), 1);
        let name = Topic::Commands.name(&settings.environment);
        cluster.create_topic(&name, 1, 1).unwrap();
        cluster.partition_leader(&name, 0, None).unwrap();
        let mut sender = Sender::new(&settings, CancellationToken::new()).unwrap();
        Arc::get_mut(&mut sender).unwrap().patience = Duration::from_millis(200);
        let mut carrier = Carrier::new(Arc::clone(&sender), 7);
        carrier.publish(7, Parcel::pack(vec![message()], wire::fits).unwrap()).await.unwrap();

        let called = sender.produce(vec![message()]).await;
        assert!(matches!(called, Err(BusError::Unacknowledged(_))), "{called:?}");
        assert_eq!(carrier.published(), Ok(7), "on its way");

        cluster.partition_leader(&name, 0, Some(1)).unwrap();
        sender.flush();
        assert_eq!(carrier.published(), Ok(8));
        assert_eq!(sender.sent().records(), 2, "what the caller gave up has arrived, too");
    }
}
