//! Sagas at work: consume, decide, persist, relay, timers and view.
//!
//! Modules in reading order:
//! - [`view`]: what lists are read from
//! - [`job`]: scheduled jobs: lease, record, clock

pub mod view;
pub mod job;
