//! Topics are made with the right settings, or checked: a wrong partition count would give an account two owners (Z17),
//! a short retention would delete what a saga still needs.

use super::admin::{Admin, admin, ask, why};
use super::member::Share;
use super::settings::{ANSWER, KafkaSettings};
use super::{OpenError, position, wire};
use crate::store::{Positions, ShardId};
use endstate_events::{Environment, ForeignTopic, Side, Topic};
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use std::time::Duration;

/// A topic that was just made is not known to every broker at once.
pub(super) const SETTLE: Duration = Duration::from_millis(200);
/// How often it is looked for.
const LOOKS: usize = 50;

/// How long a partition's leader may take to answer, and how often one is looked for at the start: two seconds where the broker
/// says at once that there is none, ten where it is silent.
pub(super) const LED: Duration = Duration::from_secs(1);
const LOOKS_FOR_LEADERS: usize = 8;

/// Names of topics on the broker.
#[derive(Clone)]
pub(super) struct Names([String; Topic::ALL.len()]);

impl Names {
    pub(super) fn of(environment: &Environment) -> Self {
        Self(Topic::ALL.map(|topic| topic.name(environment).into_owned()))
    }

    pub(super) fn get(&self, topic: Topic) -> &str {
        if let Topic::Foreign(foreign) = topic {
            return foreign.name();
        }
        let ours = Topic::ALL.iter().zip(&self.0).find(|(ours, _)| **ours == topic);
        ours.map_or("", |(_, name)| name)
    }

    /// The topic of a name.
    pub(super) fn find(&self, name: &str) -> Option<Topic> {
        let ours = Topic::ALL.into_iter().zip(&self.0).find(|(_, ours)| *ours == name).map(|(topic, _)| topic);
        ours.or_else(|| ForeignTopic::named(name).ok().map(Topic::Foreign))
    }
}

/// What the brokers answered, or why they did not.
pub(super) async fn answered<T>(settings: &KafkaSettings, asked: KafkaResult<T>) -> Result<T, OpenError> {
    match asked {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let (brokers, reason) = (settings.brokers.clone(), why(settings, &error).await);
            Err(OpenError::Unreachable { brokers, reason })
        }
    }
}

/// Copies of each partition of a topic that is made; -1 is the brokers' own default.
pub(super) fn replication(settings: &KafkaSettings) -> TopicReplication<'static> {
    TopicReplication::Fixed(if settings.replication == 0 { -1 } else { i32::from(settings.replication) })
}

/// How long the brokers may take to make topics, or to tell their settings.
pub(super) fn patience() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(2 * ANSWER))
}

/// Makes topics; one that is there already serves as well. The first that cannot be made is told, with the reason.
pub(super) async fn create(
    admin: &Admin,
    wanted: &[NewTopic<'_>],
    options: &AdminOptions,
) -> KafkaResult<Result<(), (String, String)>> {
    for made in admin.create_topics(wanted, options).await? {
        match made {
            Ok(name) => tracing::info!(topic = name, "made"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, error)) => return Ok(Err((topic, format!("it cannot be made: {error}")))),
        }
    }
    Ok(Ok(()))
}

/// Partitions of a topic of another team. One that is not there is made if the settings say so, else it is an error.
pub(super) async fn foreign(settings: &KafkaSettings, topic: ForeignTopic) -> Result<u16, String> {
    let admin = admin(settings).map_err(|error| error.to_string())?;
    let count = found_or_made(&admin, settings, topic.name()).await;
    // Its end waits for its threads.
    drop(tokio::task::spawn_blocking(move || drop(admin)));
    count
}

async fn found_or_made(admin: &Admin, settings: &KafkaSettings, name: &str) -> Result<u16, String> {
    let mut count = counted(admin, name).await.map_err(|error| error.to_string())?;
    if count == 0 && settings.foreign_partitions > 0 {
        let wanted = NewTopic::new(name, i32::from(settings.foreign_partitions), replication(settings));
        let made = create(admin, &[wanted], &AdminOptions::new()).await.map_err(|error| error.to_string())?;
        made.map_err(|(topic, reason)| format!("topic `{topic}`: {reason}"))?;
        count = awaited(admin, name).await.map_err(|error| error.to_string())?;
    }
    if count == 0 {
        return Err(format!("there is no topic `{name}`, or this program may not see it"));
    }
    u16::try_from(count).map_err(|_| format!("topic `{name}` has {count} partitions"))
}

/// Partitions of a topic; 0 when it is not there.
pub(super) async fn counted(admin: &Admin, name: &str) -> KafkaResult<usize> {
    let topic = name.to_owned();
    let metadata = ask(admin, move |client| client.fetch_metadata(Some(&topic), ANSWER)).await?;
    let found = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none());
    Ok(found.map_or(0, |topic| topic.partitions().len()))
}

/// The same of a topic that was made, once it is there.
async fn awaited(admin: &Admin, name: &str) -> KafkaResult<usize> {
    for _ in 0..LOOKS {
        let count = counted(admin, name).await?;
        if count > 0 {
            return Ok(count);
        }
        tokio::time::sleep(SETTLE).await;
    }
    Ok(0)
}

/// The oldest offset of a partition, and the one behind its newest.
pub(super) async fn edges(settings: &KafkaSettings, topic: ForeignTopic, partition: u16) -> Result<(i64, i64), String> {
    let admin = admin(settings).map_err(|error| error.to_string())?;
    let edges = watermarks(&admin, topic.name(), partition, ANSWER).await;
    drop(tokio::task::spawn_blocking(move || drop(admin)));
    edges.map_err(|error| format!("{}/{partition}: {error}", topic.name()))
}

/// The oldest offset of a partition, and the one behind its newest, as its leader tells them.
pub(super) async fn watermarks(
    admin: &Admin,
    name: &str,
    partition: u16,
    patience: Duration,
) -> KafkaResult<(i64, i64)> {
    let name = name.to_owned();
    ask(admin, move |client| client.fetch_watermarks(&name, i32::from(partition), patience)).await
}

/// Where each shard's topics begin. One that is not there will begin at its first record; of one that is there and has no
/// leader nobody knows.
pub(super) async fn beginnings(settings: &KafkaSettings) -> Result<Vec<(ShardId, Positions)>, OpenError> {
    let admin = admin(settings).map_err(|error| OpenError::settings(&error))?;
    let mut all = Vec::new();
    for side in [Side::Orchestrator, Side::Participants] {
        let mut there = Vec::new();
        for topic in Share::Shards(side).topics() {
            let name = topic.name(&settings.environment).into_owned();
            let away = |error: KafkaError| {
                let (brokers, reason) = (settings.brokers.clone(), error.to_string());
                OpenError::Unreachable { brokers, reason }
            };
            if counted(&admin, &name).await.map_err(away)? > 0 {
                there.push((topic, name));
            }
        }
        for index in 0..settings.partitions {
            let mut positions = Positions::default();
            for (topic, name) in &there {
                let (low, _) = answered(settings, watermarks(&admin, name, index, ANSWER).await).await?;
                positions.advance(*topic, position::of(*topic, low, 0));
            }
            all.push((ShardId { side, index }, positions));
        }
    }
    Ok(all)
}

/// Deletes all topics of an environment.
pub(super) async fn wipe(settings: &KafkaSettings) -> Result<(), String> {
    let admin = admin(settings).map_err(|error| error.to_string())?;
    delete(&admin, &settings.environment).await
}

/// The same, by whoever may reach the brokers.
pub(super) async fn delete(admin: &AdminClient<DefaultClientContext>, environment: &Environment) -> Result<(), String> {
    let Names(names) = Names::of(environment);
    let claim = super::claim::topic(environment);
    let names: Vec<&str> = names.iter().chain([&claim]).map(String::as_str).collect();
    admin.delete_topics(&names, &AdminOptions::new()).await.map(drop).map_err(|error| error.to_string())
}

/// Makes the topics that are missing, and checks all.
pub(super) async fn ensure(settings: &KafkaSettings) -> Result<(), OpenError> {
    let admin = admin(settings).map_err(|error| OpenError::settings(&error))?;
    let Names(names) = Names::of(&settings.environment);
    let retention_ms = settings.retention.as_millis().to_string();
    let (min_insync, batch) = (settings.min_insync.to_string(), wire::BATCH.to_string());
    let wanted = names.iter().map(|name| {
        let topic = new_topic(settings, name, &retention_ms, &min_insync);
        topic.set("max.message.bytes", &batch)
    });
    let wanted: Vec<NewTopic<'_>> = wanted.collect();
    let made = answered(settings, create(&admin, &wanted, &patience()).await).await?;
    made.map_err(|(topic, reason)| OpenError::Topic { topic, reason })?;
    for name in &names {
        partitions(&admin, settings, name).await?;
    }
    let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let described = answered(settings, admin.describe_configs(&resources, &patience()).await).await?;
    for (name, resource) in names.iter().zip(described) {
        let resource = answered(settings, resource.map_err(KafkaError::AdminOp)).await?;
        let wrong = |reason| OpenError::Topic { topic: name.clone(), reason };
        configuration(settings, &resource).map_err(wrong)?;
    }
    Ok(())
}

fn new_topic<'a>(settings: &KafkaSettings, name: &'a str, retention_ms: &'a str, min_insync: &'a str) -> NewTopic<'a> {
    let topic = NewTopic::new(name, i32::from(settings.partitions), replication(settings))
        .set("cleanup.policy", "delete")
        .set("retention.ms", retention_ms);
    if settings.min_insync == 0 { topic } else { topic.set("min.insync.replicas", min_insync) }
}

async fn partitions(admin: &Admin, settings: &KafkaSettings, name: &str) -> Result<(), OpenError> {
    let found = answered(settings, awaited(admin, name).await).await?;
    if found == usize::from(settings.partitions) {
        return led(admin, settings, name).await;
    }
    let reason = format!("it has {found} partitions, and the store has {} shards", settings.partitions);
    Err(OpenError::Topic { topic: name.to_owned(), reason })
}

/// Waits until every partition of a topic has a leader that knows of it: one that was just made has not at once. One that
/// has none for longer holds nobody up: its shard tries again and says so, and the others work.
async fn led(admin: &Admin, settings: &KafkaSettings, name: &str) -> Result<(), OpenError> {
    let mut looks = 0;
    for partition in 0..settings.partitions {
        while let Err(error) = watermarks(admin, name, partition, LED).await {
            looks += 1;
            if looks > LOOKS_FOR_LEADERS {
                tracing::warn!(topic = name, partition, %error, "a partition cannot be read; its shard will try again");
                return Ok(());
            }
            tokio::time::sleep(SETTLE).await;
        }
    }
    Ok(())
}

/// What a topic that is there must fulfil.
fn configuration(settings: &KafkaSettings, resource: &ConfigResource) -> Result<(), String> {
    let value = |name: &str| resource.get(name).and_then(|entry| entry.value.as_deref()).unwrap_or_default();
    let number = |name: &str| value(name).parse::<i64>().unwrap_or(-1);
    let retention_ms = number("retention.ms");
    if retention_ms >= 0 && u128::try_from(retention_ms).unwrap_or(0) < settings.retention.as_millis() {
        return Err(format!("retention.ms is {retention_ms}, less than {}", settings.retention.as_millis()));
    }
    if value("cleanup.policy") != "delete" {
        return Err(format!("cleanup.policy is `{}`: compaction would take messages away", value("cleanup.policy")));
    }
    let largest = number("max.message.bytes");
    if largest < wire::BATCH {
        return Err(format!(
            "max.message.bytes is {largest}, less than {}: a message could never be sent",
            wire::BATCH
        ));
    }
    let min_insync = number("min.insync.replicas");
    if min_insync < i64::from(settings.min_insync) {
        return Err(format!("min.insync.replicas is {min_insync}, less than {}", settings.min_insync));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_at_a_topic_of_others_does_not_block_the_threads_that_serve_calls() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // Nobody is there, so that each question takes its whole time.
            let settings = KafkaSettings::of_test("127.0.0.1:9", 1);
            let mut reaching = std::pin::pin!(foreign(&settings, ForeignTopic::named("theirs").unwrap()));
            let mut asking = std::pin::pin!(edges(&settings, ForeignTopic::named("theirs").unwrap(), 0));
            tokio::select! {
                biased;
                _ = &mut reaching => panic!("a thread that serves calls waited for the brokers"),
                _ = &mut asking => panic!("a thread that serves calls waited for the brokers"),
                () = std::future::ready(()) => {}
            }
        });
        runtime.shutdown_background();
    }
}
