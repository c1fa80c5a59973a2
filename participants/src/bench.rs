//! Participants that do nothing and write nothing, for measuring everything around them.

use endstate_events::{Command, CommandKind, Verdict};

/// The participant's name.
pub(crate) const NAME: &str = "bench";

/// Done, unless the payload says `fail`. Nothing is recorded, so an ask has never seen it and the command is repeated.
#[must_use]
pub(crate) fn decide(command: &Command) -> Verdict {
    let fails = command.with.get("fail").and_then(serde_json::Value::as_bool) == Some(true);
    match command.kind {
        CommandKind::Do if fails => Verdict::Refused { code: "bench.failed".to_owned(), detail: String::new() },
        CommandKind::Do | CommandKind::Undo => Verdict::Done { data: serde_json::json!({}) },
        CommandKind::Ask => Verdict::NeverSeen,
    }
}
