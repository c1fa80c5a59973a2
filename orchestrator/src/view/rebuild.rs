//! The whole view anew, a page at a time: every saga is drawn again, and rows that belong to no saga go.
//!
//! It empties nothing, so lists stay whole meanwhile, and it may run beside any number of projectors: a page is written
//! only while the positions of its shards stand where they stood when it was read. A page says where the next one begins,
//! so whoever asks for them can stop, go on later, or begin again.

use super::projector::{ProjectError, Render};
use super::{draw, sql, undrawn};
use endstate_events::{Json, SagaId};
use endstate_outbox::{Commit, CommitError, Kind, Rows, Statement, Store, StoreError, Write};
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Sagas, or rows, of a page, as long as no projector comes in between.
const PAGE: usize = 500;

/// Rows of the view whose saga is gone: known by null.
static ROWS: Statement = Statement {
    name: "view.read_rows",
    columns: &[Kind::Id, Kind::Int],
    sql: "with r(saga, page) as ({rows}) select v.saga, s.id, v.search, v.started_ms from r cross join saga_view v \
          left join saga s on s.id = v.saga where v.saga > r.saga order by v.saga limit (select page from r)",
};

static DROP_ROWS: Statement =
    Statement { name: "view.drop_rows", columns: &[Kind::Id], sql: "delete from saga_view where saga in ({rows})" };

/// Search attributes, and all those that their saga has.
static SEARCH: Statement = Statement {
    name: "view.read_search",
    columns: &[Kind::Text, Kind::Text, Kind::Int, Kind::Id, Kind::Int],
    sql: "with r(name, value, started_ms, saga, page) as ({rows}) \
          select x.name, x.value, x.started_ms, x.saga, v.search, v.started_ms \
          from r cross join saga_search x left join saga_view v on v.saga = x.saga \
          where (x.name, x.value, x.started_ms, x.saga) > (r.name, r.value, r.started_ms, r.saga) \
          order by x.name, x.value, x.started_ms, x.saga limit (select page from r)",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&ROWS, &DROP_ROWS, &SEARCH];

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Behind this saga.
    Sagas(Uuid),
    /// Behind this saga's row.
    Rows(Uuid),
    /// Behind this search attribute.
    Search(String, String, i64, Uuid),
}

impl Mark {
    /// The first page.
    #[must_use]
    pub fn beginning() -> Self {
        Self::Sagas(Uuid::nil())
    }
}

/// What a page did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Sagas that were drawn.
    pub drawn: usize,
    /// Sagas that cannot be drawn; the projector tries them again.
    pub undrawn: usize,
    /// Rows and search attributes of no saga, which went.
    pub removed: usize,
    /// Where the next page begins; none: this was the last.
    pub next: Option<Mark>,
}

/// Rebuilds one page.
pub async fn page(store: &dyn Store, render: &dyn Render, from: &Mark, now_ms: i64) -> Result<Page, ProjectError> {
    let mut size = PAGE;
    loop {
        let made = match from {
            Mark::Sagas(after) => sagas(store, render, *after, size, now_ms).await,
            Mark::Rows(after) => rows(store, *after, size).await,
            Mark::Search(..) => search(store, from, size).await,
        };
        match made {
            // A projector has moved on meanwhile: less at once is quicker. Or the store refuses one of them.
            Err(ProjectError::Write(CommitError::Conflict { .. } | CommitError::Data(_))) if size > 1 => size /= 2,
            Err(ProjectError::Write(CommitError::Data(reason))) if let Mark::Sagas(after) = from => {
                return put_aside(store, *after, &reason, now_ms).await;
            }
            made => return made,
        }
    }
}

async fn sagas(
    store: &dyn Store,
    render: &dyn Render,
    after: Uuid,
    size: usize,
    now_ms: i64,
) -> Result<Page, ProjectError> {
    let found = store.read(&sql::ALL_SAGAS, Rows::one([after.into(), (size as i64).into()])).await?;
    let ids: Vec<Uuid> = found.iter().filter_map(|row| row[0].id()).collect();
    let lengths = draw::lengths(store, &ids).await?;
    let Some(portion) = draw::portions(&ids, &lengths).into_iter().next() else {
        return Ok(Page { next: Some(Mark::Rows(Uuid::nil())), ..Page::default() });
    };
    let ids = &ids[portion];
    let partitions = store.partitions();
    let fence = fence(store, ids).await?;
    let drawn = draw::draw(store, render, ids, true).await?;
    let missed: FxHashSet<Uuid> = drawn.missed.iter().map(|(saga, _)| *saga).collect();
    let keep = drawn.missed.iter().map(|(saga, why)| (*saga, draw::shard_of(*saga, partitions), why.as_str()));
    let mut writes = vec![fence];
    writes.extend(drawn.writes);
    writes.extend(undrawn::keep(keep, now_ms));
    writes.extend(undrawn::forget(ids.iter().copied().filter(|saga| !missed.contains(saga))));
    store.commit(Commit { writes, ..Commit::default() }).await?;
    let next = ids.last().map(|last| Mark::Sagas(*last));
    Ok(Page { drawn: ids.len() - missed.len(), undrawn: missed.len(), removed: 0, next })
}

/// The next saga, whose row the store refuses: the projector tries it again.
async fn put_aside(store: &dyn Store, after: Uuid, reason: &str, now_ms: i64) -> Result<Page, ProjectError> {
    let found = store.read(&sql::ALL_SAGAS, Rows::one([after.into(), 1.into()])).await?;
    let Some(saga) = found.first().and_then(|row| row[0].id()) else {
        return Ok(Page { next: Some(Mark::Rows(Uuid::nil())), ..Page::default() });
    };
    let kept = (saga, draw::shard_of(saga, store.partitions()), reason);
    let mut writes = vec![fence(store, &[saga]).await?];
    writes.extend(undrawn::keep(std::iter::once(kept), now_ms));
    store.commit(Commit { writes, ..Commit::default() }).await?;
    Ok(Page { undrawn: 1, next: Some(Mark::Sagas(saga)), ..Page::default() })
}

/// Rows whose saga is gone.
async fn rows(store: &dyn Store, after: Uuid, size: usize) -> Result<Page, ProjectError> {
    let found = store.read(&ROWS, Rows::one([after.into(), (size as i64).into()])).await?;
    let Some(last) = found.last().and_then(|row| row[0].id()) else {
        let first = Mark::Search(String::new(), String::new(), i64::MIN, Uuid::nil());
        return Ok(Page { next: Some(first), ..Page::default() });
    };
    let gone: Vec<Uuid> = found.iter().filter(|row| row[1].id().is_none()).filter_map(|row| row[0].id()).collect();
    if !gone.is_empty() {
        let mut dropped = Rows::new();
        gone.iter().for_each(|saga| dropped.push([(*saga).into()]));
        let writes = vec![fence(store, &gone).await?, Write::any(&DROP_ROWS, dropped)];
        store.commit(Commit { writes, ..Commit::default() }).await?;
    }
    Ok(Page { removed: gone.len(), next: Some(Mark::Rows(last)), ..Page::default() })
}

/// Search attributes that their saga does not have.
async fn search(store: &dyn Store, from: &Mark, size: usize) -> Result<Page, ProjectError> {
    let Mark::Search(name, value, started_ms, saga) = from else { return Ok(Page::default()) };
    let given =
        [name.as_str().into(), value.as_str().into(), (*started_ms).into(), (*saga).into(), (size as i64).into()];
    // The positions first: what is read then is at least as new.
    let all = fence_of(store, (0..usize::from(store.partitions())).collect()).await?;
    let found = store.read(&SEARCH, Rows::one(given)).await?;
    let (mut dropped, mut next) = (Rows::new(), None);
    for row in &found {
        let [name, value, started, saga, has, began] = row.as_slice() else { continue };
        let (Some(name), Some(value), Some(started), Some(saga)) =
            (name.text(), value.text(), started.int(), saga.id())
        else {
            continue;
        };
        let has: Vec<(String, String)> =
            has.text().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        if began.int() != Some(started) || !has.iter().any(|pair| (&*pair.0, &*pair.1) == (name, value)) {
            dropped.push([name.into(), value.into(), started.into(), saga.into()]);
        }
        next = Some(Mark::Search(name.to_owned(), value.to_owned(), started, saga));
    }
    let removed = dropped.len();
    if removed > 0 {
        let writes = vec![all, Write::any(&sql::DROP_SEARCH, dropped)];
        store.commit(Commit { writes, ..Commit::default() }).await?;
    }
    Ok(Page { removed, next, ..Page::default() })
}

/// Holds only while no projector follows the shards of these sagas further than now.
async fn fence(store: &dyn Store, sagas: &[Uuid]) -> Result<Write, StoreError> {
    fence_of(store, sagas.iter().map(|saga| draw::shard_of(*saga, store.partitions())).collect()).await
}

async fn fence_of(store: &dyn Store, shards: FxHashSet<usize>) -> Result<Write, StoreError> {
    let mut asked = Rows::new();
    shards.into_iter().for_each(|shard| asked.push([(shard as i64).into()]));
    let mut fence = Rows::new();
    for row in store.read(&sql::POSITIONS, asked).await? {
        if let [Some(shard), Some(seq)] = [row[0].int(), row[1].int()] {
            fence.push([shard.into(), seq.into(), seq.into()]);
        }
    }
    Ok(Write::exact(&sql::SAVE, fence))
}

impl Mark {
    /// As text that a caller gives back.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What [`Self::to_text`] gave; none for anything else.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        serde_json::from_str::<Json>(text).ok().and_then(|value| serde_json::from_value(value).ok())
    }

    /// While it goes through sagas, whose ids begin with their time: those that began up to then, milliseconds since 1970,
    /// are behind it.
    #[must_use]
    pub fn through_ms(&self) -> Option<i64> {
        match self {
            Self::Sagas(after) if !after.is_nil() => Some(SagaId(*after).time_ms()),
            Self::Sagas(_) | Self::Rows(_) | Self::Search(..) => None,
        }
    }

    /// What it goes through: `sagas`, then `rows`, then `search`.
    #[must_use]
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Sagas(_) => "sagas",
            Self::Rows(_) => "rows",
            Self::Search(..) => "search",
        }
    }
}
