//! The participants' side over PostgreSQL and a bus that is not its store: those of tests/it that keep anything.
//!
//! `scripts/services run --only postgres -- cargo test --workspace --test postgres` brings the server along.

#[path = "../it/aside.rs"]
mod aside;
#[path = "../../../events/outbox/tests/support/memory.rs"]
mod bus;
#[path = "../it/known.rs"]
mod known;
#[path = "../it/operations.rs"]
mod operations;
#[path = "../it/outside.rs"]
mod outside;
#[path = "../../../events/outbox/tests/support/real.rs"]
mod place;
#[path = "../it/self_check.rs"]
mod self_check;
#[path = "../it/store.rs"]
mod store;
#[path = "../it/world.rs"]
mod world;
