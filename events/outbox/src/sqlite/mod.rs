//! The embedded store: one SQLite file, one writer, every commit on disk before it is answered.
//!
//! - [`open`](SqliteStore::open): lock file, migrations, settings
//! - [`render`]: statements over rows as SQLite reads them
//! - [`pack`]: messages as rows
//! - [`writer`]: group commit: batches that are ready together share one transaction

mod migrate;
mod pack;
mod render;
mod writer;

use crate::local::LocalBus;
use crate::statement::{Kind, Row, Rows, Statement, Value};
use crate::store::{Assignment, Commit, CommitError, Positions, ShardId, Store, StoreError};
use async_trait::async_trait;
use endstate_events::Environment;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};

/// Partitions of every topic of an embedded store, unless it is made with another number.
pub const PARTITIONS: u16 = 4;

/// What a store is made with and keeps; opened with anything else it is refused.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Whose it is.
    pub environment: Environment,
    /// Partitions of every topic; `None`: those it has, or [`PARTITIONS`] for a new one.
    pub partitions: Option<NonZeroU16>,
}

/// Readers beside the writer: enough that a long list does not hold up the shards.
const READERS: u32 = 4;

/// The embedded store.
pub struct SqliteStore {
    readers: SqlitePool,
    /// None only while the store is being dropped.
    writer: Option<mpsc::UnboundedSender<writer::Request>>,
    thread: Option<std::thread::JoinHandle<()>>,
    bus: Arc<LocalBus>,
    written: Arc<writer::Written>,
    /// Held as long as the store lives: a second process is refused.
    _lock: std::fs::File,
}

impl SqliteStore {
    /// [`open_as`](Self::open_as) in the default environment.
    pub async fn open(folder: &Path) -> Result<Arc<Self>, StoreError> {
        Self::open_as(folder, &Made::default()).await
    }

    /// Opens or makes the store in `folder`, applies missing migrations; refuses a second process, and a store that was
    /// made for another environment or with another number of partitions.
    pub async fn open_as(folder: &Path, made: &Made) -> Result<Arc<Self>, StoreError> {
        let unfit = |what: &str, error: std::io::Error| StoreError::Unfit {
            reason: format!("{what} {}: {error}; check that the folder exists and may be written", folder.display()),
        };
        std::fs::create_dir_all(folder).map_err(|error| unfit("cannot make the data folder", error))?;
        let lock = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("lock"))
            .map_err(|error| unfit("cannot open the lock file in", error))?;
        lock.try_lock().map_err(|_| StoreError::InUse { path: folder.display().to_string() })?;

        let file = folder.join("endstate.db");
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(std::time::Duration::from_secs(10))
            .pragma("temp_store", "memory")
            .statement_cache_capacity(512)
            .row_buffer_size(4096);
        let pool = |connections| {
            SqlitePoolOptions::new().min_connections(1).max_connections(connections).test_before_acquire(false)
        };
        let migrating = pool(1).connect_with(options.clone()).await.map_err(failed("open"))?;
        migrate::run(&migrating, migrate::ALL).await?;
        let environment = made.environment.as_str();
        claim(&migrating, folder, "environment", environment, Some(environment)).await?;
        let wanted = made.partitions.map(|partitions| partitions.to_string());
        let made = wanted.clone().unwrap_or_else(|| PARTITIONS.to_string());
        let partitions = claim(&migrating, folder, "partitions", &made, wanted.as_deref()).await?;
        let partitions = partitions.parse().map_err(|_| StoreError::Unfit {
            reason: format!("the store in {} says it has `{partitions}` partitions", folder.display()),
        })?;
        let bus = LocalBus::load(&migrating, partitions).await?;
        migrating.close().await;
        let readers = pool(READERS).connect_with(options.read_only(true)).await.map_err(failed("open readers"))?;
        let (sender, requests) = mpsc::unbounded_channel();
        let written = Arc::default();
        let writer = writer::Writer::open(&file, Arc::clone(&bus), Arc::clone(&written))?;
        let thread = std::thread::Builder::new()
            .name("sqlite-writer".into())
            .spawn(move || writer.run(requests))
            .map_err(|error| unfit("cannot start the writing thread for", error))?;
        let store = Arc::new(Self { readers, writer: Some(sender), thread: Some(thread), bus, written, _lock: lock });
        store.bus.attach(&store);
        Ok(store)
    }

    /// The bus over this store's outbox.
    #[must_use]
    pub fn bus(&self) -> Arc<LocalBus> {
        Arc::clone(&self.bus)
    }

    /// Rows and commits written since the store was opened.
    #[must_use]
    pub fn written(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.written.rows), count(&self.written.commits))
    }

    /// The durability setting as the database itself reports it: 2 is FULL.
    pub async fn synchronous(&self) -> Result<i64, StoreError> {
        self.ask(writer::Ask::Synchronous).await
    }

    /// Deletes outbox rows that lie wholly below `position` of their consumer; offsets go on rising.
    pub(crate) async fn purge(&self, below: Vec<(&'static str, u16, i64)>) -> Result<i64, StoreError> {
        self.ask(writer::Ask::Purge(below)).await
    }

    /// Whether the database takes the statement: it is prepared and not run.
    pub async fn prepare(&self, statement: &'static Statement) -> Result<(), StoreError> {
        render::prepare(statement, &self.readers).await.map_err(failed(statement.name))
    }

    async fn ask(&self, ask: writer::Ask) -> Result<i64, StoreError> {
        let (answer, answered) = oneshot::channel();
        let gone = || StoreError::Failed { statement: "ask".into(), reason: "the writer has stopped".into() };
        self.request(writer::Request::Ask { ask, answer }).ok_or_else(gone)?;
        answered.await.map_err(|_| gone())?
    }

    fn request(&self, request: writer::Request) -> Option<()> {
        self.writer.as_ref()?.send(request).ok()
    }
}

/// The file is free when the store is gone: what was asked of the writer is finished first.
impl Drop for SqliteStore {
    fn drop(&mut self) {
        drop(self.writer.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writing thread of the store has panicked");
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        let query = render::query(statement, &rows);
        let rows = query.fetch_all(&self.readers).await.map_err(failed(statement.name))?;
        rows.iter().map(render::row).collect::<Result<_, _>>().map_err(failed(statement.name))
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        static BUMP: Statement = Statement {
            name: "shard.bump",
            columns: &[Kind::Text, Kind::Int],
            sql: "with r(side, shard) as ({rows}) insert into shard (side, shard, epoch) select side, shard, 1 from r \
                  where true on conflict (side, shard) do update set epoch = epoch + 1",
        };
        static LOAD: Statement = Statement {
            name: "shard.load",
            columns: &[Kind::Text, Kind::Int],
            sql: "with r(side, shard) as ({rows}) select s.epoch, s.position_start, s.position_progress, s.next_seq \
                  from shard s join r on s.side = r.side and s.shard = r.shard",
        };
        let key = || Rows::one([shard.side.label().into(), i64::from(shard.index).into()]);
        let commit = Commit { writes: vec![crate::Write::exact(&BUMP, key())], ..Commit::default() };
        let bad = |reason: String| StoreError::Failed { statement: "shard.assign".into(), reason };
        self.commit(commit).await.map_err(|error| bad(error.to_string()))?;
        let rows = self.read(&LOAD, key()).await?;
        match rows.first().map(Vec::as_slice) {
            Some([Value::Int(epoch), Value::Int(start), Value::Int(progress), Value::Int(next_seq)]) => {
                // Nothing is spilled where the store is the bus.
                let positions = Positions { start: *start, progress: *progress, ..Positions::default() };
                // Commit is delivery here: messages are not numbered.
                let (next_outbox_seq, published_seq) = (0, 0);
                Ok(Assignment { shard, epoch: *epoch, positions, next_seq: *next_seq, next_outbox_seq, published_seq })
            }
            _ => Err(bad(format!("the row of shard {shard} is missing"))),
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        let (answer, answered) = oneshot::channel();
        let gone = || CommitError::Doubt("the writer has stopped".into());
        let prepared = writer::Prepared::new(commit);
        self.request(writer::Request::Commit { prepared, answer }).ok_or_else(gone)?;
        answered.await.map_err(|_| gone())?
    }

    fn partitions(&self) -> u16 {
        self.bus.partition_count()
    }
}

/// A store keeps what it was made with (Z17): one that has no such setting yet takes `made`, and one that has another
/// than `wanted` is refused. Returns the setting that it has.
async fn claim(
    pool: &SqlitePool,
    folder: &Path,
    name: &'static str,
    made: &str,
    wanted: Option<&str>,
) -> Result<String, StoreError> {
    sqlx::query("insert into system (name, value) values (?, ?) on conflict (name) do nothing")
        .bind(name)
        .bind(made)
        .execute(pool)
        .await
        .map_err(failed("system.claim"))?;
    let has: String = sqlx::query_scalar("select value from system where name = ?")
        .bind(name)
        .fetch_one(pool)
        .await
        .map_err(failed("system.setting"))?;
    let Some(wanted) = wanted.filter(|wanted| *wanted != has) else { return Ok(has) };
    let reason = format!(
        "the store in {} was made with {name} `{has}`, and this program runs with `{wanted}`; set it to `{has}`, or use another data folder",
        folder.display()
    );
    Err(StoreError::Unfit { reason })
}

/// Names the statement in a driver's error.
fn failed(statement: &str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| StoreError::Failed { statement: statement.to_owned(), reason: error.to_string() }
}
