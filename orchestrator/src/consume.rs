//! What a batch needs to know before it decides: the sagas it names, and who holds the numbers it claims.

use crate::decide::Working;
use crate::orphan::{self, Awaited, Orphan};
use crate::persist::{self, Claimed, Stored};
use endstate_events::{Envelope, Input, InputBody, Message, SagaId, Start, Topic};
use endstate_outbox::{LAST_ATTEMPT, Store, StoreError};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// Sagas that one assignment has read or written; changed only after a commit.
#[derive(Debug, Default)]
pub struct Cache {
    sagas: FxHashMap<SagaId, Stored>,
    /// Of their rows together.
    bytes: usize,
    /// Who holds the numbers that were claimed or looked up: a buyer who clicks twice costs no batch a second attempt.
    claims: FxHashMap<(String, String), Claimed>,
    /// Sagas whose inputs came before their start.
    awaited: Awaited,
}

/// Sagas kept in memory per shard; beyond, the cache is emptied: open sagas are read again.
const CACHE: usize = 20_000;

/// Numbers remembered per shard; beyond, they are forgotten, and found out by the commit.
const CLAIMS: usize = 10_000;

/// The same in bytes of their rows; in memory they are some times as large.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

impl Cache {
    /// Gives a cached saga away: to the batch that decides on it and puts it back once that is committed. When it is not,
    /// the saga is read again.
    pub fn take(&mut self, id: SagaId) -> Option<Stored> {
        let stored = self.sagas.remove(&id)?;
        self.bytes -= stored.bytes;
        Some(stored)
    }

    /// Remembers a committed saga; an ended one is forgotten, as little comes for it any more.
    pub fn put(&mut self, stored: Stored) {
        let id = stored.saga.id;
        self.bytes -= self.sagas.remove(&id).map_or(0, |before| before.bytes);
        if stored.saga.control.is_ended() {
            return;
        }
        if self.sagas.len() >= CACHE || self.bytes >= CACHE_BYTES {
            self.forget_sagas();
        }
        self.bytes += stored.bytes;
        self.sagas.insert(id, stored);
    }

    /// Remembers who holds numbers, as it is committed.
    pub fn claim(&mut self, claims: impl IntoIterator<Item = ((String, String), Claimed)>) {
        if self.claims.len() >= CLAIMS {
            self.claims.clear();
        }
        self.claims.extend(claims);
    }

    /// Remembers sagas whose inputs came before their start, as it is committed.
    pub fn await_starts(&mut self, sagas: impl IntoIterator<Item = SagaId>) {
        self.awaited.add(sagas);
    }

    /// Forgets that inputs wait for a saga: it was given them, as it is committed.
    pub fn adopted(&mut self, saga: SagaId) {
        self.awaited.remove(saga);
    }

    /// Forgets everything: a new assignment, with what it awaits.
    pub fn begin(&mut self, awaited: Awaited) {
        self.forget_sagas();
        self.claims.clear();
        self.awaited = awaited;
    }

    fn forget_sagas(&mut self) {
        self.bytes = 0;
        self.sagas.clear();
    }
}

/// What was read for a batch.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Sagas by id, those that exist.
    pub sagas: FxHashMap<SagaId, Stored>,
    /// Sagas whose row cannot be read, and why.
    pub unreadable: FxHashMap<SagaId, String>,
    /// Earlier claims by (definition, number).
    pub claims: FxHashMap<(String, String), Claimed>,
    /// What came before the sagas that start now, and while others stood still.
    pub orphans: FxHashMap<SagaId, Vec<Orphan>>,
}

/// Reads what the messages and `others` need and neither `working` nor `cache` holds: at most two reads, and a third when
/// inputs have come before their saga.
///
/// New numbers and new saga ids are the rule, so a first attempt reads neither: what is not remembered the commit finds
/// out, and the second attempt knows.
pub async fn load(
    store: &dyn Store,
    cache: &mut Cache,
    working: &Working,
    (messages, others): (&[(Topic, Arc<Envelope>)], &[SagaId]),
    attempt: u32,
) -> Result<Loaded, StoreError> {
    let again = attempt > 0;
    // What has failed twice, and alone, is not held up by what came before it: that may be at fault.
    let adopts = attempt < LAST_ATTEMPT || messages.len() > 1;
    let mut wanted: FxHashSet<SagaId> = others.iter().copied().collect();
    let mut numbers: Vec<(&str, &str)> = Vec::new();
    let (mut known, mut starting) = (Vec::new(), Vec::new());
    for (_, envelope) in messages {
        let input = match &envelope.message {
            Message::Input(input) => input,
            Message::Reply(reply) => {
                wanted.insert(reply.effect_id.saga);
                continue;
            }
            _ => continue,
        };
        let start = start_of(input);
        if start.is_some() {
            starting.push(input.saga);
        }
        match start {
            Some(start) if again => {
                numbers.push((&start.definition, &start.number));
                wanted.insert(input.saga);
            }
            Some(start) => {
                let number = (start.definition.clone(), start.number.clone());
                if let Some(claimed) = cache.claims.get(&number).cloned() {
                    // Its own, when a called saga is called again: it must be seen to be there, or it were refused.
                    if claimed.saga == input.saga {
                        wanted.insert(input.saga);
                    }
                    known.push((number, claimed));
                }
            }
            None => {
                wanted.insert(input.saga);
            }
        }
    }
    wanted.retain(|id| !working.exists(*id));
    numbers.sort_unstable();
    numbers.dedup();
    let claims = persist::load_numbers(store, &numbers).await?.into_iter().chain(known).collect();
    let mut sagas = FxHashMap::default();
    let mut missing = Vec::new();
    for id in wanted {
        match cache.take(id) {
            Some(stored) => _ = sagas.insert(id, stored),
            None => missing.push(id),
        }
    }
    let mut unreadable = FxHashMap::default();
    for (id, stored) in persist::load_each(store, &missing).await? {
        match stored {
            Ok(stored) => {
                sagas.insert(id, stored);
            }
            Err(error) => {
                tracing::error!(saga = %id, %error, "E3004: a saga's row cannot be read");
                unreadable.insert(id, error.to_string());
            }
        }
    }
    // Also a saga that is there may have stood still, as the owner of before could not read it.
    let there = starting.iter().chain(sagas.keys()).copied();
    let awaited: FxHashSet<SagaId> = there.filter(|saga| adopts && cache.awaited.may_hold(*saga)).collect();
    let orphans = orphan::load(store, &awaited).await?;
    Ok(Loaded { sagas, unreadable, claims, orphans })
}

/// The start, if the input is one.
#[must_use]
pub fn start_of(input: &Input) -> Option<&Start> {
    match &input.body {
        InputBody::Start(start) => Some(start),
        InputBody::Reply(_)
        | InputBody::Event { .. }
        | InputBody::Cancel { .. }
        | InputBody::Operate { .. }
        | InputBody::Inquire { .. } => None,
    }
}
