//! PostgreSQL and Kafka as a ground for worlds: one database and one environment for all of a test's worlds, which come
//! one after the other.

use super::ground::{Ground, Grounds};
use super::system::SHARDS;
use super::template::loaded;
use async_trait::async_trait;
use endstate_events::Environment;
use endstate_orchestrator::definitions::Definitions;
use endstate_outbox::postgres::Settings;
use endstate_outbox::{Bus, Commit, KafkaBus, KafkaSettings, Kind, PostgresStore, Rows, Statement, Store, Write};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

macro_rules! clear {
    ($($table:literal),*) => {
        [$(Statement {
            name: concat!("world.clear_", $table),
            columns: &[Kind::Int],
            sql: concat!("with r(one) as ({rows}) delete from ", $table, " where (select one from r) = 1"),
        }),*]
    };
}

/// Everything that a world has written.
static CLEAR: [Statement; 14] = clear!(
    "event",
    "outbox",
    "saga",
    "saga_number",
    "orphan",
    "discrepancy",
    "account",
    "transfer",
    "token",
    "effect",
    "call",
    "operation",
    "dead_letter",
    "alert"
);

/// But for how far its partitions were read.
static BEGIN: Statement = Statement {
    name: "world.begin",
    columns: &[Kind::Int],
    sql: "with r(first) as ({rows}) \
          update shard set next_seq = r.first, next_outbox_seq = r.first, published_seq = r.first from r",
};

/// One database and one environment.
pub(crate) struct Real {
    settings: Settings,
    kafka: KafkaSettings,
    store: Arc<PostgresStore>,
    definitions: Arc<Definitions>,
    /// Of processes that are gone or will be; the last one is that of the newest.
    buses: Arc<Mutex<Vec<Arc<KafkaBus>>>>,
}

fn service(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} names no server; bring one along: scripts/services run -- cargo test --test services")
    })
}

impl Real {
    pub(crate) async fn new() -> Self {
        let name = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let environment = Environment::new(&name).unwrap();
        let postgres = service("ENDSTATE_TEST_POSTGRES");
        let (server, _) = postgres.rsplit_once('/').unwrap();
        let url = format!("{server}/test_{name}");
        PostgresStore::migrate(&url).await.unwrap();
        let own = Settings { partitions: SHARDS, connections: 4, ..Settings::new(&url) };
        let settings = Settings { environment: environment.clone(), ..own };
        let kafka = KafkaSettings {
            brokers: service("ENDSTATE_TEST_KAFKA"),
            environment,
            partitions: SHARDS,
            replication: 1,
            min_insync: 1,
            foreign_partitions: 0,
            retention: Duration::from_secs(7 * 24 * 3_600),
            session: Duration::from_secs(6),
            client: BTreeMap::new(),
        };
        let store = PostgresStore::open(&settings).await.unwrap();
        let definitions = loaded(store.clone()).await;
        let buses = Arc::new(Mutex::new(vec![KafkaBus::open(kafka.clone()).await.unwrap()]));
        Self { settings, kafka, store, definitions, buses }
    }
}

#[async_trait]
impl Grounds for Real {
    fn definitions(&self) -> &Arc<Definitions> {
        &self.definitions
    }

    async fn fresh(&self) -> Box<dyn Ground> {
        let statements = CLEAR.iter().chain([&BEGIN]);
        let writes = statements.map(|statement| Write::any(statement, Rows::one([1.into()]))).collect();
        self.store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
        Box::new(Shared {
            settings: self.settings.clone(),
            kafka: self.kafka.clone(),
            store: self.store.clone(),
            definitions: self.definitions.clone(),
            buses: self.buses.clone(),
        })
    }

    async fn close(self) {
        let buses = std::mem::take(&mut *self.buses.lock().unwrap_or_else(PoisonError::into_inner));
        for bus in buses {
            bus.close().await;
        }
        KafkaBus::wipe(&self.kafka).await.unwrap();
    }
}

/// What one process at a time has of it.
struct Shared {
    settings: Settings,
    kafka: KafkaSettings,
    store: Arc<PostgresStore>,
    definitions: Arc<Definitions>,
    buses: Arc<Mutex<Vec<Arc<KafkaBus>>>>,
}

#[async_trait]
impl Ground for Shared {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    fn bus(&self) -> Arc<dyn Bus> {
        self.buses.lock().unwrap_or_else(PoisonError::into_inner).last().unwrap().clone()
    }

    fn definitions(&self) -> Arc<Definitions> {
        self.definitions.clone()
    }

    async fn restart(&mut self) {
        self.store = PostgresStore::open(&self.settings).await.unwrap();
        self.take_over().await;
    }

    async fn take_over(&mut self) {
        // What the one before had read or sent is its own affair.
        let bus = KafkaBus::open(self.kafka.clone()).await.unwrap();
        self.buses.lock().unwrap_or_else(PoisonError::into_inner).push(bus);
    }
}
