//! What loading refuses, rule by rule, up to the last name and number that it accepts.

use super::Code;
use super::tests::{SCHEMA, SOUND, complaints, refused, source};

#[test]
fn names_begin_with_a_letter_and_are_short() {
    let longest = "n".repeat(64);
    assert_eq!(complaints(&source(&SOUND.replace("      tell:", &format!("      {longest}:")))), []);
    for name in ["sAle", "1sale", "_sale", "sa-le", "saLE", &"n".repeat(65)] {
        refused("      tell:", &format!("      {name}:"), Code::BadName, name);
        refused("  unpaid:", &format!("  {name}: {{ role: x }}\n  unpaid:"), Code::BadName, name);
    }
}

#[test]
fn every_key_wants_a_value_of_its_kind() {
    for (from, to, place, reason) in [
        ("status: created", "status: [created]", "status", "`status` is text, this is a list"),
        ("undo: stock.release", "undo: 7", "undo: 7", "`undo` is text, this is a number"),
        ("pivot: true", "pivot: {}", "pivot: {}", "`pivot` is true or false, this is a mapping"),
        ("search: { user: =input.user }", "search: user", "search", "`search` is a mapping, this is text"),
        ("call: stock.hold", "call: hold", "call: hold", "`call` is PARTICIPANT.ACTION, not `hold`"),
        ("  unpaid: { role: deadline }", "  unpaid: true", "unpaid", "a cancel reason is a mapping, this is a boolean"),
        ("within: 20m", "within: 20", "within: 20", "`within` is text, this is a number"),
        ("number: =input.no", "number: input.no", "number", "`number` is an expression"),
    ] {
        assert_eq!(refused(from, to, Code::WrongValue, place).reason, reason);
    }
}

#[test]
fn what_is_not_yaml_is_told_without_the_parsers_own_place() {
    let found = refused("search: { user: =input.user }", "search: { user: =input.user, }}", Code::NotYaml, "search:");
    assert_eq!(found.to_string(), "sale.yaml:7:31: error[E1002]: misplaced bracket");
}

#[test]
fn one_fault_is_one_complaint() {
    for (from, to, code) in [
        ("event: payment.captured", "event: payment.captred", Code::UnknownEvent),
        ("key: =input.user\n", "order: { saga: sale }\n", Code::MissingKey),
        ("input: in.json", "input: out.json", Code::CannotRead),
    ] {
        let codes: Vec<_> = complaints(&source(&SOUND.replacen(from, to, 1))).iter().map(|all| all.code).collect();
        assert_eq!(codes, [code], "{to}");
    }
    let mut formless = source(SOUND);
    formless.schemas.insert("in.json".into(), r#"{ "type": "object" }"#.into());
    assert_eq!(
        complaints(&formless)[0].to_string(),
        "sale.yaml:3:8: error[E1050]: the schema of an input describes an object and has `properties`"
    );
}

#[test]
fn an_owner_starts_their_own_and_a_linked_saga_is_started_by_no_event() {
    let sound = SOUND.replace("owner: =input.user\n", "owner: =input.user\nstarted_by: owner\n");
    assert_eq!(complaints(&source(&sound)), []);
    let link = "started_by: link\nstarts_on:\n  payment.captured: { with: { no: x } }\nowner: =input.user\n";
    let found = refused("owner: =input.user\n", link, Code::WrongValue, "started_by: link");
    assert_eq!(found.reason, "`started_by: link` and `starts_on` exclude each other");
}

#[test]
fn before_the_pivot_a_deadline_does_not_reverse() {
    let found = refused("{ cancel: unpaid }", "reverse", Code::WrongValue, "event: payment.captured");
    assert_eq!(found.fix.as_deref(), Some("write `at_deadline: { cancel: REASON }`"));
}

#[test]
fn without_a_pivot_there_is_nothing_to_reverse() {
    let calm = SOUND
        .replace("    pivot: true\n", "")
        .replace(", reversed: refunded", "")
        .replace("refused: reverse", "refused: park")
        .replace("best_effort: true,", "best_effort: true, no_undo: said is said,");
    assert_eq!(complaints(&source(&calm)), []);
    for (from, to) in [
        ("refused: park", "refused: reverse"),
        ("role: deadline }", "role: deadline, after_pivot: reverse }"),
        ("{ cancel: unpaid }", "reverse"),
        (
            "cancel:\n",
            "reverse:\n  - stage: back\n    steps: { tell_back: { call: notify.send, best_effort: true, with: { user: =input.user, template: x } } }\ncancel:\n",
        ),
    ] {
        assert!(calm.contains(from));
        let all = complaints(&source(&calm.replacen(from, to, 1)));
        assert!(all.iter().any(|all| all.code == Code::PivotMisplaced && all.at.line == 1), "{to}: {all:#?}");
    }
}

#[test]
fn a_pivot_is_one_and_lies_ahead() {
    let back = "reverse:\n  - stage: back\n    pivot: true\n    steps: { tell_back: { call: notify.send, best_effort: true, with: { user: =input.user, template: x } } }\ncancel:\n";
    let found = refused("cancel:\n", back, Code::PivotMisplaced, "pivot: true");
    assert_eq!(found.reason, "there is one pivot, and it is a forward stage");
    let no_pivot = SOUND.replace("    pivot: true\n", "").replace("cancel:\n", back);
    let all = complaints(&source(&no_pivot));
    assert!(all.iter().any(|all| all.reason == "there is one pivot, and it is a forward stage"), "{all:#?}");
    let from_the_start = SOUND
        .replace("    pivot: true\n", "")
        .replace("stages:\n", "pivot: start\nstages:\n")
        .replace("        undo: stock.release\n", "        undo: stock.release\n        refused: park\n")
        .replace(", cancelled: closed", "");
    let codes: Vec<_> = complaints(&source(&from_the_start)).iter().map(|all| all.code).collect();
    assert!(!codes.contains(&Code::MissingEnd) && !codes.contains(&Code::PivotMisplaced), "{codes:?}");
}

#[test]
fn a_definition_may_be_as_large_as_its_limits_and_no_larger() {
    let text = SOUND.replace(
        "      tell: {",
        "      more: { call: notify.send, best_effort: true, with: { user: =input.user, template: x } }\n      tell: {",
    );
    let runs = |items: usize| {
        let mut large = source(&text);
        large.schemas.insert("in.json".into(), SCHEMA.replace("\"maxItems\": 4", &format!("\"maxItems\": {items}")));
        complaints(&large).iter().map(|all| all.reason.clone()).collect::<Vec<_>>()
    };
    assert_eq!(runs(79), [""; 0], "160 runs: two for each item, and two more");
    assert_eq!(runs(80), ["162 runs (steps, each `each` counted with its `maxItems`), at most 160 are possible"]);
    let stages = |more: usize| {
        let stage = |n| {
            format!(
                "  - stage: more_{n}\n    steps: {{ tell_{n}: {{ call: notify.send, best_effort: true, with: {{ user: =input.user, template: x }} }} }}\n"
            )
        };
        let more: String = (0..more).map(stage).collect();
        complaints(&source(&SOUND.replace("cancel:\n  unpaid", &format!("{more}cancel:\n  unpaid"))))
            .iter()
            .map(|all| all.reason.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(stages(21), [""; 0]);
    assert_eq!(stages(22), ["25 stages, at most 24 are possible"]);
}

#[test]
fn a_list_of_values_is_bounded_by_what_it_is_made_from() {
    let each = |values: &str| {
        let text = SOUND
            .replace("values: {", &format!("values: {{ {values},"))
            .replace("each: =input.lines", "each: =values.list");
        complaints(&source(&text)).iter().map(|all| all.code).collect::<Vec<_>>()
    };
    assert_eq!(each("\"few\": \"=input.lines.filter(l, l.quantity > 0)\", \"list\": \"=values.few.map(l, l)\""), []);
    assert!(each("\"list\": \"=input.open\"").contains(&Code::UnboundedList));
    // Values that are made from each other bound nothing, and end nowhere.
    assert!(each("\"other\": \"=values.list\", \"list\": \"=values.other\"").contains(&Code::UnboundedList));
}

#[test]
fn of_refers_to_a_step_of_an_earlier_stage() {
    let found = refused("of: hold_stock", "of: hold_stok", Code::BadReference, "hold_stok");
    assert_eq!(found.fix.as_deref(), Some("did you mean `hold_stock`?"));
    let found = refused(
        "      tell: {",
        "      tell2: { of: confirm_stok, call: notify.send, best_effort: true, with: { user: =input.user, template: x } }\n      tell: {",
        Code::BadReference,
        "tell2",
    );
    assert_eq!(found.fix, None, "a step of its own stage is not meant");
    let found =
        refused("best_effort: true, with", "best_effort: true, of: confirm_stock, with", Code::BadReference, "tell:");
    assert_eq!(found.reason, "`confirm_stock` runs in the same stage: there is no earlier run to refer to");
}
