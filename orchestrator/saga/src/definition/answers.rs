//! What a loaded definition answers: to the gateway, to lists, to cases, and to `decide` where its text sets a limit.

use super::gift::{GIFT, SAMPLE, SCHEMA, begun, loaded, source, with};
use super::{Definition, OrderReference, Starter, body_hash, shipped};
use crate::control::Outcome;
use crate::plan::{AtDeadline, Items, Program};
use crate::saga::Saga;
use crate::size::PAYLOAD_BYTES;
use endstate_events::{Json, Lane, Transport};
use serde_json::json;
use std::sync::Arc;

fn step(definition: &Definition, name: &str) -> usize {
    definition.plan().step(name).unwrap()
}

#[test]
fn it_tells_what_it_was_made_of() {
    let (gift, texts) = (loaded(GIFT), source(GIFT));
    assert_eq!((&**gift.name(), gift.version()), ("gift", 3));
    assert_eq!(gift.source(), &texts);
    assert_eq!(*gift.input_schema(), serde_json::from_str::<Json>(SCHEMA).unwrap());
    assert!(gift.catalogue().action("stock", "hold").is_some());
    assert_eq!(gift.no_undo(step(&gift, "greet")), Some("said is said"));
    assert_eq!(gift.no_undo(step(&gift, "open")), None);
}

#[test]
fn examples_are_the_samples_or_else_the_catalogues() {
    let gift = loaded(GIFT);
    let mut sample = gift.samples()[0].clone();
    let reply = |sample: &_, name: &str, item| gift.example_reply(sample, step(&gift, name), item);
    assert_eq!(reply(&sample, "hold_stock", 1), json!({ "unit": "b", "quantity": 1, "standby": 1 }), "one per item");
    assert_eq!(reply(&sample, "hold_stock", 2), json!({}), "an item that the sample does not know");
    assert_eq!(reply(&sample, "open", 0)["payment_no"], "pay-1", "the catalogue's");
    sample.replies.insert("open".to_owned(), json!([1, 2]));
    assert_eq!(reply(&sample, "open", 0), json!([1, 2]), "without `each` a list is one reply");
    let captured = gift.plan().event("payment.captured").unwrap();
    assert_eq!(gift.example_event(captured)["provider_no"], "P-1");
}

#[test]
fn who_may_start_one_and_who_tells_an_event() {
    assert_eq!(loaded(GIFT).started_by(), Starter::Service);
    for (word, starter) in [("owner", Starter::Owner), ("service", Starter::Service)] {
        let text = with("search:", &format!("started_by: {word}\nsearch:"));
        assert_eq!(loaded(&text).started_by(), starter);
    }
    let gift = loaded(GIFT);
    assert_eq!(gift.teller("payment.captured"), Some(("payment", &Transport::Builtin)));
    assert_eq!(gift.teller("shop.gift_wanted"), None, "its own event: whoever may send it");
}

#[test]
fn events_are_held_against_their_declarations() {
    let gift = loaded(GIFT);
    let pointers =
        |event: &str, data: Json| gift.event_misfits(event, &data).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(pointers("shop.gift_wanted", json!({ "no": "G", "total": 1 })), [""; 0]);
    assert_eq!(pointers("shop.gift_wanted", json!({ "no": 1, "total": 1 })), ["/no: 1 is not of type \"string\""]);
    assert_eq!(pointers("shop.gift_wanted", json!({ "no": "G" })), ["\"total\" is a required property"]);
    assert_eq!(pointers("payment.captured", json!({ "provider": "p" })).len(), 4, "an event that it waits for");
    assert_eq!(pointers("shop.closed", json!(1)), [""; 0], "nobody waits for it");
}

/// What is built in is ours to keep right; what others answer is looked at.
#[test]
fn replies_from_outside_are_held_against_what_the_catalogue_promises() {
    let mut texts = source(GIFT);
    let shop = "shop:\n  transport: { http: { url: 'http://shop' } }\n  actions:\n    wrap: { reply: { type: object } }\n    \
                tie: { reply: { type: array } }\n    send: {}\n";
    texts.catalogues.insert("catalogue/shop.yaml".to_owned(), shop.to_owned());
    let gift = Definition::load(&texts).unwrap();
    let misfit = |participant: &str, action: &str, data: Json| {
        gift.reply_misfit(participant, action, &data).map(|misfit| misfit.to_string())
    };
    assert_eq!(misfit("shop", "wrap", json!({})), None);
    assert_eq!(misfit("shop", "wrap", json!([])), Some("[] is not of type \"object\"".to_owned()));
    assert_eq!(misfit("shop", "tie", json!([])), None);
    assert_eq!(misfit("shop", "tie", json!({})), Some("{} is not of type \"array\"".to_owned()));
    assert_eq!(misfit("shop", "send", json!(7)), None, "nothing is promised");
    assert_eq!(misfit("stock", "hold", json!(7)), None, "built in");
}

#[test]
fn an_event_of_another_team_becomes_an_input_or_starts_nothing() {
    let gift = loaded(GIFT);
    let input = json!({ "no": "G", "user": "x", "total": 50, "wait_s": 9, "lines": [] });
    assert_eq!(gift.start_input("shop.gift_wanted", &json!({ "no": "G", "total": 50 })), Ok(Some(input)));
    assert_eq!(gift.start_input("shop.gift_wanted", &json!({ "no": "G", "total": 0 })), Ok(None), "`when` is false");
    assert_eq!(gift.start_input("shop.closed", &json!({})), Ok(None), "no rule for it");
    let error = gift.start_input("shop.gift_wanted", &json!({ "no": "G" })).unwrap_err();
    assert_eq!((&*error.place, &*error.reason), ("starts_on.shop.gift_wanted.when", "there is no `total`"));
    let error = gift.start_input("shop.gift_wanted", &json!({ "total": 50 })).unwrap_err();
    assert_eq!((&*error.place, &*error.reason), ("starts_on.shop.gift_wanted.with", "no: there is no `no`"));
}

#[test]
fn the_order_that_a_start_belongs_to_is_named_by_its_input() {
    let refund = Definition::load(&shipped()[2]).unwrap();
    let expected = OrderReference {
        definition: Arc::from("flash_sale_order"),
        number: "O-1".to_owned(),
        outcome: Some(Outcome::Completed),
    };
    assert_eq!(refund.order_reference(&json!({ "order_no": "O-1" })), Ok(Some(expected)));
    assert!(refund.order_reference(&json!({})).is_err());
    assert_eq!(loaded(GIFT).order_reference(&json!({})), Ok(None));
}

#[test]
fn lists_and_details_show_what_is_known() {
    let gift = loaded(GIFT);
    let mut saga = begun(&gift);
    assert_eq!(gift.search_attributes(&saga), json!({ "user": "u" }), "nothing is held or paid yet");
    assert_eq!(gift.view_attributes(&saga), json!({}), "the note is null");
    let captured: Json = serde_json::from_str::<Json>(SAMPLE).unwrap()["events"]["pay"][1].clone();
    saga.data.waits[2] = Arc::new(captured);
    saga.data.input = Arc::new(json!({ "user": "u", "note": "for Ann" }));
    assert_eq!(gift.search_attributes(&saga), json!({ "user": "u", "payer": "p" }));
    assert_eq!(gift.view_attributes(&saga), json!({ "note": "for Ann" }));
}

/// A number's hash lies in the database: a program that computes another one refuses what an older one accepted.
#[test]
fn the_hash_of_a_body_stays_what_it_was() {
    let body = json!({ "b": [1, "x", { "d": null, "c": true }], "a": -2 });
    assert_eq!(body_hash(&body, "key", Lane::Live), "389bdaab830eba95d386ca2b9ba224ba27d2d17f41bad1ef7e8d8527cee452a6");
    let reordered: Json = serde_json::from_str(r#"{ "a": -2, "b": [1, "x", { "c": true, "d": null }] }"#).unwrap();
    assert_eq!(body_hash(&reordered, "key", Lane::Live), body_hash(&body, "key", Lane::Live), "fields have no order");
    let others = [json!({ "a": [1, 2] }), json!({ "a": [2, 1] }), json!({ "a": [12] }), json!({ "a": "[12]" })];
    let mut hashes: Vec<_> = others.iter().map(|body| body_hash(body, "key", Lane::Live)).collect();
    hashes.push(body_hash(&others[0], "yek", Lane::Live));
    hashes.extend([Lane::Test, Lane::Load].map(|lane| body_hash(&others[0], "key", lane)));
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 7, "another body, key or lane has another one");
}

#[test]
fn a_ladder_is_the_steps_own_or_else_the_definitions_or_else_the_usual_one() {
    let ladder = |definition: &Definition, name: &str| {
        let retry = &definition.plan().steps[step(definition, name)].retry;
        (retry.timeout_ms, retry.ask_after_ms, retry.waits_ms.to_vec())
    };
    let gift = loaded(GIFT);
    assert_eq!(ladder(&gift, "greet"), (2_000, 4_000, vec![1_000, 1_000, 30_000]));
    assert_eq!(ladder(&gift, "hold_stock"), (2_000, 4_000, vec![7_000]));
    assert_eq!(ladder(&gift, "open"), (9_000, 8_000, vec![1_000, 1_000, 30_000]));
    let plain = loaded(&with("retry: { timeout: 2s, ask_after: 4s, waits: [1s x 2, 30s] }\n", ""));
    let (timeout_ms, ask_after_ms, waits_ms) = ladder(&plain, "greet");
    assert_eq!((timeout_ms, ask_after_ms, waits_ms.len(), waits_ms.iter().sum()), (5_000, 10_000, 27, 3_905_000));
}

#[test]
fn a_deadline_is_what_its_word_says() {
    let at_deadline = |text: &str| loaded(text).plan().stages[4].wait.as_ref().unwrap().at_deadline;
    for (word, expected) in [("next", AtDeadline::Next), ("reverse", AtDeadline::Reverse), ("park", AtDeadline::Park)] {
        let wait = format!(
            "  - stage: rest\n    wait: {{ event: shop.gift_wanted, within: 1h, at_deadline: {word} }}\nreverse:\n"
        );
        assert_eq!(at_deadline(&with("reverse:\n", &wait)), expected, "{word}");
    }
}

/// A saga whose lines have these keys.
fn saga_with_lines(gift: &Definition, keys: &[String]) -> Saga {
    let mut saga = begun(gift);
    let lines: Vec<_> = keys.iter().map(|key| json!({ "sku": key, "quantity": 1 })).collect();
    saga.data.input = Arc::new(json!({ "user": "u", "total": 120, "lines": lines }));
    saga.data.values = Arc::new(gift.values(&saga).unwrap());
    saga
}

#[test]
fn a_list_has_no_more_items_than_declared_and_its_keys_are_short_and_different() {
    let gift = loaded(GIFT);
    let items = |keys: &[String]| gift.items(step(&gift, "hold_stock"), &saga_with_lines(&gift, keys));
    let keys = |count: usize| (0..count).map(|n| format!("sku-{n}")).collect::<Vec<_>>();
    assert!(matches!(items(&keys(4)), Ok(Items::Each(items)) if items.len() == 4));
    for (wrong, reason) in [
        (keys(5), "5 items, at most 4 were declared"),
        (vec!["k".repeat(129)], "the key is longer than 128 bytes"),
        (vec!["same".to_owned(), "same".to_owned()], "two items have the key `same`"),
    ] {
        assert_eq!(items(&wrong).unwrap_err().reason, reason);
    }
    assert!(matches!(items(&["k".repeat(128)]), Ok(Items::Each(_))));
    assert_eq!(items(&[]), Ok(Items::None));
}

#[test]
fn a_payload_is_routed_by_text_that_is_not_empty_or_by_a_number() {
    let gift = loaded(GIFT);
    let routed = |user: Json| {
        let mut saga = begun(&gift);
        saga.data.input = Arc::new(json!({ "user": user }));
        gift.payload(step(&gift, "greet"), None, &saga).map(|payload| payload.key)
    };
    assert_eq!(routed(json!("ann")), Ok(Some(Arc::from("ann"))));
    assert_eq!(routed(json!(7)), Ok(Some(Arc::from("7"))));
    for wrong in [json!(""), json!(null), json!(["ann"])] {
        let error = routed(wrong.clone()).unwrap_err();
        assert_eq!(error.reason, "`user` routes the command and must be text or a number", "{wrong}");
    }
}

#[test]
fn values_are_limited_in_sum() {
    let gift = loaded(&with("values: {", "values: { one: =input.note, two: =input.note,"));
    let computed = |bytes: usize| {
        let mut saga = begun(&gift);
        saga.data.input = Arc::new(json!({ "note": "x".repeat(bytes), "total": 120, "lines": [] }));
        gift.values(&saga).map_err(|error| error.place)
    };
    assert!(computed(PAYLOAD_BYTES / 2 - 100).is_ok());
    assert_eq!(computed(PAYLOAD_BYTES / 2 + 100), Err("values.two".to_owned()));
}
