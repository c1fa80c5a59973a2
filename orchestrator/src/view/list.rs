//! Lists of sagas, newest first, a page at a time.

use super::{LAST_ID, ViewRow, sql};
use endstate_events::SagaId;
use endstate_http::Cursor;
use endstate_outbox::{Rows, Statement, Store, StoreError};

/// What a list shows; an absent filter lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Name of the definition.
    pub definition: Option<String>,
    /// Customer-visible status.
    pub status: Option<String>,
    /// Phase's label.
    pub phase: Option<String>,
    /// Outcome's label.
    pub outcome: Option<String>,
    /// Who may see it.
    pub owner: Option<String>,
    /// Beginning of the number.
    pub number_prefix: Option<String>,
    /// Search attribute: name and value.
    pub search: Option<(String, String)>,
    /// Started at or after, milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Started before, milliseconds since 1970.
    pub until_ms: Option<i64>,
}

impl Filter {
    /// The most selective filter leads, so that the list is one index scan.
    fn statement(&self) -> &'static Statement {
        if self.search.is_some() {
            &sql::BY_SEARCH
        } else if self.owner.is_some() {
            &sql::BY_OWNER
        } else if self.number_prefix.is_some() {
            &sql::BY_NUMBER
        } else if self.phase.as_deref().is_some_and(|phase| phase != "ended") {
            &sql::BY_OPEN_PHASE
        } else if self.status.is_some() {
            &sql::BY_STATUS
        } else if self.definition.is_some() {
            &sql::BY_DEFINITION
        } else {
            &sql::BY_NOTHING
        }
    }

    /// Equal for equal filters; binds a cursor to them.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("{self:?}")
    }
}

/// One page of at most `limit` rows after `after`, and the cursor of the next page if there is one.
pub async fn list(
    store: &dyn Store,
    filter: &Filter,
    after: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<ViewRow>, Option<Cursor>), StoreError> {
    let after = after.unwrap_or(Cursor { at: i64::MAX, id: LAST_ID });
    let page = i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1;
    let (search_name, search_value) = filter.search.clone().unzip();
    let row = [
        filter.definition.as_deref().into(),
        filter.status.as_deref().into(),
        filter.phase.as_deref().into(),
        filter.outcome.as_deref().into(),
        filter.owner.as_deref().into(),
        filter.number_prefix.as_deref().into(),
        // The last code point: every number with the prefix sorts before it.
        filter.number_prefix.as_ref().map(|prefix| format!("{prefix}\u{10ffff}")).into(),
        search_name.into(),
        search_value.into(),
        filter.since_ms.unwrap_or(i64::MIN).into(),
        filter.until_ms.unwrap_or(i64::MAX).into(),
        after.at.into(),
        after.id.into(),
        page.into(),
    ];
    let rows = store.read(filter.statement(), Rows::one(row)).await?;
    let mut found: Vec<_> = rows.iter().filter_map(|row| ViewRow::read(row)).collect();
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| Cursor { at: last.started_ms, id: last.saga.0 });
    Ok((found, next))
}

/// One saga, if the projector has met it.
pub async fn one(store: &dyn Store, saga: SagaId) -> Result<Option<ViewRow>, StoreError> {
    let rows = store.read(&sql::ONE, Rows::one([saga.0.into()])).await?;
    Ok(rows.first().and_then(|row| ViewRow::read(row)))
}

/// The sagas that belong to one, oldest first, at most 100.
pub async fn of_order(store: &dyn Store, order: SagaId) -> Result<Vec<ViewRow>, StoreError> {
    let rows = store.read(&sql::OF_ORDER, Rows::one([order.0.into()])).await?;
    Ok(rows.iter().filter_map(|row| ViewRow::read(row)).collect())
}
