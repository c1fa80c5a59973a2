//! Migrations: numbered texts, applied once each, in order, refused when a text changed or the file is newer.

use super::failed;
use crate::migration::{self, Migration, migrations};
use crate::store::StoreError;
use sqlx::Row as _;
use sqlx::sqlite::SqlitePool;

/// All migrations of an embedded store, in order.
pub(super) static ALL: &[Migration] = migrations!("sqlite":
    "0001_shard" "0002_saga" "0003_participants" "0004_api" "0005_job" "0006_operators" "0007_alert" "0008_discrepancy" "0009_listening"
    "0010_unused_indexes" "0011_undrawn" "0012_snapshot" "0013_orphan_saga" "0014_orphan_turn"
);

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
    for migration in migration::missing(migrations, &applied) {
        apply(pool, migration).await.map_err(failed(migration.name))?;
    }
    Ok(())
}

/// The migration and the record of it in one transaction: a process that dies between them leaves neither.
async fn apply(pool: &SqlitePool, migration: &Migration) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin_with("begin immediate").await?;
    sqlx::raw_sql(migration.sql).execute(&mut *transaction).await?;
    sqlx::query("insert into migration (name, sql) values (?, ?)")
        .bind(migration.name)
        .bind(migration.sql)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

fn unfit(reason: String) -> StoreError {
    StoreError::Unfit { reason: format!("{reason}; use the program that made it, or a new data folder") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_migration_that_fails_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let options =
            sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path().join("db")).create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        let broken = Migration { name: "0001_a", sql: "create table a (x integer); create table a (x integer)" };
        let mended = Migration { name: "0001_a", sql: "create table a (x integer)" };
        assert!(
            matches!(run(&pool, &[broken]).await, Err(StoreError::Failed { statement, .. }) if statement == "0001_a")
        );
        run(&pool, &[mended]).await.unwrap();
        run(&pool, &[mended]).await.unwrap();
        let other = Migration { name: "0001_a", sql: "create table b (x integer)" };
        assert!(matches!(run(&pool, &[other]).await, Err(StoreError::Unfit { .. })), "its text never changes");
        assert!(matches!(run(&pool, &[]).await, Err(StoreError::Unfit { .. })), "a newer program's file is refused");
    }
}
