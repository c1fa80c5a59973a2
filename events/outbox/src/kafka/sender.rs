//! The one producer of a process: idempotent, acknowledged by all copies, explicit partitions. Shards hand it what they
//! have committed; callers wait for their messages' acknowledgements.

use super::metric;
use super::settings::{ANSWER, KafkaSettings};
use super::window::{Place, Window};
use super::wire;
use crate::bus::{BusError, Outgoing, Packed, Relay, RelayError};
use async_trait::async_trait;
use endstate_events::Topic;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Pause while the producer's queue is full.
const FULL: Duration = Duration::from_millis(5);

/// Sends records, and learns what became of them.
pub(super) struct Sender {
    settings: KafkaSettings,
    /// Names of the topics, in the order of [`Topic::ALL`].
    names: [String; 4],
    producer: Mutex<Arc<ThreadedProducer<Reports>>>,
    stop: CancellationToken,
}

/// Whom a delivery report is for.
pub(super) enum Ticket {
    /// A message of a shard's outbox.
    Committed { window: Arc<Window>, seq: i64, place: Place },
    /// A message that somebody waits for.
    Call(Arc<Call>),
}

/// Messages that were queued together, and how many of them are unacknowledged.
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
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        metric::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::Fatal)) {
            self.dead.store(true, Ordering::Release);
            tracing::error!(%error, reason, "E4064: the producer is dead; a new one takes its place");
        } else {
            tracing::warn!(%error, reason, "the producer has trouble");
        }
    }

    fn stats(&self, statistics: Statistics) {
        metric::client(&statistics);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let failure = result.as_ref().err().map(|(error, _)| error.to_string());
        match *ticket {
            Ticket::Committed { window, seq, place } => match failure {
                None => window.acknowledged(seq, place),
                Some(reason) => window.failed(reason),
            },
            Ticket::Call(call) => call.report(failure),
        }
    }
}

impl Sender {
    pub(super) fn new(settings: &KafkaSettings, stop: CancellationToken) -> Result<Arc<Self>, KafkaError> {
        let names = Topic::ALL.map(|topic| topic.name(&settings.environment));
        let producer = Mutex::new(Arc::new(producer(settings)?));
        Ok(Arc::new(Self { settings: settings.clone(), names, producer, stop }))
    }

    /// Queues messages and waits until all copies have them.
    pub(super) async fn produce(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        if messages.is_empty() {
            return Ok(());
        }
        let packed: Result<Vec<_>, _> = messages.into_iter().map(wire::pack).collect();
        let packed = packed.map_err(BusError::Refused)?;
        let call = Call::of(packed.len());
        for packed in &packed {
            if let Err(reason) = self.send(packed, Ticket::Call(call.clone())).await {
                call.report(Some(reason));
            }
        }
        call.answered().await.map_err(BusError::Unacknowledged)
    }

    /// Hands a record to the producer; waits while its queue is full.
    async fn send(&self, packed: &Packed, ticket: Ticket) -> Result<(), String> {
        let Packed { outgoing: Outgoing { topic, partition, envelope }, body } = packed;
        let mut record = BaseRecord::with_opaque_to(&self.names[*topic as usize], Box::new(ticket))
            .partition(i32::from(*partition))
            .key(envelope.key.as_bytes())
            .payload(body.as_slice())
            .headers(wire::headers(envelope, &self.settings.environment));
        loop {
            let producer = self.producer().map_err(|error| error.to_string())?;
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => record = back,
                Err((error, _)) => return Err(error.to_string()),
            }
            tokio::select! {
                () = tokio::time::sleep(FULL) => {}
                () = self.stop.cancelled() => return Err("the bus is closing".to_owned()),
            }
        }
    }

    /// The producer; a new one when the last is dead.
    fn producer(&self) -> Result<Arc<ThreadedProducer<Reports>>, KafkaError> {
        let mut current = self.lock();
        if current.context().dead.load(Ordering::Acquire) {
            *current = Arc::new(producer(&self.settings)?);
        }
        Ok(Arc::clone(&current))
    }

    /// Waits until everything that was handed over is acknowledged, but not for ever.
    pub(super) fn flush(&self) {
        let producer = Arc::clone(&self.lock());
        if let Err(error) = producer.flush(ANSWER) {
            tracing::warn!(%error, "not everything was acknowledged; the next owner publishes it again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<ThreadedProducer<Reports>>> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn producer(settings: &KafkaSettings) -> Result<ThreadedProducer<Reports>, KafkaError> {
    use rdkafka::config::FromClientConfigAndContext as _;
    ThreadedProducer::from_config_and_context(&settings.producer(), Reports { dead: AtomicBool::new(false) })
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

#[async_trait]
impl Relay for Carrier {
    fn pack(&self, outgoing: Outgoing) -> Result<Packed, String> {
        wire::pack(outgoing)
    }

    async fn publish(&mut self, first_seq: i64, messages: Vec<Packed>) -> Result<(), RelayError> {
        for (seq, packed) in (first_seq..).zip(&messages) {
            let place = (packed.outgoing.topic, packed.outgoing.partition);
            tokio::select! {
                entered = self.window.enter(seq, place) => entered?,
                () = self.sender.stop.cancelled() => return Err(RelayError("the bus is closing".to_owned())),
            }
            let window = Arc::clone(&self.window);
            self.sender.send(packed, Ticket::Committed { window, seq, place }).await.map_err(RelayError)?;
        }
        Ok(())
    }

    fn published(&self) -> Result<i64, RelayError> {
        self.window.mark()
    }
}
