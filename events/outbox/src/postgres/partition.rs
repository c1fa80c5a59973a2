//! Days: `event` and `outbox`, and where it is asked for the table for Debezium, lie in one partition per day, made a week
//! ahead by whoever commits, and dropped whole.

use super::connections::{Connections, DEADLINE, in_time};
use super::{debezium, failed};
use crate::clock::{Clock as _, SystemClock};
use crate::parcel;
use crate::store::StoreError;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

pub(super) const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// The tables that lie in one partition per day; the last one has days only where it is written.
pub(super) const PARENTS: [&str; 3] = ["event", "outbox", debezium::TABLE];

/// Days that exist before they begin: time to notice that none are made any more.
const AHEAD: i64 = 7;

/// The last day that was seen to have its partitions, and the tables that have them.
#[derive(Debug)]
pub(super) struct Days(AtomicI64, &'static [&'static str]);

impl Days {
    pub(super) fn new(debezium: bool) -> Self {
        Self(AtomicI64::new(i64::MIN), if debezium { &PARENTS } else { &PARENTS[..2] })
    }

    /// Makes the partitions of the coming days where they are missing; asks the database once a day.
    pub(super) async fn ahead(&self, connections: &Connections) {
        let last = SystemClock.now_ms().div_euclid(DAY_MS) + AHEAD;
        // Whoever raises it does the work; when that fails, so that the next one tries again, it is put back.
        let before = self.0.fetch_max(last, Ordering::Relaxed);
        if before >= last {
            return;
        }
        if let Err(error) = self.make(connections, last - AHEAD, last).await {
            self.0.store(before, Ordering::Relaxed);
            tracing::error!(%error, "E4040: partitions of the coming days cannot be made");
        }
    }

    /// Makes the partitions of days, counted from 1970, where they are missing.
    pub(super) async fn make(&self, connections: &Connections, first: i64, last: i64) -> Result<(), StoreError> {
        let mut lent = connections.take().await.map_err(failed("partition.connect"))?;
        let query = sqlx::query(
            "select endstate_partition(parent, day) from unnest($3::text[]) parent, \
             generate_series($1::int8, $2::int8) day",
        );
        let making = lent.connection().execute(query.bind(first).bind(last).bind(self.1));
        in_time(DEADLINE, making).await.map_err(failed("partition.make"))?;
        lent.give_back();
        Ok(())
    }
}

/// What a removal marks a day with before it detaches it: one that is found detached, and marked, is dropped. A day that
/// somebody else detached stays.
const MARK: &str = "endstate: dropped as soon as it is detached";

/// Days that ended some days ago, and how it is known whether somebody still needs one.
struct Rule {
    parent: &'static str,
    days: i64,
    /// Asks whether a day, `{day}`, holds what is needed.
    needed: String,
}

/// Sequence numbers that the first row which is not published may begin below the mark: no parcel has so many messages.
const REACH: usize = 65_536;
const _: () = assert!(parcel::MESSAGES < REACH);

impl Rule {
    /// Days of the outbox whose messages are all published; days of events that every view has followed and in which no saga
    /// has events that still has a row (an open one, or one that is not archived yet) and no later snapshot.
    /// What Debezium gets is needed by nobody: it is read from the log, as it was written.
    fn all(outbox_days: i64, event_days: i64) -> [Self; 3] {
        [
            Self { parent: debezium::TABLE, days: outbox_days, needed: "select false".to_owned() },
            Self {
                parent: "outbox",
                days: outbox_days,
                // One look into the index per shard, however many messages a day has.
                needed: format!(
                    "select exists (select from shard s cross join lateral (select from {{day}} o \
                     where o.side = s.side and o.shard = s.shard and o.seq > s.published_seq - {REACH} \
                     and o.seq + o.messages > s.published_seq limit 1) o)"
                ),
            },
            Self {
                parent: "event",
                days: event_days,
                needed: "select exists (select from {day} e left join projection p on p.shard = e.shard \
                         where e.seq > coalesce(p.seq, 0) or exists (select from saga s where s.id = e.saga) and not exists \
                         (select from snapshot n where n.saga = e.saga and n.version > e.version))"
                    .to_owned(),
            },
        ]
    }

    /// Its days that have ended, the oldest first. By the database's clock, which says in which day a row lies: a process whose
    /// own clock is ahead would let go of today.
    async fn ended(&self, connection: &mut PgConnection) -> Result<Vec<String>, Undone> {
        let listed = sqlx::query_scalar(
            "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
             where i.inhparent = $1::regclass and not i.inhdetachpending and c.relname < $1 || '_' || \
             to_char(clock_timestamp() at time zone 'UTC' - $2 * interval '1 day', 'YYYYMMDD') order by 1",
        );
        let names = listed.bind(self.parent).bind(self.days.max(1)).fetch_all(connection).await;
        let names: Vec<String> = names.map_err(undone("partition.list", Behind::All))?;
        Ok(names.into_iter().filter(|name| is_day(self.parent, name)).collect())
    }

    async fn is_needed(&self, connection: &mut PgConnection, name: &str) -> Result<bool, Undone> {
        let text = AssertSqlSafe(self.needed.replace("{day}", name));
        sqlx::query_scalar(text).fetch_one(connection).await.map_err(undone("partition.needed", Behind::Nobody))
    }
}

/// Days that ended more than `outbox_days` ago, those of events more than `event_days` ago, and that nobody needs. Drops them,
/// and first what an earlier removal that was cut off has left, unless they are only looked for. A day that others use keeps
/// none but itself, and is told of at the end.
pub(super) async fn old(
    connection: &mut PgConnection,
    outbox_days: i64,
    event_days: i64,
    only_look: bool,
) -> Result<Vec<String>, StoreError> {
    let (mut found, mut late) = (Vec::new(), None);
    for rule in Rule::all(outbox_days, event_days) {
        let swept = sweep(connection, &rule, only_look, &mut found, &mut late).await;
        if let Err(Undone { behind, error }) = swept {
            if behind == Behind::All {
                return Err(error);
            }
            late.get_or_insert(error);
        }
    }
    match late {
        None => Ok(found),
        Some(StoreError::Failed { statement, reason }) if !found.is_empty() => {
            let reason = format!("{reason}; found beside it: {}", found.join(", "));
            Err(StoreError::Failed { statement, reason })
        }
        Some(error) => Err(error),
    }
}

/// The days of one table. What holds up the table's other days, too, is the error.
async fn sweep(
    connection: &mut PgConnection,
    rule: &Rule,
    only_look: bool,
    found: &mut Vec<String>,
    late: &mut Option<StoreError>,
) -> Result<(), Undone> {
    let mut days = Vec::new();
    if !only_look {
        // A table of which a day is being detached can let go of no other one.
        finalize(connection, rule.parent).await?;
        days = cut_off(connection, rule.parent).await?;
    }
    let detached = days.len();
    days.extend(rule.ended(connection).await?);
    for (place, name) in days.into_iter().enumerate() {
        let done = async {
            if place < detached {
                return drop_detached(connection, &name).await.map(|()| true);
            }
            if rule.is_needed(connection, &name).await? {
                return Ok(false);
            }
            if !only_look {
                remove(connection, rule.parent, &name).await?;
            }
            Ok(true)
        };
        match done.await {
            Ok(true) => found.push(name),
            Ok(false) => {}
            Err(Undone { behind: Behind::Nobody, error }) => {
                tracing::debug!(name, %error, "a day is not dropped yet");
                late.get_or_insert(error);
            }
            Err(undone) => return Err(undone),
        }
    }
    Ok(())
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

/// What of a removal was not done.
struct Undone {
    behind: Behind,
    error: StoreError,
}

/// Who waits behind what was not done.
#[derive(Clone, Copy, PartialEq)]
enum Behind {
    Nobody,
    /// The table's other days.
    Table,
    All,
}

/// What was not done, and holds up those `behind` it.
fn undone(what: &str, behind: Behind) -> impl Fn(sqlx::Error) -> Undone {
    move |error| {
        let code = error.as_database_error().and_then(|error| error.code());
        match code.as_deref() {
            // A lock that was not had, a statement that took too long.
            Some("55P03" | "57014") => Undone { behind, error: late(what, &error.to_string()) },
            _ => Undone { behind: Behind::All, error: failed(what)(error) },
        }
    }
}

/// Drops a day. Each step is found by [`finalize`] or [`cut_off`] when it is the last one before a crash.
async fn remove(connection: &mut PgConnection, parent: &str, name: &str) -> Result<(), Undone> {
    let mark = AssertSqlSafe(format!("comment on table {name} is '{MARK}'"));
    connection.execute(mark).await.map_err(undone("partition.mark", Behind::Nobody))?;
    // Concurrently: writers of other days do not wait.
    let detach = AssertSqlSafe(format!("alter table {parent} detach partition {name} concurrently"));
    connection.execute(detach).await.map_err(undone("partition.detach", Behind::Table))?;
    drop_detached(connection, name).await
}

async fn drop_detached(connection: &mut PgConnection, name: &str) -> Result<(), Undone> {
    let text = AssertSqlSafe(format!("drop table {name}"));
    connection.execute(text).await.map(drop).map_err(undone("partition.drop", Behind::Nobody))
}

/// Finishes what was cut off while a day was being detached.
async fn finalize(connection: &mut PgConnection, parent: &str) -> Result<(), Undone> {
    let pending = sqlx::query_scalar(
        "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         where i.inhparent = $1::regclass and i.inhdetachpending",
    );
    let pending = pending.bind(parent).fetch_all(&mut *connection).await;
    let names: Vec<String> = pending.map_err(undone("partition.pending", Behind::All))?;
    for name in names.iter().filter(|name| is_day(parent, name)) {
        let text = AssertSqlSafe(format!("alter table {parent} detach partition {name} finalize"));
        connection.execute(text).await.map_err(undone("partition.finalize", Behind::Table))?;
    }
    Ok(())
}

/// Days of a removal that was cut off: marked ones that are detached.
async fn cut_off(connection: &mut PgConnection, parent: &str) -> Result<Vec<String>, Undone> {
    let detached = sqlx::query_scalar(
        "select c.relname::text from pg_class c where c.relkind = 'r' and not c.relispartition \
         and c.relnamespace = (select relnamespace from pg_class where oid = $2::regclass) \
         and obj_description(c.oid, 'pg_class') = $1 order by 1",
    );
    let names = detached.bind(MARK).bind(parent).fetch_all(connection).await;
    let names: Vec<String> = names.map_err(undone("partition.detached", Behind::All))?;
    Ok(names.into_iter().filter(|name| is_day(parent, name)).collect())
}
