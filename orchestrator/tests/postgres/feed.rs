//! The feed of changes over days that are dropped: whoever comes too late is told so, and nobody else is.

use endstate_events::{
    DomainEvent, Envelope, Input, InputBody, Lane, Message, SCHEMA_VERSION, SagaId, Side, Slot, Topic,
};
use endstate_orchestrator::feed::{FeedError, Position, read};
use endstate_outbox::postgres::Settings;
use endstate_outbox::*;
use std::sync::Arc;

const DAY_MS: i64 = 86_400_000;
const SHARD: ShardId = ShardId { side: Side::Orchestrator, index: 1 };

static MAKE_DAY: Statement = Statement {
    name: "test.make_day",
    columns: &[Kind::Int],
    sql: "with r(day) as ({rows}) select endstate_partition('outbox', r.day)::int4::int8 from r",
};

/// All that was sent so far was sent then.
static MOVE: Statement = Statement {
    name: "test.move",
    columns: &[Kind::Int],
    sql: "with r(time_ms) as ({rows}) update outbox set time_ms = r.time_ms from r",
};

fn message(topic: Topic, n: u64) -> Outgoing {
    let saga = SagaId::mint(1_700_000_000_000, Slot::of("s"), n);
    let message = match topic == Topic::Events {
        true => Message::Domain(DomainEvent {
            saga,
            definition: "d".into(),
            number: n.to_string(),
            version: 1,
            status: "created".into(),
            before: String::new(),
            outcome: None,
            reason: None,
        }),
        false => {
            let body = InputBody::Event { name: "e".into(), data: serde_json::Value::Null };
            Message::Input(Input { saga, body })
        }
    };
    let (id, key) = (n.to_string(), saga.to_string());
    let envelope = Envelope { id, schema: SCHEMA_VERSION, time_ms: 0, key, lane: Lane::Live, message };
    Outgoing { topic, partition: 1, envelope: Arc::new(envelope) }
}

/// One batch, published at once.
async fn send(store: &PostgresStore, owner: &mut Assignment, topic: Topic, numbers: std::ops::Range<u64>) {
    let messages: Vec<Outgoing> = numbers.map(|n| message(topic, n)).collect();
    let next_outbox_seq = owner.next_outbox_seq + messages.len() as i64;
    let messages = Parcel::pack(messages, |_, _| Ok(())).unwrap();
    let fence = Fence { next_outbox_seq, ..Fence::still(*owner) };
    store.commit(Commit { fences: vec![fence], messages, ..Commit::default() }).await.unwrap();
    *owner = fence.after();
    let fence = Fence { published_seq: next_outbox_seq, ..Fence::still(*owner) };
    store.commit(Commit { fences: vec![fence], ..Commit::default() }).await.unwrap();
    *owner = fence.after();
}

async fn drop_all_days(store: &PostgresStore) {
    let old_ms = SystemClock.now_ms() - 30 * DAY_MS;
    store.read(&MAKE_DAY, Rows::one([old_ms.div_euclid(DAY_MS).into()])).await.unwrap();
    let writes = vec![Write::any(&MOVE, Rows::one([old_ms.into()]))];
    store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
    assert_eq!(store.drop_old_days(7, 7).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_reader_of_changes_is_told_of_dropped_days_unless_it_missed_nothing() {
    let store = fresh("days").await;
    let mut owner = store.assign(SHARD).await.unwrap();
    let begin = Position::oldest(&*store).await.unwrap();
    send(&store, &mut owner, Topic::Events, 0..6).await;
    send(&store, &mut owner, Topic::Commands, 0..3).await;
    let (changes, slow) = read(&*store, &begin, 4).await.unwrap();
    assert_eq!(changes.len(), 4);
    let (changes, quick) = read(&*store, &begin, 100).await.unwrap();
    assert_eq!(changes.len(), 6);
    drop_all_days(&store).await;
    // Nothing at all is kept, and the slow one hears of it at once.
    let gone = read(&*store, &slow, 10).await.unwrap_err();
    assert!(matches!(gone, FeedError::Gone { partition: 1, wanted: 5, oldest: 10 }), "{gone}");
    assert!(read(&*store, &quick, 10).await.unwrap().0.is_empty(), "what it did not read was for others");
    send(&store, &mut owner, Topic::Commands, 3..5).await;
    send(&store, &mut owner, Topic::Events, 6..8).await;
    let (changes, quick) = read(&*store, &quick, 10).await.unwrap();
    assert_eq!(changes.iter().map(|change| change.number.as_str()).collect::<Vec<_>>(), ["6", "7"]);
    assert!(matches!(read(&*store, &slow, 10).await, Err(FeedError::Gone { .. })));
    // Whoever begins anew gets what there is.
    let oldest = Position::oldest(&*store).await.unwrap();
    assert_eq!(read(&*store, &oldest, 10).await.unwrap().0.len(), 2);
    // Only others' messages for days, and then they are dropped: a reader that looks from time to time misses nothing.
    send(&store, &mut owner, Topic::Commands, 5..9).await;
    let (changes, quick) = read(&*store, &quick, 10).await.unwrap();
    assert!(changes.is_empty());
    drop_all_days(&store).await;
    assert!(read(&*store, &quick, 10).await.unwrap().0.is_empty());
}

async fn numbers(store: &PostgresStore, place: &Position) -> (Vec<String>, Position) {
    let (changes, next) = read(store, place, 100).await.unwrap();
    (changes.into_iter().map(|change| change.number).collect(), next)
}

/// What was sent from a number on is gone.
static LOSE: Statement = Statement {
    name: "test.lose",
    columns: &[Kind::Int],
    sql: "with r(seq) as ({rows}) delete from outbox where seq >= (select r.seq from r)",
};
static BACK: Statement = Statement {
    name: "test.back",
    columns: &[Kind::Int],
    sql: "with r(seq) as ({rows}) update shard set next_outbox_seq = r.seq, published_seq = r.seq from r",
};
/// As the first assignment of an era does it.
static ERA: Statement = Statement {
    name: "test.era",
    columns: &[Kind::Int],
    sql: "with r(era) as ({rows}) update shard set epoch = (r.era << 32) + 1, era_outbox_seq = next_outbox_seq from r",
};

/// A store of four partitions that nobody owns.
async fn fresh(name: &str) -> Arc<PostgresStore> {
    let server = std::env::var("ENDSTATE_TEST_POSTGRES").expect(
        "ENDSTATE_TEST_POSTGRES names no server; bring one along: \
         scripts/services run --only postgres -- cargo test --workspace --test postgres",
    );
    let (server, _) = server.rsplit_once('/').unwrap();
    let url = format!("{server}/test_feed_{name}_{}", std::process::id());
    PostgresStore::migrate(&url).await.unwrap();
    PostgresStore::open(&Settings { partitions: 4, connections: 4, ..Settings::new(&url) }).await.unwrap()
}

async fn run(store: &PostgresStore, statements: &[&'static Statement], n: i64) {
    let writes = statements.iter().map(|statement| Write::any(statement, Rows::one([n.into()]))).collect();
    store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
}

/// What was told is gone, and others have its numbers: a reader who has seen it is told of those, too.
#[tokio::test]
async fn z14_a_reader_of_changes_misses_nothing_behind_a_standby_that_lacked_what_it_was_told() {
    let store = fresh("era").await;
    let mut owner = store.assign(SHARD).await.unwrap();
    let begin = Position::oldest(&*store).await.unwrap();
    send(&store, &mut owner, Topic::Events, 0..4).await;
    let (_, slow) = read(&*store, &begin, 2).await.unwrap();
    send(&store, &mut owner, Topic::Events, 4..7).await;
    let (told, quick) = numbers(&store, &begin).await;
    assert_eq!(told.len(), 7);
    // The standby lacks a second of it.
    run(&store, &[&LOSE, &BACK], 5).await;
    assert!(numbers(&store, &quick).await.0.is_empty(), "nobody has the shard yet");
    run(&store, &[&ERA], 1).await;
    let mut owner = store.assign(SHARD).await.unwrap();
    send(&store, &mut owner, Topic::Events, 10..12).await;
    let (told, quick) = numbers(&store, &quick).await;
    assert_eq!(told, ["10", "11"], "both have numbers that it has seen");
    assert_eq!(numbers(&store, &slow).await.0, ["2", "3", "10", "11"]);
    send(&store, &mut owner, Topic::Events, 12..14).await;
    assert_eq!(numbers(&store, &quick).await.0, ["12", "13"], "each once from then on");
    assert_eq!(Position::decode(&quick.encode(), 4).unwrap(), quick);
    // Of a place two eras ago nobody knows what is there: it begins with what is kept.
    run(&store, &[&ERA], 2).await;
    assert_eq!(numbers(&store, &quick).await.0, ["12", "13"]);
    let told = read(&*store, &slow, 100).await;
    assert!(matches!(told, Err(FeedError::Gone { partition: 1, .. })), "{told:?}");
    let oldest = Position::oldest(&*store).await.unwrap();
    assert_eq!(numbers(&store, &oldest).await.0.len(), 8);
}

/// A long backlog of yesterday and today: the first row over and over.
static REPEAT: Statement = Statement {
    name: "test.repeat",
    columns: &[Kind::Int],
    sql: "with r(rows) as ({rows}) insert into outbox (side, shard, seq, topic, partition, messages, time_ms, body) \
          select o.side, o.shard, o.seq + n, o.topic, o.partition, o.messages, \
          o.time_ms - case when n * 2 <= r.rows then 86400000 else 0 end, o.body \
          from r cross join outbox o cross join lateral generate_series(1, r.rows) n where o.seq = 1",
};
static ANALYZE: Statement = Statement { name: "test.analyze", columns: &[], sql: "analyze outbox" };

/// Rows of the outbox that the statement of a page looks at.
async fn rows_read(store: &PostgresStore, from: i64, page: i64) -> (i64, String) {
    let statements = endstate_orchestrator::statements();
    let load = statements.iter().find(|statement| statement.name == "feed.read_events").unwrap();
    let sql = format!("explain (analyze, timing off, summary off) {}", load.sql).leak();
    let explain = Box::leak(Box::new(Statement { name: "test.explain", columns: load.columns, sql }));
    let row = [Topic::Events.label().into(), 1.into(), from.into(), page.into()];
    let rows = store.read(explain, Rows::one(row)).await.unwrap();
    let lines: Vec<&str> = rows.iter().filter_map(|row| row[0].text()).collect();
    let number = |line: &str, name: &str| -> i64 {
        let (_, rest) = line.split_once("(actual ").unwrap_or_default();
        let (_, rest) = rest.split_once(name).unwrap_or_default();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    };
    let scans = lines.iter().filter(|line| line.contains("Scan") && line.contains("on outbox"));
    (scans.map(|line| number(line, "rows=") * number(line, "loops=")).sum(), lines.join("\n"))
}

#[tokio::test]
async fn a_page_of_changes_reads_a_page_however_far_behind_the_reader_is() {
    let store = fresh("page").await;
    let mut owner = store.assign(SHARD).await.unwrap();
    send(&store, &mut owner, Topic::Events, 0..1).await;
    let yesterday = SystemClock.now_ms().div_euclid(DAY_MS) - 1;
    store.read(&MAKE_DAY, Rows::one([yesterday.into()])).await.unwrap();
    run(&store, &[&REPEAT], 10_000).await;
    run(&store, &[&BACK], 10_002).await;
    store.read(&ANALYZE, Rows::one([])).await.unwrap();
    for from in [1, 100, 4_990, 9_000] {
        let (read, plan) = rows_read(&store, from, 32).await;
        assert!(read < 400, "{read} rows for 32 from {from} on:\n{plan}");
    }
    let (mut place, mut count) = (Position::oldest(&*store).await.unwrap(), 0);
    loop {
        let (changes, next) = read(&*store, &place, 1_000).await.unwrap();
        if changes.is_empty() {
            break;
        }
        (place, count) = (next, count + changes.len());
    }
    assert_eq!(count, 10_001, "and none is left out");
}

/// A reader may be there before the shards are.
#[tokio::test]
async fn a_reader_that_comes_before_a_partition_has_an_owner_misses_nothing_of_it() {
    for era in [0, 2] {
        let store = fresh(&format!("early_{era}")).await;
        let early = Position::oldest(&*store).await.unwrap();
        assert!(read(&*store, &early, 10).await.unwrap().0.is_empty());
        let mut owner = store.assign(SHARD).await.unwrap();
        if era > 0 {
            run(&store, &[&ERA], era).await;
            owner = store.assign(SHARD).await.unwrap();
        }
        send(&store, &mut owner, Topic::Events, 0..3).await;
        let (told, next) = numbers(&store, &early).await;
        assert_eq!(told, ["0", "1", "2"], "era {era}");
        // What older programs gave to one that was as early.
        let zeros = Position::decode(&"A".repeat(43), 4).unwrap();
        assert_eq!(numbers(&store, &zeros).await.0, ["0", "1", "2"], "era {era}");
        assert!(numbers(&store, &next).await.0.is_empty());
    }
}
