//! Everything about the participants, from single commands to a whole shard on a real file.

mod world;
mod check;
mod place;
mod ledger;
mod holds;
mod model;
mod hazards;
mod store;
mod self_check;
mod aside;
mod known;
mod cache;
mod operations;
mod outside;
mod encrypted;
mod provider;
mod errors;
