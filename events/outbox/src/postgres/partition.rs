//! Days: `event` and `outbox` lie in one partition per day, made a week ahead by whoever commits, and dropped whole.

use super::connections::{Connections, DEADLINE, in_time};
use super::failed;
use crate::clock::{Clock as _, SystemClock};
use crate::store::StoreError;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

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

/// What a removal marks a day with before it detaches it: one that is found detached, and marked, is dropped. A day that
/// somebody else detached stays.
const MARK: &str = "endstate: dropped as soon as it is detached";

/// Days that ended some days ago, and how it is known whether somebody still needs one.
struct Rule {
    parent: &'static str,
    days: i64,
    /// Rows that are needed, behind `from DAY`.
    needed: &'static str,
}

impl Rule {
    fn all(outbox_days: i64, event_days: i64) -> [Self; 2] {
        [
            Self {
                parent: "outbox",
                days: outbox_days,
                needed: "o join shard s on s.side = o.side and s.shard = o.shard where o.seq + o.messages > s.published_seq",
            },
            Self {
                parent: "event",
                days: event_days,
                needed: "e left join projection p on p.shard = e.shard where e.seq > coalesce(p.seq, 0) \
                         or exists (select from saga s where s.id = e.saga) and not exists \
                         (select from snapshot n where n.saga = e.saga and n.version > e.version)",
            },
        ]
    }
}

/// Days of the outbox that ended more than `outbox_days` ago and whose messages are all published, and days of events that
/// ended more than `event_days` ago, that every view has followed and in which no saga has events that still has a row (an
/// open one, or one that is not archived yet) and no later snapshot. Table and day, the oldest first.
pub(super) async fn old(
    connection: &mut PgConnection,
    outbox_days: i64,
    event_days: i64,
) -> Result<Vec<(&'static str, String)>, StoreError> {
    let today = SystemClock.now_ms().div_euclid(DAY_MS);
    let mut found = Vec::new();
    for Rule { parent, days, needed } in Rule::all(outbox_days, event_days) {
        let listed = sqlx::query(
            "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
             where i.inhparent = $1::regclass and not i.inhdetachpending and c.relname < \
             $1 || '_' || to_char(to_timestamp($2 * 86400) at time zone 'UTC', 'YYYYMMDD') order by 1",
        );
        let rows = listed.bind(parent).bind(today - days.max(1)).fetch_all(&mut *connection).await;
        for row in rows.map_err(failed("partition.list"))? {
            let name: String = row.get(0);
            if !is_day(parent, &name) {
                continue;
            }
            let text = format!("select exists (select from {name} {needed})");
            let still: bool = sqlx::query_scalar(AssertSqlSafe(text))
                .fetch_one(&mut *connection)
                .await
                .map_err(undone("partition.needed"))?;
            if !still {
                found.push((parent, name));
            }
        }
    }
    Ok(found)
}

/// Names come from the catalogue, and are put into statements only when they look as ours do.
fn is_day(parent: &str, name: &str) -> bool {
    let day = name.strip_prefix(parent).and_then(|rest| rest.strip_prefix('_')).unwrap_or_default();
    day.len() == 8 && day.bytes().all(|byte| byte.is_ascii_digit())
}

/// How long a removal waits for those who use a day, how long one of its statements may take, and all of it: together it
/// ends before the job's lease does, whoever is in the way.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_secs(120);
pub(super) const REMOVAL: Duration = Duration::from_secs(480);

/// What a session for removals runs with.
pub(super) fn limits(lock_wait: Duration) -> [(&'static str, String); 2] {
    [("lock_timeout", lock_wait), ("statement_timeout", STEP)].map(|(name, time)| (name, time.as_millis().to_string()))
}

/// A removal that was not done in time; whatever it left, the next one finishes.
pub(super) fn late(what: &str, said: &str) -> StoreError {
    let reason = format!("E4043: old days are not dropped yet, the next run goes on: {said}");
    StoreError::Failed { statement: what.to_owned(), reason }
}

fn undone(what: &str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| {
        let code = error.as_database_error().and_then(|error| error.code());
        match code.as_deref() {
            // A lock that was not had, a statement that took too long.
            Some("55P03" | "57014") => late(what, &error.to_string()),
            _ => failed(what)(error),
        }
    }
}

/// Drops a day. Each step is found by [`finish`] when it is the last one before a crash.
pub(super) async fn remove(connection: &mut PgConnection, parent: &str, name: &str) -> Result<(), StoreError> {
    let steps = [
        format!("comment on table {name} is '{MARK}'"),
        // Concurrently: writers of other days do not wait.
        format!("alter table {parent} detach partition {name} concurrently"),
        format!("drop table {name}"),
    ];
    for text in steps {
        connection.execute(AssertSqlSafe(text)).await.map_err(undone("partition.drop"))?;
    }
    Ok(())
}

/// Finishes removals that were cut off: days that were being detached, and marked ones that are detached. Returns the names
/// of what went.
pub(super) async fn finish(connection: &mut PgConnection) -> Result<Vec<String>, StoreError> {
    let pending = sqlx::query(
        "select p.relname::text, c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         join pg_class p on p.oid = i.inhparent \
         where i.inhparent in ('event'::regclass, 'outbox'::regclass) and i.inhdetachpending",
    );
    for row in pending.fetch_all(&mut *connection).await.map_err(failed("partition.pending"))? {
        let (parent, name): (String, String) = (row.get(0), row.get(1));
        if is_day(&parent, &name) {
            let text = format!("alter table {parent} detach partition {name} finalize");
            connection.execute(AssertSqlSafe(text)).await.map_err(undone("partition.finalize"))?;
        }
    }
    let detached = sqlx::query_scalar(
        "select c.relname::text from pg_class c where c.relkind = 'r' and not c.relispartition \
         and c.relnamespace = (select relnamespace from pg_class where oid = 'event'::regclass) \
         and obj_description(c.oid, 'pg_class') = $1 order by 1",
    );
    let names: Vec<String> =
        detached.bind(MARK).fetch_all(&mut *connection).await.map_err(failed("partition.detached"))?;
    let names: Vec<String> = names.into_iter().filter(|name| is_day("event", name) || is_day("outbox", name)).collect();
    for name in &names {
        let text = format!("drop table {name}");
        connection.execute(AssertSqlSafe(text)).await.map_err(undone("partition.drop"))?;
    }
    Ok(names)
}
