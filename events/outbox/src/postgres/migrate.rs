//! Migrations: numbered texts, applied once each and in order by one process at a time, recorded with their checksums.
//!
//! They expand: an older program runs on a newer schema, so that instances can be replaced one by one. What an older
//! program could not bear is a migration of its own whose name ends in `_contract`, applied when the last one is gone.

use super::connections::{self, APPLICATION};
use crate::migration::{self, Migration, migrations};
use crate::store::StoreError;
use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use std::fmt::Write as _;

/// All migrations, in order.
static ALL: &[Migration] = migrations!("postgres":
    "0001_shard" "0002_saga" "0003_participants" "0004_api" "0005_job" "0006_alert" "0007_discrepancy"
    "0008_spill" "0009_listening" "0010_unused_indexes" "0011_compression"
    "0012_undrawn" "0013_witness" "0014_snapshot" "0015_store" "0016_debezium" "0017_era"
    "0018_orphan_saga" "0019_orphan_turn"
);

/// Any number will do, as long as nobody else in the database takes it: the letters of `endstate`.
const LOCK: i64 = 0x65_6e_64_73_74_61_74_65;

fn sha256(migration: &Migration) -> String {
    Sha256::digest(migration.sql).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Applies what is missing; returns the names of what was applied. Processes that come together wait for each other.
pub(super) async fn run(url: &str) -> Result<Vec<&'static str>, StoreError> {
    let options = connections::options(url, "migrate")?.application_name(&format!("{APPLICATION} migrate"));
    let mut connection = match connections::connect(&options).await {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("3D000") => {
            create(&options).await.map_err(super::failed("migration.create_database"))?;
            connections::connect(&options).await
        }
        other => other,
    }
    .map_err(super::failed("migrate"))?;
    let ours = &mut connection;
    let lock = sqlx::query("select pg_advisory_lock($1)").bind(LOCK);
    ours.execute(lock).await.map_err(super::failed("migration.lock"))?;
    ours.execute(
        "create table if not exists migration (name text primary key, sha256 text not null, \
         applied timestamptz not null default now())",
    )
    .await
    .map_err(super::failed("migration.table"))?;
    let mut applied = Vec::new();
    for migration in missing(ours).await? {
        apply(ours, migration).await.map_err(super::failed(migration.name))?;
        applied.push(migration.name);
    }
    // The lock goes with the session.
    connection.close().await.map_err(super::failed("migrate"))?;
    Ok(applied)
}

/// Makes the database that is named; another process may be as fast.
async fn create(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let name = options.get_database().unwrap_or_default().replace('"', "\"\"");
    let mut connection = connections::connect(&options.clone().database("postgres")).await?;
    let text = format!("create database \"{name}\" encoding 'UTF8' template template0");
    match connection.execute(AssertSqlSafe(text)).await {
        // It is there, or is being made.
        Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42P04" | "23505")) => {}
        other => {
            other?;
        }
    }
    connection.close().await
}

/// Drops the database that is named, with the sessions in it.
pub(super) async fn remove(url: &str) -> Result<(), sqlx::Error> {
    let other = |error: StoreError| sqlx::Error::Configuration(error.into());
    let options = connections::options(url, "remove").map_err(other)?;
    let name = options.get_database().unwrap_or_default().replace('"', "\"\"");
    let mut connection = connections::connect(&options.database("postgres")).await?;
    connection.execute(AssertSqlSafe(format!("drop database if exists \"{name}\" with (force)"))).await?;
    connection.close().await
}

/// How long a migration waits for a table that somebody else reads.
const LOCKS: &str = "set local lock_timeout = '10s'";

/// The migration and the record of it in one transaction: a process that dies between them leaves neither.
async fn apply(connection: &mut PgConnection, migration: &Migration) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // Whoever waits for a lock holds up all who come behind: a migration gives up instead, and is run again.
    sqlx::query(LOCKS).execute(&mut *transaction).await?;
    sqlx::raw_sql(migration.sql).execute(&mut *transaction).await?;
    sqlx::query("insert into migration (name, sha256) values ($1, $2)")
        .bind(migration.name)
        .bind(sha256(migration))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// What a database lacks; an error when it has what this program cannot live with.
async fn missing(connection: &mut PgConnection) -> Result<Vec<&'static Migration>, StoreError> {
    let rows = sqlx::query("select name, sha256 from migration order by name").fetch_all(connection).await;
    let rows = rows.map_err(super::failed("migration.list"))?;
    let applied: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for (name, mark) in &applied {
        match ALL.iter().find(|migration| migration.name == name) {
            Some(migration) if sha256(migration) == *mark => {}
            Some(_) => return Err(unfit(format!("migration {name} was applied with another text"))),
            None if name.ends_with("_contract") => {
                return Err(unfit(format!("migration {name} took away what this older program needs")));
            }
            None => tracing::info!(name, "the database has a migration of a newer program"),
        }
    }
    Ok(migration::missing(ALL, &applied))
}

/// Refuses a database that lacks a migration.
pub(super) async fn check(connection: &mut PgConnection) -> Result<(), StoreError> {
    let table: Option<String> = sqlx::query_scalar("select to_regclass('migration')::text")
        .fetch_one(&mut *connection)
        .await
        .map_err(super::failed("migration.table"))?;
    let missing = if table.is_some() { missing(connection).await? } else { ALL.iter().collect() };
    match missing.first() {
        None => Ok(()),
        Some(first) => Err(StoreError::Unfit {
            reason: format!("the database lacks migration {}; run `endstate migrate` first", first.name),
        }),
    }
}

fn unfit(reason: String) -> StoreError {
    StoreError::Unfit { reason: format!("{reason}; use the program that made it, or another database") }
}
