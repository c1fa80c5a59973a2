//! The self-check of old holds (H3): a hold that outlived every payment limit asks its saga, and gives itself back when
//! the saga has no use for it or is unknown. Too many unknown ones at once mean that the wrong one is asked (a strange
//! environment, a lost table): then it halts and alerts instead of giving everything back (Z17). A saga that is known and done
//! with its hold is right, however many say so.

use crate::decide;
use crate::desk::Desk;
use crate::handler::Settings;
use endstate_events::{Direction, EffectId, InquiryAnswer};
use endstate_outbox::{Alert, Assignment};
use std::sync::Arc;

/// Below this many releases a share says nothing.
const FEW: i64 = 10;

/// Where the self-check of one shard stands, in its owner's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SelfCheck {
    next_ms: i64,
    /// Holds asked about in this round.
    asked: i64,
    /// Given back in this round, because nobody knew their saga.
    released: i64,
    halted: bool,
}

impl SelfCheck {
    /// Holds asked about per round at most.
    pub(crate) const PAGE: i64 = 500;

    pub(crate) fn due_ms(&self) -> Option<i64> {
        (!self.halted).then_some(self.next_ms)
    }

    pub(crate) fn is_due(&self, now_ms: i64) -> bool {
        !self.halted && now_ms >= self.next_ms
    }

    /// Asks about so many; without any, what is still on its way belongs to the round before.
    pub(crate) fn start_round(&mut self, asked: usize, next_ms: i64) {
        self.next_ms = next_ms;
        if asked > 0 {
            (self.asked, self.released) = (asked as i64, 0);
        }
    }

    /// A new assignment asks at once. What was asked may be answered still, and a halt is a person's to end, by a restart.
    pub(crate) fn assigned(&mut self) {
        self.next_ms = 0;
    }

    /// Acts on a saga's answer about a hold; tells people when it halts.
    pub(crate) fn answered(
        &mut self,
        desk: &mut Desk,
        answer: &InquiryAnswer,
        settings: &Settings,
        (assignment, now_ms): (&Assignment, i64),
    ) -> Option<Alert> {
        if answer.keep || self.halted {
            return None;
        }
        // Of what was asked, not of all that is held: a page of wrong answers is a small share of many holds.
        let most = (self.asked * i64::from(settings.release_share_percent) / 100).max(FEW);
        if !answer.known && self.released >= most {
            self.halted = true;
            let Assignment { shard, epoch, .. } = assignment;
            let text = format!(
                "E5005: the self-check of holds in shard {shard} has halted: it gave back {} of the {} it asked about, and would \
                 give back more than its share; check that sagas and participants belong to the same environment, then \
                 restart",
                self.released, self.asked
            );
            return Some(Alert::new("self_check", &[shard, epoch], text, now_ms));
        }
        let hold: Arc<str> = answer.effect_id.to_string().into();
        let undo = EffectId { direction: Direction::Undo, ..answer.effect_id.clone() };
        if decide::inquired(desk, &hold, &undo.to_string().into()) {
            self.released += i64::from(!answer.known);
            tracing::warn!(%hold, "an old hold was given back: its saga does not want it");
        }
        None
    }
}
