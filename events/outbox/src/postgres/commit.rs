//! A batch as one statement, see [`super::plan`]: a wrong count is an error that takes everything back. It commits by
//! itself: one round trip, and no transaction that a frozen owner could leave open. Where a write must see another one
//! there are several statements, between `begin` and `commit`.
//!
//! Several batches that are ready together are written in the same way: what they write with the same statement is one
//! expression over the rows of all ([`super::gather`]).

use super::connections::{DEADLINE, in_time, is_in_doubt};
use super::debezium;
use super::partition::PARENTS;
use super::plan::{Part, plan};
use super::render;
use crate::dead_letter;
use crate::parcel::Parcel;
use crate::statement::{Kind, Rows, Statement, Value, Write};
use crate::store::{Commit, CommitError, Fence};
use sqlx::postgres::{PgArguments, PgConnection, PgDatabaseError};
use sqlx::{Arguments as _, AssertSqlSafe, Executor as _, Row as _};
use std::sync::Arc;

/// A fence of a batch. Must hit one row. On a server that was promoted the row may be as its owner remembers it although what was
/// spilled, or decided by others, is not (Z14): nobody writes there before he has assigned himself anew.
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
        Kind::Int,
        Kind::Int,
    ],
    sql: "with r(side, shard, epoch, start_before, progress_before, spilled_start_before, spilled_progress_before, \
          seq_before, outbox_before, start_after, progress_after, spilled_start_after, spilled_progress_after, \
          seq_after, outbox_after, published, witness_start, witness_progress) as ({rows}) update shard \
          set position_start = r.start_after, position_progress = r.progress_after, \
          position_spilled_start = r.spilled_start_after, position_spilled_progress = r.spilled_progress_after, \
          next_seq = r.seq_after, next_outbox_seq = r.outbox_after, published_seq = r.published, \
          witness_start = r.witness_start, witness_progress = r.witness_progress from r \
          where shard.side = r.side and shard.shard = r.shard and shard.epoch = r.epoch \
          and shard.position_start = r.start_before and shard.position_progress = r.progress_before \
          and shard.position_spilled_start = r.spilled_start_before \
          and shard.position_spilled_progress = r.spilled_progress_before \
          and shard.next_seq = r.seq_before and shard.next_outbox_seq = r.outbox_before \
          and shard.timeline in (0, endstate_timeline())",
};

/// A parcel is a row, numbered by its first message.
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
    /// How long its texts are together.
    bytes: usize,
}

impl Prepared {
    /// `debezium`: status changes are written for others, too.
    pub(super) fn new(commit: Commit, debezium: bool) -> Result<Self, CommitError> {
        let Commit { fences, writes: given, messages, dead_letters } = commit;
        let mut writes = Vec::with_capacity(fences.len() + given.len() + 2);
        // Nothing else writes shard rows, letters or the outbox.
        writes.extend(fences.iter().map(|fence| Write::exact(&FENCE, Rows::one(fence_row(fence))).apart()));
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
        let changes = if debezium { debezium::rows(&messages)? } else { Rows::new() };
        if !changes.is_empty() {
            writes.push(Write::exact(&debezium::APPEND, changes).apart());
        }
        if !messages.is_empty() {
            writes.push(Write::exact(&OUTBOX, outbox(fences.first(), messages)?).apart());
        }
        let bytes = writes.iter().map(|write| write.rows.text_bytes()).sum();
        Ok(Self { fences, writes, places, bytes })
    }

    /// Whether it needs a transaction around it.
    pub(super) fn is_long(&self) -> bool {
        Joined::of(&[self]).plan().len() > 1
    }

    /// Whether it may be written together with others, in one statement: it is a shard's, and a sum of counts tells as
    /// much as each count.
    pub(super) fn may_join(&self) -> bool {
        !self.fences.is_empty()
            && self.writes.iter().all(|write| write.apart && write.expect == Some(write.rows.len() as u64))
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Runs it. Returns the rows that each write of the caller hit, and how many were hit in all: fences and outbox, too;
    /// or why not, and whether the session is in doubt with it.
    pub(super) async fn run(&self, connection: &mut PgConnection) -> Result<(Vec<u64>, u64), (Failure, bool)> {
        let run = Joined::of(&[self]).run(connection).await;
        let hits = run.map_err(|error| {
            let in_doubt = is_in_doubt(&error);
            (self.failure(error), in_doubt)
        })?;
        let own = self.places.iter().map(|place| place.map_or(0, |place| hits[place])).collect();
        Ok((own, hits.iter().sum()))
    }

    /// What the caller of a batch learns that was written together with others: each write has hit what it must.
    pub(super) fn met(&self) -> Vec<u64> {
        let met = |place: usize| self.writes[place].expect.unwrap_or_default();
        self.places.iter().map(|place| place.map_or(0, met)).collect()
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
            // A row without a place: no constraint has a name, and the table is the whole, not a day. Words may be translated.
            "23514"
                if database.constraint().is_none() && database.table().is_some_and(|name| PARENTS.contains(&name)) =>
            {
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

/// Batches as they are written together: per statement, the rows of all.
pub(super) struct Joined<'a> {
    writes: Vec<JoinedWrite<'a>>,
}

struct JoinedWrite<'a> {
    statement: &'static Statement,
    apart: bool,
    rows: Vec<&'a Rows>,
    expect: Option<u64>,
}

impl<'a> Joined<'a> {
    pub(super) fn of(batches: &[&'a Prepared]) -> Self {
        let mut writes: Vec<JoinedWrite<'a>> = Vec::new();
        for batch in batches {
            // Two writes of one batch are never one, whatever their statements.
            let mut taken = vec![false; writes.len()];
            for Write { statement, rows, expect, apart } in &batch.writes {
                let same = |(at, write): &(usize, &JoinedWrite<'_>)| {
                    std::ptr::eq(write.statement, *statement) && taken.get(*at) == Some(&false)
                };
                if let Some((at, _)) = writes.iter().enumerate().find(same) {
                    taken[at] = true;
                    let write = &mut writes[at];
                    write.rows.push(rows);
                    write.apart &= apart;
                    write.expect = write.expect.zip(*expect).map(|(one, other)| one + other);
                } else {
                    taken.push(true);
                    let (apart, expect) = (*apart, *expect);
                    writes.push(JoinedWrite { statement, apart, rows: vec![rows], expect });
                }
            }
        }
        if batches.len() > 1 {
            // In one order, whoever came first: a few texts are prepared, not one for each mix. Fences before all.
            writes.sort_by_key(|write| (!std::ptr::eq(write.statement, &FENCE), write.statement.name));
        }
        Self { writes }
    }

    fn plan(&self) -> super::plan::Plan {
        let parts: Vec<Part> = self.writes.iter().map(|write| (write.statement, write.apart)).collect();
        plan(&parts)
    }

    /// Runs them. Returns the rows that each write hit.
    pub(super) async fn run(&self, connection: &mut PgConnection) -> Result<Vec<u64>, sqlx::Error> {
        if self.writes.is_empty() {
            return Ok(Vec::new());
        }
        let plan = self.plan();
        let work = async {
            let mut hits = Vec::with_capacity(self.writes.len());
            if let [(text, _)] = plan.as_slice() {
                group(connection, text, &self.writes, &mut hits).await?;
            } else {
                connection.execute("begin").await?;
                let mut from = 0;
                for (text, end) in plan.iter() {
                    group(connection, text, &self.writes[from..*end], &mut hits).await?;
                    from = *end;
                }
                connection.execute("commit").await?;
            }
            Ok(hits)
        };
        in_time(DEADLINE, work).await
    }
}

async fn group(
    connection: &mut PgConnection,
    text: &Arc<str>,
    writes: &[JoinedWrite<'_>],
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

fn fence_row(fence: &Fence) -> [Value; 18] {
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
        after.positions.witness_start.value().into(),
        after.positions.witness_progress.value().into(),
    ]
}

/// The rows of the outbox: one for each parcel, numbered on from the fence by the messages they hold.
fn outbox(fence: Option<&Fence>, parcels: Vec<Parcel>) -> Result<Rows, CommitError> {
    let fence = fence.ok_or_else(|| CommitError::Data("messages without a fence have no numbers here".into()))?;
    let mut seq = fence.before.next_outbox_seq;
    let messages: usize = parcels.iter().map(Parcel::len).sum();
    if fence.next_outbox_seq - seq != messages as i64 {
        return Err(CommitError::Data(format!("the fence counts other messages than these {messages}")));
    }
    let shard = fence.before.shard;
    let mut rows = Rows::new();
    for parcel in parcels {
        let count = parcel.len() as i64;
        rows.push([
            shard.side.label().into(),
            i64::from(shard.index).into(),
            seq.into(),
            parcel.topic.label().into(),
            i64::from(parcel.partition).into(),
            count.into(),
            parcel.body.into(),
        ]);
        seq += count;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_without_a_partition_is_read_from_the_error() {
        let detail = "Partition key of the failing row contains (time_ms) = (1700000000000).";
        assert_eq!(
            (key_of(Some(detail)), key_of(Some("something else")), key_of(None)),
            (Some(1_700_000_000_000), None, None)
        );
    }
}
