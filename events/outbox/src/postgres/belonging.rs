//! Which store this is, and the brokers that it goes with (Z17, ADR 0023).

use super::{PostgresStore, failed};
use crate::store::{Positions, ShardId, StoreError};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

/// The row that names the brokers' cluster.
const CLUSTER: &str = "kafka_cluster";

/// The row that names the cluster on which the environment was seen to be its own.
const CLAIMED: &str = "kafka_claimed";

const KEEP: &str =
    "insert into system (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value";

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

    /// Refuses brokers of another cluster than those that it was used with. It keeps nothing: who names brokers by mistake is
    /// refused by them, and must not be bound to them.
    pub async fn goes_with(&self, cluster: &str) -> Result<(), StoreError> {
        matches(self.cluster().await?, cluster)
    }

    /// Keeps the cluster on which it has the environment, from the first one on; refuses another one.
    pub async fn keeps(&self, cluster: &str) -> Result<(), StoreError> {
        let mut lent = self.watchers.take().await.map_err(failed("system.claim"))?;
        let kept = kept(lent.connection(), cluster).await.map_err(failed("system.claim"))?;
        lent.give_back();
        matches(kept, cluster)
    }

    /// Whether it has seen that the environment on this cluster is its own.
    pub async fn has_claimed(&self, cluster: &str) -> Result<bool, StoreError> {
        Ok(self.setting(CLAIMED).await?.is_some_and(|claimed| claimed == cluster))
    }

    /// Closes the sessions that idle. They have ended with a server that was away, and somebody's first statement would find
    /// that out.
    pub fn forget_idle(&self) {
        for sessions in [&self.writers, &self.readers, &self.takers, &self.watchers] {
            sessions.forget_idle();
        }
    }

    /// From now on it goes with the brokers of this cluster. `beginnings`: every shard reads their topics from the beginning,
    /// which is where this says, or else at the first record of all; nobody may do that while processes use the store. Returns
    /// the cluster that it went with before.
    pub async fn adopt(
        &self,
        cluster: &str,
        beginnings: Option<&[(ShardId, Positions)]>,
    ) -> Result<Option<String>, StoreError> {
        let mut lent = self.watchers.take().await.map_err(failed("system.adopt"))?;
        let adopted = adopt(lent.connection(), cluster, beginnings).await.map_err(failed("system.adopt"))?;
        lent.give_back();
        adopted.map_err(|users| StoreError::Unfit {
            reason: format!("{users} sessions of running processes still use this database; stop them first"),
        })
    }
}

fn matches(kept: Option<String>, cluster: &str) -> Result<(), StoreError> {
    match kept {
        Some(kept) if kept != cluster => Err(StoreError::OtherBrokers { kept, found: cluster.to_owned() }),
        Some(_) | None => Ok(()),
    }
}

/// The cluster that it goes with: this one, unless there was another before.
async fn kept(connection: &mut PgConnection, cluster: &str) -> Result<Option<String>, sqlx::Error> {
    let first = "insert into system (name, value) values ($1, $2) on conflict (name) do nothing";
    sqlx::query(first).bind(CLUSTER).bind(cluster).execute(&mut *connection).await?;
    let kept = setting(connection, CLUSTER).await?;
    if kept.as_deref() == Some(cluster) {
        sqlx::query(KEEP).bind(CLAIMED).bind(cluster).execute(connection).await?;
    }
    Ok(kept)
}

async fn setting(connection: &mut PgConnection, name: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("select value from system where name = $1").bind(name).fetch_optional(connection).await
}

/// The cluster before, or how many sessions are in the way.
async fn adopt(
    connection: &mut PgConnection,
    cluster: &str,
    beginnings: Option<&[(ShardId, Positions)]>,
) -> Result<Result<Option<String>, i64>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let before = setting(&mut transaction, CLUSTER).await?;
    sqlx::query(KEEP).bind(CLUSTER).bind(cluster).execute(&mut *transaction).await?;
    if let Some(beginnings) = beginnings {
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
        let shards = "update shard s set epoch = s.epoch + 1, position_start = coalesce(b.start, 0), \
                      position_progress = coalesce(b.progress, 0), witness_start = 0, witness_progress = 0 \
                      from shard o left join unnest($1::text[], $2::int8[], $3::int8[], $4::int8[]) \
                      as b(side, shard, start, progress) on (b.side, b.shard) = (o.side, o.shard::int8) \
                      where (o.side, o.shard) = (s.side, s.shard)";
        let each = |of: fn(&(ShardId, Positions)) -> i64| beginnings.iter().map(of).collect::<Vec<_>>();
        sqlx::query(shards)
            .bind(beginnings.iter().map(|(shard, _)| shard.side.label()).collect::<Vec<_>>())
            .bind(each(|(shard, _)| shard.index.into()))
            .bind(each(|(_, positions)| positions.start))
            .bind(each(|(_, positions)| positions.progress))
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(Ok(before))
}
