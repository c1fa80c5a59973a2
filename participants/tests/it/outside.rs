//! Calls to outside parties: the whole way from a command over the shard, the caller and HTTP, back to the saga.

use crate::store::System;
use crate::world::*;
use async_trait::async_trait;
use endstate_events::*;
use endstate_http::Trust;
use endstate_outbox::Outgoing;
use endstate_participants::caller::{Caller, Directory, Limits, Outside};
use endstate_participants::notify::{FileChannel, Notify};
use endstate_participants::outside::{HttpParticipant, Outsides};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// An outside party that does what it is told, and remembers how it was called.
#[derive(Default)]
struct Scripted {
    seen: Mutex<Vec<String>>,
    /// Answers of `ask`; `make` is always done.
    known: Option<Verdict>,
    delay: Duration,
}

#[async_trait]
impl Outside for Scripted {
    async fn make(&self, command: &Command, _: Lane) -> Verdict {
        tokio::time::sleep(self.delay).await;
        self.seen.lock().unwrap().push(format!("make {}", command.effect_id));
        Verdict::Done { data: json!({ "made": true }) }
    }
    async fn ask(&self, command: &Command, _: Lane) -> Verdict {
        self.seen.lock().unwrap().push(format!("ask {}", command.effect_id));
        let made = self.seen.lock().unwrap().contains(&format!("make {}", command.effect_id));
        let never = if made { Verdict::Done { data: json!({ "made": true }) } } else { Verdict::NeverSeen };
        self.known.clone().unwrap_or(never)
    }
}

struct One(Arc<dyn Outside>);

impl Directory for One {
    fn find(&self, command: &Command) -> Option<Arc<dyn Outside>> {
        (command.participant != "nobody").then(|| self.0.clone())
    }
}

/// Looks for answers at most: each reads the table, and so takes its time.
const LOOKS: u32 = 100_000;

/// Runs what the system wants called, until it is answered, and books the answers.
async fn call_all(system: &mut System, outside: Arc<dyn Outside>) {
    call_within(system, outside, Limits::default()).await;
}

async fn call_within(system: &mut System, outside: Arc<dyn Outside>, limits: Limits) {
    let (sender, requests) = mpsc::channel(1_000);
    let mut open = 0;
    while let Ok(request) = system.calls.try_recv() {
        open += request.calls.len();
        sender.send(request).await.unwrap();
    }
    let stop = CancellationToken::new();
    let directory = Arc::new(One(outside));
    let caller = Caller::new(directory, system.bus.clone(), system.clock.clone(), requests);
    // Counted first: an answer that is there before it is counted would be waited for in vain.
    let before = answers(system).await;
    let running = tokio::spawn(caller.within(limits).run(stop.clone()));
    let mut looks = 0;
    loop {
        let answered = answers(system).await - before;
        if answered >= open {
            break;
        }
        assert!(looks < LOOKS, "only {answered} of {open} calls were answered");
        looks += 1;
        tokio::task::yield_now().await;
    }
    stop.cancel();
    running.await.unwrap();
    // The embedded store shows an answer in its table a moment before the bus tells its shard of it. What is queued after
    // it is acknowledged after that, too.
    system.bus.produce(vec![nothing()]).await.unwrap();
    system.settle().await;
}

/// A message that nobody here reads.
fn nothing() -> Outgoing {
    let (definition, number, status) = ("test".into(), "n".into(), "s".into());
    let event = DomainEvent {
        saga: saga(0),
        definition,
        number,
        version: 1,
        status,
        before: String::new(),
        outcome: None,
        reason: None,
    };
    let (id, key, message) = ("nothing".to_owned(), String::new(), Message::Domain(event));
    let envelope = Envelope { id, schema: SCHEMA_VERSION, time_ms: NOW_MS, key, lane: Lane::Live, message };
    Outgoing { topic: Topic::Events, partition: 0, envelope: envelope.into() }
}

/// How many answers of outside parties are queued so far.
async fn answers(system: &System) -> usize {
    let mut count = 0;
    for partition in 0..system.store.partitions() {
        let mut consumer = system.bus.consumer(Topic::Commands, partition, 0);
        loop {
            let taken = consumer.take(1000).await.unwrap();
            if taken.is_empty() {
                break;
            }
            let is_answer = |d: &endstate_outbox::Delivered| {
                d.envelope.as_ref().is_ok_and(|envelope| matches!(envelope.message, Message::Answer(_)))
            };
            count += taken.iter().filter(|delivered| is_answer(delivered)).count();
        }
    }
    count
}

async fn told(system: &mut System, outside: Arc<dyn Outside>, command: &Command) -> String {
    system.send(std::slice::from_ref(command)).await;
    system.settle().await;
    call_all(system, outside).await;
    system.replies().await[&command.effect_id.to_string()].last().unwrap().clone()
}

fn wrap(n: u64) -> Command {
    tell(n, "gift_wrap.wrap", "k", json!({ "paper": "gold" }))
}

#[tokio::test]
async fn z08_an_open_call_is_asked_about_after_a_restart_and_repeated_only_if_never_seen() {
    for (known, expected) in [
        (None, vec!["ask", "make"]),
        (Some(Verdict::Done { data: json!({}) }), vec!["ask"]),
        (Some(Verdict::Refused { code: "no".into(), detail: String::new() }), vec!["ask"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        {
            let mut system = System::open(folder.path()).await;
            system.send(&[wrap(1)]).await;
            system.settle().await;
        }
        let mut system = System::open(folder.path()).await;
        system.settle().await;
        let party = Arc::new(Scripted { known: known.clone(), ..Scripted::default() });
        call_all(&mut system, party.clone()).await;
        let seen = party.seen.lock().unwrap().clone();
        let verbs: Vec<_> = seen.iter().filter_map(|call| call.split(' ').next()).collect();
        assert_eq!(verbs, expected);
        assert_eq!(system.replies().await.len(), 1);
    }
}

#[tokio::test]
async fn z08_a_slow_party_holds_up_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path()).await;
    let calls: Vec<_> = (0..100).map(wrap).collect();
    system.send(&calls).await;
    let lines = [crate::store::line("stock.open", json!({ "unit": "A", "quantity": 1 }))];
    system.operate("opening", &lines).await;
    system.send(&[hold_stock(1, "A", 1)]).await;
    system.settle().await;
    assert_eq!(system.replies().await.len(), 1, "stock is answered while a hundred calls are open");
    call_all(&mut system, Arc::new(Scripted { delay: Duration::from_millis(20), ..Scripted::default() })).await;
    assert_eq!(system.replies().await.len(), 101);
}

#[tokio::test]
async fn z20_calls_that_find_no_room_wait_in_their_rows_and_are_made_once() {
    let folder = tempfile::tempdir().unwrap();
    // Room for one hand-over, and for four calls that wait.
    let mut system = System::with_room(folder.path(), 1).await;
    let calls: Vec<_> = (0..200).map(wrap).collect();
    for some in calls.chunks(20) {
        system.send(some).await;
        system.settle().await;
    }
    let requests = std::mem::replace(&mut system.calls, mpsc::channel(1).1);
    let party = Arc::new(Scripted { delay: Duration::from_millis(1), ..Scripted::default() });
    let (stop, limits) = (CancellationToken::new(), Limits { at_once: 2, waiting: 4 });
    let caller = Caller::new(Arc::new(One(party.clone())), system.bus.clone(), system.clock.clone(), requests);
    let running = tokio::spawn(caller.within(limits).run(stop.clone()));
    let mut looks = 0;
    while system.replies().await.len() < 200 {
        assert!(looks < 2_000, "only {} calls were answered", system.replies().await.len());
        looks += 1;
        system.clock.advance(1_000);
        system.settle().await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stop.cancel();
    running.await.unwrap();
    let made = party.seen.lock().unwrap().iter().filter(|call| call.starts_with("make")).count();
    assert_eq!(made, 200, "each once");
}

/// An outside party whose code panics over its first call.
#[derive(Default)]
struct Stumbling {
    inner: Scripted,
    stumbled: AtomicBool,
}

#[async_trait]
impl Outside for Stumbling {
    async fn make(&self, command: &Command, lane: Lane) -> Verdict {
        assert!(self.stumbled.swap(true, Relaxed), "this panic belongs to the test");
        self.inner.make(command, lane).await
    }
    async fn ask(&self, command: &Command, lane: Lane) -> Verdict {
        self.inner.ask(command, lane).await
    }
}

#[tokio::test]
async fn a_call_that_panics_is_unknown_and_leaves_its_place_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path()).await;
    system.send(&[wrap(1), wrap(2), wrap(3)]).await;
    system.settle().await;
    call_within(&mut system, Arc::new(Stumbling::default()), Limits { at_once: 1, waiting: 10 }).await;
    let replies = system.replies().await;
    let mut said: Vec<&str> = replies.values().flatten().map(String::as_str).collect();
    said.sort_unstable();
    assert_eq!(said, ["done", "done", "unknown"]);
}

#[tokio::test]
async fn a_participant_that_is_not_in_the_catalogue_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path()).await;
    let command = tell(1, "nobody.act", "k", json!({}));
    assert_eq!(told(&mut system, Arc::new(Scripted::default()), &command).await, "unknown");
}

#[tokio::test]
async fn messages_to_people_go_to_a_file_by_default() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path()).await;
    let file = folder.path().join("messages.ndjson");
    let notify = Arc::new(Notify::new(FileChannel::open(&file).unwrap()));
    let send = tell(1, "notify.send", "ann", json!({ "user": "ann", "template": "order_paid" }));
    assert_eq!(told(&mut system, notify.clone(), &send).await, "done");
    let strange = tell(2, "notify.send", "ann", json!({ "user": "ann", "template": "t", "channel": "pigeon" }));
    assert_eq!(told(&mut system, notify, &strange).await, "notify.rejected");
    let text = std::fs::read_to_string(file).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("order_paid"), "{text}");
}

/// The tutorial's participant, as a process.
struct GiftWrap(Child, String);

impl GiftWrap {
    fn start(folder: &Path) -> Option<Self> {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorial/gift_wrap.py");
        let mut python = std::process::Command::new("python3");
        python.arg(script).arg("0").arg(folder.join("gift_wrap.db"));
        let mut child = python.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
        let url = line.rsplit(' ').next()?.trim().to_owned();
        Some(Self(child, url))
    }

    fn participant(&self) -> Arc<HttpParticipant> {
        Arc::new(HttpParticipant::new(&self.1, Duration::from_secs(5), &Trust::system()).unwrap())
    }
}

impl Drop for GiftWrap {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_tutorials_participant_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let Some(gift_wrap) = GiftWrap::start(folder.path()) else {
        eprintln!("skipped: there is no python3 on this machine");
        return;
    };
    let party = gift_wrap.participant();
    // The participant alone: done once, asked, undone, undone before done, refused, unknown paths.
    let first = party.make(&wrap(1), Lane::Live).await;
    assert!(matches!(&first, Verdict::Done { data } if data["tag"].is_string()), "{first:?}");
    assert_eq!(party.make(&wrap(1), Lane::Live).await, first);
    assert_eq!(party.ask(&wrap(1), Lane::Live).await, first);
    assert_eq!(party.ask(&wrap(2), Lane::Live).await, Verdict::NeverSeen);
    let unwrapped = party.make(&undo("unwrap", &wrap(1)), Lane::Live).await;
    assert_eq!(party.make(&undo("unwrap", &wrap(1)), Lane::Live).await, unwrapped);
    party.make(&undo("unwrap", &wrap(3)), Lane::Live).await;
    let late = party.make(&wrap(3), Lane::Live).await;
    assert_eq!(late, Verdict::Refused { code: "released_before".into(), detail: String::new() });
    assert!(matches!(
        party.make(&tell(4, "gift_wrap.burn", "k", json!({})), Lane::Live).await,
        Verdict::Unknown { .. }
    ));
    // The same id with another body is a conflict, and changes nothing.
    let other = Command { with: json!({ "paper": "red" }), ..wrap(5) };
    let fifth = party.make(&wrap(5), Lane::Live).await;
    assert!(matches!(party.make(&other, Lane::Live).await, Verdict::Unknown { .. }));
    assert_eq!(party.make(&wrap(5), Lane::Live).await, fifth);
    assert_eq!(party.ask(&wrap(5), Lane::Live).await, fifth);
    party.make(&undo("unwrap", &wrap(5)), Lane::Live).await;
    // A command that it stumbles over is unknown, leaves nothing behind, and does not stop the next.
    let broken = Command { with: json!({}), ..wrap(6) };
    assert!(matches!(party.make(&broken, Lane::Live).await, Verdict::Unknown { .. }));
    assert_eq!(party.ask(&broken, Lane::Live).await, Verdict::NeverSeen);
    // Ids are percent-encoded in addresses, and no two gifts have one tag.
    let strange = EffectId { item: "no. 1/ä%2F".into(), ..wrap(6).effect_id };
    let strange = Command { effect_id: strange, ..wrap(6) };
    let sixth = party.make(&strange, Lane::Live).await;
    assert!(matches!(&sixth, Verdict::Done { .. }) && sixth != fifth && sixth != first, "{sixth:?}");
    assert_eq!(party.ask(&strange, Lane::Live).await, sixth);
    for n in 100..109 {
        assert!(matches!(party.make(&wrap(n), Lane::Live).await, Verdict::Done { .. }));
    }
    let none_left = Verdict::Refused { code: "gift_wrap.no_paper".into(), detail: String::new() };
    assert_eq!(party.make(&wrap(200), Lane::Live).await, none_left);

    // And from a saga's command to its reply.
    let mut system = System::open(&folder.path().join("data")).await;
    assert_eq!(told(&mut system, party.clone(), &undo("unwrap", &wrap(100))).await, "done");
    assert_eq!(told(&mut system, party.clone(), &wrap(201)).await, "done");
    assert_eq!(told(&mut system, party.clone(), &wrap(202)).await, "gift_wrap.no_paper");
    drop(gift_wrap);
    assert_eq!(told(&mut system, party, &wrap(203)).await, "unknown", "nobody listens");
}

#[test]
fn a_participant_is_kept_by_its_address_and_wrong_addresses_are_refused() {
    let none: Arc<dyn Outside> = Arc::new(Scripted::default());
    let outsides = Outsides::new(none.clone(), none, Trust::system());
    assert!(outsides.builtin("payment").is_some() && outsides.builtin("gift_wrap").is_none());
    let [first, again, elsewhere, slower] = [
        ("http://127.0.0.1:1/x/", 100),
        ("http://127.0.0.1:1/x/", 100),
        ("https://wrap.example/x/", 100),
        ("http://127.0.0.1:1/x/", 200),
    ]
    .map(|(url, timeout_ms)| outsides.at(url, timeout_ms).unwrap());
    assert!(Arc::ptr_eq(&first, &again) && !Arc::ptr_eq(&first, &elsewhere) && !Arc::ptr_eq(&first, &slower));
    for wrong in ["ftp://x/", "no address", "http://", "unix:/x", ""] {
        assert!(outsides.at(wrong, 100).is_err(), "{wrong}");
    }
}
