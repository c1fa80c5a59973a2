//! A definition that uses all that the language has, for tests to change.

use super::{BUILTIN, BUILTIN_NAME, Definition, Diagnostic, Source};
use crate::check::{check, saga_of};
use crate::definition::Code;
use crate::saga::Saga;

pub(crate) const GIFT: &str = r#"saga: gift
version: 3
input: in.json
number: =input.no
key: =input.user
owner: =input.user
search: { user: =input.user, unit: "=steps.hold_stock[0].unit", payer: =waits.pay.provider }
view: { payment_no: =steps.open.payment_no, note: =input.note }
values: { due: =input.total - 20, goods: "=input.lines.filter(l, l.quantity > 0)" }
retry: { timeout: 2s, ask_after: 4s, waits: [1s x 2, 30s] }
stages:
  - stage: greet
    steps:
      greet: { call: notify.send, with: { user: =input.user, template: hello }, no_undo: said is said }
  - stage: hold
    steps:
      hold_stock:
        call: stock.hold
        each: =values.goods
        item_key: =item.sku
        with: { unit: =item.sku, quantity: =item.quantity }
        undo: stock.release
        retry: { waits: [7s] }
  - stage: pay
    steps:
      open:
        call: payment.open
        with: { amount_minor: =values.due, currency: CNY, expires_in_s: 60 }
        undo: payment.close
        retry: { timeout: 9s, ask_after: 8s }
    wait:
      event: payment.captured
      where: =event.amount_minor == values.due && steps.open.payment_no != ""
      within: =input.wait_s
      ask: payment.ask
      ask_with: { payment_no: =steps.open.payment_no }
      at_deadline: { cancel: unpaid }
    pivot: true
  - stage: confirm
    steps:
      confirm_stock: { call: stock.confirm, of: hold_stock, undo: stock.unconfirm, refused: reverse }
      book: { call: payment.book, with: { payment: =waits.pay }, refused: park }
reverse:
  - stage: refund
    steps:
      refund: { call: payment.refund, with: { payment: =waits.pay, amount_minor: =values.due }, refused: park }
cancel:
  unpaid: { role: deadline }
late:
  payment.captured: { start: refund_payment, number: =event.provider_no, with: { due: =values.due, payment: =event } }
starts_on:
  shop.gift_wanted: { when: =event.total > 0, with: { no: =event.no, user: x, total: =event.total, wait_s: 9, lines: [] } }
events:
  shop.gift_wanted:
    schema: { type: object, required: [no, total], properties: { no: { type: string }, total: { type: integer } } }
    example: { no: G-1, total: 100 }
ends: { completed: completed, cancelled: closed, reversed: refunded, forced: closed }
"#;

pub(crate) const SCHEMA: &str = r#"{ "type": "object", "required": ["no", "user", "total", "wait_s", "lines"], "properties": {
    "no": { "type": "string" }, "user": { "type": "string" }, "total": { "type": "integer" }, "wait_s": { "type": "integer" },
    "note": {}, "lines": { "type": "array", "maxItems": 4, "items": { "type": "object", "required": ["sku", "quantity"],
    "properties": { "sku": { "type": "string" }, "quantity": { "type": "integer" } } } } } }"#;

pub(crate) const SAMPLE: &str = r#"{ "input": { "no": "1", "user": "u", "total": 120, "wait_s": 60, "note": null,
    "lines": [{ "sku": "a", "quantity": 2 }, { "sku": "b", "quantity": 1 }] },
  "replies": { "hold_stock": [{ "unit": "a", "quantity": 2, "standby": 0 }, { "unit": "b", "quantity": 1, "standby": 1 }] },
  "events": { "pay": [
    { "provider": "p", "provider_no": "0", "amount_minor": 1, "currency": "CNY", "saga": "s" },
    { "provider": "p", "provider_no": "1", "amount_minor": 100, "currency": "CNY", "saga": "s" }] } }"#;

pub(crate) fn source(text: &str) -> Source {
    Source {
        file: "gift.yaml".into(),
        text: text.into(),
        schemas: [("in.json".to_owned(), SCHEMA.to_owned())].into(),
        samples: [("paid.json".to_owned(), SAMPLE.to_owned())].into(),
        catalogues: [(BUILTIN_NAME.to_owned(), BUILTIN.to_owned())].into(),
        siblings: vec!["gift".into(), "refund_payment".into()],
    }
}

pub(crate) fn loaded(text: &str) -> Definition {
    Definition::load(&source(text)).unwrap_or_else(|all| panic!("{all:#?}"))
}

/// A saga of it, as its sample begins one.
pub(crate) fn begun(definition: &Definition) -> Saga {
    saga_of(definition, &definition.samples()[0]).unwrap()
}

pub(crate) fn complaints(source: &Source) -> Vec<Diagnostic> {
    Definition::load(source).map_or_else(|all| all, |definition| check(&definition))
}

/// The definition with `from` replaced by `to`.
#[track_caller]
pub(crate) fn with(from: &str, to: &str) -> String {
    assert!(GIFT.contains(from), "{from}");
    GIFT.replacen(from, to, 1)
}

/// Replaces `from` by `to`; expects nothing but one complaint, at the line that holds `place` after the change.
#[track_caller]
pub(crate) fn refused(from: &str, to: &str, code: Code, place: &str) -> Diagnostic {
    let text = with(from, to);
    let all = complaints(&source(&text));
    let [only] = all.as_slice() else { panic!("expected one complaint, got {all:#?}") };
    let line = text.lines().nth(only.at.line as usize - 1).unwrap_or_default();
    assert!(only.code == code && line.contains(place), "{only:#?} is about {line}");
    only.clone()
}

#[track_caller]
pub(crate) fn accepted(from: &str, to: &str) {
    assert_eq!(complaints(&source(&with(from, to))), []);
}

#[test]
fn a_definition_that_uses_everything_is_sound() {
    assert_eq!(complaints(&source(GIFT)), []);
}
