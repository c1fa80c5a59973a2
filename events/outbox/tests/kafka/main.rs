//! The bus over a real Kafka, beside the embedded one: one suite for both, then what only a broker can do to us.
//!
//! Needs services: `scripts/services run -- cargo test --workspace --test kafka`. Not part of a plain `cargo test`.

mod claim;
mod foreign;
mod hazards;
mod members;
mod memory;
mod rig;
mod strangers;
mod suite;
