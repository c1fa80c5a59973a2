//! Connections that are kept: as many as there are permits, lent one at a time, thrown away after any doubt.
//!
//! The driver's own pool asks a connection whether it lives whenever it comes back, which is a round trip for every
//! batch. Here the next statement finds out: a batch in doubt is what a shard knows how to handle.

use crate::metric::{Counter, Gauge, Histogram, Metric};
use crate::store::StoreError;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgSeverity};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a caller waits for a connection that is free, and then for one that is new.
const ACQUIRE: Duration = Duration::from_secs(5);

/// What every session runs with. Each statement looks rows up by index, whatever their number: a plan is made once, and
/// one made while a table is empty must not read all of it for ever after. Only what every role may set: a session that
/// asks for more is refused.
const SESSION: &[(&str, &str)] = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
    // Nothing of ours stays open: what does belongs to a process that is frozen or gone.
    ("idle_in_transaction_session_timeout", "30s"),
    // A client that is gone wants no answer any more.
    ("client_connection_check_interval", "2s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// The beginning of the name under which our sessions are listed.
pub(super) const APPLICATION: &str = "endstate";

/// Options of a session for a purpose.
pub(super) fn options(url: &str, purpose: &str) -> Result<PgConnectOptions, StoreError> {
    let unfit =
        |error: sqlx::Error| StoreError::Unfit { reason: format!("the PostgreSQL URL cannot be read: {error}") };
    Ok(url
        .parse::<PgConnectOptions>()
        .map_err(unfit)?
        .application_name(&format!("{APPLICATION} {purpose}"))
        .options(SESSION.iter().copied())
        // More than there are statements and shapes of batches.
        .statement_cache_capacity(512)
        .log_statements(tracing::log::LevelFilter::Trace)
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(5)))
}

/// One new connection, or an error when nobody answers.
pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    in_time(ACQUIRE, options.connect()).await
}

/// Nothing a shard asks for takes so long; longer, and the connection is dead.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// Gives up after a while: a server that is gone without a word would be waited for for ever.
pub(super) async fn in_time<T>(
    time: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let late = |_| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer in {time:?}")));
    timeout(time, work).await.map_err(late)?
}

/// Connections of one kind.
pub(super) struct Connections {
    options: PgConnectOptions,
    permits: Arc<Semaphore>,
    idle: Arc<Idle>,
    used: Gauge,
    waited: Histogram,
    opened: Counter,
}

/// Connections that nobody uses. The one used last is lent first: its statements are prepared.
#[derive(Default)]
struct Idle(Mutex<Vec<PgConnection>>);

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Vec<PgConnection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection for one use. Dropped, it is closed; whatever it was doing ends with it.
pub(super) struct Lent {
    home: Arc<Idle>,
    connection: PgConnection,
    _used: Used,
    _permit: OwnedSemaphorePermit,
}

/// Counts a connection while it is lent.
struct Used(Gauge);

impl Used {
    fn of(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl Connections {
    /// At most so many; `purpose` as in [`Metric::Sessions`].
    pub(super) fn new(options: PgConnectOptions, purpose: &str, most: usize) -> Self {
        Metric::SessionsMost.set(most as f64, &[purpose]);
        Self {
            options,
            permits: Arc::new(Semaphore::new(most)),
            idle: Arc::default(),
            used: Metric::Sessions.gauge(&[purpose]),
            waited: Metric::SessionWait.histogram(&[purpose]),
            opened: Metric::SessionsOpened.counter(&[purpose]),
        }
    }

    /// Lends a connection, an idle one if there is one.
    pub(super) async fn take(&self) -> Result<Lent, sqlx::Error> {
        let free = async { Arc::clone(&self.permits).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed) };
        let began = Instant::now();
        let permit = in_time(ACQUIRE, free).await?;
        self.waited.record(began.elapsed());
        let used = Used::of(&self.used);
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                self.opened.increment(1);
                connect(&self.options).await?
            }
        };
        Ok(Lent { home: Arc::clone(&self.idle), connection, _used: used, _permit: permit })
    }

    /// A server that closed one connection has probably closed them all.
    pub(super) fn forget_idle(&self) {
        self.idle.lock().clear();
    }
}

impl Lent {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// It is in order and may be lent again.
    pub(super) fn give_back(self) {
        self.home.lock().push(self.connection);
    }

    /// It is gone, and so probably are those that idle.
    pub(super) fn lost(self) {
        self.home.lock().clear();
    }
}

/// Whether the connection is at fault, not what was asked of it.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
        }
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Refusals that say nothing of the session: a conflict with another (40, but for 40003, where the server says that it does
/// not know what it did), a lock or a statement's time, our own check of counts; and by their class wrong counts, data,
/// constraints, a full disk, limits. Of any other, that this server only reads (25006) say, the next statement would hear too.
const OF_THE_STATEMENT: [&str; 5] = ["40001", "40P01", "55P03", "57014", "ES011"];
const CLASSES_OF_THE_STATEMENT: [&str; 5] = ["21", "22", "23", "53", "54"];

/// Whether nobody knows what became of a statement, or whether its session is fit for the next. What the server refused was
/// taken back whole.
pub(super) fn is_in_doubt(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(refused) => {
            let goes_on = refused.try_downcast_ref::<PgDatabaseError>().is_some_and(|refused| {
                let code = refused.code();
                let known = OF_THE_STATEMENT.contains(&code)
                    || CLASSES_OF_THE_STATEMENT.iter().any(|class| code.starts_with(class));
                known && matches!(refused.severity(), PgSeverity::Error)
            });
            !goes_on
        }
        sqlx::Error::Encode(_) => false,
        _ => true,
    }
}

/// Whether nobody was there, or somebody who only starts or stops, or has no room: a refusal that may pass.
pub(super) fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("08") || code == "53300")
        }
        sqlx::Error::Io(_) => true,
        _ => false,
    }
}
