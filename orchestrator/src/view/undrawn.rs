//! Sagas that could not be drawn: kept in a table with the reason, tried again a few at a time, and in nobody's way.

use endstate_outbox::{Kind, Rows, Statement, Store, StoreError, Write};
use uuid::Uuid;

/// The ones that were tried longest ago, of the shards given.
static OLDEST: Statement = Statement {
    name: "view.read_undrawn",
    columns: &[Kind::Int, Kind::Int],
    sql: "with r(shard, page) as ({rows}) select u.saga, u.shard from undrawn u where u.shard in (select shard from r) \
          order by u.tried_ms, u.saga limit (select max(page) from r)",
};

/// Keeps them; one that is kept already keeps its beginning.
static KEEP: Statement = Statement {
    name: "view.keep_undrawn",
    columns: &[Kind::Id, Kind::Int, Kind::Int, Kind::Text],
    sql: "with r(saga, shard, now_ms, reason) as ({rows}) \
          insert into undrawn (saga, shard, since_ms, tried_ms, reason) \
          select saga, shard, now_ms, now_ms, reason from r where true \
          on conflict (saga) do update set tried_ms = excluded.tried_ms, reason = excluded.reason",
};

/// Lets go of those that are drawn.
static FORGET: Statement =
    Statement { name: "view.forget_undrawn", columns: &[Kind::Id], sql: "delete from undrawn where saga in ({rows})" };

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&OLDEST, &KEEP, &FORGET];

/// As much of a reason as is kept.
const REASON: usize = 500;

/// At most `page` sagas of these shards, and the shard of each.
pub(super) async fn oldest(
    store: &dyn Store,
    shards: impl Iterator<Item = usize>,
    page: usize,
) -> Result<Vec<(Uuid, usize)>, StoreError> {
    let mut rows = Rows::new();
    shards.for_each(|shard| rows.push([(shard as i64).into(), (page as i64).into()]));
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let rows = store.read(&OLDEST, rows).await?;
    Ok(rows.iter().filter_map(|row| Some((row[0].id()?, usize::try_from(row[1].int()?).ok()?))).collect())
}

/// Keeps those that were missed: (saga, shard, why).
pub(super) fn keep<'a>(missed: impl Iterator<Item = (Uuid, usize, &'a str)>, now_ms: i64) -> Option<Write> {
    let mut rows = Rows::new();
    for (saga, shard, reason) in missed {
        // The store may have refused the data for a sign that it takes in no text.
        let reason = reason[..reason.floor_char_boundary(REASON)].replace('\0', " ");
        rows.push([saga.into(), (shard as i64).into(), now_ms.into(), reason.into()]);
    }
    (!rows.is_empty()).then(|| Write::any(&KEEP, rows))
}

/// Lets go of sagas that were kept.
pub(super) fn forget(sagas: impl Iterator<Item = Uuid>) -> Option<Write> {
    let mut rows = Rows::new();
    sagas.for_each(|saga| rows.push([saga.into()]));
    (!rows.is_empty()).then(|| Write::any(&FORGET, rows))
}
