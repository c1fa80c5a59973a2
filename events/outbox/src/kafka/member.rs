//! Who owns which shard: one small consumer per side, member of the side's group. It subscribes to one topic, with all its
//! partitions paused: what the group gives it are the shards this process owns. Records are read elsewhere
//! ([`super::reader`]), at the database's positions; what is committed here only feeds tools that show lag.

use super::guard;
use super::metric;
use super::position;
use super::reader::Places;
use super::settings::{ANSWER, KafkaSettings};
use crate::metric::Metric;
use endstate_events::{Environment, ForeignTopic, Side, Topic};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the group's events are looked for.
const POLL: Duration = Duration::from_millis(100);

/// A side's membership; left when dropped.
pub(super) struct Member {
    pub(super) owned: watch::Receiver<BTreeSet<u16>>,
    stop: CancellationToken,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a group shares out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// The shards of a side.
    Shards(Side),
    /// The partitions of a topic of another team.
    Foreign(ForeignTopic),
}

impl Share {
    /// Its topics; the first decides who owns what, so that partition k of all goes together.
    pub(super) fn topics(self) -> Vec<Topic> {
        match self {
            Self::Shards(Side::Orchestrator) => vec![Topic::Progress, Topic::Start],
            Self::Shards(Side::Participants) => vec![Topic::Commands],
            Self::Foreign(topic) => vec![Topic::Foreign(topic)],
        }
    }

    /// Its group.
    pub(super) fn group(self, environment: &Environment) -> String {
        format!("{environment}.endstate.{}", self.label())
    }

    /// Names the group, and the label of its metrics.
    fn label(self) -> &'static str {
        match self {
            Self::Shards(side) => side.label(),
            Self::Foreign(topic) => topic.name(),
        }
    }
}

impl Member {
    /// Joins the group that shares something out.
    pub(super) fn join(settings: &KafkaSettings, share: Share, places: Places) -> KafkaResult<Self> {
        let (sender, owned) = watch::channel(BTreeSet::new());
        let (sender, settings) = (Arc::new(sender), settings.clone());
        let stop = CancellationToken::new();
        let mut first = Some(Membership::join(&settings, share, &sender, &places)?);
        let (stopped, held) = (stop.clone(), Arc::clone(&sender));
        let body = move || {
            if !stopped.is_cancelled() {
                let again = || Membership::join(&settings, share, &sender, &places);
                first.take().map_or_else(again, Ok).expect("a membership as the first").run(&stopped);
            }
        };
        // Its shards are somebody else's as soon as the group notices.
        let fallen = move |_: &str| _ = held.send_replace(BTreeSet::new());
        let thread = std::thread::Builder::new()
            .name(format!("kafka-{}", share.label()))
            .spawn(move || guard::survive("a membership of the bus", body, fallen))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { owned, stop, thread: Mutex::new(Some(thread)) })
    }

    /// Leaves the group, so that others need not wait until it is given up.
    pub(super) fn leave(&self) {
        self.stop.cancel();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a membership of the bus has panicked");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}

struct Context {
    share: Share,
    owned: Arc<watch::Sender<BTreeSet<u16>>>,
}

impl Context {
    fn change(&self, list: &TopicPartitionList, change: impl Fn(&mut BTreeSet<u16>, u16) -> bool) {
        let partitions = list.elements();
        let partitions = partitions.iter().filter_map(|element| u16::try_from(element.partition()).ok());
        self.owned.send_modify(|owned| partitions.for_each(|partition| _ = change(owned, partition)));
        let owned = self.owned.borrow();
        Metric::OwnedShards.set(owned.len() as f64, &[self.share.label()]);
        tracing::info!(side = self.share.label(), owned = ?*owned, "shards of this process");
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        metric::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        metric::trouble(&format!("the membership of {}", self.share.label()), &error, reason);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            Metric::Rebalances.add(1, &[self.share.label(), "revoked"]);
            self.change(list, |owned, partition| owned.remove(&partition));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                Metric::Rebalances.add(1, &[self.share.label(), "assigned"]);
                if let Err(error) = consumer.pause(list) {
                    tracing::warn!(%error, "a partition of the membership is read for nothing");
                }
                self.change(list, |owned, partition| owned.insert(partition));
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance failed"),
        }
    }
}

struct Membership {
    consumer: BaseConsumer<Context>,
    names: Vec<(Topic, String)>,
    places: Places,
}

impl Membership {
    fn join(
        settings: &KafkaSettings,
        share: Share,
        owned: &Arc<watch::Sender<BTreeSet<u16>>>,
        places: &Places,
    ) -> KafkaResult<Self> {
        let context = Context { share, owned: Arc::clone(owned) };
        let group = share.group(&settings.environment);
        let consumer = BaseConsumer::from_config_and_context(&settings.member(&group), context)?;
        let topics = share.topics();
        consumer.subscribe(&[&*topics[0].name(&settings.environment)])?;
        let name = |topic: &Topic| (*topic, topic.name(&settings.environment).into_owned());
        let names = topics.iter().map(name).collect();
        Ok(Self { consumer, names, places: places.clone() })
    }

    /// Lives until it is told to leave; the consumer leaves the group when it is dropped.
    fn run(self, stop: &CancellationToken) {
        let mut told = Instant::now();
        while !stop.is_cancelled() {
            match self.consumer.poll(POLL) {
                None => {}
                // Paused, but what was fetched before the pause still comes: nobody needs it here.
                Some(Ok(_)) => {}
                Some(Err(error)) => tracing::debug!(%error, "the membership goes on"),
            }
            if told.elapsed() > ANSWER {
                told = Instant::now();
                self.tell();
            }
        }
    }

    /// Commits our positions to the group, for tools that show lag. The database alone decides where reading begins.
    fn tell(&self) {
        let mut list = TopicPartitionList::new();
        let owned = self.consumer.context().owned.borrow().clone();
        for ((topic, partition), queue) in self.places.lock().iter() {
            let Some((_, name)) = self.names.iter().find(|(mine, _)| mine == topic) else { continue };
            if owned.contains(partition) {
                let (offset, _) = position::split(*topic, queue.place().0);
                list.add_partition_offset(name, i32::from(*partition), Offset::Offset(offset)).ok();
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "positions are not shown");
        }
    }
}
