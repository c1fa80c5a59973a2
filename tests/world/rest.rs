//! Coming to rest: bounds, so that a world that never does fails and says what is open.

use crate::run::World;
use endstate_outbox::Turn;

/// Turns in a row of one shard at most.
const TURNS: u32 = 200;

/// Doubts in a row of one shard at most, while nothing is made to fail.
const DOUBTS: u32 = 20;

/// Rounds of all shards in a world's life at most; those that come to rest take some thousands.
const ROUNDS: u64 = 100_000;

impl World {
    /// Turns every shard until it is idle; true when one worked.
    pub(crate) async fn turn_all(&mut self) -> bool {
        self.rounds += 1;
        assert!(self.rounds < ROUNDS, "the world does not come to rest; {}", self.still_open());
        let mut worked = false;
        for shard in 0..self.system.shard_count() {
            let mut doubts = 0;
            // Bounded: a shard that can never go idle shows as a saga that does not end.
            for _ in 0..TURNS {
                match self.system.turn(shard).await {
                    Turn::Idle => break,
                    Turn::Worked => doubts = 0,
                    Turn::Wait(_) => doubts += 1,
                }
                assert!(doubts < DOUBTS, "shard {shard} is assigned again and again; {}", self.still_open());
                worked = true;
            }
        }
        self.collect_calls();
        worked
    }

    /// For a world that does not come to rest.
    fn still_open(&self) -> String {
        let open = self.seen.values().filter(|seen| seen.phase != "ended");
        let open: Vec<_> =
            open.take(10).map(|seen| format!("{} {}: {}", seen.definition, seen.number, seen.phase)).collect();
        let (calls, due_ms) = (self.calls.len(), self.system.due_ms());
        format!("open sagas: {open:?}; open calls: {calls}; next timer: {due_ms:?}; now: {}", self.system.now_ms())
    }
}
