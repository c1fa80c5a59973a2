//! One running system in one process: both sides' shards over one store and bus, and the ways in and out.

use crate::config::Mode;
use anyhow::Context as _;
use endstate_events::Side;
use endstate_orchestrator::definitions::{Definitions, DefinitionsError};
use endstate_orchestrator::gateway::Gateway;
use endstate_orchestrator::handler::{Listeners, SagaHandler};
use endstate_orchestrator::job::{Entry, Jobs};
use endstate_orchestrator::waiters::Waiters;
use endstate_outbox::fused::{Fused, ROUNDS};
use endstate_outbox::sqlite::Made;
use endstate_outbox::{Bus, Census, Clock, Shard, ShardId, SqliteStore, Store, SystemClock};
use endstate_participants::handler::{HANDED_OVER, HandOver, Participants, Settings};
use endstate_saga::definition::{Source, shipped};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often read rows of the local bus are deleted.
const PURGE_EVERY: Duration = Duration::from_secs(2);

/// Domain events kept per partition for those who follow them.
const EVENTS_KEPT: i64 = 100_000;

/// A running embedded system.
pub(crate) struct Node {
    mode: Mode,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) gateway: Gateway,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Which shards of both sides are assigned.
    pub(crate) shards: Census,
    /// Its scheduled jobs, once it has any.
    jobs: OnceLock<Arc<Jobs>>,
    /// What participants want called outside, for the caller.
    calls: Mutex<Option<mpsc::Receiver<HandOver>>>,
    listeners: Listeners,
    caller: mpsc::Sender<HandOver>,
    pub(crate) tasks: TaskTracker,
    stop: CancellationToken,
}

impl Node {
    /// Opens the store and loads the shipped definitions; nothing runs yet.
    pub(crate) async fn open(data: &Path, made: &Made, mode: Mode) -> anyhow::Result<Self> {
        let store = SqliteStore::open_as(data, made).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let definitions = Definitions::open(store.clone()).await.context("cannot read the stored definitions")?;
        for source in shipped() {
            load(&definitions, &source, clock.now_ms()).await?;
        }
        let waiters = Arc::new(Waiters::default());
        let (caller, calls) = mpsc::channel(HANDED_OVER);
        let bus: Arc<dyn Bus> = store.bus();
        let gateway = Gateway::new(store.clone(), bus, clock.clone(), definitions.clone(), waiters.clone());
        let listeners = Listeners { waiters };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let calls = Mutex::new(Some(calls));
        let owners = if mode == Mode::Fused { 1 } else { 2 };
        let shards = Census::of(owners * usize::from(store.partitions()));
        let jobs = OnceLock::new();
        Ok(Self { mode, store, gateway, definitions, clock, shards, jobs, calls, listeners, caller, tasks, stop })
    }

    /// Starts the shards of both sides.
    pub(crate) fn start(&self, in_motion_most: usize, settings: Settings) {
        for index in 0..self.store.partitions() {
            let (store, definitions) = (self.store.clone(), self.definitions.clone());
            let sagas = SagaHandler::new(store, definitions, self.listeners.clone(), in_motion_most);
            let participants = Participants::new(self.store.clone(), self.caller.clone(), settings);
            match self.mode {
                Mode::HopByHop => {
                    self.shard(Side::Orchestrator, index, sagas);
                    self.shard(Side::Participants, index, participants);
                }
                Mode::Fused => self.shard(Side::Orchestrator, index, Fused::new(sagas, participants, ROUNDS)),
            }
        }
        let (bus, stop) = (self.store.bus(), self.stop.clone());
        self.tasks.spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(PURGE_EVERY)).await.is_some() {
                if let Err(error) = bus.purge(EVENTS_KEPT).await {
                    tracing::warn!(%error, "read messages were not deleted; tried again later");
                }
            }
        });
    }

    fn shard<H: endstate_outbox::Handler>(&self, side: Side, index: u16, handler: H) {
        let id = ShardId { side, index };
        let store: Arc<dyn Store> = self.store.clone();
        let shard = Shard::new(id, store, self.store.bus(), self.clock.clone(), handler).counted(&self.shards);
        self.tasks.spawn(shard.run(self.stop.clone()));
    }

    /// What participants want called outside; taken once, by the caller.
    pub(crate) fn take_calls(&self) -> Option<mpsc::Receiver<HandOver>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives it jobs to run; the first timetable counts.
    pub(crate) fn give_jobs(&self, timetable: Vec<Entry>) -> Arc<Jobs> {
        let jobs = || Arc::new(Jobs::new(self.store.clone(), self.clock.clone(), uuid::Uuid::new_v4(), timetable));
        self.jobs.get_or_init(jobs).clone()
    }

    /// Its jobs; none when nobody gave it any.
    pub(crate) fn jobs(&self) -> Arc<Jobs> {
        self.give_jobs(Vec::new())
    }

    /// Loads a definition from its file.
    pub(crate) async fn load(&self, file: &Path) -> anyhow::Result<()> {
        let source = Source::read(file)?;
        load(&self.definitions, &source, self.clock.now_ms()).await
    }

    /// Cancelled when the system stops.
    pub(crate) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Finishes batches that have begun, then returns.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn load(definitions: &Definitions, source: &Source, now_ms: i64) -> anyhow::Result<()> {
    match definitions.load(source, now_ms).await {
        Ok(_) => Ok(()),
        Err(DefinitionsError::Faulty(faults)) => {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            anyhow::bail!("{}", faults.join("\n"))
        }
        Err(other) => Err(other.into()),
    }
}
