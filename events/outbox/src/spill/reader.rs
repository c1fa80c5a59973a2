//! The owner's end: reads what was spilled of one place, in pages, as soon as it is known to be there.

use super::{Place, Spill, SpillEnd};
use crate::bus::{Consumer, Delivered, TAKE_BYTES, Undecodable};
use crate::looks::Looks;
use crate::metric::Metric;
use crate::store::StoreError;
use async_trait::async_trait;
use endstate_events::{Envelope, Topic};
use futures_util::future::BoxFuture;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Messages of one read.
const PAGE: usize = 512;

/// Where each place ends, as far as this process knows: what it has spilled itself, and what it has seen of others.
pub(super) struct Ends {
    spill: Arc<dyn Spill>,
    known: Mutex<FxHashMap<Place, SpillEnd>>,
    /// Counts what was heard.
    heard: watch::Sender<u64>,
    looks: Looks<()>,
}

impl Ends {
    pub(super) fn of(spill: Arc<dyn Spill>) -> Arc<Self> {
        let heard = watch::channel(0).0;
        Arc::new(Self { spill, known: Mutex::default(), heard, looks: Looks::new() })
    }

    /// An append of this process went up to these ends.
    pub(super) fn grow(&self, ends: &[(Place, i64)]) {
        {
            let mut known = self.lock();
            for (place, next) in ends {
                let none = SpillEnd { place: *place, first: None, position: 0, next: 0, age_ms: 0 };
                let end = known.entry(*place).or_insert(none);
                end.next = end.next.max(*next);
            }
        }
        self.heard.send_modify(|count| *count += 1);
    }

    /// Looks at the table.
    pub(super) async fn look(&self) -> Result<(), StoreError> {
        let ends = self.spill.ends().await?;
        let mut longer = false;
        {
            let mut known = self.lock();
            for end in ends {
                let before = known.insert(end.place, end);
                longer |= before.is_none_or(|before| before.next < end.next);
                // What was appended since the look is still there.
                if let (Some(before), Some(now)) = (before, known.get_mut(&end.place)) {
                    now.next = now.next.max(before.next);
                }
            }
        }
        if longer {
            self.heard.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    pub(super) fn all(&self) -> Vec<SpillEnd> {
        self.lock().values().copied().collect()
    }

    /// Messages that nobody has read, as far as it is known here.
    pub(super) fn waiting(&self) -> i64 {
        self.lock().values().map(|end| (end.next - end.position).max(0)).sum()
    }

    fn next(&self, place: Place) -> i64 {
        self.lock().get(&place).map_or(0, |end| end.next)
    }

    /// Tells how much waits, and for how long.
    pub(super) fn tell(&self) {
        for topic in [Topic::Start, Topic::Progress, Topic::Commands] {
            let known = self.lock();
            let ends = known.values().filter(|end| end.place.0 == topic);
            let waiting: i64 = ends.clone().map(|end| (end.next - end.position).max(0)).sum();
            let age_ms = ends.map(|end| end.age_ms).max().unwrap_or(0);
            Metric::SpilledWaiting.set(waiting as f64, &[topic.label()]);
            Metric::SpilledAge.set(age_ms as f64 / 1_000.0, &[topic.label()]);
        }
    }

    /// Reads a place on.
    pub(super) fn reader(self: &Arc<Self>, place: Place, position: i64) -> Box<dyn Consumer> {
        let (ends, heard) = (Arc::clone(self), self.heard.subscribe());
        Box::new(Reader { ends, heard, place, position, page: VecDeque::new(), looked: false })
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<Place, SpillEnd>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Reader {
    ends: Arc<Ends>,
    heard: watch::Receiver<u64>,
    place: Place,
    /// The number that is taken next.
    position: i64,
    /// What was read and not taken.
    page: VecDeque<Delivered>,
    /// Whether the table was looked at for this assignment.
    looked: bool,
}

impl Reader {
    async fn load(&mut self) -> Result<(), StoreError> {
        let (topic, partition) = self.place;
        for (number, body) in self.ends.spill.page(self.place, self.position, PAGE).await? {
            let expected = self.position + self.page.len() as i64;
            if number != expected {
                let reason = format!("{}/{partition} goes on with {number} instead of {expected}", topic.label());
                return Err(StoreError::Failed { statement: "spill.page".to_owned(), reason });
            }
            let bytes = body.len();
            let envelope = serde_json::from_str::<Envelope>(&body).map(Arc::new);
            let envelope =
                envelope.map_err(|error| Undecodable { bytes: body, reason: error.to_string(), newer: false });
            let (offset, next) = (Delivered::offset_spilled(number), Delivered::offset_spilled(number + 1));
            self.page.push_back(Delivered { topic, offset, next, envelope, bytes, record: 0 });
        }
        if self.page.is_empty() {
            // Somebody else has read on, and deleted what we stand at.
            let (expected, next) = (self.position, self.ends.next(self.place));
            let reason = format!("{}/{partition} ends at {next} and has no {expected}", topic.label());
            return Err(StoreError::Failed { statement: "spill.page".to_owned(), reason });
        }
        Ok(())
    }
}

#[async_trait]
impl Consumer for Reader {
    async fn take(&mut self, limit: usize) -> Result<Vec<Delivered>, StoreError> {
        self.heard.mark_unchanged();
        if !self.looked {
            self.ends.look().await?;
            self.looked = true;
        }
        if self.page.is_empty() && self.ends.next(self.place) > self.position {
            self.load().await?;
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < limit
            && bytes < TAKE_BYTES
            && let Some(record) = self.page.pop_front()
        {
            bytes += record.bytes;
            self.position += 1;
            taken.push(record);
        }
        Ok(taken)
    }

    fn at_end(&self) -> bool {
        self.looked && self.page.is_empty() && self.ends.next(self.place) <= self.position
    }

    fn look(&mut self) -> BoxFuture<'static, bool> {
        let ends = Arc::clone(&self.ends);
        let look = move |_| {
            let ends = Arc::clone(&ends);
            async move {
                let looked = ends.look().await;
                looked
                    .inspect_err(|error| tracing::debug!(%error, "where the spilled messages end is not known"))
                    .is_ok()
            }
        };
        self.ends.looks.ask((), look)
    }

    async fn ready(&mut self) {
        while self.looked && self.page.is_empty() && self.ends.next(self.place) <= self.position {
            if self.heard.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
