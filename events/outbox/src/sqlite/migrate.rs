//! Migrations: numbered texts, applied once each, in order, refused when a text changed or the file is newer.

use super::failed;
use crate::store::StoreError;
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Row as _};

/// One numbered migration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Migration {
    /// File name without its ending.
    name: &'static str,
    sql: &'static str,
}

macro_rules! migration {
    ($name:literal) => {
        Migration {
            name: $name,
            sql: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/sqlite/", $name, ".sql")),
        }
    };
}

/// All migrations of an embedded store, in order.
pub(super) static ALL: [Migration; 5] = [
    migration!("0001_shard"),
    migration!("0002_saga"),
    migration!("0003_participants"),
    migration!("0004_api"),
    migration!("0005_job"),
];

pub(super) async fn run(pool: &SqlitePool, migrations: &[Migration]) -> Result<(), StoreError> {
    sqlx::query("create table if not exists migration (name text primary key, sql text not null) strict")
        .execute(pool)
        .await
        .map_err(failed("migration.table"))?;
    let rows = sqlx::query("select name, sql from migration order by name")
        .fetch_all(pool)
        .await
        .map_err(failed("migration.list"))?;
    let applied: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for (name, sql) in &applied {
        match migrations.iter().find(|migration| migration.name == name) {
            Some(migration) if migration.sql == sql => {}
            Some(_) => return Err(unfit(format!("migration {name} was applied with another text"))),
            None => return Err(unfit(format!("migration {name} is unknown: the file was made by a newer program"))),
        }
    }
    for migration in migrations.iter().filter(|m| applied.iter().all(|(name, _)| name != m.name)) {
        let text = format!("begin immediate; {}; commit", migration.sql);
        let result = sqlx::raw_sql(AssertSqlSafe(text)).execute(pool).await;
        result.map_err(failed(migration.name))?;
        sqlx::query("insert into migration (name, sql) values (?, ?)")
            .bind(migration.name)
            .bind(migration.sql)
            .execute(pool)
            .await
            .map_err(failed("migration.insert"))?;
    }
    Ok(())
}

fn unfit(reason: String) -> StoreError {
    StoreError::Unfit { reason: format!("{reason}; use the program that made it, or a new data folder") }
}
