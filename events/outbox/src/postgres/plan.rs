//! Which writes of a batch share a statement, and how it reads: each write is a common table expression whose rows are
//! counted, and a wrong count is an error.
//!
//! All expressions of a statement see the tables as they were before it, so that a write which must see another one
//! begins a statement of its own.

use super::commit::FENCE;
use super::render;
use crate::statement::{Dialect, Statement};
use rustc_hash::FxHashMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Texts of the statements a batch becomes, each with the end of its writes.
pub(super) type Plan = Arc<Vec<(Arc<str>, usize)>>;

/// A statement, and whether its rows are those of no other write.
pub(super) type Part = (&'static Statement, bool);

/// Groups the writes: as many as possible in one statement, in their order.
pub(super) fn plan(statements: &[Part]) -> Plan {
    type Plans = FxHashMap<Vec<(usize, bool)>, Plan>;
    static CACHE: LazyLock<Mutex<Plans>> = LazyLock::new(Mutex::default);
    let key = statements.iter().map(|(statement, apart)| (std::ptr::from_ref(*statement) as usize, *apart)).collect();
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(cache.entry(key).or_insert_with(|| {
        let mut plan = Vec::new();
        let mut from = 0;
        while from < statements.len() {
            let end = from + together(&statements[from..]);
            plan.push((fused(from, &statements[from..end]).into(), end));
            from = end;
        }
        Arc::new(plan)
    }))
}

/// How many of the statements, from the first on, touch nothing that another of them writes.
fn together(statements: &[Part]) -> usize {
    let mut seen: Vec<(Part, Tables)> = Vec::new();
    for (statement, apart) in statements.iter().copied() {
        let tables = Tables::of(statement);
        let meets = |((earlier, other_apart), other): &(Part, Tables)| {
            // Fences are of different shards.
            let fences = std::ptr::eq(*earlier, &FENCE) && std::ptr::eq(statement, &FENCE);
            let vouched = fences || (apart && *other_apart);
            !vouched && (tables.all.contains(&other.written) || other.all.contains(&tables.written))
        };
        if seen.iter().any(meets) {
            break;
        }
        seen.push(((statement, apart), tables));
    }
    seen.len()
}

/// Which tables a writing statement names.
struct Tables {
    written: String,
    all: Vec<String>,
}

impl Tables {
    fn of(statement: &Statement) -> Self {
        let text = statement.text(Dialect::Postgres).to_lowercase();
        let words: Vec<&str> =
            text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).collect();
        let mut all = Vec::new();
        let mut written = String::new();
        for pair in words.windows(2) {
            let [verb, table] = pair else { continue };
            let writes = matches!(*verb, "into" | "update") && *table != "set";
            if (writes || matches!(*verb, "from" | "join")) && !matches!(*table, "r" | "rows") {
                all.push((*table).to_owned());
                // A delete is the only one that begins with `from`; what it deletes from is named first.
                if written.is_empty() && (writes || text.contains(&format!("delete from {table}"))) {
                    written = (*table).to_owned();
                }
            }
        }
        Self { written, all }
    }
}

/// One statement of several: `from` is the place of the first among the writes of the batch.
fn fused(from: usize, statements: &[Part]) -> String {
    let (mut text, mut counts, mut parameter) = (String::from("with "), String::new(), 1);
    for (index, (statement, _)) in statements.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let sql = render::text(statement, parameter);
        parameter += statement.columns.len();
        let _ = write!(text, "{comma}w{index} as ({sql} returning 1)");
        // Counted in this order: the fence is looked at before anything else is written.
        let _ = write!(
            counts,
            "{comma}endstate_must({}, (select count(*) from w{index}), ${parameter}::int8)",
            from + index
        );
        parameter += 1;
    }
    format!("{text} select {counts}")
}

/// The statement as it is sent alone: what writes is counted, as in a batch.
pub(super) fn alone(statement: &'static Statement) -> String {
    let reads = Tables::of(statement).written.is_empty() || statement.sql.contains(" returning ");
    if reads { render::text(statement, 1) } else { fused(0, &[(statement, false)]) }
}

#[cfg(test)]
mod tests {
    use super::super::commit::OUTBOX;
    use super::*;
    use crate::statement::Kind;

    static INSERT: Statement = Statement {
        name: "a",
        columns: &[Kind::Int],
        sql: "with r(id) as ({rows}) insert into a (id) select id from r where not exists (select 1 from b)",
    };
    static UPDATE: Statement =
        Statement { name: "b", columns: &[Kind::Int], sql: "with r(id) as ({rows}) update b set id = r.id from r" };
    static DELETE: Statement =
        Statement { name: "c", columns: &[Kind::Int], sql: "delete from c where id in ({rows})" };

    fn near<const N: usize>(statements: [&'static Statement; N]) -> [Part; N] {
        statements.map(|statement| (statement, false))
    }

    #[test]
    fn writes_that_vouch_for_other_rows_share_a_statement_also_over_one_table() {
        assert_eq!(together(&[(&INSERT, true), (&DELETE, false), (&INSERT, true)]), 3);
        assert_eq!(together(&[(&INSERT, true), (&DELETE, false), (&INSERT, false)]), 2, "both must vouch");
        let plans = [plan(&[(&INSERT, true), (&INSERT, true)]), plan(&[(&INSERT, true), (&INSERT, false)])];
        assert_eq!(plans.map(|plan| plan.len()), [1, 2]);
    }

    #[test]
    fn writes_of_different_tables_are_one_statement() {
        assert_eq!(together(&near([&FENCE, &FENCE, &INSERT, &DELETE, &OUTBOX])), 5);
        let text = fused(2, &near([&INSERT, &DELETE]));
        assert!(
            text.contains("w1 as (delete from c where id in (select * from unnest($3::int8[])) returning 1)"),
            "{text}"
        );
        assert!(text.ends_with("endstate_must(3, (select count(*) from w1), $4::int8)"), "{text}");
    }

    #[test]
    fn a_write_does_not_share_a_statement_with_one_that_it_must_see() {
        assert_eq!(together(&near([&UPDATE, &INSERT])), 1, "the insert reads what is updated");
        assert_eq!(together(&near([&INSERT, &UPDATE])), 1, "and must not see what comes after it");
        assert_eq!(together(&near([&INSERT, &DELETE, &INSERT])), 2);
        assert_eq!(plan(&near([&INSERT, &DELETE, &INSERT])).iter().map(|(_, end)| *end).collect::<Vec<_>>(), [2, 3]);
    }
}
