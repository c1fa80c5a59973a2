//! What needs real services: `scripts/services run -- cargo test --test services` brings them along.

mod anew;
mod belonging;
mod bench;
mod outage;
mod redis;
mod promoted;
mod roles;
mod commands;
mod debezium;
mod frozen;
mod leases;
mod listening;
mod midnight;
mod scrape;
mod script;
mod secure;
mod starting;
mod statements;
mod strangers;
mod town;
mod tutorial;
mod world;
