//! Statements over rows, as PostgreSQL reads them: `{rows}` becomes `select * from unnest(...)` over one array per
//! column, so that one prepared statement serves any number of rows.

use crate::statement::{Dialect, Kind, Row, Rows, Statement, Value};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::{Arguments as _, Column as _, Decode, Row as _, TypeInfo as _, ValueRef as _};
use std::fmt::Write as _;
use uuid::Uuid;

/// The statement's SQL with its parameters numbered from `first` on.
pub(super) fn text(statement: &Statement, first: usize) -> String {
    let mut relation = String::from("select * from unnest(");
    for (index, kind) in statement.columns.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let array = match kind {
            Kind::Int => "int8[]",
            Kind::Text => "text[]",
            Kind::Id => "uuid[]",
        };
        let _ = write!(relation, "{comma}${}::{array}", first + index);
    }
    relation.push(')');
    statement.text(Dialect::Postgres).replace("{rows}", &relation)
}

/// Adds the rows of all parts to the arguments: one array per column.
pub(super) fn bind(arguments: &mut PgArguments, statement: &Statement, parts: &[&Rows]) -> Result<(), BoxDynError> {
    let width = statement.columns.len();
    let whole = |rows: &&Rows| rows.cells().len() == rows.len() * width;
    let bytes = |value: &Value| value.text().map_or(20, |text| text.len() + 4);
    let cells = parts.iter().flat_map(|rows| rows.cells());
    // A growing buffer is copied as a whole.
    arguments.reserve(width, cells.map(bytes).sum());
    debug_assert!(parts.iter().all(whole), "{}: a row has the wrong length", statement.name);
    for (index, kind) in statement.columns.iter().enumerate() {
        let cells = || parts.iter().flat_map(move |rows| rows.cells().iter().skip(index).step_by(width));
        let fits = |cell: &Value| match cell {
            Value::Null => true,
            Value::Int(_) => *kind == Kind::Int,
            Value::Text(_) => *kind == Kind::Text,
            Value::Id(_) => *kind == Kind::Id,
        };
        if let Some(other) = cells().find(|cell| !fits(cell)) {
            return Err(format!("{}: column {index} is {kind:?} and got {other:?}", statement.name).into());
        }
        match kind {
            Kind::Int => arguments.add(cells().map(Value::int).collect::<Vec<Option<i64>>>())?,
            Kind::Text => arguments.add(cells().map(Value::text).collect::<Vec<Option<&str>>>())?,
            Kind::Id => arguments.add(cells().map(Value::id).collect::<Vec<Option<Uuid>>>())?,
        }
    }
    Ok(())
}

/// A row as PostgreSQL returned it.
pub(super) fn row(row: &PgRow) -> Result<Row, sqlx::Error> {
    fn decoded<'r, T: Decode<'r, Postgres>>(row: &'r PgRow, index: usize) -> Result<T, sqlx::Error> {
        let wrong = |source| sqlx::Error::ColumnDecode { index: row.column(index).name().to_owned(), source };
        T::decode(row.try_get_raw(index)?).map_err(wrong)
    }
    let cell = |index| {
        let raw = row.try_get_raw(index)?;
        if raw.is_null() {
            return Ok(Value::Null);
        }
        Ok(match raw.type_info().name() {
            "INT8" => Value::Int(decoded(row, index)?),
            "INT4" => Value::Int(decoded::<i32>(row, index)?.into()),
            "BOOL" => Value::Int(decoded::<bool>(row, index)?.into()),
            "UUID" => Value::Id(decoded(row, index)?),
            "TEXT" | "VARCHAR" | "NAME" => Value::from(decoded::<&str>(row, index)?),
            other => {
                let source = format!("{other} is no type that statements return; cast it").into();
                return Err(sqlx::Error::ColumnDecode { index: row.column(index).name().to_owned(), source });
            }
        })
    };
    (0..row.columns().len()).map(cell).collect()
}
