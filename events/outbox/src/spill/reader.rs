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
    known: Mutex<Known>,
    /// Counts what was heard.
    heard: watch::Sender<u64>,
    looks: Looks<()>,
}

/// What the table said last, and what was heard since.
#[derive(Default)]
struct Known {
    ends: FxHashMap<Place, SpillEnd>,
    /// How far this process has spilled itself, or has read what others did, with the number of looks that had begun by then:
    /// only a look that began later has seen it. Afterwards the table alone is believed, which may have lost what was appended
    /// (Z14).
    grown: FxHashMap<Place, (i64, u64)>,
    /// Looks that have begun.
    begun: u64,
    /// The number of the latest look that told.
    told: u64,
}

impl Known {
    /// Somebody has appended, or read, up to these ends.
    fn grow(&mut self, ends: &[(Place, i64)]) {
        let begun = self.begun;
        for (place, next) in ends {
            let end = self.ends.entry(*place).or_insert(SpillEnd::none(*place));
            end.next = end.next.max(*next);
            // Appends answer in another order than they were made.
            let grown = self.grown.entry(*place).or_insert((*next, begun));
            *grown = (grown.0.max(*next), begun);
        }
    }

    /// What a look tells; the looks that began before it tell nothing any more. Returns whether a place is longer.
    fn tell(&mut self, look: u64, ends: Vec<SpillEnd>) -> bool {
        if look <= self.told {
            return false;
        }
        self.told = look;
        self.grown.retain(|_, (_, begun)| *begun >= look);
        let before = std::mem::take(&mut self.ends);
        self.ends.extend(ends.into_iter().map(|end| (end.place, end)));
        for (place, (next, _)) in &self.grown {
            let end = self.ends.entry(*place).or_insert(SpillEnd::none(*place));
            end.next = end.next.max(*next);
        }
        self.ends.values().any(|end| before.get(&end.place).is_none_or(|before| before.next < end.next))
    }
}

impl Ends {
    pub(super) fn of(spill: Arc<dyn Spill>) -> Arc<Self> {
        let heard = watch::channel(0).0;
        Arc::new(Self { spill, known: Mutex::default(), heard, looks: Looks::new() })
    }

    /// An append of this process went up to these ends.
    pub(super) fn grow(&self, ends: &[(Place, i64)]) {
        self.lock().grow(ends);
        self.heard.send_modify(|count| *count += 1);
    }

    /// Looks at the table.
    pub(super) async fn look(&self) -> Result<(), StoreError> {
        let look = {
            let mut known = self.lock();
            known.begun += 1;
            known.begun
        };
        let ends = self.spill.ends().await?;
        if self.lock().tell(look, ends) {
            self.heard.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    pub(super) fn all(&self) -> Vec<SpillEnd> {
        self.lock().ends.values().copied().collect()
    }

    /// Messages that nobody has read, as far as it is known here.
    pub(super) fn waiting(&self) -> i64 {
        self.lock().ends.values().map(|end| (end.next - end.position).max(0)).sum()
    }

    fn next(&self, place: Place) -> i64 {
        self.end(place).next
    }

    fn end(&self, place: Place) -> SpillEnd {
        self.lock().ends.get(&place).copied().unwrap_or(SpillEnd::none(place))
    }

    /// Tells how much waits, and for how long.
    pub(super) fn tell(&self) {
        for topic in [Topic::Start, Topic::Progress, Topic::Commands] {
            let known = self.lock();
            let ends = known.ends.values().filter(|end| end.place.0 == topic);
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

    fn lock(&self) -> MutexGuard<'_, Known> {
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
        // Others may have appended since the last look: what is read here is there.
        self.ends.lock().grow(&[(self.place, self.position + self.page.len() as i64)]);
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
        if self.page.is_empty() {
            let SpillEnd { next, position, .. } = self.ends.end(self.place);
            if next > self.position {
                self.load().await?;
            } else if next < self.position && position < self.position {
                // What was read and is not committed is there no more: a database took over that never had it (Z14). What it
                // numbers so from now on would be passed over; a new assignment begins where it stands.
                let reason =
                    format!("{}/{} ends at {next}, behind {}", self.place.0.label(), self.place.1, self.position);
                return Err(StoreError::Failed { statement: "spill.ends".to_owned(), reason });
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{BusError, Outgoing};
    use futures_util::FutureExt as _;
    use tokio::sync::Semaphore;

    const PLACE: Place = (Topic::Progress, 1);

    /// A table with numbers up to an end. A look answers with what it saw when it began, as soon as it may.
    struct Table {
        next: Mutex<i64>,
        position: Mutex<i64>,
        answers: Semaphore,
    }

    #[async_trait]
    impl Spill for Table {
        async fn append(&self, _: &[Outgoing]) -> Result<Vec<(Place, i64)>, BusError> {
            Ok(Vec::new())
        }

        async fn page(&self, _: Place, from: i64, limit: usize) -> Result<Vec<(i64, String)>, StoreError> {
            Ok((from..*self.next.lock().unwrap()).take(limit).map(|n| (n, "{}".to_owned())).collect())
        }

        async fn ends(&self) -> Result<Vec<SpillEnd>, StoreError> {
            let (next, position) = (*self.next.lock().unwrap(), *self.position.lock().unwrap());
            self.answers.acquire().await.unwrap().forget();
            Ok(vec![SpillEnd { next, position, ..SpillEnd::none(PLACE) }])
        }

        async fn forget(&self, _: &[(Place, i64)]) -> Result<u64, StoreError> {
            Ok(0)
        }
    }

    /// A table that ends at `next`, of which the shard has committed `position`, and that answers any number of looks.
    fn table(next: i64, position: i64) -> (Arc<Table>, Arc<Ends>) {
        let answers = Semaphore::new(100);
        let table = Arc::new(Table { next: Mutex::new(next), position: Mutex::new(position), answers });
        let ends = Ends::of(Arc::clone(&table) as Arc<dyn Spill>);
        (table, ends)
    }

    #[tokio::test]
    async fn z14_what_a_new_primary_never_had_is_not_waited_for() {
        let (table, ends) = table(3, 2);
        ends.grow(&[(PLACE, 3)]);
        ends.look().await.unwrap();
        assert_eq!(ends.next(PLACE), 3);
        // A standby takes over that lacks the last append.
        *table.next.lock().unwrap() = 2;
        let mut reader = ends.reader(PLACE, 2);
        assert_eq!(reader.take(10).await.unwrap(), []);
        assert!(reader.at_end(), "the log goes on");
        *table.next.lock().unwrap() = 3;
        ends.grow(&[(PLACE, 3)]);
        assert_eq!(reader.take(10).await.unwrap().len(), 1, "what it takes from now on is read");
    }

    #[tokio::test]
    async fn z14_who_has_read_what_a_new_primary_never_had_begins_anew() {
        let (table, ends) = table(3, 0);
        let mut reader = ends.reader(PLACE, 0);
        assert_eq!(reader.take(10).await.unwrap().len(), 3);
        *table.next.lock().unwrap() = 2;
        ends.look().await.unwrap();
        assert!(reader.take(10).await.is_err(), "number 2 will be another message");
        *table.position.lock().unwrap() = 3;
        ends.look().await.unwrap();
        assert_eq!(reader.take(10).await.unwrap(), [], "it was committed after all: nobody is numbered below");
    }

    #[tokio::test]
    async fn what_others_append_between_a_look_and_a_page_is_no_loss() {
        let (table, ends) = table(0, 0);
        let mut reader = ends.reader(PLACE, 0);
        assert_eq!(reader.take(10).await.unwrap(), []);
        *table.next.lock().unwrap() = 1;
        ends.look().await.unwrap();
        *table.next.lock().unwrap() = 3;
        assert_eq!(reader.take(10).await.unwrap().len(), 3);
        assert_eq!(reader.take(10).await.unwrap(), [], "it knows that they are there: it has read them");
    }

    #[tokio::test]
    async fn what_was_appended_since_a_look_began_is_still_there() {
        let (table, ends) = table(0, 0);
        table.answers.forget_permits(100);
        let (mut first, mut second) = (ends.look().boxed(), ends.look().boxed());
        assert!((&mut first).now_or_never().is_none());
        ends.grow(&[(PLACE, 1)]);
        *table.next.lock().unwrap() = 1;
        assert!((&mut second).now_or_never().is_none());
        table.answers.add_permits(2);
        second.await.unwrap();
        assert_eq!(ends.next(PLACE), 1);
        first.await.unwrap();
        assert_eq!(ends.next(PLACE), 1, "a look that began earlier tells nothing new");
    }
}
