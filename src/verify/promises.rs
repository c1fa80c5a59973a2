//! What every participant promises (docs/participants.md): what each check expects, and what to do for it.

use serde::Serialize;

/// One promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Check {
    Done,
    Twice,
    Concurrent,
    AskedBefore,
    AskedAfter,
    Conflict,
    Refused,
    UndoneTwice,
    ToldAfterUndo,
    UndoneFirst,
    OldRelease,
}

impl Check {
    /// All of them, in the order in which they are best mended.
    pub(crate) const ALL: [Self; 11] = [
        Self::Done,
        Self::Twice,
        Self::Concurrent,
        Self::AskedBefore,
        Self::AskedAfter,
        Self::Conflict,
        Self::Refused,
        Self::UndoneTwice,
        Self::ToldAfterUndo,
        Self::UndoneFirst,
        Self::OldRelease,
    ];

    /// The spelling on the command line and in output.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Twice => "twice",
            Self::Concurrent => "concurrent",
            Self::AskedBefore => "asked_before",
            Self::AskedAfter => "asked_after",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::UndoneTwice => "undone_twice",
            Self::ToldAfterUndo => "told_after_undo",
            Self::UndoneFirst => "undone_first",
            Self::OldRelease => "old_release",
        }
    }

    /// What it expects.
    pub(crate) fn expects(self) -> &'static str {
        match self {
            Self::Done => "a command is answered `done`, with data that fits its `reply` schema",
            Self::Twice => "the same command again is answered the same",
            Self::Concurrent => "told eight times at once, it answers the same, or `unknown`, and then the same",
            Self::AskedBefore => {
                "asked about an id it never saw it says `never_seen`, and still does the command later"
            }
            Self::AskedAfter => "asked about what it did, or undid, it answers as it did then",
            Self::Conflict => "the same id with another body changes nothing, and is never `done`",
            Self::Refused => {
                "a refusal has a code of the catalogue, stays one when told or asked again, and can be undone"
            }
            Self::UndoneTwice => "an undo is answered `done`, and again `done`",
            Self::ToldAfterUndo => "a command that comes again after its undo is answered as before, and stays undone",
            Self::UndoneFirst => "an undo of what it never saw is `done`, and the late command is `refused`",
            Self::OldRelease => "an undo that comes again leaves what was done since under another id",
        }
    }

    /// What a participant that fails it has to do.
    pub(crate) fn mend(self) -> &'static str {
        match self {
            Self::Done => {
                "do the command, and answer with data as the catalogue describes it; or give --with a payload that can be done"
            }
            Self::Twice => {
                "remember the answer under the effect id, in one transaction with the effect, and give it again"
            }
            Self::Concurrent => {
                "let the effect id be a unique key that is written first; whoever comes second waits or answers unknown"
            }
            Self::AskedBefore => "answer a question from what is remembered, and remember nothing by being asked",
            Self::AskedAfter => "answer a question from the same record that answers a repeat",
            Self::Conflict => {
                "keep the body (action, with, of) beside the effect id; another one is unknown (over HTTP: 422)"
            }
            Self::Refused => "remember refusals like everything else, under the codes that the catalogue lists",
            Self::UndoneTwice => "remember the undo under its own effect id; there is nothing that it could refuse",
            Self::ToldAfterUndo => "keep the record of the effect when it is undone, and never make the effect again",
            Self::UndoneFirst => {
                "leave a tombstone under the id in `of`: the late command is refused with `released_before`"
            }
            Self::OldRelease => "undo what `of.effect_id` names, the round included, and nothing else",
        }
    }
}

/// What came of a check of one action.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) action: String,
    pub(crate) check: Check,
    pub(crate) expected: &'static str,
    /// `ok`, `failed` or `skipped`.
    pub(crate) result: &'static str,
    /// What was answered instead, or why it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) said: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mend: Option<&'static str>,
}
