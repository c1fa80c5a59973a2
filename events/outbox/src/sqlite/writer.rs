//! The one writer of the file: batches that are ready together share one transaction; when that fails, each is tried
//! alone, so that one batch's fault is never another's.

use super::render;
use crate::bus::Outgoing;
use crate::dead_letter;
use crate::local::{LocalBus, Placed};
use crate::statement::{Kind, Rows, Statement, Value, Write};
use crate::store::{Commit, CommitError, Fence, StoreError};
use endstate_events::{Envelope, Topic};
use rustc_hash::FxHashMap;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Executor as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};

/// Batches in one transaction at most; bounds the time a batch waits for its neighbours.
const GROUP: usize = 64;

/// The fence of every batch of a group. Must hit one row per batch.
static FENCE: Statement = Statement {
    name: "shard.fence",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int, Kind::Int, Kind::Int, Kind::Int, Kind::Int, Kind::Int],
    sql: "with r(side, shard, epoch, start_before, progress_before, seq_before, start_after, progress_after, seq_after) \
          as ({rows}) update shard set position_start = r.start_after, position_progress = r.progress_after, \
          next_seq = r.seq_after from r where shard.side = r.side and shard.shard = r.shard and shard.epoch = r.epoch \
          and shard.position_start = r.start_before and shard.position_progress = r.progress_before \
          and shard.next_seq = r.seq_before",
};

/// Messages of a batch for one partition are one row.
static OUTBOX: Statement = Statement {
    name: "outbox.insert",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int, Kind::Text],
    sql: "with r(topic, partition, first_offset, messages, body) as ({rows}) \
          insert into outbox (topic, partition, first_offset, messages, body) select * from r",
};

pub(super) enum Request {
    Commit { prepared: Prepared, answer: oneshot::Sender<Result<Vec<u64>, CommitError>> },
    Ask { ask: Ask, answer: oneshot::Sender<Result<i64, StoreError>> },
}

/// Rare requests to the writing connection.
pub(super) enum Ask {
    Synchronous,
    Purge(Vec<(&'static str, u16, i64)>),
}

/// A commit with its messages grouped and encoded, made on the sender's task.
pub(super) struct Prepared {
    fence: Option<Fence>,
    writes: Vec<Write>,
    outbox: Vec<OutboxRow>,
}

struct OutboxRow {
    topic: Topic,
    partition: u16,
    body: Arc<str>,
    envelopes: Vec<Arc<Envelope>>,
}

impl Prepared {
    pub(super) fn new(commit: Commit) -> Result<Self, CommitError> {
        let Commit { fence, mut writes, messages, dead_letters } = commit;
        if !dead_letters.is_empty() {
            let mut rows = Rows::new();
            for letter in dead_letters {
                rows.push([
                    letter.topic.label().into(),
                    i64::from(letter.partition).into(),
                    letter.offset.into(),
                    letter.bytes.into(),
                    letter.reason.into(),
                    letter.time_ms.into(),
                ]);
            }
            writes.push(Write::any(&dead_letter::INSERT, rows));
        }
        Ok(Self { fence, writes, outbox: group(messages)? })
    }
}

fn group(messages: Vec<Outgoing>) -> Result<Vec<OutboxRow>, CommitError> {
    let mut groups: FxHashMap<(Topic, u16), Vec<Arc<Envelope>>> = FxHashMap::default();
    for Outgoing { topic, partition, envelope } in messages {
        groups.entry((topic, partition)).or_default().push(envelope);
    }
    let mut rows = Vec::with_capacity(groups.len());
    for ((topic, partition), envelopes) in groups {
        let body = serde_json::to_string(&envelopes).map_err(|error| CommitError::Data(error.to_string()))?;
        rows.push(OutboxRow { topic, partition, body: body.into(), envelopes });
    }
    Ok(rows)
}

/// What the writer has committed since it began.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) rows: AtomicU64,
    pub(super) commits: AtomicU64,
}

pub(super) struct Writer {
    connection: SqliteConnection,
    bus: Arc<LocalBus>,
    written: Arc<Written>,
    /// Texts of several statements, each for one row, by the statements in them.
    texts: FxHashMap<Vec<usize>, Arc<str>>,
}

type Waiting = (Prepared, oneshot::Sender<Result<Vec<u64>, CommitError>>);

impl Writer {
    pub(super) fn new(connection: SqliteConnection, bus: Arc<LocalBus>, written: Arc<Written>) -> Self {
        Self { connection, bus, written, texts: FxHashMap::default() }
    }

    pub(super) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut ready = Vec::with_capacity(GROUP);
        while requests.recv_many(&mut ready, GROUP).await > 0 {
            let mut group = Vec::with_capacity(ready.len());
            for request in ready.drain(..) {
                match request {
                    Request::Commit { prepared, answer } => group.push((prepared, answer)),
                    Request::Ask { ask, answer } => {
                        let result = self.ask(ask).await;
                        answer.send(result).ok();
                    }
                }
            }
            self.commit_group(group).await;
        }
    }

    async fn commit_group(&mut self, group: Vec<Waiting>) {
        if group.is_empty() {
            return;
        }
        let batches: Vec<&Prepared> = group.iter().map(|(prepared, _)| prepared).collect();
        match self.transaction(&batches).await {
            Ok(hits) => self.answer(group, hits),
            Err(error) if group.len() == 1 => {
                for (_, answer) in group {
                    answer.send(Err(error.clone())).ok();
                }
            }
            Err(_) => {
                for (prepared, answer) in group {
                    match self.transaction(&[&prepared]).await {
                        Ok(hits) => self.answer(vec![(prepared, answer)], hits),
                        Err(error) => {
                            answer.send(Err(error)).ok();
                        }
                    }
                }
            }
        }
    }

    /// Hands committed messages to the bus, in commit order, then answers.
    fn answer(&self, group: Vec<Waiting>, hits: Vec<Vec<u64>>) {
        for ((prepared, answer), hits) in group.into_iter().zip(hits) {
            for OutboxRow { topic, partition, envelopes, .. } in prepared.outbox {
                self.bus.deliver(Placed { topic, partition, envelopes });
            }
            answer.send(Ok(hits)).ok();
        }
    }

    /// Runs one transaction over all batches: one statement per table. Returns the hits of every write of every batch.
    async fn transaction(&mut self, batches: &[&Prepared]) -> Result<Vec<Vec<u64>>, CommitError> {
        let plan = Plan::of(batches, &self.bus);
        let hits = self.execute(&plan).await;
        let rows = hits.as_ref().map_or(0, |hits| hits.iter().sum());
        let result = hits.and_then(|hits| plan.judge(batches, &hits));
        let end = if result.is_ok() { "commit" } else { "rollback" };
        if let Err(error) = self.connection.execute(end).await {
            if result.is_ok() {
                self.connection.execute("rollback").await.ok();
                return Err(CommitError::Doubt(error.to_string()));
            }
        } else if result.is_ok() {
            self.written.rows.fetch_add(rows, Ordering::Relaxed);
            self.written.commits.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Begins, runs all steps, and returns the rows each step hit.
    ///
    /// A call to the driver is a hop to its thread and back, which is what a small batch spends its time on: one row per
    /// table goes in one call. Larger batches go statement by statement, because a text of several statements would be
    /// another one, to be parsed anew, for every mix of sizes.
    async fn execute(&mut self, plan: &Plan) -> Result<Vec<u64>, CommitError> {
        if plan.steps.iter().all(|step| step.size == 1) {
            let mut hits = self.call("begin immediate", &plan.steps).await?;
            hits.remove(0);
            return Ok(hits);
        }
        self.connection.execute("begin immediate").await.map_err(classify)?;
        let mut hits = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            hits.extend(self.call("", std::slice::from_ref(step)).await?);
        }
        Ok(hits)
    }

    /// Runs `first` (unless empty) and the steps in one call; returns the rows each statement hit.
    async fn call(&mut self, first: &'static str, steps: &[Step]) -> Result<Vec<u64>, CommitError> {
        use futures_util::StreamExt as _;
        let mut arguments = SqliteArguments::default();
        for step in steps {
            render::bind(&mut arguments, step.statement, step.rows.as_ref(), step.from, step.to, step.size);
        }
        let text = match steps {
            [step] if first.is_empty() => render::sql(step.statement, step.size),
            _ => self.joined(first, steps),
        };
        // Composed of static texts only: see `render`.
        let query = sqlx::query_with(AssertSqlSafe(text), arguments);
        let mut results = (&mut self.connection).fetch_many(query);
        let mut hits = Vec::with_capacity(steps.len() + 1);
        while let Some(result) = results.next().await {
            match result {
                Ok(sqlx::Either::Left(done)) => hits.push(done.rows_affected()),
                Ok(sqlx::Either::Right(_)) => {}
                Err(error) => return Err(classify(error)),
            }
        }
        Ok(hits)
    }

    fn joined(&mut self, first: &'static str, steps: &[Step]) -> Arc<str> {
        let key: Vec<usize> = steps.iter().map(|step| std::ptr::from_ref(step.statement) as usize).collect();
        let text = self.texts.entry(key).or_insert_with(|| {
            let texts = steps.iter().map(|step| render::sql(step.statement, step.size));
            std::iter::once(Arc::from(first)).chain(texts).collect::<Vec<_>>().join(";\n").into()
        });
        Arc::clone(text)
    }

    async fn ask(&mut self, ask: Ask) -> Result<i64, StoreError> {
        match ask {
            Ask::Synchronous => sqlx::query_scalar("pragma synchronous")
                .fetch_one(&mut self.connection)
                .await
                .map_err(super::failed("synchronous")),
            Ask::Purge(below) => self.purge(below).await.map_err(super::failed("outbox.purge")),
        }
    }

    async fn purge(&mut self, below: Vec<(&'static str, u16, i64)>) -> Result<i64, sqlx::Error> {
        let mut gone = 0;
        self.connection.execute("begin immediate").await?;
        for (topic, partition, position) in below {
            sqlx::query(
                "insert into outbox_end (topic, partition, next_offset) select topic, partition, \
                 first_offset + messages from outbox where topic = ?1 and partition = ?2 \
                 order by first_offset desc limit 1 \
                 on conflict (topic, partition) do update set next_offset = excluded.next_offset",
            )
            .bind(topic)
            .bind(partition)
            .execute(&mut self.connection)
            .await?;
            let deleted =
                sqlx::query("delete from outbox where topic = ? and partition = ? and first_offset + messages <= ?")
                    .bind(topic)
                    .bind(partition)
                    .bind(position)
                    .execute(&mut self.connection)
                    .await?;
            gone += deleted.rows_affected();
        }
        self.connection.execute("commit").await?;
        Ok(i64::try_from(gone).unwrap_or(i64::MAX))
    }
}

/// A broken constraint is the batch's fault; everything else is a doubt.
fn classify(error: sqlx::Error) -> CommitError {
    match error.as_database_error() {
        Some(database) if database.is_check_violation() || database.code().is_some_and(|code| is_data_code(&code)) => {
            CommitError::Data(database.to_string())
        }
        Some(_) | None => CommitError::Doubt(error.to_string()),
    }
}

/// SQLITE_CONSTRAINT (19 in the low byte), SQLITE_TOOBIG (18) and SQLITE_MISMATCH (20).
fn is_data_code(code: &str) -> bool {
    code.parse::<i32>().is_ok_and(|code| matches!(code & 0xff, 18..=20))
}

/// The steps of one transaction: one statement for all batches' rows of a table, split only above [`render::MOST`].
struct Plan {
    steps: Vec<Step>,
    /// Per batch and write: the group of rows it went into.
    places: Vec<Vec<usize>>,
    groups: Vec<Group>,
}

struct Step {
    statement: &'static Statement,
    rows: Arc<Rows>,
    from: usize,
    to: usize,
    size: usize,
    group: usize,
}

struct Group {
    statement: &'static Statement,
    rows: Rows,
    /// Rows that must be hit; `None` when any number is right.
    expect: Option<u64>,
}

impl Plan {
    fn of(batches: &[&Prepared], bus: &LocalBus) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        let mut fences = Rows::new();
        for fence in batches.iter().filter_map(|batch| batch.fence.as_ref()) {
            let before = &fence.before;
            fences.push([
                before.shard.side.label().into(),
                i64::from(before.shard.index).into(),
                before.epoch.into(),
                before.positions.start.into(),
                before.positions.progress.into(),
                before.next_seq.into(),
                fence.positions.start.into(),
                fence.positions.progress.into(),
                fence.next_seq.into(),
            ]);
        }
        push(&mut groups, &FENCE, &fences, Some(fences.len() as u64));
        let places = batches
            .iter()
            .map(|batch| {
                let writes = batch.writes.iter();
                writes.map(|write| push(&mut groups, write.statement, &write.rows, write.expect)).collect()
            })
            .collect();
        let mut offsets = bus.offsets();
        let mut outbox = Rows::new();
        for row in batches.iter().flat_map(|batch| &batch.outbox) {
            let count = row.envelopes.len() as i64;
            let first = offsets.take(row.topic, row.partition, count);
            outbox.push([
                row.topic.label().into(),
                i64::from(row.partition).into(),
                first.into(),
                count.into(),
                Value::Text(Arc::clone(&row.body)),
            ]);
        }
        push(&mut groups, &OUTBOX, &outbox, Some(outbox.len() as u64));
        let steps = steps(&mut groups);
        Self { steps, places, groups }
    }

    /// Compares hits with expectations and gives every write its hits (those of its whole group).
    fn judge(&self, batches: &[&Prepared], hits: &[u64]) -> Result<Vec<Vec<u64>>, CommitError> {
        let mut totals = vec![0u64; self.groups.len()];
        for (step, hit) in self.steps.iter().zip(hits) {
            totals[step.group] += hit;
        }
        for (group, hit) in self.groups.iter().zip(&totals) {
            if let Some(expected) = group.expect.filter(|expected| expected != hit) {
                let fence = batches.iter().find_map(|batch| batch.fence.as_ref());
                return Err(match fence {
                    Some(fence) if std::ptr::eq(group.statement, &FENCE) => CommitError::Fenced(fence.before.shard),
                    Some(_) | None => CommitError::Conflict { statement: group.statement.name, expected, hit: *hit },
                });
            }
        }
        Ok(self.places.iter().map(|places| places.iter().map(|place| totals[*place]).collect()).collect())
    }
}

/// Adds rows to the statement's group. A write with an expectation and one without never share a group.
fn push(groups: &mut Vec<Group>, statement: &'static Statement, rows: &Rows, expect: Option<u64>) -> usize {
    let same = |group: &Group| std::ptr::eq(group.statement, statement) && group.expect.is_some() == expect.is_some();
    let place = groups.iter().position(same).unwrap_or_else(|| {
        groups.push(Group { statement, rows: Rows::new(), expect: expect.map(|_| 0) });
        groups.len() - 1
    });
    let group = &mut groups[place];
    group.rows.append(rows);
    group.expect = group.expect.zip(expect).map(|(a, b)| a + b);
    place
}

fn steps(groups: &mut [Group]) -> Vec<Step> {
    let mut steps = Vec::with_capacity(groups.len());
    for (index, group) in groups.iter_mut().enumerate() {
        let rows = Arc::new(std::mem::take(&mut group.rows));
        for from in (0..rows.len()).step_by(render::MOST) {
            let to = rows.len().min(from + render::MOST);
            let size = render::size_class(to - from);
            steps.push(Step { statement: group.statement, rows: Arc::clone(&rows), from, to, size, group: index });
        }
    }
    steps
}
