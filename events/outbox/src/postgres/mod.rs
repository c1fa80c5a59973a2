//! The PostgreSQL store: many processes, one shard row to fence them, one statement per batch.
//!
//! - [`render`]: statements over rows as PostgreSQL reads them
//! - [`commit`], [`plan`]: a batch as one statement, its counts checked by the database
//! - [`gather`], [`write`]: batches that wait for a session are written together
//! - [`debezium`]: status changes as another program reads them from the log
//! - [`spill`]: where messages wait while the broker does not answer
//! - [`takeover`]: a new owner, also of a shard whose old one is frozen
//! - [`connections`]: sessions, and what they run with
//! - [`partition`]: the days of events and outbox
//! - [`migrate`], [`fit`]: what a database must be before it is used; [`belonging`]: which store it is, and its brokers;
//!   [`examine`]: a report about it

mod belonging;
mod commit;
mod connections;
mod debezium;
pub mod examine;
mod fit;
mod gather;
mod migrate;
mod partition;
mod plan;
mod render;
mod spill;
mod takeover;
mod write;

use self::commit::{Failure, Prepared};
use self::connections::{Connections, DEADLINE, in_time, is_lost};
use self::gather::{Done, Gather};
use self::write::Written;
use crate::bus::Outgoing;
use crate::statement::{Kind, Row, Rows, Statement, Value};
use crate::store::{Assignment, Commit, CommitError, ShardId, Store, StoreError};
use async_trait::async_trait;
use endstate_events::{Envelope, Environment, Topic};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// Which database, and what it was made for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with libpq's parameters.
    pub url: String,
    /// Fixed when the store is made.
    pub environment: Environment,
    /// Partitions of every topic; fixed when the store is made.
    pub partitions: u16,
    /// Sessions for reads at most.
    pub connections: usize,
    /// Sessions for batches at most. Batches that wait for one are written together: a few are faster than many.
    pub writers: usize,
    /// Whether status changes are written for Debezium, too.
    pub debezium: bool,
    /// How long the removal of an old day waits for those who use it.
    pub lock_wait: Duration,
}

impl Settings {
    /// The default environment, 16 partitions, and sessions enough to keep two cores busy.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let (url, environment, lock_wait) = (url.to_owned(), Environment::default(), partition::LOCK_WAIT);
        Self { url, environment, partitions: 16, connections: 16, writers: 2, debezium: false, lock_wait }
    }
}

/// Takeovers at once: each may wait for a frozen owner.
const TAKERS: usize = 8;

/// For the watch over owners, which must not wait behind them.
const WATCHERS: usize = 2;

/// What one process takes at most: for batches, reads, takeovers and the watch, and one that removes old days.
fn most_sessions(settings: &Settings) -> usize {
    settings.writers + settings.connections + TAKERS + WATCHERS + 1
}

/// The PostgreSQL store.
pub struct PostgresStore {
    writers: Connections,
    readers: Connections,
    takers: Connections,
    watchers: Connections,
    removal: PgConnectOptions,
    partitions: u16,
    days: partition::Days,
    debezium: bool,
    gather: Gather,
    written: Arc<Written>,
    timeline: Timeline,
}

impl PostgresStore {
    /// Whether a server is there to answer, be it with a refusal; else why not. Another attempt may find one.
    pub async fn answers(url: &str) -> Result<(), StoreError> {
        match connections::connect(&connections::options(url, "start")?).await {
            Err(error) if connections::is_away(&error) => Err(failed("connect")(error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Applies the migrations that a database lacks and returns their names; makes the database when it is not there.
    /// Guarded: processes wait for each other.
    pub async fn migrate(url: &str) -> Result<Vec<&'static str>, StoreError> {
        migrate::run(url).await
    }

    /// Drops the whole database, whoever is using it: for stores that were made to be measured or tried.
    pub async fn remove(url: &str) -> Result<(), StoreError> {
        migrate::remove(url).await.map_err(failed("store.remove"))
    }

    /// Opens a store that has its migrations; refuses a database that cannot keep what it is given, and a store that was
    /// made for another environment or number of partitions.
    pub async fn open(settings: &Settings) -> Result<Arc<Self>, StoreError> {
        let store = Self::of(settings)?;
        let mut lent = store.writers.take().await.map_err(failed("open"))?;
        migrate::check(lent.connection()).await?;
        fit::check(lent.connection(), settings).await?;
        lent.give_back();
        store.days.ahead(&store.watchers).await;
        Ok(Arc::new(store))
    }

    /// Rows and commits written since the store was opened.
    #[must_use]
    pub fn written(&self) -> (u64, u64) {
        (self.written.rows.load(Ordering::Relaxed), self.written.commits.load(Ordering::Relaxed))
    }

    /// A store that has not reached for its database.
    fn of(settings: &Settings) -> Result<Self, StoreError> {
        let sessions = |purpose, most| {
            connections::options(&settings.url, purpose).map(|options| Connections::new(options, purpose, most))
        };
        Ok(Self {
            writers: sessions("write", settings.writers)?,
            readers: sessions("read", settings.connections)?,
            takers: sessions("takeover", TAKERS)?,
            watchers: sessions("control", WATCHERS)?,
            removal: connections::options(&settings.url, "removal")?.options(partition::limits(settings.lock_wait)),
            partitions: settings.partitions,
            days: partition::Days::new(settings.debezium),
            debezium: settings.debezium,
            gather: Gather::default(),
            written: Arc::default(),
            timeline: Timeline(watch::channel(0).0),
        })
    }

    /// A store that is only looked at: nothing is made, claimed or taken over.
    pub async fn watch(settings: &Settings) -> Result<Arc<Self>, StoreError> {
        let store = Self::of(settings)?;
        let mut lent = store.watchers.take().await.map_err(failed("watch"))?;
        migrate::check(lent.connection()).await?;
        fit::belongs(lent.connection(), settings).await?;
        lent.give_back();
        Ok(Arc::new(store))
    }

    /// Days of the outbox that ended more than `outbox_days` ago, and of events more than `event_days` ago, that nobody needs.
    pub async fn old_days(&self, outbox_days: i64, event_days: i64) -> Result<Vec<String>, StoreError> {
        let mut session = self.removal().await?;
        in_removal(partition::old(&mut session, outbox_days, event_days, true)).await
    }

    /// Drops [`Self::old_days`], and first what an earlier removal that was cut off has left. Returns the names of what went. A
    /// day that others use is an error when all the others are gone.
    pub async fn drop_old_days(&self, outbox_days: i64, event_days: i64) -> Result<Vec<String>, StoreError> {
        let mut session = self.removal().await?;
        in_removal(partition::old(&mut session, outbox_days, event_days, false)).await
    }

    /// A session for one removal: it may wait for long, and must keep no other from its session.
    async fn removal(&self) -> Result<PgConnection, StoreError> {
        connections::connect(&self.removal).await.map_err(failed("partition.connect"))
    }

    /// Whether the database takes the statement: it is prepared and not run.
    pub async fn prepare(&self, statement: &'static Statement) -> Result<(), StoreError> {
        let mut lent = self.readers.take().await.map_err(failed(statement.name))?;
        let text = AssertSqlSafe(plan::alone(statement)).into_sql_str();
        lent.connection().prepare(text).await.map_err(failed(statement.name))?;
        lent.give_back();
        Ok(())
    }

    /// SQL that only this store runs.
    #[must_use]
    pub fn statements() -> Vec<&'static Statement> {
        let own = [&commit::FENCE, &commit::OUTBOX, &debezium::APPEND, &takeover::BUMP, &OUTGOING, &NOW];
        own.into_iter().chain(spill::STATEMENTS).collect()
    }

    async fn read_once(&self, statement: &'static Statement, rows: &Rows) -> Result<Vec<Row>, sqlx::Error> {
        let mut arguments = PgArguments::default();
        render::bind(&mut arguments, statement, &[rows]).map_err(sqlx::Error::Encode)?;
        let mut lent = self.readers.take().await?;
        let query = sqlx::query_with(AssertSqlSafe(render::text(statement, 1)), arguments);
        let found = in_time(DEADLINE, query.fetch_all(lent.connection())).await;
        match &found {
            Err(error) if is_lost(error) => self.readers.forget_idle(),
            Ok(_) | Err(_) => lent.give_back(),
        }
        found?.iter().map(render::row).collect()
    }

    /// Writes a batch, together with those that wait beside it.
    async fn try_commit(&self, prepared: &Arc<Prepared>) -> Done {
        let mut done = self.gather.put(Arc::clone(prepared));
        let gone = || Err(gather::lost("who wrote it has gone away"));
        loop {
            let lent = tokio::select! {
                biased;
                // Written, by whoever had a session first.
                done = &mut done => return done.unwrap_or_else(|_| gone()),
                lent = self.writers.take() => lent,
            };
            match lent {
                // It may have been the turn of others that wait longer, who leave now without having had a session: as long
                // as a batch waits, its owner looks for one.
                Ok(lent) => {
                    let group = self.gather.take();
                    if group.is_empty() {
                        // Ours is in somebody's hands, who finishes it.
                        lent.give_back();
                        return done.await.unwrap_or_else(|_| gone());
                    }
                    let alone = group.iter().all(|waiting| Arc::ptr_eq(&waiting.batch, prepared));
                    let writing = write::write(lent, group, Arc::clone(&self.written));
                    if alone {
                        writing.await;
                    } else {
                        // Others wait for it, too: our caller may go away in the middle of it, or have its answer before.
                        tokio::spawn(writing);
                    }
                }
                // It no longer waits, once the receiver is dropped.
                Err(error) => return done.try_recv().unwrap_or_else(|_| Err(gather::lost(&error.to_string()))),
            }
        }
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        let read = match self.read_once(statement, &rows).await {
            // The server closed what was idle; a new session tells whether it is there.
            Err(error) if is_lost(&error) => self.read_once(statement, &rows).await,
            other => other,
        };
        read.map_err(|error| match error {
            sqlx::Error::Database(error) if error.code().is_some_and(|code| code.starts_with("22")) => {
                StoreError::Refused { statement: statement.name.to_owned(), reason: error.to_string() }
            }
            other => failed(statement.name)(other),
        })
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        takeover::assign(shard, &self.takers, &self.watchers, &self.timeline).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        self.days.ahead(&self.watchers).await;
        let prepared = Arc::new(Prepared::new(commit, self.debezium)?);
        let mut done = self.try_commit(&prepared).await;
        // A batch may hold rows of several days that are missing; more than these few are not one batch's.
        for _ in 0..8 {
            let Err(Failure::NoPartition { time_ms: Some(time_ms), .. }) = &done else { break };
            let day = time_ms.div_euclid(partition::DAY_MS);
            let made = self.days.make(&self.watchers, day, day).await;
            made.map_err(|error| CommitError::Doubt(error.to_string()))?;
            done = self.try_commit(&prepared).await;
        }
        done.map_err(|failure| match failure {
            Failure::Commit(error) => error,
            Failure::NoPartition { said, .. } => CommitError::Doubt(said),
        })
    }

    async fn outgoing(&self, shard: ShardId, from: i64, limit: usize) -> Result<Vec<(i64, Outgoing)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let key = [shard.side.label().into(), i64::from(shard.index).into(), from.into(), limit.into()];
        let rows = self.read(&OUTGOING, Rows::one(key)).await?;
        let mut found = Vec::new();
        for row in rows {
            let bad = |reason: String| StoreError::Failed { statement: OUTGOING.name.into(), reason };
            let [Value::Int(seq), Value::Text(topic), Value::Int(partition), Value::Text(body)] = row.as_slice() else {
                return Err(bad(format!("an odd row: {row:?}")));
            };
            let topic = Topic::labelled(topic);
            let topic = topic.ok_or_else(|| bad(format!("message {seq} goes to an unknown topic")))?;
            let partition = u16::try_from(*partition).map_err(|error| bad(error.to_string()))?;
            let envelopes: Vec<Arc<Envelope>> = serde_json::from_str(body).map_err(|error| bad(error.to_string()))?;
            for (seq, envelope) in (*seq..).zip(envelopes).filter(|(seq, _)| *seq >= from) {
                found.push((seq, Outgoing { topic, partition, envelope }));
            }
        }
        Ok(found)
    }

    async fn now_ms(&self) -> Result<Option<i64>, StoreError> {
        let rows = self.read(&NOW, Rows::one([1.into()])).await?;
        let Some([Value::Int(now_ms), Value::Int(timeline)]) = rows.first().map(Vec::as_slice) else { return Ok(None) };
        self.timeline.heard(*timeline);
        Ok(Some(*now_ms))
    }

    fn timeline(&self) -> Option<watch::Receiver<i64>> {
        Some(self.timeline.0.subscribe())
    }

    fn partitions(&self) -> u16 {
        self.partitions
    }
}

/// The server's timeline as it was heard last, 0 before. Only another one than before is news.
struct Timeline(watch::Sender<i64>);

impl Timeline {
    fn heard(&self, timeline: i64) {
        self.0.send_if_modified(|known| ![0, timeline].contains(&std::mem::replace(known, timeline)));
    }
}

/// The server's clock, and its timeline; the given row only carries the statement.
static NOW: Statement = Statement {
    name: "server.now",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select (extract(epoch from clock_timestamp()) * 1000)::bigint, endstate_timeline() \
          from r",
};

/// Committed messages from a number on. The row that holds it may begin before it; a row has at most one batch.
static OUTGOING: Statement = Statement {
    name: "outbox.outgoing",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int],
    sql: "with r(side, shard, from_seq, page) as ({rows}) select o.seq, o.topic, o.partition, o.body from r join outbox o \
          on o.side = r.side and o.shard = r.shard and o.seq >= coalesce((select max(b.seq) from outbox b \
          where b.side = r.side and b.shard = r.shard and b.seq <= r.from_seq), 0) and o.seq < r.from_seq + r.page \
          order by o.seq",
};

/// Gives a removal up that takes too long.
async fn in_removal<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| partition::late("partition.drop", &format!("not done in {:?}", partition::REMOVAL));
    tokio::time::timeout(partition::REMOVAL, work).await.map_err(late)?
}

/// Names the statement in a driver's error.
fn failed(statement: &str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| StoreError::Failed { statement: statement.to_owned(), reason: error.to_string() }
}
