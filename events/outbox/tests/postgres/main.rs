//! The PostgreSQL store on a real server: the suite of all stores, and what only a server can do to one.
//!
//! `scripts/services run --only postgres -- cargo test -p endstate-outbox --test postgres` brings the server along.

#[path = "../conformance/mod.rs"]
mod conformance;
mod database;
mod days;
mod debezium;
mod doubt;
mod fit;
mod promoted;
mod rights;
mod spill;
mod together;
mod witness;

use database::Database;
use endstate_outbox::Store;
use std::sync::Arc;

async fn open() -> (Arc<dyn Store>, Database) {
    let database = Database::new().await;
    let store = database.store().await;
    (store, database)
}

conformance!(open);
