//! The job that lets go of old days: on PostgreSQL, events and outbox lie in one partition per day, and days that nobody
//! needs are dropped whole. The embedded store needs none: its bus deletes what was read, its archive what has ended.

use async_trait::async_trait;
use endstate_orchestrator::job::{Job, Report};
use endstate_outbox::{PostgresStore, StoreError};
use serde_json::json;
use std::sync::Arc;

/// Drops days.
pub(crate) struct Days {
    store: Arc<PostgresStore>,
    outbox_days: i64,
    event_days: i64,
}

impl Days {
    /// Messages stay for `outbox_days` after they were sent; events for `event_days`, and as long as their sagas' rows.
    pub(crate) fn new(store: Arc<PostgresStore>, outbox_days: u32, event_days: u32) -> Self {
        Self { store, outbox_days: i64::from(outbox_days), event_days: i64::from(event_days) }
    }
}

#[async_trait]
impl Job for Days {
    fn name(&self) -> &'static str {
        "days"
    }

    fn about(&self) -> &'static str {
        "drops days of messages that were sent, and of events whose sagas are archived"
    }

    async fn run(&self, _: i64, dry_run: bool) -> Result<Report, StoreError> {
        let Self { store, outbox_days, event_days } = self;
        let days = match dry_run {
            true => store.old_days(*outbox_days, *event_days).await?,
            false => store.drop_old_days(*outbox_days, *event_days).await?,
        };
        let changed = if dry_run { 0 } else { days.len() };
        Ok(Report { found: days.len(), changed, details: days.iter().map(|day| json!({ "day": day })).collect() })
    }
}
