//! Named SQL with typed rows: how components speak to a store without naming its driver.
//!
//! A statement handles any number of rows at once, because row by row is never an answer: it reads them from the
//! relation `{rows}`, which each store fills in its own way (`values`, `unnest`, copy). All SQL of a component lives in
//! one module as constants of this type.

use serde::Serialize;
use std::cell::Cell;
use std::sync::Arc;
use uuid::Uuid;

thread_local! {
    /// Where JSON is written before its length is known.
    static JSON: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes that the buffer may keep.
const KEPT: usize = 256 * 1_024;

/// Type of a column of the rows given to a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 64-bit integer.
    Int,
    /// Text, JSON included.
    Text,
    /// UUID.
    Id,
}

/// One statement of a component.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Statement {
    /// Unique name, `component.verb_object`; used in errors and metrics.
    pub name: &'static str,
    /// Types of the given rows' columns, in order.
    pub columns: &'static [Kind],
    /// SQL with `{rows}` where the relation of the given rows goes, as in
    /// `with r(id, status) as ({rows}) update saga set status = r.status from r where saga.id = r.id`.
    /// Where the dialects differ, `{one|other}` holds SQLite's words and PostgreSQL's.
    pub sql: &'static str,
}

/// Whose SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The embedded store's.
    Sqlite,
    /// PostgreSQL's.
    Postgres,
}

impl Statement {
    /// The SQL in one dialect, `{rows}` still in it.
    #[must_use]
    pub fn text(&self, dialect: Dialect) -> String {
        let mut text = String::with_capacity(self.sql.len());
        let mut rest = self.sql;
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            let (inside, behind) = after.split_once('}').unwrap_or((after, ""));
            match inside.split_once('|') {
                Some((sqlite, postgres)) => {
                    text.push_str(if dialect == Dialect::Sqlite { sqlite } else { postgres });
                }
                None => text.extend(["{", inside, "}"]),
            }
            rest = behind;
        }
        text.push_str(rest);
        text
    }
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// SQL null.
    Null,
    /// Integer.
    Int(i64),
    /// Text, JSON included.
    Text(Arc<str>),
    /// UUID.
    Id(Uuid),
}

impl Value {
    /// `value` as JSON. It is written into a buffer of the thread and copied once, at its length: most texts of a row are JSON,
    /// and one that grows while it is written is copied again and again.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Self> {
        let mut buffer = JSON.take();
        buffer.clear();
        let written = serde_json::to_writer(&mut buffer, value);
        // What is written in pieces is valid as a whole; checking it costs less than it looks.
        let text =
            written.and_then(|()| std::str::from_utf8(&buffer).map_err(serde::ser::Error::custom).map(Self::from));
        if buffer.capacity() <= KEPT {
            JSON.set(buffer);
        }
        text
    }

    /// The integer, if it is one.
    #[must_use]
    pub fn int(&self) -> Option<i64> {
        if let Self::Int(n) = self { Some(*n) } else { None }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The UUID, if it is one.
    #[must_use]
    pub fn id(&self) -> Option<Uuid> {
        if let Self::Id(id) = self { Some(*id) } else { None }
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}
impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}
impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text)
    }
}
impl From<Uuid> for Value {
    fn from(id: Uuid) -> Self {
        Self::Id(id)
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A row that a read returned.
pub type Row = Vec<Value>;

/// Rows given to a statement, stored flat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    values: Vec<Value>,
    count: usize,
}

impl Rows {
    /// No rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One row.
    #[must_use]
    pub fn one<const N: usize>(row: [Value; N]) -> Self {
        let mut rows = Self::new();
        rows.push(row);
        rows
    }

    /// Adds a row; its length must be that of the statement's columns.
    pub fn push<const N: usize>(&mut self, row: [Value; N]) {
        self.values.extend(row);
        self.count += 1;
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How long its texts are together.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.values.iter().filter_map(Value::text).map(str::len).sum()
    }

    /// The cells, row after row.
    #[must_use]
    pub fn cells(&self) -> &[Value] {
        &self.values
    }
}

/// A statement, the rows it gets, and how many rows it must hit.
#[derive(Clone, Debug)]
pub struct Write {
    /// The statement.
    pub statement: &'static Statement,
    /// Its rows.
    pub rows: Rows,
    /// Rows that must be hit, else the whole batch rolls back; `None` when any number is right.
    pub expect: Option<u64>,
    /// Whether each of its rows hits one row of the store at most, which no other write touches or must see, neither of its
    /// batch nor of another shard's, also where they are of the same table: a store may then run them as one.
    pub apart: bool,
}

impl Write {
    /// A write that must hit exactly as many rows as it is given.
    #[must_use]
    pub fn exact(statement: &'static Statement, rows: Rows) -> Self {
        let expect = Some(rows.len() as u64);
        Self { statement, rows, expect, apart: false }
    }

    /// A write that may hit any number of rows.
    #[must_use]
    pub fn any(statement: &'static Statement, rows: Rows) -> Self {
        Self { statement, rows, expect: None, apart: false }
    }

    /// Vouches that each of its rows hits one row of the store at most, and that those are of no other write.
    #[must_use]
    pub fn apart(self) -> Self {
        Self { apart: true, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_may_have_words_of_each_dialect() {
        let sql = "with r(a) as ({rows}) select {instr|strpos}(r.a, ':') from r";
        let statement = Statement { name: "test", columns: &[Kind::Text], sql };
        assert_eq!(statement.text(Dialect::Sqlite), "with r(a) as ({rows}) select instr(r.a, ':') from r");
        assert_eq!(statement.text(Dialect::Postgres), "with r(a) as ({rows}) select strpos(r.a, ':') from r");
    }
}
