//! Alerts: what people should know, written in the transaction of what it tells of, and kept until somebody was told.
//!
//! Both sides write them. Who tells, and how, is the business of the program's alerting task.

use crate::statement::{Kind, Row, Rows, Statement, Write};
use crate::store::{Commit, CommitError, Store, StoreError};
use endstate_events::SagaId;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Something a person should know (H2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Derived from what it is about, never fresh: said again, it is the same alert, and a receiver knows it by this.
    pub id: String,
    /// What it is about: `parked`, `silent`, `discrepancy`, `dead_letter`, `orphan`, `undefined`,
    /// `unreadable`, `self_check`, `shard`, `timer`, `reply`, `events`.
    pub kind: Arc<str>,
    /// The saga concerned, if one is.
    pub saga: Option<SagaId>,
    /// Its definition; empty when there is no saga, or nobody can tell.
    pub definition: Arc<str>,
    /// Its number; empty likewise.
    pub number: Arc<str>,
    /// The step concerned, if one is.
    pub step: Option<Arc<str>>,
    /// For people.
    pub text: String,
    /// When it was written, milliseconds since 1970.
    pub time_ms: i64,
}

impl Alert {
    /// An alert about `cause`: whatever has this kind and cause is the same alert.
    #[must_use]
    pub fn new(kind: &str, cause: &[&dyn std::fmt::Display], text: impl Into<String>, time_ms: i64) -> Self {
        let mut digest = Sha256::new().chain_update(kind);
        for part in cause {
            digest = digest.chain_update("\0").chain_update(part.to_string());
        }
        let id = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let (none, text) = (Arc::<str>::from(""), text.into());
        Self { id, kind: kind.into(), saga: None, definition: none.clone(), number: none, step: None, text, time_ms }
    }

    /// The same, of a saga.
    #[must_use]
    pub fn of(self, saga: SagaId, definition: Arc<str>, number: Arc<str>) -> Self {
        Self { saga: Some(saga), definition, number, ..self }
    }

    /// The same, at a step.
    #[must_use]
    pub fn at(self, step: Option<Arc<str>>) -> Self {
        Self { step, ..self }
    }
}

/// An alert that nobody was told yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The alert.
    pub alert: Alert,
    /// How often it was tried.
    pub tries: i64,
    /// True once it was kept in a file, because nobody took it.
    pub kept: bool,
}

/// What came of trying to tell somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// Somebody knows: `webhook` or `file`.
    Told(&'static str),
    /// Nobody took it; it is tried again.
    Again {
        /// Whether it is kept in a file meanwhile.
        kept: bool,
        /// When.
        next_ms: i64,
    },
}

static INSERT: Statement = Statement {
    name: "alert.insert",
    columns: &[Kind::Text, Kind::Text, Kind::Id, Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Int],
    sql: "with r(id, kind, saga, definition, number, step, text, time_ms) as ({rows}) \
          insert into alert (id, kind, saga, definition, number, step, text, time_ms) \
          select id, kind, saga, definition, number, step, text, time_ms from r where true on conflict (id) do nothing",
};

static WAITING: Statement = Statement {
    name: "alert.waiting",
    columns: &[Kind::Int, Kind::Int],
    sql: "with r(now_ms, page) as ({rows}) \
          select a.id, a.kind, a.saga, a.definition, a.number, a.step, a.text, a.time_ms, a.tries, a.kept \
          from r cross join alert a where a.told_ms is null and a.next_ms <= r.now_ms \
          order by a.next_ms, a.time_ms, a.id limit (select page from r)",
};

static TOLD: Statement = Statement {
    name: "alert.told",
    columns: &[Kind::Text, Kind::Int, Kind::Text],
    sql: "with r(id, now_ms, told_by) as ({rows}) update alert set told_ms = r.now_ms, told_by = r.told_by \
          from r where alert.id = r.id",
};

/// Must hit every row: otherwise another process is at it.
static CLAIM: Statement = Statement {
    name: "alert.claim",
    columns: &[Kind::Text, Kind::Int, Kind::Int],
    sql: "with r(id, tries, next_ms) as ({rows}) update alert set tries = r.tries + 1, next_ms = r.next_ms \
          from r where alert.id = r.id and alert.tries = r.tries and alert.told_ms is null",
};

static AGAIN: Statement = Statement {
    name: "alert.again",
    columns: &[Kind::Text, Kind::Int, Kind::Int],
    sql: "with r(id, kept, next_ms) as ({rows}) update alert set kept = r.kept, next_ms = r.next_ms from r \
          where alert.id = r.id and alert.told_ms is null",
};

/// Deletes alerts that were told before then, at most a page of them.
pub static PURGE: Statement = Statement {
    name: "alert.purge",
    columns: &[Kind::Int, Kind::Int],
    sql: "with r(before_ms, page) as ({rows}) delete from alert where id in (select a.id from r cross join alert a \
          where a.told_ms < r.before_ms order by a.told_ms limit (select page from r))",
};

/// How many alerts were told before then.
pub static OLD: Statement = Statement {
    name: "alert.old",
    columns: &[Kind::Int],
    sql: "with r(before_ms) as ({rows}) select count(*) from r cross join alert a where a.told_ms < r.before_ms",
};

/// All of them, see [`crate::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&INSERT, &WAITING, &CLAIM, &TOLD, &AGAIN, &PURGE, &OLD];

/// The rows of alerts, for the transaction of what they tell of; one that is there already stays as it is.
#[must_use]
pub fn write(alerts: &[Alert]) -> Option<Write> {
    let mut rows = Rows::new();
    for alert in alerts {
        rows.push([
            alert.id.as_str().into(),
            alert.kind.clone().into(),
            alert.saga.map(|saga| saga.0).into(),
            alert.definition.clone().into(),
            alert.number.clone().into(),
            alert.step.clone().into(),
            alert.text.as_str().into(),
            alert.time_ms.into(),
        ]);
    }
    (!rows.is_empty()).then(|| Write::any(&INSERT, rows))
}

/// Alerts whose time it is, at most `page`.
pub async fn waiting(store: &dyn Store, now_ms: i64, page: i64) -> Result<Vec<Waiting>, StoreError> {
    let rows = store.read(&WAITING, Rows::one([now_ms.into(), page.into()])).await?;
    Ok(rows.iter().filter_map(waits).collect())
}

fn waits(row: &Row) -> Option<Waiting> {
    let [id, kind, saga, definition, number, step, text, time_ms, tries, kept] = row.as_slice() else { return None };
    let alert = Alert {
        id: id.text()?.to_owned(),
        kind: kind.text()?.into(),
        saga: saga.id().map(SagaId),
        definition: definition.text()?.into(),
        number: number.text()?.into(),
        step: step.text().map(Arc::from),
        text: text.text()?.to_owned(),
        time_ms: time_ms.int()?,
    };
    Some(Waiting { alert, tries: tries.int()?, kept: kept.int()? == 1 })
}

/// Takes alerts before they are told, until `until_ms`: then they are tried again if nobody has marked them. False when
/// another process has taken one of them meanwhile: then it tells them.
pub async fn claim(store: &dyn Store, waiting: &[Waiting], until_ms: i64) -> Result<bool, StoreError> {
    let mut rows = Rows::new();
    for Waiting { alert, tries, .. } in waiting {
        rows.push([alert.id.as_str().into(), (*tries).into(), until_ms.into()]);
    }
    match store.commit(Commit { writes: vec![Write::exact(&CLAIM, rows)], ..Commit::default() }).await {
        Ok(_) => Ok(true),
        Err(CommitError::Conflict { .. }) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// Marks what was tried.
pub async fn mark(store: &dyn Store, tried: &[(String, Tried)], now_ms: i64) -> Result<(), StoreError> {
    let (mut told, mut again) = (Rows::new(), Rows::new());
    for (id, tried) in tried {
        match tried {
            Tried::Told(by) => told.push([id.as_str().into(), now_ms.into(), (*by).into()]),
            Tried::Again { kept, next_ms } => {
                again.push([id.as_str().into(), i64::from(*kept).into(), (*next_ms).into()]);
            }
        }
    }
    let writes = [Write::any(&TOLD, told), Write::any(&AGAIN, again)];
    commit(store, writes.into_iter().filter(|write| !write.rows.is_empty()).collect()).await.map(drop)
}

async fn commit(store: &dyn Store, writes: Vec<Write>) -> Result<Vec<u64>, StoreError> {
    store.commit(Commit { writes, ..Commit::default() }).await.map_err(failed)
}

fn failed(error: CommitError) -> StoreError {
    StoreError::Failed { statement: "alert.mark".to_owned(), reason: error.to_string() }
}
