//! A PostgreSQL store and a bus in memory for each folder that a test would give the embedded store: opened again, it is
//! the same.

use crate::bus::MemoryBus;
use endstate_outbox::postgres::Settings;
use endstate_outbox::{Bus, PostgresStore, Store};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

/// The number of a folder's database, and its bus.
pub(crate) fn known(folder: &Path) -> (usize, MemoryBus) {
    static KNOWN: LazyLock<Mutex<HashMap<PathBuf, (usize, MemoryBus)>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap();
    let next = (known.len(), MemoryBus::default());
    known.entry(folder.to_owned()).or_insert(next).clone()
}

/// Opens the store of a folder; makes it the first time.
pub(crate) async fn open(folder: &Path) -> (Arc<dyn Store>, Arc<dyn Bus>) {
    wide(folder, 4).await
}

/// The store of a folder with so many shards.
pub(crate) async fn wide(folder: &Path, partitions: u16) -> (Arc<dyn Store>, Arc<dyn Bus>) {
    let (store, bus) = both(folder, partitions).await;
    (store, Arc::new(bus))
}

/// The same, as what they are.
pub(crate) async fn both(folder: &Path, partitions: u16) -> (Arc<PostgresStore>, MemoryBus) {
    let (number, bus) = known(folder);
    let server = std::env::var("ENDSTATE_TEST_POSTGRES").expect(
        "ENDSTATE_TEST_POSTGRES names no server; bring one along: \
         scripts/services run --only postgres -- cargo test --workspace --test postgres",
    );
    let (server, _) = server.rsplit_once('/').unwrap();
    let url = format!("{server}/test_{}_of_{}", env!("CARGO_CRATE_NAME"), std::process::id());
    let url = format!("{url}_{number}");
    PostgresStore::migrate(&url).await.unwrap();
    let settings = Settings { partitions, connections: 4, ..Settings::new(&url) };
    (PostgresStore::open(&settings).await.unwrap(), bus)
}
