//! Scheduled jobs: the cron library is only a clock; who may run is a lease row, what a run did is a record.

use async_trait::async_trait;
use endstate_events::Json;
use endstate_outbox::{Clock, Commit, CommitError, Kind, Row, Rows, Statement, Store, StoreError, Write};
use std::sync::Arc;
use tokio_cron_scheduler::{Job as Tick, JobScheduler, JobSchedulerError};
use uuid::Uuid;

/// How long a lease holds without being renewed: longer than any run is meant to take.
const LEASE_MS: i64 = 10 * 60 * 1000;

/// Differences that a run's record shows at most; the counts are always whole.
const DETAILS: usize = 100;

/// Takes the lease when it is free, over, or ours already.
static TAKE: Statement = Statement {
    name: "job.take_lease",
    columns: &[Kind::Text, Kind::Text, Kind::Int, Kind::Int],
    sql: "with r(job, owner, now_ms, until_ms) as ({rows}) \
          insert into job_lease (job, owner, until_ms) select job, owner, until_ms from r \
          where not exists (select 1 from job_lease l where l.job = r.job and l.owner <> r.owner \
          and l.until_ms > r.now_ms) \
          on conflict (job) do update set owner = excluded.owner, until_ms = excluded.until_ms",
};

/// Gives the lease back, if it is still ours.
static GIVE: Statement = Statement {
    name: "job.give_lease",
    columns: &[Kind::Text, Kind::Text],
    sql: "with r(job, owner) as ({rows}) update job_lease set until_ms = 0 from r \
          where job_lease.job = r.job and job_lease.owner = r.owner",
};

/// Whoever has the lease knows that an open run of the job has nobody behind it.
static ABANDON: Statement = Statement {
    name: "job.abandon_runs",
    columns: &[Kind::Text, Kind::Int],
    sql: "with r(job, now_ms) as ({rows}) update job_run set ended_ms = r.now_ms, outcome = 'abandoned' from r \
          where job_run.job = r.job and job_run.ended_ms is null",
};

static BEGIN: Statement = Statement {
    name: "job.begin_run",
    columns: &[Kind::Text, Kind::Text, Kind::Int, Kind::Int, Kind::Int],
    sql: "with r(job, owner, due_ms, started_ms, dry_run) as ({rows}) \
          insert into job_run (job, owner, due_ms, started_ms, dry_run) \
          select job, owner, due_ms, started_ms, dry_run from r where true",
};

static END: Statement = Statement {
    name: "job.end_run",
    columns: &[Kind::Text, Kind::Text, Kind::Int, Kind::Text, Kind::Int, Kind::Int, Kind::Text, Kind::Text],
    sql: "with r(job, owner, ended_ms, outcome, found, changed, details, error) as ({rows}) \
          update job_run set ended_ms = r.ended_ms, outcome = r.outcome, found = r.found, changed = r.changed, \
          details = r.details, error = r.error from r \
          where job_run.job = r.job and job_run.owner = r.owner and job_run.ended_ms is null",
};

static RUNS: Statement = Statement {
    name: "job.list_runs",
    columns: &[Kind::Int],
    sql: "with r(page) as ({rows}) select j.job, j.due_ms, j.started_ms, j.ended_ms, j.outcome, j.dry_run, j.found, \
          j.changed, j.details, j.error from job_run j order by j.id desc limit (select page from r)",
};

/// Work that the clock, or a person, starts.
#[async_trait]
pub trait Job: Send + Sync + 'static {
    /// Its name in records.
    fn name(&self) -> &'static str;

    /// Does it; a dry run only looks.
    async fn run(&self, now_ms: i64, dry_run: bool) -> Result<Report, StoreError>;
}

/// What a run found and did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// How many differences there were.
    pub found: usize,
    /// How many it changed.
    pub changed: usize,
    /// The differences themselves.
    pub details: Vec<Json>,
}

/// A recorded run.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Run {
    /// The job.
    pub job: String,
    /// When the clock meant it to run.
    pub due_ms: i64,
    /// When it began.
    pub started_ms: i64,
    /// When it ended; none while it runs.
    pub ended_ms: Option<i64>,
    /// `done`, `failed` or `abandoned`; none while it runs.
    pub outcome: Option<String>,
    /// Whether it only looked.
    pub dry_run: bool,
    /// How many differences it found.
    pub found: i64,
    /// How many it changed.
    pub changed: i64,
    /// The first hundred of them.
    pub details: Json,
    /// Why it failed.
    pub error: Option<String>,
}

/// Why a job did not run.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// It runs elsewhere.
    #[error("E3060: {0} runs in another process; wait for it, or for its lease to end")]
    Taken(&'static str),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take the record.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The clock does not understand the schedule.
    #[error("E3061: the schedule `{schedule}` is refused: {reason}; expected `second minute hour day month weekday`")]
    Schedule {
        /// What was configured.
        schedule: String,
        /// Why.
        reason: String,
    },
}

/// Runs jobs, one at a time each, and keeps their records.
pub struct Jobs {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    owner: String,
}

impl Jobs {
    /// `owner` tells this process from others.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, owner: Uuid) -> Self {
        Self { store, clock, owner: owner.to_string() }
    }

    /// Runs a job now, unless it runs elsewhere. A failed run is recorded and is not this call's failure.
    pub async fn run(&self, job: &dyn Job, dry_run: bool) -> Result<Report, JobError> {
        let now_ms = self.clock.now_ms();
        self.take(job.name(), now_ms, dry_run).await?;
        let result = job.run(now_ms, dry_run).await;
        let ended_ms = self.clock.now_ms();
        let (outcome, report, error) = match result {
            Ok(report) => ("done", report, None),
            Err(error) => ("failed", Report::default(), Some(error.to_string())),
        };
        if let Some(error) = &error {
            tracing::error!(job = job.name(), error, "a scheduled job failed");
        }
        let details = Json::from(report.details.iter().take(DETAILS).cloned().collect::<Vec<_>>()).to_string();
        let end = Rows::one([
            job.name().into(),
            self.owner.as_str().into(),
            ended_ms.into(),
            outcome.into(),
            (report.found as i64).into(),
            (report.changed as i64).into(),
            details.into(),
            error.into(),
        ]);
        let give = Rows::one([job.name().into(), self.owner.as_str().into()]);
        self.commit(vec![Write::any(&END, end), Write::any(&GIVE, give)]).await?;
        Ok(report)
    }

    /// The last runs of all jobs, newest first.
    pub async fn runs(&self, page: u32) -> Result<Vec<Run>, StoreError> {
        let rows = self.store.read(&RUNS, Rows::one([i64::from(page).into()])).await?;
        Ok(rows.iter().filter_map(run).collect())
    }

    async fn take(&self, job: &'static str, now_ms: i64, dry_run: bool) -> Result<(), JobError> {
        let lease = Rows::one([job.into(), self.owner.as_str().into(), now_ms.into(), (now_ms + LEASE_MS).into()]);
        let abandoned = Rows::one([job.into(), now_ms.into()]);
        let begun = Rows::one([
            job.into(),
            self.owner.as_str().into(),
            now_ms.into(),
            now_ms.into(),
            i64::from(dry_run).into(),
        ]);
        // The lease is the guard of all three: not taken, nothing is written.
        let writes = vec![Write::exact(&TAKE, lease), Write::any(&ABANDON, abandoned), Write::exact(&BEGIN, begun)];
        match self.commit(writes).await {
            Err(JobError::Commit(CommitError::Conflict { .. })) => Err(JobError::Taken(job)),
            other => other,
        }
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<(), JobError> {
        self.store.commit(Commit { writes, ..Commit::default() }).await?;
        Ok(())
    }
}

/// Lets the clock start jobs until it is dropped: (schedule, job) pairs, in UTC. A run that is due while the one before
/// still runs is left out.
pub async fn schedule(jobs: Arc<Jobs>, timetable: Vec<(String, Arc<dyn Job>)>) -> Result<JobScheduler, JobError> {
    let refused = |schedule: &str| {
        let schedule = schedule.to_owned();
        move |error: JobSchedulerError| JobError::Schedule { schedule, reason: error.to_string() }
    };
    let clock = JobScheduler::new().await.map_err(refused("the clock"))?;
    for (schedule, job) in timetable {
        let jobs = Arc::clone(&jobs);
        let running = Arc::new(tokio::sync::Mutex::new(()));
        let tick = Tick::new_async(schedule.as_str(), move |_, _| {
            let (jobs, job, running) = (Arc::clone(&jobs), Arc::clone(&job), Arc::clone(&running));
            Box::pin(async move {
                let Ok(_alone) = running.try_lock() else { return };
                match jobs.run(&*job, false).await {
                    Ok(_) | Err(JobError::Taken(_)) => {}
                    Err(error) => tracing::error!(job = job.name(), %error, "a scheduled job could not run"),
                }
            })
        })
        .map_err(refused(&schedule))?;
        clock.add(tick).await.map_err(refused(&schedule))?;
    }
    clock.start().await.map_err(refused("the clock"))?;
    Ok(clock)
}

fn run(row: &Row) -> Option<Run> {
    let [job, due, started, ended, outcome, dry_run, found, changed, details, error] = row.as_slice() else {
        return None;
    };
    Some(Run {
        job: job.text()?.to_owned(),
        due_ms: due.int()?,
        started_ms: started.int()?,
        ended_ms: ended.int(),
        outcome: outcome.text().map(str::to_owned),
        dry_run: dry_run.int()? == 1,
        found: found.int()?,
        changed: changed.int()?,
        details: details.text().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
        error: error.text().map(str::to_owned),
    })
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("owner", &self.owner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use endstate_outbox::{ManualClock, SqliteStore};
    use tokio::sync::Notify;

    /// Runs until it is let go.
    #[derive(Default)]
    struct Slow {
        started: Notify,
        go: Notify,
    }

    #[async_trait]
    impl Job for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }

        async fn run(&self, _: i64, dry_run: bool) -> Result<Report, StoreError> {
            self.started.notify_one();
            self.go.notified().await;
            Ok(Report { found: 2, changed: if dry_run { 0 } else { 2 }, details: vec![Json::from("x")] })
        }
    }

    struct World {
        _folder: tempfile::TempDir,
        store: Arc<dyn Store>,
        clock: Arc<ManualClock>,
    }

    impl World {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = SqliteStore::open(folder.path()).await.unwrap();
            Self { _folder: folder, store, clock: Arc::new(ManualClock::new(1_000)) }
        }

        fn jobs(&self, owner: u128) -> Arc<Jobs> {
            Arc::new(Jobs::new(Arc::clone(&self.store), self.clock.clone(), Uuid::from_u128(owner)))
        }
    }

    #[tokio::test]
    async fn a_job_runs_in_one_place_and_leaves_its_record() {
        let world = World::new().await;
        let (first, second, slow) = (world.jobs(1), world.jobs(2), Arc::new(Slow::default()));
        let running = tokio::spawn({
            let (first, slow) = (Arc::clone(&first), Arc::clone(&slow));
            async move { first.run(&*slow, false).await }
        });
        slow.started.notified().await;
        assert!(matches!(second.run(&*slow, false).await, Err(JobError::Taken("slow"))));
        slow.go.notify_one();
        assert_eq!(running.await.unwrap().unwrap().changed, 2);

        slow.go.notify_one();
        assert_eq!(second.run(&*slow, true).await.unwrap().changed, 0);
        let runs = first.runs(10).await.unwrap();
        let outcomes: Vec<_> = runs.iter().map(|run| (run.outcome.as_deref(), run.found, run.dry_run)).collect();
        assert_eq!(outcomes, [(Some("done"), 2, true), (Some("done"), 2, false)]);
        assert_eq!(runs[0].details, serde_json::json!(["x"]));
    }

    #[tokio::test]
    async fn a_run_whose_process_died_is_abandoned_once_its_lease_is_over() {
        let world = World::new().await;
        let (dead, next, slow) = (world.jobs(1), world.jobs(2), Slow::default());
        // Dropped in the middle, as a kill does.
        tokio::select! {
            _ = dead.run(&slow, false) => unreachable!("nobody lets it go"),
            () = slow.started.notified() => {}
        }
        assert!(matches!(next.run(&slow, false).await, Err(JobError::Taken(_))));
        world.clock.advance(LEASE_MS + 1);
        slow.go.notify_one();
        next.run(&slow, false).await.unwrap();
        let outcomes: Vec<_> = next.runs(10).await.unwrap().into_iter().map(|run| run.outcome).collect();
        assert_eq!(outcomes, [Some("done".to_owned()), Some("abandoned".to_owned())]);
    }

    #[tokio::test]
    async fn a_schedule_that_makes_no_sense_is_refused_by_name() {
        let world = World::new().await;
        let timetable: Vec<(String, Arc<dyn Job>)> = vec![("every now and then".to_owned(), Arc::new(Slow::default()))];
        let error = schedule(world.jobs(1), timetable).await.err().expect("refused").to_string();
        assert!(error.contains("E3061") && error.contains("every now and then"), "{error}");
    }

    #[tokio::test]
    async fn the_clock_runs_a_job() {
        let world = World::new().await;
        let slow = Arc::new(Slow::default());
        slow.go.notify_one();
        let jobs = world.jobs(1);
        let timetable: Vec<(String, Arc<dyn Job>)> = vec![("* * * * * *".to_owned(), slow.clone())];
        let _clock = schedule(jobs, timetable).await.unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(3), slow.started.notified()).await.unwrap();
    }
}
