//! The pure saga core: definition, state, decide, invariants. No clock, no randomness, no I/O.
//!
//! Modules in reading order:
//! - [`plan`]: the control shape of a definition, and how `decide` asks it to evaluate expressions
//! - [`control`]: the small state and its total transition
//! - [`saga`]: a saga's data and row
//! - [`expression`]: CEL over a saga's data
//! - [`definition`]: from YAML to a plan with compiled expressions
//! - [`check`]: a definition run dry on its samples
#![deny(clippy::wildcard_enum_match_arm)]

pub mod plan;
pub mod control;
pub mod saga;
pub mod expression;
pub mod definition;
pub mod check;
