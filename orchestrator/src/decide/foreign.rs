//! What a participant of another team answers over Kafka. Its word counts for effects that it was told of, and as far as
//! it keeps what its catalogue promises; that it has undone one turns the saga back, also unasked (Z14). Nothing that a stranger writes into `progress` as such a reply does more.

use super::Working;
use endstate_events::{
    Command, CommandKind, Direction, EffectId, Envelope, ForeignReply, Input, InputBody, Json, Reply, Topic, Transport,
    Verdict,
};
use endstate_outbox::Alert;
use endstate_saga::definition::{Definition, Misfit};
use endstate_saga::effect::ASK_PREFIX;
use std::sync::Arc;

/// Deepest nesting of a reply's data: what the API takes.
const DEPTH: usize = 32;

/// The largest integer that every JSON reader keeps exact.
const INTEGER: u64 = (1 << 53) - 1;

/// The id of a command to another team: the participant's reply has the same, and so tells the answer to a question from
/// the answer to the command.
pub(super) fn command_id(command: &Command) -> String {
    match command.kind {
        CommandKind::Ask => Envelope::answer_id(&command.effect_id),
        CommandKind::Do | CommandKind::Undo => command.effect_id.to_string(),
    }
}

impl Working {
    /// Takes a reply as a participant of another team writes it.
    pub fn told(&mut self, topic: Topic, envelope: &Arc<Envelope>, reply: &ForeignReply) {
        let saga = reply.effect_id.saga;
        let partition = saga.slot().partition(self.partitions);
        if partition == self.assignment.shard.index && self.open(saga) {
            if !self.hears(envelope, reply) {
                let reason = format!("E5018: {} is no effect of a participant over Kafka", reply.effect_id);
                self.bury(topic, envelope, reason);
            }
            return;
        }
        // Elsewhere, or nowhere: as for any reply.
        let reply = Reply { effect_id: reply.effect_id.clone(), verdict: reply.verdict.clone() };
        self.input(topic, envelope, &Input { saga, body: InputBody::Reply(reply) });
    }

    /// Tells an open saga what a participant answered; false when nobody over Kafka makes such an effect.
    pub(super) fn hears(&mut self, envelope: &Arc<Envelope>, reply: &ForeignReply) -> bool {
        let saga = reply.effect_id.saga;
        let Some(copy) = self.copies.get(&saga) else { return false };
        let definition = Arc::clone(&copy.definition);
        let Some((participant, action)) = told_by(&definition, &reply.effect_id) else { return false };
        let asked = Envelope::asked_about(&envelope.id).is_some();
        let promised = |data: &Json| definition.reply_misfit(&participant, &action, data);
        let (verdict, broken) = weighed(promised, reply, asked);
        if let Some(broken) = broken {
            self.tell_broken(&definition, reply, (&participant, &action), &broken);
        }
        let reply = Reply { effect_id: reply.effect_id.clone(), verdict };
        // What the saga sends next carries the time of its cause, and a stranger's clock may show anything.
        let envelope = Arc::new(Envelope { time_ms: self.now_ms, ..Envelope::clone(envelope) });
        self.step(&envelope, &Input { saga, body: InputBody::Reply(reply) });
        true
    }

    fn tell_broken(
        &mut self,
        definition: &Definition,
        reply: &ForeignReply,
        (participant, action): (&str, &str),
        reason: &str,
    ) {
        tracing::error!(participant, action, reason, "E5016: a reply breaks its schema");
        let Some(saga) = self.copies.get(&reply.effect_id.saga).and_then(|copy| copy.saga.as_ref()) else { return };
        let (version, id) = (definition.version(), saga.id);
        let (name, number) = (Arc::clone(&saga.definition), Arc::clone(&saga.number));
        let alert = Alert::new("reply", &[&participant, &action, &name, &version, &reason], reason, self.now_ms);
        self.pages.alert(alert.of(id, name, number));
    }
}

/// Participant and action of an effect, if the definition has such a step and reaches its participant over Kafka.
fn told_by(definition: &Definition, effect: &EffectId) -> Option<(Arc<str>, Arc<str>)> {
    let plan = definition.plan();
    let call = match effect.step.strip_prefix(ASK_PREFIX) {
        Some(stage) => {
            let stage = plan.stages.iter().find(|known| &*known.name == stage)?;
            stage.wait.as_ref()?.ask.as_ref()?
        }
        None => {
            let step = &plan.steps[plan.step(&effect.step)?];
            match effect.direction {
                Direction::Do => &step.call,
                Direction::Undo => step.undo.as_ref()?,
            }
        }
    };
    match definition.catalogue().participants.get(&*call.participant)?.transport {
        Transport::Kafka { .. } => Some((Arc::clone(&call.participant), Arc::clone(&call.action))),
        Transport::Builtin | Transport::Http { .. } => None,
    }
}

/// What a reply is worth; the second says what promise it breaks. `promised` looks for what breaks its schema.
fn weighed(promised: impl Fn(&Json) -> Option<Misfit>, reply: &ForeignReply, asked: bool) -> (Verdict, Option<String>) {
    let broken = match &reply.verdict {
        Verdict::Done { data } => unfit(data, DEPTH).map(str::to_owned).or_else(|| promised(data).map(said)),
        // Only who was asked can say that there was nothing to be seen; to a command it is no answer.
        Verdict::NeverSeen if !asked => Some("it answers a command with `never_seen`".to_owned()),
        Verdict::Refused { code, detail } if has_nul(code) || has_nul(detail) => Some("it holds \\u0000".to_owned()),
        Verdict::Unknown { reason, .. } if has_nul(reason) => Some("it holds \\u0000".to_owned()),
        Verdict::Refused { .. } | Verdict::Unknown { .. } | Verdict::NeverSeen => None,
    };
    let Some(broken) = broken else {
        // What lies in our dead letters, only we know.
        let said = match &reply.verdict {
            Verdict::Unknown { reason, .. } => Verdict::unknown(reason),
            other @ (Verdict::Done { .. } | Verdict::Refused { .. } | Verdict::NeverSeen) => other.clone(),
        };
        return (said, None);
    };
    let reason = format!("E5016: the reply to {} breaks its schema: {broken}", reply.effect_id.step);
    (Verdict::unknown(reason.clone()), Some(reason))
}

fn said(misfit: Misfit) -> String {
    format!("{}: {}", misfit.place(), misfit.reason)
}

/// What a row could not hold, or another reader would read otherwise.
fn unfit(data: &Json, depth: usize) -> Option<&'static str> {
    match data {
        Json::Null | Json::Bool(_) => None,
        Json::Number(number) => {
            let whole = number.as_i64().map(i64::unsigned_abs).or_else(|| number.as_u64());
            let exact =
                whole.map_or_else(|| number.as_f64().is_some_and(|n| n.abs() <= INTEGER as f64), |n| n <= INTEGER);
            (!exact).then_some("an integer is beyond 2^53-1")
        }
        Json::String(text) => has_nul(text).then_some("a text holds \\u0000"),
        Json::Array(_) | Json::Object(_) if depth == 0 => Some("it is nested too deep"),
        Json::Array(items) => items.iter().find_map(|item| unfit(item, depth - 1)),
        Json::Object(fields) => fields.iter().find_map(|(name, value)| {
            has_nul(name).then_some("a name holds \\u0000").or_else(|| unfit(value, depth - 1))
        }),
    }
}

fn has_nul(text: &str) -> bool {
    text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use endstate_saga::definition::Shape;
    use serde_json::json;

    fn reply(verdict: Verdict) -> ForeignReply {
        ForeignReply { effect_id: "0193a0b2-7c00-8abc-9def-0123456789ab:wrap::do:0".parse().unwrap(), verdict }
    }

    fn taken(verdict: Verdict, asked: bool) -> Verdict {
        let promised = Shape::compile(&json!({"type": "object", "required": ["tag"]})).unwrap();
        weighed(|data| promised.misfits(data).into_iter().next(), &reply(verdict), asked).0
    }

    #[test]
    fn what_a_stranger_answers_is_taken_only_as_far_as_its_catalogue_promises() {
        let done = |data| Verdict::Done { data };
        assert_eq!(taken(done(json!({"tag": "1"})), false), done(json!({"tag": "1"})));
        let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
        for data in
            [json!({}), json!({"tag": "\u{0}"}), json!({"tag": 9_007_199_254_740_992_i64}), json!({"tag": deep})]
        {
            assert!(matches!(taken(done(data.clone()), false), Verdict::Unknown { .. }), "{data}");
        }
        assert!(matches!(taken(Verdict::NeverSeen, false), Verdict::Unknown { .. }));
        assert_eq!(taken(Verdict::NeverSeen, true), Verdict::NeverSeen);
        let refused = |code: &str| Verdict::Refused { code: code.to_owned(), detail: String::new() };
        assert_eq!(taken(refused("no"), false), refused("no"));
        assert!(matches!(taken(refused("no\u{0}"), false), Verdict::Unknown { .. }));
    }
}
