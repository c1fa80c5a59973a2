//! Where the systems of these tests live: the embedded store and its own bus.

use endstate_outbox::sqlite::Made;
use endstate_outbox::{Bus, SqliteStore, Store};
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;

/// The store in a folder, and its bus.
pub(crate) async fn open(folder: &Path) -> (Arc<dyn Store>, Arc<dyn Bus>) {
    wide(folder, 4).await
}

/// The same with so many shards.
pub(crate) async fn wide(folder: &Path, partitions: u16) -> (Arc<dyn Store>, Arc<dyn Bus>) {
    let made = Made { partitions: NonZeroU16::new(partitions), ..Made::default() };
    let store = SqliteStore::open_as(folder, &made).await.unwrap();
    let bus = store.bus();
    (store, bus)
}
