//! Where the systems of these tests live: the embedded store and its own bus.

use endstate_outbox::{Bus, SqliteStore, Store};
use std::path::Path;
use std::sync::Arc;

/// The store in a folder, and its bus.
pub(crate) async fn open(folder: &Path) -> (Arc<dyn Store>, Arc<dyn Bus>) {
    let store = SqliteStore::open(folder).await.unwrap();
    let bus = store.bus();
    (store, bus)
}
