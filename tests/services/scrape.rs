//! The table of metrics against what a process on PostgreSQL and Kafka tells, and what it says while it stops.

use crate::town::{PATIENCE, Town};
use endstate_outbox::metric::{Kind, Metric};
use serde_json::json;
use std::time::Duration;

const ALL: &str = "gateway,orchestrator,participants,sweeper";

const SAGAS: usize = 40;

fn is_told(text: &str, metric: Metric) -> bool {
    let suffix = if matches!(metric.row().kind, Kind::Histogram(_)) { "_bucket" } else { "" };
    let name = format!("{}{suffix}", metric.name());
    text.lines().any(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' '])))
}

#[tokio::test]
async fn every_metric_of_the_shared_parts_is_scraped() {
    let town = Town::new();
    let server = town.serve("a", ALL, true).await;
    let body = json!({"number": "B-1", "fail_at": ""});
    town.post(std::slice::from_ref(&server.url), "/v1/sagas/bench_saga", &body).await;
    let mut missing = Vec::new();
    let told = async {
        loop {
            let answer = town.http.get(format!("{}/metrics", server.url)).send().await.unwrap();
            let text = answer.text().await.unwrap();
            let wanted = Metric::ALL.iter().filter(|metric| metric.row().shared);
            missing = wanted.filter(|metric| !is_told(&text, **metric)).map(|metric| metric.name()).collect();
            // One producer does not tell in another's place.
            let of = |name: &str| text.contains(&format!("endstate_bus_queued_messages{{client=\"{name}\"}}"));
            missing.extend(["producer_ours", "producer_others"].into_iter().filter(|name| !of(name)));
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

#[tokio::test]
async fn a_process_that_stops_is_not_ready_takes_calls_to_its_end_and_leaves_its_shards_to_the_other() {
    let mut town = Town::new();
    town.set("ENDSTATE_HTTP_UNREADY_S", "600");
    let leaving = town.serve("a", ALL, false).await;
    let staying = town.serve("b", ALL, true).await;
    let urls = [leaving.url.clone()];
    let body = |number: usize| json!({"number": format!("B-{number}"), "fail_at": ""});
    leaving.ask_to_stop();
    let unready = format!("{}/readyz?verbose", leaving.url);
    let checks = loop {
        let answer = town.http.get(&unready).send().await.unwrap();
        if answer.status() == 503 {
            break answer.text().await.unwrap();
        }
    };
    assert!(checks.contains("FAIL not draining") && checks.contains("ok   store"), "{checks}");
    let told = town.http.get(format!("{}/metrics", leaving.url)).send().await.unwrap().text().await.unwrap();
    assert!(told.contains("endstate_draining 1"), "{told}");
    // Those that a load balancer still sends are taken.
    for number in 0..SAGAS {
        let call = town.http.post(format!("{}/v1/sagas/bench_saga", urls[0])).json(&body(number));
        let answer = call.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }
    assert!(leaving.terminate(), "asked once more, it finishes at once and ends well\n{}", town.logs());
    for number in 0..SAGAS {
        let shown = format!("{}/v1/sagas/bench_saga/B-{number}", staying.url);
        let ended = town.until(&shown, |saga| saga["phase"] == "ended").await;
        assert_eq!(ended["outcome"], "completed", "{ended:#}");
    }
    // The last of them may still be on their way.
    let all_are_the_others = async {
        let metrics = format!("{}/metrics", staying.url);
        let owned = "endstate_bus_owned_shards{side=\"orchestrator\"} 8";
        while !town.http.get(&metrics).send().await.unwrap().text().await.unwrap().contains(owned) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, all_are_the_others).await.is_ok(), "{}", town.logs());
    // Asked twice, so that nobody waits.
    staying.ask_to_stop();
    assert!(staying.terminate(), "{}", town.logs());
}
