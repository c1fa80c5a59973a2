//! The table of metrics against what a process on PostgreSQL and Kafka tells, and what it says while it stops.

use crate::town::{PATIENCE, Town};
use endstate_outbox::metric::{Kind, Metric};
use serde_json::json;
use std::time::Duration;

fn is_told(text: &str, metric: Metric) -> bool {
    let suffix = if matches!(metric.row().kind, Kind::Histogram(_)) { "_bucket" } else { "" };
    let name = format!("{}{suffix}", metric.name());
    text.lines().any(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' '])))
}

#[tokio::test]
async fn every_metric_of_the_shared_parts_is_scraped() {
    let town = Town::new();
    let server = town.serve("a", "gateway,orchestrator,participants,sweeper", true).await;
    let body = json!({"number": "B-1", "fail_at": ""});
    town.post(std::slice::from_ref(&server.url), "/v1/sagas/bench_saga", &body).await;
    let mut missing = Vec::new();
    let told = async {
        loop {
            let answer = town.http.get(format!("{}/metrics", server.url)).send().await.unwrap();
            let text = answer.text().await.unwrap();
            let wanted = Metric::ALL.iter().filter(|metric| metric.row().shared);
            missing = wanted.filter(|metric| !is_told(&text, **metric)).map(|metric| metric.name()).collect();
            if missing.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, told).await.is_ok();
    assert!(done, "never told: {missing:?}\n{}", town.logs());
    assert!(server.terminate(), "{}", town.logs());
}
