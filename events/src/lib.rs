//! The words of Endstate: what travels between its parts, and nothing that does I/O.
//!
//! Modules in reading order:
//! - [`ids`]: saga ids, slots, partitions, effect ids
//! - [`money`]: integer minor units, checked
//! - [`lane`]: live, test and load traffic; environments
//! - [`envelope`]: what surrounds every message on the bus
//! - [`command`]: what a saga tells a participant
//! - [`reply`]: what a participant answers
//! - [`input`]: everything that can happen to a saga
//! - [`domain`]: status changes published for other teams
//! - [`foreign`]: what other teams say, and what they are told
//! - [`time`]: times as others read them
//! - [`cloud_event`]: a message in a record with headers
//! - [`topics`]: names of topics and the partition a message goes to
//! - [`catalogue`]: which participants exist and what they accept

pub mod ids;
pub mod money;
pub mod lane;
pub mod envelope;
pub mod command;
pub mod reply;
pub mod input;
pub mod domain;
pub mod foreign;
pub mod time;
pub mod cloud_event;
pub mod topics;
pub mod catalogue;

pub use catalogue::{Action, Catalogue, EventKind, Participant, Transport};
pub use command::{Command, CommandKind, Forward};
pub use domain::DomainEvent;
pub use envelope::{Envelope, Message, SCHEMA_VERSION};
pub use foreign::{ForeignEvent, ForeignReply, Letter};
pub use ids::{Direction, EffectId, IdError, SLOTS, SagaId, Slot};
pub use input::{ACTIVE_VERSION, Actor, ForcedEnd, Input, InputBody, Link, Operation, Start};
pub use lane::{Environment, Lane};
pub use money::{MinorUnits, MoneyError};
pub use reply::{InquiryAnswer, Reply, Verdict};
pub use topics::{ForeignTopic, ReplyTo, Side, Topic, TopicNameError};

/// A JSON value; payloads of commands, replies, inputs and events.
pub type Json = serde_json::Value;
