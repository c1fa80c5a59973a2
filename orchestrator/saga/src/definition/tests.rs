//! What loading and checking refuse: each mutation of a sound definition gets its code at its place.

use super::{BUILTIN, BUILTIN_NAME, Code, Definition, Diagnostic, Source, shipped};
use crate::check::check;

pub(super) const SOUND: &str = r#"saga: sale
version: 1
input: in.json
number: =input.no
key: =input.user
owner: =input.user
search: { user: =input.user }
values: { due: =input.total - 20 }
stages:
  - stage: hold
    status: created
    steps:
      hold_stock:
        call: stock.hold
        each: =input.lines
        item_key: =item.sku
        when: =input.hold
        with: { unit: =item.sku, quantity: =item.quantity }
        undo: stock.release
  - stage: pay
    status: awaiting_payment
    when: =values.due > 0
    wait:
      event: payment.captured
      where: =event.amount_minor == values.due
      mismatch: park
      within: 20m
      at_deadline: { cancel: unpaid }
    pivot: true
  - stage: confirm
    status: paid
    steps:
      confirm_stock: { call: stock.confirm, of: hold_stock, undo: stock.unconfirm, refused: reverse }
      tell: { call: notify.send, best_effort: true, with: { user: =input.user, template: paid } }
cancel:
  unpaid: { role: deadline }
ends: { completed: completed, cancelled: closed, reversed: refunded, forced: closed }
"#;

pub(super) const SCHEMA: &str = r#"{ "type": "object", "required": ["no", "user", "total", "hold", "lines"], "additionalProperties": false,
  "properties": { "no": { "type": "string" }, "user": { "type": "string" }, "total": { "type": "integer" },
    "hold": { "type": "boolean" }, "note": { "type": "string" }, "open": { "type": "array", "items": { "type": "object",
    "properties": { "sku": { "type": "string" } } } }, "lines": { "type": "array", "maxItems": 4, "items": {
    "type": "object", "required": ["sku", "quantity"], "properties": { "sku": { "type": "string" },
    "quantity": { "type": "integer" } } } } } }"#;

const PAID: &str = r#"{ "input": { "no": "1", "user": "u", "total": 120, "hold": true, "lines": [{ "sku": "a", "quantity": 2 }] },
  "events": { "pay": [{ "provider": "p", "provider_no": "0", "amount_minor": 1, "currency": "CNY", "saga": "s" },
                      { "provider": "p", "provider_no": "1", "amount_minor": 100, "currency": "CNY", "saga": "s" }] } }"#;

const FREE: &str = r#"{ "input": { "no": "2", "user": "u", "total": 20, "hold": false, "lines": [] } }"#;

pub(super) fn source(text: &str) -> Source {
    Source {
        file: "sale.yaml".into(),
        text: text.into(),
        schemas: [("in.json".to_owned(), SCHEMA.to_owned())].into(),
        samples: [("paid.json".to_owned(), PAID.to_owned()), ("free.json".to_owned(), FREE.to_owned())].into(),
        catalogues: [(BUILTIN_NAME.to_owned(), BUILTIN.to_owned())].into(),
        siblings: vec!["sale".into(), "refund_payment".into()],
    }
}

pub(super) fn complaints(source: &Source) -> Vec<Diagnostic> {
    Definition::load(source).map_or_else(|all| all, |definition| check(&definition))
}

/// Replaces `from` by `to` in the sound text; expects one code, at the line that holds `place` after the change.
#[track_caller]
pub(super) fn refused(from: &str, to: &str, code: Code, place: &str) -> Diagnostic {
    assert!(SOUND.contains(from), "{from}");
    let text = SOUND.replacen(from, to, 1);
    let all = complaints(&source(&text));
    let at_place = |diagnostic: &&Diagnostic| {
        text.lines().nth(diagnostic.at.line as usize - 1).is_some_and(|line| line.contains(place))
    };
    let found = all.iter().filter(|diagnostic| diagnostic.code == code).find(at_place);
    found.unwrap_or_else(|| panic!("expected {code:?} at a line with `{place}`, got {all:#?}")).clone()
}

#[test]
fn the_sound_one_is_sound() {
    assert_eq!(complaints(&source(SOUND)), []);
}

#[test]
fn the_form_is_checked() {
    let unknown = refused("    status: created", "    statsu: created", Code::UnknownKey, "statsu");
    assert_eq!(
        unknown.to_string(),
        "sale.yaml:11:5: error[E1003]: a stage has no key `statsu`\n  help: did you mean `status`?"
    );
    refused("number: =input.no\n", "", Code::MissingKey, "saga: sale");
    refused("version: 1", "version: 0", Code::WrongValue, "version: 0");
    refused("refused: reverse", "refused: revert", Code::WrongValue, "revert");
    refused("pivot: true", "pivot: yes", Code::WrongValue, "pivot: yes");
    refused("saga: sale", "saga: Sale", Code::BadName, "Sale");
    refused("      tell:", "      hold_stock:", Code::BadName, "hold_stock: { call: notify");
    refused("  - stage: confirm", "  - stage: pay", Code::BadName, "- stage: pay");
    refused("owner: =input.user\n", "owner: =input.user\nstarted_by: anybody\n", Code::WrongValue, "anybody");
    refused("owner: =input.user\n", "started_by: owner\n", Code::WrongValue, "started_by: owner");
    refused("within: 20m", "within: 20 minutes", Code::BadDuration, "20 minutes");
    refused("stages:", "stages: [", Code::NotYaml, "- stage: hold");
}

#[test]
fn expressions_are_checked() {
    refused("=input.total - 20", "=input.total -", Code::BadExpression, "total -");
    let deep = format!("={}1{}", "(".repeat(40), ")".repeat(40));
    refused("=input.total - 20", &deep, Code::ExpressionTooLarge, "values:");
    let path = refused("=input.total - 20", "=input.totl - 20", Code::UnknownPath, "totl");
    assert_eq!(path.fix.as_deref(), Some("did you mean `total`?"));
    refused("=item.quantity", "=item.qantity", Code::UnknownPath, "qantity");
    refused("=event.amount_minor ==", "=event.amount ==", Code::UnknownPath, "where");
    refused("=input.user, template", "=steps.hold_stock.unit, template", Code::UnknownPath, "tell");
    refused("=input.user, template", "=waits.pay.amount, template", Code::UnknownPath, "tell");
    refused("when: =input.hold", "when: =steps.confirm_stock.x", Code::UnknownPath, "confirm_stock.x");
    refused("number: =input.no", "number: =inptu.no", Code::UnknownReference, "number");
    refused("number: =input.no", "number: =values.due", Code::UnknownReference, "number");
    refused("when: =input.hold", "when: =event.x", Code::UnknownReference, "when: =event");
    refused("number: =input.no", "number: input.no", Code::WrongValue, "number");
}

#[test]
fn samples_find_what_types_would() {
    refused("=input.total - 20", "=input.total / (input.total - 120)", Code::SampleFails, "saga: sale");
    refused("=input.user, template", "=input.note, template", Code::SampleFails, "tell");
    refused("when: =input.hold", "when: =input.total", Code::SampleFails, "hold_stock:");
    refused("quantity: =item.quantity", "quantity: =item.sku", Code::PayloadBreaksSchema, "quantity: =item.sku");
    refused("when: =input.hold", "when: =input.total > 0", Code::NotCovered, "input.total > 0");
    refused("when: =values.due > 0", "when: =values.due > 1000", Code::Unreachable, "- stage: pay");
    let mut none = source(SOUND);
    none.samples.clear();
    assert_eq!(complaints(&none)[0].code, Code::NoSamples);
    none.samples.insert("x.json".into(), r#"{ "input": { "no": 1 } }"#.into());
    assert!(complaints(&none).iter().any(|complaint| complaint.code == Code::BadSample));
    none.samples.insert("x.json".into(), "{ nonsense".into());
    assert!(complaints(&none).iter().any(|complaint| complaint.code == Code::BadSample));
}

#[test]
fn names_are_resolved() {
    let participant = refused("call: stock.hold", "call: stok.hold", Code::UnknownParticipant, "stok");
    assert_eq!(participant.fix.as_deref(), Some("did you mean `stock`?"));
    refused("undo: stock.release", "undo: stock.relase", Code::UnknownAction, "relase");
    refused("event: payment.captured", "event: payment.captred", Code::UnknownEvent, "captred");
    refused("cancel: unpaid", "cancel: unpayed", Code::UnknownReason, "unpayed");
    refused("of: hold_stock", "of: hold_stok", Code::BadReference, "hold_stok");
    refused("call: notify.send", "call: saga.refund_paymnt", Code::UnknownSaga, "refund_paymnt");
    refused("input: in.json", "input: out.json", Code::CannotRead, "out.json");
}

#[test]
fn what_could_lose_something_is_refused() {
    let undo = refused("        undo: stock.release\n", "", Code::NoUndo, "      hold_stock:");
    assert_eq!(undo.fix.as_deref(), Some("write `undo: stock.release`"));
    refused(", refused: reverse", "", Code::NoRefusedRule, "confirm_stock");
    refused("refused: reverse", "refused: compensate", Code::NoRefusedRule, "confirm_stock");
    refused("each: =input.lines", "each: =input.open", Code::UnboundedList, "each:");
    refused("        item_key: =item.sku\n", "", Code::MissingKey, "      hold_stock:");
    refused("      within: 20m\n", "", Code::NoDeadline, "event: payment.captured");
    refused(", cancelled: closed", "", Code::MissingEnd, "ends:");
    refused(", reversed: refunded", "", Code::MissingEnd, "ends:");
    refused("    status: paid\n", "    status: paid\n    pivot: true\n", Code::PivotMisplaced, "pivot: true");
    let mut many = source(SOUND);
    many.schemas.insert("in.json".into(), SCHEMA.replace("\"maxItems\": 4", "\"maxItems\": 400"));
    assert!(complaints(&many).iter().any(|complaint| complaint.code == Code::TooManyRuns));
    many.schemas.insert("in.json".into(), "{ \"type\": 3 }".into());
    assert!(complaints(&many).iter().any(|complaint| complaint.code == Code::BadSchema));
}

#[test]
fn a_definition_survives_its_files() {
    for source in shipped() {
        let text = serde_json::to_string(&source).unwrap();
        let again: Source = serde_json::from_str(&text).unwrap();
        let (first, second) = (Definition::load(&source).unwrap(), Definition::load(&again).unwrap());
        assert_eq!((first.sha256(), first.plan()), (second.sha256(), second.plan()));
    }
    let (a, b) = (source(SOUND), source(&SOUND.replace("20m", "30m")));
    assert_ne!(Definition::load(&a).unwrap().sha256(), Definition::load(&b).unwrap().sha256());
}

#[test]
fn hostile_text_is_refused_and_nothing_panics() {
    let texts = [
        "",
        "[]",
        "3",
        "saga: {}",
        "saga: a\nstages: 3",
        "saga: a\nstages: [3, {}, { stage: [] }]",
        "\u{0}",
        "&a [*a]",
    ];
    for text in texts {
        assert!(!complaints(&source(text)).is_empty(), "{text:?}");
    }
    for length in (0..SOUND.len()).step_by(7) {
        let _ = complaints(&source(&SOUND[..length]));
    }
}

/// The reference's first example is a definition that loads.
#[test]
fn the_reference_shows_a_definition_that_loads() {
    let page = include_str!("../../../../docs/language.md");
    let text = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let flash_sale = shipped().remove(1);
    let schema = flash_sale.schemas.values().next().unwrap().clone();
    let source = Source {
        file: "gift_order.yaml".into(),
        text: text.into(),
        schemas: [("schemas/gift_order.v1.json".to_owned(), schema)].into(),
        siblings: vec!["refund_payment".into()],
        ..flash_sale
    };
    let definition = Definition::load(&source).unwrap_or_else(|all| panic!("{all:#?}"));
    assert_eq!(check(&definition), []);
}
