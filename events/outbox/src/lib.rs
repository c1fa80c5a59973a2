//! The reliable half of Endstate: what a shard takes in, what it commits, and how committed messages leave.
//!
//! Modules in reading order:
//! - [`metric`]: every metric there is
//! - [`statement`]: named SQL with typed rows, the language between components and a store
//! - [`store`]: the Store port: read, commit one batch under its fence
//! - [`bus`]: the Bus port: messages in and out of partitions; [`witness`]: by which record a position was reached
//! - [`parcel`]: what a batch sends to one partition, encoded once
//! - [`relay`]: how committed messages leave where the store is not the bus
//! - [`spill`]: where inputs wait while the broker does not answer
//! - [`shard`]: the loop of one shard: consume, decide, persist, relay; `inlet`: what it reads; `looks`: where that
//!   ends; `part`: what it tries to commit at once
//! - [`fused`]: both sides of a shard in one transaction
//! - [`census`]: which shards are assigned; `pulse`: what one tells of itself; `trouble`: what people are told of one that
//!   does not get on
//! - [`dead_letter`]: records that nobody could handle; [`alert`]: what people should know
//! - [`clock`]: time as an input; [`store_clock`]: the database's
//! - [`sqlite`]: the embedded store, one file; `migration`: the numbered texts of a store
//! - [`postgres`]: the store of many processes
//! - [`local`]: the embedded bus, over the outbox of that file
//! - [`kafka`]: the bus of many processes
//! - [`redis_examine`]: a report about the Redis that the gate will use

pub mod metric;
pub mod statement;
pub mod store;
pub mod bus;
pub mod witness;
pub mod parcel;
pub(crate) mod relay;
pub mod spill;
pub mod shard;
mod inlet;
mod looks;
pub mod fused;
pub mod census;
mod part;
mod pulse;
mod trouble;
pub mod dead_letter;
pub mod alert;
pub mod clock;
pub mod store_clock;
mod migration;
pub mod sqlite;
pub mod postgres;
pub mod local;
pub mod kafka;
pub mod redis_examine;

pub use alert::Alert;
pub use bus::{Bus, BusError, Consumer, Delivered, Outgoing, Relay, RelayError, TAKE_BYTES, Undecodable};
pub use census::Census;
pub use clock::{Clock, ManualClock, SystemClock};
pub use dead_letter::DeadLetter;
pub use fused::{Fused, Rounds};
pub use kafka::{KafkaBus, KafkaSettings};
pub use local::LocalBus;
pub use metric::Metric;
pub use parcel::Parcel;
pub use part::{LAST_ATTEMPT, Timers};
pub use postgres::PostgresStore;
pub use shard::{Batch, DecideError, Handler, Outcome, Poisoned, Shard, Turn};
pub use spill::{Spill, SpillingBus};
pub use sqlite::SqliteStore;
pub use statement::{Dialect, Kind, Row, Rows, Statement, Value, Write};
pub use store::{Assignment, Commit, CommitError, Fence, Positions, ShardId, Store, StoreError};
pub use store_clock::StoreClock;

/// The SQL of this crate that every store must bear; [`SqliteStore`] and [`PostgresStore`] have some of their own.
#[must_use]
pub fn statements() -> Vec<&'static Statement> {
    [dead_letter::STATEMENTS, alert::STATEMENTS].concat()
}
