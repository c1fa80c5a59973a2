//! Taking a shard over: its row's epoch is bumped, whoever holds the row.
//!
//! An owner that was frozen with the row locked would hold it for ever: timeouts of statements and transactions and even
//! a cancel leave it alone while it waits for its client in the middle of COPY. So a takeover that has waited for a while
//! asks the database who is in its way, and terminates that session, if it is one of ours (Z5).

use super::connections::{APPLICATION, Connections, in_time};
use super::{Timeline, failed, render};
use crate::statement::{Kind, Rows, Statement, Value};
use crate::store::{Assignment, Positions, ShardId, StoreError};
use crate::witness::Witness;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{AssertSqlSafe, Row as _};
use std::time::Duration;

/// No batch holds the row so long, unless its owner is frozen.
const PATIENCE: Duration = Duration::from_secs(2);

/// After that the database is in trouble that a takeover does not cure.
const DEADLINE: Duration = Duration::from_secs(60);

/// The locking bump: what it returns is what the last commit left, whichever commit that was. On another timeline, on a server
/// that was promoted say, the epoch leaves behind all that were given before, also those that this server has never heard of
/// (Z14, ADR 0024).
pub(super) static BUMP: Statement = Statement {
    name: "shard.take_over",
    columns: &[Kind::Text, Kind::Int],
    sql: "with r(side, shard) as ({rows}), t(timeline) as (select endstate_timeline()) \
          insert into shard as s (side, shard, epoch, timeline) \
          select side, shard, (greatest(timeline - 1, 0) << 32) + 1, timeline from r, t where true \
          on conflict (side, shard) do update set epoch = greatest(s.epoch + 1, excluded.epoch, \
          case when s.timeline not in (0, excluded.timeline) then (((s.epoch >> 32) + 1) << 32) + 1 end), \
          era_outbox_seq = case when s.timeline not in (0, excluded.timeline) or s.epoch >> 32 < excluded.epoch >> 32 \
          then s.next_outbox_seq else s.era_outbox_seq end, timeline = excluded.timeline \
          returning epoch, position_start, position_progress, position_spilled_start, position_spilled_progress, \
          next_seq, next_outbox_seq, published_seq, witness_start, witness_progress, timeline",
};

/// Takes the shard over. `takers` are sessions that only ever do this, `watchers` those that clear their way.
pub(super) async fn assign(
    shard: ShardId,
    takers: &Connections,
    watchers: &Connections,
    timeline: &Timeline,
) -> Result<Assignment, StoreError> {
    let mut lent = takers.take().await.map_err(failed(BUMP.name))?;
    let work = async {
        let taker: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(lent.connection())
            .await
            .map_err(failed(BUMP.name))?;
        let bump = bump(lent.connection(), shard);
        tokio::pin!(bump);
        loop {
            tokio::select! {
                row = &mut bump => return row.map_err(failed(BUMP.name)),
                () = tokio::time::sleep(PATIENCE) => clear(watchers, taker, shard).await?,
            }
        }
    };
    let late = |_| StoreError::Failed { statement: BUMP.name.into(), reason: format!("no answer in {DEADLINE:?}") };
    let row = tokio::time::timeout(DEADLINE, work).await.map_err(late)??;
    lent.give_back();
    match row.as_slice() {
        [
            Value::Int(epoch),
            Value::Int(start),
            Value::Int(progress),
            Value::Int(spilled_start),
            Value::Int(spilled_progress),
            Value::Int(next_seq),
            Value::Int(next_outbox_seq),
            Value::Int(published_seq),
            Value::Int(witness_start),
            Value::Int(witness_progress),
            Value::Int(heard),
        ] => {
            timeline.heard(*heard);
            Ok(Assignment {
                shard,
                epoch: *epoch,
                positions: Positions {
                    start: *start,
                    progress: *progress,
                    spilled_start: *spilled_start,
                    spilled_progress: *spilled_progress,
                    witness_start: Witness::stored(*witness_start),
                    witness_progress: Witness::stored(*witness_progress),
                },
                next_seq: *next_seq,
                next_outbox_seq: *next_outbox_seq,
                published_seq: *published_seq,
            })
        }
        _ => {
            Err(StoreError::Failed { statement: BUMP.name.into(), reason: format!("the row of shard {shard} is odd") })
        }
    }
}

async fn bump(connection: &mut PgConnection, shard: ShardId) -> Result<Vec<Value>, sqlx::Error> {
    let mut arguments = PgArguments::default();
    let key = Rows::one([shard.side.label().into(), i64::from(shard.index).into()]);
    render::bind(&mut arguments, &BUMP, &[&key]).map_err(sqlx::Error::Encode)?;
    let query = sqlx::query_with(AssertSqlSafe(render::text(&BUMP, 1)), arguments);
    render::row(&query.fetch_one(connection).await?)
}

/// Terminates the sessions that a taker waits for: of our program, our user and our database, and no takers themselves,
/// which only wait in front of us. Found and terminated in one statement, so that no process id is taken for another.
async fn clear(watchers: &Connections, taker: i32, shard: ShardId) -> Result<(), StoreError> {
    let work = async {
        let mut lent = watchers.take().await?;
        let query = sqlx::query(
            "select a.pid, a.application_name, a.client_addr::text, pg_terminate_backend(a.pid) \
             from pg_stat_activity a where a.pid = any(pg_blocking_pids($1)) and a.datname = current_database() \
             and a.usename = current_user and a.application_name like $2 || ' %' and a.application_name <> $2 || ' takeover'",
        );
        let rows = query.bind(taker).bind(APPLICATION).fetch_all(lent.connection()).await?;
        lent.give_back();
        Ok(rows)
    };
    for row in in_time(PATIENCE, work).await.map_err(failed("shard.clear_way"))? {
        let (pid, name, address): (i32, String, Option<String>) = (row.get(0), row.get(1), row.get(2));
        tracing::warn!(%shard, pid, name, address, "E4041: a session that kept a shard's row locked was terminated");
    }
    Ok(())
}
