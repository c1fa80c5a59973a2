//! How far topics of other teams were read.

use endstate_events::ForeignTopic;
use endstate_outbox::{Commit, CommitError, Kind, Rows, Statement, Store, StoreError, Write};

static LOAD: Statement = Statement {
    name: "listening.load",
    columns: &[Kind::Text, Kind::Int],
    sql: "with r(topic, partition) as ({rows}) select l.next_offset from listening l join r on l.topic = r.topic and \
          l.partition = r.partition",
};

/// Never back: two owners for a moment do no harm.
static SAVE: Statement = Statement {
    name: "listening.save",
    columns: &[Kind::Text, Kind::Int, Kind::Int],
    sql: "with r(topic, partition, next_offset) as ({rows}) insert into listening (topic, partition, next_offset) \
          select topic, partition, next_offset from r where true on conflict (topic, partition) do update \
          set next_offset = excluded.next_offset where listening.next_offset < excluded.next_offset",
};

/// How many partitions a topic had when it was heard first stands in a row of its own, which no partition has.
const WIDTH: i64 = -1;

static FIRST: Statement = Statement {
    name: "listening.first",
    columns: &[Kind::Text, Kind::Int, Kind::Int],
    sql: "with r(topic, partition, next_offset) as ({rows}) insert into listening (topic, partition, next_offset) \
          select topic, partition, next_offset from r where true on conflict (topic, partition) do nothing",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&LOAD, &SAVE, &FIRST];

/// The next offset to read; none where nothing was read before.
pub(super) async fn load(store: &dyn Store, topic: ForeignTopic, partition: u16) -> Result<Option<i64>, StoreError> {
    number(store, topic, i64::from(partition)).await
}

async fn number(store: &dyn Store, topic: ForeignTopic, partition: i64) -> Result<Option<i64>, StoreError> {
    let rows = store.read(&LOAD, Rows::one([topic.name().into(), partition.into()])).await?;
    Ok(rows.first().and_then(|row| row.first()?.int()))
}

/// How many partitions the topic had when it was heard first: now, as `width` says, if that was never.
pub(super) async fn first_width(store: &dyn Store, topic: ForeignTopic, width: u16) -> Result<i64, String> {
    let row = Rows::one([topic.name().into(), WIDTH.into(), i64::from(width).into()]);
    let commit = Commit { writes: vec![Write::any(&FIRST, row)], ..Commit::default() };
    store.commit(commit).await.map_err(|error| error.to_string())?;
    let known = number(store, topic, WIDTH).await.map_err(|error| error.to_string())?;
    Ok(known.unwrap_or_else(|| i64::from(width)))
}

/// Keeps it.
pub(super) async fn save(store: &dyn Store, topic: ForeignTopic, partition: u16, next: i64) -> Result<(), CommitError> {
    let row = Rows::one([topic.name().into(), i64::from(partition).into(), next.into()]);
    store.commit(Commit { writes: vec![Write::any(&SAVE, row)], ..Commit::default() }).await.map(drop)
}
