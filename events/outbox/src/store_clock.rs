//! The time of a system of many processes: the database's. A process's own clock is corrected by how far it was off when
//! the database was asked last.
//!
//! A process whose clock is far off fires no timers (AI-2 gives every decision its time from here): something is wrong with
//! its machine, and a correction that is seconds old would be all that stands between it and a thousand early deadlines.

use crate::alert::{self, Alert};
use crate::clock::Clock;
use crate::looks::Looks;
use crate::metric::Metric;
use crate::store::{Commit, Store, StoreError};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// How far a clock may be off; beyond, its owner fires nothing.
pub const OFF_MS: i64 = 5_000;

/// How long an answer of the database may take to be one.
const SURE_MS: i64 = 1_000;

/// How often the database is asked where no timer asks for it.
const ASK: Duration = Duration::from_secs(5);

/// A clock that follows the database's.
pub struct StoreClock {
    inner: Arc<Inner>,
    looks: Looks<()>,
}

struct Inner {
    store: Arc<dyn Store>,
    own: Arc<dyn Clock>,
    /// Names this process in its alerts.
    process: Uuid,
    /// What is to be added to our own clock.
    behind_ms: AtomicI64,
    /// Whether that was too much the last time.
    off: AtomicBool,
    /// How often it has become too much: each time is an alert of its own.
    times: AtomicI64,
}

impl StoreClock {
    /// Over the clock of this process; `process` names it where people are told.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, own: Arc<dyn Clock>, process: Uuid) -> Arc<Self> {
        let (behind_ms, off, times) = (AtomicI64::new(0), AtomicBool::new(false), AtomicI64::new(0));
        Arc::new(Self { inner: Arc::new(Inner { store, own, process, behind_ms, off, times }), looks: Looks::new() })
    }

    /// Asks the database now and then, until dropped.
    pub async fn follow(self: Arc<Self>) {
        loop {
            if let Err(error) = self.ask().await {
                tracing::debug!(%error, "the database's time is not known");
            }
            tokio::time::sleep(ASK).await;
        }
    }

    /// Asks the database what time it is. Whether our clock may be trusted with timers.
    pub async fn ask(&self) -> Result<bool, StoreError> {
        self.inner.ask().await
    }
}

impl Inner {
    async fn ask(&self) -> Result<bool, StoreError> {
        let before = self.own.now_ms();
        let Some(theirs) = self.store.now_ms().await? else { return Ok(true) };
        let after = self.own.now_ms();
        // Somewhere between the two it looked at its clock, and that is all that is known: what was known before stays as
        // far as it fits. A jump of ours in between shows as well.
        let (first, last) = (before.min(after), before.max(after));
        let behind_ms = self.behind_ms.load(Ordering::Acquire).clamp(theirs - last, theirs - first);
        self.behind_ms.store(behind_ms, Ordering::Release);
        Metric::ClockBehind.set(behind_ms as f64 / 1_000.0, &[]);
        let off = behind_ms.abs() > OFF_MS;
        let was_off = self.off.swap(off, Ordering::AcqRel);
        if off && !was_off {
            self.tell(behind_ms, theirs).await;
        } else if was_off && !off {
            tracing::info!(behind_ms, "this machine's clock is right again: timers fire");
        }
        // An answer that took long tells little: no timer hangs on it.
        Ok(!off && last - first <= SURE_MS)
    }

    async fn tell(&self, behind_ms: i64, theirs: i64) {
        let time = self.times.fetch_add(1, Ordering::Relaxed);
        let text = format!(
            "E4042: the clock of a process differs by {behind_ms} ms from the database's: it fires no timers until it is \
             right (process {})",
            self.process
        );
        tracing::error!("{text}");
        let alert = Alert::new("clock", &[&self.process, &time], text, theirs);
        let writes = alert::write(&[alert]).into_iter().collect();
        if let Err(error) = self.store.commit(Commit { writes, ..Commit::default() }).await {
            tracing::warn!(%error, "an alert about this machine's clock could not be written");
        }
    }
}

impl Clock for StoreClock {
    fn now_ms(&self) -> i64 {
        self.inner.own.now_ms() + self.inner.behind_ms.load(Ordering::Acquire)
    }

    fn look(&self) -> BoxFuture<'static, bool> {
        let inner = Arc::clone(&self.inner);
        self.looks.ask((), move |_| {
            let inner = Arc::clone(&inner);
            async move {
                let asked = inner.ask().await;
                asked.inspect_err(|error| tracing::debug!(%error, "the database's time is not known")).unwrap_or(false)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::statement::{Row, Rows, Statement};
    use crate::store::{Assignment, CommitError, ShardId};
    use async_trait::async_trait;

    /// A database with a clock of its own.
    struct Database {
        clock: ManualClock,
        alerts: AtomicI64,
    }

    #[async_trait]
    impl Store for Database {
        async fn read(&self, _: &'static Statement, _: Rows) -> Result<Vec<Row>, StoreError> {
            Ok(Vec::new())
        }

        async fn assign(&self, _: ShardId) -> Result<Assignment, StoreError> {
            unreachable!("a clock owns no shard")
        }

        async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
            self.alerts.fetch_add(commit.writes.iter().map(|write| write.rows.len() as i64).sum(), Ordering::SeqCst);
            Ok(Vec::new())
        }

        async fn now_ms(&self) -> Result<Option<i64>, StoreError> {
            Ok(Some(self.clock.now_ms()))
        }

        fn partitions(&self) -> u16 {
            1
        }
    }

    #[tokio::test]
    async fn a_clock_follows_the_databases_and_is_not_trusted_when_it_is_far_off() {
        let database = Arc::new(Database { clock: ManualClock::new(1_000_000), alerts: AtomicI64::new(0) });
        let own = Arc::new(ManualClock::new(1_003_000));
        let clock = StoreClock::new(database.clone(), own.clone(), Uuid::nil());
        assert!(clock.ask().await.unwrap());
        assert_eq!(clock.now_ms(), 1_000_000, "three seconds ahead are corrected");
        own.advance(-7_000);
        assert!(clock.look().await);
        assert_eq!(clock.now_ms(), 1_000_000);
        own.advance(3_600_000);
        assert!(!clock.look().await, "an hour is not");
        assert!(!clock.look().await);
        assert_eq!(database.alerts.load(Ordering::SeqCst), 1, "told once");
        own.advance(-3_600_000);
        assert!(clock.look().await, "it recovers by itself");
        own.advance(-3_600_000);
        assert!(!clock.ask().await.unwrap());
        assert_eq!(database.alerts.load(Ordering::SeqCst), 2, "another time is another alert");
    }
}
