//! The codes of complaints about definitions, each with its page under docs/errors. Never reused.

/// Declares the codes once: variant, number, title and the page's paragraph.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $title:literal, $page:literal;)*) => {
        /// Kind of a complaint about a definition, a catalogue, a sample or a case.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $(#[doc = $title] $name,)* }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// `E1xxx`, as printed and linked.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// One line.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// Cause and cure.
            #[must_use]
            pub fn explanation(self) -> &'static str {
                match self { $(Self::$name => $page,)* }
            }
        }
    };
}

codes! {
    CannotRead = "E1001", "A file cannot be read",
        "A definition, or a file that it names (its input schema, a sample, a case, a catalogue), could not be read. Schemas are looked up beside the definition, samples in `samples/NAME/`, cases in `cases/NAME/`, catalogues in `catalogue/`. Check the path and its permissions.";
    NotYaml = "E1002", "The text is not YAML",
        "The file is not a YAML document, or it repeats a key. A frequent cause is an expression that holds `: `, `, `, `{` or `[` where YAML gives them a meaning: put it in double quotes, or in a `>-` block. Booleans are `true` and `false` only.";
    UnknownKey = "E1003", "A key that the language does not have",
        "Definitions are closed: a key that is not known is refused, because a misspelt `undo` that is silently ignored would lose money later. The message names the nearest key there is.";
    MissingKey = "E1004", "A required key is missing",
        "The mapping lacks a key without which it has no meaning, such as `call` in a step or `event` in a wait. Add it.";
    WrongValue = "E1005", "A value of the wrong kind",
        "The key is known, its value is not one that it takes: text where a mapping is expected, a word that is none of the allowed ones, a number out of range. The message says what is expected.";
    BadName = "E1006", "A name that cannot be used, or is used twice",
        "Names of sagas, stages, steps, values and reasons are made of `a-z`, `0-9` and `_`, begin with a letter and are at most 64 characters long, because they become parts of ids and of expressions. Step names are unique in a definition, as are stage names.";
    BadDuration = "E1007", "Not a duration",
        "Durations are a whole number and a unit: `500ms`, `5s`, `20m`, `2h`, `7d`. Retry ladders repeat them: `1s x 5`. Nothing may be longer than 366 days.";
    BadExpression = "E1010", "An expression that does not compile",
        "The text after `=` is not a CEL expression. Text in expressions needs quotes; comparison is `==`; conditions are joined with `&&` and `||`.";
    ExpressionTooLarge = "E1011", "An expression that is too long or too deep",
        "Expressions are limited to 2,000 characters and to 32 levels of nesting, so that no definition can exhaust the stack of the process that runs it. Split it with `values`.";
    UnknownReference = "E1012", "An expression names something that is not there",
        "Expressions see `input`, `values`, `steps`, `waits`, `order`, `event`, `item` and `saga`, each only where it has a meaning: `item` under `each`, `event` in a wait's `where` and in the rules of `late` and `starts_on`, `order` in definitions that declare one, `steps.NAME` and `waits.STAGE` only from later stages. Functions are CEL's own and `sum` and `share`.";
    UnknownPath = "E1013", "A path that its schema does not have",
        "The expression reads a field that the schema of its source does not declare: the input schema for `input`, the action's reply for `steps.NAME`, the event's schema for `event` and `waits.STAGE`. There is no run-time default for a missing field; the saga would park. Correct the name, or declare the field.";
    SampleFails = "E1014", "An expression fails on a sample",
        "The expression compiles, but evaluating it on one of the definition's samples is an error: a missing optional field (guard it with `has(...)`), a division by zero, an index out of bounds, text where a number is needed; or its value is of the wrong kind: a condition must yield true or false, `each` a list, `number`, `key`, `owner` and `item_key` text or a whole number, `within` seconds or a duration.";
    UnknownParticipant = "E1020", "No such participant",
        "`call`, `undo` and `ask` name `PARTICIPANT.ACTION`; the participant must be in a catalogue file in the `catalogue/` folder beside the definition, or built in.";
    UnknownAction = "E1021", "The participant has no such action",
        "The participant is known, the action is not. The message names the nearest one.";
    PayloadBreaksSchema = "E1022", "A payload breaks the action's schema",
        "Evaluated on a sample, the `with` of a step is not what the action's schema in the catalogue accepts. The message holds the JSON pointer of the offending value.";
    UnknownEvent = "E1023", "No such event",
        "A wait, a `late` rule or `starts_on` names an event that neither a participant in the catalogue nor the definition's own `events` declares.";
    UnknownReason = "E1024", "A cancel reason that is not declared",
        "`at_deadline: { cancel: REASON }` must name a reason of the definition's `cancel`, so that everybody can see who may cancel and what it does after the pivot.";
    BadCatalogue = "E1025", "A catalogue file is wrong",
        "A catalogue lists participants; each has a `transport` and `actions`. An action's `with` and `reply` are JSON Schemas, its `key` is a required field of `with`, its `undo` another action of the participant, and its `example` fits `reply`.";
    NoUndo = "E1030", "A step before the pivot that nothing undoes",
        "Until the pivot a saga can still be cancelled, so every step that has happened must have a way back: name its `undo`, or write `no_undo: REASON` when there is nothing to give back.";
    NoRefusedRule = "E1031", "A step after the pivot does not say what a refusal means",
        "After the pivot a saga goes forward or runs its reversal; it cannot just be cancelled. A step there must choose: `refused: park` (ask a person), `refused: reverse` (run the reversal), `refused: skip`, or `best_effort: true`.";
    BadReference = "E1032", "`of` names a step that it cannot refer to",
        "`of: X` runs once for each run of step X; X must stand in an earlier stage, and cannot itself use `of`.";
    UnboundedList = "E1033", "A list under `each` without a bound",
        "A step under `each` has one run per item. The list's schema must say `maxItems`, and `item_key` must be unique in it, so that the number of runs is known before the saga starts.";
    Unreachable = "E1034", "A stage that cannot be reached",
        "No sample ever enters the stage: its `when` is never true, or a stage before it always ends the saga. Add a sample, or remove the stage.";
    NoDeadline = "E1035", "A wait without deadline",
        "A saga that waits without `within` and `at_deadline` may wait for ever; every order must reach an end.";
    EndNotReached = "E1036", "An end that no sample reaches",
        "`ends` names an outcome that the model check never sees on any sample, or lacks one that it does see.";
    TooManyRuns = "E1037", "Too many runs",
        "The steps of a definition, each `each` counted with its list's bound, are limited, because the control state of a saga has a fixed size. Lower `maxItems`, or split the saga.";
    MissingEnd = "E1038", "An outcome without a status",
        "`ends` names the status that the customer sees for each outcome. `completed` and `forced` are always needed; `cancelled` when something before the pivot can be undone, `reversed` when anything can reverse.";
    PivotMisplaced = "E1039", "The pivot is misplaced",
        "At most one stage is the pivot. `pivot: start` at the top of a definition makes the whole saga forward only; then no stage may be the pivot.";
    BadSchema = "E1050", "A schema is wrong",
        "A file or value that should be a JSON Schema is not one, or its root does not describe an object.";
    BadSample = "E1051", "A sample is wrong",
        "A sample is a JSON file with `input`, and optionally `replies` by step, `events` by wait, `order` and `key`. Its input must fit the definition's input schema.";
    NotCovered = "E1052", "A condition that samples take only one way",
        "Every `when` must be true for one sample and false for another, so that both ways are checked. Add a sample for the way that is missing.";
    NoSamples = "E1053", "No samples",
        "A definition needs at least one sample in `samples/NAME/`: expressions, payloads and the model check run on samples.";
    VersionChanged = "E1060", "The same version with another text",
        "The database has this version of the definition with another text. A version never changes once it was loaded, because sagas that run it would change under way. Raise `version` in the file and load it again.";
    UnknownSaga = "E1061", "A link to a definition that is not there",
        "`late`, `call: saga.NAME` and `order` name another definition; it must lie beside this one.";
    BadCase = "E1070", "A case is wrong",
        "A case file is a list of cases with `case`, `given`, `when` and `then`; the message says which key is not understood.";
    CaseFailed = "E1071", "A case failed",
        "Run on the pure core, the case did not do what its `then` expects. The message shows the first difference.";
    ModelViolation = "E1080", "The model check found a violation",
        "Exploring every interleaving of replies, timeouts, events and people on the samples, the model check reached a state that breaks an invariant. The message names the invariant and the shortest way there.";
    ModelTooLarge = "E1081", "The model check did not finish",
        "The definition has too many states on one of its samples. Use shorter lists in samples (two items show what many do), or fewer parallel steps of different kinds.";
}

impl Code {
    /// The page under docs/errors.
    #[must_use]
    pub fn page(self) -> String {
        format!("# {}: {}\n\n{}\n", self.label(), self.title(), self.explanation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn labels_are_unique() {
        let labels: BTreeSet<_> = Code::ALL.iter().map(|code| code.label()).collect();
        assert_eq!(labels.len(), Code::ALL.len());
    }

    /// `ENDSTATE_BLESS=1 cargo test` writes the pages.
    #[test]
    fn every_code_has_its_page() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        for code in Code::ALL {
            let path = folder.join(format!("{}.md", code.label()));
            if std::env::var_os("ENDSTATE_BLESS").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, code.page()).unwrap();
            }
            assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), code.page(), "{}", path.display());
        }
    }
}
