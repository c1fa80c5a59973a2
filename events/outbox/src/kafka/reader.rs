//! The one data consumer of a process, on a thread of its own. It belongs to no group: each partition is assigned by
//! hand, at the position that the database names (Z3), and its records go to the shard's queue. Nothing that it does waits
//! for a broker: who asks where a log ends does so elsewhere ([`super::look`]). [`super::reading`] is what it does.

use super::assigned::Assigned;
use super::guard;
use super::hand_over::HandOver;
use super::look::Look;
use super::reading::Reading;
use super::settings::KafkaSettings;
use super::watermark::Watermarks;
use super::window::Place;
use crate::bus::Consumer;
use crate::store::StoreError;
use rdkafka::error::{KafkaError, KafkaResult};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

/// The queues of the partitions that are read, for whoever tells how far they are.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<FxHashMap<Place, Arc<HandOver>>>>);

impl Places {
    pub(super) fn lock(&self) -> MutexGuard<'_, FxHashMap<Place, Arc<HandOver>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread, as shards see it.
pub(super) struct Reader {
    wishes: mpsc::Sender<Wish>,
    generations: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
    pub(super) places: Places,
    pub(super) watermarks: Watermarks,
}

/// What shards want of the thread. A wish of an older generation is forgotten.
pub(super) enum Wish {
    Assign {
        place: Place,
        position: i64,
        /// The hash of the record in front of it, if it is known.
        record: Option<u32>,
        generation: u64,
        queue: Arc<HandOver>,
    },
    Release {
        place: Place,
        generation: u64,
    },
    Resume {
        place: Place,
        generation: u64,
    },
    /// Where a log begins and ends.
    Looked {
        look: Look,
        ends: Result<(i64, i64), StoreError>,
    },
    /// Nobody could look.
    Unseen {
        place: Place,
        generation: u64,
    },
    Stop,
}

impl Reader {
    pub(super) fn start(settings: &KafkaSettings) -> KafkaResult<Self> {
        let (wishes, wished) = mpsc::channel();
        let places = Places::default();
        let (settings, answers, shown) = (settings.clone(), wishes.clone(), places.clone());
        let first = Reading::new(&settings, &answers, &shown)?;
        let watermarks = Watermarks::new(Arc::clone(&first.consumer), first.names.clone());
        let mut first = Some(first);
        let body = move || {
            let again = || Reading::new(&settings, &answers, &shown);
            first.take().map_or_else(again, Ok).expect("a consumer as the first").run(&wished);
        };
        let held = places.clone();
        let fallen = move |reason: &str| {
            let queues: Vec<_> = held.lock().drain().map(|(_, queue)| queue).collect();
            queues.iter().for_each(|queue| queue.fail(failed(&format!("the reading thread panicked: {reason}"))));
        };
        let thread = std::thread::Builder::new()
            .name("kafka-reader".into())
            .spawn(move || guard::survive("the reading thread of the bus", body, fallen))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { wishes, generations: AtomicU64::new(1), thread: Mutex::new(Some(thread)), places, watermarks })
    }

    /// Reads a partition from `position` on, if the record in front of it has the hash `record`, where that is known.
    pub(super) fn read(&self, place: Place, position: i64, record: Option<u32>) -> Box<dyn Consumer> {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let queue = Arc::new(HandOver::from(position));
        let wish = Wish::Assign { place, position, record, generation, queue: Arc::clone(&queue) };
        if self.wishes.send(wish).is_err() {
            queue.fail(failed("the bus is closed"));
        }
        let (wishes, watermarks) = (self.wishes.clone(), self.watermarks.clone());
        Box::new(Assigned { queue, place, generation, wishes, watermarks, at_end: false })
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.wishes.send(Wish::Stop).ok();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the reading thread of the bus has panicked");
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reading failed, and nothing is known to be lost.
pub(super) fn failed(reason: &str) -> StoreError {
    StoreError::Failed { statement: "bus.read".to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use endstate_events::Topic;
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
    use std::time::Duration;

    /// Two partitions of `commands`, the second one's broker away, and a record in the first.
    fn half_away() -> (MockCluster<'static, rdkafka::producer::DefaultProducerContext>, KafkaSettings) {
        let cluster = MockCluster::new(2).unwrap();
        let settings = KafkaSettings::of_test(&cluster.bootstrap_servers(), 2);
        let topic = Topic::Commands;
        let name = topic.name(&settings.environment);
        cluster.create_topic(&name, 2, 1).unwrap();
        for (partition, broker) in [(0, 1), (1, 2)] {
            cluster.partition_leader(&name, partition, Some(broker)).unwrap();
        }
        cluster.broker_down(2).unwrap();
        let mut client = ClientConfig::new();
        let producer: BaseProducer = client.set("bootstrap.servers", &settings.brokers).create().unwrap();
        producer.send(BaseRecord::<[u8], [u8]>::to(&name).partition(0).payload(b"x")).unwrap();
        producer.flush(Duration::from_secs(30)).unwrap();
        (cluster, settings)
    }

    #[tokio::test]
    async fn z07_a_partition_whose_end_nobody_knows_keeps_no_other_from_knowing_its_own() {
        let (_cluster, settings) = half_away();
        let reader = Reader::start(&settings).unwrap();
        let (mut absent, mut here) =
            (reader.read((Topic::Commands, 1), 0, None), reader.read((Topic::Commands, 0), 0, None));
        here.ready().await;
        assert_eq!(here.take(10).await.unwrap().len(), 1);
        let mut known = Vec::new();
        for _ in 0..4 {
            known.push(futures_util::future::join(here.look(), absent.look()).await);
        }
        assert!(known.iter().all(|(_, absent)| !absent), "{known:?}");
        let here: Vec<bool> = known.iter().map(|(here, _)| *here).collect();
        assert_eq!(here[1..], [true; 3], "the question that failed may take all with it, the next ones not");
    }

    #[tokio::test]
    async fn it_is_known_which_broker_answers() {
        let (_cluster, settings) = half_away();
        let reader = Reader::start(&settings).unwrap();
        assert!(reader.watermarks.answers((Topic::Commands, 0)).await);
        assert!(!reader.watermarks.answers((Topic::Commands, 1)).await);
    }

    #[tokio::test]
    async fn a_partition_whose_broker_is_away_keeps_no_other_waiting() {
        let (_cluster, settings) = half_away();
        let topic = Topic::Commands;
        let reader = Reader::start(&settings).unwrap();
        let (mut absent, mut here) = (reader.read((topic, 1), 0, None), reader.read((topic, 0), 0, None));
        // The client may know at once that the partition has no leader, or wait for one.
        let mut said = None;
        tokio::select! {
            biased;
            () = absent.ready() => said = absent.take(1).await.err().map(|error| error.to_string()),
            () = here.ready() => {}
        }
        let waited = said.as_ref().is_some_and(|said| said.to_lowercase().contains("timed out"));
        assert!(!waited, "the other waited until this one was given up: {said:?}");
        here.ready().await;
        assert_eq!(here.take(10).await.unwrap().len(), 1);
        let said = match said {
            Some(said) => said,
            None => {
                absent.ready().await;
                absent.take(1).await.unwrap_err().to_string()
            }
        };
        assert!(said.contains("/1: "), "{said}");
    }
}
