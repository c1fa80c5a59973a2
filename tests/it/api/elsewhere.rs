//! Definitions of other processes and other programs: what this one has not read yet, and what it cannot read.

use super::*;
use endstate_outbox::{Commit, Kind, Rows, Statement, Write};

/// As if a newer program had started the saga.
static NEWER: Statement = Statement {
    name: "test.newer",
    columns: &[Kind::Id],
    sql: "update saga set state = replace(state, '\"definition_version\":1', '\"definition_version\":9') \
          where id in ({rows})",
};

#[tokio::test]
async fn who_may_start_what_another_process_has_just_loaded_its_definition_says() {
    let server = Server::start().await;
    let mut source = shipped().into_iter().find(|source| source.file.contains("bench_saga")).unwrap();
    source.text = source.text.replacen("saga: bench_saga", "saga: later_saga", 1);
    let another = Definitions::open(server.store.clone()).await.unwrap();
    another.load(&source, SystemClock.now_ms()).await.unwrap();
    let ann = format!("Bearer {}", server.token("ann", [Scope::OrdersOwn]).await);
    let shop = format!("Bearer {}", server.token("shop", [Scope::OrdersWrite]).await);
    let start = async |bearer: &str| {
        server.post_with("/v1/sagas/later_saga", &[("authorization", bearer)], &bench("B-1", "")).await
    };
    let refused = start(&ann).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "E2103"), "it is started by services");
    let taken = start(&shop).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{}", taken.body);
}

#[tokio::test]
async fn a_saga_of_a_version_that_this_program_cannot_read_is_no_fault_of_the_server() {
    let server = Server::start().await;
    let placed = server.post_with("/v1/sagas/bench_saga", &[("prefer", "wait=20")], &bench("B-1", "")).await;
    assert_eq!(placed.status, StatusCode::OK, "{}", placed.body);
    let saga: uuid::Uuid = placed.body["saga"].as_str().unwrap().parse().unwrap();
    let writes = vec![Write::exact(&NEWER, Rows::one([saga.into()]))];
    server.store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
    let unread = server.get("/v1/sagas/bench_saga/B-1").await;
    assert_eq!((unread.status, unread.code()), (StatusCode::SERVICE_UNAVAILABLE, "E2507"));
    assert!(unread.body["detail"].as_str().unwrap().starts_with("E3003: "), "{}", unread.body);
    assert!(unread.headers.contains_key("retry-after"), "another process may be newer");
}
