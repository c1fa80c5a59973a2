//! Where inputs wait while the broker does not answer (B8, Z18): appended to a table, and read from there by the owner of
//! their shard, before their topic. Still one way in: what is read is decided and committed like any other record, under
//! the same fence, which holds the position in the table, too.
//!
//! - [`bus`]: a bus that spills what its broker does not take
//! - [`appends`]: what is spilled at the same time is appended together
//! - [`reader`]: the owner's end
//!
//! What was given to the broker and not acknowledged is spilled under the same id, so that it may be read twice: a start
//! is known by its saga and number, every other message by its id.

mod appends;
mod bus;
mod reader;

pub use bus::{SpillSettings, SpillingBus};

use crate::bus::{BusError, Outgoing};
use crate::store::StoreError;
use async_trait::async_trait;
use endstate_events::Topic;

/// One topic and partition.
pub type Place = (Topic, u16);

/// What was spilled of one place, and how far its shard has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpillEnd {
    /// The place.
    pub place: Place,
    /// The lowest number that is still there; none when there is none.
    pub first: Option<i64>,
    /// The number that the shard reads next.
    pub position: i64,
    /// The number that the next message gets.
    pub next: i64,
    /// How long the oldest message has waited that the shard has not read, milliseconds; 0 when there is none.
    pub age_ms: i64,
}

impl SpillEnd {
    /// Of a place of which nothing was ever spilled.
    fn none(place: Place) -> Self {
        Self { place, first: None, position: 0, next: 0, age_ms: 0 }
    }
}

/// A table in which messages wait, numbered per topic and partition. The store that holds the shards' rows holds it.
#[async_trait]
pub trait Spill: Send + Sync + 'static {
    /// Appends messages in their order, all or none, durably. Numbers have no gaps, and a message can be read only when
    /// all with lower numbers can. Returns the ends of the places that it touched: the number that comes next in each.
    async fn append(&self, messages: &[Outgoing]) -> Result<Vec<(Place, i64)>, BusError>;

    /// Messages of a place from a number on, as they were written, with their numbers: at most `limit`, and no more once
    /// they have [`crate::TAKE_BYTES`].
    async fn page(&self, place: Place, from: i64, limit: usize) -> Result<Vec<(i64, String)>, StoreError>;

    /// All places of which anything was ever spilled.
    async fn ends(&self) -> Result<Vec<SpillEnd>, StoreError>;

    /// Deletes what lies below these numbers, at most a page of each place; none that its shard has not read.
    async fn forget(&self, below: &[(Place, i64)]) -> Result<u64, StoreError>;
}
