//! The pure saga core: definition, state, decide, invariants. No clock, no randomness, no I/O.
//!
//! Modules in reading order:
//! - [`plan`]: the control shape of a definition, and how `decide` asks it to evaluate expressions
//! - [`control`]: the small state and its total transition
//! - [`saga`]: a saga's data and row
//! - [`size`]: how large what it makes may be
//! - [`event`], [`fold`]: facts about a saga, and what it becomes by them
//! - [`effect`]: what is to be done because of them
//! - [`decide`]: an input, or a timer, to events and effects
//! - [`invariant`]: what must hold of every saga
//! - [`model`]: everything that can happen, explored to the end
//! - [`expression`]: CEL over a saga's data
//! - [`definition`]: from YAML to a plan with compiled expressions
//! - [`check`]: a definition run dry on its samples
//! - [`cases`]: given / when / then stories played on `decide`
//! - [`diagram`]: pictures of a definition
//! - [`schema`]: JSON Schemas of the files, for editors
//!
//! What decides is total: a wildcard arm over states, events or inputs does not compile there.

#[deny(clippy::wildcard_enum_match_arm)]
pub mod plan;
#[deny(clippy::wildcard_enum_match_arm)]
pub mod control;
#[deny(clippy::wildcard_enum_match_arm)]
pub mod saga;
pub mod size;
#[deny(clippy::wildcard_enum_match_arm)]
pub mod event;
#[deny(clippy::wildcard_enum_match_arm)]
pub mod fold;
#[deny(clippy::wildcard_enum_match_arm)]
pub mod effect;
#[deny(clippy::wildcard_enum_match_arm)]
pub mod decide;
#[deny(clippy::wildcard_enum_match_arm)]
pub mod invariant;
pub mod model;
pub mod expression;
pub mod definition;
pub mod check;
pub mod cases;
pub mod diagram;
pub mod schema;
#[cfg(test)]
pub(crate) mod toy;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod properties;
