//! Calls to outside parties, played as the caller plays them: open ones are lost in a crash and handed over again.

use super::fault::lock;
use super::provider;
use super::run::World;
use super::three_ways::Plays;
use endstate_events::{Envelope, Message, Reply, SCHEMA_VERSION, Topic, Verdict};
use endstate_outbox::Outgoing;
use endstate_participants::desk::Call;

/// A call to an outside party that is open.
pub(crate) struct Open {
    shard: u16,
    call: Call,
    resumed: bool,
}

impl World {
    /// Takes over what the participants want called, as the caller does: what is open already is not called twice.
    pub(crate) fn collect_calls(&mut self) {
        while let Ok(handed) = self.system.handed_over.try_recv() {
            for call in handed.calls {
                if handed.resumed && self.calls.iter().any(|open| open.call.id == call.id) {
                    continue;
                }
                self.calls.push(Open { shard: handed.shard, call, resumed: handed.resumed });
            }
        }
    }

    pub(crate) async fn call_one(&mut self) {
        let Some((call, answer)) = self.perform().await else { return };
        self.note(|| format!("called {call}"));
        let mut answers = vec![answer.clone()];
        if self.chaotic && self.random.chance(10) {
            let at = self.system.now_ms() + self.random.between(1, 20_000);
            self.scheduled.push((at, answer.clone()));
        }
        if self.chaotic && self.random.chance(10) {
            self.scheduled.push((self.system.now_ms() + self.random.between(1, 20_000), answers.remove(0)));
        }
        self.system.produce(answers).await;
    }

    async fn perform(&mut self) -> Option<(String, Outgoing)> {
        if self.calls.is_empty() {
            return None;
        }
        let open = self.calls.swap_remove(self.random.below(self.calls.len() as u64) as usize);
        let plays = lock(&self.faults).post.as_mut().map_or(Plays::Honestly, |post| post.plays(&open.call));
        let verdict = match plays {
            Plays::Honestly => provider::call(&self.provider, &open.call, open.resumed).await,
            Plays::Refuses => Verdict::Refused { code: "case.no".to_owned(), detail: String::new() },
            Plays::Forgets => {
                provider::call(&self.provider, &open.call, open.resumed).await;
                Verdict::unknown("it was done, and nobody knows")
            }
        };
        let envelope = Envelope {
            id: open.call.id.to_string(),
            schema: SCHEMA_VERSION,
            time_ms: self.system.now_ms(),
            key: open.call.command.key.clone(),
            lane: open.call.lane,
            message: Message::Answer(Reply {
                effect_id: open.call.command.effect_id.clone(),
                verdict: verdict.clone(),
            }),
        };
        let message = Outgoing { topic: Topic::Commands, partition: open.shard, envelope: envelope.into() };
        let text = format!("{} {} resumed={}: {verdict:?}", open.call.id, open.call.command.kind.label(), open.resumed);
        Some((text, message))
    }

    pub(crate) async fn call_and_crash(&mut self) {
        if let Some((call, _)) = self.perform().await {
            self.note(|| format!("called, and crashed before the answer was queued: {call}"));
            self.crash("answer_lost_in_crash");
        }
    }
}
