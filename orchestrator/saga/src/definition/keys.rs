//! The keys of the language, as files spell them. The published schemas are tested against these lists.

/// Keys of a definition.
pub(crate) const DEFINITION: [&str; 21] = [
    "saga",
    "version",
    "description",
    "input",
    "number",
    "key",
    "owner",
    "started_by",
    "search",
    "view",
    "values",
    "retry",
    "pivot",
    "stages",
    "reverse",
    "cancel",
    "late",
    "starts_on",
    "order",
    "events",
    "ends",
];

/// Keys of a stage.
pub(crate) const STAGE: [&str; 6] = ["stage", "status", "when", "steps", "wait", "pivot"];

/// Keys of a step.
pub(crate) const STEP: [&str; 12] = [
    "call",
    "each",
    "item_key",
    "when",
    "with",
    "undo",
    "no_undo",
    "of",
    "refused",
    "best_effort",
    "parked_status",
    "retry",
];

/// Keys of a wait.
pub(crate) const WAIT: [&str; 8] =
    ["event", "where", "mismatch", "within", "ask", "ask_with", "at_deadline", "description"];

/// Keys of a participant.
pub(crate) const PARTICIPANT: [&str; 4] = ["description", "transport", "actions", "events"];

/// Keys of an action.
pub(crate) const ACTION: [&str; 7] = ["description", "with", "reply", "example", "key", "undo", "refusals"];

/// Keys of an event's declaration.
pub(crate) const EVENT: [&str; 3] = ["description", "schema", "example"];
