//! What a Debezium connector would read: the log of a database whose processes write for one, through the publication that
//! docs/debezium.md tells people to make.

use crate::promoted::Server;
use crate::roles::ALL;
use crate::town::Town;
use serde_json::json;
use std::process::Command;

const SLOT: &str = "endstate_debezium";

/// A server whose log can be decoded: the tests' common one has none.
fn server() -> Server {
    let server = Server::start();
    let url = server.url("endstate", None);
    let told = Command::new("psql").args(["-qAtX", &url, "-c", "alter system set wal_level = logical"]).status();
    assert!(told.expect("psql comes with PostgreSQL").success());
    server.services("stop");
    server.services("start");
    server
}

/// The SQL that the page tells people to run.
fn publication() -> &'static str {
    let page = include_str!("../../docs/debezium.md");
    page.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the page has the statement")
}

#[tokio::test]
async fn what_is_written_for_debezium_is_in_the_log_as_one_table() {
    let server = server();
    let mut town = Town::new();
    town.set("ENDSTATE_STORE_URL", &server.url("shop", None));
    town.set("ENDSTATE_STORE_DEBEZIUM", "true");
    let process = town.serve("a", ALL, true).await;
    town.sql(publication());
    town.sql(&format!("select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')"));
    for number in ["D-1", "D-2"] {
        let body = json!({"number": number, "fail_at": ""});
        town.post(std::slice::from_ref(&process.url), "/v1/sagas/bench_saga", &body).await;
    }
    let url = format!("{}/v1/events", process.url);
    let told = town.until(&url, |page| page["items"].as_array().is_some_and(|changes| changes.len() >= 4)).await;
    assert!(process.terminate(), "{}", town.logs());
    let changes = told["items"].as_array().unwrap();
    // Each change that readers are told of is a row, and no other.
    let rows = town.sql("select aggregateid || ' ' || (payload::json ->> 'version') from debezium_outbox order by 1");
    let mut wanted: Vec<String> =
        changes.iter().map(|change| format!("{} {}", change["number"].as_str().unwrap(), change["version"])).collect();
    wanted.sort();
    assert_eq!(rows.lines().collect::<Vec<_>>(), wanted);
    // A message that begins with I is a row, and then comes the table's number: that of the whole, whichever day it lies in.
    let decoded = format!(
        "pg_logical_slot_peek_binary_changes('{SLOT}', null, null, 'proto_version', '1', 'publication_names', '{SLOT}') \
         where get_byte(data, 0) = ascii('I')"
    );
    let table =
        "(get_byte(data, 1)::int8 << 24) + (get_byte(data, 2) << 16) + (get_byte(data, 3) << 8) + get_byte(data, 4)";
    let tables = town.sql(&format!("select distinct {table} from {decoded}"));
    assert_eq!(tables, town.sql("select 'debezium_outbox'::regclass::oid"));
    let inserted = town.sql(&format!("select translate(encode(data, 'escape'), chr(10), ' ') from {decoded}"));
    let inserted: Vec<&str> = inserted.lines().collect();
    assert_eq!(inserted.len(), changes.len(), "{inserted:?}");
    for number in ["D-1", "D-2"] {
        assert!(inserted.iter().any(|row| row.contains(number) && row.contains("bench_saga")), "{inserted:?}");
    }
    drop(town);
}
