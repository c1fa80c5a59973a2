//! Participants of other teams over Kafka: a definition that calls one is taken only where its topic can be reached.

use super::{Definitions, DefinitionsError};
use endstate_events::{Environment, ForeignTopic, TopicNameError, Transport};
use endstate_outbox::Bus;
use endstate_saga::definition::Definition;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How participants of other teams are reached over Kafka.
pub struct Reach {
    /// The bus that knows their topics.
    pub bus: Arc<dyn Bus>,
    /// The system's name, which may be part of a topic's.
    pub environment: Environment,
    /// Topics that take commands now, by participant, whatever a catalogue says.
    pub moved: BTreeMap<String, ForeignTopic>,
}

impl Reach {
    fn topic(&self, participant: &str, transport: &Transport) -> Option<Result<ForeignTopic, TopicNameError>> {
        let topic = transport.topic(&self.environment)?;
        Some(self.moved.get(participant).copied().map_or(topic, Ok))
    }
}

impl Definitions {
    /// The topic that takes commands to a participant of another team; none for participants that are not on Kafka.
    #[must_use]
    pub fn foreign_topic(&self, definition: &Definition, participant: &str) -> Option<ForeignTopic> {
        let transport = &definition.catalogue().participants.get(participant)?.transport;
        match transport {
            Transport::Builtin | Transport::Http { .. } => None,
            Transport::Kafka { .. } => self.reach.as_ref()?.topic(participant, transport)?.ok(),
        }
    }

    /// Looks whether everybody whom the definition calls over Kafka can be reached.
    pub(super) async fn check_reach(&self, definition: &Definition) -> Result<(), DefinitionsError> {
        let plan = definition.plan();
        let asks = plan.stages.iter().filter_map(|stage| stage.wait.as_ref()?.ask.as_ref());
        let calls = plan.steps.iter().flat_map(|step| std::iter::once(&step.call).chain(&step.undo)).chain(asks);
        let names: BTreeSet<&str> = calls.map(|call| &*call.participant).collect();
        for name in names {
            let Some(participant) = definition.catalogue().participants.get(name) else { continue };
            let Transport::Kafka { partitions, .. } = participant.transport else { continue };
            let unreachable = |reason: String| DefinitionsError::Unreachable { participant: name.to_owned(), reason };
            let none =
                "this process has the embedded bus; topics need `endstate serve` with store.url and kafka.brokers";
            let reach = self.reach.as_ref().ok_or_else(|| unreachable(none.to_owned()))?;
            let Some(topic) = reach.topic(name, &participant.transport) else { continue };
            let topic = topic.map_err(|error| unreachable(error.to_string()))?;
            reach.bus.reach(topic, partitions).await.map_err(|error| unreachable(error.to_string()))?;
        }
        Ok(())
    }
}
