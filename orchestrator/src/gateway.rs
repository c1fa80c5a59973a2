//! The one way in: whoever wants something of a saga queues an input here. Nothing in this file writes saga state.

use crate::definitions::Definitions;
use crate::persist::{self, Stored};
use crate::waiters::{Answer, Claim, Notice, Waiters, Waiting, Wanted};
use endstate_events::{
    Envelope, Input, InputBody, Json, Lane, Link, Message, SCHEMA_VERSION, SagaId, Slot, Start, Topic,
};
use endstate_outbox::{Bus, BusError, Clock, Outgoing, Store, StoreError};
use endstate_saga::control::{Outcome, Phase};
use endstate_saga::definition::{Definition, Identity, Misfit, OrderReference, body_hash};
use endstate_saga::event::Event;
use endstate_saga::plan::EvalError;
use endstate_saga::saga::Saga;
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
    decision: Duration,
    /// The shards that this process decides for; none: all.
    owned: Option<watch::Receiver<BTreeSet<u16>>>,
}

/// Beside the input, what a start may carry.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    /// Kind of traffic.
    pub lane: Lane,
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
    /// The definition's number, key or owner cannot be computed from the input.
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
        Self { store, bus, clock, definitions, waiters, decision: DECISION, owned: None }
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
        let known = || match options.version {
            Some(version) => self.definitions.get(definition, version),
            None => self.definitions.active(definition),
        };
        if known().is_none() && self.owned.is_some() {
            self.definitions.refresh().await?;
        }
        let definition = known().ok_or_else(|| GatewayError::UnknownDefinition(definition.to_owned()))?;
        let start = self.compose(&definition, input).await?;
        let (number, key) = (start.number.clone(), start.key.clone());
        if let Some(key) = options.idempotency_key.filter(|key| *key != number) {
            return Err(GatewayError::KeyIsNotNumber { key, number });
        }
        let saga = SagaId::mint(self.clock.now_ms(), Slot::of(&key), rand::random());
        let (definition, body_hash) = (start.definition.clone(), start.body_hash.clone());
        let wanted = Wanted { definition, number: number.clone(), body_hash };
        let mut waiting = self.waiters.sagas.wait(saga);
        let _starting = self.waiters.starts.begin(saga, wanted);
        let body = InputBody::Start(Box::new(start));
        self.queue(Topic::Start, saga, number.clone(), key, options.lane, body).await?;
        let decision = if self.is_spilling(Topic::Start, saga) { SPILLED } else { self.decision };
        tokio::time::timeout(decision, waiting.until(|notice| notice.claim.is_some())).await.ok();
        if let Some(patience) = options.wait {
            tokio::time::timeout(patience, waiting.until(Notice::is_settled)).await.ok();
        }
        let notice = waiting.latest();
        match notice.claim {
            Some(Claim::Taken { by, same_body: false }) => Err(GatewayError::NumberTaken { number, by }),
            Some(Claim::Taken { by, same_body: true }) => {
                let notice = self.news(by, options.wait).await?;
                Ok(Started { saga: Some(by), number, replayed: true, notice })
            }
            Some(Claim::First) => Ok(Started { saga: Some(saga), number, replayed: false, notice }),
            None => Ok(Started { saga: None, number, replayed: false, notice }),
        }
    }

    /// The start that an input means, if it fits.
    pub(crate) async fn compose(&self, definition: &Definition, input: Json) -> Result<Start, GatewayError> {
        let misfits = definition.misfits(&input);
        if !misfits.is_empty() {
            return Err(GatewayError::Invalid { definition: definition.name().to_string(), misfits });
        }
        let order = match definition.order_reference(&input)? {
            Some(reference) => Some(self.order(&reference).await?),
            None => None,
        };
        let snapshot = order.as_ref().map_or(&Json::Null, |order| &order.snapshot);
        let Identity { number, key, owner } = definition.identify(&input, snapshot)?;
        let key = key.or_else(|| order.as_ref().map(|order| order.key.clone())).unwrap_or_else(|| number.clone());
        let link = order.map(|order| Link { order: order.saga, snapshot: order.snapshot, caller: None });
        let (body_hash, version) = (body_hash(&input, &key), definition.version());
        let definition = definition.name().to_string();
        Ok(Start { definition, version, number, key, owner, input, body_hash, link })
    }

    async fn order(&self, reference: &OrderReference) -> Result<Order, GatewayError> {
        let OrderReference { definition, number, outcome } = reference;
        let unknown = || GatewayError::UnknownOrder { definition: definition.to_string(), number: number.clone() };
        let saga = self.find(definition, number).await?.ok_or_else(unknown)?;
        let Stored { saga, .. } = self.get(saga).await?.ok_or_else(unknown)?;
        // What has ended never changes, so this holds whenever the start is decided.
        if let Some(outcome) = outcome.filter(|outcome| saga.control.outcome() != Some(*outcome)) {
            return Err(GatewayError::OrderUnfit {
                definition: definition.to_string(),
                number: number.clone(),
                outcome,
            });
        }
        let known = self.definitions.get(&saga.definition, saga.definition_version).ok_or_else(unknown)?;
        Ok(Order { saga: saga.id, key: saga.key.to_string(), snapshot: saga.snapshot(known.plan()) })
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

    /// The saga that a number names.
    pub async fn find(&self, definition: &str, number: &str) -> Result<Option<SagaId>, StoreError> {
        let claims = persist::load_numbers(&*self.store, &[(definition, number)]).await?;
        Ok(claims.first().map(|(_, claimed)| claimed.saga))
    }

    /// A saga's committed row.
    pub async fn get(&self, saga: SagaId) -> Result<Option<Stored>, StoreError> {
        Ok(persist::load_sagas(&*self.store, &[saga]).await?.pop())
    }

    /// A saga's events in order: version before, time, events.
    pub async fn timeline(&self, saga: SagaId) -> Result<Vec<(u64, i64, Vec<Event>)>, StoreError> {
        persist::load_timeline(&*self.store, saga).await
    }

    /// Waits until nothing more happens without somebody outside, at most `patience`; returns the latest news.
    pub async fn news(&self, saga: SagaId, patience: Option<Duration>) -> Result<Notice, StoreError> {
        let mut waiting = self.waiters.sagas.wait(saga);
        let stored = self.get(saga).await?;
        let known = stored.as_ref().map_or_else(Notice::default, |stored| self.notice(&stored.saga));
        let Some(patience) = patience.filter(|_| !known.is_settled()) else { return Ok(known) };
        match tokio::time::timeout(patience, waiting.until(Notice::is_settled)).await {
            Ok(notice) => Ok(notice),
            Err(_) => Ok(self.get(saga).await?.map_or(known, |stored| self.notice(&stored.saga))),
        }
    }

    /// The phase of a saga, as its definition tells it.
    #[must_use]
    pub fn phase(&self, saga: &Saga) -> Option<Phase> {
        let definition = self.definitions.get(&saga.definition, saga.definition_version)?;
        Some(saga.control.phase(definition.plan()))
    }

    /// The news that a saga's row holds.
    pub(crate) fn notice(&self, saga: &Saga) -> Notice {
        Notice {
            claim: None,
            phase: self.phase(saga),
            status: Some(Arc::clone(&saga.status)),
            outcome: saga.control.outcome(),
        }
    }
}
