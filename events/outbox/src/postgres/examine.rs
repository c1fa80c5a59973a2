//! What an operator wants to know about a database before trusting it: one finding per question.

use super::connections::{self, in_time};
use super::fit::Server;
use super::{Settings, migrate, plan};
use crate::statement::Statement;
use crate::store::StoreError;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _, Row as _, SqlSafeStr as _};
use std::time::Duration;

/// How far clocks may differ: an owner whose clock is ahead fires deadlines early.
const SKEW_MS: i64 = 5_000;

/// How good an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// As it should be.
    Good,
    /// It works, and something is not promised; the finding says what.
    Mind,
    /// Nothing may run on it.
    Bad,
}

impl Grade {
    /// As reports name it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Mind => "mind",
            Self::Bad => "bad",
        }
    }
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was asked.
    pub check: &'static str,
    /// How good the answer is.
    pub grade: Grade,
    /// The answer.
    pub text: String,
    /// What to do where it is not good, unless the answer says it.
    pub advice: String,
}

impl Finding {
    /// With what to do about it.
    #[must_use]
    pub(crate) fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..self }
    }
}

pub(crate) fn finding(check: &'static str, grade: Grade, text: impl Into<String>) -> Finding {
    Finding { check, grade, text: text.into(), advice: String::new() }
}

/// Asks everything, also whether the database takes these statements, and whether a saga is older than messages are kept;
/// what cannot be asked because something before it is bad is left out.
pub async fn examine(settings: &Settings, statements: &[&'static Statement], retention: Duration) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = ask_all(settings, statements, retention, &mut findings).await {
        let advice = "start the database, or correct store.url; `endstate migrate` makes one that is not there";
        findings.push(finding("reach", Grade::Bad, error.to_string()).advice(advice));
    }
    findings
}

async fn ask_all(
    settings: &Settings,
    statements: &[&'static Statement],
    retention: Duration,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let options = connections::options(&settings.url, "doctor")?;
    let mut connection = connections::connect(&options).await.map_err(super::failed("doctor"))?;
    let address = format!("{}:{}", options.get_host(), options.get_port());
    findings.push(finding("reach", Grade::Good, format!("{address} answers")));
    let server = Server::ask(&mut connection).await?;
    let version = format!("{}.{}", server.version / 10_000, server.version % 10_000);
    match server.unfit() {
        Some(reason) => findings.push(finding("settings", Grade::Bad, reason)),
        None => {
            let text =
                format!("PostgreSQL {version}: fsync, full_page_writes, synchronous_commit, isolation, encoding");
            findings.push(finding("settings", Grade::Good, text));
        }
    }
    findings.push(standby(&mut connection, &server.synchronous_commit).await?);
    findings.push(clock(&mut connection).await?);
    findings.push(sessions(&mut connection, settings).await?);
    match migrate::check(&mut connection).await {
        Ok(()) => findings.push(finding("migrations", Grade::Good, "all are applied")),
        Err(error) => {
            findings.push(finding("migrations", Grade::Bad, error.to_string()).advice("run `endstate migrate`"));
            return Ok(());
        }
    }
    findings.push(rights(&mut connection).await?);
    findings.push(days(&mut connection).await?);
    findings.push(match super::fit::belongs(&mut connection, settings).await {
        Ok(()) => finding("belongs", Grade::Good, format!("environment `{}`", settings.environment.as_str())),
        Err(error) => finding("belongs", Grade::Bad, error.to_string()),
    });
    findings.extend(logical(&mut connection, settings.debezium).await?);
    findings.push(sagas(&mut connection, retention).await?);
    findings.push(prepared(&mut connection, statements).await);
    Ok(())
}

async fn prepared(connection: &mut PgConnection, statements: &[&'static Statement]) -> Finding {
    for statement in statements {
        let text = AssertSqlSafe(plan::alone(statement)).into_sql_str();
        if let Err(error) = connection.prepare(text).await {
            return finding("statements", Grade::Bad, format!("{} is not taken: {error}", statement.name));
        }
    }
    finding("statements", Grade::Good, format!("all {} are taken", statements.len()))
}

/// Debezium reads the log, which must hold enough for it; nothing to say where nobody asked for it.
async fn logical(connection: &mut PgConnection, debezium: bool) -> Result<Option<Finding>, StoreError> {
    if !debezium {
        return Ok(None);
    }
    let level: String = sqlx::query_scalar("select current_setting('wal_level')")
        .fetch_one(connection)
        .await
        .map_err(super::failed("doctor.wal_level"))?;
    let text = format!("status changes are written for Debezium, wal_level is {level}");
    Ok(Some(match level.as_str() {
        "logical" => finding("debezium", Grade::Good, text),
        _ => finding("debezium", Grade::Mind, text).advice("set wal_level = logical and restart: docs/debezium.md"),
    }))
}

/// Without a synchronous standby, a failover can forget what was answered.
async fn standby(connection: &mut PgConnection, synchronous_commit: &str) -> Result<Finding, StoreError> {
    let row = sqlx::query(
        "select current_setting('synchronous_standby_names'), \
         (select case when count(*) = 0 or pg_has_role('pg_read_all_stats', 'usage') \
         then count(*) filter (where sync_state in ('sync', 'quorum')) end from pg_stat_replication), \
         (select count(*) from pg_stat_replication)",
    )
    .fetch_one(connection)
    .await
    .map_err(super::failed("doctor.standby"))?;
    let (names, synchronous, all): (String, Option<i64>, i64) = (row.get(0), row.get(1), row.get(2));
    Ok(match synchronous {
        None if !names.is_empty() && synchronous_commit != "local" => {
            let text = format!("{all} standbys; whether a synchronous one is among them is not shown to this role");
            finding("standby", Grade::Mind, text).advice("grant pg_read_all_stats to the role, or ask as another one")
        }
        known => failover(&names, synchronous_commit, known.unwrap_or_default(), all),
    })
}

/// What a failover may lose, by the settings and the standbys that are connected.
fn failover(names: &str, synchronous_commit: &str, synchronous: i64, all: i64) -> Finding {
    let mind = |text: String, advice: &str| finding("standby", Grade::Mind, text).advice(advice);
    match synchronous_commit {
        "on" | "remote_apply" | "remote_write" if !names.is_empty() && synchronous == 0 => mind(
            "a synchronous standby is configured and none is connected: commits wait for it".to_owned(),
            "bring the standby back",
        ),
        "on" | "remote_apply" if !names.is_empty() => {
            finding("standby", Grade::Good, format!("{synchronous} synchronous of {all} standbys"))
        }
        // The standby has it in memory only.
        "remote_write" if !names.is_empty() => mind(
            "synchronous_commit is remote_write: a standby's machine that fails may lose the last commits".to_owned(),
            "set synchronous_commit = on",
        ),
        _ => mind(
            format!("no synchronous standby ({all} standbys): a failover may lose the last commits"),
            "set synchronous_standby_names, and keep synchronous_commit = on",
        ),
    }
}

async fn clock(connection: &mut PgConnection) -> Result<Finding, StoreError> {
    let before = skew::now_ms();
    let ask = sqlx::query_scalar("select (extract(epoch from clock_timestamp()) * 1000)::int8").fetch_one(connection);
    let theirs: i64 = in_time(Duration::from_secs(5), ask).await.map_err(super::failed("doctor.clock"))?;
    Ok(skew::of("clock", "the database's", before, theirs))
}

/// How far a server's clock is from this machine's.
pub(crate) mod skew {
    use super::{Finding, Grade, SKEW_MS, finding};
    use crate::clock::{Clock as _, SystemClock};

    pub(crate) fn now_ms() -> i64 {
        SystemClock.now_ms()
    }

    /// What a server said that was asked at `before_ms` and has answered by now.
    pub(crate) fn of(check: &'static str, whose: &str, before_ms: i64, theirs_ms: i64) -> Finding {
        let after_ms = now_ms();
        // Somewhere between the two it looked at its clock.
        let skew = if theirs_ms < before_ms { theirs_ms - before_ms } else { (theirs_ms - after_ms).max(0) };
        if skew.abs() >= SKEW_MS {
            let text = format!("{whose} clock differs by {skew} ms from this machine's");
            return finding(check, Grade::Bad, text).advice("let NTP set both");
        }
        finding(check, Grade::Good, format!("differs by {skew} ms"))
    }
}

async fn sessions(connection: &mut PgConnection, settings: &Settings) -> Result<Finding, StoreError> {
    let row = sqlx::query("select current_setting('max_connections')::int8, (select count(*) from pg_stat_activity)")
        .fetch_one(connection)
        .await
        .map_err(super::failed("doctor.sessions"))?;
    let (most, now): (i64, i64) = (row.get(0), row.get(1));
    let wanted = i64::try_from(super::most_sessions(settings)).unwrap_or(i64::MAX / 2);
    let text = format!("{now} of {most} sessions are open; one process takes up to {wanted}");
    if now + wanted > most {
        return Ok(finding("sessions", Grade::Mind, text).advice("raise max_connections, or lower store.connections"));
    }
    Ok(finding("sessions", Grade::Good, text))
}

/// Days are made and dropped by whoever owns the tables, and nobody else.
async fn rights(connection: &mut PgConnection) -> Result<Finding, StoreError> {
    let row = sqlx::query(
        "select current_user::text, bool_and(pg_has_role(relowner, 'usage')), \
         bool_and(has_schema_privilege(relnamespace, 'create')) \
         from pg_class where oid in ('event'::regclass, 'outbox'::regclass)",
    )
    .fetch_one(connection)
    .await
    .map_err(super::failed("doctor.rights"))?;
    let (role, owns, may_create): (String, bool, bool) = (row.get(0), row.get(1), row.get(2));
    Ok(if owns && may_create {
        finding("rights", Grade::Good, format!("`{role}` may make and drop days"))
    } else {
        let text =
            format!("`{role}` may not make the tables of coming days: batches fail on a day that nobody has made");
        let advice =
            "connect as the owner of the tables, who may create in their schema: the role that ran `endstate migrate`";
        finding("rights", Grade::Bad, text).advice(advice)
    })
}

async fn days(connection: &mut PgConnection) -> Result<Finding, StoreError> {
    let row = sqlx::query(
        "select count(*) from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         where i.inhparent in ('event'::regclass, 'outbox'::regclass) \
         and right(c.relname, 8) between to_char(now() at time zone 'UTC', 'YYYYMMDD') \
         and to_char((now() + interval '2 days') at time zone 'UTC', 'YYYYMMDD')",
    )
    .fetch_one(connection)
    .await
    .map_err(super::failed("doctor.days"))?;
    let made: i64 = row.get(0);
    Ok(if made >= 6 {
        finding("days", Grade::Good, "partitions of the coming days are there")
    } else {
        let text = "partitions of the coming days are not there yet: whoever commits first makes them";
        finding("days", Grade::Mind, text).advice("none, unless it stays so while processes run: see E4040")
    })
}

/// What was queued for a saga should outlast it: with the topics, an outage can be looked into.
async fn sagas(connection: &mut PgConnection, retention: Duration) -> Result<Finding, StoreError> {
    let row = sqlx::query(
        "select count(*), coalesce((extract(epoch from clock_timestamp()) * 1000)::int8 - min(started_ms), 0) \
         from saga_view where phase <> 'ended'",
    )
    .fetch_one(connection)
    .await
    .map_err(super::failed("doctor.sagas"))?;
    let (open, oldest_ms): (i64, i64) = (row.get(0), row.get(1));
    let text = format!("{open} are open, the oldest for {} hours", oldest_ms / 3_600_000);
    if u128::try_from(oldest_ms).unwrap_or(0) <= retention.as_millis() {
        return Ok(finding("sagas", Grade::Good, text));
    }
    let text = format!("{text}: longer than topics keep records");
    let advice = "raise kafka.retention_days above the longest saga, or end those that were forgotten";
    Ok(finding("sagas", Grade::Mind, text).advice(advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_session_is_counted() {
        let settings = Settings { writers: 3, connections: 20, ..Settings::new("postgres://x/y") };
        assert_eq!(super::super::most_sessions(&settings), 3 + 20 + 8 + 2 + 1);
    }

    #[test]
    fn only_a_standby_that_has_commits_on_disk_is_good() {
        let grade = |names, commit, synchronous| failover(names, commit, synchronous, 1).grade;
        for commit in ["on", "remote_apply"] {
            assert_eq!(grade("*", commit, 1), Grade::Good, "{commit}");
            assert_eq!(grade("*", commit, 0), Grade::Mind, "{commit}: it is away");
            assert_eq!(grade("", commit, 0), Grade::Mind, "{commit}: there is none");
        }
        for commit in ["remote_write", "local"] {
            assert_eq!(grade("*", commit, 1), Grade::Mind, "{commit}: docs/guarantees.md does not promise for it");
        }
        assert!(failover("*", "remote_write", 1, 1).advice.ends_with("synchronous_commit = on"));
    }
}
