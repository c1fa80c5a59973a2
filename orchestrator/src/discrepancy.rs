//! Discrepancies: two books differ. They are written with what shows it; a person looks, and closes them with a reason.

use endstate_events::SagaId;
use endstate_outbox::{Commit, CommitError, Kind, Row, Rows, Statement, Store, StoreError, Write};

static LIST: Statement = Statement {
    name: "discrepancy.list",
    columns: &[Kind::Int, Kind::Int, Kind::Text],
    sql: "with r(after_id, page, state) as ({rows}) select d.id, d.saga, d.kind, d.effect_id, d.detail, d.state, d.time_ms, \
          d.closed_ms, d.closed_by, d.close_reason \
          from r cross join discrepancy d where d.id > r.after_id and (r.state is null or d.state = r.state) \
          order by d.id limit (select page from r)",
};

static ONE: Statement = Statement {
    name: "discrepancy.one",
    columns: &[Kind::Int],
    sql: "with r(id) as ({rows}) select d.id, d.saga, d.kind, d.effect_id, d.detail, d.state, d.time_ms, \
          d.closed_ms, d.closed_by, d.close_reason from r join discrepancy d on d.id = r.id",
};

static CLOSE: Statement = Statement {
    name: "discrepancy.close",
    columns: &[Kind::Int, Kind::Text, Kind::Int, Kind::Text, Kind::Text],
    sql: "with r(id, state, now_ms, closed_by, reason) as ({rows}) update discrepancy \
          set state = r.state, closed_ms = r.now_ms, closed_by = r.closed_by, close_reason = r.reason from r \
          where discrepancy.id = r.id and discrepancy.state = 'open'",
};

static OPEN: Statement = Statement {
    name: "discrepancy.open",
    columns: &[Kind::Text],
    sql: "with r(state) as ({rows}) select count(d.id), min(d.time_ms) from r left join discrepancy d on d.state = r.state \
          and d.state = 'open'",
};

/// All statements of this module.
pub(crate) static STATEMENTS: &[&Statement] = &[&LIST, &ONE, &CLOSE, &OPEN];

/// How a discrepancy is closed.
pub const STATES: [&str; 2] = ["explained", "fixed"];

/// A stored discrepancy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discrepancy {
    /// Its id.
    pub id: i64,
    /// The saga concerned, if one is.
    pub saga: Option<SagaId>,
    /// What kind.
    pub kind: String,
    /// The effect concerned, if one is.
    pub effect_id: Option<String>,
    /// What differs.
    pub detail: String,
    /// `open`, `explained` or `fixed`.
    pub state: String,
    /// When it was found, milliseconds since 1970.
    pub time_ms: i64,
    /// When it was closed.
    pub closed_ms: Option<i64>,
    /// Who closed it, and why.
    pub closed: Option<(String, String)>,
}

/// Why a discrepancy was not closed.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// No such discrepancy.
    #[error("there is no discrepancy {0}")]
    Unknown(i64),
    /// It was closed before, in another way or for another reason.
    #[error("discrepancy {id} was closed as {state} by {by}: {reason}")]
    Closed {
        /// The discrepancy.
        id: i64,
        /// As what.
        state: String,
        /// By whom.
        by: String,
        /// Why.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A page of discrepancies after `after_id`, oldest first; of one state, or of all.
pub async fn list(
    store: &dyn Store,
    state: Option<&str>,
    after_id: i64,
    page: i64,
) -> Result<Vec<Discrepancy>, StoreError> {
    let rows = store.read(&LIST, Rows::one([after_id.into(), page.into(), state.into()])).await?;
    Ok(rows.iter().filter_map(discrepancy).collect())
}

fn discrepancy(row: &Row) -> Option<Discrepancy> {
    let [id, saga, kind, effect_id, detail, state, time_ms, closed_ms, by, reason] = row.as_slice() else {
        return None;
    };
    Some(Discrepancy {
        id: id.int()?,
        saga: saga.id().map(SagaId),
        kind: kind.text()?.to_owned(),
        effect_id: effect_id.text().map(str::to_owned),
        detail: detail.text()?.to_owned(),
        state: state.text()?.to_owned(),
        time_ms: time_ms.int()?,
        closed_ms: closed_ms.int(),
        closed: by.text().zip(reason.text()).map(|(by, reason)| (by.to_owned(), reason.to_owned())),
    })
}

/// Closes a discrepancy; closing it again in the same way for the same reason changes nothing and answers the same.
pub async fn close(
    store: &dyn Store,
    id: i64,
    state: &str,
    by: &str,
    reason: &str,
    now_ms: i64,
) -> Result<Discrepancy, CloseError> {
    let row = Rows::one([id.into(), state.into(), now_ms.into(), by.into(), reason.into()]);
    store.commit(Commit { writes: vec![Write::any(&CLOSE, row)], ..Commit::default() }).await?;
    let rows = store.read(&ONE, Rows::one([id.into()])).await?;
    let found = rows.first().and_then(discrepancy).ok_or(CloseError::Unknown(id))?;
    match &found.closed {
        Some((_, why)) if found.state == state && why == reason => Ok(found),
        _ => {
            let (by, reason) = found.closed.unwrap_or_default();
            Err(CloseError::Closed { id, state: found.state, by, reason })
        }
    }
}

/// How many are open, and since when the oldest is.
pub async fn open(store: &dyn Store) -> Result<(i64, Option<i64>), StoreError> {
    let rows = store.read(&OPEN, Rows::one(["open".into()])).await?;
    let count = rows.first().and_then(|row| row.first()?.int()).unwrap_or(0);
    Ok((count, rows.first().and_then(|row| row.get(1)?.int())))
}
