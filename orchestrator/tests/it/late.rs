//! Linked starts that are refused: what was to be done about a late event is written down (Z12).

use crate::linked::open;
use crate::system::System;
use endstate_events::{Input, InputBody, Link, Message};
use endstate_outbox::{Kind, Rows, Statement};
use serde_json::json;
use std::sync::Arc;

/// A late payment whose refund cannot begin, because its number is taken: in no book, so people must hear of it (Z12).
#[tokio::test]
async fn z12_a_refund_whose_number_is_taken_is_a_discrepancy() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let saga = system.begin("bench_saga", json!({ "number": "B-1", "fail_at": "" })).await;
    system.begin("bench_saga", json!({ "number": "B-2", "fail_at": "lock" })).await;
    let (linked, mut start) = system.start("bench_saga", json!({ "number": "B-2", "fail_at": "" }));
    let mut envelope = (*start.envelope).clone();
    let Message::Input(Input { body: InputBody::Start(body), .. }) = &mut envelope.message else { panic!() };
    body.link = Some(Link { order: saga, snapshot: json!(null), caller: None });
    start.envelope = envelope.into();
    system.queue(&[start]).await;
    system.run_until_idle().await;
    assert!(system.saga(linked).await.is_none());
    let told = system.told().await;
    assert_eq!((&*told[0].kind, told[0].saga), ("discrepancy", Some(saga)));
    assert!(told[0].text.contains("B-2"), "{}", told[0].text);
    static FOUND: Statement = Statement {
        name: "test.discrepancies",
        columns: &[Kind::Text],
        sql: "with r(kind) as ({rows}) select d.saga from discrepancy d join r on r.kind = d.kind",
    };
    let found = system.store.read(&FOUND, Rows::one(["late_unhandled".into()])).await.unwrap();
    assert_eq!(found, [vec![saga.0.into()]]);
}

/// The same payment with another amount, when its refund has begun: it would have the id of that refund.
#[tokio::test]
async fn z12_the_same_late_event_with_another_content_is_a_discrepancy() {
    for begins_anew in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut system = open(folder.path()).await;
        let order = system.begin("bench_saga", json!({ "number": "B-1", "fail_at": "" })).await;
        let late = |system: &mut System, fail_at: &str| {
            let (minted, mut start) = system.start("bench_saga", json!({ "number": "B-2", "fail_at": fail_at }));
            let envelope = Arc::make_mut(&mut start.envelope);
            let Message::Input(Input { body: InputBody::Start(body), .. }) = &mut envelope.message else { panic!() };
            body.link = Some(Link { order, snapshot: json!(null), caller: None });
            (minted, start)
        };
        let (refund, first) = late(&mut system, "");
        let (_, mut second) = late(&mut system, "lock");
        for start in [&first, &first] {
            system.queue(std::slice::from_ref(start)).await;
            system.run_until_idle().await;
        }
        assert_eq!(system.told().await, [], "told again, it is the same");
        if begins_anew {
            system.shards = system.anew(None);
        }
        let Message::Input(input) = &mut Arc::make_mut(&mut second.envelope).message else { panic!() };
        input.saga = refund;
        system.queue(&[second]).await;
        system.run_until_idle().await;
        let told = system.told().await;
        assert_eq!((told.len(), &*told[0].kind, told[0].saga), (1, "discrepancy", Some(order)), "{begins_anew}");
    }
}
