//! One process of a running system: the shards it owns of both sides, over one store and bus, and the ways in and out.

use crate::cli::args::Role;
use crate::config::Mode;
use crate::ground::Ground;
use anyhow::Context as _;
use endstate_events::Side;
use endstate_orchestrator::definitions::{Definitions, DefinitionsError};
use endstate_orchestrator::gateway::Gateway;
use endstate_orchestrator::handler::{Listeners, SagaHandler};
use endstate_orchestrator::job::{Entry, Jobs};
use endstate_orchestrator::others::Others;
use endstate_orchestrator::waiters::Waiters;
use endstate_outbox::fused::{Fused, ROUNDS};
use endstate_outbox::{Bus, Census, Clock, Handler, PostgresStore, Shard, ShardId, SqliteStore, Store};
use endstate_participants::handler::{HANDED_OVER, HandOver, Participants, Settings};
use endstate_saga::definition::{Source, shipped};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often definitions are read again where other processes may load some.
const REFRESH: Duration = Duration::from_secs(2);

/// One process.
pub(crate) struct Node {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bus: Arc<dyn Bus>,
    ground: Ground,
    mode: Mode,
    roles: Vec<Role>,
    /// The orchestrator's shards of this process; none: all.
    owned: Option<watch::Receiver<BTreeSet<u16>>>,
    pub(crate) gateway: Gateway,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Which shards of both sides are assigned.
    pub(crate) shards: Census,
    /// How long sagas are open before their events are put together, if they are.
    snapshot_after_ms: OnceLock<i64>,
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
    /// A process on this ground, with the shipped definitions; nothing runs yet.
    pub(crate) async fn on(ground: Ground, roles: &[Role], mode: Mode) -> anyhow::Result<Self> {
        let has = |role| roles.contains(&role);
        anyhow::ensure!(
            mode == Mode::HopByHop || has(Role::Orchestrator) == has(Role::Participants),
            "engine.mode = \"fused\" is one task for both sides: give a process both roles, orchestrator and participants, \
             or neither"
        );
        let (store, bus) = (ground.store(), ground.bus());
        let clock = ground.clock();
        let definitions =
            Definitions::reaching(store.clone(), ground.reach()).await.context("cannot read the stored definitions")?;
        for source in shipped() {
            load(&definitions, &source, clock.now_ms()).await?;
        }
        let waiters = Arc::new(Waiters::default());
        let (caller, calls) = mpsc::channel(HANDED_OVER);
        let gateway = Gateway::new(store.clone(), bus.clone(), clock.clone(), definitions.clone(), waiters.clone());
        let owned = match ground.sqlite() {
            Some(_) => None,
            None if roles.contains(&Role::Orchestrator) => bus.owned(Side::Orchestrator),
            None => Some(watch::channel(BTreeSet::new()).1),
        };
        let gateway = match &owned {
            Some(owned) => gateway.among_others(owned.clone()),
            None => gateway,
        };
        let listeners = Listeners { waiters };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let calls = Mutex::new(Some(calls));
        let (shards, jobs) = (Census::of(0), OnceLock::new());
        Ok(Self {
            store,
            bus,
            ground,
            mode,
            roles: roles.to_vec(),
            owned,
            gateway,
            definitions,
            clock,
            shards,
            snapshot_after_ms: OnceLock::new(),
            jobs,
            calls,
            listeners,
            caller,
            tasks,
            stop,
        })
    }

    /// The store of many processes, where it is the ground.
    pub(crate) fn postgres(&self) -> Option<&Arc<PostgresStore>> {
        self.ground.postgres()
    }

    /// What it stands on.
    pub(crate) fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The embedded store, where it is the ground.
    pub(crate) fn embedded(&self) -> Option<&Arc<SqliteStore>> {
        self.ground.sqlite()
    }

    /// Puts the events of sagas together that are open for so long; before it is started.
    pub(crate) fn snapshots_after(&self, after_ms: i64) {
        self.snapshot_after_ms.set(after_ms).ok();
    }

    /// Starts the shards of its roles: those it owns, as the bus says.
    pub(crate) fn start(&self, in_motion_most: usize, settings: Settings) {
        let (store, definitions) = (self.store.clone(), self.definitions.clone());
        let listeners = self.listeners.clone();
        let snapshot_after_ms = self.snapshot_after_ms.get().copied();
        let sagas = move || {
            SagaHandler::new(store.clone(), definitions.clone(), listeners.clone(), in_motion_most)
                .snapshots_after(snapshot_after_ms)
        };
        let (store, caller) = (self.store.clone(), self.caller.clone());
        let participants = move || Participants::new(store.clone(), caller.clone(), settings);
        match self.mode {
            Mode::Fused => {
                if self.has(Role::Orchestrator) {
                    self.follow(Side::Orchestrator, move || Fused::new(sagas(), participants(), ROUNDS));
                }
            }
            Mode::HopByHop => {
                if self.has(Role::Orchestrator) {
                    self.follow(Side::Orchestrator, sagas);
                }
                if self.has(Role::Participants) {
                    self.follow(Side::Participants, participants);
                }
            }
        }
        if self.embedded().is_none() {
            let (definitions, stop) = (self.definitions.clone(), self.stop.clone());
            self.tasks.spawn(async move {
                while stop.run_until_cancelled(tokio::time::sleep(REFRESH)).await.is_some() {
                    if let Err(error) = definitions.refresh().await {
                        tracing::warn!(%error, "definitions were not read again");
                    }
                }
            });
            let (others, stop) = (Others::new(self.gateway.clone()), self.stop.clone());
            self.tasks.spawn(async move {
                stop.run_until_cancelled(others.follow()).await;
            });
        }
        self.ground.keep(&self.tasks, &self.stop);
    }

    /// Whether it has a role.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The orchestrator's shards of this process, as that changes; none: all.
    pub(crate) fn owned(&self) -> Option<watch::Receiver<BTreeSet<u16>>> {
        self.owned.clone()
    }

    /// Runs a side's shards as they come and go.
    fn follow<H: Handler>(&self, side: Side, handler: impl Fn() -> H + Send + 'static) {
        let shared = self.bus.owned(side);
        // Where a group decides, one place is kept free until it has: nobody is ready before it knows what it owns.
        let undecided = shared.is_some();
        let owned = shared.unwrap_or_else(|| watch::channel((0..self.store.partitions()).collect()).1);
        let (store, bus, clock) = (self.store.clone(), self.bus.clone(), self.clock.clone());
        let census = self.shards.clone();
        let mut running = Running { shards: BTreeMap::new(), census: census.clone(), undecided };
        if undecided {
            census.expect(true);
        }
        let run = move |index: u16, stop: CancellationToken| {
            let id = ShardId { side, index };
            let shard = Shard::new(id, store.clone(), bus.clone(), clock.clone(), handler()).counted(&census);
            tokio::spawn(shard.run(stop))
        };
        running.begin(&owned.borrow(), &run);
        self.tasks.spawn(running.follow(owned, run, self.stop.clone()));
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

    /// Finishes batches that have begun, then leaves the bus, so that others take over at once.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.ground.leave().await;
    }
}

/// The shards of one side that run in this process.
struct Running {
    shards: BTreeMap<u16, (CancellationToken, JoinHandle<()>)>,
    census: Census,
    /// Set until it is known what this process owns.
    undecided: bool,
}

impl Running {
    async fn follow(
        mut self,
        mut owned: watch::Receiver<BTreeSet<u16>>,
        run: impl Fn(u16, CancellationToken) -> JoinHandle<()>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                changed = owned.changed() => match changed {
                    Ok(()) => {}
                    Err(_) => stop.cancelled().await,
                },
                () = stop.cancelled() => {}
            }
            let wanted = if stop.is_cancelled() { BTreeSet::new() } else { owned.borrow_and_update().clone() };
            let gone: Vec<u16> = self.shards.keys().filter(|index| !wanted.contains(index)).copied().collect();
            self.end(&gone).await;
            if stop.is_cancelled() {
                return;
            }
            self.begin(&wanted, &run);
            if std::mem::take(&mut self.undecided) {
                self.census.expect(false);
            }
        }
    }

    fn begin(&mut self, wanted: &BTreeSet<u16>, run: &impl Fn(u16, CancellationToken) -> JoinHandle<()>) {
        for index in wanted {
            self.shards.entry(*index).or_insert_with(|| {
                self.census.expect(true);
                let stop = CancellationToken::new();
                (stop.clone(), run(*index, stop))
            });
        }
    }

    /// Ends shards, once their batches are finished: all at a time, because each may wait for its database.
    async fn end(&mut self, indices: &[u16]) {
        let ending: Vec<_> = indices.iter().filter_map(|index| self.shards.remove(index)).collect();
        ending.iter().for_each(|(stop, _)| stop.cancel());
        for (_, task) in ending {
            if let Err(error) = task.await {
                tracing::error!(%error, "a shard ended badly");
            }
            self.census.expect(false);
        }
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
