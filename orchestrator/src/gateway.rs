//! The one way in: whoever wants something of a saga queues an input here. Nothing in this file writes saga state.

mod look;

use crate::definitions::Definitions;
use crate::feed::Followers;
use crate::persist::Stored;
use crate::waiters::{Answer, Claim, Notice, Waiters, Waiting, Wanted};
use endstate_events::{
    Envelope, Input, InputBody, Json, Lane, Link, Message, SCHEMA_VERSION, SagaId, Slot, Start, Topic,
};
use endstate_outbox::{Bus, BusError, Clock, Outgoing, Store, StoreError};
use endstate_saga::control::Outcome;
use endstate_saga::decide::check_start;
use endstate_saga::definition::{Definition, Identity, Misfit, OrderReference, body_hash};
use endstate_saga::plan::EvalError;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long an input waits for its shard's decision before it is answered as queued.
const DECISION: Duration = Duration::from_secs(5);

/// The same while the broker does not answer. The shard's owner may be able to decide all the same, but hardly anything
/// comes of it before the broker is back.
const SPILLED: Duration = Duration::from_millis(250);

/// Queues inputs and reads sagas.
#[derive(Clone)]
pub struct Gateway {
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    definitions: Arc<Definitions>,
    waiters: Arc<Waiters>,
    followers: Arc<Followers>,
    decision: Duration,
    /// The shards that this process decides for; none: all.
    owned: Option<watch::Receiver<BTreeSet<u16>>>,
}

/// Beside the input, what a start may carry.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    /// Kind of traffic; none: that of the order it belongs to, and live without one.
    pub lane: Option<Lane>,
    /// The caller's own idempotency key; must equal the number.
    pub idempotency_key: Option<String>,
    /// How long to wait for the end.
    pub wait: Option<Duration>,
    /// The version to start; the active one when none.
    pub version: Option<u32>,
}

/// A start that was queued.
#[derive(Clone, Debug)]
pub struct Started {
    /// The saga: for a repeated number, the first one. None while its shard has not decided, because another start may
    /// have been earlier with the number.
    pub saga: Option<SagaId>,
    /// Its number.
    pub number: String,
    /// True when the number was started before with the same body.
    pub replayed: bool,
    /// The latest news; empty when the shard has not decided yet.
    pub notice: Notice,
}

/// Why an input was not queued.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No active definition of that name.
    #[error("there is no active definition `{0}`")]
    UnknownDefinition(String),
    /// The input does not fit the definition.
    #[error("the input does not fit `{definition}`")]
    Invalid {
        /// The definition.
        definition: String,
        /// Each fault and where it is.
        misfits: Vec<Misfit>,
    },
    /// The definition's number, key, owner or values cannot be computed from the input.
    #[error(transparent)]
    Evaluation(#[from] EvalError),
    /// The idempotency key is not the number.
    #[error("Idempotency-Key `{key}` is not the number `{number}`")]
    KeyIsNotNumber {
        /// The header.
        key: String,
        /// The number of the input.
        number: String,
    },
    /// The number belongs to a saga with another body.
    #[error("number `{number}` was used with another body, by saga {by}")]
    NumberTaken {
        /// The number.
        number: String,
        /// Who holds it.
        by: SagaId,
    },
    /// The order that a linked definition refers to does not exist.
    #[error("there is no `{definition}` with number `{number}`")]
    UnknownOrder {
        /// The order's definition.
        definition: String,
        /// Its number.
        number: String,
    },
    /// The order that a linked definition refers to has not ended as it must have.
    #[error("`{definition}` number `{number}` has not ended {}", .outcome.label())]
    OrderUnfit {
        /// The order's definition.
        definition: String,
        /// Its number.
        number: String,
        /// How it must have ended.
        outcome: Outcome,
    },
    /// The order that a linked definition refers to is traffic of another kind.
    #[error("`{definition}` number `{number}` is in lane {}: what belongs to it runs there, too", .lane.label())]
    OtherLane {
        /// The order's definition.
        definition: String,
        /// Its number.
        number: String,
        /// Its lane.
        lane: Lane,
    },
    /// Not acknowledged.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The order that a start belongs to.
struct Order {
    saga: SagaId,
    key: String,
    lane: Lane,
    snapshot: Json,
}

impl Gateway {
    /// A gateway over one store and bus.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        definitions: Arc<Definitions>,
        waiters: Arc<Waiters>,
    ) -> Self {
        let followers = Arc::new(Followers::new(store.clone()));
        Self { store, bus, clock, definitions, waiters, followers, decision: DECISION, owned: None }
    }

    /// Waits that long for a shard's decision, instead of five seconds.
    #[must_use]
    pub fn deciding_within(self, decision: Duration) -> Self {
        Self { decision, ..self }
    }

    /// One of several processes: sagas of shards that are not in `owned` are decided elsewhere.
    #[must_use]
    pub fn among_others(self, owned: watch::Receiver<BTreeSet<u16>>) -> Self {
        Self { owned: Some(owned), ..self }
    }

    /// Whether this process decides a saga, so that its waiters are told.
    #[must_use]
    pub fn decides(&self, saga: SagaId) -> bool {
        let shard = saga.slot().partition(self.store.partitions());
        self.owned.as_ref().is_none_or(|owned| owned.borrow().contains(&shard))
    }

    /// Who waits.
    pub(crate) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// Who follows changes.
    pub(crate) fn followers(&self) -> &Followers {
        &self.followers
    }

    /// The store, for read models.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The bus, for what is not an input.
    #[must_use]
    pub fn bus(&self) -> &Arc<dyn Bus> {
        &self.bus
    }

    /// The definitions.
    #[must_use]
    pub fn definitions(&self) -> &Arc<Definitions> {
        &self.definitions
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Queues a start, durably, and waits for its shard's decision (and longer, if asked to).
    pub async fn start(&self, definition: &str, input: Json, options: StartOptions) -> Result<Started, GatewayError> {
        let wanted = self.definitions.wanted(definition, options.version).await?;
        let definition = wanted.ok_or_else(|| GatewayError::UnknownDefinition(definition.to_owned()))?;
        let composed = self.compose(&definition, input, options.lane).await?;
        let number = &composed.0.number;
        if let Some(key) = options.idempotency_key.filter(|key| key != number) {
            return Err(GatewayError::KeyIsNotNumber { key, number: number.clone() });
        }
        self.begin(composed, options.wait).await
    }

    /// Queues a start that was composed, and waits as [`start`](Self::start) does.
    pub(crate) async fn begin(
        &self,
        (start, lane): (Start, Lane),
        wait: Option<Duration>,
    ) -> Result<Started, GatewayError> {
        let (number, key) = (start.number.clone(), start.key.clone());
        let saga = SagaId::mint(self.clock.now_ms(), Slot::of(&key), rand::random());
        let (definition, body_hash) = (start.definition.clone(), start.body_hash.clone());
        let wanted = Wanted { definition, number: number.clone(), body_hash };
        let mut waiting = self.waiters.sagas.wait(saga);
        let _starting = self.waiters.starts.begin(saga, wanted);
        let body = InputBody::Start(Box::new(start));
        self.queue(Topic::Start, saga, number.clone(), key, lane, body).await?;
        let decision = if self.is_spilling(Topic::Start, saga) { SPILLED } else { self.decision };
        tokio::time::timeout(decision, waiting.until(|notice| notice.claim.is_some())).await.ok();
        if let Some(patience) = wait {
            tokio::time::timeout(patience, waiting.until(Notice::is_settled)).await.ok();
        }
        let notice = waiting.latest();
        match notice.claim {
            Some(Claim::Taken { by, same_body: false }) => Err(GatewayError::NumberTaken { number, by }),
            Some(Claim::Taken { by, same_body: true }) => {
                let notice = self.news(by, wait).await?;
                Ok(Started { saga: Some(by), number, replayed: true, notice })
            }
            Some(Claim::First) => Ok(Started { saga: Some(saga), number, replayed: false, notice }),
            None => Ok(Started { saga: None, number, replayed: false, notice }),
        }
    }

    /// The start that an input means, if it fits, and its lane: one that belongs to an order runs in that order's, so that
    /// a refund of a test order moves no live stock.
    pub(crate) async fn compose(
        &self,
        definition: &Definition,
        input: Json,
        lane: Option<Lane>,
    ) -> Result<(Start, Lane), GatewayError> {
        let misfits = definition.misfits(&input);
        if !misfits.is_empty() {
            return Err(GatewayError::Invalid { definition: definition.name().to_string(), misfits });
        }
        let order = match definition.order_reference(&input)? {
            Some(reference) => Some(self.order(&reference, lane).await?),
            None => None,
        };
        let snapshot = order.as_ref().map_or(&Json::Null, |order| &order.snapshot);
        let Identity { number, key, owner } = definition.identify(&input, snapshot)?;
        let key = key.or_else(|| order.as_ref().map(|order| order.key.clone())).unwrap_or_else(|| number.clone());
        let lane = order.as_ref().map(|order| order.lane).or(lane).unwrap_or_default();
        let link = order.map(|order| Link { order: order.saga, snapshot: order.snapshot, caller: None });
        let (body_hash, version) = (body_hash(&input, &key, lane), definition.version());
        let name = definition.name().to_string();
        let start = Start { definition: name, version, number, key, owner, input, body_hash, link };
        // Its shard computes them once more: what is decided depends on the record alone.
        let now_ms = self.clock.now_ms();
        check_start(definition, SagaId::mint(now_ms, Slot::of(&start.key), 0), &start, now_ms)?;
        Ok((start, lane))
    }

    async fn order(&self, reference: &OrderReference, lane: Option<Lane>) -> Result<Order, GatewayError> {
        let OrderReference { definition, number, outcome } = reference;
        let unknown = || GatewayError::UnknownOrder { definition: definition.to_string(), number: number.clone() };
        let saga = self.find(definition, number).await?.ok_or_else(unknown)?;
        let Stored { saga, .. } = self.get(saga).await?.ok_or_else(unknown)?;
        if lane.is_some_and(|lane| lane != saga.lane) {
            let (definition, number, lane) = (definition.to_string(), number.clone(), saga.lane);
            return Err(GatewayError::OtherLane { definition, number, lane });
        }
        // What has ended never changes, so this holds whenever the start is decided.
        if let Some(outcome) = outcome.filter(|outcome| saga.control.outcome() != Some(*outcome)) {
            return Err(GatewayError::OrderUnfit {
                definition: definition.to_string(),
                number: number.clone(),
                outcome,
            });
        }
        let known = self.definitions.of_saga(&saga.definition, saga.definition_version).await?.ok_or_else(unknown)?;
        let snapshot = saga.snapshot(known.plan());
        Ok(Order { saga: saga.id, key: saga.key.to_string(), lane: saga.lane, snapshot })
    }

    /// Queues an input and waits for what its saga says to it, at most as long as is asked for, else as long as a decision
    /// may take; none when that is not known in time.
    pub async fn ask(
        &self,
        saga: SagaId,
        id: String,
        lane: Lane,
        body: InputBody,
        wait: Option<Duration>,
    ) -> Result<Answer, GatewayError> {
        let answers = self.ask_each(&[(saga, lane)], &id, &body, wait).await?;
        Ok(answers.into_iter().next().flatten())
    }

    /// Queues the same input to each saga, in one commit, and waits for what each says to it, as [`ask`](Self::ask) does.
    pub async fn ask_each(
        &self,
        sagas: &[(SagaId, Lane)],
        id: &str,
        body: &InputBody,
        wait: Option<Duration>,
    ) -> Result<Vec<Answer>, GatewayError> {
        let begin = |(saga, _): &(SagaId, Lane)| self.waiters.inputs.wait((*saga, id.to_owned()));
        let mut waiting: Vec<_> = sagas.iter().map(begin).collect();
        let message = |(saga, lane): &(SagaId, Lane)| {
            self.message(Topic::Progress, *saga, id.to_owned(), saga.to_string(), *lane, body.clone())
        };
        self.bus.produce(sagas.iter().map(message).collect()).await?;
        let spilling = sagas.iter().any(|(saga, _)| self.is_spilling(Topic::Progress, *saga));
        let decision = if spilling { SPILLED } else { self.decision };
        let until = tokio::time::Instant::now() + wait.unwrap_or(decision);
        for ((saga, _), waiting) in sagas.iter().zip(&mut waiting) {
            // What another process answers is told to nobody here: its caller looks at the saga.
            if self.decides(*saga) {
                tokio::time::timeout_at(until, waiting.until(Option::is_some)).await.ok();
            }
        }
        Ok(waiting.iter().map(Waiting::latest).collect())
    }

    /// Queues any other input, durably. `id` is its identity: repeated, it changes nothing.
    pub async fn send(&self, saga: SagaId, id: String, lane: Lane, body: InputBody) -> Result<(), GatewayError> {
        self.queue(Topic::Progress, saga, id, saga.to_string(), lane, body).await
    }

    async fn queue(
        &self,
        topic: Topic,
        saga: SagaId,
        id: String,
        key: String,
        lane: Lane,
        body: InputBody,
    ) -> Result<(), GatewayError> {
        self.bus.produce(vec![self.message(topic, saga, id, key, lane, body)]).await?;
        Ok(())
    }

    /// Whether inputs of this saga go round the broker.
    fn is_spilling(&self, topic: Topic, saga: SagaId) -> bool {
        self.bus.is_spilling(topic, saga.slot().partition(self.store.partitions()))
    }

    fn message(&self, topic: Topic, saga: SagaId, id: String, key: String, lane: Lane, body: InputBody) -> Outgoing {
        let message = Message::Input(Input { saga, body });
        let time_ms = self.clock.now_ms();
        let envelope = Arc::new(Envelope { id, schema: SCHEMA_VERSION, time_ms, key, lane, message });
        Outgoing { topic, partition: saga.slot().partition(self.store.partitions()), envelope }
    }
}
