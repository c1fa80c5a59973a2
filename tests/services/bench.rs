//! `endstate bench` over PostgreSQL and Kafka, small: what it tells is whole, and nothing of it stays.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

fn service(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} names no server; bring one along: scripts/services run -- cargo test --test services")
    })
}

/// A run of some clients for a second, as JSON.
fn bench(arguments: &[&str]) -> Value {
    let mut program = Command::new(env!("CARGO_BIN_EXE_endstate"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ENDSTATE_")) {
        program.env_remove(name);
    }
    let run = program
        .arg("bench")
        .args(arguments)
        .args(["--clients", "4", "--seconds", "1", "-o", "json"])
        .env("ENDSTATE_STORE_URL", service("ENDSTATE_TEST_POSTGRES"))
        .env("ENDSTATE_KAFKA_BROKERS", service("ENDSTATE_TEST_KAFKA"))
        .env("ENDSTATE_ENGINE_PARTITIONS", "2")
        .output()
        .unwrap();
    assert!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).unwrap()
}

fn keys(value: &Value) -> BTreeSet<&String> {
    value.as_object().unwrap().keys().collect()
}

const SHARED: [&str; 2] = ["--stack", "kafka,postgres"];

#[test]
fn sagas_over_kafka_and_postgresql_are_measured_with_all_their_processes() {
    let report = bench(&[&["saga"], &SHARED[..]].concat());
    assert_eq!((&report["books_balanced"], &report["partitions"]), (&true.into(), &2.into()), "{report:#}");
    let cpu = report["cpu_ms_per_saga_by_process"].as_object().unwrap();
    let processes: Vec<&String> = cpu.keys().collect();
    assert_eq!(processes, ["clients", "endstate", "kafka", "postgres"], "{report:#}");
    assert!(cpu.values().all(|ms| ms.as_f64().unwrap() > 0.0), "{report:#}");
    // A start, four commands, four replies, five changes of status; at its edges a short run counts some of other sagas.
    assert!(report["records_per_saga"].as_f64().unwrap() > 5.0, "{report:#}");
    assert!(report["wal_syncs_per_saga"].as_f64().unwrap() > 0.0, "{report:#}");
    assert!(report["ceiling_sagas_per_s"].as_f64().unwrap() > 0.0, "{report:#}");
    let embedded = bench(&["saga"]);
    assert_eq!(embedded["books_balanced"], true, "{embedded:#}");
    assert_eq!(keys(&report), keys(&embedded), "the same keys, whatever it runs on");
}

#[test]
fn orders_with_real_participants_end_with_balanced_books() {
    let report = bench(&[&["saga", "--saga", "flash_sale_order"], &SHARED[..]].concat());
    assert_eq!(report["books_balanced"], true, "{report:#}");
    assert!(report["completed"].as_u64().unwrap() > 0, "{report:#}");
}

#[test]
fn the_limit_is_told_with_what_the_engine_reaches_of_it() {
    let report = bench(&[&["limit"], &SHARED[..]].concat());
    for key in ["sagas_per_s", "records_per_s", "rows_per_s", "engine_ratio"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}: {report:#}");
    }
}

#[test]
fn what_waited_for_its_participants_comes_to_its_end() {
    let report = bench(&[&["drain", "--sagas", "60"], &SHARED[..]].concat());
    assert_eq!((&report["books_balanced"], &report["sagas"]), (&true.into(), &60.into()), "{report:#}");
    for phase in ["before_mb", "waiting_mb", "draining_mb"] {
        let processes: Vec<&String> = report[phase].as_object().unwrap().keys().collect();
        assert_eq!(processes, ["endstate", "kafka", "postgres"], "{report:#}");
    }
}
