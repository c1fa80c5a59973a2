//! The sweep (H1): the last of three ways to push a stuck saga. Replies and timers are the first two; this one looks
//! for sagas whose time is long over and sends each a retry, like any operator would; but what waits for a person it wakes
//! not. A push moves no timer by itself, so each run goes on behind the last one, and begins again when it is through.

use crate::gateway::Gateway;
use crate::job::{Job, Report};
use async_trait::async_trait;
use endstate_events::{Actor, InputBody, Lane, Operation, SagaId};
use endstate_outbox::{Kind, Row, Rows, Statement, StoreError};
use serde_json::json;
use std::sync::{Mutex, PoisonError};
use uuid::Uuid;

static OVERDUE: Statement = Statement {
    name: "sweep.overdue",
    columns: &[Kind::Int, Kind::Int, Kind::Id, Kind::Int],
    sql: "with r(before_ms, after_ms, after, page) as ({rows}) select s.id, s.phase, s.due from saga s, r \
          where s.due is not null and s.due < r.before_ms and s.due >= r.after_ms \
          and (s.due > r.after_ms or s.id > r.after) \
          and s.phase in ('running', 'waiting', 'compensating', 'reversing') \
          order by s.due, s.id limit (select page from r)",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&OVERDUE];

/// Finds sagas past their time and pushes them.
pub struct Sweep {
    gateway: Gateway,
    overdue_ms: i64,
    limit: u32,
    /// Due and id of the last saga that the last run pushed; none when it was through.
    behind: Mutex<Option<(i64, SagaId)>>,
}

impl Sweep {
    /// A saga is overdue when its timer is more than `overdue_ms` late; one run pushes at most `limit`.
    #[must_use]
    pub fn new(gateway: Gateway, overdue_ms: i64, limit: u32) -> Self {
        Self { gateway, overdue_ms, limit, behind: Mutex::default() }
    }

    async fn push(&self, saga: SagaId, now_ms: i64, late_s: i64) -> Result<(), String> {
        let body = InputBody::Operate {
            operation: Operation::Retry,
            reason: format!("its timer is {late_s} s late"),
            actor: Actor { subject: "sweep".to_owned(), role: Actor::SYSTEM.to_owned() },
        };
        // One push per run: a repeat of the run's own input changes nothing, the next run's is another.
        let id = format!("sweep/{saga}/{now_ms}");
        self.gateway.send(saga, id, Lane::Live, body).await.map_err(|error| error.to_string())
    }

    /// A page of those whose timer was due before, behind one of them.
    async fn overdue(
        &self,
        before_ms: i64,
        behind: Option<(i64, SagaId)>,
    ) -> Result<Vec<(SagaId, String, i64)>, StoreError> {
        let (after_ms, after) = behind.unwrap_or((i64::MIN, SagaId(Uuid::nil())));
        let rows = Rows::one([before_ms.into(), after_ms.into(), after.0.into(), i64::from(self.limit).into()]);
        Ok(self.gateway.store().read(&OVERDUE, rows).await?.iter().filter_map(overdue_saga).collect())
    }
}

#[async_trait]
impl Job for Sweep {
    fn name(&self) -> &'static str {
        "sweep"
    }

    fn about(&self) -> &'static str {
        "pushes sagas past their time"
    }

    async fn run(&self, now_ms: i64, dry_run: bool) -> Result<Report, StoreError> {
        let mut report = Report::default();
        let before_ms = now_ms - self.overdue_ms;
        let behind = *self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        let mut overdue = self.overdue(before_ms, behind).await?;
        if overdue.is_empty() && behind.is_some() {
            overdue = self.overdue(before_ms, None).await?;
        }
        if !dry_run {
            let is_full = overdue.len() >= self.limit as usize;
            let last = overdue.last().filter(|_| is_full).map(|(saga, _, due_ms)| (*due_ms, *saga));
            *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = last;
        }
        for (saga, phase, due_ms) in overdue {
            report.found += 1;
            let late_s = (now_ms - due_ms) / 1_000;
            let pushed = if dry_run { Ok(()) } else { self.push(saga, now_ms, late_s).await };
            report.changed += usize::from(pushed.is_ok() && !dry_run);
            report.details.push(json!({ "overdue": saga, "phase": phase, "late_s": late_s, "error": pushed.err() }));
        }
        Ok(report)
    }
}

fn overdue_saga(row: &Row) -> Option<(SagaId, String, i64)> {
    let [saga, phase, due] = row.as_slice() else { return None };
    Some((SagaId(saga.id()?), phase.text()?.to_owned(), due.int()?))
}

impl std::fmt::Debug for Sweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweep")
            .field("overdue_ms", &self.overdue_ms)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
