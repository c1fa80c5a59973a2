//! Definitions and which of them are active, as the store holds them.

use super::Active;
use endstate_outbox::{Kind, Row, Statement, StoreError, Value};
use std::sync::Arc;

pub(super) static VERSIONS: Statement = Statement {
    name: "definition.versions",
    columns: &[Kind::Int],
    sql: "with r(from_version) as ({rows}) select d.name, d.version \
          from definition d join r on d.version >= r.from_version order by d.name, d.version",
};

pub(super) static TEXTS: Statement = Statement {
    name: "definition.texts",
    columns: &[Kind::Text, Kind::Int],
    sql: "with r(name, version) as ({rows}) select d.name, d.version, d.sha256, d.source \
          from r join definition d on d.name = r.name and d.version = r.version order by d.name, d.version",
};

pub(super) static ACTIVE: Statement = Statement {
    name: "definition.active",
    columns: &[Kind::Int],
    sql: "with r(least) as ({rows}) select a.name, a.version, a.previous from definition_active a \
          join r on a.version >= r.least",
};

pub(super) static INSERT: Statement = Statement {
    name: "definition.insert",
    columns: &[Kind::Text, Kind::Int, Kind::Text, Kind::Text, Kind::Int],
    sql: "with r(name, version, sha256, source, loaded_ms) as ({rows}) \
          insert into definition (name, version, sha256, source, loaded_ms) select * from r",
};

pub(super) static ACTIVATE: Statement = Statement {
    name: "definition.activate",
    columns: &[Kind::Text, Kind::Int, Kind::Int],
    sql: "with r(name, version, now_ms) as ({rows}) \
          insert into definition_active (name, version, activated_ms) select name, version, now_ms from r where true \
          on conflict (name) do update set previous = case when definition_active.version = excluded.version \
          then definition_active.previous else definition_active.version end, version = excluded.version, \
          activated_ms = excluded.activated_ms",
};

/// Of a name that nobody has activated: of two processes that load one at the same time, one is the first.
pub(super) static ACTIVATE_FIRST: Statement = Statement {
    name: "definition.activate_first",
    columns: &[Kind::Text, Kind::Int, Kind::Int],
    sql: "with r(name, version, now_ms) as ({rows}) \
          insert into definition_active (name, version, activated_ms) select name, version, now_ms from r where true \
          on conflict (name) do nothing",
};

/// Hits only while the version that is left is still the active one.
pub(super) static ROLL_BACK: Statement = Statement {
    name: "definition.roll_back",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int],
    sql: "with r(name, version, previous, now_ms) as ({rows}) \
          update definition_active set version = r.previous, previous = r.version, activated_ms = r.now_ms from r \
          where definition_active.name = r.name and definition_active.version = r.version \
          and definition_active.previous = r.previous",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] =
    &[&VERSIONS, &TEXTS, &ACTIVE, &INSERT, &ACTIVATE, &ACTIVATE_FIRST, &ROLL_BACK];

pub(super) fn activation(name: &str, version: u32, now_ms: i64) -> [Value; 3] {
    [name.into(), i64::from(version).into(), now_ms.into()]
}

/// A row of the store.
pub(super) struct Stored {
    pub(super) name: Arc<str>,
    pub(super) version: u32,
    pub(super) sha256: Arc<str>,
    pub(super) source: Arc<str>,
}

pub(super) fn named(row: &Row) -> Result<(Arc<str>, u32), StoreError> {
    let [Value::Text(name), Value::Int(version)] = row.as_slice() else { return Err(misshapen(&VERSIONS)) };
    Ok((Arc::clone(name), u32::try_from(*version).unwrap_or_default()))
}

pub(super) fn stored(row: &Row) -> Result<Stored, StoreError> {
    let [Value::Text(name), Value::Int(version), Value::Text(sha256), Value::Text(source)] = row.as_slice() else {
        return Err(misshapen(&TEXTS));
    };
    Ok(Stored {
        name: Arc::from(&**name),
        version: u32::try_from(*version).unwrap_or_default(),
        sha256: Arc::from(&**sha256),
        source: Arc::clone(source),
    })
}

pub(super) fn activated(row: &Row) -> Result<(Arc<str>, Active), StoreError> {
    let [Value::Text(name), version, previous] = row.as_slice() else { return Err(misshapen(&ACTIVE)) };
    let number = |value: &Value| value.int().and_then(|n| u32::try_from(n).ok());
    let version = number(version).ok_or_else(|| misshapen(&ACTIVE))?;
    Ok((Arc::from(&**name), Active { version, previous: number(previous) }))
}

pub(super) fn misshapen(statement: &Statement) -> StoreError {
    let reason = "a row has another shape".to_owned();
    StoreError::Failed { statement: statement.name.to_owned(), reason }
}
