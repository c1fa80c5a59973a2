//! `endstate migrate` and `endstate doctor` against a real server.

use serde_json::Value;
use std::process::{Command, Output};

pub(crate) fn server() -> String {
    std::env::var("ENDSTATE_TEST_POSTGRES").expect(
        "ENDSTATE_TEST_POSTGRES names no server; bring one along: \
         scripts/services run --only postgres -- cargo test --test services",
    )
}

pub(crate) fn endstate(url: &str, args: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_endstate"));
    program.args(args).env("ENDSTATE_STORE_URL", url).env("ENDSTATE_KAFKA_BROKERS", "").output().unwrap()
}

/// Check and grade of each finding.
pub(crate) fn findings(output: &Output) -> Vec<(String, String)> {
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    found.iter().map(|finding| (text(finding, "check"), text(finding, "grade"))).collect()
}

#[test]
fn a_database_is_migrated_once_and_then_found_fit() {
    let url = server();
    let (server, _) = url.rsplit_once('/').unwrap();
    let url = format!("{server}/test_commands_{}", std::process::id());
    let before = endstate(&url, &["doctor", "-o", "json"]);
    assert_eq!(before.status.code(), Some(2), "the database is not there yet");
    assert_eq!(findings(&before)[0], ("reach".to_owned(), "bad".to_owned()));
    let unread = endstate(&url, &["check", "--store"]);
    assert_eq!(unread.status.code(), Some(3), "what cannot be read is unknown: {unread:?}");
    let first = endstate(&url, &["migrate"]);
    assert!(
        first.status.success() && String::from_utf8_lossy(&first.stdout).contains("0001_shard applied"),
        "{first:?}"
    );
    let again = endstate(&url, &["migrate", "-o", "json"]);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stdout).contains("\"applied\": []"), "{again:?}");
    let after = endstate(&url, &["doctor", "-o", "json"]);
    assert_eq!(after.status.code(), Some(1), "a single database is something to mind: {after:?}");
    let after = findings(&after);
    assert!(
        after.contains(&("statements".into(), "good".into())) && after.contains(&("standby".into(), "mind".into()))
    );
    let people = endstate(&url, &["doctor"]);
    assert!(String::from_utf8_lossy(&people.stdout).contains("no synchronous standby"), "{people:?}");
    let monitor = endstate(&url, &["check", "--store", "--format", "nagios"]);
    assert_eq!(monitor.status.code(), Some(0), "{monitor:?}");
    let line = String::from_utf8_lossy(&monitor.stdout).into_owned();
    assert!(line.starts_with("ENDSTATE OK - ") && line.contains("parked=0;1;50"), "{line}");
}

#[test]
fn brokers_are_examined_before_and_after_their_topics_are_made() {
    let brokers = std::env::var("ENDSTATE_TEST_KAFKA").expect("ENDSTATE_TEST_KAFKA names no broker: scripts/services");
    let (server, _) = server().rsplit_once('/').map(|(server, name)| (server.to_owned(), name.to_owned())).unwrap();
    let url = format!("{server}/test_brokers_{}", std::process::id());
    assert!(endstate(&url, &["migrate"]).status.success());
    let doctor = |variables: &[(&str, &str)]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_endstate"));
        program.args(["doctor", "-o", "json"]).env("ENDSTATE_STORE_URL", &url).env("ENDSTATE_ENVIRONMENT", "doctor");
        program.env("ENDSTATE_KAFKA_BROKERS", &brokers).envs(variables.iter().copied()).output().unwrap()
    };
    let output = doctor(&[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found = findings(&output);
    for (check, grade) in [("kafka.reach", "good"), ("kafka.election", "good"), ("kafka.topics", "mind")] {
        assert!(found.contains(&(check.into(), grade.into())), "{found:?}");
    }
    let nobody = doctor(&[("ENDSTATE_KAFKA_BROKERS", "127.0.0.1:1")]);
    assert_eq!(nobody.status.code(), Some(2), "{nobody:?}");
    assert!(findings(&nobody).contains(&("kafka.reach".into(), "bad".into())));
}

#[test]
fn without_a_database_both_say_what_to_set() {
    for command in ["migrate", "doctor"] {
        let said = endstate("", &[command]);
        assert_eq!(said.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&said.stderr).contains("ENDSTATE_STORE_URL"), "{said:?}");
    }
}
