//! Operators' changes in bulk: what is logged of each line, and what sending it again does.

use crate::store::{System, line};
use crate::world::NOW_MS;
use endstate_events::*;
use endstate_outbox::{Kind, Outgoing, Rows, Statement};
use endstate_participants::operation;
use serde_json::json;

static LOGGED: Statement = Statement {
    name: "test.operation",
    columns: &[Kind::Text],
    sql: "with r(operation) as ({rows}) select o.action, o.verdict from r join operation o on o.operation = r.operation \
          order by o.line",
};

async fn logged(system: &System) -> Vec<(String, String)> {
    let rows = system.store.read(&LOGGED, Rows::one(["opening".into()])).await.unwrap();
    let text = |value: &endstate_outbox::Value| value.text().unwrap().to_owned();
    rows.iter().map(|row| (text(&row[0]), text(&row[1]))).collect()
}

fn logs(lines: &[(&str, &str)]) -> Vec<(String, String)> {
    lines.iter().map(|(action, verdict)| ((*action).to_owned(), (*verdict).to_owned())).collect()
}

#[tokio::test]
async fn an_unknown_line_is_shown_and_is_tried_again_under_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path()).await;
    let opening = [
        line("stock.open", json!({ "unit": "A", "quantity": 10 })),
        line("stock.open", json!({ "unit": "B", "quantity": 5 })),
    ];
    let messages = operation::messages("opening", &opening, Lane::Live, system.store.partitions(), NOW_MS).unwrap();
    // A newer gateway knows an action that this program does not.
    let strange = |(index, sent): (usize, Outgoing)| {
        let mut envelope = (*sent.envelope).clone();
        if let Message::Command(command) = &mut envelope.message
            && index == 1
        {
            command.action = "burn".into();
        }
        Outgoing { envelope: envelope.into(), ..sent }
    };
    let messages = messages.into_iter().enumerate().map(strange).collect();
    system.bus.produce(messages).await.unwrap();
    system.settle().await;
    assert_eq!(logged(&system).await, logs(&[("stock.open", "done"), ("stock.burn", "unknown")]));

    for _ in 0..2 {
        system.operate("opening", &opening).await;
        assert_eq!(logged(&system).await, logs(&[("stock.open", "done"), ("stock.open", "done")]));
    }
    let book = endstate_participants::books::read(&*system.store).await.unwrap();
    let opened: Vec<_> = book.iter().map(|book| (book.asset.as_str(), book.opened)).collect();
    assert_eq!(opened, [("stock:A", 10), ("stock:B", 5)], "each line counts once");
}
