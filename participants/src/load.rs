//! Fills a desk with what a round of messages touches: from what the assignment knows, else from the store.

use crate::decide;
use crate::desk::Desk;
use crate::effect::Effect;
use crate::handler::{Open, Participants, decode_all};
use crate::reads::Reads;
use crate::storage;
use endstate_events::Message;
use endstate_outbox::fused::Message as Heard;
use endstate_outbox::{Row, Rows, Statement, StoreError};
use rustc_hash::FxHashSet;
use std::sync::Arc;

type Keys = FxHashSet<Arc<str>>;

impl Participants {
    /// Brings what messages touch and the desk has not: effects first, because they name accounts, too.
    pub(crate) async fn load(&mut self, open: &mut Open, messages: &[Heard]) -> Result<(), StoreError> {
        let mut named = Reads::new(open.trusting);
        for (_, envelope) in messages {
            named.effects_of(&envelope.message);
        }
        if named.is_empty() {
            return Ok(());
        }
        named.forget_known(&open.desk);
        let mut reads = Reads::new(open.trusting);
        let missing = self.recall_effects(&mut open.desk, &named, &mut reads);
        for effect in self.read(&storage::READ_EFFECTS, &missing, storage::effect).await? {
            open.repeats |= named.new_effects.contains(&effect.id);
            let effect = Arc::new(effect);
            self.known.effect(&effect);
            reads.add_effect(&effect);
            open.desk.effects.load(effect.id.clone(), effect);
        }
        self.load_calls(&mut open.desk, named.answered).await?;
        for (_, envelope) in messages {
            if let Message::Command(command) = &envelope.message {
                let id = "".into();
                decide::reads(&self.job(command, &id, envelope.lane, open.now_ms), &mut reads);
            }
        }
        reads.forget_known(&open.desk);
        for id in &reads.new_accounts {
            let account = self.known.accounts.get(id).flatten();
            account.into_iter().for_each(|account| open.desk.ledger.load_account(account));
        }
        self.load_accounts(&mut open.desk, reads.accounts).await?;
        self.load_transfers(&mut open.desk, reads.transfers).await?;
        for token in self.read(&storage::READ_TOKENS, &reads.tokens, storage::token).await? {
            open.desk.tokens.load(token.id.clone(), token);
        }
        open.trusted.extend(reads.new_transfers);
        Ok(())
    }

    /// Brings the effects that are known, and those that they confirm or undo. Returns which have to be read.
    fn recall_effects(&mut self, desk: &mut Desk, named: &Reads, reads: &mut Reads) -> Keys {
        let (mut missing, mut behind) = (Keys::default(), Vec::new());
        for id in named.new_effects.iter().chain(&named.effects) {
            match self.known.effects.get(id) {
                Some(effect) => {
                    behind.extend(effect.of.clone());
                    recall(desk, reads, effect);
                }
                None if named.effects.contains(id) => _ = missing.insert(id.clone()),
                None => {}
            }
        }
        for id in behind.into_iter().filter(|id| !desk.effects.knows(id)).collect::<Vec<_>>() {
            match self.known.effects.get(&id) {
                Some(effect) => recall(desk, reads, effect),
                None => _ = missing.insert(id),
            }
        }
        missing
    }

    async fn load_calls(&mut self, desk: &mut Desk, mut wanted: Keys) -> Result<(), StoreError> {
        wanted.retain(|id| match self.known.calls.get(id) {
            Some(call) => {
                desk.calls.load(id.clone(), call);
                false
            }
            None => true,
        });
        for call in self.read(&storage::READ_CALLS, &wanted, storage::call).await? {
            desk.calls.load(call.id.clone(), call);
        }
        Ok(())
    }

    async fn load_accounts(&mut self, desk: &mut Desk, mut wanted: Keys) -> Result<(), StoreError> {
        wanted.retain(|id| match self.known.accounts.get(id) {
            Some(account) => {
                account.into_iter().for_each(|account| desk.ledger.load_account(account));
                false
            }
            None => true,
        });
        for account in self.read(&storage::READ_ACCOUNTS, &wanted, storage::account).await? {
            let account = Arc::new(account);
            wanted.remove(&account.id);
            self.known.accounts.put(account.id.clone(), Some(Arc::clone(&account)));
            desk.ledger.load_account(account);
        }
        // Nobody else opens accounts of this shard.
        wanted.into_iter().for_each(|id| self.known.accounts.put(id, None));
        Ok(())
    }

    async fn load_transfers(&mut self, desk: &mut Desk, mut wanted: Keys) -> Result<(), StoreError> {
        wanted.retain(|id| match self.known.pending.get(id) {
            Some(transfer) => {
                desk.ledger.load_transfer(transfer);
                false
            }
            None => true,
        });
        for transfer in self.read(&storage::READ_TRANSFERS, &wanted, storage::transfer).await? {
            desk.ledger.load_transfer(transfer);
        }
        Ok(())
    }

    async fn read<T>(
        &self,
        statement: &'static Statement,
        keys: &Keys,
        decode: impl Fn(&Row) -> Option<T>,
    ) -> Result<Vec<T>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let with_shard = statement.columns.len() > 1;
        let mut rows = Rows::new();
        for key in keys {
            match with_shard {
                true => rows.push([key.clone().into(), i64::from(self.shard).into()]),
                false => rows.push([key.clone().into()]),
            }
        }
        decode_all(statement, &self.store.read(statement, rows).await?, decode)
    }
}

fn recall(desk: &mut Desk, reads: &mut Reads, effect: Arc<Effect>) {
    reads.add_effect(&effect);
    desk.effects.load(effect.id.clone(), effect);
}
