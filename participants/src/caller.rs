//! The caller: outside parties are called here and never inside a batch (Z8), so that a slow one stalls nobody else.
//!
//! The batch has written its intent; the call carries the effect id as idempotency key; the answer goes back to the
//! partition that decided, which books it and replies. A call that was open when the program died is asked about
//! first, and repeated only if the outside party never saw it.

use crate::desk::Call;
use crate::handler::HandOver;
use async_trait::async_trait;
use endstate_events::{Command, CommandKind, Envelope, Lane, Message, Reply, SCHEMA_VERSION, Topic, Verdict};
use endstate_outbox::{Bus, Clock, Metric, Outgoing};
use futures_util::FutureExt as _;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// Pause before an answer that the bus did not take is sent again.
const SEND_AGAIN: Duration = Duration::from_millis(500);

/// A party outside this program.
#[async_trait]
pub trait Outside: Send + Sync + 'static {
    /// Makes or undoes the effect. Repeated under the same effect id, it must have the effect of one call.
    async fn make(&self, command: &Command, lane: Lane) -> Verdict;

    /// What became of the effect: done, refused, never seen, or unknown.
    async fn ask(&self, command: &Command, lane: Lane) -> Verdict;
}

/// Finds who is called for a command.
pub trait Directory: Send + Sync + 'static {
    /// The participant that the command names, as its definition's version knows it; none when nobody does.
    fn find(&self, command: &Command) -> Option<Arc<dyn Outside>>;
}

/// Runs calls, bounded per participant.
pub struct Caller {
    directory: Arc<dyn Directory>,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    requests: mpsc::Receiver<HandOver>,
    limits: Limits,
}

/// Bounds per participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls that run at a time; at least one does.
    pub at_once: usize,
    /// Calls that wait for their turn; the others stay in their rows, and their shards offer them again.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { at_once: 32, waiting: 1_024 }
    }
}

struct Task {
    call: Call,
    shard: u16,
    resumed: bool,
}

/// A call that runs.
struct Begun {
    participant: String,
    id: Arc<str>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Task>,
    running: usize,
}

/// Everything that waits or runs.
#[derive(Default)]
struct Work {
    queues: FxHashMap<String, Queue>,
    open: FxHashSet<Arc<str>>,
    limits: Limits,
}

impl Caller {
    /// A caller of what handlers put into the other end of `requests`.
    #[must_use]
    pub fn new(
        directory: Arc<dyn Directory>,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        requests: mpsc::Receiver<HandOver>,
    ) -> Self {
        Self { directory, bus, clock, requests, limits: Limits::default() }
    }

    /// With other bounds.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Calls until it is stopped. Calls cut off here are resumed by the next owner of their shard.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut work = Work { limits: self.limits, ..Work::default() };
        let mut running: JoinSet<()> = JoinSet::new();
        // By task, and not as what it returns: one that panics returns nothing, and frees its place all the same.
        let mut begun: FxHashMap<Id, Begun> = FxHashMap::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(request) = self.requests.recv() => work.add(request),
                Some(ended) = running.join_next_with_id() => {
                    let task = ended.map_or_else(|error| error.id(), |(task, ())| task);
                    if let Some(Begun { participant, id }) = begun.remove(&task) {
                        work.done(&participant, &id);
                    }
                }
            }
            while let Some(task) = work.next() {
                let call = Begun { participant: task.call.command.participant.clone(), id: task.call.id.clone() };
                begun.insert(running.spawn(self.perform(task)).id(), call);
            }
        }
    }

    fn perform(&self, task: Task) -> impl Future<Output = ()> + Send + use<> {
        let (directory, bus, clock) = (Arc::clone(&self.directory), Arc::clone(&self.bus), Arc::clone(&self.clock));
        async move {
            let Task { call, shard, resumed } = task;
            let began = Instant::now();
            let calling = AssertUnwindSafe(call_outside(&*directory, &call, resumed)).catch_unwind();
            // Whatever it did before it panicked: the saga asks, or calls again.
            let verdict = calling.await.unwrap_or_else(|_| {
                tracing::error!(call = %call.id, participant = %call.command.participant, "a call panicked");
                Verdict::unknown("the call panicked")
            });
            Metric::CallDuration.time(began.elapsed(), &[&call.command.participant, verdict.label()]);
            let answer = answer(&call, shard, verdict, clock.now_ms());
            while let Err(error) = bus.produce(vec![answer.clone()]).await {
                tracing::warn!(call = %call.id, %error, "the answer of an outside party is not queued yet");
                tokio::time::sleep(SEND_AGAIN).await;
            }
        }
    }
}

impl Work {
    fn add(&mut self, request: HandOver) {
        for call in request.calls {
            // A new assignment hands over what it finds open; a call that still runs needs no second one.
            if request.resumed && self.open.contains(&call.id) {
                continue;
            }
            let queue = self.queues.entry(call.command.participant.clone()).or_default();
            if queue.waiting.len() >= self.limits.waiting {
                // Its row is the intent and stays; a queue without bound would be memory without bound (Z20).
                request.behind.store(true, Ordering::Release);
                continue;
            }
            self.open.insert(call.id.clone());
            let participant = call.command.participant.clone();
            queue.waiting.push_back(Task { call, shard: request.shard, resumed: request.resumed });
            queue.show(&participant);
        }
    }

    fn next(&mut self) -> Option<Task> {
        let at_once = self.limits.at_once.max(1);
        let has_turn = |queue: &Queue| queue.running < at_once && !queue.waiting.is_empty();
        let (participant, queue) = self.queues.iter_mut().find(|(_, queue)| has_turn(queue))?;
        queue.running += 1;
        let task = queue.waiting.pop_front();
        queue.show(participant);
        task
    }

    fn done(&mut self, participant: &str, id: &str) {
        self.open.remove(id);
        if let Some(queue) = self.queues.get_mut(participant) {
            queue.running -= 1;
            queue.show(participant);
        }
    }
}

impl Queue {
    fn show(&self, participant: &str) {
        Metric::CallsWaiting.set(self.waiting.len() as f64, &[participant]);
        Metric::CallsRunning.set(self.running as f64, &[participant]);
    }
}

async fn call_outside(directory: &dyn Directory, call: &Call, resumed: bool) -> Verdict {
    let Some(outside) = directory.find(&call.command) else {
        return Verdict::unknown(format!("E5011: participant {} is not in the catalogue", call.command.participant));
    };
    let (command, lane) = (&*call.command, call.lane);
    match command.kind {
        CommandKind::Ask => outside.ask(command, lane).await,
        CommandKind::Do | CommandKind::Undo if resumed => match outside.ask(command, lane).await {
            Verdict::NeverSeen => outside.make(command, lane).await,
            known @ (Verdict::Done { .. } | Verdict::Refused { .. } | Verdict::Unknown { .. }) => known,
        },
        CommandKind::Do | CommandKind::Undo => outside.make(command, lane).await,
    }
}

fn answer(call: &Call, shard: u16, verdict: Verdict, now_ms: i64) -> Outgoing {
    let envelope = Envelope {
        id: call.id.to_string(),
        schema: SCHEMA_VERSION,
        time_ms: now_ms,
        key: call.command.key.clone(),
        lane: call.lane,
        message: Message::Answer(Reply { effect_id: call.command.effect_id.clone(), verdict }),
    };
    Outgoing { topic: Topic::Commands, partition: shard, envelope: envelope.into() }
}
