//! The table of spilled messages.
//!
//! Numbers come from one row for each topic and partition, which an append locks until its commit: the next append gets
//! the next numbers only when this one can be read, or is gone without a trace. So a reader that sees a number sees all
//! below it.

use super::connections::{DEADLINE, in_time};
use super::{PostgresStore, failed, render};
use crate::bus::{BusError, Outgoing, TAKE_BYTES};
use crate::spill::{Place, Spill, SpillEnd};
use crate::statement::{Kind, Row, Rows, Statement, Value};
use crate::store::{Store as _, StoreError};
use async_trait::async_trait;
use endstate_events::Topic;
use sqlx::postgres::PgArguments;
use sqlx::{AssertSqlSafe, Error};

/// Rows of the ends are locked in one order, so that no two appends wait for each other. Nothing is numbered below what its
/// shard has read: a standby that took over may lack appends of which the shard has committed its reading since (Z14).
pub(super) static APPEND: Statement = Statement {
    name: "spill.append",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Text],
    sql: "with r(topic, shard, place, body) as ({rows}), \
          c as (select r.topic, r.shard, count(*) as messages, coalesce(max(case r.topic when 'start' \
          then w.position_spilled_start else w.position_spilled_progress end), 0) as position from r left join shard w \
          on w.side = case r.topic when 'commands' then 'participants' else 'orchestrator' end and w.shard = r.shard \
          group by r.topic, r.shard), \
          e as (insert into spill_end as e (topic, shard, next_n) \
          select topic, shard, position + messages from c order by topic, shard \
          on conflict (topic, shard) do update set next_n = greatest(e.next_n + (select c.messages from c \
          where c.topic = e.topic and c.shard = e.shard), excluded.next_n) \
          returning topic, shard, next_n), \
          w as (insert into spill (topic, shard, n, body) select r.topic, r.shard, \
          e.next_n - count(*) over p + row_number() over (p order by r.place) - 1, r.body \
          from r join e on e.topic = r.topic and e.shard = r.shard window p as (partition by r.topic, r.shard)) \
          select topic, shard, next_n from e",
};

/// A page ends with the message that makes it large.
static PAGE: Statement = Statement {
    name: "spill.page",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int, Kind::Int],
    sql: "with r(topic, shard, from_n, page, bytes) as ({rows}), \
          p as (select s.n, s.body, r.bytes, sum(length(s.body)) over (order by s.n \
          rows between unbounded preceding and 1 preceding) as before from r join spill s \
          on s.topic = r.topic and s.shard = r.shard and s.n >= r.from_n and s.n < r.from_n + r.page) \
          select n, body from p where coalesce(before, 0) < bytes order by n",
};

/// Where each place begins and ends, and where its shard stands; also one that a shard has read in and nobody appended to, as far
/// as a standby knows that took over (Z14).
static ENDS: Statement = Statement {
    name: "spill.ends",
    columns: &[Kind::Text, Kind::Text],
    sql: "with r(topic, side) as ({rows}), \
          w as (select r.topic, w.shard, case r.topic when 'start' then w.position_spilled_start \
          else w.position_spilled_progress end as position from r join shard w on w.side = r.side), \
          e as (select coalesce(e.topic, w.topic) as topic, coalesce(e.shard, w.shard) as shard, \
          coalesce(e.next_n, 0) as next_n, coalesce(w.position, 0) as position from spill_end e \
          full join w on w.topic = e.topic and w.shard = e.shard where e.shard is not null or w.position > 0) \
          select e.topic, e.shard, (select min(s.n) from spill s where s.topic = e.topic and s.shard = e.shard), \
          e.position, e.next_n, coalesce((select (extract(epoch from clock_timestamp()) * 1000)::bigint - s.time_ms \
          from spill s where s.topic = e.topic and s.shard = e.shard and s.n = e.position), 0) from e",
};

static FORGET: Statement = Statement {
    name: "spill.forget",
    columns: &[Kind::Text, Kind::Text, Kind::Int, Kind::Int],
    sql: "with r(topic, side, shard, below) as ({rows}) delete from spill s using r, shard w \
          where w.side = r.side and w.shard = r.shard and s.topic = r.topic and s.shard = r.shard and s.n < r.below \
          and s.n < case s.topic when 'start' then w.position_spilled_start else w.position_spilled_progress end \
          returning 1::bigint",
};

/// All of them.
pub(super) static STATEMENTS: [&Statement; 4] = [&APPEND, &PAGE, &ENDS, &FORGET];

/// Topics that somebody reads, whose messages may be spilled.
const TOPICS: [Topic; 3] = [Topic::Start, Topic::Progress, Topic::Commands];

fn side(topic: Topic) -> Value {
    topic.side().map_or(Value::Null, |side| side.label().into())
}

#[async_trait]
impl Spill for PostgresStore {
    async fn append(&self, messages: &[Outgoing]) -> Result<Vec<(Place, i64)>, BusError> {
        let mut rows = Rows::new();
        for (place, message) in (0_i64..).zip(messages) {
            if !TOPICS.contains(&message.topic) {
                return Err(BusError::Refused(format!("nobody reads {} from the table", message.topic.label())));
            }
            let body =
                serde_json::to_string(&message.envelope).map_err(|error| BusError::Refused(error.to_string()))?;
            rows.push([message.topic.label().into(), i64::from(message.partition).into(), place.into(), body.into()]);
        }
        let doubt = |error: Error| match &error {
            // Values the types cannot hold, rows that are too large.
            Error::Database(said)
                if said.code().is_some_and(|code| code.starts_with("22") || code.starts_with("54")) =>
            {
                BusError::Refused(said.to_string())
            }
            Error::Encode(reason) => BusError::Refused(reason.to_string()),
            _ => BusError::Unacknowledged(format!("{}: {error}", APPEND.name)),
        };
        let found = self.append_once(&rows).await.map_err(doubt)?;
        found.iter().map(|row| end(row).ok_or_else(|| doubt(odd(row)))).collect()
    }

    async fn page(&self, (topic, partition): Place, from: i64, limit: usize) -> Result<Vec<(i64, String)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (shard, bytes) = (i64::from(partition), TAKE_BYTES as i64);
        let key = [topic.label().into(), shard.into(), from.into(), limit.into(), bytes.into()];
        let rows = self.read(&PAGE, Rows::one(key)).await?;
        let message = |row: &Row| match row.as_slice() {
            [Value::Int(number), Value::Text(body)] => Ok((*number, body.to_string())),
            _ => Err(failed(PAGE.name)(odd(row))),
        };
        rows.iter().map(message).collect()
    }

    async fn ends(&self) -> Result<Vec<SpillEnd>, StoreError> {
        let mut rows = Rows::new();
        TOPICS.iter().for_each(|topic| rows.push([topic.label().into(), side(*topic)]));
        let end = |row: &Row| {
            let [topic, shard, first, position, next, age_ms] = row.as_slice() else { return None };
            let place = place(topic, shard)?;
            let (position, next, age_ms) = (position.int()?, next.int()?, age_ms.int()?.max(0));
            Some(SpillEnd { place, first: first.int(), position, next, age_ms })
        };
        let rows = self.read(&ENDS, rows).await?;
        rows.iter().map(|row| end(row).ok_or_else(|| failed(ENDS.name)(odd(row)))).collect()
    }

    async fn forget(&self, below: &[(Place, i64)]) -> Result<u64, StoreError> {
        let mut rows = Rows::new();
        for ((topic, partition), number) in below {
            rows.push([topic.label().into(), side(*topic), i64::from(*partition).into(), (*number).into()]);
        }
        Ok(self.write_and_return(&FORGET, &rows).await.map_err(failed(FORGET.name))?.len() as u64)
    }
}

impl PostgresStore {
    async fn append_once(&self, rows: &Rows) -> Result<Vec<Row>, Error> {
        self.write_and_return(&APPEND, rows).await
    }

    /// Runs one statement that writes and returns rows. It commits by itself.
    async fn write_and_return(&self, statement: &'static Statement, rows: &Rows) -> Result<Vec<Row>, Error> {
        let mut arguments = PgArguments::default();
        render::bind(&mut arguments, statement, &[rows]).map_err(Error::Encode)?;
        let mut lent = self.writers.take().await?;
        let query = sqlx::query_with(AssertSqlSafe(render::text(statement, 1)), arguments);
        let found = in_time(DEADLINE, query.fetch_all(lent.connection())).await;
        match &found {
            Err(error) if super::connections::is_in_doubt(error) => self.writers.forget_idle(),
            Ok(_) | Err(_) => lent.give_back(),
        }
        found?.iter().map(render::row).collect()
    }
}

fn place(topic: &Value, shard: &Value) -> Option<Place> {
    let topic = TOPICS.into_iter().find(|known| Some(known.label()) == topic.text())?;
    Some((topic, u16::try_from(shard.int()?).ok()?))
}

fn end(row: &Row) -> Option<(Place, i64)> {
    let [topic, shard, next] = row.as_slice() else { return None };
    Some((place(topic, shard)?, next.int()?))
}

fn odd(row: &Row) -> Error {
    Error::Protocol(format!("an odd row: {row:?}"))
}
