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
    findings.push(days(&mut connection).await?);
    findings.push(match super::fit::belongs(&mut connection, settings).await {
        Ok(()) => finding("belongs", Grade::Good, format!("environment `{}`", settings.environment.as_str())),
        Err(error) => finding("belongs", Grade::Bad, error.to_string()),
    });
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

/// Without a synchronous standby, a failover can forget what was answered.
async fn standby(connection: &mut PgConnection, synchronous_commit: &str) -> Result<Finding, StoreError> {
    let row = sqlx::query(
        "select current_setting('synchronous_standby_names'), \
         (select count(*) from pg_stat_replication where sync_state in ('sync', 'quorum')), \
         (select count(*) from pg_stat_replication)",
    )
    .fetch_one(connection)
    .await
    .map_err(super::failed("doctor.standby"))?;
    let (names, synchronous, all): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
    let waits = matches!(synchronous_commit, "on" | "remote_write" | "remote_apply");
    Ok(if names.is_empty() || !waits {
        let text = format!("no synchronous standby ({all} standbys): a failover may lose the last commits");
        let advice = "set synchronous_standby_names, and keep synchronous_commit = on";
        finding("standby", Grade::Mind, text).advice(advice)
    } else if synchronous == 0 {
        finding(
            "standby",
            Grade::Mind,
            "a synchronous standby is configured and none is connected: commits wait for it",
        )
        .advice("bring the standby back")
    } else {
        finding("standby", Grade::Good, format!("{synchronous} synchronous of {all} standbys"))
    })
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
    // Batches, reads, takeovers and the watch over them.
    let wanted = i64::try_from(settings.connections).unwrap_or(i64::MAX / 4) * 2 + super::TAKERS as i64 + 2;
    let text = format!("{now} of {most} sessions are open; one process takes up to {wanted}");
    if now + wanted > most {
        return Ok(finding("sessions", Grade::Mind, text).advice("raise max_connections, or lower store.connections"));
    }
    Ok(finding("sessions", Grade::Good, text))
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
