//! Starts: a number is claimed once, by the first; a start that no saga came of is told to who waits for it.

use super::{Copy, Working, arrival};
use crate::listen::EVENT_ID;
use crate::orphan::Orphan;
use crate::persist::Claimed;
use crate::waiters::Claim;
use endstate_events::{ACTIVE_VERSION, Envelope, Input, InputBody, Link, Message, SagaId, Start, Topic, Verdict};
use endstate_outbox::Alert;
use endstate_saga::decide::decide;
use endstate_saga::effect::DiscrepancyKind;
use std::sync::Arc;

impl Working {
    pub(super) fn start(&mut self, topic: Topic, envelope: &Arc<Envelope>, input: &Input, start: &Start) {
        let number = (start.definition.clone(), start.number.clone());
        if let Some(claimed) = self.claims.get(&number) {
            let (by, same_body) = (claimed.saga, *claimed.body_hash == *start.body_hash);
            self.refused.push((input.saga, Claim::Taken { by, same_body }));
            if let Some(link) = &start.link {
                self.refuse_linked(envelope, start, link, by, same_body);
            } else if !same_body && envelope.id.starts_with(EVENT_ID) {
                let Start { definition, number, .. } = start;
                self.bury(
                    topic,
                    envelope,
                    format!("E2301: {definition} {number} was started with another body, as {by}"),
                );
            }
            return;
        }
        let definition = match self.definitions.of_start(start) {
            Ok(definition) => definition,
            Err(version) if self.definitions.is_unreadable(&start.definition, version) => {
                // No poison: it waits for a program that can read its definition.
                return self.orphans.push(Orphan::new(input.saga, Arc::clone(envelope)));
            }
            Err(ACTIVE_VERSION) => {
                let reason = format!("E3001: definition {} has no active version", start.definition);
                return self.bury(topic, envelope, reason);
            }
            Err(version) => {
                let reason = format!("E3001: definition {} version {version} is not loaded", start.definition);
                return self.bury(topic, envelope, reason);
            }
        };
        let pinned = (definition.version() != start.version).then(|| {
            let start = Start { version: definition.version(), ..start.clone() };
            Input { body: InputBody::Start(Box::new(start)), ..input.clone() }
        });
        let decision = decide(&*definition, None, arrival(envelope, pinned.as_ref().unwrap_or(input)), self.setting());
        if decision.saga.is_none() {
            let why = decision.denied.map_or_else(String::new, |denied| format!(": {denied}"));
            return self.bury(topic, envelope, format!("E3002: the start made no saga{why}"));
        }
        self.pages.claim(&start.definition, &start.number, input.saga, &start.body_hash);
        self.claims.insert(number, Claimed { saga: input.saga, body_hash: start.body_hash.as_str().into() });
        let copy = Copy {
            before: None,
            was_in_motion: false,
            was: None,
            stored_due_ms: None,
            bytes: 0,
            saga: None,
            definition,
            events: Vec::new(),
            answers: Vec::new(),
            first: true,
            rearm: false,
        };
        self.order.push(input.saga);
        self.copies.insert(input.saga, copy);
        self.take(input.saga, envelope.time_ms, decision);
        self.adopt(input.saga);
    }

    /// Gives a saga what came for it before its start or while it stood still, in that order, and before anything that comes
    /// after.
    pub(super) fn adopt(&mut self, saga: SagaId) {
        let earlier = self.waiting.remove(&saga).unwrap_or_default();
        let is_its = |orphan: &mut Orphan| orphan.saga == saga && orphan.follows_start();
        let of_batch: Vec<Orphan> = self.orphans.extract_if(.., is_its).collect();
        for orphan in earlier.into_iter().chain(of_batch) {
            let decided = match &orphan.envelope.message {
                Message::Input(input) => {
                    self.step(&orphan.envelope, input);
                    true
                }
                Message::Reply(reply) => self.hears(&orphan.envelope, reply),
                _ => false,
            };
            match orphan.id {
                Some(id) if decided => self.pages.adopted(id),
                None if !decided => self.orphans.push(orphan),
                // Kept as it is, for the job to send.
                Some(_) | None => {}
            }
        }
    }

    /// A late event under a number that is known, with another content, is of the saga that the first one started: it has the
    /// same cause. What was to be done about it is written down (Z12).
    pub(super) fn repeated(&mut self, envelope: &Envelope, start: &Start) {
        let Some(link) = start.link.as_ref().filter(|link| link.caller.is_none()) else { return };
        let Some(claimed) = self.claims.get(&(start.definition.clone(), start.number.clone())) else { return };
        if *claimed.body_hash != *start.body_hash {
            self.refuse_linked(envelope, start, link, claimed.saga, false);
        }
    }

    /// A saga's own start has no caller who reads that its number is taken: the step that waits for it is told, and
    /// what was to be done about a late event is written down (Z12).
    fn refuse_linked(&mut self, envelope: &Envelope, start: &Start, link: &Link, by: SagaId, same_body: bool) {
        let Start { definition, number, .. } = start;
        let text = format!("{definition} {number} was to be started for this saga; {by} has that number");
        if let Some((effect_id, to)) = &link.caller {
            let verdict = Verdict::Refused { code: "saga.number_taken".to_owned(), detail: text };
            self.reply_to_caller(envelope.lane, effect_id.clone(), *to, verdict);
        } else if !same_body {
            let kind = DiscrepancyKind::LateUnhandled;
            self.pages.discrepancy(link.order, kind.label(), None, &text, self.now_ms);
            let alert = Alert::new("discrepancy", &[&link.order, definition, number], text, self.now_ms);
            let (definition, number) = (definition.as_str().into(), number.as_str().into());
            self.pages.alert(alert.of(link.order, definition, number));
        }
    }
}
