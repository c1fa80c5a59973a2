//! Statements over rows, as SQLite reads them: `{rows}` becomes `values (?,?),(?,?)...`.
//!
//! The number of rows is rounded up to a size class and the rest filled with null rows that a filter drops, so that a
//! handful of prepared statements serves every batch.

use crate::statement::{Row, Rows, Statement, Value};
use rustc_hash::FxHashMap;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, Decode as _, Row as _, TypeInfo as _, Value as _, ValueRef as _,
};
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex};

/// Rows per prepared statement. More rows than the largest are split.
const SIZES: [usize; 5] = [1, 4, 16, 64, 256];

/// The largest number of rows one statement takes at once; SQLite binds at most 32,766 values.
pub(super) const MOST: usize = SIZES[SIZES.len() - 1];

/// The size class of `rows` (at most [`MOST`]) rows.
pub(super) fn size_class(rows: usize) -> usize {
    SIZES.into_iter().find(|size| rows <= *size).unwrap_or(MOST)
}

/// The statement's SQL for `size` rows.
pub(super) fn sql(statement: &'static Statement, size: usize) -> Arc<str> {
    type Key = (*const Statement, usize);
    struct Cache(Mutex<FxHashMap<(usize, usize), Arc<str>>>);
    static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache(Mutex::default()));
    let key: Key = (statement, size);
    let mut cache = CACHE.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Arc::clone(cache.entry((key.0 as usize, key.1)).or_insert_with(|| render(statement, size).into()))
}

fn render(statement: &Statement, size: usize) -> String {
    let width = statement.columns.len();
    let mut relation = String::new();
    // The first column of a real row is never null, that of a filling row always is.
    if size > 1 {
        relation.push_str("select * from (");
    }
    relation.push_str("values ");
    for row in 0..size {
        let comma = if row == 0 { "" } else { "," };
        let marks = vec!["?"; width].join(",");
        let _ = write!(relation, "{comma}({marks})");
    }
    if size > 1 {
        relation.push_str(") where column1 is not null");
    }
    statement.sql.replace("{rows}", &relation)
}

/// Appends `rows[from..to]`, filled up to `size` rows, to `arguments`.
pub(super) fn bind(
    arguments: &mut SqliteArguments,
    statement: &Statement,
    rows: &Rows,
    from: usize,
    to: usize,
    size: usize,
) {
    let width = statement.columns.len();
    debug_assert_eq!(rows.cells().len(), rows.len() * width, "{}: a row has the wrong length", statement.name);
    for cell in &rows.cells()[from * width..to * width] {
        add(arguments, cell);
    }
    for _ in 0..(size - (to - from)) * width {
        add(arguments, &Value::Null);
    }
}

fn add(arguments: &mut SqliteArguments, cell: &Value) {
    let added = match cell {
        Value::Null => arguments.add(None::<i64>),
        Value::Int(n) => arguments.add(*n),
        Value::Text(text) => arguments.add(Arc::clone(text)),
        Value::Id(id) => arguments.add(&id.as_bytes()[..]),
    };
    // Encoding these types has no way to fail.
    debug_assert!(added.is_ok());
}

/// A reading statement with its rows bound. Reads take at most [`MOST`] rows per size class; larger ones get a text of
/// their own.
pub(super) fn query<'q>(statement: &'static Statement, rows: &Rows) -> Query<'q, Sqlite, SqliteArguments> {
    let size = if rows.len() > MOST { rows.len().next_power_of_two() } else { size_class(rows.len()) };
    let mut arguments = SqliteArguments::default();
    bind(&mut arguments, statement, rows, 0, rows.len(), size);
    // Composed of static texts only: see `render`.
    sqlx::query_with(AssertSqlSafe(sql(statement, size)), arguments)
}

/// A row as SQLite returned it; blobs are UUIDs.
pub(super) fn row(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    (0..row.columns().len())
        .map(|index| {
            let raw = row.try_get_raw(index)?;
            if raw.is_null() {
                return Ok(Value::Null);
            }
            let decode =
                |error| sqlx::Error::ColumnDecode { index: row.column(index).name().to_owned(), source: error };
            let value = raw.to_owned();
            match value.type_info().name() {
                "INTEGER" | "BOOLEAN" => i64::decode(value.as_ref()).map(Value::Int).map_err(decode),
                "BLOB" => {
                    let bytes = <&[u8]>::decode(value.as_ref()).map_err(decode)?;
                    uuid::Uuid::from_slice(bytes).map(Value::Id).map_err(|error| decode(error.into()))
                }
                _ => <&str>::decode(value.as_ref()).map(Value::from).map_err(decode),
            }
        })
        .collect()
}
