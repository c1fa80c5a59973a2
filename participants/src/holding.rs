//! Which sagas somebody still holds something for: their rows must stay, because old holds ask them what to do (H3).

use endstate_events::SagaId;
use endstate_outbox::{Kind, Rows, Statement, Store, StoreError};

/// Effect ids begin with their saga's id and a colon: a saga's are a range of the key.
static HOLDING: Statement = Statement {
    name: "effect.holding",
    columns: &[Kind::Id, Kind::Text, Kind::Text],
    sql: "with r(saga, low, high) as ({rows}) select r.saga from r where \
          exists (select 1 from effect e where e.id >= r.low and e.id < r.high and e.state in ('held', 'calling')) \
          or exists (select 1 from call c where c.id >= r.low and c.id < r.high)",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&HOLDING];

/// Those of `sagas` for which something is held, or a call to an outside party is open.
pub async fn of(store: &dyn Store, sagas: &[SagaId]) -> Result<Vec<SagaId>, StoreError> {
    let mut rows = Rows::new();
    for saga in sagas {
        // `;` follows the colon.
        rows.push([saga.0.into(), format!("{saga}:").into(), format!("{saga};").into()]);
    }
    if sagas.is_empty() {
        return Ok(Vec::new());
    }
    let found = store.read(&HOLDING, rows).await?;
    Ok(found.iter().filter_map(|row| row.first()?.id()).map(SagaId).collect())
}
