//! Cases of the shipped definitions, run on the pure core.

use super::*;
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
