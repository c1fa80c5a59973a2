//! What a process stands on: the embedded store, which is its own bus, or PostgreSQL and Kafka, which it shares.

use crate::config::Config;
use anyhow::{Context as _, ensure};
use endstate_events::{Environment, ForeignTopic};
use endstate_orchestrator::definitions::Reach;
use endstate_outbox::kafka::OpenError;
use endstate_outbox::postgres::{PostgresStore, Settings};
use endstate_outbox::spill::SpillSettings;
use endstate_outbox::sqlite::Made;
use endstate_outbox::{
    Bus, Clock, KafkaBus, KafkaSettings, SpillingBus, SqliteStore, Store, StoreClock, StoreError, SystemClock,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// How often read rows of the local bus are deleted.
const PURGE_EVERY: Duration = Duration::from_secs(2);

/// Domain events kept per partition for those who follow them.
const EVENTS_KEPT: i64 = 100_000;

/// Partitions of a shared system, unless told otherwise: enough to spread over some processes.
const PARTITIONS: u16 = 16;

/// How long a process that starts waits for a database or brokers that are away, and how long between two attempts.
const PATIENCE: Duration = Duration::from_secs(120);
const AGAIN_FIRST: Duration = Duration::from_millis(500);
const AGAIN_MOST: Duration = Duration::from_secs(5);

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Store and bus.
pub(crate) enum Ground {
    /// One process, one file.
    Embedded(Arc<SqliteStore>),
    /// Many processes.
    Shared {
        /// Theirs.
        store: Arc<PostgresStore>,
        /// Theirs.
        kafka: Arc<KafkaBus>,
        /// The same, with a way round it.
        bus: Arc<SpillingBus>,
        /// Theirs.
        clock: Arc<StoreClock>,
        /// The system's name.
        environment: Environment,
        /// Where participants over Kafka take commands now.
        moved: BTreeMap<String, ForeignTopic>,
    },
}

impl Ground {
    /// The embedded store in a folder.
    pub(crate) async fn embedded(data: &Path, made: &Made) -> anyhow::Result<Self> {
        Ok(Self::Embedded(SqliteStore::open_as(data, made).await?))
    }

    /// What the configuration names; the embedded store when it names nothing.
    pub(crate) async fn configured(config: &Config) -> anyhow::Result<Self> {
        let (url, brokers) = (config.store.url.reveal(), &config.kafka.brokers);
        if url.is_empty() && brokers.is_empty() {
            return Self::embedded(&config.data, &config.store()).await;
        }
        ensure!(!url.is_empty(), "kafka.brokers is set, and no store.url: set both, or neither");
        ensure!(!brokers.is_empty(), "store.url is set, and no kafka.brokers: set both, or neither");
        let store = opened(&postgres(config)).await?;
        let brokers = kafka(config, store.partitions())?;
        let kafka = once_both_answer(&store, async || connected(&brokers, &store).await).await?;
        let patience = Duration::from_millis(config.kafka.spill_after_ms);
        let spill = SpillSettings { patience, most: i64::from(config.kafka.spill_most) };
        let bus = SpillingBus::new(kafka.clone(), store.clone(), store.clone(), Arc::new(SystemClock), spill);
        let clock = StoreClock::new(store.clone(), Arc::new(SystemClock), Uuid::new_v4());
        once_both_answer(&store, async || Ok(clock.ask().await?)).await?;
        let (environment, moved) = (config.environment.clone(), config.participants.topics()?);
        Ok(Self::Shared { store, kafka, bus, clock, environment, moved })
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => store.clone(),
            Self::Shared { store, .. } => store.clone(),
        }
    }

    /// The time of everything that runs on it.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        match self {
            Self::Embedded(_) => Arc::new(SystemClock),
            Self::Shared { clock, .. } => clock.clone(),
        }
    }

    pub(crate) fn bus(&self) -> Arc<dyn Bus> {
        match self {
            Self::Embedded(store) => store.bus(),
            Self::Shared { bus, .. } => bus.clone(),
        }
    }

    /// How participants over Kafka are reached; none on the embedded store.
    pub(crate) fn reach(&self) -> Option<Reach> {
        match self {
            Self::Embedded(_) => None,
            Self::Shared { bus, environment, moved, .. } => {
                let (environment, moved) = (environment.clone(), moved.clone());
                Some(Reach { bus: bus.clone(), environment, moved })
            }
        }
    }

    pub(crate) fn sqlite(&self) -> Option<&Arc<SqliteStore>> {
        match self {
            Self::Embedded(store) => Some(store),
            Self::Shared { .. } => None,
        }
    }

    pub(crate) fn postgres(&self) -> Option<&Arc<PostgresStore>> {
        match self {
            Self::Embedded(_) => None,
            Self::Shared { store, .. } => Some(store),
        }
    }

    /// Starts what keeps it small.
    pub(crate) fn keep(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let stop = stop.clone();
        let store = match self {
            Self::Embedded(store) => store,
            Self::Shared { bus, clock, .. } => {
                tasks.spawn(stop.clone().run_until_cancelled_owned(bus.clone().follow()));
                tasks.spawn(stop.run_until_cancelled_owned(clock.clone().follow()));
                return;
            }
        };
        let bus = store.bus();
        tasks.spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(PURGE_EVERY)).await.is_some() {
                if let Err(error) = bus.purge(EVENTS_KEPT).await {
                    tracing::warn!(%error, "read messages were not deleted; tried again later");
                }
            }
        });
    }

    /// Leaves the bus, once nothing runs on it any more.
    pub(crate) async fn leave(self) {
        if let Self::Shared { kafka, .. } = self {
            kafka.close().await;
        }
    }
}

/// The store, with its migrations, as soon as the database answers.
async fn opened(settings: &Settings) -> Result<Arc<PostgresStore>, StoreError> {
    let open = || async {
        PostgresStore::migrate(&settings.url).await?;
        PostgresStore::open(settings).await
    };
    once_it_answers(&settings.url, open).await
}

/// Applies the migrations that a database lacks, as soon as it answers, and returns their names.
pub(crate) async fn migrated(settings: &Settings) -> Result<Vec<&'static str>, StoreError> {
    once_it_answers(&settings.url, || PostgresStore::migrate(&settings.url)).await
}

/// Does what needs a database as soon as it answers. What it refuses, a password or itself, is told at once.
async fn once_it_answers<T, F>(url: &str, work: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut patience = Patience::new();
    loop {
        let failed = match PostgresStore::answers(url).await {
            Ok(()) => match work().await {
                // It may have gone away in the middle.
                Err(error) if PostgresStore::answers(url).await.is_err() => error,
                other => return other,
            },
            Err(error) => error,
        };
        if !patience.waits(&failed).await {
            return Err(failed);
        }
    }
}

/// The bus: over brokers that the store goes with, in an environment that is its own.
async fn connected(settings: &KafkaSettings, store: &PostgresStore) -> anyhow::Result<Arc<KafkaBus>> {
    let id = store.id().await?;
    let cluster = KafkaBus::cluster(settings).await?;
    store.goes_with(&cluster).await?;
    match KafkaBus::claim(settings, &id).await {
        Ok(()) => store.keeps(&cluster).await?,
        // It was its own before, and one topic must not keep all of the others waiting.
        Err(unread @ OpenError::Unread { .. }) if store.has_claimed(&cluster).await? => {
            tracing::warn!(%unread, "the environment was this store's when it was looked at before; going on");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(KafkaBus::open(settings.clone()).await?)
}

/// Does what needs the store and the brokers as soon as both answer.
async fn once_both_answer<T>(store: &PostgresStore, work: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut patience = Patience::new();
    loop {
        match work().await {
            Err(error) if may_pass(&error) => {
                if !patience.waits(&error).await {
                    return Err(error);
                }
                if error.is::<StoreError>() {
                    store.forget_idle();
                }
            }
            other => return other,
        }
    }
}

/// Whether another attempt may find what this one has missed. A session that the database has ended while the brokers were
/// waited for is found out by its next statement, when the database may answer again: so the failure counts, not whether it
/// answers now.
fn may_pass(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(OpenError::Unreachable { .. } | OpenError::Unread { .. }))
        || matches!(error.downcast_ref(), Some(StoreError::Failed { .. }))
}

/// With servers that a start needs, and that are away.
struct Patience {
    started: Instant,
    pause: Duration,
}

impl Patience {
    fn new() -> Self {
        Self { started: Instant::now(), pause: AGAIN_FIRST }
    }

    /// Waits before the next attempt, and says so; false when it has waited enough.
    async fn waits(&mut self, error: &dyn std::fmt::Display) -> bool {
        if self.started.elapsed() >= PATIENCE {
            return false;
        }
        tracing::warn!(%error, again_in = ?self.pause, "not started yet; trying again");
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(AGAIN_MOST);
        true
    }
}

/// Which database the configuration names, and what its store is made for.
pub(crate) fn postgres(config: &Config) -> Settings {
    Settings {
        environment: config.environment.clone(),
        partitions: if config.engine.partitions == 0 { PARTITIONS } else { config.engine.partitions },
        connections: config.store.connections.max(1),
        writers: config.store.writers.max(1),
        debezium: config.store.debezium,
        ..Settings::new(config.store.url.reveal())
    }
}

/// Which brokers the configuration names, and how topics are to be.
pub(crate) fn kafka(config: &Config, partitions: u16) -> anyhow::Result<KafkaSettings> {
    let kafka = &config.kafka;
    let client = match kafka.client_file.as_os_str().is_empty() {
        true => BTreeMap::new(),
        false => properties(&kafka.client_file)?,
    };
    Ok(KafkaSettings {
        brokers: kafka.brokers.clone(),
        environment: config.environment.clone(),
        partitions,
        replication: kafka.replication,
        min_insync: kafka.min_insync,
        foreign_partitions: kafka.foreign_partitions,
        retention: DAY * u32::from(kafka.retention_days),
        session: Duration::from_millis(kafka.session_ms),
        client,
    })
}

/// Reads `name = value` lines; empty lines and those that begin with # say nothing.
fn properties(file: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read kafka.client_file {}", file.display()))?;
    let lines = text.lines().map(str::trim).enumerate();
    let mut found = BTreeMap::new();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let pair = line.split_once('=');
        let (name, value) =
            pair.with_context(|| format!("{}:{}: expected `name = value`", file.display(), number + 1))?;
        found.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn settings_of_the_client_are_read_from_their_file() {
        let file = written("# ours\nsecurity.protocol = SASL_SSL\n\nsasl.password=a=b \n");
        let found = properties(file.path()).unwrap();
        assert_eq!(found["security.protocol"], "SASL_SSL");
        assert_eq!((found["sasl.password"].as_str(), found.len()), ("a=b", 2));
        let error = properties(written("fine = 1\nsasl.password").path()).unwrap_err().to_string();
        assert!(error.ends_with(":2: expected `name = value`"), "{error}");
    }

    #[tokio::test]
    async fn store_and_bus_go_together() {
        for (variable, missing) in [("ENDSTATE_STORE_URL", "kafka.brokers"), ("ENDSTATE_KAFKA_BROKERS", "store.url")] {
            let config = Config::load(None, [(variable.to_owned(), "x".to_owned())]).unwrap();
            let Err(error) = Ground::configured(&config).await else { panic!("half a ground") };
            assert!(error.to_string().contains(&format!("no {missing}")), "{error}");
        }
    }
}
