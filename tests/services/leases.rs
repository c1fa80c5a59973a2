//! A job runs in one process at a time, also where two ask at the same moment.

use crate::town::{PATIENCE, Town};
use async_trait::async_trait;
use endstate_orchestrator::job::{Job, JobError, Jobs, Report};
use endstate_outbox::postgres::Settings;
use endstate_outbox::{ManualClock, PostgresStore, StoreError};
use std::sync::Arc;
use uuid::Uuid;

struct Nothing;

#[async_trait]
impl Job for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }

    fn about(&self) -> &'static str {
        "does nothing"
    }

    async fn run(&self, _now_ms: i64, _dry_run: bool) -> Result<Report, StoreError> {
        // Whoever ends gives the lease back.
        std::future::pending().await
    }
}

#[tokio::test]
async fn of_two_processes_that_take_a_lease_in_one_moment_one_has_it() {
    let town = Town::new();
    let url = town.variable("ENDSTATE_STORE_URL");
    PostgresStore::migrate(url).await.unwrap();
    let clock = Arc::new(ManualClock::new(1_000_000));
    // Nobody has had it; then somebody has, and it is over.
    for round in 0..2 {
        // Both get as far as the lease, and not to the end of their transactions.
        let lock = town.transaction("lock table job_run in share mode");
        let mut runs = tokio::task::JoinSet::new();
        for process in 1..=2 {
            let store = PostgresStore::open(&Settings::new(url)).await.unwrap();
            let jobs = Jobs::new(store, clock.clone(), Uuid::from_u128(round * 2 + process), Vec::new());
            runs.spawn(async move { jobs.run(&Nothing, false, None).await });
        }
        let waits = "select count(*) from pg_stat_activity where datname = current_database() \
                     and wait_event_type = 'Lock' and application_name like 'endstate%'";
        town.sql_until(waits, |waiting| waiting == "2").await;
        drop(lock);
        let ended = tokio::time::timeout(PATIENCE, runs.join_next()).await.expect("one is refused");
        let refused = ended.expect("there are two").unwrap();
        assert!(matches!(refused, Err(JobError::Taken("nothing"))), "{refused:?}");
        assert_eq!(town.sql("select count(*) from job_run where ended_ms is null"), "1", "one has begun");
        runs.abort_all();
        clock.advance(24 * 3_600_000);
    }
}
