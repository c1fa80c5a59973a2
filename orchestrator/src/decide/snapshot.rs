//! Events of sagas that are open for long are put together into one, so that old days of events can go: by the saga's own
//! timer, in an ordinary batch of its shard.

use super::Working;
use endstate_events::SagaId;
use endstate_saga::control::Phase;
use endstate_saga::decide::snapshot;
use endstate_saga::plan::Plan;
use endstate_saga::saga::Saga;

impl Working {
    /// Puts the events of a saga together when it is time.
    pub(super) fn put_together(&mut self, id: SagaId) {
        let (now_ms, after_ms) = (self.now_ms, self.snapshot_after_ms);
        let Some(copy) = self.copies.get_mut(&id) else { return };
        let is_time = |saga: &mut Saga| due_ms(saga, after_ms).is_some_and(|due| due <= now_ms);
        let Some(saga) = copy.saga.take_if(is_time) else { return };
        self.sent += copy.bytes;
        self.take(id, now_ms, snapshot(saga, now_ms));
    }
}

/// When the saga is looked at next. One that waits or is parked may have no timer of its own for long; any other has.
pub(super) fn wanted_ms(saga: &Saga, plan: &Plan, phase: Phase, after_ms: Option<i64>) -> Option<i64> {
    let snapshot_ms = match phase {
        Phase::Waiting | Phase::Parked => due_ms(saga, after_ms),
        Phase::Running | Phase::Compensating | Phase::Reversing | Phase::Ended => None,
    };
    [saga.due_ms(plan), snapshot_ms].into_iter().flatten().min()
}

/// When its events are put together, if they are: so long after its start, or after the last time.
fn due_ms(saga: &Saga, after_ms: Option<i64>) -> Option<i64> {
    let since_ms = saga.snapshot_ms.unwrap_or(saga.started_ms);
    after_ms.filter(|_| !saga.control.is_ended()).map(|after_ms| since_ms + after_ms)
}
