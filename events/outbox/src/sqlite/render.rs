//! Statements over rows, as SQLite reads them: `{rows}` becomes `values (?,?),(?,?)...`.
//!
//! The writer runs a statement once per row. A reader gets all rows at once: their number is rounded up to a size class
//! and the rest filled with null rows that a filter drops, so that a handful of prepared statements serves every batch.

use crate::statement::{Dialect, Row, Rows, Statement, Value};
use rustc_hash::FxHashMap;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, Decode, Executor as _, Row as _, SqlSafeStr as _, TypeInfo as _,
    Value as _, ValueRef as _,
};
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex};

/// Rows of a reader's prepared statement; SQLite binds at most 32,766 values.
const SIZES: [usize; 5] = [1, 4, 16, 64, 256];

/// The writer's SQL: the statement for one row.
pub(super) fn writing(statement: &'static Statement) -> Arc<str> {
    cached(statement, 0, || without_statement_journal(render(statement, 1)))
}

/// A reader's SQL: the statement for `size` rows.
fn reading(statement: &'static Statement, size: usize) -> Arc<str> {
    cached(statement, size, || render(statement, size))
}

fn cached(statement: &'static Statement, size: usize, text: impl FnOnce() -> String) -> Arc<str> {
    type Texts = FxHashMap<(usize, usize), Arc<str>>;
    static CACHE: LazyLock<Mutex<Texts>> = LazyLock::new(Mutex::default);
    let key = (std::ptr::from_ref(statement) as usize, size);
    let mut cache = CACHE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Arc::clone(cache.entry(key).or_insert_with(|| text().into()))
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
    statement.text(Dialect::Sqlite).replace("{rows}", &relation)
}

/// SQLite keeps a journal of what one statement changes when it may touch several rows and end in a broken constraint,
/// to undo that statement alone. The writer undoes the whole transaction, so it says that nothing of the sort is wanted.
fn without_statement_journal(sql: String) -> String {
    for (verb, without) in [("insert into", "insert or fail into"), ("update", "update or fail")] {
        // The main verb follows the relation of rows.
        let main = format!(")) {verb} ");
        if let Some(at) = sql.find(&main) {
            return format!("{})) {without} {}", &sql[..at], &sql[at + main.len()..]);
        }
    }
    sql
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

/// A reading statement with its rows bound.
pub(super) fn query<'q>(statement: &'static Statement, rows: &Rows) -> Query<'q, Sqlite, SqliteArguments> {
    // More rows than the largest class get a text of their own.
    let size = SIZES.into_iter().find(|size| rows.len() <= *size).unwrap_or_else(|| rows.len().next_power_of_two());
    let width = statement.columns.len();
    debug_assert_eq!(rows.cells().len(), rows.len() * width, "{}: a row has the wrong length", statement.name);
    let mut arguments = SqliteArguments::default();
    let filling = std::iter::repeat_n(&Value::Null, (size - rows.len()) * width);
    rows.cells().iter().chain(filling).for_each(|cell| add(&mut arguments, cell));
    // Composed of static texts only: see `render`.
    sqlx::query_with(AssertSqlSafe(reading(statement, size)), arguments)
}

/// Prepares the statement as a writer and as a reader would.
pub(super) async fn prepare(statement: &'static Statement, readers: &SqlitePool) -> Result<(), sqlx::Error> {
    for sql in [writing(statement), reading(statement, SIZES[1])] {
        readers.acquire().await?.prepare(AssertSqlSafe(sql).into_sql_str()).await?;
    }
    Ok(())
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
                "INTEGER" | "BOOLEAN" => {
                    <i64 as Decode<Sqlite>>::decode(value.as_ref()).map(Value::Int).map_err(decode)
                }
                "BLOB" => {
                    let bytes = <&[u8] as Decode<Sqlite>>::decode(value.as_ref()).map_err(decode)?;
                    uuid::Uuid::from_slice(bytes).map(Value::Id).map_err(|error| decode(error.into()))
                }
                _ => <&str as Decode<Sqlite>>::decode(value.as_ref()).map(Value::from).map_err(decode),
            }
        })
        .collect()
}
