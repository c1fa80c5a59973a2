//! Cases of the shipped definitions, run on the pure core.

use super::*;
use crate::definition::gift::{loaded, with};
use crate::definition::shipped;

#[test]
fn the_shipped_cases_pass_and_cover_their_definitions() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sagas");
    for source in shipped() {
        let definition = Definition::load(&source).unwrap();
        let files = CaseFile::beside(&folder.join(&source.file), definition.name());
        let report = run_cases(&definition, &files);
        let failures: Vec<_> = report.failures.iter().map(ToString::to_string).collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        assert!(!report.passed.is_empty(), "{}", definition.name());
        assert_eq!(report.uncovered, Vec::<String>::new(), "{}", definition.name());
    }
}

#[test]
fn a_case_that_fails_says_what_differs_and_where() {
    let source = shipped().remove(0);
    let definition = Definition::load(&source).unwrap();
    let text = "- case: wrong\n  given: { sample: ok }\n  when:\n    - done: reserve\n  then: { status: reserving }\n\
                - case: nonsense\n  given: { sample: ok }\n  when:\n    - done: reserv\n  then: {}\n";
    let report = run_cases(&definition, &[CaseFile { file: "c.yaml".into(), text: text.into() }]);
    let failures: Vec<_> = report.failures.iter().map(ToString::to_string).collect();
    assert_eq!(failures[0], "c.yaml:5:9: error[E1071]: wrong: status is `locking`, expected `reserving`");
    assert_eq!(failures[1], "c.yaml:9:13: error[E1070]: there is no step `reserv`\n  help: did you mean `reserve`?");
    assert!(report.uncovered.contains(&"step deduct is refused".to_owned()));
}

/// Failures of one case on the benchmark's definition, as they are printed.
fn failures(given: &str, when: &str, then: &str) -> Vec<String> {
    let definition = Definition::load(&shipped()[0]).unwrap();
    let text = format!("- case: it\n  given: {given}\n  when: {when}\n  then: {then}\n");
    let report = run_cases(&definition, &[CaseFile { file: "c.yaml".into(), text }]);
    report.failures.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_expected_is_compared_and_the_first_difference_is_told() {
    for (when, then, difference) in [
        ("[done: reserve]", "{ sent: [reserve] }", "sent is [reserve, lock], expected [reserve]"),
        ("[done: reserve]", "{ statuses: [] }", "statuses is [reserving, locking], expected []"),
        ("[done: reserve]", "{ linked: [x] }", "linked is [], expected [x]"),
        ("[done: reserve]", "{ discrepancies: 1 }", "0 discrepancies, expected 1"),
        ("[done: reserve]", "{ outcome: completed }", "outcome is `none`, expected `completed`"),
        ("[done: reserve]", "{ phase: ended }", "phase is `running`, expected `ended`"),
        ("[refused: reserve]", "{ reason: other }", "reason is `bench.failed`, expected `other`"),
        ("[cancel: odd]", "{ status: reserving }", "a move was turned down: unknown_reason"),
        ("[cancel: odd]", "{ denied: other }", "denied is `unknown_reason`, expected `other`"),
    ] {
        assert_eq!(failures("{ sample: ok }", when, then), [format!("c.yaml:4:9: error[E1071]: it: {difference}")]);
    }
    assert_eq!(failures("{ sample: ok }", "[cancel: odd]", "{ denied: unknown_reason, discrepancies: 0 }"), [""; 0]);
}

#[test]
fn an_answer_that_nobody_awaits_is_told_with_what_is_awaited() {
    for (when, reason) in [
        ("[done: lock]", "no command awaits this answer; awaited: reserve"),
        ("[silence: lock]", "no such command is awaited; awaited: reserve"),
        ("[done: undo reserve]", "no command awaits this answer; awaited: reserve"),
        (
            "[{ done: reserve }, { refused: lock }, { done: lock }]",
            "no command awaits this answer; awaited: undo reserve",
        ),
        ("[{ refused: reserve }, { done: reserve }]", "no command awaits this answer; awaited: nothing"),
        ("[done: ask pay]", "nothing was asked"),
    ] {
        let found = failures("{ sample: ok }", when, "{}");
        assert!(found.len() == 1 && found[0].ends_with(&format!("error[E1071]: it: {reason}")), "{when}: {found:?}");
    }
}

#[test]
fn every_answer_is_its_own() {
    let sent = |when: &str, sent: &str, facts: &str| {
        assert_eq!(failures("{ sample: ok }", when, &format!("{{ sent: {sent}, {facts} }}")), [""; 0], "{when}");
    };
    sent("[{ unknown: reserve }, { advance: 1s }]", "[reserve, ask reserve]", "phase: running");
    sent("[{ advance: 10s }, { unknown: reserve }]", "[reserve, ask reserve]", "phase: running");
    sent("[{ advance: 10s }, { never_seen: reserve }]", "[reserve, ask reserve, reserve]", "phase: running");
    assert_eq!(
        failures("{ sample: ok }", "[{ silence: reserve }, { done: undo reserve }]", "{ outcome: cancelled }"),
        [""; 0]
    );
    sent("[operate: compensate]", "[reserve, undo reserve]", "phase: compensating");
    sent("[operate: { force: completed }]", "[reserve]", "outcome: forced");
    sent("[refused: { step: reserve, code: odd }]", "[reserve]", "reason: odd");
}

#[test]
fn a_case_that_makes_no_sense_is_told_where() {
    for (given, when, then, complaint) in [
        (
            "{ sample: oky }",
            "[]",
            "{}",
            "c.yaml:2:10: error[E1070]: there is no sample `oky`\n  help: did you mean `ok`?",
        ),
        (
            "{ sample: ok, input: { number: 7 } }",
            "[]",
            "{}",
            "c.yaml:2:10: error[E1070]: the input does not fit its schema: /number: 7 is not of type \"string\"",
        ),
        ("{ sample: ok }", "[done]", "{}", "c.yaml:3:10: error[E1070]: a move is a mapping with one key"),
        (
            "{ sample: ok }",
            "[{ done: reserve, refused: lock }]",
            "{}",
            "c.yaml:3:10: error[E1070]: a move is a mapping with one key",
        ),
        (
            "{ sample: ok }",
            "[{ doen: reserve }]",
            "{}",
            "c.yaml:3:12: error[E1070]: there is no move `doen`\n  help: did you mean `done`?",
        ),
        ("{ sample: ok }", "[{ event: pay }]", "{}", "c.yaml:3:19: error[E1070]: there is no stage `pay` with a wait"),
        (
            "{ sample: ok }",
            "[{ event: { name: odd } }]",
            "{}",
            "c.yaml:3:19: error[E1070]: the definition knows no event `odd`",
        ),
        (
            "{ sample: ok }",
            "[{ event: { id: odd } }]",
            "{}",
            "c.yaml:3:19: error[E1070]: an event names its `stage` or its `name`",
        ),
        (
            "{ sample: ok }",
            "[{ operate: {} }]",
            "{}",
            "c.yaml:3:21: error[E1070]: `operate` is retry, compensate, { force: completed | cancelled } or { wake: STEP }",
        ),
        (
            "{ sample: ok }",
            "[]",
            "{ stauts: x }",
            "c.yaml:4:11: error[E1003]: an expectation has no key `stauts`\n  help: did you mean `status`?",
        ),
    ] {
        assert_eq!(failures(given, when, then), [complaint]);
    }
}

#[test]
fn a_saga_whose_values_cannot_be_computed_does_not_begin() {
    let gift = loaded(&with("due: =input.total - 20", "due: =100 / input.total"));
    let text = "- case: it\n  given: { sample: paid, input: { total: 0 } }\n  when: []\n  then: {}\n".to_owned();
    let report = run_cases(&gift, &[CaseFile { file: "c.yaml".into(), text }]);
    let failures: Vec<_> = report.failures.iter().map(ToString::to_string).collect();
    assert_eq!(failures, ["c.yaml:1:3: error[E1071]: it: bad_input"]);
}
