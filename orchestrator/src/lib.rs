//! The orchestrator: how inputs become committed events, and how sagas are reached and watched.
//!
//! Modules in reading order:
//! - [`definitions`]: what sagas there are
//! - [`gateway`]: the one way in
//! - [`listen`]: events of other teams, from topics of theirs
//! - [`consume`]: what a batch needs to know before it decides
//! - [`decide`]: each input in turn, on working copies
//! - [`persist`]: all SQL of sagas
//! - [`handler`]: the orchestrator's side of a shard: consume, decide, persist; timers
//! - [`silence`]: what sagas know together of a participant that does not answer
//! - [`waiters`]: who is told after the commit; [`others`]: of sagas that other processes decide
//! - [`view`]: what lists are read from; [`feed`]: status changes for other teams
//! - [`http`]: the routes of sagas
//! - [`job`]: scheduled jobs: lease, record, clock; [`sweep`]: the one that pushes stuck sagas
//! - [`orphan`], [`archive`]: inputs that find no saga, sagas that ended long ago; [`discrepancy`]: books that differ
//! - [`alert`]: what people are told; [`measure`]: what is counted in the store; `tally`: what is counted as it happens

pub mod definitions;
pub mod gateway;
pub mod listen;
pub mod consume;
pub mod decide;
pub mod persist;
pub mod handler;
pub mod silence;
mod tally;
pub mod waiters;
pub mod others;
pub mod view;
pub mod feed;
pub mod http;
pub mod job;
pub mod sweep;
pub mod orphan;
pub mod archive;
pub mod discrepancy;
pub mod alert;
pub mod measure;

/// All SQL of this crate.
#[must_use]
pub fn statements() -> Vec<&'static endstate_outbox::Statement> {
    [
        definitions::STATEMENTS,
        listen::STATEMENTS,
        persist::STATEMENTS,
        view::sql::STATEMENTS,
        view::undrawn::STATEMENTS,
        view::rebuild::STATEMENTS,
        feed::STATEMENTS,
        http::admin::STATEMENTS,
        http::health::STATEMENTS,
        job::STATEMENTS,
        sweep::STATEMENTS,
        orphan::STATEMENTS,
        archive::STATEMENTS,
        discrepancy::STATEMENTS,
        measure::STATEMENTS,
    ]
    .concat()
}
