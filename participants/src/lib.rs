//! Ledger and tokens, the participants built on them, and the caller of outside parties.
//!
//! Modules in reading order:
//! - [`ledger`]: accounts and immutable transfers, for what can be counted
//! - [`token`]: things that exist once
//! - [`effect`]: what was answered before, and is answered again
//! - [`desk`], [`cells`]: working copies of one batch
//! - [`decide`]: one command on the desk
//! - `hold`, `stock`, `coupon`, `points`, `returns`, [`payment`], `bench`: what the commands do
//! - [`operation`]: operators' changes
//! - [`handler`]: the participants' side of a shard; [`reads`]: what its messages name; `known`: what it has not to read
//!   again; `load`: the rest; `check`: its self-check of old holds; `offers`: calls that wait for room; `tally`: what it
//!   counts
//! - [`holding`]: which sagas somebody holds something for
//! - `storage`: all SQL
//! - [`caller`]: calls to outside parties; [`outside`]: participants over HTTP
//! - [`provider`]: the payment provider as we see it; [`simulated`]: one to try everything with
//! - [`notify`]: messages to people
//! - [`books`]: what all accounts and tokens add up to
//! - [`http`]: callbacks, operations, books

pub mod cells;
pub mod ledger;
pub mod token;
pub mod effect;
pub mod desk;
pub mod decide;
mod hold;
mod stock;
mod coupon;
mod points;
mod returns;
pub mod payment;
mod bench;
pub mod operation;
pub mod handler;
pub mod reads;
mod known;
mod load;
mod aside;
mod check;
pub mod holding;
mod offers;
mod tally;
mod storage;
pub mod caller;
pub mod outside;
pub mod provider;
pub mod simulated;
pub mod notify;
pub mod books;
pub mod http;

pub use handler::{HandOver, Participants, Settings};

/// All SQL of this crate.
#[must_use]
pub fn statements() -> Vec<&'static endstate_outbox::Statement> {
    [storage::STATEMENTS, holding::STATEMENTS, books::STATEMENTS, http::STATEMENTS].concat()
}
