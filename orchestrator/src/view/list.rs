//! Lists of sagas, newest first, a page at a time.

use super::{LAST_ID, ViewRow, sql};
use endstate_events::SagaId;
use endstate_http::Cursor;
use endstate_outbox::{Rows, Statement, Store, StoreError};
use uuid::Uuid;

/// Numbers with one beginning up to which they lead a list; they are in no order of time.
const FEW_NUMBERS: i64 = 1_000;

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
    /// The filter that leads: the list is one index scan newest first, which ends with the page. What a customer asks for
    /// is looked for among what is theirs, however many others have the same search attribute.
    async fn statement(&self, store: &dyn Store) -> Result<&'static Statement, StoreError> {
        Ok(if self.owner.is_some() {
            &sql::BY_OWNER
        } else if self.search.is_some() {
            &sql::BY_SEARCH
        } else if self.few_numbers(store).await? {
            &sql::BY_NUMBER
        } else if self.phase.as_deref().is_some_and(|phase| phase != "ended") {
            &sql::BY_OPEN_PHASE
        } else if self.status.is_some() {
            &sql::BY_STATUS
        } else if self.definition.is_some() {
            &sql::BY_DEFINITION
        } else {
            &sql::BY_NOTHING
        })
    }

    /// Whether so few numbers begin so that they are read and sorted.
    async fn few_numbers(&self, store: &dyn Store) -> Result<bool, StoreError> {
        let Some((from, to)) = self.numbers() else { return Ok(false) };
        let rows = store.read(&sql::WITH_NUMBER, Rows::one([from.into(), to.into(), (FEW_NUMBERS + 1).into()])).await?;
        Ok(rows.first().and_then(|row| row.first()?.int()).is_some_and(|count| count <= FEW_NUMBERS))
    }

    /// The first number that begins so, and the end of those.
    fn numbers(&self) -> Option<(&str, String)> {
        // The last code point: every number with the prefix sorts before it.
        self.number_prefix.as_deref().map(|prefix| (prefix, format!("{prefix}\u{10ffff}")))
    }

    /// Where a list begins. Nothing sorts before the first id: the end of a time is a place, too.
    fn place(&self, after: Option<Cursor>) -> (i64, Uuid) {
        let after = after.map_or((i64::MAX, LAST_ID), |after| (after.at, after.id));
        self.until_ms.map_or(after, |until_ms| after.min((until_ms, Uuid::nil())))
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
    let (at_ms, at_id) = filter.place(after);
    let page = i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1;
    let (search_name, search_value) = filter.search.clone().unzip();
    let (number, number_end) = filter.numbers().unzip();
    let row = [
        filter.definition.as_deref().into(),
        filter.status.as_deref().into(),
        filter.phase.as_deref().into(),
        filter.outcome.as_deref().into(),
        filter.owner.as_deref().into(),
        number.into(),
        number_end.into(),
        search_name.into(),
        search_value.into(),
        filter.since_ms.unwrap_or(i64::MIN).into(),
        at_ms.into(),
        at_id.into(),
        page.into(),
    ];
    let rows = store.read(filter.statement(store).await?, Rows::one(row)).await?;
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
