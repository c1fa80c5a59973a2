//! The archive: sagas that ended long ago leave their rows, events and view, alerts that were told long ago and runs of
//! jobs theirs, so that the store does not grow for ever.
//!
//! Their numbers stay claimed, their discrepancies stay, and what still comes for one waits among the orphans (Z12).
//! An ended saga never changes, so nobody writes what is deleted here. What participants remember is theirs.

use crate::job::{Job, OLD_RUNS, PURGE_RUNS, Report};
use crate::view::DROP_SEARCH;
use async_trait::async_trait;
use endstate_events::SagaId;
use endstate_outbox::{Commit, Kind, Row, Rows, Statement, Store, StoreError, Write, alert};
use rustc_hash::FxHashSet;
use serde_json::json;
use std::sync::Arc;
use tokio::time::{Duration, Instant, sleep};
use uuid::Uuid;

/// Sagas of one transaction: some thousand rows, which hold the writer up for a few milliseconds.
const PAGE: usize = 100;

/// What a run's record shows of what it found.
const SHOWN: usize = 100;

/// A run ends after this long, well before its lease does; the next one goes on.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// Ended sagas, the oldest first: none that belongs to an open one or that an open one belongs to, and none that the view
/// has not followed to its end, as the projector finds its way by the events. Last: null when the saga itself is gone. A
/// rebuild that read it before the archive did, and wrote it after, leaves such a row, and may be stopped before it clears up.
static ENDED: Statement = Statement {
    name: "archive.ended",
    columns: &[Kind::Int, Kind::Int, Kind::Id, Kind::Int],
    sql: "with r(before_ms, after_ms, after_id, page) as ({rows}) \
          select v.saga, v.definition, v.number, v.search, v.started_ms, v.ended_ms, s.id from r \
          cross join saga_view v left join saga s on s.id = v.saga where v.started_ms < r.before_ms and (v.started_ms, v.saga) > (r.after_ms, r.after_id) \
          and v.phase = 'ended' and v.ended_ms < r.before_ms \
          and not exists (select 1 from saga_view l where l.order_saga = v.saga and l.phase <> 'ended') \
          and not exists (select 1 from saga_view o where o.saga = v.order_saga and o.phase <> 'ended') \
          and not exists (select 1 from event e left join projection p on p.shard = e.shard where e.saga = v.saga \
          and e.seq > coalesce(p.seq, 0)) \
          order by v.started_ms, v.saga limit (select page from r)",
};

static DELETE_SAGAS: Statement = Statement {
    name: "archive.delete_sagas",
    columns: &[Kind::Id],
    sql: "delete from saga where phase = 'ended' and id in ({rows})",
};

static DELETE_EVENTS: Statement =
    Statement { name: "archive.delete_events", columns: &[Kind::Id], sql: "delete from event where saga in ({rows})" };

static DELETE_SNAPSHOTS: Statement = Statement {
    name: "archive.delete_snapshots",
    columns: &[Kind::Id],
    sql: "delete from snapshot where saga in ({rows})",
};

static DELETE_VIEW: Statement = Statement {
    name: "archive.delete_view",
    columns: &[Kind::Id],
    sql: "delete from saga_view where saga in ({rows})",
};

/// What is kept for as long to be looked up.
struct Records {
    label: &'static str,
    /// How many there are from before a time.
    old: &'static Statement,
    /// Deletes them, by that time and a page.
    purge: &'static Statement,
}

static RECORDS: [Records; 2] = [
    Records { label: "alerts_told", old: &alert::OLD, purge: &alert::PURGE },
    Records { label: "runs", old: &OLD_RUNS, purge: &PURGE_RUNS },
];

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&ENDED, &DELETE_SAGAS, &DELETE_EVENTS, &DELETE_SNAPSHOTS, &DELETE_VIEW];

/// Knows what participants still hold for sagas.
#[async_trait]
pub trait Holders: Send + Sync + 'static {
    /// Those of `sagas` for which something is held, or a call is open.
    async fn holding(&self, sagas: &[SagaId]) -> Result<Vec<SagaId>, StoreError>;
}

/// Deletes what ended long ago.
pub struct Archive {
    store: Arc<dyn Store>,
    holders: Arc<dyn Holders>,
    keep_ms: i64,
    limit: usize,
}

struct Ended {
    saga: Uuid,
    definition: String,
    number: String,
    search: Vec<(String, String)>,
    started_ms: i64,
    ended_ms: i64,
    is_there: bool,
}

impl Archive {
    /// Sagas are kept for `keep_ms` after their end, alerts after they were told, runs of jobs after their end; one run
    /// archives at most `limit` of each.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, holders: Arc<dyn Holders>, keep_ms: i64, limit: usize) -> Self {
        Self { store, holders, keep_ms, limit }
    }

    async fn delete(&self, page: &[Ended]) -> Result<(), StoreError> {
        let (mut sagas, mut there, mut search) = (Rows::new(), Rows::new(), Rows::new());
        for ended in page {
            sagas.push([ended.saga.into()]);
            if ended.is_there {
                there.push([ended.saga.into()]);
            }
            for (name, value) in &ended.search {
                search.push([name.as_str().into(), value.as_str().into(), ended.started_ms.into(), ended.saga.into()]);
            }
        }
        let writes = vec![
            Write::any(&DELETE_EVENTS, sagas.clone()),
            Write::any(&DELETE_SNAPSHOTS, sagas.clone()),
            Write::any(&DROP_SEARCH, search),
            // The row of a saga that is gone may be cleared up by a rebuild at the same time.
            Write::any(&DELETE_VIEW, sagas),
            // One that is not as the view says keeps everything.
            Write::exact(&DELETE_SAGAS, there),
        ];
        let writes = writes.into_iter().filter(|write| !write.rows.is_empty()).collect();
        self.commit(writes).await.map(drop)
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<u64>, StoreError> {
        let failed = |error| StoreError::Failed { statement: "archive.delete".to_owned(), reason: format!("{error}") };
        self.store.commit(Commit { writes, ..Commit::default() }).await.map_err(failed)
    }

    async fn clear(
        &self,
        records: &Records,
        now_ms: i64,
        dry_run: bool,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let before_ms = now_ms - self.keep_ms;
        let rows = self.store.read(records.old, Rows::one([before_ms.into()])).await?;
        let count = rows.first().and_then(|row| row.first()?.int()).unwrap_or(0);
        let found = usize::try_from(count).unwrap_or(0).min(self.limit);
        if found == 0 {
            return Ok(());
        }
        report.found += found;
        report.details.push(json!({ records.label: found }));
        let mut left = if dry_run { 0 } else { found };
        while left > 0 {
            let page = Rows::one([before_ms.into(), (left.min(PAGE) as i64).into()]);
            let hits = self.commit(vec![Write::any(records.purge, page)]).await?;
            let gone = hits.first().and_then(|hit| usize::try_from(*hit).ok()).unwrap_or(0);
            report.changed += gone;
            left = if gone == 0 { 0 } else { left.saturating_sub(gone) };
        }
        Ok(())
    }
}

#[async_trait]
impl Job for Archive {
    fn name(&self) -> &'static str {
        "archive"
    }

    fn about(&self) -> &'static str {
        "deletes the rows of sagas and runs that ended, and of alerts that were told, long ago"
    }

    async fn run(&self, now_ms: i64, dry_run: bool) -> Result<Report, StoreError> {
        let (begun, mut report, mut after) = (Instant::now(), Report::default(), (i64::MIN, Uuid::nil()));
        while report.found < self.limit && begun.elapsed() < LONGEST {
            let size = PAGE.min(self.limit - report.found) as i64;
            let from = [(now_ms - self.keep_ms).into(), after.0.into(), after.1.into(), size.into()];
            let page: Vec<_> = self.store.read(&ENDED, Rows::one(from)).await?.iter().filter_map(ended).collect();
            let Some(last) = page.last() else { break };
            after = (last.started_ms, last.saga);
            let ids: Vec<SagaId> = page.iter().map(|ended| SagaId(ended.saga)).collect();
            let held: FxHashSet<SagaId> = self.holders.holding(&ids).await?.into_iter().collect();
            let (held, free): (Vec<_>, Vec<_>) = page.into_iter().partition(|ended| held.contains(&SagaId(ended.saga)));
            let of = |ended: &Ended, held: bool| {
                let Ended { definition, number, ended_ms, .. } = ended;
                json!({ "definition": definition, "number": number, "ended_ms": ended_ms, "held": held })
            };
            report.found += held.len() + free.len();
            let all = held.iter().map(|ended| of(ended, true)).chain(free.iter().map(|ended| of(ended, false)));
            report.details.extend(all.take(SHOWN - report.details.len().min(SHOWN)));
            if dry_run || free.is_empty() {
                continue;
            }
            let begun = Instant::now();
            self.delete(&free).await?;
            report.changed += free.len();
            // Others write, too: at most half of the time is ours.
            sleep(begun.elapsed()).await;
        }
        for records in &RECORDS {
            self.clear(records, now_ms, dry_run, &mut report).await?;
        }
        Ok(report)
    }
}

fn ended(row: &Row) -> Option<Ended> {
    let [saga, definition, number, search, started, ended, there] = row.as_slice() else { return None };
    Some(Ended {
        saga: saga.id()?,
        definition: definition.text()?.to_owned(),
        number: number.text()?.to_owned(),
        search: serde_json::from_str(search.text()?).unwrap_or_default(),
        started_ms: started.int()?,
        ended_ms: ended.int()?,
        is_there: there.id().is_some(),
    })
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("keep_ms", &self.keep_ms).field("limit", &self.limit).finish_non_exhaustive()
    }
}
