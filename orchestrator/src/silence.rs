//! Silent participants (Z7). When one is slow, the timers of every saga that awaits it fire at about the same time, and
//! a question from each would double its load when it can least bear it. So it gets one ask at a time from a shard, and
//! its answer wakes the others, which then ask for themselves, a page at a time.
//!
//! The ask queues behind everything that the participant has not handled yet. Once it is answered, what was sent before
//! has been handled or is lost: whoever still waits has a reason to ask. Nobody hangs on this: a saga whose ask is held
//! back goes on by its own ladder. It lives in the owner's memory, and a restart costs one more ask.

use endstate_events::{CommandKind, Envelope, SagaId};
use endstate_saga::effect::Effect;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// How long an ask stands for the others: as long as a command may be silent before it is asked about, by default.
/// Those that were held back until then have begun to send again.
const STANDS_MS: i64 = 10_000;

/// The ask that a participant was sent, standing for all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    /// The effect asked about.
    effect_id: String,
    /// Until when it stands for the others.
    until_ms: i64,
}

/// What a shard knows of silent participants.
#[derive(Debug, Default)]
pub struct Silence {
    asked: FxHashMap<Arc<str>, Asked>,
    waiting: FxHashMap<Arc<str>, Vec<SagaId>>,
    /// Sagas whose participant has answered, and which of them it was.
    woken: VecDeque<(SagaId, Arc<str>)>,
}

/// What one batch hears and asks; applied once it is on disk.
#[derive(Debug, Default)]
pub struct Hearing {
    asked: FxHashMap<Arc<str>, Asked>,
    /// In order: an ask that was held back, a new ask, an answer.
    news: Vec<(Arc<str>, News)>,
    /// How many of the woken this batch takes.
    taken: usize,
}

#[derive(Debug)]
enum News {
    HeldBack(SagaId),
    AskedAnew,
    Answered,
}

impl Silence {
    /// A batch begins; it wakes at most `page` sagas, none unless timers may fire.
    #[must_use]
    pub fn hearing(&self, page: usize) -> Hearing {
        Hearing { asked: self.asked.clone(), news: Vec::new(), taken: page.min(self.woken.len()) }
    }

    /// Those that the batch wakes.
    pub fn woken(&self, hearing: &Hearing) -> impl Iterator<Item = &(SagaId, Arc<str>)> {
        self.woken.iter().take(hearing.taken)
    }

    /// True when somebody is still to be woken.
    #[must_use]
    pub fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// The batch is on disk.
    pub fn commit(&mut self, hearing: Hearing) {
        self.woken.drain(..hearing.taken);
        self.asked = hearing.asked;
        for (participant, news) in hearing.news {
            match news {
                News::HeldBack(saga) => self.waiting.entry(participant).or_default().push(saga),
                // The ask before was not answered; whoever waited for it has begun to send again.
                News::AskedAnew => drop(self.waiting.remove(&participant)),
                News::Answered => {
                    let waiting = self.waiting.remove(&participant).unwrap_or_default();
                    self.woken.extend(waiting.into_iter().map(|saga| (saga, Arc::clone(&participant))));
                }
            }
        }
    }

    /// A new assignment remembers nothing.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Hearing {
    /// Whether an effect of a saga's timer is to be carried out: all are, but for an ask that another stands for.
    pub fn passes(&mut self, saga: SagaId, effect: &Effect, now_ms: i64) -> bool {
        let Effect::Send(command) = effect else { return true };
        if command.kind != CommandKind::Ask {
            return true;
        }
        let participant: Arc<str> = command.participant.as_str().into();
        if self.asked.get(&participant).is_some_and(|asked| now_ms < asked.until_ms) {
            self.news.push((participant, News::HeldBack(saga)));
            return false;
        }
        let asked = Asked { effect_id: command.effect_id.to_string(), until_ms: now_ms + STANDS_MS };
        self.news.push((Arc::clone(&participant), News::AskedAnew));
        // It may await more from this participant: one ask stands for these, too.
        self.news.push((Arc::clone(&participant), News::HeldBack(saga)));
        self.asked.insert(participant, asked);
        true
    }

    /// Listens to a reply: the answer to an ask wakes those that it stood for.
    pub fn reply(&mut self, envelope: &Envelope) {
        if self.asked.is_empty() {
            return;
        }
        let Some(effect_id) = Envelope::asked_about(&envelope.id) else { return };
        let answers =
            |(participant, asked): (&Arc<str>, &Asked)| (asked.effect_id == effect_id).then(|| Arc::clone(participant));
        if let Some(participant) = self.asked.iter().find_map(answers) {
            self.asked.remove(&participant);
            self.news.push((participant, News::Answered));
        }
    }
}
