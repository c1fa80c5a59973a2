//! What a world stands on: a store, a bus, and the definitions. The same world stands on the embedded ones and on
//! PostgreSQL and Kafka (`tests/services/world`).

use super::template::memory_folder;
use async_trait::async_trait;
use endstate_orchestrator::definitions::Definitions;
use endstate_outbox::{Bus, SqliteStore, Store};
use std::sync::Arc;

/// One kind of store and bus.
#[async_trait]
pub(crate) trait Grounds: Send + Sync {
    /// Its definitions, of every ground that is made from now on.
    fn definitions(&self) -> &Arc<Definitions>;

    /// One with nothing in it but definitions. The one before is not used any more.
    async fn fresh(&self) -> Box<dyn Ground>;

    /// Leaves nothing on a server that others use.
    async fn close(self)
    where
        Self: Sized;
}

/// The store and the bus of one world.
#[async_trait]
pub(crate) trait Ground: Send {
    fn store(&self) -> Arc<dyn Store>;

    /// Of the process that runs now.
    fn bus(&self) -> Arc<dyn Bus>;

    fn definitions(&self) -> Arc<Definitions>;

    /// The whole process ends and comes again. What it had open is dropped by now.
    async fn restart(&mut self);

    /// Another process takes over while the first lives on, with a bus of its own where that makes a difference.
    async fn take_over(&mut self);
}

/// One process and one file, which is store and bus.
pub(crate) struct Embedded {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Option<Arc<SqliteStore>>,
    pub(crate) definitions: Arc<Definitions>,
}

impl Embedded {
    fn open(&self) -> &Arc<SqliteStore> {
        self.store.as_ref().expect("the store is open")
    }
}

#[async_trait]
impl Ground for Embedded {
    fn store(&self) -> Arc<dyn Store> {
        self.open().clone()
    }

    fn bus(&self) -> Arc<dyn Bus> {
        self.open().bus()
    }

    fn definitions(&self) -> Arc<Definitions> {
        Arc::clone(&self.definitions)
    }

    async fn restart(&mut self) {
        // Its lock must go before it is taken again.
        self.store = None;
        self.store = Some(SqliteStore::open(self.folder.path()).await.expect("the store opens again"));
    }

    async fn take_over(&mut self) {}
}

#[async_trait]
impl Grounds for super::template::Template {
    fn definitions(&self) -> &Arc<Definitions> {
        &self.definitions
    }

    async fn fresh(&self) -> Box<dyn Ground> {
        let folder = memory_folder();
        self.copy_to(folder.path());
        let store = Some(SqliteStore::open(folder.path()).await.expect("the store opens"));
        Box::new(Embedded { folder, store, definitions: Arc::clone(&self.definitions) })
    }

    async fn close(self) {}
}
