//! What an event of another team means: an input to the saga that its subject names, or the start of every saga whose
//! definition starts on it.

use crate::gateway::{Gateway, GatewayError};
use crate::persist::{self, Stored};
use endstate_events::foreign::identity;
use endstate_events::{
    Envelope, ForeignEvent, Input, InputBody, Json, Lane, Message, SCHEMA_VERSION, SagaId, Slot, Start, Topic,
    Transport,
};
use endstate_http::strict_json;
use endstate_outbox::{BusError, Outgoing, StoreError};
use endstate_saga::definition::{Definition, body_hash};
use std::sync::Arc;

/// Why an event gave no inputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The saga that it names is not there, or not yet.
    #[error("{0}")]
    NoSaga(String),
    /// It can never be taken.
    #[error("{0}")]
    Refused(String),
    /// Store or bus failed: it is tried again.
    #[error("{0}")]
    Passing(String),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Passing(error.to_string())
    }
}

/// Begins the id of an input that another team's event has caused: apart from those of participants, so that nobody can
/// use up the id of a payment that is still to come.
pub(crate) const EVENT_ID: &str = "event/";

/// The messages that carry what an event means; none when nobody here has a use for it.
pub async fn inputs_of(gateway: &Gateway, envelope: &Envelope) -> Result<Vec<Outgoing>, Fault> {
    let Message::Foreign(event) = &envelope.message else {
        return Err(Fault::Refused(format!("a {} is no event of another team", envelope.message.label())));
    };
    let id = format!("{EVENT_ID}{}/{}", event.kind, identity(&event.source, &event.id));
    let named = event.subject.as_deref().and_then(|subject| subject.split_once('/'));
    match named.filter(|(definition, _)| gateway.definitions().is_active(definition)) {
        Some((definition, number)) => Ok(vec![to_saga(gateway, envelope, event, id, (definition, number)).await?]),
        None => starts(gateway, envelope, event, id).await,
    }
}

fn data(event: &ForeignEvent) -> Result<Json, Fault> {
    let refused = |problem: endstate_http::Problem| {
        let at = problem.errors.first().map(|error| error.pointer.as_str()).unwrap_or_default();
        Fault::Refused(format!("{}: its data cannot be taken at /data{at}: {}", problem.code.label(), problem.detail))
    };
    if event.data.trim().is_empty() {
        return Ok(Json::Null);
    }
    strict_json::parse(event.data.as_bytes()).map_err(refused)
}

/// Who may tell an event, and whether its data is what its declaration says.
fn check(definition: &Definition, event: &ForeignEvent, data: &Json) -> Result<(), Fault> {
    let name = &event.kind;
    if let Some((participant, transport)) = definition.teller(name) {
        let itself = event.teller.as_deref() == Some(participant);
        match transport {
            Transport::Http { .. } | Transport::Kafka { .. } if itself => {}
            Transport::Http { .. } | Transport::Kafka { .. } => {
                let said =
                    format!("E2318: `{name}` is taken from a topic where `{participant}` speaks (events.topics)");
                return Err(Fault::Refused(said));
            }
            Transport::Builtin => {
                let said = format!("E2318: `{name}` is what the built-in participant `{participant}` itself says");
                return Err(Fault::Refused(said));
            }
        }
    }
    match definition.event_misfits(name, data).into_iter().next() {
        Some(misfit) => Err(Fault::Refused(format!("E2302: /data{}: {}", misfit.pointer, misfit.reason))),
        None => Ok(()),
    }
}

async fn to_saga(
    gateway: &Gateway,
    envelope: &Envelope,
    event: &ForeignEvent,
    id: String,
    (definition, number): (&str, &str),
) -> Result<Outgoing, Fault> {
    let none = || Fault::NoSaga(format!("E2202: there is no `{definition}` with number `{number}`"));
    let saga = gateway.find(definition, number).await?.ok_or_else(none)?;
    // What this program cannot read is no reason to hear nobody else: the event is kept, and can be sent again.
    let unread =
        |error: StoreError| Fault::Refused(format!("E3003: `{definition}` `{number}` cannot be read: {error}"));
    let (_, stored) = persist::load_each(&**gateway.store(), &[saga]).await?.pop().ok_or_else(none)?;
    let Stored { saga, .. } = stored.map_err(unread)?;
    let version = saga.definition_version;
    let loaded = gateway.definitions().of_saga(&saga.definition, version).await?;
    let unread =
        || format!("E3003: this program cannot read version {version} of `{definition}`, which `{number}` has");
    let loaded = loaded.ok_or_else(|| Fault::Refused(unread()))?;
    let name = event.kind.clone();
    if loaded.plan().event(&name).is_none() {
        return Err(Fault::Refused(format!("E2307: `{definition}` knows no event `{name}`")));
    }
    let data = data(event)?;
    check(&loaded, event, &data)?;
    let body = InputBody::Event { name, data };
    let envelope = Envelope { lane: saga.lane, ..envelope.clone() };
    Ok(message(gateway, &envelope, Topic::Progress, (saga.id, id, saga.id.to_string()), body))
}

async fn starts(
    gateway: &Gateway,
    envelope: &Envelope,
    event: &ForeignEvent,
    id: String,
) -> Result<Vec<Outgoing>, Fault> {
    let mut wanted: Vec<(Arc<Definition>, Json)> = Vec::new();
    let unread = |(name, version)| {
        Fault::Refused(format!("E3003: this program cannot read version {version} of `{name}`, which may start on it"))
    };
    for definition in gateway.definitions().starting_on(&event.kind).map_err(unread)? {
        let data = data(event)?;
        check(&definition, event, &data)?;
        let failed = |error: endstate_saga::plan::EvalError| Fault::Refused(format!("E2302: {error}"));
        let input = definition.start_input(&event.kind, &data).map_err(failed)?;
        wanted.extend(input.map(|input| (definition, input)));
    }
    // Live is also what says nothing.
    let lane = Some(envelope.lane).filter(|lane| *lane != Lane::Live);
    let mut messages = Vec::with_capacity(wanted.len());
    for (definition, input) in wanted {
        let (start, lane) = gateway.compose(&definition, input, lane).await.map_err(refused)?;
        let envelope = Envelope { lane, ..envelope.clone() };
        let saga = derived(&envelope, &id, &start);
        let key = start.key.clone();
        let body = InputBody::Start(Box::new(start));
        messages.push(message(gateway, &envelope, Topic::Start, (saga, id.clone(), key), body));
    }
    Ok(messages)
}

fn refused(error: GatewayError) -> Fault {
    match error {
        GatewayError::Store(error) => error.into(),
        GatewayError::Bus(error @ BusError::Unacknowledged(_)) => Fault::Passing(error.to_string()),
        // The order may be on its way as well.
        error @ GatewayError::UnknownOrder { .. } => Fault::NoSaga(error.to_string()),
        GatewayError::Invalid { definition, misfits } => {
            let first = misfits.first().map(|misfit| format!("{}: {}", misfit.pointer, misfit.reason));
            Fault::Refused(format!("E2302: the input of `{definition}` at {}", first.unwrap_or_default()))
        }
        GatewayError::Evaluation(error) => Fault::Refused(format!("E2302: {error}")),
        error => Fault::Refused(error.to_string()),
    }
}

/// The same event gives the same saga.
fn derived(envelope: &Envelope, id: &str, start: &Start) -> SagaId {
    let hash = body_hash(&Json::from(id), &start.definition, envelope.lane);
    let random = u64::from_str_radix(&hash[..16], 16).unwrap_or_default();
    SagaId::mint(envelope.time_ms, Slot::of(&start.key), random)
}

fn message(
    gateway: &Gateway,
    heard: &Envelope,
    topic: Topic,
    (saga, id, key): (SagaId, String, String),
    body: InputBody,
) -> Outgoing {
    // What the saga sends carries the time of its cause, and a stranger's clock may show anything.
    let (time_ms, lane, message) = (gateway.clock().now_ms(), heard.lane, Message::Input(Input { saga, body }));
    let envelope = Envelope { id, schema: SCHEMA_VERSION, time_ms, key, lane, message };
    Outgoing { topic, partition: saga.slot().partition(gateway.store().partitions()), envelope: envelope.into() }
}
