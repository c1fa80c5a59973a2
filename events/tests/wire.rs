//! The wire: payloads of old releases must keep decoding. A golden file is never changed once released; a new shape gets
//! a new file.

use endstate_events::*;
use std::path::Path;

const SAGA: &str = "0193a0b2-7c00-8abc-9def-0123456789ab";

fn effect(direction: Direction) -> EffectId {
    EffectId { saga: SAGA.parse().unwrap(), step: "hold_stock".into(), item: "line-1".into(), direction, round: 0 }
}

fn input(body: InputBody) -> Message {
    Message::Input(Input { saga: SAGA.parse().unwrap(), body })
}

fn actor() -> Actor {
    Actor { subject: "u-7".into(), role: "owner".into() }
}

/// One message of every kind, by the name of its golden file.
fn messages() -> Vec<(&'static str, Message)> {
    let reply_to = ReplyTo { topic: Topic::Progress, partition: 3 };
    let with = serde_json::json!({ "unit": "sku-1", "quantity": 2 });
    let command = |kind, direction, of| {
        Message::Command(Command {
            effect_id: effect(direction),
            kind,
            participant: "stock".into(),
            action: if kind == CommandKind::Undo { "release".into() } else { "hold".into() },
            number: "o-1".into(),
            definition: "flash_sale_order".into(),
            key: "sku-1".into(),
            with: with.clone(),
            of,
            reply_to,
        })
    };
    let forward = Forward { effect_id: effect(Direction::Do), with: with.clone(), reply: serde_json::Value::Null };
    let reply = |verdict| Reply { effect_id: effect(Direction::Do), verdict };
    let start = Start {
        definition: "flash_sale_order".into(),
        version: 1,
        number: "o-1".into(),
        key: "u-7/sale-1".into(),
        owner: Some("u-7".into()),
        input: serde_json::json!({ "order_no": "o-1", "total_minor": 9_007_199_254_740_991_i64 }),
        body_hash: "ab".repeat(32),
        link: Some(Link {
            order: SAGA.parse().unwrap(),
            snapshot: serde_json::json!({ "input": {} }),
            caller: Some((effect(Direction::Do), reply_to)),
        }),
    };
    let operate =
        |operation| input(InputBody::Operate { operation, reason: "asked by the buyer".into(), actor: actor() });
    vec![
        ("command_do", command(CommandKind::Do, Direction::Do, None)),
        ("command_undo", command(CommandKind::Undo, Direction::Undo, Some(forward))),
        ("command_ask", command(CommandKind::Ask, Direction::Do, None)),
        ("start", input(InputBody::Start(Box::new(start)))),
        ("reply_done", input(InputBody::Reply(reply(Verdict::Done { data: with.clone() })))),
        (
            "reply_refused",
            input(InputBody::Reply(reply(Verdict::Refused { code: "stock.short".into(), detail: "2 wanted".into() }))),
        ),
        ("reply_unknown", input(InputBody::Reply(reply(Verdict::Unknown { reason: "timeout".into() })))),
        ("reply_never_seen", input(InputBody::Reply(reply(Verdict::NeverSeen)))),
        ("event", input(InputBody::Event { name: "payment.captured".into(), data: with })),
        ("cancel", input(InputBody::Cancel { reason: "user".into(), actor: actor() })),
        ("operate_retry", operate(Operation::Retry)),
        ("operate_compensate", operate(Operation::Compensate)),
        ("operate_force", operate(Operation::Force { end: ForcedEnd::Cancelled })),
        ("operate_wake", operate(Operation::Wake { step: "refund".into() })),
        ("inquire", input(InputBody::Inquire { effect_id: effect(Direction::Do), reply_to })),
        ("answer", Message::Answer(reply(Verdict::Done { data: serde_json::Value::Null }))),
        ("inquired", Message::Inquired(InquiryAnswer { effect_id: effect(Direction::Do), keep: true })),
        (
            "domain",
            Message::Domain(DomainEvent {
                saga: SAGA.parse().unwrap(),
                definition: "flash_sale_order".into(),
                number: "o-1".into(),
                version: 9,
                status: "closed".into(),
                before: "awaiting_payment".into(),
                outcome: Some("cancelled".into()),
                reason: Some("unpaid".into()),
            }),
        ),
    ]
}

fn envelope(message: Message) -> Envelope {
    Envelope {
        id: "an-id".into(),
        schema: SCHEMA_VERSION,
        time_ms: 1_763_769_600_123,
        key: "u-7/sale-1".into(),
        lane: Lane::Live,
        message,
    }
}

#[test]
fn messages_of_every_kind_are_written_as_the_golden_files_say_and_read_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, message) in messages() {
        let file = folder.join(format!("{name}.v1.json"));
        let envelope = envelope(message);
        if std::env::var_os("WRITE_GOLDEN").is_some() && !file.exists() {
            std::fs::write(&file, serde_json::to_string_pretty(&envelope).unwrap() + "\n").unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let read: Envelope = serde_json::from_str(&golden).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read, envelope, "{name} means something else now");
        let written = serde_json::to_value(&envelope).unwrap();
        assert_eq!(written, serde_json::from_str::<Json>(&golden).unwrap(), "{name} is written otherwise now");
    }
}

#[test]
fn what_a_newer_release_adds_does_not_stop_an_older_one() {
    for (name, message) in messages() {
        let mut json = serde_json::to_value(envelope(message)).unwrap();
        json["added_later"] = serde_json::json!({ "by": "a newer release" });
        assert!(serde_json::from_value::<Envelope>(json).is_ok(), "{name}");
    }
}
