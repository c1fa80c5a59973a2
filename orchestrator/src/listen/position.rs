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

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&LOAD, &SAVE];

/// The next offset to read; none where nothing was read before.
pub(super) async fn load(store: &dyn Store, topic: ForeignTopic, partition: u16) -> Result<Option<i64>, StoreError> {
    let rows = store.read(&LOAD, Rows::one([topic.name().into(), i64::from(partition).into()])).await?;
    Ok(rows.first().and_then(|row| row.first()?.int()))
}

/// Keeps it.
pub(super) async fn save(store: &dyn Store, topic: ForeignTopic, partition: u16, next: i64) -> Result<(), CommitError> {
    let row = Rows::one([topic.name().into(), i64::from(partition).into(), next.into()]);
    store.commit(Commit { writes: vec![Write::any(&SAVE, row)], ..Commit::default() }).await.map(drop)
}
