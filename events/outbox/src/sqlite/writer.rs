//! The one writer of the file, on a thread of its own: batches that are ready together share one transaction; when that
//! fails, the batch at fault is taken out and the others are tried again, so that one's fault is never another's.
//!
//! It speaks to SQLite directly instead of through the readers' pool: a prepared statement per row costs no hop between
//! threads, no temporary relation and no statement journal (docs/adr/0011).

use super::pack::{join_arrays, pieces};
use super::render;
use crate::dead_letter;
use crate::local::LocalBus;
use crate::parcel::Parcel;
use crate::statement::{Kind, Rows, Statement, Value, Write};
use crate::store::{Commit, CommitError, Fence, StoreError};
use endstate_events::Topic;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection};
use rustc_hash::FxHashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Batches in one transaction at most; bounds the time a batch waits for its neighbours. A start that is queued is a
/// batch of its own.
const GROUP: usize = 512;

/// Prepared statements that stay: more than all components have together.
const STATEMENTS: usize = 256;

/// Readers never block the writer of a write-ahead log, but a recovery after a crash may.
const BUSY: Duration = Duration::from_secs(10);

/// Settings of the writing connection. The journal mode is the file's own, set when it is made.
const SETTINGS: &[(&str, &str)] = &[
    ("synchronous", "full"),
    ("foreign_keys", "on"),
    ("temp_store", "memory"),
    // 8 MB: the inner pages of every index and the leaves written last. A commit after which pages have to be sorted
    // looks at every slot of the cache, so that a larger one costs more than it saves; the file is in memory anyway.
    ("cache_size", "-8192"),
    // Pages; a larger log means fewer checkpoints, each of which costs two more syncs.
    ("wal_autocheckpoint", "8000"),
];

/// A fence of a batch. Must hit one row.
static FENCE: Statement = Statement {
    name: "shard.fence",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int, Kind::Int, Kind::Int, Kind::Int, Kind::Int, Kind::Int],
    sql: "with r(side, shard, epoch, start_before, progress_before, seq_before, start_after, progress_after, seq_after) \
          as ({rows}) update shard set position_start = r.start_after, position_progress = r.progress_after, \
          next_seq = r.seq_after from r where shard.side = r.side and shard.shard = r.shard and shard.epoch = r.epoch \
          and shard.position_start = r.start_before and shard.position_progress = r.progress_before \
          and shard.next_seq = r.seq_before",
};

/// Messages of a transaction for one partition are one row.
static OUTBOX: Statement = Statement {
    name: "outbox.insert",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int, Kind::Text],
    sql: "with r(topic, partition, first_offset, messages, body) as ({rows}) \
          insert into outbox (topic, partition, first_offset, messages, body) select * from r",
};

/// Rows that lie below an offset as a whole. A row has at least one message, so they begin below it, too: that finds them.
const PURGE: &str =
    "delete from outbox where topic = ?1 and partition = ?2 and first_offset < ?3 and first_offset + messages <= ?3";

pub(super) enum Request {
    Commit { prepared: Prepared, answer: oneshot::Sender<Result<Vec<u64>, CommitError>> },
    Ask { ask: Ask, answer: oneshot::Sender<Result<i64, StoreError>> },
}

/// Rare requests to the writing connection.
pub(super) enum Ask {
    Synchronous,
    Purge(Vec<(&'static str, u16, i64)>),
}

/// A commit as it is written.
pub(super) struct Prepared {
    fences: Vec<Fence>,
    writes: Vec<Write>,
    /// How many of the writes are the sender's own.
    own: usize,
    outbox: Vec<Parcel>,
}

impl Prepared {
    pub(super) fn new(commit: Commit) -> Self {
        let Commit { fences, mut writes, messages, dead_letters } = commit;
        let own = writes.len();
        if !dead_letters.is_empty() {
            writes.push(Write::any(&dead_letter::INSERT, dead_letter::rows(dead_letters)));
        }
        Self { fences, writes, own, outbox: messages }
    }
}

/// What the writer has committed since it began.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) rows: AtomicU64,
    pub(super) commits: AtomicU64,
}

pub(super) struct Writer {
    connection: Connection,
    bus: Arc<LocalBus>,
    written: Arc<Written>,
}

/// Why a transaction was rolled back, and which batch was at fault, if one was.
struct Failure {
    at: Option<usize>,
    error: CommitError,
}

type Waiting = (Prepared, oneshot::Sender<Result<Vec<u64>, CommitError>>);

impl Writer {
    /// Opens the writing connection of a file that has its migrations.
    pub(super) fn open(file: &Path, bus: Arc<LocalBus>, written: Arc<Written>) -> Result<Self, StoreError> {
        let connection = Connection::open(file).and_then(|connection| {
            connection.busy_timeout(BUSY)?;
            for (name, value) in SETTINGS {
                connection.pragma_update(None, name, value)?;
            }
            connection.set_prepared_statement_cache_capacity(STATEMENTS);
            Ok(connection)
        });
        let connection = connection.map_err(failed("open writer"))?;
        Ok(Self { connection, bus, written })
    }

    /// Works until every sender of requests is gone.
    pub(super) fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut ready = Vec::with_capacity(GROUP);
        while requests.blocking_recv_many(&mut ready, GROUP) > 0 {
            let mut group = Vec::with_capacity(ready.len());
            for request in ready.drain(..) {
                match request {
                    Request::Commit { prepared, answer } => group.push((prepared, answer)),
                    Request::Ask { ask, answer } => {
                        answer.send(self.ask(ask)).ok();
                    }
                }
            }
            self.commit_group(group);
        }
    }

    /// Commits a group. A batch at fault is taken out, and the others are tried again together. It is answered after
    /// them: whatever of theirs it collided with can then be read.
    fn commit_group(&mut self, mut group: Vec<Waiting>) {
        let mut refused = Vec::new();
        while !group.is_empty() {
            let batches: Vec<&Prepared> = group.iter().map(|(prepared, _)| prepared).collect();
            match self.transaction(&batches) {
                Ok(hits) => self.answer(std::mem::take(&mut group), hits),
                Err(Failure { at: Some(at), error }) => {
                    let (_, answer) = group.remove(at);
                    refused.push((answer, error));
                }
                Err(Failure { at: None, error }) => {
                    for (_, answer) in group.drain(..) {
                        answer.send(Err(error.clone())).ok();
                    }
                }
            }
        }
        for (answer, error) in refused {
            answer.send(Err(error)).ok();
        }
    }

    /// Hands committed messages to the bus, in commit order, then answers.
    fn answer(&self, group: Vec<Waiting>, hits: Vec<Vec<u64>>) {
        for ((prepared, answer), mut hits) in group.into_iter().zip(hits) {
            hits.truncate(prepared.own);
            prepared.outbox.iter().for_each(|parcel| self.bus.deliver(parcel));
            answer.send(Ok(hits)).ok();
        }
    }

    /// Runs one transaction over all batches, in their order. Returns the rows that every write of every batch hit.
    fn transaction(&mut self, batches: &[&Prepared]) -> Result<Vec<Vec<u64>>, Failure> {
        self.simple("begin immediate").map_err(|error| Failure { at: None, error: classify(error) })?;
        let write = |(at, batch)| self.batch(batch).map_err(|error| Failure { at: Some(at), error });
        let written = batches.iter().copied().enumerate().map(write).collect::<Result<Vec<_>, _>>();
        let all = |error| Failure { at: None, error };
        let result = written.and_then(|hits| Ok((self.outbox(batches).map_err(all)?, hits)));
        let (sent, hits) = match result {
            Ok(done) => done,
            Err(error) => {
                self.rollback();
                return Err(error);
            }
        };
        if let Err(error) = self.simple("commit") {
            // Whether it is on disk is unknown, whatever kind of error it is.
            self.rollback();
            return Err(all(CommitError::Doubt(error.to_string())));
        }
        let fences = batches.iter().map(|batch| batch.fences.len() as u64).sum::<u64>();
        let rows = fences + hits.iter().flatten().sum::<u64>() + sent;
        self.written.rows.fetch_add(rows, Ordering::Relaxed);
        self.written.commits.fetch_add(1, Ordering::Relaxed);
        Ok(hits)
    }

    /// One batch: its fences first, so that a fenced owner writes nothing, then its writes. Returns the rows each hit.
    fn batch(&self, batch: &Prepared) -> Result<Vec<u64>, CommitError> {
        for fence in &batch.fences {
            if self.write(&FENCE, &fence_row(fence))? != 1 {
                return Err(CommitError::Fenced(fence.before.shard));
            }
        }
        let mut hits = Vec::with_capacity(batch.writes.len());
        for Write { statement, rows, expect, .. } in &batch.writes {
            let hit = self.write(statement, rows)?;
            if let Some(expected) = expect.filter(|expected| *expected != hit) {
                return Err(CommitError::Conflict { statement: statement.name, expected, hit });
            }
            hits.push(hit);
        }
        Ok(hits)
    }

    /// The messages of all batches: one row per partition, more when they are large. Their offsets are those at which
    /// [`Writer::answer`] will deliver them.
    fn outbox(&self, batches: &[&Prepared]) -> Result<u64, CommitError> {
        let mut partitions: FxHashMap<(Topic, u16), Vec<&Parcel>> = FxHashMap::default();
        for row in batches.iter().flat_map(|batch| &batch.outbox) {
            partitions.entry((row.topic, row.partition)).or_default().push(row);
        }
        let mut rows = Rows::new();
        for ((topic, partition), parts) in partitions {
            let mut next = self.bus.next_offset(topic, partition);
            for parts in pieces(&parts) {
                let count = parts.iter().map(|row| row.len()).sum::<usize>() as i64;
                let (topic, partition) = (topic.label().into(), i64::from(partition).into());
                rows.push([topic, partition, next.into(), count.into(), Value::Text(join_arrays(parts))]);
                next += count;
            }
        }
        self.write(&OUTBOX, &rows)
    }

    /// Runs the statement once per row; returns the rows hit.
    fn write(&self, statement: &'static Statement, rows: &Rows) -> Result<u64, CommitError> {
        if rows.is_empty() {
            return Ok(0);
        }
        let width = statement.columns.len();
        debug_assert_eq!(rows.cells().len(), rows.len() * width, "{}: a row has the wrong length", statement.name);
        let mut prepared = self.connection.prepare_cached(&render::writing(statement)).map_err(classify)?;
        let mut hit = 0;
        for row in rows.cells().chunks_exact(width) {
            hit += execute(&mut prepared, row).map_err(classify)?;
        }
        Ok(hit)
    }

    fn simple(&self, sql: &'static str) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.raw_execute()
    }

    fn rollback(&self) {
        // After some errors SQLite has rolled back by itself.
        if !self.connection.is_autocommit()
            && let Err(error) = self.simple("rollback")
        {
            tracing::error!(%error, "E4033: a transaction cannot be rolled back");
        }
    }

    fn ask(&self, ask: Ask) -> Result<i64, StoreError> {
        match ask {
            Ask::Synchronous => {
                self.connection.query_row("pragma synchronous", [], |row| row.get(0)).map_err(failed("synchronous"))
            }
            Ask::Purge(below) => self.purge(&below).map_err(|error| {
                self.rollback();
                failed("outbox.purge")(error)
            }),
        }
    }

    fn purge(&self, below: &[(&'static str, u16, i64)]) -> rusqlite::Result<i64> {
        let mut gone = 0;
        self.simple("begin immediate")?;
        for (topic, partition, position) in below {
            let mut keep = self.connection.prepare_cached(
                "insert into outbox_end (topic, partition, next_offset) select topic, partition, \
                 first_offset + messages from outbox where topic = ?1 and partition = ?2 \
                 order by first_offset desc limit 1 \
                 on conflict (topic, partition) do update set next_offset = excluded.next_offset",
            )?;
            keep.execute((topic, partition))?;
            let mut delete = self.connection.prepare_cached(PURGE)?;
            gone += delete.execute((topic, partition, position))?;
        }
        self.simple("commit")?;
        Ok(i64::try_from(gone).unwrap_or(i64::MAX))
    }
}

fn fence_row(fence: &Fence) -> Rows {
    let before = &fence.before;
    Rows::one([
        before.shard.side.label().into(),
        i64::from(before.shard.index).into(),
        before.epoch.into(),
        before.positions.start.into(),
        before.positions.progress.into(),
        before.next_seq.into(),
        fence.positions.start.into(),
        fence.positions.progress.into(),
        fence.next_seq.into(),
    ])
}

fn execute(prepared: &mut CachedStatement<'_>, row: &[Value]) -> rusqlite::Result<u64> {
    for (index, cell) in row.iter().enumerate() {
        let cell = match cell {
            Value::Null => ValueRef::Null,
            Value::Int(n) => ValueRef::Integer(*n),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Id(id) => ValueRef::Blob(id.as_bytes()),
        };
        prepared.raw_bind_parameter(index + 1, ToSqlOutput::Borrowed(cell))?;
    }
    Ok(prepared.raw_execute()? as u64)
}

/// Names the statement in a driver's error.
fn failed(statement: &str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |error| StoreError::Failed { statement: statement.to_owned(), reason: error.to_string() }
}

/// A broken constraint is the batch's fault; everything else is a doubt.
fn classify(error: rusqlite::Error) -> CommitError {
    use rusqlite::ErrorCode::{ConstraintViolation, TooBig, TypeMismatch};
    match error.sqlite_error_code() {
        Some(ConstraintViolation | TooBig | TypeMismatch) => CommitError::Data(error.to_string()),
        Some(_) | None => CommitError::Doubt(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SqliteStore;

    #[tokio::test]
    async fn a_purge_reads_what_it_deletes_and_nothing_that_stays() {
        let folder = tempfile::tempdir().unwrap();
        drop(SqliteStore::open(folder.path()).await.unwrap());
        let connection = Connection::open(folder.path().join("endstate.db")).unwrap();
        let mut explained = connection.prepare(&format!("explain query plan {PURGE}")).unwrap();
        let plan = explained.query_map(("events", 0, 7), |row| row.get::<_, String>("detail")).unwrap();
        let plan: Vec<String> = plan.map(Result::unwrap).collect();
        assert!(plan.iter().any(|line| line.contains("first_offset<?")), "{plan:?}");
    }
}
