//! Messages that nobody can handle. What goes to the dead letters is missing somewhere: the saga that it was for parks
//! until a person has looked, has perhaps sent the letter again, and lets it go on.

use super::{Working, outgoing};
use crate::persist::Stored;
use endstate_events::{EffectId, Envelope, Input, InputBody, Lane, Message, Reply, ReplyTo, SagaId, Topic, Verdict};
use endstate_outbox::{Alert, Poisoned};
use endstate_saga::decide::decide_dead_letter;
use serde::Deserialize;
use std::fmt::Display;
use std::sync::Arc;

/// Characters of a reason that an event keeps; the letter has all of it.
const REASON: usize = 500;

/// As much of an input as can be read of almost any.
#[derive(Deserialize)]
struct Torn {
    id: String,
    message: TornMessage,
}

#[derive(Deserialize)]
struct TornMessage {
    data: TornInput,
}

#[derive(Deserialize)]
struct TornInput {
    saga: SagaId,
}

/// The saga that a record was for, and the input's id; none when it was for no saga, or nobody can tell.
fn addressee(poisoned: &Poisoned) -> Option<(SagaId, String)> {
    match &poisoned.record {
        // What a stranger writes changes no saga; the saga asks again by itself.
        Ok(envelope) => envelope.message.as_input().map(|input| (input.saga, envelope.id.clone())),
        Err(bytes) => {
            let torn: Torn = serde_json::from_str(bytes).ok()?;
            Some((torn.message.data.saga, torn.id))
        }
    }
}

/// The saga that a record was for, as far as anybody can tell.
#[must_use]
pub fn saga_of(poisoned: &Poisoned) -> Option<SagaId> {
    addressee(poisoned).map(|(saga, _)| saga)
}

impl Working {
    /// Leaves a due saga for later whose timers nobody can carry out, and tells people why.
    pub fn put_off(&mut self, id: SagaId, reason: &str) {
        tracing::error!(saga = %id, reason, "E4036: what is due of a saga cannot be carried out");
        let text = format!("E4036: what is due of saga {id} cannot be carried out, and is tried again: {reason}");
        let alert = Alert::new("timer", &[&id, &reason], text, self.now_ms);
        let named = self.stored.get(&id).map(|Stored { saga, .. }| (saga.definition.clone(), saga.number.clone()));
        let (definition, number) = named.unwrap_or_else(|| ("".into(), "".into()));
        self.pages.alert(alert.of(id, definition, number));
        self.put_off.push(id);
    }

    /// Puts a message aside for good.
    pub fn bury(&mut self, topic: Topic, envelope: &Arc<Envelope>, reason: String) {
        tracing::error!(id = %envelope.id, %reason, "E4032: a message goes to the dead letters");
        if let Some(input) = envelope.message.as_input()
            && !self.tell_caller(envelope, &reason)
        {
            self.tell(input.saga, &envelope.id, Some(envelope), &reason);
        }
        self.outcome.dead_letters.push((topic, Arc::clone(envelope), reason));
    }

    /// A record of this batch went to the dead letters: its saga parks. Without a saga, people are told.
    pub fn poisoned(&mut self, poisoned: &Poisoned) {
        let Some((saga, input)) = addressee(poisoned) else { return };
        let (input, reason) = (harmless(&input), harmless(&poisoned.reason));
        let ours = saga.slot().partition(self.partitions) == self.assignment.shard.index;
        if !ours || !self.open(saga) {
            let envelope = poisoned.record.as_ref().ok();
            if !envelope.is_some_and(|envelope| self.tell_caller(envelope, &reason)) {
                self.tell(saga, &input, envelope, &reason);
            }
            return;
        }
        let setting = self.setting();
        let Some(copy) = self.copies.get_mut(&saga) else { return };
        let Some(before) = copy.saga.take() else { return };
        let decision = decide_dead_letter(&*copy.definition, before, &input, &reason, setting);
        self.take(saga, self.now_ms, decision);
    }

    /// The start of a called saga is put aside: the saga whose step waits for it is told, parks, and tells people. False when
    /// nobody waits.
    fn tell_caller(&mut self, envelope: &Envelope, reason: &str) -> bool {
        let start = envelope.message.as_input().and_then(crate::consume::start_of);
        let Some((effect_id, to)) = start.and_then(|start| start.link.as_ref()?.caller.clone()) else { return false };
        let verdict = Verdict::put_aside(harmless(&format!("put aside: {reason}")));
        self.reply_to_caller(envelope.lane, effect_id, to, verdict);
        true
    }

    /// Answers the step that called a saga which is none.
    pub(super) fn reply_to_caller(&mut self, lane: Lane, effect_id: EffectId, to: ReplyTo, verdict: Verdict) {
        let saga = effect_id.saga;
        let (id, key) = (format!("{effect_id}:no_saga"), saga.to_string());
        let message = Message::Input(Input { saga, body: InputBody::Reply(Reply { effect_id, verdict }) });
        self.outcome.messages.push(outgoing(to.topic, to.partition, self.now_ms, lane, id, key, message));
    }

    fn tell(&mut self, saga: SagaId, input: &str, envelope: Option<&Arc<Envelope>>, reason: &str) {
        let start = envelope.and_then(|envelope| crate::consume::start_of(envelope.message.as_input()?));
        let what = if start.is_some() { "start" } else { "input" };
        // The letter has it as it came; a row that refused it must not be asked to take it again.
        let [input, reason] = [input, reason].map(harmless);
        let text = format!("{what} {input} went to the dead letters and has no saga: {reason}");
        let (definition, number) = start.map_or(("", ""), |start| (&start.definition, &start.number));
        let [definition, number] = [definition, number].map(harmless);
        // A letter that was sent again and went the same way is another one: it lay elsewhere.
        let (shard, at) = (self.assignment.shard, self.assignment.positions);
        let cause: [&dyn Display; 5] = [&saga, &input, &shard, &at.start, &at.progress];
        let alert = Alert::new("dead_letter", &cause, text, self.now_ms);
        self.pages.alert(alert.of(saga, definition.into(), number.into()));
    }
}

/// What made a record poison must not get into the saga's row: no control characters, and not too much of it.
fn harmless(text: &str) -> String {
    let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(REASON).map(plain).collect()
}
