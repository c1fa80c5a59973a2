//! What is counted in the store rather than as it happens: what is open, what waits, and above all for how long.
//!
//! Looked at where the sweeper is. Several processes may look; they see the same, so whoever adds up takes the highest.

use crate::discrepancy;
use crate::job::Jobs;
use endstate_outbox::metric::Metric;
use endstate_outbox::{Clock, Kind, Row, Rows, Statement, Store, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A look may take so much of the time between two: one that takes a second is repeated after twenty.
const SHARE: u32 = 20;

static OPEN_SAGAS: Statement = Statement {
    name: "measure.open_sagas",
    columns: &[Kind::Text],
    sql: "with r(ended) as ({rows}) select v.definition, v.phase, count(*), min(v.started_ms), min(v.updated_ms) \
          from r cross join saga_view v where v.phase <> 'ended' and v.phase <> r.ended group by v.definition, v.phase",
};

/// One look into the index per shard.
static TIMERS: Statement = Statement {
    name: "measure.timers",
    columns: &[Kind::Int],
    sql: "with r(shard) as ({rows}) select (select min(s.due) from saga s where s.shard = r.shard and s.due is not null) \
          from r",
};

/// Messages and time of the first row that is not published, per shard; a row holds fewer messages than this reaches back.
static UNPUBLISHED: Statement = Statement {
    name: "measure.unpublished",
    columns: &[Kind::Int],
    sql: "with r(shard) as ({rows}) {select 0, null from r where false|\
          select s.next_outbox_seq - s.published_seq, (select o.time_ms from outbox o where o.side = s.side \
          and o.shard = s.shard and o.seq > s.published_seq - 65536 and o.seq + o.messages > s.published_seq \
          order by o.seq limit 1) from r join shard s on s.shard = r.shard where s.next_outbox_seq > s.published_seq}",
};

static WAITING: Statement = Statement {
    name: "measure.waiting",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select 'orphans', count(x.id), min(x.time_ms) from r left join orphan x on r.one = 1 \
          union all select 'dead_letters', count(x.id), min(x.time_ms) from r left join dead_letter x \
          on r.one = 1 and x.replayed_ms is null \
          union all select 'alerts', count(x.id), min(x.time_ms) from r left join alert x \
          on r.one = 1 and x.told_ms is null \
          union all select 'calls', count(x.id), min(x.time_ms) from r left join call x on r.one = 1 \
          union all select 'undrawn', count(x.saga), min(x.since_ms) from r left join undrawn x on r.one = 1",
};

static DONE: Statement = Statement {
    name: "measure.jobs_done",
    columns: &[Kind::Text],
    sql: "with r(job) as ({rows}) select r.job, (select j.ended_ms from job_run j where j.job = r.job \
          and j.outcome = 'done' and j.dry_run = 0 order by j.started_ms desc limit 1), \
          (select min(j.started_ms) from job_run j where j.job = r.job and j.dry_run = 0) from r",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&OPEN_SAGAS, &TIMERS, &UNPUBLISHED, &WAITING, &DONE];

/// Looks at a store, again and again.
pub struct Measure {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    jobs: Arc<Jobs>,
    every: Duration,
    began_ms: i64,
    /// Definitions and phases that were told of: one without sagas is told of as zero.
    told: BTreeSet<(String, String)>,
}

impl Measure {
    /// Looks every so often, seldom enough that the store hardly notices.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, jobs: Arc<Jobs>, every: Duration) -> Self {
        let began_ms = clock.now_ms();
        Self { store, clock, jobs, every, began_ms, told: BTreeSet::new() }
    }

    /// Looks until it is dropped. While the store fails, the last numbers stay, and the counter of looks says so.
    pub async fn run(mut self) {
        loop {
            let began = Instant::now();
            let done = match self.look().await {
                Ok(()) => "done",
                Err(error) => {
                    tracing::warn!(%error, "what waits in the store could not be counted");
                    "failed"
                }
            };
            Metric::Measured.add(1, &[done]);
            tokio::time::sleep(self.every.max(began.elapsed() * SHARE)).await;
        }
    }

    /// One look.
    pub async fn look(&mut self) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        let shards = || {
            let mut rows = Rows::new();
            (0..self.store.partitions()).for_each(|shard| rows.push([i64::from(shard).into()]));
            rows
        };
        let (timers, unpublished) = (shards(), shards());
        self.sagas(now_ms).await?;
        let due = self.store.read(&TIMERS, timers).await?;
        Metric::TimersOverdue.set(age(now_ms, due.iter().filter_map(|row| row[0].int()).min()), &[]);
        let open = self.store.read(&UNPUBLISHED, unpublished).await?;
        let messages: i64 = open.iter().filter_map(|row| row[0].int()).sum();
        Metric::Unpublished.set(messages as f64, &[]);
        Metric::UnpublishedAge.set(age(now_ms, open.iter().filter_map(|row| row[1].int()).min()), &[]);
        for row in self.store.read(&WAITING, Rows::one([1.into()])).await? {
            let (count, oldest) = match row[0].text() {
                Some("orphans") => (Metric::Orphans, Metric::OrphansAge),
                Some("dead_letters") => (Metric::DeadLetters, Metric::DeadLettersAge),
                Some("alerts") => (Metric::AlertsUntold, Metric::AlertsUntoldAge),
                Some("undrawn") => (Metric::Undrawn, Metric::UndrawnAge),
                Some("calls") => (Metric::CallsOpen, Metric::CallsAge),
                Some(_) | None => continue,
            };
            count.set(row[1].int().unwrap_or(0) as f64, &[]);
            oldest.set(age(now_ms, row[2].int()), &[]);
        }
        let (open, oldest) = discrepancy::open(&*self.store).await?;
        Metric::Discrepancies.set(open as f64, &[]);
        Metric::DiscrepanciesAge.set(age(now_ms, oldest), &[]);
        self.jobs(now_ms).await
    }

    async fn sagas(&mut self, now_ms: i64) -> Result<(), StoreError> {
        let mut gone = std::mem::take(&mut self.told);
        for row in self.store.read(&OPEN_SAGAS, Rows::one(["ended".into()])).await? {
            let Some((definition, phase, count, started, updated)) = open_sagas(&row) else { continue };
            let labels = [definition, phase];
            Metric::SagasOpen.set(count as f64, &labels);
            Metric::SagasOldest.set(age(now_ms, Some(started)), &labels);
            Metric::SagasStill.set(age(now_ms, Some(updated)), &labels);
            let told = (definition.to_owned(), phase.to_owned());
            gone.remove(&told);
            self.told.insert(told);
        }
        for (definition, phase) in gone {
            for metric in [Metric::SagasOpen, Metric::SagasOldest, Metric::SagasStill] {
                metric.set(0.0, &[&definition, &phase]);
            }
        }
        Ok(())
    }

    async fn jobs(&self, now_ms: i64) -> Result<(), StoreError> {
        let mut names = Rows::new();
        self.jobs.timetable().iter().for_each(|entry| names.push([entry.job.name().into()]));
        if names.is_empty() {
            return Ok(());
        }
        for row in self.store.read(&DONE, names).await? {
            // One that has never done its work would be missed by nobody, had it no age.
            let since_ms = row[1].int().or(row[2].int()).unwrap_or(self.began_ms);
            if let Some(job) = row[0].text() {
                Metric::JobSinceDone.set(age(now_ms, Some(since_ms)), &[job]);
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Measure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Measure").field("every", &self.every).finish_non_exhaustive()
    }
}

fn open_sagas(row: &Row) -> Option<(&str, &str, i64, i64, i64)> {
    let [definition, phase, count, started, updated] = row.as_slice() else { return None };
    Some((definition.text()?, phase.text()?, count.int()?, started.int()?, updated.int()?))
}

/// Seconds since a moment; 0 for one that is none or to come.
fn age(now_ms: i64, since_ms: Option<i64>) -> f64 {
    since_ms.map_or(0.0, |since_ms| (now_ms - since_ms).max(0) as f64 / 1_000.0)
}
