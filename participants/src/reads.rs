//! What the messages of a round name, and so what is read before they are decided.

use crate::bench;
use crate::desk::Desk;
use crate::effect::Effect;
use endstate_events::Message;
use rustc_hash::FxHashSet;
use std::sync::Arc;

/// Keys of what a batch reads.
#[derive(Debug, Default)]
pub struct Reads {
    pub(crate) effects: FxHashSet<Arc<str>>,
    pub(crate) answered: FxHashSet<Arc<str>>,
    pub(crate) accounts: FxHashSet<Arc<str>>,
    pub(crate) transfers: FxHashSet<Arc<str>>,
    pub(crate) tokens: FxHashSet<Arc<str>>,
}

impl Reads {
    pub(crate) fn account(&mut self, id: Arc<str>) {
        self.accounts.insert(id);
    }

    pub(crate) fn transfer(&mut self, id: Arc<str>) {
        self.transfers.insert(id);
    }

    pub(crate) fn token(&mut self, id: Arc<str>) {
        self.tokens.insert(id);
    }

    /// Adds the effects that a message names.
    pub(crate) fn effects_of(&mut self, message: &Message) {
        match message {
            Message::Command(command) if command.participant == bench::NAME => {}
            Message::Command(command) => {
                self.effects.insert(command.effect_id.to_string().into());
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
