//! Commands that nobody here can handle. What is put aside is never answered, so the saga that waits for it is told, in the
//! transaction of the dead letter: it parks, and a person looks. Nothing is said about the effect.

use endstate_events::{
    Command, EffectId, Envelope, Input, InputBody, Lane, Message, Reply, ReplyTo, SCHEMA_VERSION, Verdict,
};
use endstate_outbox::{Outgoing, Poisoned};
use serde::Deserialize;

/// Characters of a reason that the saga is told; the letter has all of it.
const REASON: usize = 300;

/// As much of a command as it takes to answer it.
#[derive(Deserialize)]
struct Torn {
    message: TornMessage,
}

#[derive(Deserialize)]
struct TornMessage {
    data: TornCommand,
}

#[derive(Deserialize)]
struct TornCommand {
    effect_id: EffectId,
    reply_to: ReplyTo,
}

/// What the saga is told whose command a record was; none when it was no command, or nobody can tell whose.
pub(crate) fn poisoned(record: &Poisoned, now_ms: i64) -> Option<Outgoing> {
    match &record.record {
        Ok(envelope) => match &envelope.message {
            Message::Command(command) => notice(command, envelope.lane, &record.reason, now_ms),
            Message::Input(_)
            | Message::Answer(_)
            | Message::Inquired(_)
            | Message::Domain(_)
            | Message::Reply(_)
            | Message::Foreign(_)
            | Message::Letter(_) => None,
        },
        Err(bytes) => {
            let torn: Torn = serde_json::from_str(bytes).ok()?;
            let TornCommand { effect_id, reply_to } = torn.message.data;
            told(effect_id, reply_to, Lane::Live, &record.reason, now_ms)
        }
    }
}

/// What the saga is told whose command is put aside for this reason.
pub(crate) fn notice(command: &Command, lane: Lane, reason: &str, now_ms: i64) -> Option<Outgoing> {
    told(command.effect_id.clone(), command.reply_to, lane, reason, now_ms)
}

fn told(effect_id: EffectId, to: ReplyTo, lane: Lane, reason: &str, now_ms: i64) -> Option<Outgoing> {
    if crate::operation::is_operation(&effect_id) {
        return None;
    }
    let saga = effect_id.saga;
    let verdict = Verdict::put_aside(format!("put aside: {}", harmless(reason)));
    let envelope = Envelope {
        id: format!("{effect_id}:put_aside"),
        schema: SCHEMA_VERSION,
        time_ms: now_ms,
        key: saga.to_string(),
        lane,
        message: Message::Input(Input { saga, body: InputBody::Reply(Reply { effect_id, verdict }) }),
    };
    Some(Outgoing { topic: to.topic, partition: to.partition, envelope: envelope.into() })
}

/// What made a record poison must not get into the reply: no control characters, and not too much of it.
fn harmless(text: &str) -> String {
    let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(REASON).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use endstate_events::{Direction, SagaId, Slot, Topic};
    use serde_json::json;

    fn told_of(bytes: serde_json::Value) -> Option<Outgoing> {
        poisoned(&Poisoned { record: Err(bytes.to_string()), reason: "no such kind".to_owned() }, 5)
    }

    #[test]
    fn z10_a_torn_command_is_told_of_as_long_as_it_says_whose_it_is() {
        let saga = SagaId::mint(1, Slot::of("k"), 7);
        let effect_id = EffectId { saga, step: "hold".into(), item: "1".into(), direction: Direction::Do, round: 2 };
        let reply_to = json!({ "topic": "progress", "partition": 3 });
        let torn = |data| json!({ "id": "x", "message": { "kind": "riddle", "data": data } });
        let outgoing = told_of(torn(json!({ "effect_id": effect_id, "reply_to": reply_to, "kind": 9 }))).unwrap();
        assert_eq!((outgoing.topic, outgoing.partition), (Topic::Progress, 3));
        let Message::Input(Input { saga: to, body: InputBody::Reply(reply) }) = &outgoing.envelope.message else {
            panic!()
        };
        assert_eq!((*to, &reply.effect_id), (saga, &effect_id));
        assert_eq!(reply.verdict, Verdict::put_aside("put aside: no such kind"));

        assert!(told_of(torn(json!({ "effect_id": effect_id }))).is_none(), "nobody knows where to");
        assert!(told_of(torn(json!({ "reply_to": reply_to }))).is_none(), "nor what for");
        assert!(told_of(json!("?")).is_none());
        let of_people = EffectId { step: crate::operation::STEP.to_owned(), ..effect_id };
        assert!(told_of(torn(json!({ "effect_id": of_people, "reply_to": reply_to }))).is_none(), "no saga waits");
    }
}
