//! The table of metrics against what a running process tells: a dashboard or an alert over a metric that nobody emits
//! would stay silent for ever.

use crate::program::run;
use crate::stopping::Server;
use endstate_outbox::metric::{Kind, Metric};
use serde_json::{Value, json};
use std::time::Duration;

/// Nothing passes or fails by it but a hang.
const PATIENCE: Duration = Duration::from_secs(240);

fn order(number: &str) -> Value {
    json!({
        "order_no": number, "user_id": "ann", "activity_id": "sale-1", "store": "flagship", "currency": "CNY",
        "total_minor": 1_500, "discount_minor": 0, "points": 0, "stock_strategy": "reserve", "pay_within_s": 600,
        "lines": [{"line_no": "1", "sku": "tea", "quantity": 1, "price_minor": 1_500}],
    })
}

/// Places an order that somebody can pay for; returns where.
async fn place(server: &mut Server, number: &str) -> String {
    server.post("/v1/orders", &order(number)).await;
    loop {
        let shown = server.get(&format!("/v1/sagas/flash_sale_order/{number}")).await;
        if let Some(url) = shown["view"]["pay_url"].as_str() {
            return url.to_owned();
        }
        server.alive().await;
    }
}

/// The lines of a metric that are samples, whatever its kind.
fn is_told(text: &str, metric: Metric) -> bool {
    let suffix = if matches!(metric.row().kind, Kind::Histogram(_)) { "_bucket" } else { "" };
    let name = format!("{}{suffix}", metric.name());
    text.lines().any(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' '])))
}

#[tokio::test]
async fn every_metric_of_the_table_is_scraped() {
    let mut server = Server::with(&[("ENDSTATE_METRICS_LOOK_EVERY_S", "1")]).await;
    let lines =
        json!([{"participant": "stock", "action": "open", "with": {"unit": "tea", "quantity": 9, "standby": false}}]);
    server.post("/v1/operations", &json!({"operation": "open-1", "lines": lines})).await;
    while server.get("/v1/operations/open-1").await["items"][0]["verdict"] != "done" {
        server.alive().await;
    }
    let pay_url = place(&mut server, "O-1").await;
    let paid = server.http.post(pay_url).json(&json!({"amount_minor": 1_500, "currency": "CNY"})).send().await;
    assert!(paid.unwrap().status().is_success());
    // One that stays open.
    place(&mut server, "O-2").await;
    server.post("/v1/jobs/sweep/run", &json!({"reason": "a test"})).await;
    let mut missing = Vec::new();
    let told = async {
        loop {
            let text = server.text("/metrics").await;
            let wanted = Metric::ALL.iter().copied().filter(|metric| !metric.row().shared);
            missing = wanted.filter(|metric| !is_told(&text, *metric)).map(Metric::name).collect();
            if missing.is_empty() {
                return text;
            }
            server.alive().await;
        }
    };
    let Ok(text) = tokio::time::timeout(PATIENCE, told).await else { panic!("never told: {missing:?}") };
    for metric in Metric::ALL.iter().filter(|metric| !metric.row().shared) {
        let kind = format!("# TYPE {} {}", metric.name(), metric.row().kind.label());
        assert!(text.lines().any(|line| line == kind), "{kind}");
    }
    assert!(!text.contains("quantile="), "a summary cannot be added up over processes");
    // The archive has not run, and is missed all the same.
    assert!(text.contains("endstate_job_since_done_seconds{task=\"archive\"}"), "{text}");
    let ended = "endstate_sagas_ended_total{definition=\"flash_sale_order\",outcome=\"completed\"} 1";
    assert!(text.contains(ended), "{text}");
    let open = "endstate_sagas_open{definition=\"flash_sale_order\",phase=\"waiting\"} 1";
    assert!(text.contains(open), "{text}");
    let step = "definition=\"flash_sale_order\",step=\"open_payment\"";
    assert!(text.contains(&format!("endstate_step_outcomes_total{{{step},outcome=\"done\"}} 2")), "{text}");
    assert!(text.contains(&format!("endstate_step_duration_seconds_count{{{step}}} 2")), "{text}");
    let answered = "endstate_commands_answered_total{participant=\"stock\",action=\"hold\",verdict=\"done\"} 2";
    assert!(text.contains(answered), "{text}");
}

/// The exit code and what was printed.
fn check(server: &Server, arguments: &[&str]) -> (i32, String) {
    let arguments = [&["check", "--server", &server.url], arguments].concat();
    let ran = run(&arguments);
    (ran.code, ran.out)
}

#[tokio::test]
async fn a_monitor_gets_a_word_a_line_and_a_code() {
    let mut server = Server::with(&[("ENDSTATE_METRICS_LOOK_EVERY_S", "1")]).await;
    let told = async {
        // What is counted in the store is there after the first look.
        while !server.text("/metrics").await.contains("endstate_job_since_done") {
            server.post("/v1/jobs/sweep/run", &json!({"reason": "a test"})).await;
            server.alive().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    let (code, out) = check(&server, &["-o", "json"]);
    let all: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &all["state"]), (0, &json!("ok")), "{all:#}");
    let names: Vec<&str> =
        all["checks"].as_array().unwrap().iter().filter_map(|check| check["check"].as_str()).collect();
    assert!(names.starts_with(&["ready", "parked"]) && names.contains(&"dead-letters"), "{names:?}");
    let (code, out) = check(&server, &["--only", "ready", "--format", "nagios"]);
    assert_eq!((code, out.as_str()), (0, "ENDSTATE OK - 1 checks\n"));
    let (code, _) = check(&server, &["--parked", "2:1"]);
    assert_eq!(code, 3, "bounds that make no sense are no answer");
    let nobody = run(&["check", "--server", "http://127.0.0.1:1", "--format", "nagios"]);
    assert_eq!(nobody.code, 3, "{}", nobody.out);
    assert!(nobody.out.starts_with("ENDSTATE UNKNOWN - ready does not answer, metrics"), "{}", nobody.out);
}

#[tokio::test]
async fn an_operator_rebuilds_the_view_of_a_running_server() {
    let mut server = Server::with(&[]).await;
    server.post("/v1/orders", &order("O-1")).await;
    while server.get("/v1/sagas").await["items"][0]["number"] != "O-1" {
        server.alive().await;
    }
    let ran = run(&["view", "rebuild", "--server", &server.url, "-o", "json"]);
    let made: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &made["drawn"], &made["undrawn"]), (0, &json!(1), &json!(0)), "{}{}", ran.out, ran.err);
    let nonsense = run(&["view", "rebuild", "--server", &server.url, "--after", "the beginning"]);
    assert!(nonsense.code == 1 && nonsense.err.contains("E2002"), "{}", nonsense.err);
    assert_eq!(server.get("/v1/sagas").await["items"][0]["number"], "O-1");
}

#[test]
fn commands_that_runbooks_name_are_there() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbook");
    let mut named = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let commands = text.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("endstate "));
        let word = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
        named.extend(
            commands.map(|command| command.split_whitespace().take_while(word).take(2).collect::<Vec<_>>().join(" ")),
        );
    }
    assert!(named.len() > 10, "{named:?}");
    for command in named {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.push("--help");
        let ran = run(&arguments);
        assert_eq!(ran.code, 0, "endstate {command}: {}", ran.err);
    }
}
