//! Operators' changes: opening and adjusting stock, points and coupons in bulk (B9). They are commands like any other,
//! because only the owner of an account writes it (Z4); their effect ids come from the operation's id, so that sending
//! a file twice changes nothing.

use endstate_events::{
    Command, CommandKind, Direction, EffectId, Envelope, Json, Lane, Message, ReplyTo, SCHEMA_VERSION, SagaId, Slot,
    Topic,
};
use endstate_outbox::Outgoing;
use sha2::{Digest, Sha256};

/// The step's name in effect ids of operators' changes; no definition can have it.
pub const STEP: &str = "@operation";

/// One line of an operator's change.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// `stock`, `coupon` or `points`.
    pub participant: String,
    /// `open`, `adjust` or `void`.
    pub action: String,
    /// The payload: `{unit, quantity, standby}`, `{unit, delta, standby}`, `{coupon, user}` or `{user, delta}`.
    pub with: Json,
}

/// A line that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// No such change.
    #[error(
        "E5020: line {line}: there is no `{action}`; there are stock.open, stock.adjust, coupon.open, coupon.void and points.adjust"
    )]
    Unknown {
        /// Counted from 1.
        line: usize,
        /// What was asked.
        action: String,
    },
    /// The payload does not name what it changes.
    #[error("E5021: line {line}: `with` needs the text `{field}`")]
    Missing {
        /// Counted from 1.
        line: usize,
        /// The field.
        field: &'static str,
    },
}

/// The messages that make a change. `operation` is chosen by the operator; the same id again is the same change.
pub fn messages(
    operation: &str,
    lines: &[Line],
    lane: Lane,
    partitions: u16,
    now_ms: i64,
) -> Result<Vec<Outgoing>, LineError> {
    let message = |(index, line): (usize, &Line)| {
        let key = key(index + 1, line)?;
        let partition = Slot::of(key).partition(partitions);
        let effect_id = effect_id(operation, index + 1);
        let envelope = Envelope {
            id: effect_id.to_string(),
            schema: SCHEMA_VERSION,
            time_ms: now_ms,
            key: key.to_owned(),
            lane,
            message: Message::Command(Command {
                effect_id,
                kind: CommandKind::Do,
                participant: line.participant.clone(),
                action: line.action.clone(),
                number: operation.to_owned(),
                definition: STEP.to_owned(),
                definition_version: 0,
                key: key.to_owned(),
                with: line.with.clone(),
                of: None,
                reply_to: ReplyTo { topic: Topic::Commands, partition },
            }),
        };
        Ok(Outgoing { topic: Topic::Commands, partition, envelope: envelope.into() })
    };
    lines.iter().enumerate().map(message).collect()
}

fn key(number: usize, line: &Line) -> Result<&str, LineError> {
    let field = match (line.participant.as_str(), line.action.as_str()) {
        ("stock", "open" | "adjust") => "unit",
        ("coupon", "open" | "void") | ("points", "adjust") => "user",
        (participant, action) => {
            return Err(LineError::Unknown { line: number, action: format!("{participant}.{action}") });
        }
    };
    line.with[field].as_str().ok_or(LineError::Missing { line: number, field })
}

fn effect_id(operation: &str, line: usize) -> EffectId {
    let digest = Sha256::digest(operation);
    let random = u64::from_be_bytes(std::array::from_fn(|i| digest[i]));
    EffectId {
        saga: SagaId::mint(0, Slot::of(operation), random),
        step: STEP.to_owned(),
        item: format!("{operation}/{line}"),
        direction: Direction::Do,
        round: 0,
    }
}

/// Whether an effect is an operator's change; no saga waits for its reply.
#[must_use]
pub fn is_operation(id: &EffectId) -> bool {
    id.step == STEP
}
