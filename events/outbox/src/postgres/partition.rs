//! Days: `event` and `outbox` lie in one partition per day, made a week ahead by whoever commits, and dropped whole.

use super::connections::{Connections, DEADLINE, in_time};
use super::failed;
use crate::clock::{Clock as _, SystemClock};
use crate::store::StoreError;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use std::sync::atomic::{AtomicI64, Ordering};

pub(super) const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// Days that exist before they begin: time to notice that none are made any more.
const AHEAD: i64 = 7;

/// The last day that was seen to have its partitions.
#[derive(Debug)]
pub(super) struct Days(AtomicI64);

impl Days {
    pub(super) fn new() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }

    /// Makes the partitions of the coming days where they are missing; asks the database once a day.
    pub(super) async fn ahead(&self, connections: &Connections) {
        let last = SystemClock.now_ms().div_euclid(DAY_MS) + AHEAD;
        // Whoever raises it does the work; when that fails, so that the next one tries again, it is put back.
        let before = self.0.fetch_max(last, Ordering::Relaxed);
        if before >= last {
            return;
        }
        if let Err(error) = make(connections, last - AHEAD, last).await {
            self.0.store(before, Ordering::Relaxed);
            tracing::error!(%error, "E4040: partitions of the coming days cannot be made");
        }
    }
}

/// Makes the partitions of days, counted from 1970, where they are missing.
pub(super) async fn make(connections: &Connections, first: i64, last: i64) -> Result<(), StoreError> {
    let mut lent = connections.take().await.map_err(failed("partition.connect"))?;
    let query = sqlx::query(
        "select endstate_partition(parent, day) from unnest(array['event', 'outbox']) parent, \
         generate_series($1::int8, $2::int8) day",
    );
    let making = lent.connection().execute(query.bind(first).bind(last));
    in_time(DEADLINE, making).await.map_err(failed("partition.make"))?;
    lent.give_back();
    Ok(())
}

/// Drops days of the outbox that ended more than `outbox_days` ago and whose messages are all published, and days of
/// events that ended more than `event_days` ago, that every view has followed and in which no open saga has events.
/// Returns the names of what went.
pub(super) async fn drop_old(
    connection: &mut PgConnection,
    outbox_days: i64,
    event_days: i64,
) -> Result<Vec<String>, StoreError> {
    let today = SystemClock.now_ms().div_euclid(DAY_MS);
    let mut gone = Vec::new();
    let days = [
        (
            "outbox",
            outbox_days,
            "o join shard s on s.side = o.side and s.shard = o.shard \
                                 where o.seq + o.messages > s.published_seq",
        ),
        (
            "event",
            event_days,
            "e left join projection p on p.shard = e.shard where e.seq > coalesce(p.seq, 0) \
                               or exists (select from saga s where s.id = e.saga and s.phase <> 'ended')",
        ),
    ];
    for (parent, keep, needed) in days {
        let listed = sqlx::query(
            "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
             where i.inhparent = $1::regclass and c.relname < \
             $1 || '_' || to_char(to_timestamp($2 * 86400) at time zone 'UTC', 'YYYYMMDD') order by 1",
        );
        let rows = listed.bind(parent).bind(today - keep.max(1)).fetch_all(&mut *connection).await;
        for row in rows.map_err(failed("partition.list"))? {
            let name: String = row.get(0);
            // Names come from the catalogue, and are put into statements only when they look as ours do.
            let day = name.strip_prefix(parent).and_then(|rest| rest.strip_prefix('_')).unwrap_or_default();
            if day.len() != 8 || !day.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let text = format!("select exists (select from {name} {needed})");
            let still: bool = sqlx::query_scalar(AssertSqlSafe(text))
                .fetch_one(&mut *connection)
                .await
                .map_err(failed("partition.needed"))?;
            if still {
                continue;
            }
            // Concurrently: writers of other days do not wait.
            for text in
                [format!("alter table {parent} detach partition {name} concurrently"), format!("drop table {name}")]
            {
                connection.execute(AssertSqlSafe(text)).await.map_err(failed("partition.drop"))?;
            }
            gone.push(name);
        }
    }
    Ok(gone)
}
