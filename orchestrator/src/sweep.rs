//! The sweep (H1): the last of three ways to push a stuck saga. Replies and timers are the first two; this one looks
//! for sagas whose time is long over, sends each a retry like any operator would, and tells people of parked ones.

use crate::gateway::Gateway;
use crate::handler::Alert;
use crate::job::{Job, Report};
use async_trait::async_trait;
use endstate_events::{Actor, InputBody, Lane, Operation, SagaId};
use endstate_outbox::{Kind, Row, Rows, Statement, StoreError};
use rustc_hash::FxHashSet;
use serde_json::json;
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

/// Parked sagas that one read looks at.
const PAGE: i64 = 500;

static OVERDUE: Statement = Statement {
    name: "sweep.overdue",
    columns: &[Kind::Int, Kind::Int],
    sql: "with r(before_ms, page) as ({rows}) select s.id, s.phase, s.due from saga s, r where s.due is not null \
          and s.due < r.before_ms and s.phase in ('running', 'waiting', 'compensating', 'reversing') \
          order by s.due limit (select page from r)",
};

/// A page of the sagas that have been parked since before a time.
static PARKED: Statement = Statement {
    name: "sweep.parked",
    columns: &[Kind::Int, Kind::Int, Kind::Id, Kind::Int],
    sql: "with r(before_ms, after_ms, after_id, page) as ({rows}) select v.saga, v.started_ms, v.definition, v.number, \
          v.status from r cross join saga_view v where v.phase = 'parked' and v.updated_ms < r.before_ms \
          and (v.started_ms, v.saga) > (r.after_ms, r.after_id) order by v.started_ms, v.saga \
          limit (select page from r)",
};

/// Finds sagas past their time and pushes them; finds parked ones that perhaps nobody was told of, and tells.
pub struct Sweep {
    gateway: Gateway,
    alerts: UnboundedSender<Alert>,
    overdue_ms: i64,
    limit: u32,
    /// What parks from here on is told by its shard. What parked before may have lost its alert in a crash.
    began_ms: i64,
    /// Parked sagas that this process has told of.
    told: Mutex<FxHashSet<SagaId>>,
}

impl Sweep {
    /// A saga is overdue when its timer is more than `overdue_ms` late; one run pushes at most `limit`, and tells of as
    /// many parked ones. Made when the process begins.
    #[must_use]
    pub fn new(gateway: Gateway, alerts: UnboundedSender<Alert>, overdue_ms: i64, limit: u32) -> Self {
        let began_ms = gateway.clock().now_ms();
        Self { gateway, alerts, overdue_ms, limit, began_ms, told: Mutex::default() }
    }

    async fn push(&self, saga: SagaId, now_ms: i64, late_s: i64) -> Result<(), String> {
        let body = InputBody::Operate {
            operation: Operation::Retry,
            reason: format!("its timer is {late_s} s late"),
            actor: Actor { subject: "sweep".to_owned(), role: "system".to_owned() },
        };
        // One push per run: a repeat of the run's own input changes nothing, the next run's is another.
        let id = format!("sweep/{saga}/{now_ms}");
        self.gateway.send(saga, id, Lane::Live, body).await.map_err(|error| error.to_string())
    }

    async fn tell_parked(&self, dry_run: bool, report: &mut Report) -> Result<(), StoreError> {
        let (mut after_ms, mut after) = (i64::MIN, SagaId(Uuid::nil()));
        let mut left = self.limit;
        loop {
            let rows = Rows::one([self.began_ms.into(), after_ms.into(), after.0.into(), PAGE.into()]);
            let page = self.gateway.store().read(&PARKED, rows).await?;
            let full = page.len() as i64 == PAGE;
            for (alert, started_ms) in page.iter().filter_map(parked) {
                (after_ms, after) = (started_ms, alert.saga);
                if self.told.lock().unwrap_or_else(PoisonError::into_inner).contains(&after) {
                    continue;
                }
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
                report.found += 1;
                report.details.push(json!({ "parked": after, "definition": alert.definition, "number": alert.number }));
                if !dry_run {
                    report.changed += 1;
                    self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(after);
                    // Nobody listens while the program stops; the next one tells.
                    self.alerts.send(alert).ok();
                }
            }
            if !full {
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl Job for Sweep {
    fn name(&self) -> &'static str {
        "sweep"
    }

    fn about(&self) -> &'static str {
        "pushes sagas past their time, and tells people of parked ones"
    }

    async fn run(&self, now_ms: i64, dry_run: bool) -> Result<Report, StoreError> {
        let mut report = Report::default();
        let rows = Rows::one([(now_ms - self.overdue_ms).into(), i64::from(self.limit).into()]);
        let overdue = self.gateway.store().read(&OVERDUE, rows).await?;
        for (saga, phase, due_ms) in overdue.iter().filter_map(overdue_saga) {
            report.found += 1;
            let late_s = (now_ms - due_ms) / 1_000;
            let pushed = if dry_run { Ok(()) } else { self.push(saga, now_ms, late_s).await };
            report.changed += usize::from(pushed.is_ok() && !dry_run);
            report.details.push(json!({ "overdue": saga, "phase": phase, "late_s": late_s, "error": pushed.err() }));
        }
        self.tell_parked(dry_run, &mut report).await?;
        Ok(report)
    }
}

fn overdue_saga(row: &Row) -> Option<(SagaId, String, i64)> {
    let [saga, phase, due] = row.as_slice() else { return None };
    Some((SagaId(saga.id()?), phase.text()?.to_owned(), due.int()?))
}

/// The alert about a parked saga, and when that saga began.
fn parked(row: &Row) -> Option<(Alert, i64)> {
    let [saga, started, definition, number, status] = row.as_slice() else { return None };
    let text = format!("still parked, with status {}", status.text()?);
    let (saga, definition, number) = (SagaId(saga.id()?), definition.text()?.into(), number.text()?.into());
    Some((Alert { saga, definition, number, kind: "parked", step: None, text }, started.int()?))
}

impl std::fmt::Debug for Sweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweep")
            .field("overdue_ms", &self.overdue_ms)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
