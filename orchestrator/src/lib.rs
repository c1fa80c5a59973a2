//! Sagas at work: consume, decide, persist, relay, timers and view.
//!
//! Modules in reading order:
//! - [`view`]: what lists are read from

pub mod view;
