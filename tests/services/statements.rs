//! Every statement of every crate is prepared on both stores, and none is forgotten.

use endstate_outbox::postgres::Settings;
use endstate_outbox::{PostgresStore, SqliteStore, Statement};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn common() -> Vec<&'static Statement> {
    let parts = [
        endstate_outbox::statements(),
        endstate_http::statements(),
        endstate_orchestrator::statements(),
        endstate_participants::statements(),
    ];
    parts.concat()
}

async fn postgres() -> std::sync::Arc<PostgresStore> {
    let url = std::env::var("ENDSTATE_TEST_POSTGRES").expect(
        "ENDSTATE_TEST_POSTGRES names no server; bring one along: \
         scripts/services run --only postgres -- cargo test --test services",
    );
    let (server, _) = url.rsplit_once('/').unwrap();
    let url = format!("{server}/test_statements_{}", std::process::id());
    PostgresStore::migrate(&url).await.unwrap();
    PostgresStore::open(&Settings::new(&url)).await.unwrap()
}

#[tokio::test]
async fn every_statement_is_taken_by_both_stores() {
    let folder = tempfile::tempdir().unwrap();
    let (embedded, real) = (SqliteStore::open(folder.path()).await.unwrap(), postgres().await);
    let mut refused = Vec::new();
    for statement in common() {
        refused.extend(embedded.prepare(statement).await.err().map(|error| format!("SQLite: {error}")));
        refused.extend(real.prepare(statement).await.err().map(|error| format!("PostgreSQL: {error}")));
    }
    for statement in PostgresStore::statements() {
        refused.extend(real.prepare(statement).await.err().map(|error| format!("PostgreSQL: {error}")));
    }
    assert!(refused.is_empty(), "\n{}\n", refused.join("\n"));
}

/// Names of the statements in a folder's sources, tests and other stores' own left out.
fn written(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let own = ["sqlite", "postgres", "kafka", "tests"].iter().any(|store| path.ends_with(store));
        if path.is_dir() && !own {
            written(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
            let names = code.split("Statement {").skip(1).filter_map(|rest| {
                let name = rest.trim_start().strip_prefix("name: \"")?;
                name.split('"').next().map(str::to_owned)
            });
            found.extend(names);
        }
    }
}

#[test]
fn no_statement_is_forgotten() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for folder in ["events/outbox/src", "http/src", "orchestrator/src", "participants/src"] {
        written(&root.join(folder), &mut found);
    }
    // The embedded bus's own.
    found.remove("outbox.page");
    let names: Vec<&str> = common().iter().map(|statement| statement.name).collect();
    let listed: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let forgotten: Vec<_> = found.difference(&listed).collect();
    assert!(forgotten.is_empty(), "not in the `STATEMENTS` of their module: {forgotten:?}");
    assert_eq!(names.len(), listed.len(), "two statements have one name");
}
