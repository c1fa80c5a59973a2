//! A topic of another team: where it is begun, who has a use for its events, and what becomes of those that nobody can take.

use crate::system::{System, done, source};
use async_trait::async_trait;
use endstate_events::{Envelope, ForeignEvent, ForeignTopic, Lane, Message, SCHEMA_VERSION, Topic};
use endstate_orchestrator::definitions::Definitions;
use endstate_orchestrator::listen::Listener;
use endstate_outbox::*;
use endstate_saga::definition::Source;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A topic of theirs beside our own ones.
struct Theirs {
    inner: Arc<dyn Bus>,
    /// The records of its partitions.
    records: Mutex<Vec<Vec<ForeignEvent>>>,
    /// Where partitions were begun.
    begun: Mutex<BTreeMap<u16, i64>>,
}

impl Theirs {
    /// One with two partitions.
    fn beside(system: &System) -> Arc<Self> {
        let records = Mutex::new(vec![Vec::new(), Vec::new()]);
        Arc::new(Self { inner: system.bus.clone(), records, begun: Mutex::default() })
    }

    fn tell(&self, partition: usize, id: &str, kind: &str, subject: Option<&str>, data: &str) {
        let event = ForeignEvent {
            source: "/shop".to_owned(),
            id: id.to_owned(),
            kind: kind.to_owned(),
            subject: subject.map(str::to_owned),
            teller: None,
            data: data.to_owned(),
        };
        self.records.lock().unwrap()[partition].push(event);
    }

    async fn begun(&self, partitions: usize) -> BTreeMap<u16, i64> {
        loop {
            let begun = self.begun.lock().unwrap().clone();
            if begun.len() >= partitions {
                return begun;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Bus for Theirs {
    async fn produce(&self, messages: Vec<Outgoing>) -> Result<(), BusError> {
        self.inner.produce(messages).await
    }

    fn consumer(&self, topic: Topic, partition: u16, position: i64) -> Box<dyn Consumer> {
        if !matches!(topic, Topic::Foreign(_)) {
            return self.inner.consumer(topic, partition, position);
        }
        self.begun.lock().unwrap().insert(partition, position);
        let records = self.records.lock().unwrap()[usize::from(partition)].clone();
        let delivered = |(offset, event): (usize, ForeignEvent)| {
            let (id, key, message) = (event.id.clone(), event.id.clone(), Message::Foreign(event));
            let envelope = Envelope { id, schema: SCHEMA_VERSION, time_ms: 1, key, lane: Lane::Test, message };
            Delivered {
                topic,
                offset: offset as i64,
                next: offset as i64 + 1,
                envelope: Ok(envelope.into()),
                bytes: 1,
                record: 0,
            }
        };
        let from = usize::try_from(position).unwrap();
        Box::new(Fixed(records.into_iter().enumerate().skip(from).map(delivered).collect()))
    }

    async fn reach(&self, _: ForeignTopic, _: Option<u16>) -> Result<u16, BusError> {
        Ok(u16::try_from(self.records.lock().unwrap().len()).unwrap())
    }

    async fn edges(&self, _: ForeignTopic, partition: u16) -> Result<(i64, i64), BusError> {
        Ok((0, self.records.lock().unwrap()[usize::from(partition)].len() as i64))
    }
}

/// Records that are there, and none after them.
struct Fixed(VecDeque<Delivered>);

#[async_trait]
impl Consumer for Fixed {
    async fn take(&mut self, limit: usize) -> Result<Vec<Delivered>, StoreError> {
        Ok(self.0.drain(..limit.min(self.0.len())).collect())
    }

    fn at_end(&self) -> bool {
        self.0.is_empty()
    }

    async fn ready(&mut self) {
        if self.0.is_empty() {
            std::future::pending::<()>().await;
        }
    }
}

fn topic() -> ForeignTopic {
    ForeignTopic::named("shop.orders").unwrap()
}

/// A listener over these definitions, and how it is told what it owns.
fn listener(
    system: &System,
    theirs: &Arc<Theirs>,
    definitions: &Arc<Definitions>,
    from_beginning: bool,
) -> (watch::Sender<BTreeSet<u16>>, CancellationToken) {
    let gateway = endstate_orchestrator::gateway::Gateway::new(
        system.store.clone(),
        theirs.clone(),
        system.clock.clone(),
        definitions.clone(),
        system.waiters.clone(),
    );
    let (owned, owns) = watch::channel(BTreeSet::from([0, 1]));
    let stop = CancellationToken::new();
    let listening = Listener::new(gateway, topic(), Some("shop".to_owned()), from_beginning);
    tokio::spawn(listening.run(owns, stop.clone()));
    (owned, stop)
}

/// A definition that starts on an event, and waits for another.
fn shop_order() -> Source {
    let text = r"
saga: shop_order
version: 1
input: schemas/shop_order.v1.json
number: =input.order_no
key: =input.order_no
starts_on:
  shop.placed:
    with: { order_no: =event.order_no }
stages:
  - stage: approve
    status: waiting
    wait: { event: shop.approved, within: 1h, at_deadline: { cancel: late } }
cancel: { late: { role: deadline } }
ends: { completed: approved, cancelled: closed, forced: closed }
";
    let catalogue = r#"
shop:
  transport: { http: { url: "http://127.0.0.1:7999", timeout_ms: 2000 } }
  actions: {}
  events:
    placed:
      schema: { type: object, required: [order_no], properties: { order_no: { type: string } } }
      example: { order_no: S-1 }
    approved:
      schema: { type: object }
      example: {}
"#;
    let schema = json!({
        "type": "object", "required": ["order_no"], "additionalProperties": false,
        "properties": { "order_no": { "type": "string" } },
    });
    Source {
        file: "shop_order.yaml".to_owned(),
        text: text.to_owned(),
        schemas: [("schemas/shop_order.v1.json".to_owned(), schema.to_string())].into(),
        samples: [("ok.json".to_owned(), json!({ "input": { "order_no": "S-1" } }).to_string())].into(),
        catalogues: [("catalogue/shop.yaml".to_owned(), catalogue.to_owned())].into(),
        siblings: Default::default(),
    }
}

/// Lets shards work until a saga has this number.
async fn started(system: &mut System, number: &str) -> endstate_events::SagaId {
    loop {
        system.run_until_idle().await;
        if let Some(saga) = system.gateway().find("shop_order", number).await.unwrap() {
            return saga;
        }
        tokio::task::yield_now().await;
    }
}

async fn letters(system: &System, count: usize) -> Vec<String> {
    loop {
        let letters = dead_letter::list(&*system.store, 0, 10).await.unwrap();
        if letters.len() >= count {
            return letters.into_iter().map(|stored| stored.letter.reason).collect();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_partition_that_was_added_since_begins_with_its_first_record() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::open(folder.path(), 100).await;
    let theirs = Theirs::beside(&system);
    for (partition, id) in [(0, "a"), (1, "b"), (1, "c")] {
        theirs.tell(partition, id, "shop.sneezed", None, "{}");
    }
    let (owned, stop) = listener(&system, &theirs, &system.definitions, false);
    assert_eq!(theirs.begun(2).await, [(0, 1), (1, 2)].into(), "at the ends that they had");
    theirs.records.lock().unwrap().push(Vec::new());
    theirs.tell(2, "d", "shop.sneezed", None, "{}");
    owned.send_replace(BTreeSet::from([0, 1, 2]));
    assert_eq!(theirs.begun(3).await[&2], 0, "before it was noticed, it was written to");
    stop.cancel();
    // Another process knows it as well.
    theirs.begun.lock().unwrap().clear();
    theirs.records.lock().unwrap().push(Vec::new());
    theirs.tell(3, "e", "shop.sneezed", None, "{}");
    let (owned, _stop) = listener(&system, &theirs, &system.definitions, false);
    owned.send_replace(BTreeSet::from([0, 3]));
    assert_eq!(theirs.begun(2).await[&3], 0);
}

#[tokio::test]
async fn an_event_finds_the_definition_that_another_process_has_just_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 100).await;
    let elsewhere = Definitions::open(system.store.clone()).await.unwrap();
    system.definitions.load(&shop_order(), 0).await.unwrap();
    let theirs = Theirs::beside(&system);
    theirs.tell(0, "e-1", "shop.placed", None, r#"{"order_no":"S-1"}"#);
    let _listening = listener(&system, &theirs, &elsewhere, true);
    started(&mut system, "S-1").await;
}

#[tokio::test]
async fn an_event_that_may_start_what_this_program_cannot_read_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::open(folder.path(), 100).await;
    system.definitions.load(&shop_order(), 0).await.unwrap();
    let elsewhere = Definitions::open(system.store.clone()).await.unwrap();
    let newer = Source { text: shop_order().text.replacen("version: 1", "version: 2", 1), ..shop_order() };
    system.definitions.load(&newer, 0).await.unwrap();
    system.definitions.activate("shop_order", 2, 0).await.unwrap();
    crate::hazards::damage_definition(&system, "shop_order").await;
    elsewhere.refresh().await.unwrap();
    let theirs = Theirs::beside(&system);
    theirs.tell(0, "e-1", "shop.placed", None, r#"{"order_no":"S-1"}"#);
    let _listening = listener(&system, &theirs, &elsewhere, true);
    assert!(letters(&system, 1).await[0].contains("version 2 of `shop_order`"));
}

#[tokio::test]
async fn a_saga_that_this_program_cannot_read_keeps_no_other_events_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 100).await;
    for source in [source("bench_saga"), shop_order()] {
        system.definitions.load(&source, 0).await.unwrap();
    }
    let unread = system.begin("bench_saga", json!({ "number": "B-1", "fail_at": "" })).await;
    system.tell(unread, "r-1", done(unread, "reserve")).await;
    crate::hazards::damage_definition(&system, "bench_saga").await;
    let elsewhere = Definitions::open(system.store.clone()).await.unwrap();
    let theirs = Theirs::beside(&system);
    theirs.tell(0, "e-1", "shop.approved", Some("bench_saga/B-1"), "{}");
    theirs.tell(0, "e-2", "shop.placed", None, r#"{"order_no":"S-1"}"#);
    let (_owned, stop) = listener(&system, &theirs, &elsewhere, true);
    let saga = started(&mut system, "S-1").await;
    assert!(letters(&system, 1).await[0].contains("E3003"));
    stop.cancel();

    // And one whose row nobody can read.
    static DAMAGE: Statement = Statement {
        name: "test.damage_row",
        columns: &[Kind::Id, Kind::Text],
        sql: "with r(id, state) as ({rows}) update saga set state = r.state from r where saga.id = r.id",
    };
    let writes = vec![Write::exact(&DAMAGE, Rows::one([saga.0.into(), r#"{"odd":1}"#.into()]))];
    system.store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
    theirs.tell(0, "e-3", "shop.approved", Some("shop_order/S-1"), "{}");
    theirs.tell(0, "e-4", "shop.placed", None, r#"{"order_no":"S-2"}"#);
    let _listening = listener(&system, &theirs, &elsewhere, true);
    started(&mut system, "S-2").await;
    assert!(letters(&system, 2).await[1].contains("E3003"));
}

/// A store that writes down which numbers of sagas were looked for.
struct Asked {
    inner: Arc<dyn Store>,
    numbers: Mutex<Vec<String>>,
}

#[async_trait]
impl Store for Asked {
    async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
        if statement.name == "saga_number.load" {
            let text = format!("{rows:?}");
            self.numbers.lock().unwrap().extend((1..=4).map(|n| format!("X-{n}")).filter(|n| text.contains(n)));
        }
        self.inner.read(statement, rows).await
    }

    async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
        self.inner.assign(shard).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
        self.inner.commit(commit).await
    }

    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }
}

#[tokio::test]
async fn events_whose_sagas_are_not_there_yet_wait_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 100).await;
    system.definitions.load(&shop_order(), 0).await.unwrap();
    let theirs = Theirs::beside(&system);
    for n in 1..=4 {
        theirs.tell(0, &format!("a-{n}"), "shop.approved", Some(&format!("shop_order/X-{n}")), "{}");
        theirs.tell(0, &format!("b-{n}"), "shop.approved", Some(&format!("shop_order/X-{n}")), "{}");
        theirs.tell(0, &format!("s-{n}"), "shop.placed", None, &format!(r#"{{"order_no":"S-{n}"}}"#));
    }
    let asked = Arc::new(Asked { inner: system.store.clone(), numbers: Mutex::default() });
    let gateway = endstate_orchestrator::gateway::Gateway::new(
        asked.clone(),
        theirs.clone(),
        system.clock.clone(),
        system.definitions.clone(),
        system.waiters.clone(),
    );
    let (_owned, owns) = watch::channel(BTreeSet::from([0]));
    tokio::spawn(Listener::new(gateway, topic(), Some("shop".to_owned()), true).run(owns, CancellationToken::new()));
    // What has its saga, or needs none, goes on at once.
    started(&mut system, "S-4").await;
    assert_eq!(asked.numbers.lock().unwrap()[..4], ["X-1", "X-2", "X-3", "X-4"], "none waits for another");
    for n in 1..=4 {
        let (_, start) = system.start("shop_order", json!({ "order_no": format!("X-{n}") }));
        system.queue(&[start]).await;
    }
    for n in 1..=4 {
        let saga = started(&mut system, &format!("X-{n}")).await;
        while !system.saga(saga).await.unwrap().control.is_ended() {
            tokio::task::yield_now().await;
            system.run_until_idle().await;
        }
        let timeline = endstate_orchestrator::persist::load_timeline(&*system.store, saga).await.unwrap();
        let taken = timeline.into_iter().flat_map(|(_, _, events)| events).find_map(|event| match event.fact {
            endstate_saga::event::Fact::EventTaken { id, .. } => Some(id.to_string()),
            _ => None,
        });
        assert!(taken.unwrap().ends_with(&format!("a-{n}")), "those of one saga keep their order");
    }
    assert!(dead_letter::list(&*system.store, 0, 10).await.unwrap().is_empty());
}
