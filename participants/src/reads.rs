//! What the messages of a round name, and so what is read before they are decided.
//!
//! New effects are the rule, so a first attempt does not look whether a command is new: it trusts that what a new effect
//! makes is not there, and the commit finds out, because it inserts all of that. What cannot be found out so is read.

use crate::bench;
use crate::desk::Desk;
use crate::effect::Effect;
use endstate_events::{CommandKind, Message};
use rustc_hash::FxHashSet;
use std::sync::Arc;

/// Keys of what a batch reads.
#[derive(Debug, Default)]
pub struct Reads {
    /// Whether what a new effect makes is trusted not to be there.
    pub(crate) trusting: bool,
    pub(crate) effects: FxHashSet<Arc<str>>,
    /// Effects that commands want to make; when trusting, none of `effects`.
    pub(crate) new_effects: FxHashSet<Arc<str>>,
    pub(crate) answered: FxHashSet<Arc<str>>,
    pub(crate) accounts: FxHashSet<Arc<str>>,
    /// Accounts that are trusted not to be there, unless they are known.
    pub(crate) new_accounts: FxHashSet<Arc<str>>,
    pub(crate) transfers: FxHashSet<Arc<str>>,
    /// Transfers that are trusted not to be there.
    pub(crate) new_transfers: FxHashSet<Arc<str>>,
    pub(crate) tokens: FxHashSet<Arc<str>>,
}

impl Reads {
    /// Nothing yet.
    #[must_use]
    pub fn new(trusting: bool) -> Self {
        Self { trusting, ..Self::default() }
    }

    /// True when no message named any effect.
    pub(crate) fn is_empty(&self) -> bool {
        self.effects.is_empty() && self.new_effects.is_empty()
    }

    pub(crate) fn account(&mut self, id: Arc<str>) {
        self.accounts.insert(id);
    }

    pub(crate) fn transfer(&mut self, id: Arc<str>) {
        self.transfers.insert(id);
    }

    /// A transfer that a new effect makes, and an account that it opens.
    pub(crate) fn new_transfer(&mut self, id: Arc<str>, opens: Arc<str>) {
        if self.trusting {
            self.new_transfers.insert(id);
            self.new_accounts.insert(opens);
        } else {
            self.transfers.insert(id);
            self.accounts.insert(opens);
        }
    }

    pub(crate) fn token(&mut self, id: Arc<str>) {
        self.tokens.insert(id);
    }

    /// Adds the effects that a message names.
    pub(crate) fn effects_of(&mut self, message: &Message) {
        match message {
            Message::Command(command) if command.participant == bench::NAME => {}
            Message::Command(command) => {
                let id: Arc<str> = command.effect_id.to_string().into();
                let makes = command.kind == CommandKind::Do;
                if makes {
                    self.new_effects.insert(id.clone());
                }
                if !makes || !self.trusting {
                    self.effects.insert(id);
                }
                self.effects.extend(command.of.as_ref().map(|of| Arc::from(of.effect_id.to_string())));
            }
            Message::Answer(answer) => {
                let id: Arc<str> = answer.effect_id.to_string().into();
                self.answered.insert(id.clone());
                self.effects.insert(id);
            }
            Message::Inquired(answer) => {
                self.effects.insert(answer.effect_id.to_string().into());
            }
            Message::Input(_) | Message::Domain(_) | Message::Reply(_) | Message::Foreign(_) | Message::Letter(_) => {}
        }
    }

    /// Leaves out what the desk knows already.
    pub(crate) fn forget_known(&mut self, desk: &Desk) {
        self.effects.retain(|id| !desk.effects.knows(id));
        self.answered.retain(|id| !desk.calls.knows(id));
        self.accounts.retain(|id| !desk.ledger.accounts.knows(id));
        self.transfers.retain(|id| !desk.ledger.transfers.knows(id));
        self.tokens.retain(|id| !desk.tokens.knows(id));
    }

    /// Adds what stands behind an effect.
    pub(crate) fn add_effect(&mut self, effect: &Effect) {
        if let Some(pledge) = &effect.pledge {
            self.accounts.extend([pledge.debit.clone(), pledge.credit.clone()]);
            self.transfers.extend(pledge.open.clone());
        }
        self.tokens.extend(effect.token.clone());
    }
}
