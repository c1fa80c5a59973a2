//! The view of real sagas: it follows, keeps what it cannot draw, and is rebuilt.

use crate::system::{System, source};
use endstate_events::SagaId;
use endstate_orchestrator::view::rebuild::{self, Mark};
use endstate_orchestrator::view::{Filter, Projector, list};
use endstate_outbox::{Clock as _, Commit, Kind, Rows, Statement, Write};
use serde_json::json;

static STATE: Statement = Statement {
    name: "test.state",
    columns: &[Kind::Id],
    sql: "with r(id) as ({rows}) select s.state from r join saga s on s.id = r.id",
};
static PUT_STATE: Statement = Statement {
    name: "test.put_state",
    columns: &[Kind::Id, Kind::Text],
    sql: "with r(id, state) as ({rows}) update saga set state = r.state from r where saga.id = r.id",
};
static UNDRAWN: Statement = Statement {
    name: "test.undrawn",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select u.reason from r cross join undrawn u",
};

async fn put_state(system: &System, saga: SagaId, state: &str) {
    let writes = vec![Write::exact(&PUT_STATE, Rows::one([saga.0.into(), state.into()]))];
    system.store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
}

async fn listed(system: &System) -> usize {
    list(&*system.store, &Filter::default(), None, 100).await.unwrap().0.len()
}

async fn undrawn(system: &System) -> usize {
    system.store.read(&UNDRAWN, Rows::one([1.into()])).await.unwrap().len()
}

async fn rebuilt(system: &System) -> (usize, usize, usize) {
    let (mut sum, mut next) = ((0, 0, 0), Some(Mark::beginning()));
    while let Some(mark) = next {
        let now_ms = system.clock.now_ms();
        let page = rebuild::page(&*system.store, &*system.definitions, &mark, now_ms).await.unwrap();
        sum = (sum.0 + page.drawn, sum.1 + page.undrawn, sum.2 + page.removed);
        next = page.next;
    }
    sum
}

#[tokio::test]
async fn what_cannot_be_drawn_is_kept_tried_again_and_drawn_by_a_rebuild() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 100).await;
    system.definitions.load(&source("bench_saga"), 0).await.unwrap();
    let mut sagas = Vec::new();
    for n in 0..5 {
        sagas.push(system.begin("bench_saga", json!({ "number": format!("B-{n}"), "fail_at": "" })).await);
    }
    let row = system.store.read(&STATE, Rows::one([sagas[2].0.into()])).await.unwrap();
    let state = row[0][0].text().unwrap().to_owned();
    put_state(&system, sagas[2], "{}").await;
    let open = || Projector::open(system.store.clone(), system.definitions.clone(), system.clock.clone());
    let mut projector = open().await.unwrap();
    assert!(!projector.look().await.unwrap());
    assert_eq!((listed(&system).await, undrawn(&system).await), (4, 1));
    assert_eq!(rebuilt(&system).await, (4, 1, 0));
    put_state(&system, sagas[2], &state).await;
    assert_eq!(rebuilt(&system).await, (5, 0, 0));
    assert_eq!((listed(&system).await, undrawn(&system).await), (5, 0));

    // And by the projector itself, after a while.
    put_state(&system, sagas[2], "{}").await;
    assert_eq!(rebuilt(&system).await, (4, 1, 0));
    put_state(&system, sagas[2], &state).await;
    system.clock.advance(30_000);
    projector.look().await.unwrap();
    assert_eq!(undrawn(&system).await, 0);
}
