//! Coming to rest: bounds, so that a world that never does fails and says what is open.

use super::run::World;
use endstate_outbox::Turn;
use std::time::Duration;

/// Turns in a row of one shard at most.
const TURNS: u32 = 200;

/// Doubts in a row of one shard at most, while nothing is made to fail.
const DOUBTS: u32 = 20;

/// How long one shard may be told to wait in a row where that takes time: nothing passes or fails by it but a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Rounds of all shards in a world's life at most; those that come to rest take some thousands.
const ROUNDS: u64 = 100_000;

impl World {
    /// Turns every shard until it is idle; true when one worked.
    pub(crate) async fn turn_all(&mut self) -> bool {
        let all: Vec<usize> = (0..self.system.shard_count()).collect();
        self.turn_these(&all).await
    }

    /// As [`turn_all`](Self::turn_all), of some shards while the others do nothing.
    pub(crate) async fn turn_these(&mut self, shards: &[usize]) -> bool {
        self.rounds += 1;
        assert!(self.rounds < ROUNDS, "the world does not come to rest; {}", self.still_open());
        let (mut worked, mut pause) = (false, Duration::ZERO);
        for &shard in shards {
            let mut doubts = 0;
            // Bounded: a shard that can never go idle shows as a saga that does not end.
            for _ in 0..TURNS {
                match self.system.turn(shard).await {
                    Turn::Idle => break,
                    Turn::Worked => doubts = 0,
                    // A doubt, or a timer that waits to hear where its queues end: the others work meanwhile.
                    Turn::Wait(most) if self.system.takes_time() => {
                        pause = pause.max(most);
                        break;
                    }
                    Turn::Wait(_) => doubts += 1,
                }
                assert!(doubts < DOUBTS, "shard {shard} is assigned again and again; {}", self.still_open());
                worked = true;
            }
        }
        self.waited = if worked { Duration::ZERO } else { self.waited + pause };
        assert!(self.waited < PATIENCE, "a shard waits and waits; {}", self.still_open());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
            worked = true;
        } else if !worked {
            worked = self.system.arrives(shards).await;
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
