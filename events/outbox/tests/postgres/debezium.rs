//! Status changes for Debezium: in the transaction of the batch that sends them, and only where they are asked for.

use crate::conformance::{SHARD, step};
use crate::database::Database;
use endstate_events::{DomainEvent, Envelope, InquiryAnswer, Lane, Message, SCHEMA_VERSION, SagaId, Slot, Topic};
use endstate_outbox::postgres::Settings;
use endstate_outbox::*;
use sqlx::{Executor as _, Row as _};

fn outgoing(topic: Topic, id: &str, message: Message) -> Outgoing {
    let (time_ms, lane) = (1_700_000_000_123, Lane::Test);
    let envelope = Envelope { id: id.into(), schema: SCHEMA_VERSION, time_ms, key: "k".into(), lane, message };
    Outgoing { topic, partition: 0, envelope: envelope.into() }
}

/// A batch that tells others of two changes, and a shard of something.
fn batch() -> Vec<Outgoing> {
    let saga = SagaId::mint(1, Slot::of("k"), 7);
    let change = |version, status: &str| {
        let event = DomainEvent {
            saga,
            definition: "flash_sale_order".into(),
            number: "N-\u{1f9e7}1".into(),
            version,
            status: status.into(),
            before: String::new(),
            outcome: None,
            reason: Some("a text that jsonb refuses: \0".into()),
        };
        outgoing(Topic::Events, &format!("{saga}:{version}:1"), Message::Domain(event))
    };
    let effect_id = format!("{saga}:hold::do:0").parse().unwrap();
    let told = outgoing(Topic::Progress, "i", Message::Inquired(InquiryAnswer { effect_id, keep: true, known: true }));
    vec![change(1, "created"), told, change(2, "paid")]
}

async fn commit(store: &dyn Store, owner: Assignment) -> Result<Assignment, CommitError> {
    let fence = Fence { next_outbox_seq: owner.next_outbox_seq + 3, ..step(owner) };
    let messages = Parcel::pack(batch(), |_, _| Ok(())).unwrap();
    store.commit(Commit { fences: vec![fence], messages, ..Commit::default() }).await?;
    Ok(fence.after())
}

const READ: &str = "select aggregatetype, aggregateid, type, \"timestamp\"::text, lane, payload, id from debezium_outbox \
                    order by id";

#[tokio::test]
async fn a_status_change_is_a_row_for_debezium_in_the_same_transaction_if_it_is_asked_for() {
    let database = Database::new().await;
    let mut session = database.session("test").await;
    let quiet = database.store().await;
    let owner = commit(&*quiet, quiet.assign(SHARD).await.unwrap()).await.unwrap();
    assert!(session.fetch_all(READ).await.unwrap().is_empty(), "off, it costs nothing");
    let days = "select count(*) from pg_inherits where inhparent = 'debezium_outbox'::regclass";
    assert_eq!(session.fetch_one(days).await.unwrap().get::<i64, _>(0), 0, "not even days");

    let store = PostgresStore::open(&Settings { debezium: true, ..database.settings() }).await.unwrap();
    assert_eq!(session.fetch_one(days).await.unwrap().get::<i64, _>(0), 8, "today and seven days");
    let after = commit(&*store, owner).await.unwrap();
    assert!(matches!(commit(&*store, owner).await, Err(CommitError::Fenced(_))), "{after:?}");
    let rows = session.fetch_all(READ).await.unwrap();
    assert_eq!(rows.len(), 2, "what other topics get is not theirs, and a batch that is taken back writes nothing");
    for (row, (version, status)) in rows.iter().zip([(1, "created"), (2, "paid")]) {
        let head: [String; 5] = std::array::from_fn(|column| row.get(column));
        let time = "2023-11-14 22:13:20.123";
        assert_eq!(head, ["flash_sale_order", "N-\u{1f9e7}1", "endstate.domain", time, "test"]);
        let payload: serde_json::Value = serde_json::from_str(row.get(5)).unwrap();
        assert_eq!((&payload["version"], &payload["status"]), (&version.into(), &status.into()), "{payload}");
        assert!(row.get::<String, _>(6).ends_with(&format!(":{version}:1")));
    }
}

#[tokio::test]
async fn days_of_what_debezium_gets_are_dropped_whoever_has_read_them() {
    let database = Database::new().await;
    let store = PostgresStore::open(&Settings { debezium: true, ..database.settings() }).await.unwrap();
    commit(&*store, store.assign(SHARD).await.unwrap()).await.unwrap();
    let mut session = database.session("test").await;
    let day = (SystemClock.now_ms() / 86_400_000) - 9;
    let make = format!("select endstate_partition('debezium_outbox', {day})");
    session.execute(sqlx::AssertSqlSafe(make)).await.unwrap();
    // Setting it off leaves nothing behind for ever.
    let quiet = database.store().await;
    let gone = quiet.drop_old_days(7, 7).await.unwrap();
    assert_eq!(gone.len(), 1, "{gone:?}");
    assert!(gone[0].starts_with("debezium_outbox_"), "{gone:?}");
    assert_eq!(session.fetch_all(READ).await.unwrap().len(), 2, "today's stay");
}
