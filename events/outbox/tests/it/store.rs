//! The suite of all stores, over the embedded one.

#[path = "../conformance/mod.rs"]
pub(crate) mod conformance;

use endstate_outbox::{SqliteStore, Store};
use std::sync::Arc;

async fn open() -> (Arc<dyn Store>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    (store, folder)
}

crate::conformance!(open);
