//! Sizes (Z10, Z20): what is too large parks its saga before anything is sent, and what is large is taken in bounded parts.

use crate::system::{System, done, odd_job};
use endstate_events::{CommandKind, InputBody, Json, Message, Operation, SagaId, Topic};
use endstate_outbox::{TAKE_BYTES, Turn};
use endstate_saga::control::Outcome;
use endstate_saga::definition::Source;
use endstate_saga::size::PAYLOAD_BYTES;
use serde_json::json;

/// What the sagas of a batch may send, as docs/guarantees.md has it.
const SENT_BYTES: usize = 16 << 20;

const PARCEL: &str = "saga: parcel
version: 1
input: schemas/parcel.v1.json
number: =input.number
key: =input.number
stages:
  - stage: send
    status: sending
    steps:
      send: { call: lab.make, with: { do: done, undo: done, first: =input.text, second: =input.text }, undo: lab.unmake }
ends: { completed: completed, cancelled: closed, forced: closed }
";

/// A definition whose command holds its input twice.
fn parcel() -> Source {
    let schema = json!({
        "type": "object", "required": ["number", "text"], "additionalProperties": false,
        "properties": { "number": { "type": "string" }, "text": { "type": "string" } },
    });
    let sample = json!({ "input": { "number": "P-1", "text": "tea" } });
    Source {
        text: PARCEL.to_owned(),
        schemas: [("schemas/parcel.v1.json".to_owned(), schema.to_string())].into(),
        samples: [("ok.json".to_owned(), sample.to_string())].into(),
        siblings: vec!["parcel".to_owned()],
        ..odd_job()
    }
}

fn input(number: &str, bytes: usize) -> Json {
    json!({ "number": number, "text": "x".repeat(bytes) })
}

async fn open(folder: &std::path::Path) -> System {
    let system = System::open(folder, 1_000).await;
    system.definitions.load(&parcel(), 0).await.unwrap();
    system
}

async fn phase(system: &System, id: SagaId) -> &'static str {
    let saga = system.saga(id).await.unwrap();
    let definition = system.definitions.get(&saga.definition, saga.definition_version).unwrap();
    saga.control.phase(definition.plan()).label()
}

#[tokio::test]
async fn z10_a_command_that_grew_too_large_parks_its_saga_and_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let (fits, start) = system.start("parcel", input("fits", PAYLOAD_BYTES / 2 - 100));
    let (large, too_large) = system.start("parcel", input("large", PAYLOAD_BYTES - 1_000));
    system.queue(&[too_large, start]).await;
    system.run_until_idle().await;
    assert_eq!((phase(&system, large).await, phase(&system, fits).await), ("parked", "running"));
    assert_eq!((system.commands(large).await.len(), system.commands(fits).await.len()), (0, 1), "nothing was sent");
    let told = system.told().await;
    assert_eq!((told.len(), &*told[0].number), (1, "large"));
    assert!(told[0].text.contains("steps.send.with failed: E3005"), "{}", told[0].text);

    // A person gives it back, or lets it go on when its definition allows; the other goes its way.
    let actor = endstate_events::Actor { subject: "olga".into(), role: "operator".into() };
    let body = InputBody::Operate { operation: Operation::Compensate, reason: "too large".into(), actor };
    system.tell(large, "back", body).await;
    assert_eq!(system.saga(large).await.unwrap().control.outcome(), Some(Outcome::Cancelled));
    system.tell(fits, "reply", done(fits, "send")).await;
    assert_eq!(system.saga(fits).await.unwrap().control.outcome(), Some(Outcome::Completed));
}

/// A hundred large starts, each of which sends twice as much: taken and sent in parts.
#[tokio::test]
async fn z20_large_messages_are_taken_and_sent_in_bounded_parts() {
    const STARTS: usize = 100;
    let folder = tempfile::tempdir().unwrap();
    let mut system = open(folder.path()).await;
    let bytes = PAYLOAD_BYTES / 2 - 200;
    let mut sagas = Vec::new();
    for n in 0..STARTS {
        let (saga, start) = system.start("parcel", input(&format!("P-{n}"), bytes));
        system.queue(&[start]).await;
        sagas.push(saga);
    }
    let partitions = system.store.partitions();
    for partition in 0..partitions {
        let mut consumer = system.bus.consumer(Topic::Start, partition, 0);
        let mut left = sagas.iter().filter(|saga| saga.slot().partition(partitions) == partition).count();
        while left > 0 {
            let taken = consumer.take(512).await.unwrap();
            let sizes: Vec<_> = taken.iter().map(|delivered| delivered.bytes).collect();
            assert!(sizes.iter().all(|size| *size > bytes), "{sizes:?}");
            assert!(!sizes.is_empty() && sizes.iter().sum::<usize>() < TAKE_BYTES + 2 * bytes, "{sizes:?}");
            left -= taken.len();
        }
    }
    let mut turns = 0;
    for shard in &mut system.shards {
        while shard.turn().await != Turn::Idle {
            turns += 1;
            assert!(turns < 10 * STARTS, "it never comes to rest");
        }
    }
    assert!(turns >= STARTS * bytes / (TAKE_BYTES + bytes), "{turns} batches");
    assert_eq!(system.to_participants().await.len(), STARTS);
}

/// A definition that sends its input to eight steps at once, and again when nobody answers.
fn pallet() -> Source {
    let step = |n| {
        format!(
            "      s{n}: {{ call: lab.make, with: {{ do: done, undo: done, text: =input.text }}, undo: lab.unmake }}\n"
        )
    };
    let steps: String = (0..8).map(step).collect();
    let text = PARCEL.replace("saga: parcel\n", "saga: pallet\n");
    let text = text.replace("stages:\n", "retry: { timeout: 1s, ask_after: 1s, waits: [1s x 3] }\nstages:\n");
    let kept = text.lines().filter(|line| !line.trim_start().starts_with("send: {"));
    let text: String = kept.map(|line| format!("{line}\n")).collect();
    let text = text.replace("    steps:\n", &format!("    steps:\n{steps}"));
    Source { text, siblings: vec!["pallet".to_owned()], ..parcel() }
}

/// Ten sagas of one shard, of which a few fill a batch: it is halved (E3006), and so are their timers, which are all due at
/// once.
#[tokio::test]
async fn z20_a_batch_that_sends_too_much_is_halved_and_timers_that_do_fire_in_parts() {
    const STARTS: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 1_000).await;
    system.definitions.load(&pallet(), 0).await.unwrap();
    let bytes = PAYLOAD_BYTES - 10_000;
    assert!(STARTS * 8 * bytes > SENT_BYTES, "together they send too much for a batch");
    let (partitions, mut sagas, mut number) = (system.store.partitions(), Vec::new(), 0);
    while sagas.len() < STARTS {
        let (saga, start) = system.start("pallet", input(&format!("P-{number}"), bytes));
        number += 1;
        if saga.slot().partition(partitions) == 0 {
            system.queue(&[start]).await;
            sagas.push(saga);
        }
    }
    let large = async |system: &System| {
        let sent = system.to_participants().await;
        sent.iter().filter(|message| matches!(message, Message::Command(c) if c.kind == CommandKind::Do)).count()
    };
    system.run_until_idle().await;
    assert_eq!(large(&system).await, 8 * STARTS, "each was sent, and once");
    for _ in 0..4 {
        system.clock.advance(5_000);
        system.run_until_idle().await;
    }
    assert!(large(&system).await >= 2 * 8 * STARTS, "what nobody answered is sent again");
    let letters = endstate_outbox::dead_letter::list(&*system.store, 0, 10).await.unwrap();
    assert!(letters.is_empty(), "{letters:?}");
    for saga in sagas {
        assert_ne!(phase(&system, saga).await, "parked");
    }
}
