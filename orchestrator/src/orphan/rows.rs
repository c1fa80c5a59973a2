//! The SQL of orphans: their shard keeps them, and gives them to their saga when it starts.

use crate::consume::start_of;
use endstate_events::{Envelope, SagaId};
use endstate_outbox::{Kind, Row, Rows, Statement, Store, StoreError};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// Orphans that one batch gives to their sagas at most, so that a batch stays one; what is left the job sends.
const PAGE: i64 = 500;

/// The same in characters.
const PAGE_TEXT: i64 = 4 * 1024 * 1024;

/// Sagas with orphans that a shard remembers; beyond, it looks for orphans with every start.
const REMEMBERED: usize = 100_000;

pub(crate) static INSERT: Statement = Statement {
    name: "orphan.insert",
    columns: &[Kind::Int, Kind::Id, Kind::Int, Kind::Int, Kind::Text],
    sql: "with r(shard, saga, time_ms, tried_ms, body) as ({rows}) \
          insert into orphan (shard, saga, time_ms, tried_ms, body) select * from r",
};

pub(crate) static DELETE: Statement =
    Statement { name: "orphan.delete", columns: &[Kind::Int], sql: "delete from orphan where id in ({rows})" };

/// Which sagas inputs of a shard wait for.
pub(super) static SAGAS: Statement = Statement {
    name: "orphan.sagas",
    columns: &[Kind::Int, Kind::Int],
    sql: "with r(shard, page) as ({rows}) select distinct o.saga from orphan o \
          where o.shard = (select shard from r) limit (select page from r)",
};

/// What waits for these sagas, in the order in which it came.
pub(super) static OF_SAGAS: Statement = Statement {
    name: "orphan.of_sagas",
    columns: &[Kind::Id, Kind::Int, Kind::Int],
    sql: "with r(saga, page, most) as ({rows}), \
          o as (select id, saga, body, sum(length(body)) over (order by id) as so_far from orphan \
          where saga in (select saga from r) order by id limit (select min(page) from r)) \
          select id, saga, body from o where so_far <= (select min(most) from r) order by id",
};

/// An input that came before its saga.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// Its row; none when it came with the batch that is being decided.
    pub(crate) id: Option<i64>,
    /// The saga that it is for.
    pub saga: SagaId,
    /// The input.
    pub envelope: Arc<Envelope>,
}

impl Orphan {
    /// Of the batch that is being decided.
    #[must_use]
    pub fn new(saga: SagaId, envelope: Arc<Envelope>) -> Self {
        Self { id: None, saga, envelope }
    }

    /// Whether it is for a saga that another record starts; a start of its own waits for a program that can read it.
    pub(crate) fn follows_start(&self) -> bool {
        self.envelope.message.as_input().is_none_or(|input| start_of(input).is_none())
    }
}

/// The sagas of a shard that inputs wait for: no fewer than there are, so that a start of another one need not look.
#[derive(Debug, Default)]
pub struct Awaited {
    sagas: FxHashSet<SagaId>,
    /// Whether there are more than is remembered.
    more: bool,
}

impl Awaited {
    /// As the store has them.
    pub async fn load(store: &dyn Store, shard: u16) -> Result<Self, StoreError> {
        let rows = store.read(&SAGAS, Rows::one([i64::from(shard).into(), (REMEMBERED as i64 + 1).into()])).await?;
        let mut awaited = Self::default();
        awaited.add(rows.iter().filter_map(|row| row.first()?.id()).map(SagaId));
        Ok(awaited)
    }

    /// Remembers sagas whose first orphans were committed.
    pub fn add(&mut self, sagas: impl IntoIterator<Item = SagaId>) {
        for saga in sagas {
            if self.sagas.len() < REMEMBERED {
                self.sagas.insert(saga);
            } else {
                self.more |= !self.sagas.contains(&saga);
            }
        }
    }

    /// Forgets a saga that has started.
    pub fn remove(&mut self, saga: SagaId) {
        if !self.sagas.is_empty() {
            self.sagas.remove(&saga);
        }
    }

    /// Whether inputs may wait for the saga.
    #[must_use]
    pub fn may_hold(&self, saga: SagaId) -> bool {
        self.more || !self.sagas.is_empty() && self.sagas.contains(&saga)
    }
}

/// What waits for these sagas, each in the order in which it came.
pub(crate) async fn load(
    store: &dyn Store,
    sagas: &FxHashSet<SagaId>,
) -> Result<FxHashMap<SagaId, Vec<Orphan>>, StoreError> {
    let mut rows = Rows::new();
    sagas.iter().for_each(|saga| rows.push([saga.0.into(), PAGE.into(), PAGE_TEXT.into()]));
    let rows = if sagas.is_empty() { Vec::new() } else { store.read(&OF_SAGAS, rows).await? };
    let mut found: FxHashMap<SagaId, Vec<Orphan>> = FxHashMap::default();
    for orphan in rows.iter().filter_map(orphan).filter(Orphan::follows_start) {
        found.entry(orphan.saga).or_default().push(orphan);
    }
    Ok(found)
}

/// What cannot be read keeps no saga from starting.
fn orphan(row: &Row) -> Option<Orphan> {
    let [id, saga, body] = row.as_slice() else { return None };
    let envelope = serde_json::from_str(body.text()?).ok()?;
    Some(Orphan { id: Some(id.int()?), saga: SagaId(saga.id()?), envelope })
}
