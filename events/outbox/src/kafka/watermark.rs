//! Where partitions end now, for timers that are due: the broker is asked for all of them at once, on a thread of its own,
//! and at most some times a second. Statistics tell it too, but up to five seconds late. One whose end could not be told is
//! asked for by itself until it can: a partition without a leader would take the answers of all others with it.

use super::context::Context;
use super::hand_over::HandOver;
use super::position;
use super::settings::ANSWER;
use super::topics::Names;
use super::window::Place;
use crate::looks::Looks;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use rustc_hash::FxHashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A partition, and who is told of its end.
type Wanted = (Place, Arc<HandOver>);

/// Asks where partitions end.
#[derive(Clone)]
pub(super) struct Watermarks {
    consumer: Arc<BaseConsumer<Context>>,
    names: Names,
    looks: Arc<Looks<Wanted>>,
    /// Those whose end could not be told when they were asked for last.
    apart: Arc<Mutex<FxHashSet<Place>>>,
}

impl Watermarks {
    pub(super) fn new(consumer: Arc<BaseConsumer<Context>>, names: Names) -> Self {
        Self { consumer, names, looks: Arc::new(Looks::new()), apart: Arc::default() }
    }

    /// Asks for the end of one partition, and tells its queue.
    pub(super) fn look(&self, place: Place, queue: Arc<HandOver>) -> BoxFuture<'static, bool> {
        let (all, this) = (self.clone(), self.clone());
        let asked = if self.apart().contains(&place) {
            all.ask(vec![(place, queue)]).boxed()
        } else {
            self.looks.ask((place, queue), move |wanted| all.clone().ask(wanted))
        };
        async move { asked.await && !this.apart().contains(&place) }.boxed()
    }

    /// Whether the leader of a partition answers.
    pub(super) async fn answers(&self, place: Place) -> bool {
        let (consumer, name) = (Arc::clone(&self.consumer), self.names.get(place.0).to_owned());
        let ask = move || consumer.fetch_watermarks(&name, i32::from(place.1), ANSWER).is_ok();
        tokio::task::spawn_blocking(ask).await.unwrap_or(false)
    }

    /// Asks for all of these at once; those whose end is not told then are apart. Whether anybody could ask.
    async fn ask(self, wanted: Vec<Wanted>) -> bool {
        let asking = move || {
            let known = self.ends(&wanted).unwrap_or_else(|error| {
                tracing::debug!(%error, partitions = wanted.len(), "where partitions end is not known");
                FxHashSet::default()
            });
            let (known, unknown) = wanted.iter().map(|(place, _)| *place).partition::<Vec<_>, _>(|p| known.contains(p));
            let mut apart = self.apart();
            known.iter().for_each(|place| _ = apart.remove(place));
            apart.extend(unknown);
        };
        tokio::task::spawn_blocking(asking).await.is_ok()
    }

    /// Tells the queues of those whose end the broker tells, and returns them.
    fn ends(&self, wanted: &[Wanted]) -> KafkaResult<FxHashSet<Place>> {
        let name = |(topic, _): Place| self.names.get(topic);
        let mut list = TopicPartitionList::with_capacity(wanted.len());
        for (place, _) in wanted {
            // As a point in time, this is the end.
            list.add_partition_offset(name(*place), i32::from(place.1), Offset::End)?;
        }
        let ends = self.consumer.offsets_for_times(list, ANSWER)?;
        let mut known = FxHashSet::default();
        for (place, queue) in wanted {
            let end = ends.find_partition(name(*place), i32::from(place.1));
            if let Some(end) = end.filter(|end| end.error().is_ok())
                && let Offset::Offset(end) = end.offset()
            {
                queue.ends(position::of(place.0, end, 0));
                known.insert(*place);
            }
        }
        Ok(known)
    }

    fn apart(&self) -> MutexGuard<'_, FxHashSet<Place>> {
        self.apart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
