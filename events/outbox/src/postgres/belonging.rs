//! Which store this is, and the brokers that it goes with (Z17, ADR 0023).

use super::{PostgresStore, failed};
use crate::store::StoreError;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

/// The row that names the brokers' cluster.
const CLUSTER: &str = "kafka_cluster";

impl PostgresStore {
    /// Its id, made with it.
    pub async fn id(&self) -> Result<String, StoreError> {
        let unfit =
            || StoreError::Unfit { reason: "the store has no id in its table `system`; it has lost rows".into() };
        self.setting("store").await?.ok_or_else(unfit)
    }

    /// The cluster id of its brokers; none before it was used with any.
    pub async fn cluster(&self) -> Result<Option<String>, StoreError> {
        self.setting(CLUSTER).await
    }

    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let mut lent = self.watchers.take().await.map_err(failed("system.read"))?;
        let value = setting(lent.connection(), name).await.map_err(failed("system.read"))?;
        lent.give_back();
        Ok(value)
    }

    /// Refuses brokers of another cluster than those that it was used with; the first ones are kept.
    pub async fn goes_with(&self, cluster: &str) -> Result<(), StoreError> {
        let mut lent = self.watchers.take().await.map_err(failed("system.claim"))?;
        let claim = "insert into system (name, value) values ($1, $2) on conflict (name) do nothing";
        let claim = sqlx::query(claim).bind(CLUSTER).bind(cluster).execute(lent.connection());
        claim.await.map_err(failed("system.claim"))?;
        let kept = setting(lent.connection(), CLUSTER).await.map_err(failed("system.read"))?;
        lent.give_back();
        match kept {
            Some(kept) if kept != cluster => Err(StoreError::OtherBrokers { kept, found: cluster.to_owned() }),
            Some(_) | None => Ok(()),
        }
    }

    /// From now on it goes with the brokers of this cluster. `from_the_beginning`: every shard reads their topics from the
    /// beginning, which nobody may do while processes use the store. Returns the cluster that it went with before.
    pub async fn adopt(&self, cluster: &str, from_the_beginning: bool) -> Result<Option<String>, StoreError> {
        let mut lent = self.watchers.take().await.map_err(failed("system.adopt"))?;
        let adopted = adopt(lent.connection(), cluster, from_the_beginning).await.map_err(failed("system.adopt"))?;
        lent.give_back();
        adopted.map_err(|users| StoreError::Unfit {
            reason: format!("{users} sessions of running processes still use this database; stop them first"),
        })
    }
}

async fn setting(connection: &mut PgConnection, name: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("select value from system where name = $1").bind(name).fetch_optional(connection).await
}

/// The cluster before, or how many sessions are in the way.
async fn adopt(
    connection: &mut PgConnection,
    cluster: &str,
    from_the_beginning: bool,
) -> Result<Result<Option<String>, i64>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let before = setting(&mut transaction, CLUSTER).await?;
    let kept =
        "insert into system (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value";
    sqlx::query(kept).bind(CLUSTER).bind(cluster).execute(&mut *transaction).await?;
    if from_the_beginning {
        let users: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() \
             and (application_name like 'endstate write' or application_name like 'endstate takeover')",
        )
        .fetch_one(&mut *transaction)
        .await?;
        if users > 0 {
            return Ok(Err(users));
        }
        // Who came all the same, and holds a shard, is fenced by its epoch.
        let shards = "update shard set epoch = epoch + 1, position_start = 0, position_progress = 0, witness_start = 0, \
                      witness_progress = 0";
        sqlx::query(shards).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(Ok(before))
}
