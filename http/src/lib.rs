//! What the HTTP routes of both sides share. Routes themselves live beside what they serve.
//!
//! Modules in the order in which a request meets them:
//! - [`mod@listen`]: where it arrives
//! - [`guard`]: limits, time, panics and metrics around every route
//! - [`scope`], [`token`], [`auth`]: who calls and what they may do
//! - [`query`], [`headers`], [`cursor`], [`time`]: what surrounds a body
//! - [`strict_json`], [`fields`]: a body, refused precisely
//! - [`outgoing`]: calls to others
//! - [`code`], [`pages`], [`problem`]: every refusal, with a code and a page; pages of alerts, too

pub mod listen;
pub mod guard;
pub mod scope;
pub mod token;
pub mod auth;
pub mod query;
pub mod headers;
pub mod cursor;
pub mod time;
pub mod strict_json;
pub mod fields;
pub mod outgoing;
pub mod code;
pub mod pages;
pub mod problem;

pub use auth::{Allowed, Caller};
pub use code::Code;
pub use cursor::Cursor;
pub use fields::Fields;
pub use listen::listen;
pub use outgoing::Trust;
pub use problem::{FieldError, Problem};
pub use query::Params;
pub use scope::Scope;
pub use time::Timestamp;
pub use token::{NewToken, Token, Tokens};

/// All SQL of this crate.
#[must_use]
pub fn statements() -> Vec<&'static endstate_outbox::Statement> {
    token::STATEMENTS.to_vec()
}
