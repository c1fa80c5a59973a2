//! The sweep (H1): the last of three ways to push a stuck saga. Replies and timers are the first two; this one looks
//! for sagas whose time is long over and sends each a retry, like any operator would.

use crate::gateway::Gateway;
use crate::job::{Job, Report};
use async_trait::async_trait;
use endstate_events::{Actor, InputBody, Lane, Operation, SagaId};
use endstate_outbox::{Kind, Row, Rows, Statement, StoreError};
use serde_json::json;

static OVERDUE: Statement = Statement {
    name: "sweep.overdue",
    columns: &[Kind::Int, Kind::Int],
    sql: "with r(before_ms, page) as ({rows}) select s.id, s.phase, s.due from saga s, r where s.due is not null \
          and s.due < r.before_ms and s.phase in ('running', 'waiting', 'compensating', 'reversing') \
          order by s.due limit (select page from r)",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&OVERDUE];

/// Finds sagas past their time and pushes them.
pub struct Sweep {
    gateway: Gateway,
    overdue_ms: i64,
    limit: u32,
}

impl Sweep {
    /// A saga is overdue when its timer is more than `overdue_ms` late; one run pushes at most `limit`.
    #[must_use]
    pub fn new(gateway: Gateway, overdue_ms: i64, limit: u32) -> Self {
        Self { gateway, overdue_ms, limit }
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
        let rows = Rows::one([(now_ms - self.overdue_ms).into(), i64::from(self.limit).into()]);
        let overdue = self.gateway.store().read(&OVERDUE, rows).await?;
        for (saga, phase, due_ms) in overdue.iter().filter_map(overdue_saga) {
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
