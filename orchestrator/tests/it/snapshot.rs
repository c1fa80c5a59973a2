//! Sagas that stay open for long: their events are put together, so that old days of events can go, and nothing else
//! about them changes.

use crate::jobs::{MINUTE_MS, parked};
use crate::system::{System, done, job, odd_job};
use endstate_events::{Actor, InputBody, Operation, SagaId};
use endstate_orchestrator::http::show;
use endstate_orchestrator::persist;
use endstate_outbox::{Clock as _, Commit, Kind, Rows, Statement, Write};
use endstate_saga::event::{Event, Fact};
use endstate_saga::fold;
use std::path::Path;

const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
const AFTER_MS: i64 = 30 * DAY_MS;

static SNAPSHOTS: Statement = Statement {
    name: "test.snapshots",
    columns: &[Kind::Id],
    sql: "with r(saga) as ({rows}) select n.version, n.time_ms from r join snapshot n on n.saga = r.saga",
};
/// What dropping days does.
static FORGET: Statement = Statement {
    name: "test.forget_events",
    columns: &[Kind::Id, Kind::Int],
    sql: "with r(saga, version) as ({rows}) delete from event \
          where exists (select 1 from r where r.saga = event.saga and event.version < r.version)",
};

impl System {
    async fn open_for_long(folder: &Path) -> Self {
        let mut system = Self::open(folder, 100).await;
        system.shards = system.anew(Some(AFTER_MS));
        system.definitions.load(&odd_job(), 0).await.unwrap();
        system
    }

    async fn events(&self, saga: SagaId) -> Vec<Event> {
        let pages = persist::load_timeline(&*self.store, saga).await.unwrap();
        pages.into_iter().flat_map(|(_, _, events)| events).collect()
    }

    async fn snapshots(&self, saga: SagaId) -> Vec<(i64, i64)> {
        let rows = self.store.read(&SNAPSHOTS, Rows::one([saga.0.into()])).await.unwrap();
        rows.iter().map(|row| (row[0].int().unwrap(), row[1].int().unwrap())).collect()
    }

    async fn days_later(&mut self, days: i64) {
        self.clock.advance(days * DAY_MS);
        self.run_until_idle().await;
    }
}

fn count(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event.fact, Fact::Snapshot(_))).count()
}

#[tokio::test]
async fn a_parked_saga_is_put_together_again_and_again_and_goes_on_as_if_nothing_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open_for_long(folder.path()).await;
    let saga = parked(&mut system, "J-1").await;
    let before = system.saga(saga).await.unwrap();
    system.days_later(29).await;
    assert_eq!(system.saga(saga).await.unwrap(), before, "not before its time");

    system.days_later(1).await;
    let put_together = system.saga(saga).await.unwrap();
    assert_eq!(put_together.version, before.version + 1);
    assert_eq!((put_together.changed_ms, put_together.status.clone()), (before.changed_ms, before.status.clone()));
    assert_eq!(system.snapshots(saga).await, [(before.version as i64, system.clock.now_ms())]);
    system.days_later(29).await;
    assert_eq!(count(&system.events(saga).await), 1, "once in its time");
    system.days_later(1).await;
    let events = system.events(saga).await;
    assert_eq!((count(&events), events.len()), (2, before.version as usize + 2));
    assert_eq!(system.snapshots(saga).await[0].0, before.version as i64 + 1);

    // The days before have gone.
    let forget = Write::any(&FORGET, Rows::one([saga.0.into(), (before.version as i64 + 1).into()]));
    system.store.commit(Commit { writes: vec![forget], ..Commit::default() }).await.unwrap();
    assert_eq!(system.events(saga).await.len(), 1);
    assert_eq!(fold::replay(&system.events(saga).await), system.saga(saga).await);
    let actor = Actor { subject: "olga".into(), role: "operator".into() };
    let retry = InputBody::Operate { operation: Operation::Retry, reason: "OPS-1".into(), actor };
    system.tell(saga, "retry", retry).await;
    assert_eq!(fold::replay(&system.events(saga).await), system.saga(saga).await, "and after it went on");
    assert_ne!(system.saga(saga).await.unwrap().control, before.control);
}

#[tokio::test]
async fn a_timeline_says_what_was_put_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open_for_long(folder.path()).await;
    let saga = parked(&mut system, "J-1").await;
    let before = system.saga(saga).await.unwrap();
    system.days_later(30).await;
    let definition = system.definitions.get("odd_job", 1).unwrap();
    let shown = |pages| show::timeline(&definition, pages);
    let pages = persist::load_timeline(&*system.store, saga).await.unwrap();
    let all = shown(pages.clone());
    let last = all.last().unwrap();
    assert_eq!((last.event.as_str(), last.version), ("snapshot", before.version as i64 + 1));
    assert_eq!((&last.data["events"], &last.data["status"]), (&before.version.into(), &(*before.status).into()));
    assert_eq!(last.data["state"]["number"], "J-1");
    // Of a day in the middle that has gone, nobody guesses which run had which number.
    let (mut holed, first) = (pages.clone(), shown(pages[..1].to_vec()).len());
    assert!(holed.len() > 3, "{holed:?}");
    holed.remove(1);
    assert_eq!(shown(holed)[first].event, "snapshot");
    // What comes later is told with the names of steps that only the snapshot knows.
    let actor = Actor { subject: "olga".into(), role: "operator".into() };
    system
        .tell(saga, "give back", InputBody::Operate { operation: Operation::Compensate, reason: "OPS-2".into(), actor })
        .await;
    let mut pages = persist::load_timeline(&*system.store, saga).await.unwrap();
    let first = pages.iter().position(|(version, ..)| *version == before.version).unwrap();
    let later = shown(pages.split_off(first));
    assert_eq!(later[0].event, "snapshot");
    let undone = later.iter().find(|entry| entry.event == "undos_sent").unwrap();
    assert_eq!(undone.data["runs"][0]["step"], "make", "{undone:?}");
}

/// Whatever has ended never changes, and whatever is young is left alone.
#[tokio::test]
async fn what_has_ended_is_not_put_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open_for_long(folder.path()).await;
    let saga = parked(&mut system, "J-1").await;
    let actor = Actor { subject: "olga".into(), role: "operator".into() };
    let end = endstate_events::ForcedEnd::Completed;
    let force = InputBody::Operate { operation: Operation::Force { end }, reason: "OPS-3".into(), actor };
    system.tell(saga, "force", force).await;
    let ended = system.saga(saga).await.unwrap();
    assert!(ended.control.is_ended());
    system.days_later(31).await;
    let young = system.begin("odd_job", job("J-2")).await;
    system.tell(young, "make", done(young, "make")).await;
    system.days_later(0).await;
    assert_eq!(system.saga(saga).await.unwrap(), ended);
    assert_eq!((count(&system.events(saga).await), count(&system.events(young).await)), (0, 0));
}

/// A page of timers puts a bounded number together, however many are due.
#[tokio::test]
async fn sagas_due_at_once_are_put_together_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open_for_long(folder.path()).await;
    let mut sagas = Vec::new();
    for n in 0..12 {
        sagas.push(parked(&mut system, &format!("J-{n}")).await);
    }
    system.days_later(31).await;
    for saga in sagas {
        let events = system.events(saga).await;
        assert_eq!((count(&events), fold::replay(&events)), (1, system.saga(saga).await));
    }
}
