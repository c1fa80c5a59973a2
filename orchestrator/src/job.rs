//! Scheduled jobs: the cron library is only a clock; who may run is a lease row, what a run did is a record.

use async_trait::async_trait;
use endstate_events::Json;
use endstate_outbox::{
    Clock, Commit, CommitError, Kind, Metric, Row, Rows, Statement, Store, StoreError, Value, Write,
};
use rustc_hash::FxHashSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_cron_scheduler::{Job as Tick, JobScheduler, JobSchedulerError};
use uuid::Uuid;

/// How long a lease holds without being renewed: longer than any run is meant to take.
const LEASE_MS: i64 = 10 * 60 * 1000;

/// Differences that a run's record shows at most; the counts are always whole.
const DETAILS: usize = 100;

/// Takes the lease when it is free, over, or ours already. Judged by the row itself: another process may have taken it in
/// this very moment.
static TAKE: Statement = Statement {
    name: "job.take_lease",
    columns: &[Kind::Text, Kind::Text, Kind::Int, Kind::Int],
    sql: "with r(job, owner, now_ms, until_ms) as ({rows}) \
          insert into job_lease (job, owner, until_ms) select job, owner, until_ms from r where true \
          on conflict (job) do update set owner = excluded.owner, until_ms = excluded.until_ms \
          where job_lease.owner = excluded.owner \
          or job_lease.until_ms <= (select r.now_ms from r where r.job = excluded.job)",
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
    columns: &[Kind::Text, Kind::Text, Kind::Int, Kind::Int, Kind::Int, Kind::Text, Kind::Text],
    sql: "with r(job, owner, due_ms, started_ms, dry_run, asked_by, reason) as ({rows}) \
          insert into job_run (job, owner, due_ms, started_ms, dry_run, asked_by, reason) \
          select job, owner, due_ms, started_ms, dry_run, asked_by, reason from r where true",
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
    columns: &[Kind::Text, Kind::Int, Kind::Int],
    sql: "with r(job, before_id, page) as ({rows}) select j.id, j.job, j.due_ms, j.started_ms, j.ended_ms, j.outcome, \
          j.dry_run, j.found, j.changed, j.details, j.error, j.asked_by, j.reason from r cross join job_run j \
          where j.job = r.job and j.id < r.before_id order by j.id desc limit (select page from r)",
};

/// Runs that ended before then and that a later one, which was done, stands for.
macro_rules! old_runs {
    () => {
        "from r cross join job_run j where j.ended_ms < r.before_ms and exists (select 1 from job_run d \
         where d.job = j.job and d.started_ms > j.started_ms and d.outcome = 'done' and d.dry_run = 0)"
    };
}

/// How many of them there are.
pub(crate) static OLD_RUNS: Statement = Statement {
    name: "job.old_runs",
    columns: &[Kind::Int],
    sql: concat!("with r(before_ms) as ({rows}) select count(*) ", old_runs!()),
};

/// Deletes at most a page of them.
pub(crate) static PURGE_RUNS: Statement = Statement {
    name: "job.purge_runs",
    columns: &[Kind::Int, Kind::Int],
    sql: concat!(
        "with r(before_ms, page) as ({rows}) delete from job_run where id in (select j.id ",
        old_runs!(),
        " order by j.id limit (select page from r))"
    ),
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&TAKE, &GIVE, &ABANDON, &BEGIN, &END, &RUNS, &OLD_RUNS, &PURGE_RUNS];

/// Work that the clock, or a person, starts.
#[async_trait]
pub trait Job: Send + Sync + 'static {
    /// Its name in records.
    fn name(&self) -> &'static str;

    /// What it does, in one line.
    fn about(&self) -> &'static str;

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
    /// Its id; later runs have higher ones. 0 for one just made.
    pub id: i64,
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
    /// Who ran it by hand; none for the clock.
    pub asked: Option<Asked>,
}

/// A person's wish that a job runs now.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Asked {
    /// Subject of the operator.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// A job with its schedule.
#[derive(Clone)]
pub struct Entry {
    /// `second minute hour day month weekday`, UTC.
    pub schedule: String,
    /// What runs.
    pub job: Arc<dyn Job>,
}

/// Why a job did not run.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// It runs already.
    #[error("E3060: {0} runs already, here or in another process; wait for it, or for its lease to end")]
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
    timetable: Vec<Entry>,
    /// Jobs that run in this process: the lease tells processes apart, not two runs of one.
    running: Mutex<FxHashSet<&'static str>>,
}

/// A job's place among the running ones; free again when dropped.
struct Running<'a> {
    jobs: &'a Jobs,
    name: &'static str,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.jobs.running.lock().unwrap_or_else(PoisonError::into_inner).remove(self.name);
    }
}

impl Jobs {
    /// `owner` tells this process from others.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, owner: Uuid, timetable: Vec<Entry>) -> Self {
        Self { store, clock, owner: owner.to_string(), timetable, running: Mutex::default() }
    }

    /// The jobs there are.
    #[must_use]
    pub fn timetable(&self) -> &[Entry] {
        &self.timetable
    }

    /// A job by its name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<dyn Job>> {
        self.timetable.iter().find(|entry| entry.job.name() == name).map(|entry| Arc::clone(&entry.job))
    }

    /// Runs a job now, unless it runs already. A failed run is recorded and is not this call's failure.
    pub async fn run(&self, job: &dyn Job, dry_run: bool, asked: Option<Asked>) -> Result<Run, JobError> {
        let _running = self.enter(job.name())?;
        let started_ms = self.clock.now_ms();
        self.take(job.name(), started_ms, dry_run, asked.as_ref()).await?;
        let result = job.run(started_ms, dry_run).await;
        let ended_ms = self.clock.now_ms();
        let (outcome, report, error) = match result {
            Ok(report) => ("done", report, None),
            Err(error) => ("failed", Report::default(), Some(error.to_string())),
        };
        Metric::JobRuns.add(1, &[job.name(), outcome]);
        Metric::JobDuration.record((ended_ms - started_ms).max(0) as f64 / 1_000.0, &[job.name()]);
        if let Some(error) = &error {
            tracing::error!(job = job.name(), error, "a scheduled job failed");
        }
        let details = Json::from(report.details.iter().take(DETAILS).cloned().collect::<Vec<_>>());
        let (found, changed) = (report.found as i64, report.changed as i64);
        let end = Rows::one([
            job.name().into(),
            self.owner.as_str().into(),
            ended_ms.into(),
            outcome.into(),
            found.into(),
            changed.into(),
            details.to_string().into(),
            error.clone().into(),
        ]);
        let give = Rows::one([job.name().into(), self.owner.as_str().into()]);
        self.commit(vec![Write::any(&END, end), Write::any(&GIVE, give)]).await?;
        Ok(Run {
            id: 0,
            job: job.name().to_owned(),
            due_ms: started_ms,
            started_ms,
            ended_ms: Some(ended_ms),
            outcome: Some(outcome.to_owned()),
            dry_run,
            found,
            changed,
            details,
            error,
            asked,
        })
    }

    /// The last runs of a job before the run `before`, newest first.
    pub async fn runs(&self, job: &str, before: i64, page: i64) -> Result<Vec<Run>, StoreError> {
        let rows = self.store.read(&RUNS, Rows::one([job.into(), before.into(), page.into()])).await?;
        Ok(rows.iter().filter_map(run).collect())
    }

    fn enter(&self, name: &'static str) -> Result<Running<'_>, JobError> {
        match self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(name) {
            true => Ok(Running { jobs: self, name }),
            false => Err(JobError::Taken(name)),
        }
    }

    async fn take(&self, job: &'static str, now_ms: i64, dry_run: bool, asked: Option<&Asked>) -> Result<(), JobError> {
        let lease = Rows::one([job.into(), self.owner.as_str().into(), now_ms.into(), (now_ms + LEASE_MS).into()]);
        let abandoned = Rows::one([job.into(), now_ms.into()]);
        let begun = Rows::one([
            job.into(),
            self.owner.as_str().into(),
            now_ms.into(),
            now_ms.into(),
            i64::from(dry_run).into(),
            asked.map(|asked| asked.by.as_str()).into(),
            asked.map(|asked| asked.reason.as_str()).into(),
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

/// Lets the clock start the jobs of the timetable until it is dropped. A run that is due while the one before still runs
/// is left out.
pub async fn schedule(jobs: Arc<Jobs>) -> Result<JobScheduler, JobError> {
    let refused = |schedule: &str| {
        let schedule = schedule.to_owned();
        move |error: JobSchedulerError| JobError::Schedule { schedule, reason: error.to_string() }
    };
    let clock = JobScheduler::new().await.map_err(refused("the clock"))?;
    for Entry { schedule, job } in &jobs.timetable {
        let (jobs, job) = (Arc::clone(&jobs), Arc::clone(job));
        let tick = Tick::new_async(schedule.as_str(), move |_, _| {
            let (jobs, job) = (Arc::clone(&jobs), Arc::clone(&job));
            Box::pin(async move {
                match jobs.run(&*job, false, None).await {
                    Ok(_) | Err(JobError::Taken(_)) => {}
                    Err(error) => tracing::error!(job = job.name(), %error, "a scheduled job could not run"),
                }
            })
        })
        .map_err(refused(schedule))?;
        clock.add(tick).await.map_err(refused(schedule))?;
    }
    clock.start().await.map_err(refused("the clock"))?;
    Ok(clock)
}

fn run(row: &Row) -> Option<Run> {
    let [id, job, due, started, ended, outcome, dry_run, found, changed, details, error, by, reason] = row.as_slice()
    else {
        return None;
    };
    let text = |value: &Value| value.text().map(str::to_owned);
    Some(Run {
        id: id.int()?,
        job: text(job)?,
        due_ms: due.int()?,
        started_ms: started.int()?,
        ended_ms: ended.int(),
        outcome: text(outcome),
        dry_run: dry_run.int()? == 1,
        found: found.int()?,
        changed: changed.int()?,
        details: details.text().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
        error: text(error),
        asked: text(by).zip(text(reason)).map(|(by, reason)| Asked { by, reason }),
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

        fn about(&self) -> &'static str {
            "takes its time"
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
            self.scheduled(owner, Vec::new())
        }

        fn scheduled(&self, owner: u128, timetable: Vec<Entry>) -> Arc<Jobs> {
            Arc::new(Jobs::new(Arc::clone(&self.store), self.clock.clone(), Uuid::from_u128(owner), timetable))
        }
    }

    #[tokio::test]
    async fn a_job_runs_in_one_place_and_leaves_its_record() {
        let world = World::new().await;
        let (first, second, slow) = (world.jobs(1), world.jobs(2), Arc::new(Slow::default()));
        let running = tokio::spawn({
            let (first, slow) = (Arc::clone(&first), Arc::clone(&slow));
            async move { first.run(&*slow, false, None).await }
        });
        slow.started.notified().await;
        for other in [&first, &second] {
            assert!(matches!(other.run(&*slow, false, None).await, Err(JobError::Taken("slow"))));
        }
        slow.go.notify_one();
        assert_eq!(running.await.unwrap().unwrap().changed, 2);

        slow.go.notify_one();
        let asked = Asked { by: "ann".into(), reason: "OPS-1".into() };
        let by_hand = second.run(&*slow, true, Some(asked)).await.unwrap();
        assert_eq!((by_hand.changed, by_hand.outcome.as_deref()), (0, Some("done")));
        let runs = first.runs("slow", i64::MAX, 10).await.unwrap();
        assert_eq!(runs[0], Run { id: runs[0].id, ..by_hand });
        assert_eq!(first.runs("slow", runs[0].id, 10).await.unwrap(), runs[1..]);
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
            _ = dead.run(&slow, false, None) => unreachable!("nobody lets it go"),
            () = slow.started.notified() => {}
        }
        assert!(matches!(next.run(&slow, false, None).await, Err(JobError::Taken(_))));
        world.clock.advance(LEASE_MS + 1);
        slow.go.notify_one();
        next.run(&slow, false, None).await.unwrap();
        let outcomes: Vec<_> =
            next.runs("slow", i64::MAX, 10).await.unwrap().into_iter().map(|run| run.outcome).collect();
        assert_eq!(outcomes, [Some("done".to_owned()), Some("abandoned".to_owned())]);
    }

    #[tokio::test]
    async fn a_schedule_that_makes_no_sense_is_refused_by_name() {
        let world = World::new().await;
        let timetable = vec![Entry { schedule: "every now and then".to_owned(), job: Arc::new(Slow::default()) }];
        let error = schedule(world.scheduled(1, timetable)).await.err().expect("refused").to_string();
        assert!(error.contains("E3061") && error.contains("every now and then"), "{error}");
    }

    #[tokio::test]
    async fn the_clock_runs_a_job() {
        let world = World::new().await;
        let slow = Arc::new(Slow::default());
        slow.go.notify_one();
        let jobs = world.scheduled(1, vec![Entry { schedule: "* * * * * *".to_owned(), job: slow.clone() }]);
        let _clock = schedule(jobs).await.unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(3), slow.started.notified()).await.unwrap();
    }
}
