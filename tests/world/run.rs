//! One seed: chaos first, then quiet until every saga has ended.

use super::calls::Open;
use super::coverage::{Met, met};
use super::fault::{Faults, SharedFaults, lock};
use super::ground::Ground;
use super::journey::{self, JOURNEYS, Order, Shelf};
use super::provider::Provider;
use super::random::Random;
use super::system::{BEGIN_MS, Seen, System};
use endstate_events::{Lane, Operation, SagaId};
use endstate_orchestrator::waiters::{Answer, Waiting};
use endstate_outbox::Outgoing;
use endstate_participants::operation::{self, Line};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// In every third world, sagas that are open for so long have their events put together.
const LONG_MS: i64 = 12 * 3_600_000;

/// Crashes and clock jumps that the world itself draws.
pub(crate) const EVENTS: [&str; 6] =
    ["crash", "restart", "take_over", "answer_lost_in_crash", "clock_jump", "clock_back"];

/// Orders of the flash sale that each seed starts.
const ORDERS: u64 = 20;

/// All sagas that each seed starts; linked and called ones come on top.
const SAGAS: u64 = 26;

/// Draws of the chaotic part.
const CHAOS: u64 = 420;

/// How often the clock moves in the quiet part, after which a saga that has not ended is stuck.
const QUIET: u64 = 4_000;

/// One seed's world.
pub(crate) struct World {
    pub(crate) system: System,
    pub(crate) provider: Arc<Provider>,
    pub(crate) shelf: Shelf,
    pub(crate) orders: Vec<Order>,
    pub(crate) random: Random,
    pub(crate) faults: SharedFaults,
    pub(crate) calls: Vec<Open>,
    /// Messages of outside parties that come at a time.
    pub(crate) scheduled: Vec<(i64, Outgoing)>,
    /// Sagas by definition and number, as of the last look.
    pub(crate) seen: BTreeMap<(String, String), Seen>,
    pub(crate) asked: Vec<Waiting<(SagaId, String), Answer>>,
    /// Whether faults are on.
    pub(crate) chaotic: bool,
    tries: BTreeMap<SagaId, u32>,
    pub(crate) rounds: u64,
    /// How long shards were told to wait while none worked.
    pub(crate) waited: Duration,
    acts: u64,
    pub(crate) journal: Vec<String>,
    pub(crate) coverage: Met,
}

impl World {
    pub(crate) async fn new(seed: u64, rounds: Option<usize>, ground: Box<dyn Ground>, coverage: Met) -> Self {
        let mut random = Random::new(seed);
        let faults = Faults::new(random.fork(), Arc::clone(&coverage));
        let provider = Provider::new(random.fork(), Arc::clone(&coverage));
        let in_motion_most = *random.pick(&[2, 6, 4096]);
        let shelf = journey::shelf(&mut random);
        let (sales, jobs) = JOURNEYS.split_at(journey::SALES);
        let first = seed * 7;
        let journey = |n: u64, random: &mut Random| {
            let of = if n < ORDERS { sales } else { jobs };
            // Every third walks through all journeys, seed by seed; the others are drawn.
            if n.is_multiple_of(3) { of[((first + n / 3) % of.len() as u64) as usize] } else { *random.pick(of) }
        };
        let mut orders = Vec::new();
        for n in 0..SAGAS {
            let journey = journey(n, &mut random);
            met(&coverage, "journey", journey);
            orders.push(journey::order(n, journey, &shelf, &mut random));
        }
        let parts = (random, faults, provider);
        let mut world = Self::of(parts, (in_motion_most, rounds), (shelf, orders), ground, coverage).await;
        if seed % 3 == 1 {
            world.system.put_together_after(LONG_MS);
        }
        world
    }

    /// A world without faults (until they are turned on) of given orders, for stories told by hand. `engine` is how many
    /// sagas may be in motion, and the rounds of a transaction in fused mode.
    pub(crate) async fn calm(
        shelf: Shelf,
        orders: Vec<Order>,
        engine: (usize, Option<usize>),
        ground: Box<dyn Ground>,
    ) -> Self {
        let (mut random, coverage) = (Random::new(1), Met::default());
        let faults = Faults::new(random.fork(), Arc::clone(&coverage));
        let provider = Provider::new(random.fork(), Arc::clone(&coverage));
        let parts = (random, faults, provider);
        Self::of(parts, engine, (shelf, orders), ground, coverage).await
    }

    async fn of(
        (random, faults, provider): (Random, SharedFaults, Arc<Provider>),
        engine: (usize, Option<usize>),
        (shelf, mut orders): (Shelf, Vec<Order>),
        ground: Box<dyn Ground>,
        coverage: Met,
    ) -> Self {
        let system = System::open(ground, faults.clone(), engine).await;
        for order in &mut orders {
            order.ready_ms = BEGIN_MS + order.acts.front().map_or(0, |act| act.after_ms);
        }
        Self {
            system,
            provider,
            shelf,
            orders,
            random,
            faults,
            calls: Vec::new(),
            scheduled: Vec::new(),
            seen: BTreeMap::new(),
            asked: Vec::new(),
            chaotic: false,
            tries: BTreeMap::new(),
            rounds: 0,
            waited: Duration::ZERO,
            acts: 0,
            journal: Vec::new(),
            coverage,
        }
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        let at = self.system.now_ms() - BEGIN_MS;
        self.journal.push(format!("{at:>9} {}", text()));
    }

    /// Stock, points and coupons, by operators' commands.
    pub(crate) async fn open_shop(&mut self) {
        let line = |call: &str, with| {
            let (participant, action) = call.split_once('.').unwrap_or_default();
            Line { participant: participant.into(), action: action.into(), with }
        };
        let mut lines = Vec::new();
        let forced = self.orders.iter().filter(|order| !order.exact).map(|order| {
            let name = format!("forced-{}", order.number.trim_start_matches('N'));
            (name.clone(), 50, 0)
        });
        let units: Vec<_> = self.shelf.units.iter().cloned().chain(forced).collect();
        for (unit, main, standby) in units {
            lines.push(line("stock.open", json!({ "unit": unit, "quantity": main })));
            if standby > 0 {
                lines.push(line("stock.open", json!({ "unit": unit, "quantity": standby, "standby": true })));
            }
        }
        for (user, points) in self.shelf.users.iter().filter(|(_, points)| *points > 0) {
            lines.push(line("points.adjust", json!({ "user": user, "delta": points })));
        }
        for (coupon, user) in &self.shelf.coupons {
            lines.push(line("coupon.open", json!({ "coupon": coupon, "user": user })));
        }
        let now_ms = self.system.now_ms();
        let messages = operation::messages("opening", &lines, Lane::Live, self.system.partitions(), now_ms);
        self.system.produce(messages.expect("the lines fit")).await;
        while self.turn_all().await {}
    }

    /// Faults of all kinds, in any order.
    pub(crate) async fn chaos(&mut self) {
        self.turn_faults(true);
        for step in 0..CHAOS {
            if step % 6 == 0 {
                self.look().await;
            }
            self.act_all().await;
            self.arrive_scheduled().await;
            match self.random.below(1000) {
                0..620 => {
                    let shard = self.random.below(self.system.shard_count() as u64) as usize;
                    if self.random.chance(20) {
                        self.system.turn_zombie(shard).await;
                    }
                    self.system.turn(shard).await;
                    self.collect_calls();
                }
                620..740 => self.arrive_one().await,
                740..860 => self.call_one().await,
                860..960 => self.move_clock(1, 3_000),
                960..978 => self.jump(10_000, 60_000),
                978..984 => self.jump(5 * 60_000, 40 * 60_000),
                984..989 => {
                    met(&self.coverage, "event", "clock_back");
                    self.move_clock(-4_000, -1);
                }
                989..994 => self.crash("crash"),
                994..996 => self.restart().await,
                996..998 => {
                    met(&self.coverage, "event", "take_over");
                    self.note(|| "take over".to_owned());
                    self.hand_to_others().await;
                }
                _ => self.call_and_crash().await,
            }
        }
        self.turn_faults(false);
        self.system.bury_zombies();
    }

    /// Without moving the clock: everybody does what can be done now. True when something was.
    pub(crate) async fn step(&mut self) -> bool {
        let mut worked = self.turn_all().await;
        while let Some(message) = self.next_arriving() {
            self.system.produce(vec![message]).await;
            worked = true;
        }
        while !self.calls.is_empty() {
            self.call_one().await;
            worked = true;
        }
        worked |= self.arrive_scheduled().await;
        if !worked {
            self.look().await;
            worked = self.act_all().await;
        }
        worked
    }

    /// New owners take over; the old ones live on.
    pub(crate) async fn hand_to_others(&mut self) {
        self.calls.clear();
        self.system.take_over().await;
    }

    /// No faults: runs until every saga has ended, then lets old holds be checked. Returns the sagas that have not.
    pub(crate) async fn quiet(&mut self) -> Vec<Seen> {
        self.replay_letters().await;
        for _ in 0..QUIET {
            while self.step().await || self.push_parked().await {}
            let open = self.seen.values().any(|seen| seen.phase != "ended");
            let now_ms = self.system.now_ms();
            let acts = self.orders.iter().filter(|order| !order.acts.is_empty()).map(|order| order.ready_ms);
            let comes = self.scheduled.iter().map(|(at, _)| *at);
            // Acts that are ready wait for their saga, which a timer moves.
            let timer = self.system.due_ms().filter(|_| open);
            match acts.chain(comes).filter(|at| *at > now_ms).chain(timer).min() {
                Some(next) => self.system.clock.advance((next - now_ms).max(1)),
                None => break,
            }
        }
        // Old holds are checked; and a shard whose zombie was the last owner finds that out.
        self.system.clock.advance(41 * 60_000);
        while self.step().await || self.system.has_more().await {}
        self.look().await;
        self.seen.values().filter(|seen| seen.phase != "ended").cloned().collect()
    }

    fn turn_faults(&mut self, on: bool) {
        self.chaotic = on;
        lock(&self.faults).turn(on);
        self.provider.turn(on);
    }

    pub(crate) fn crash(&mut self, name: &str) {
        met(&self.coverage, "event", name);
        self.note(|| "crash".to_owned());
        self.calls.clear();
        self.system.crash();
    }

    async fn restart(&mut self) {
        met(&self.coverage, "event", "restart");
        self.note(|| "restart".to_owned());
        self.calls.clear();
        self.system.restart().await;
    }

    fn move_clock(&mut self, low: i64, high: i64) {
        let by = self.random.between(low, high);
        self.system.clock.advance(by);
    }

    fn jump(&mut self, low: i64, high: i64) {
        met(&self.coverage, "event", "clock_jump");
        self.move_clock(low, high);
    }

    fn next_arriving(&mut self) -> Option<Outgoing> {
        lock(&self.faults).arriving()
    }

    async fn arrive_one(&mut self) {
        if let Some(message) = self.next_arriving() {
            self.note(|| format!("arrived late: {}", message.envelope.id));
            self.system.produce(vec![message]).await;
        }
    }

    pub(crate) async fn arrive_scheduled(&mut self) -> bool {
        let now_ms = self.system.now_ms();
        let mut due = Vec::new();
        self.scheduled.retain(|(at, message)| {
            let arrives = *at <= now_ms;
            if arrives {
                due.push(message.clone());
            }
            !arrives
        });
        let any = !due.is_empty();
        if any {
            self.system.produce(due).await;
        }
        any
    }

    pub(crate) fn schedule(&mut self, at_ms: i64, message: Outgoing) {
        self.scheduled.push((at_ms, message));
    }

    /// Looks at the sagas as an operator's list does.
    pub(crate) async fn look(&mut self) {
        let sagas = self.system.sagas().await;
        self.seen = sagas.into_iter().map(|seen| ((seen.definition.clone(), seen.number.clone()), seen)).collect();
    }

    /// Whoever has something to do now does it; true when somebody did.
    pub(crate) async fn act_all(&mut self) -> bool {
        let mut acted = false;
        for at in 0..self.orders.len() {
            if self.orders[at].ready_ms > self.system.now_ms() {
                continue;
            }
            let Some(act) = self.orders[at].acts.pop_front() else { continue };
            let order = self.orders[at].clone();
            if self.act(&order, &act.doing).await {
                acted = true;
                let after_ms = self.orders[at].acts.front().map_or(0, |next| next.after_ms);
                self.orders[at].ready_ms = self.system.now_ms() + after_ms;
            } else {
                // Not yet: its saga is not where it must be.
                self.orders[at].acts.push_front(act);
            }
        }
        acted
    }

    pub(crate) fn next_act(&mut self) -> u64 {
        self.acts += 1;
        self.acts
    }

    /// Operators take care of what is parked: send again, then give back, then force.
    async fn push_parked(&mut self) -> bool {
        let parked: Vec<Seen> = self.seen.values().filter(|seen| seen.phase == "parked").cloned().collect();
        for seen in &parked {
            let tries = self.tries.entry(seen.id).or_default();
            *tries += 1;
            let end = endstate_events::ForcedEnd::Cancelled;
            let operation = match *tries {
                1 | 2 => Operation::Retry,
                3 => Operation::Compensate,
                _ => Operation::Force { end },
            };
            met(&self.coverage, "operator", operation.label());
            self.operate(seen.id, operation).await;
        }
        !parked.is_empty()
    }

    pub(crate) fn find(&self, definition: &str, number: &str) -> Option<Seen> {
        self.seen.get(&(definition.to_owned(), number.to_owned())).cloned()
    }
}
