//! The system that is measured: a node on a store of its own, made for the run and gone afterwards, its API, and what can
//! be read from it.

use super::meter::Meter;
use super::processes::Service;
use super::{Options, Saga, Stack};
use crate::cli::args::Role;
use crate::config::{Config, Mode};
use crate::ground::{self, Ground};
use crate::node::Node;
use anyhow::{Context as _, ensure};
use endstate_http::Tokens;
use endstate_http::auth::Identity;
use endstate_http::guard::{Drain, Limits};
use endstate_orchestrator::http;
use endstate_outbox::{KafkaBus, Kind, PostgresStore, Rows, Statement, Value};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Sagas of one shard that may be under way: the clients are the limit, not the engine.
const IN_MOTION: usize = 4_096;

/// How long its shards may take to be assigned.
const PATIENCE: Duration = Duration::from_secs(60);

static WAL: Statement = Statement {
    name: "bench.wal",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select w.wal_sync, w.wal_bytes::int8 from r cross join pg_stat_wal w",
};

/// What was written since the system was made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    pub(super) rows: u64,
    pub(super) commits: u64,
    /// Records that the broker acknowledged; 0 where the store is the bus.
    pub(super) records: u64,
    /// Flushes and bytes of PostgreSQL's log, everybody's.
    pub(super) wal_syncs: u64,
    pub(super) wal_bytes: u64,
}

impl Written {
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            rows: self.rows - earlier.rows,
            commits: self.commits - earlier.commits,
            records: self.records - earlier.records,
            wal_syncs: self.wal_syncs.saturating_sub(earlier.wal_syncs),
            wal_bytes: self.wal_bytes.saturating_sub(earlier.wal_bytes),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            commits: self.commits + other.commits,
            records: self.records + other.records,
            wal_syncs: self.wal_syncs + other.wal_syncs,
            wal_bytes: self.wal_bytes + other.wal_bytes,
        }
    }
}

/// A store and a bus that were made for one purpose of this run.
pub(super) struct Plot {
    config: Config,
    shared: bool,
    file: Option<PathBuf>,
    /// The variables that it was read from, beside the file.
    given: Vec<(String, String)>,
}

impl Plot {
    /// The settings of `options` with a database, topics and a folder of their own.
    pub(super) fn new(options: &Options, purpose: &str, folder: &Path) -> anyhow::Result<Self> {
        let shared = options.stack()? == Stack::Shared;
        let variable = |name: &str, value: String| (format!("ENDSTATE_{name}"), value);
        let in_motion = variable("ENGINE_IN_MOTION", IN_MOTION.to_string());
        let mut ours = vec![variable("DATA", folder.display().to_string()), in_motion];
        ours.extend(options.partitions.map(|count| variable("ENGINE_PARTITIONS", count.to_string())));
        if options.fused {
            ours.push(variable("ENGINE_MODE", "fused".to_owned()));
        }
        let (mut file, mut given) = (None, Vec::new());
        if shared {
            (file, given) = (options.config.clone(), std::env::vars().collect());
            let named = Config::load(file.as_deref(), given.iter().cloned())?;
            let url = named.store.url.reveal();
            ensure!(
                !url.is_empty() && !named.kafka.brokers.is_empty(),
                "--stack kafka,postgres needs store.url and kafka.brokers: set ENDSTATE_STORE_URL and ENDSTATE_KAFKA_BROKERS"
            );
            // Never the database that is named, nor the environment's topics: somebody may work there.
            let name = format!("bench-{}-{purpose}", std::process::id());
            let mut url = reqwest::Url::parse(url).ok().context("store.url cannot be read")?;
            url.set_path(&name);
            ours.extend([variable("STORE_URL", url.to_string()), variable("ENVIRONMENT", name)]);
        }
        given.extend(ours);
        let config = Config::load(file.as_deref(), given.iter().cloned())?;
        Ok(Self { config, shared, file, given })
    }

    pub(super) async fn ground(&self) -> anyhow::Result<Ground> {
        Ground::configured(&self.config).await
    }

    /// Names the payment provider.
    pub(super) fn pay_at(&mut self, url: &str, secret: &str) -> anyhow::Result<()> {
        let text = |name: &str, value: &str| (format!("ENDSTATE_PAYMENT_{name}"), value.to_owned());
        self.given.extend([text("URL", url), text("SECRET", secret), text("KIND", "simulated")]);
        self.config = Config::load(self.file.as_deref(), self.given.iter().cloned())?;
        Ok(())
    }

    /// Where its services are found, if they are on this machine.
    pub(super) fn meter(&self, data: &Path) -> Meter {
        let port = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let found = |port: Option<u16>| port.filter(|_| self.shared).and_then(Service::listening);
        let brokers = self.config.kafka.brokers.split(',').next().unwrap_or_default();
        let url = reqwest::Url::parse(self.config.store.url.reveal()).ok();
        Meter {
            data: data.to_owned(),
            kafka: found(port(brokers)),
            postgres: found(url.map(|url| url.port().unwrap_or(5432))),
        }
    }

    /// Deletes what was made. A folder is deleted by whoever made it.
    pub(super) async fn clear(&self) -> anyhow::Result<()> {
        if self.shared {
            PostgresStore::remove(self.config.store.url.reveal()).await?;
            KafkaBus::wipe(&ground::kafka(&self.config, 1)?).await.map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }
}

/// A node at work behind its API.
pub(super) struct System {
    pub(super) node: Node,
    pub(super) server: SocketAddr,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl System {
    /// Starts it. `provider` is where payments are made, for sagas that need one.
    pub(super) async fn start(options: &Options, plot: &Plot, listener: TcpListener) -> anyhow::Result<Self> {
        let config = &plot.config;
        std::fs::create_dir_all(&config.data)
            .with_context(|| format!("cannot make the folder {}", config.data.display()))?;
        // First of all: who counts looks its counters up once.
        let metrics = (options.saga == Saga::FlashSaleOrder).then(|| crate::scrape::record(plot.shared));
        let node = Node::on(plot.ground().await?, &Role::ALL, config.engine.mode).await?;
        if let Some(store) = node.embedded() {
            let synchronous = store.synchronous().await?;
            ensure!(synchronous == 2, "the store runs with synchronous={synchronous}, not FULL (2)");
        }
        let server = listener.local_addr()?;
        let drain = Drain::default();
        let router = match metrics {
            None => {
                node.start(IN_MOTION, endstate_participants::handler::Settings::default());
                let tokens = Arc::new(Tokens::load(node.store.clone()).await?);
                let routes = crate::serve::sagas(&node, &tokens, &drain, Arc::new(String::new), Vec::new()).await?;
                let identity = Identity { tokens, clock: node.clock.clone() };
                let limits = Limits { calls: options.clients + 64, ..Limits::default() };
                http::serve(routes, identity, limits)
            }
            Some(metrics) => crate::dev::assemble(&node, config, server, &drain, metrics?).await?.0,
        };
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let serving = tokio::spawn(axum::serve(listener, service).into_future());
        let system = Self { node, server, serving };
        let sides = if config.engine.mode == Mode::Fused { 1 } else { 2 };
        let assigned = tokio::time::timeout(PATIENCE, system.assigned(sides)).await;
        assigned.context("not all shards were assigned in a minute")?;
        Ok(system)
    }

    /// Until every shard is at work; with one task for both sides there is one for each partition.
    async fn assigned(&self, tasks: usize) {
        let all = tasks * usize::from(self.node.store.partitions());
        while !self.node.shards.is_complete() || self.node.shards.count().0 < all {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Records of a batch as the broker got it, since the bus was opened.
    pub(super) fn records_per_batch(&self) -> Option<f64> {
        records_per_batch(self.node.ground())
    }

    /// What was written so far.
    pub(super) async fn written(&self) -> Written {
        written(self.node.ground()).await
    }

    /// Ends it.
    pub(super) async fn stop(self) {
        self.serving.abort();
        self.node.stop().await;
    }
}

/// What was written to a store and bus so far.
pub(super) async fn written(ground: &Ground) -> Written {
    match ground {
        Ground::Embedded(store) => {
            let (rows, commits) = store.written();
            Written { rows, commits, ..Written::default() }
        }
        Ground::Shared { store, kafka, .. } => {
            let (rows, commits) = store.written();
            let wal = ground.store().read(&WAL, Rows::one([1.into()])).await.unwrap_or_default();
            let wal = |column: usize| match wal.first().and_then(|row| row.get(column)) {
                Some(Value::Int(n)) => u64::try_from(*n).unwrap_or(0),
                _ => 0,
            };
            Written { rows, commits, records: kafka.sent().records(), wal_syncs: wal(0), wal_bytes: wal(1) }
        }
    }
}

/// Records of a batch as the broker got it, since the bus was opened.
pub(super) fn records_per_batch(ground: &Ground) -> Option<f64> {
    match ground {
        Ground::Embedded(_) => None,
        Ground::Shared { kafka, .. } => kafka.sent().records_per_batch(),
    }
}

/// The engine's mode of a run.
pub(super) fn mode(options: &Options) -> Mode {
    if options.fused { Mode::Fused } else { Mode::HopByHop }
}
