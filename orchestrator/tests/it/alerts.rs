//! Telling people (H2): whatever happens to the process or the receiver, an alert is told, and known as the same.

use crate::jobs::{MINUTE_MS, open, parked};
use crate::orphans::signal;
use crate::system::{System, job};
use axum::Json as Body;
use axum::http::StatusCode;
use axum::routing::post;
use endstate_events::{Json, SagaId};
use endstate_http::Trust;
use endstate_orchestrator::alert::{Channel, Teller};
use endstate_orchestrator::job::{Job as _, Report};
use endstate_orchestrator::orphan::Orphans;
use endstate_outbox::{
    Assignment, Clock as _, Commit, CommitError, Row, Rows, ShardId, Statement, Store, StoreError, alert,
};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// A receiver that refuses the first posts; returns its address and what it took.
async fn webhook(refusals: usize) -> (String, mpsc::UnboundedReceiver<Json>) {
    let (took, taken) = mpsc::unbounded_channel();
    let posts = Arc::new(AtomicUsize::new(0));
    let take = move |Body(alert): Body<Json>| {
        let (took, posts) = (took.clone(), Arc::clone(&posts));
        async move {
            if posts.fetch_add(1, Ordering::SeqCst) < refusals {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            took.send(alert).ok();
            StatusCode::NO_CONTENT
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/alerts", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, axum::Router::new().route("/alerts", post(take))).into_future());
    (url, taken)
}

/// Has everything delivered that people are told of a saga which parks.
async fn deliver_parked(folder: &Path, number: &str, webhook_url: Option<String>) {
    let mut system = open(&folder.join("data")).await;
    parked(&mut system, number).await;
    tell(&system, folder, webhook_url).await;
}

fn channel(folder: &Path, webhook_url: Option<String>) -> Channel {
    let (file, public_url, trust) = (folder.join("alerts.ndjson"), "https://ops.example/".to_owned(), Trust::system());
    Channel { webhook_url, file, public_url, trust }
}

/// Tells what waits, with the pauses that it takes.
async fn tell(system: &System, folder: &Path, webhook_url: Option<String>) {
    let teller = Teller::new(system.store.clone(), channel(folder, webhook_url), system.clock.clone()).unwrap();
    for _ in 0..3 {
        while teller.round().await.unwrap() > 0 {}
        system.clock.advance(1_000);
    }
}

/// What no webhook took.
fn kept(folder: &Path) -> Vec<Json> {
    let kept = std::fs::read_to_string(folder.join("alerts.ndjson")).unwrap();
    kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn an_alert_reaches_a_receiver_that_was_down_at_first_once_and_with_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let (url, mut taken) = webhook(1).await;
    deliver_parked(folder.path(), "N 1/\u{e4}", Some(url)).await;
    let alert = taken.try_recv().unwrap();
    assert_eq!((&alert["kind"], &alert["definition"]), (&json!("parked"), &json!("odd_job")));
    assert_eq!(alert["text"], "odd_job N 1/\u{e4} is parked on a wait");
    assert_eq!(alert["link"], "https://ops.example/v1/sagas/odd_job/N%201%2F%C3%A4/timeline");
    assert!(taken.try_recv().is_err(), "one cause, one alert");
    assert!(!folder.path().join("alerts.ndjson").exists(), "the receiver took it");
}

#[tokio::test]
async fn an_alert_that_no_receiver_takes_is_kept_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    deliver_parked(folder.path(), "N-1", None).await;
    let kept = kept(folder.path());
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0]["link"], "https://ops.example/v1/sagas/odd_job/N-1/timeline");
}

#[tokio::test]
async fn an_alert_about_an_input_without_a_saga_leads_to_the_job_that_tries_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(&folder.path().join("data")).await;
    let (nobody, _) = system.start("odd_job", job("nobody"));
    system.tell(nobody, "signal-1", signal()).await;
    let orphans = Orphans::new(system.gateway());
    orphans.run(system.clock.now_ms(), false).await.unwrap();
    assert_eq!(orphans.name(), "orphans");
    tell(&system, folder.path(), None).await;
    let kept = kept(folder.path());
    assert_eq!((&kept[0]["kind"], &kept[0]["saga"]), (&json!("orphan"), &json!(nobody)));
    assert_eq!(kept[0]["link"], "https://ops.example/v1/jobs/orphans/runs");
}

/// The alert is written with the parking itself: whatever dies afterwards, it is told, and what was told is told no more.
#[tokio::test]
async fn a_parked_saga_is_told_of_once_though_the_process_dies() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut system = open(&data).await;
    let mut sagas = vec![parked(&mut system, "P-0").await, parked(&mut system, "P-1").await];
    drop(system);
    let system = open(&data).await;
    tell(&system, folder.path(), None).await;
    drop(system);
    let system = open(&data).await;
    tell(&system, folder.path(), None).await;
    let mut told: Vec<SagaId> =
        kept(folder.path()).iter().map(|line| line["saga"].as_str().unwrap().parse().unwrap()).collect();
    sagas.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, sagas);
}

/// A kill between telling and marking tells again, and the receiver can see that it is the same.
#[tokio::test]
async fn an_alert_that_is_told_again_has_the_same_id() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(&folder.path().join("data")).await;
    parked(&mut system, "P-1").await;
    let (url, mut taken) = webhook(0).await;
    let dying = Arc::new(Dying { inner: system.store.clone(), commits: AtomicUsize::new(0) });
    let teller = Teller::new(dying, channel(folder.path(), Some(url.clone())), system.clock.clone()).unwrap();
    assert!(teller.round().await.is_err(), "told, and not marked");
    assert_eq!(teller.round().await.unwrap(), 0, "another one leaves it alone for a while");
    system.clock.advance(5 * MINUTE_MS);
    tell(&system, folder.path(), Some(url)).await;
    let (first, again) = (taken.try_recv().unwrap(), taken.try_recv().unwrap());
    assert!(taken.try_recv().is_err());
    assert_eq!(first, again);
    assert_eq!(first["id"].as_str().unwrap().len(), 32);
}

/// A store whose process dies before its second commit: it has taken what it tells, and cannot mark it.
struct Dying {
    inner: Arc<dyn Store>,
    commits: AtomicUsize,
}

#[async_trait::async_trait]
impl Store for Dying {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        self.inner.read(statement, rows).await
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        self.inner.assign(shard).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        match self.commits.fetch_add(1, Ordering::SeqCst) {
            0 => self.inner.commit(commit).await,
            _ => Err(CommitError::Doubt("the process died".to_owned())),
        }
    }

    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }
}

/// Two processes look at the same moment: one tells.
#[tokio::test]
async fn an_alert_is_told_by_one_of_several_processes() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(&folder.path().join("data")).await;
    parked(&mut system, "P-1").await;
    let waiting = alert::waiting(&*system.store, system.clock.now_ms(), 10).await.unwrap();
    let until_ms = system.clock.now_ms() + 1_000;
    assert!(alert::claim(&*system.store, &waiting, until_ms).await.unwrap());
    assert!(!alert::claim(&*system.store, &waiting, until_ms).await.unwrap(), "seen by both, taken by one");
    tell(&system, folder.path(), None).await;
    assert_eq!(kept(folder.path()).len(), 1, "whoever took it has died; it is told after its pause");
}

/// A receiver takes its time; meanwhile another process looks, more than once.
#[tokio::test]
async fn an_alert_that_is_being_told_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(&folder.path().join("data")).await;
    parked(&mut system, "P-1").await;
    let (asked, mut ask) = mpsc::unbounded_channel();
    let answer = Arc::new(tokio::sync::Notify::new());
    let slow = {
        let answer = Arc::clone(&answer);
        move || async move {
            asked.send(()).ok();
            answer.notified().await;
            StatusCode::NO_CONTENT
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/alerts", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, axum::Router::new().route("/alerts", post(slow))).into_future());
    let teller =
        || Teller::new(system.store.clone(), channel(folder.path(), Some(url.clone())), system.clock.clone()).unwrap();
    let (first, second) = (teller(), teller());
    let telling = tokio::spawn(async move { first.round().await.unwrap() });
    ask.recv().await.unwrap();
    for _ in 0..4 {
        system.clock.advance(1_000);
        assert_eq!(second.round().await.unwrap(), 0, "it is the other one's");
    }
    answer.notify_one();
    assert_eq!(telling.await.unwrap(), 1);
    assert!(ask.try_recv().is_err(), "told once");
}

/// The receiver is down for an hour: the file has each alert once, and the receiver gets it once it is back.
#[tokio::test]
async fn an_alert_outlasts_a_receiver_that_is_down_for_long() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(&folder.path().join("data")).await;
    for number in ["P-1", "P-2"] {
        parked(&mut system, number).await;
    }
    let (url, mut taken) = webhook(10).await;
    let teller = Teller::new(system.store.clone(), channel(folder.path(), Some(url)), system.clock.clone()).unwrap();
    let mut rounds = 0;
    while taken.is_empty() {
        rounds += 1;
        assert!(rounds <= 11, "each round tries the receiver once");
        assert_eq!(teller.round().await.unwrap(), 2);
        assert_eq!(teller.round().await.unwrap(), 0, "not before its pause is over");
        system.clock.advance(20 * MINUTE_MS);
    }
    assert_eq!(rounds, 11);
    let numbers = [taken.try_recv().unwrap(), taken.try_recv().unwrap()].map(|alert| alert["number"].clone());
    assert_eq!(numbers, ["P-1", "P-2"]);
    let kept: Vec<_> = kept(folder.path()).iter().map(|line| line["number"].clone()).collect();
    assert_eq!(kept, ["P-1", "P-2"]);
    assert_eq!(teller.round().await.unwrap(), 0);
}

#[tokio::test]
async fn alerts_that_were_told_long_ago_go_and_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(&folder.path().join("data")).await;
    parked(&mut system, "P-1").await;
    tell(&system, folder.path(), None).await;
    parked(&mut system, "P-2").await;
    system.clock.advance(31 * 24 * 60 * MINUTE_MS);
    let counts = |report: Report| (report.found, report.changed);
    assert_eq!(counts(system.archive(&[], true).await), (1, 0));
    assert_eq!(counts(system.archive(&[], false).await), (1, 1));
    assert_eq!(counts(system.archive(&[], false).await), (0, 0));
    assert_eq!(&*system.told().await[0].number, "P-2", "nobody was told of this one");
}
