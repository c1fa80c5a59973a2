//! A participant over Kafka: commands to its topic, replies in a `progress` of an environment that lives as long as the
//! verification.

use super::subject::Subject;
use async_trait::async_trait;
use endstate_events::{
    Command, CommandKind, Envelope, Environment, ForeignTopic, Lane, Message, SCHEMA_VERSION, Topic, Verdict,
};
use endstate_outbox::{Bus, KafkaBus, KafkaSettings, Outgoing};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Pause before a topic that could not be read is read again.
const LISTEN_AGAIN: Duration = Duration::from_millis(200);

/// Who waits for which reply, by its id; and the last record that was none.
#[derive(Default)]
struct Replies {
    waiting: HashMap<String, VecDeque<oneshot::Sender<Verdict>>>,
    unreadable: Option<String>,
}

/// A participant's topic, and where it answers.
pub(crate) struct Kafka {
    bus: Arc<KafkaBus>,
    settings: KafkaSettings,
    topic: ForeignTopic,
    patience: Duration,
    replies: Arc<Mutex<Replies>>,
    reading: JoinHandle<()>,
}

impl Kafka {
    /// Opens it; the participant's topic must be there.
    pub(crate) async fn open(settings: KafkaSettings, topic: ForeignTopic, patience: Duration) -> anyhow::Result<Self> {
        let environment = Environment::new(&format!("verify-{:08x}", rand::random::<u32>()))?;
        let settings = KafkaSettings { environment, partitions: 1, ..settings };
        let bus = KafkaBus::open(settings.clone()).await?;
        if let Err(error) = bus.reach(topic, None).await {
            KafkaBus::wipe(&settings).await.ok();
            bus.close().await;
            return Err(error.into());
        }
        let replies = Arc::new(Mutex::new(Replies::default()));
        let reading = tokio::spawn(listen(Arc::clone(&bus), Arc::clone(&replies)));
        Ok(Self { bus, settings, topic, patience, replies, reading })
    }

    /// Deletes what was made for it.
    pub(crate) async fn close(self) {
        self.reading.abort();
        if let Err(error) = KafkaBus::wipe(&self.settings).await {
            eprintln!("the topics of this verification were not deleted: {error}");
        }
        self.bus.close().await;
    }

    fn lock(&self) -> MutexGuard<'_, Replies> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads replies, one after the other; a topic that was just made may not be readable at once.
async fn listen(bus: Arc<KafkaBus>, replies: Arc<Mutex<Replies>>) {
    let mut next = 0;
    loop {
        let mut consumer = bus.consumer(Topic::Progress, 0, next);
        let error = loop {
            consumer.ready().await;
            match consumer.take(100).await {
                Ok(taken) => {
                    for record in taken {
                        next = record.next;
                        hear(&replies, record.envelope.map_err(|bad| bad.reason));
                    }
                }
                Err(error) => break error,
            }
        };
        hear(&replies, Err(error.to_string()));
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

fn hear(replies: &Mutex<Replies>, envelope: Result<Arc<Envelope>, String>) {
    let mut replies = replies.lock().unwrap_or_else(PoisonError::into_inner);
    match envelope {
        Ok(envelope) => match &envelope.message {
            Message::Reply(reply) => {
                let waiting = replies.waiting.get_mut(&envelope.id).and_then(VecDeque::pop_front);
                match waiting {
                    Some(waiting) => drop(waiting.send(reply.verdict.clone())),
                    None => {
                        replies.unreadable =
                            Some(format!("a reply has the ce_id `{}`, which nobody waits for", envelope.id))
                    }
                }
            }
            other => replies.unreadable = Some(format!("its type is endstate.{}, not endstate.reply", other.label())),
        },
        Err(reason) => replies.unreadable = Some(reason),
    }
}

#[async_trait]
impl Subject for Kafka {
    async fn tell(&self, command: &Command) -> Verdict {
        let id = match command.kind {
            CommandKind::Ask => Envelope::answer_id(&command.effect_id),
            CommandKind::Do | CommandKind::Undo => command.effect_id.to_string(),
        };
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
        let envelope = Envelope {
            id: id.clone(),
            schema: SCHEMA_VERSION,
            time_ms: i64::try_from(now_ms).unwrap_or(0),
            key: command.key.clone(),
            lane: Lane::Test,
            message: Message::Command(command.clone()),
        };
        let (waiting, answered) = oneshot::channel();
        self.lock().waiting.entry(id.clone()).or_default().push_back(waiting);
        let outgoing = Outgoing { topic: Topic::Foreign(self.topic), partition: 0, envelope: envelope.into() };
        if let Err(error) = self.bus.produce(vec![outgoing]).await {
            return Verdict::unknown(error.to_string());
        }
        match tokio::time::timeout(self.patience, answered).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) | Err(_) => {
                let mut replies = self.lock();
                replies.waiting.remove(&id);
                let odd =
                    replies.unreadable.take().map(|odd| format!("; what came instead: {odd}")).unwrap_or_default();
                let patience = self.patience.as_secs();
                Verdict::unknown(format!("no reply in `progress` within {patience} s{odd}"))
            }
        }
    }
}
