//! The wire: payloads of old releases must keep decoding. A golden file is never changed once released; a new shape gets
//! a new file.

use endstate_events::cloud_event::{self, Record};
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

fn start(reply_to: ReplyTo) -> Start {
    Start {
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
    }
}

/// One message of every kind, by the name of its golden file.
fn messages() -> Vec<(&'static str, Message)> {
    [our_messages(), foreign_messages()].concat()
}

fn our_messages() -> Vec<(&'static str, Message)> {
    let reply_to = ReplyTo { topic: Topic::Progress, partition: 3 };
    let with = serde_json::json!({ "unit": "sku-1", "quantity": 2 });
    let command = |definition_version, kind, direction, of| {
        Message::Command(Command {
            effect_id: effect(direction),
            kind,
            participant: "stock".into(),
            action: if kind == CommandKind::Undo { "release".into() } else { "hold".into() },
            number: "o-1".into(),
            definition: "flash_sale_order".into(),
            definition_version,
            key: "sku-1".into(),
            with: with.clone(),
            of,
            reply_to,
        })
    };
    let forward = Forward { effect_id: effect(Direction::Do), with: with.clone(), reply: serde_json::Value::Null };
    let reply = |verdict| Reply { effect_id: effect(Direction::Do), verdict };
    let operate =
        |operation| input(InputBody::Operate { operation, reason: "asked by the buyer".into(), actor: actor() });
    vec![
        ("command_do", command(0, CommandKind::Do, Direction::Do, None)),
        ("command_of_a_version", command(2, CommandKind::Do, Direction::Do, None)),
        ("command_undo", command(0, CommandKind::Undo, Direction::Undo, Some(forward))),
        ("command_ask", command(0, CommandKind::Ask, Direction::Do, None)),
        ("start", input(InputBody::Start(Box::new(start(reply_to))))),
        ("reply_done", input(InputBody::Reply(reply(Verdict::Done { data: with.clone() })))),
        (
            "reply_refused",
            input(InputBody::Reply(reply(Verdict::Refused { code: "stock.short".into(), detail: "2 wanted".into() }))),
        ),
        ("reply_unknown", input(InputBody::Reply(reply(Verdict::unknown("timeout"))))),
        ("reply_put_aside", input(InputBody::Reply(reply(Verdict::put_aside("put aside: E5003: too old"))))),
        ("reply_never_seen", input(InputBody::Reply(reply(Verdict::NeverSeen)))),
        ("event", input(InputBody::Event { name: "payment.captured".into(), data: with })),
        ("cancel", input(InputBody::Cancel { reason: "user".into(), actor: actor() })),
        ("operate_retry", operate(Operation::Retry)),
        ("operate_compensate", operate(Operation::Compensate)),
        ("operate_force", operate(Operation::Force { end: ForcedEnd::Cancelled })),
        ("operate_wake", operate(Operation::Wake { step: "refund".into() })),
        ("inquire", input(InputBody::Inquire { effect_id: effect(Direction::Do), reply_to })),
        ("answer", Message::Answer(reply(Verdict::Done { data: serde_json::Value::Null }))),
        ("inquired", Message::Inquired(InquiryAnswer { effect_id: effect(Direction::Do), keep: true, known: false })),
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

/// Those that other teams write, or read.
fn foreign_messages() -> Vec<(&'static str, Message)> {
    vec![
        (
            "foreign_reply",
            Message::Reply(ForeignReply {
                effect_id: effect(Direction::Do),
                verdict: Verdict::Done { data: serde_json::json!({ "tag": "gift-1" }) },
            }),
        ),
        (
            "dead_letter",
            Message::Letter(Letter {
                topic: "progress".into(),
                partition: 3,
                offset: 41,
                bytes: "{".into(),
                cut: false,
                reason: "EOF while parsing an object".into(),
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

/// A record as text: headers, an empty line, the body.
fn written(envelope: &Envelope) -> String {
    let environment = Environment::default();
    let attributes = cloud_event::attributes(envelope, &environment);
    let headers: String = attributes.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let body = String::from_utf8(cloud_event::data(&envelope.message).unwrap()).unwrap();
    format!("{headers}\n{body}\n")
}

fn read(record: &str, environment: &str) -> Result<Envelope, cloud_event::Unreadable> {
    let (headers, body) = record.split_once("\n\n").unwrap();
    let mut read = Record::new(None, body.trim_end().as_bytes(), 5);
    for (name, value) in headers.lines().filter_map(|line| line.split_once(": ")) {
        read.set(name, value);
    }
    read.read(&Environment::new(environment).unwrap())
}

#[test]
fn records_of_every_kind_are_written_as_the_golden_files_say_and_read_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/records");
    for (name, message) in messages() {
        let file = folder.join(format!("{name}.v1.txt"));
        let envelope = envelope(message);
        if std::env::var_os("WRITE_GOLDEN").is_some() && !file.exists() {
            std::fs::write(&file, written(&envelope)).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(written(&envelope), golden, "{name} is written otherwise now");
        assert_eq!(read(&golden, "dev").as_ref(), Ok(&envelope), "{name} means something else now");
    }
}

#[test]
fn a_structured_event_is_the_same_message() {
    for (name, message) in messages() {
        let envelope = envelope(message);
        let environment = Environment::default();
        let mut whole: serde_json::Map<String, Json> = cloud_event::attributes(&envelope, &environment)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into_owned().into()))
            .collect();
        whole.insert("data".into(), serde_json::from_slice(&cloud_event::data(&envelope.message).unwrap()).unwrap());
        // An integer attribute may be a number here.
        whole.insert("schemaversion".into(), SCHEMA_VERSION.into());
        let body = serde_json::to_vec(&whole).unwrap();
        let mut record = Record::new(None, &body, 0);
        record.set_content_type("application/cloudevents+json; charset=UTF-8");
        assert_eq!(record.read(&environment).as_ref(), Ok(&envelope), "{name}");
    }
}

#[test]
fn what_a_foreign_sender_leaves_out_comes_from_the_record() {
    let body = cloud_event::data(&messages()[0].1).unwrap();
    let mut record = Record::new(Some("sku-1"), &body, 77);
    record.set("id", "i");
    record.set("type", "endstate.command");
    let envelope = record.read(&Environment::default()).unwrap();
    assert_eq!((envelope.key.as_str(), envelope.time_ms, envelope.lane), ("sku-1", 77, Lane::Live));
}

#[test]
fn an_event_of_another_team_is_the_same_in_both_modes() {
    let data = r#"{"order_no":"S-1","n":1.50}"#;
    let expected = ForeignEvent {
        source: "/shop".into(),
        id: "e-1".into(),
        kind: "shop.placed".into(),
        subject: Some("shop_order/S-1".into()),
        teller: None,
        data: data.into(),
    };
    let mut binary = Record::new(None, data.as_bytes(), 77);
    for (name, value) in
        [("id", "e-1"), ("source", "/shop"), ("type", "shop.placed"), ("subject", "shop_order/S-1"), ("lane", "test")]
    {
        binary.set(name, value);
    }
    let body = format!(
        r#"{{"specversion":"1.0","id":"e-1","source":"/shop","type":"shop.placed","subject":"shop_order/S-1","lane":"test","data":{data}}}"#
    );
    let mut structured = Record::new(None, body.as_bytes(), 77);
    structured.set_content_type("application/cloudevents+json");
    for record in [binary, structured] {
        let envelope = record.read_foreign(&Environment::default()).unwrap();
        assert_eq!((envelope.id.as_str(), envelope.time_ms, envelope.lane), ("/shop#e-1", 77, Lane::Test));
        assert_eq!(envelope.message, Message::Foreign(expected.clone()));
    }
    let nothing = Record::new(None, data.as_bytes(), 77).read_foreign(&Environment::default()).unwrap_err();
    assert_eq!(nothing.reason, "it is no CloudEvent: it has no source");
}

#[test]
fn z17_a_record_of_another_environment_is_no_message() {
    let golden = written(&envelope(messages().remove(0).1));
    let error = read(&golden, "staging").unwrap_err();
    assert_eq!(error.reason, "it is of environment `dev`");
}

#[test]
fn a_record_that_cannot_be_read_is_kept_as_much_of_an_envelope_as_it_is() {
    let golden = written(&envelope(messages().remove(0).1));
    for (record, reason) in [
        (golden.replace("endstate.command", "endstate.dance"), "there is no message type `dance`"),
        (golden.replace("schemaversion: 1", "schemaversion: 9"), "its schema version 9 is newer"),
    ] {
        let error = read(&record, "dev").unwrap_err();
        assert_eq!(error.reason, reason);
        let kept: Json = serde_json::from_str(&error.bytes).unwrap();
        assert_eq!(
            (kept["id"].as_str(), kept["message"]["data"]["participant"].as_str()),
            (Some("an-id"), Some("stock"))
        );
    }
    let mut nothing = Record::new(None, b"\xff\xfe", 0);
    nothing.set("id", "i");
    assert_eq!(nothing.read(&Environment::default()).unwrap_err().reason, "its body is no UTF-8");
}

/// Before commands that were put aside were told of, `unknown` had a reason only.
#[test]
fn a_program_that_knows_no_putting_aside_reads_unknown() {
    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(tag = "verdict", rename_all = "snake_case")]
    enum Old {
        Unknown { reason: String },
    }
    let told = serde_json::to_string(&Verdict::put_aside("put aside: E5003")).unwrap();
    assert_eq!(serde_json::from_str::<Old>(&told).unwrap(), Old::Unknown { reason: "put aside: E5003".to_owned() });
    let plain = serde_json::to_string(&Verdict::unknown("busy")).unwrap();
    assert_eq!(plain, r#"{"verdict":"unknown","reason":"busy"}"#, "and what is not put aside is written as ever");
    assert_eq!(serde_json::from_str::<Verdict>(&plain).unwrap(), Verdict::unknown("busy"));
}
