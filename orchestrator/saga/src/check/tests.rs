//! The shipped definitions, checked; and what the check finds in one that is changed.

use super::*;
use crate::definition::gift::{GIFT, SAMPLE, accepted, complaints, loaded, refused, source, with};
use crate::definition::shipped;

#[test]
fn the_shipped_definitions_load_and_check() {
    for source in shipped() {
        let all = match Definition::load(&source) {
            Ok(definition) => check(&definition),
            Err(all) => all,
        };
        let text: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert!(all.is_empty(), "{}", text.join("\n"));
    }
}

#[test]
fn an_expression_sees_what_is_there_at_its_place() {
    // A stage's own steps have run when its wait opens; lists see everything; late rules see the values.
    for (from, to) in [
        ("within: =input.wait_s", "within: \"=size(steps.open.payment_no) + 60\""),
        ("view: {", "view: { last: =steps.book, pay: =waits.pay.provider_no, own: =saga.number, "),
        ("with: { unit: =item.sku, quantity: =item.quantity }", "with: { unit: =saga.key, quantity: =item.quantity }"),
    ] {
        accepted(from, to);
    }
    let invisible = [
        ("number: =input.no", "number: =saga.id", "number:", "input, order"),
        ("values: {", "values: { early: =steps.open.payment_no, ", "values:", "input, order, values, saga"),
        ("template: hello", "template: =item.sku", "greet:", "input, order, values, saga, steps, waits"),
        ("=event.provider_no,", "=waits.pay.provider_no,", "payment.captured: {", "input, order, values, saga, event"),
        ("user: x,", "user: =input.user,", "shop.gift_wanted: {", "event"),
    ];
    for (from, to, place, roots) in invisible {
        let only = refused(from, to, Code::UnknownReference, place);
        assert_eq!(only.fix, Some(format!("visible here: {roots}")), "{to}");
    }
    let only = refused("template: hello", "template: =order.number", Code::UnknownReference, "greet:");
    assert_eq!(only.reason, "the definition declares no `order`");
}

#[test]
fn the_order_is_found_by_the_input_alone() {
    let order = "order: { saga: refund_payment, number: =order.number }\nkey:";
    let text = with("key:", order);
    let all = complaints(&source(&text));
    assert!(all.iter().any(|all| all.code == Code::UnknownReference && all.at.line == 5), "{all:#?}");
    assert_eq!(all[0].fix.as_deref(), Some("visible here: input"));
}

#[test]
fn a_path_that_nothing_declares_is_refused_where_it_stands() {
    for (from, to, place, field) in [
        ("user: =input.user, unit", "user: =input.usr, unit", "search:", "usr"),
        ("unit: \"=steps.hold_stock[0].unit\"", "unit: \"=steps.hold_stock[0].box\"", "search:", "box"),
        ("unit: \"=steps.hold_stock[0].unit\"", "unit: =steps.hold_stock.unit", "search:", "unit"),
        ("payer: =waits.pay.provider", "payer: =waits.pay.bank", "search:", "bank"),
        ("payer: =waits.pay.provider", "payer: =waits.hold.bank", "search:", "hold"),
        ("values: {", "values: { first: =values.due, ", "values:", "due"),
        ("template: hello", "template: =steps.open.payment_no", "greet:", "open"),
        ("template: hello", "template: =saga.name", "greet:", "name"),
        ("currency: CNY, expires", "currency: =waits.pay.currency, expires", "with: { amount_minor", "pay"),
        ("currency: CNY, expires", "currency: =steps.open.payment_no, expires", "with: { amount_minor", "open"),
        ("where: =event.amount_minor ==", "where: =event.amount ==", "where:", "amount"),
        ("=event.provider_no,", "=event.provider_id,", "payment.captured: {", "provider_id"),
        ("no: =event.no, user", "no: =event.nr, user", "shop.gift_wanted: {", "nr"),
        ("unit: =item.sku", "unit: =item.unit", "with: { unit", "unit"),
    ] {
        let source = source(&with(from, to).replace("each: =values.goods", "each: =input.lines"));
        let all = complaints(&source);
        let found = all
            .iter()
            .find(|all| all.code == Code::UnknownPath && all.reason.ends_with(&format!("there is no `{field}`")));
        let found = found.unwrap_or_else(|| panic!("{to}: {all:#?}"));
        let line = source.text.lines().nth(found.at.line as usize - 1).unwrap();
        assert!(line.contains(place), "{found:#?} is about {line}");
    }
}

#[test]
fn what_is_known_instead_is_told_when_nothing_is_near() {
    let fix = |to: &str| refused("template: hello", to, Code::UnknownPath, "greet:").fix;
    assert_eq!(fix("template: =values.dues"), Some("did you mean `due`?".to_owned()));
    assert_eq!(fix("template: =values.zzzzzzz"), Some("known here: due, goods".to_owned()));
    assert_eq!(fix("template: =steps.zzzzzzz"), None, "no step has run");
}

#[test]
fn what_fails_on_a_sample_is_told_with_the_sample() {
    for (from, to, place) in [
        ("number: =input.no", "number: =input.note", "saga: gift"),
        ("due: =input.total - 20", "due: =input.total / 0", "saga: gift"),
        ("  - stage: hold", "  - stage: hold\n    when: =input.note", "when:"),
        ("template: hello", "template: \"=input.lines[7].sku\"", "greet:"),
        ("item_key: =item.sku", "item_key: =item.quantity > 0", "hold_stock:"),
        ("within: =input.wait_s", "within: =input.total - 120", "event: payment.captured"),
        ("ask_with: { payment_no: =steps.open.payment_no }", "ask_with: { no: \"=input.lines[7]\" }", "event: payment"),
        ("where: =event.amount_minor == values.due", "where: =event.amount_minor / 0 == 1", "where:"),
        ("number: =event.provider_no, with", "number: =100 / (event.amount_minor - 1), with", "payment.captured: {"),
        ("when: =event.total > 0", "when: =event.total / 0 > 0", "shop.gift_wanted: {"),
    ] {
        let text = with(from, to);
        let all = complaints(&source(&text));
        let found = all.iter().find(|all| all.code == Code::SampleFails);
        let found = found.unwrap_or_else(|| panic!("{to}: {all:#?}"));
        assert!(found.reason.starts_with("on sample `paid`: "), "{}", found.reason);
        let line = text.lines().nth(found.at.line as usize - 1).unwrap();
        assert!(line.contains(place), "{found:#?} is about {line}");
    }
}

#[test]
fn a_dry_run_hands_on_what_was_held_answered_and_taken() {
    let unit = "of: hold_stock, with: { unit: =item.sku },";
    let all = complaints(&source(&with("of: hold_stock,", unit)));
    assert!(
        all.iter().all(|all| all.code == Code::PayloadBreaksSchema && all.reason.contains("unexpected")),
        "{all:#?}"
    );
    // Each amount is 1 or more on the sample, and breaks the schema when one less is taken.
    for amount in ["steps.hold_stock[1].standby", "size(steps.open.payment_no) - 4", "waits.pay.amount_minor - 99"] {
        let refund = |less: usize| format!("payment: =waits.pay, amount_minor: \"={amount} - {less}\" }}, refused");
        accepted("payment: =waits.pay, amount_minor: =values.due }, refused", &refund(0));
        let from = "payment: =waits.pay, amount_minor: =values.due }, refused";
        refused(from, &refund(1), Code::PayloadBreaksSchema, "refund:");
    }
}

#[test]
fn the_first_event_that_fits_is_the_one_that_was_taken() {
    let mut gift = source(&with(
        "payment: =waits.pay, amount_minor: =values.due }, refused",
        "payment: =waits.pay, amount_minor: =int(waits.pay.provider_no) }, refused",
    ));
    assert_eq!(complaints(&gift), []);
    // It would be refunded with nothing.
    let again = SAMPLE.replace("\"saga\": \"s\" }] }", "\"saga\": \"s\" }, AGAIN] }");
    let another = r#"{ "provider": "p", "provider_no": "0", "amount_minor": 100, "currency": "CNY", "saga": "s" }"#;
    gift.samples.insert("paid.json".to_owned(), again.replace("AGAIN", another));
    assert_eq!(complaints(&gift), []);
}

#[test]
fn what_an_event_starts_fits_the_input() {
    let only = refused("user: x,", "user: =event.total,", Code::PayloadBreaksSchema, "shop.gift_wanted: {");
    let reason = "what `shop.gift_wanted` starts does not fit the input schema: /user: 100 is not of type \"string\"";
    assert_eq!(only.reason, reason);
}

#[test]
fn a_condition_goes_both_ways_in_the_samples() {
    for (condition, missing) in [("=input.total > 0", "false"), ("=input.total > 1000", "true")] {
        let step = format!("greet: {{ when: {condition},");
        let only = refused("greet: {", &step, Code::NotCovered, "greet:");
        assert_eq!(only.reason, format!("no sample makes `{condition}` {missing}"));
    }
    refused("  - stage: hold", "  - stage: hold\n    when: =input.total > 0", Code::NotCovered, "when:");
    let never = "  - stage: confirm\n    when: =input.total > 1000";
    let only = refused("  - stage: confirm", never, Code::Unreachable, "- stage: confirm");
    assert_eq!(only.reason, "no sample enters stage `confirm`");
}

#[test]
fn a_sample_speaks_of_what_the_definition_has() {
    let about = |from: &str, to: &str| {
        let mut gift = source(GIFT);
        gift.samples.insert("odd.json".to_owned(), SAMPLE.replacen(from, to, 1));
        complaints(&gift).into_iter().map(|all| (all.code, all.reason)).collect::<Vec<_>>()
    };
    assert_eq!(about("", ""), []);
    for (from, to, reason) in [
        ("\"hold_stock\": [", "\"hold\": [", "there is no step `hold`"),
        ("\"pay\": [", "\"book\": [", "there is no stage `book`"),
        (
            "\"input\":",
            "\"order\": {}, \"input\":",
            "a sample has `order` exactly when the definition declares `order`",
        ),
        ("\"no\": \"1\"", "\"no\": 1", "the input does not fit its schema: /no: 1 is not of type \"string\""),
        (
            "\"amount_minor\": 1,",
            "\"amount_minor\": 0,",
            "sample `odd`: an event of stage `pay` does not fit its schema: /amount_minor: 0 is less than the minimum of 1",
        ),
    ] {
        assert_eq!(about(from, to), [(Code::BadSample, reason.to_owned())]);
    }
}

#[test]
fn a_model_check_that_does_not_finish_says_so() {
    let options = Options { limit: 10, ..Options::default() };
    let all = explore(&loaded(GIFT), &options).unwrap_err();
    assert_eq!(all.iter().map(|all| (all.code, all.at.line)).collect::<Vec<_>>(), [(Code::ModelTooLarge, 1)]);
}
