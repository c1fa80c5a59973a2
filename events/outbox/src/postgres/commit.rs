//! A batch as one statement: each write is a common table expression whose rows are counted, and a wrong count is an
//! error that takes everything back. It commits by itself: one round trip, and no transaction that a frozen owner could
//! leave open.
//!
//! All expressions of a statement see the table as it was before, so that a write which must see another one begins a
//! statement of its own; then they stand between `begin` and `commit`.

use super::connections::{DEADLINE, in_time};
use super::render;
use crate::bus::Outgoing;
use crate::dead_letter;
use crate::statement::{Dialect, Kind, Rows, Statement, Value, Write};
use crate::store::{Commit, CommitError, Fence};
use endstate_events::Envelope;
use rustc_hash::FxHashMap;
use sqlx::postgres::{PgArguments, PgConnection, PgDatabaseError};
use sqlx::{Arguments as _, AssertSqlSafe, Executor as _, Row as _};
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// A fence of a batch. Must hit one row.
pub(super) static FENCE: Statement = Statement {
    name: "shard.fence_and_mark",
    columns: &[
        Kind::Text,
        Kind::Int,
        Kind::Int,
        Kind::Int,
        Kind::Int,
        Kind::Int,
        Kind::Int,
        Kind::Int,
        Kind::Int,
        Kind::Int,
        Kind::Int,
        Kind::Int,
        Kind::Int,
        Kind::Int,
        Kind::Int,
        Kind::Int,
    ],
    sql: "with r(side, shard, epoch, start_before, progress_before, spilled_start_before, spilled_progress_before, \
          seq_before, outbox_before, start_after, progress_after, spilled_start_after, spilled_progress_after, \
          seq_after, outbox_after, published) as ({rows}) update shard \
          set position_start = r.start_after, position_progress = r.progress_after, \
          position_spilled_start = r.spilled_start_after, position_spilled_progress = r.spilled_progress_after, \
          next_seq = r.seq_after, next_outbox_seq = r.outbox_after, published_seq = r.published from r \
          where shard.side = r.side and shard.shard = r.shard and shard.epoch = r.epoch \
          and shard.position_start = r.start_before and shard.position_progress = r.progress_before \
          and shard.position_spilled_start = r.spilled_start_before \
          and shard.position_spilled_progress = r.spilled_progress_before \
          and shard.next_seq = r.seq_before and shard.next_outbox_seq = r.outbox_before",
};

/// Messages of a batch for one partition are one row, numbered by the first.
pub(super) static OUTBOX: Statement = Statement {
    name: "outbox.append",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Text, Kind::Int, Kind::Int, Kind::Text],
    sql: "with r(side, shard, seq, topic, partition, messages, body) as ({rows}) \
          insert into outbox (side, shard, seq, topic, partition, messages, body) select * from r",
};

/// A commit as it will be sent.
pub(super) struct Prepared {
    fences: Vec<Fence>,
    /// Fences first, then the writes, then the outbox.
    writes: Vec<Write>,
    /// Where each write of the caller stands among `writes`; empty ones are not sent.
    places: Vec<Option<usize>>,
}

impl Prepared {
    pub(super) fn new(commit: Commit) -> Result<Self, CommitError> {
        let Commit { fences, writes: given, messages, dead_letters } = commit;
        let mut writes = Vec::with_capacity(fences.len() + given.len() + 2);
        writes.extend(fences.iter().map(|fence| Write::exact(&FENCE, Rows::one(fence_row(fence)))));
        let mut places = Vec::with_capacity(given.len());
        for write in given {
            if write.rows.is_empty() {
                if let Some(expected) = write.expect.filter(|expected| *expected != 0) {
                    return Err(CommitError::Conflict { statement: write.statement.name, expected, hit: 0 });
                }
                places.push(None);
            } else {
                places.push(Some(writes.len()));
                writes.push(write);
            }
        }
        if !dead_letters.is_empty() {
            writes.push(Write::any(&dead_letter::INSERT, dead_letter::rows(dead_letters)));
        }
        if !messages.is_empty() {
            writes.push(Write::exact(&OUTBOX, outbox(fences.first(), messages)?));
        }
        Ok(Self { fences, writes, places })
    }

    /// Whether it needs a transaction around it.
    pub(super) fn is_long(&self) -> bool {
        plan(&self.statements()).len() > 1
    }

    fn statements(&self) -> Vec<&'static Statement> {
        self.writes.iter().map(|write| write.statement).collect()
    }

    /// Runs it. Returns the rows that each write of the caller hit.
    pub(super) async fn run(&self, connection: &mut PgConnection) -> Result<Vec<u64>, Failure> {
        if self.writes.is_empty() {
            return Ok(vec![0; self.places.len()]);
        }
        let plan = plan(&self.statements());
        let work = async {
            let mut hits = Vec::with_capacity(self.writes.len());
            if let [(text, _)] = plan.as_slice() {
                self.group(connection, text, &self.writes, &mut hits).await?;
            } else {
                connection.execute("begin").await?;
                let mut from = 0;
                for (text, end) in plan.iter() {
                    self.group(connection, text, &self.writes[from..*end], &mut hits).await?;
                    from = *end;
                }
                connection.execute("commit").await?;
            }
            Ok(hits)
        };
        let hits = in_time(DEADLINE, work).await.map_err(|error| self.failure(error))?;
        Ok(self.places.iter().map(|place| place.map_or(0, |place| hits[place])).collect())
    }

    async fn group(
        &self,
        connection: &mut PgConnection,
        text: &Arc<str>,
        writes: &[Write],
        hits: &mut Vec<u64>,
    ) -> Result<(), sqlx::Error> {
        let mut arguments = PgArguments::default();
        let bad = sqlx::Error::Encode;
        for write in writes {
            render::bind(&mut arguments, write.statement, &write.rows).map_err(bad)?;
            let expect = write.expect.map(|expected| i64::try_from(expected).unwrap_or(i64::MAX));
            arguments.add(expect).map_err(bad)?;
        }
        // Composed of static texts only: see `plan`.
        let query = sqlx::query_with(AssertSqlSafe(Arc::clone(text)), arguments);
        let row = query.fetch_one(connection).await?;
        for index in 0..writes.len() {
            hits.push(u64::try_from(row.try_get::<i64, _>(index)?).unwrap_or_default());
        }
        Ok(())
    }

    fn failure(&self, error: sqlx::Error) -> Failure {
        let sqlx::Error::Database(database) = &error else {
            let error = match error {
                sqlx::Error::Encode(error) => CommitError::Data(error.to_string()),
                lost => CommitError::Doubt(lost.to_string()),
            };
            return Failure::Commit(error);
        };
        let database = database.downcast_ref::<PgDatabaseError>();
        let said = match database.detail() {
            Some(detail) => format!("{} ({detail})", database.message()),
            None => database.message().to_owned(),
        };
        Failure::Commit(match database.code() {
            "ES011" => self.miscounted(database.message()),
            "23514" if database.constraint().is_none() && database.message().starts_with("no partition") => {
                return Failure::NoPartition { time_ms: key_of(database.detail()), said };
            }
            // Cardinalities, integrity constraints, values the types cannot hold, rows or fields that are too large.
            code if ["21", "22", "23", "54"].iter().any(|class| code.starts_with(class)) => CommitError::Data(said),
            code => CommitError::Doubt(format!("{code}: {said}")),
        })
    }

    /// The database counted another number of rows than was expected.
    fn miscounted(&self, message: &str) -> CommitError {
        let mut numbers = message.split(' ').map(|number| number.parse::<u64>().unwrap_or_default());
        let mut next = || numbers.next().unwrap_or_default();
        let (part, hit, expected) = (next(), next(), next());
        let part = usize::try_from(part).unwrap_or(usize::MAX);
        match (self.fences.get(part), self.writes.get(part)) {
            (Some(fence), _) => CommitError::Fenced(fence.before.shard),
            (None, Some(write)) => CommitError::Conflict { statement: write.statement.name, expected, hit },
            (None, None) => CommitError::Doubt(format!("the database miscounted: {message}")),
        }
    }
}

/// Why a commit failed.
pub(super) enum Failure {
    /// What the caller learns.
    Commit(CommitError),
    /// A row's day has no partition yet.
    NoPartition {
        /// The row's time, if the database named it.
        time_ms: Option<i64>,
        /// The database's words.
        said: String,
    },
}

/// The value in `Partition key of the failing row contains (time_ms) = (1700000000000).`
fn key_of(detail: Option<&str>) -> Option<i64> {
    detail?.rsplit_once("= (")?.1.split(')').next()?.parse().ok()
}

fn fence_row(fence: &Fence) -> [Value; 16] {
    let (before, after) = (&fence.before, fence.after());
    [
        before.shard.side.label().into(),
        i64::from(before.shard.index).into(),
        before.epoch.into(),
        before.positions.start.into(),
        before.positions.progress.into(),
        before.positions.spilled_start.into(),
        before.positions.spilled_progress.into(),
        before.next_seq.into(),
        before.next_outbox_seq.into(),
        after.positions.start.into(),
        after.positions.progress.into(),
        after.positions.spilled_start.into(),
        after.positions.spilled_progress.into(),
        after.next_seq.into(),
        after.next_outbox_seq.into(),
        after.published_seq.into(),
    ]
}

/// The rows of the outbox: one for each run of messages with one destination, numbered on from the fence.
fn outbox(fence: Option<&Fence>, messages: Vec<Outgoing>) -> Result<Rows, CommitError> {
    let fence = fence.ok_or_else(|| CommitError::Data("messages without a fence have no numbers here".into()))?;
    let mut seq = fence.before.next_outbox_seq;
    if fence.next_outbox_seq - seq != messages.len() as i64 {
        return Err(CommitError::Data(format!("the fence counts other messages than these {}", messages.len())));
    }
    let shard = fence.before.shard;
    let mut rows = Rows::new();
    for run in messages.chunk_by(|a, b| (a.topic, a.partition) == (b.topic, b.partition)) {
        let envelopes: Vec<&Envelope> = run.iter().map(|message| &*message.envelope).collect();
        let body = serde_json::to_string(&envelopes).map_err(|error| CommitError::Data(error.to_string()))?;
        rows.push([
            shard.side.label().into(),
            i64::from(shard.index).into(),
            seq.into(),
            run[0].topic.label().into(),
            i64::from(run[0].partition).into(),
            (run.len() as i64).into(),
            body.into(),
        ]);
        seq += run.len() as i64;
    }
    Ok(rows)
}

/// Texts of the statements a batch becomes, each with the end of its writes.
type Plan = Arc<Vec<(Arc<str>, usize)>>;

/// Groups the writes: as many as possible in one statement, in their order.
fn plan(statements: &[&'static Statement]) -> Plan {
    type Plans = FxHashMap<Vec<usize>, Plan>;
    static CACHE: LazyLock<Mutex<Plans>> = LazyLock::new(Mutex::default);
    let key = statements.iter().map(|statement| std::ptr::from_ref(*statement) as usize).collect();
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(cache.entry(key).or_insert_with(|| {
        let mut plan = Vec::new();
        let mut from = 0;
        while from < statements.len() {
            let end = from + together(&statements[from..]);
            plan.push((fused(from, &statements[from..end]).into(), end));
            from = end;
        }
        Arc::new(plan)
    }))
}

/// How many of the statements, from the first on, touch nothing that another of them writes.
fn together(statements: &[&'static Statement]) -> usize {
    let mut seen: Vec<(&Statement, Tables)> = Vec::new();
    for statement in statements.iter().copied() {
        let tables = Tables::of(statement);
        let meets = |(earlier, other): &(&Statement, Tables)| {
            // Fences are of different shards.
            let fences = std::ptr::eq(*earlier, &FENCE) && std::ptr::eq(statement, &FENCE);
            !fences && (tables.all.contains(&other.written) || other.all.contains(&tables.written))
        };
        if seen.iter().any(meets) {
            break;
        }
        seen.push((statement, tables));
    }
    seen.len()
}

/// Which tables a writing statement names.
struct Tables {
    written: String,
    all: Vec<String>,
}

impl Tables {
    fn of(statement: &Statement) -> Self {
        let text = statement.text(Dialect::Postgres).to_lowercase();
        let words: Vec<&str> =
            text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).collect();
        let mut all = Vec::new();
        let mut written = String::new();
        for pair in words.windows(2) {
            let [verb, table] = pair else { continue };
            let writes = matches!(*verb, "into" | "update") && *table != "set";
            if (writes || matches!(*verb, "from" | "join")) && !matches!(*table, "r" | "rows") {
                all.push((*table).to_owned());
                // A delete is the only one that begins with `from`; what it deletes from is named first.
                if written.is_empty() && (writes || text.contains(&format!("delete from {table}"))) {
                    written = (*table).to_owned();
                }
            }
        }
        Self { written, all }
    }
}

/// One statement of several: `from` is the place of the first among the writes of the batch.
fn fused(from: usize, statements: &[&'static Statement]) -> String {
    let (mut text, mut counts, mut parameter) = (String::from("with "), String::new(), 1);
    for (index, statement) in statements.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let sql = render::text(statement, parameter);
        parameter += statement.columns.len();
        let _ = write!(text, "{comma}w{index} as ({sql} returning 1)");
        // Counted in this order: the fence is looked at before anything else is written.
        let _ = write!(
            counts,
            "{comma}endstate_must({}, (select count(*) from w{index}), ${parameter}::int8)",
            from + index
        );
        parameter += 1;
    }
    format!("{text} select {counts}")
}

/// The statement as it is sent alone: what writes is counted, as in a batch.
pub(super) fn alone(statement: &'static Statement) -> String {
    let reads = Tables::of(statement).written.is_empty() || statement.sql.contains(" returning ");
    if reads { render::text(statement, 1) } else { fused(0, &[statement]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    static INSERT: Statement = Statement {
        name: "a",
        columns: &[Kind::Int],
        sql: "with r(id) as ({rows}) insert into a (id) select id from r where not exists (select 1 from b)",
    };
    static UPDATE: Statement =
        Statement { name: "b", columns: &[Kind::Int], sql: "with r(id) as ({rows}) update b set id = r.id from r" };
    static DELETE: Statement =
        Statement { name: "c", columns: &[Kind::Int], sql: "delete from c where id in ({rows})" };

    #[test]
    fn writes_of_different_tables_are_one_statement() {
        assert_eq!(together(&[&FENCE, &FENCE, &INSERT, &DELETE, &OUTBOX]), 5);
        let text = fused(2, &[&INSERT, &DELETE]);
        assert!(
            text.contains("w1 as (delete from c where id in (select * from unnest($3::int8[])) returning 1)"),
            "{text}"
        );
        assert!(text.ends_with("endstate_must(3, (select count(*) from w1), $4::int8)"), "{text}");
    }

    #[test]
    fn a_write_does_not_share_a_statement_with_one_that_it_must_see() {
        assert_eq!(together(&[&UPDATE, &INSERT]), 1, "the insert reads what is updated");
        assert_eq!(together(&[&INSERT, &UPDATE]), 1, "and must not see what comes after it");
        assert_eq!(together(&[&INSERT, &DELETE, &INSERT]), 2);
        assert_eq!(plan(&[&INSERT, &DELETE, &INSERT]).iter().map(|(_, end)| *end).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn the_day_without_a_partition_is_read_from_the_error() {
        let detail = "Partition key of the failing row contains (time_ms) = (1700000000000).";
        assert_eq!(
            (key_of(Some(detail)), key_of(Some("something else")), key_of(None)),
            (Some(1_700_000_000_000), None, None)
        );
    }
}
