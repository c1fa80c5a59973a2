//! The definitions a store knows: immutable by (name, version), one active version per name, switched at run time.

mod reach;
mod rows;
mod starts;

pub use reach::Reach;
pub(crate) use rows::STATEMENTS;

use endstate_events::ACTIVE_VERSION;
use endstate_outbox::{Commit, CommitError, Rows, Store, StoreError, Write};
use endstate_saga::definition::{Definition, Diagnostic, Source};
use rows::{
    ACTIVATE, ACTIVATE_FIRST, ACTIVE, INSERT, ROLL_BACK, Stored, TEXTS, VERSIONS, activated, activation, named, stored,
};
use rustc_hash::FxHashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Between two looks for what callers name and nobody here knows: as anybody may name anything.
const LOOK: Duration = Duration::from_secs(2);

/// Every definition of a store, in memory.
pub struct Definitions {
    store: Arc<dyn Store>,
    known: RwLock<Known>,
    /// When what nobody knew was last looked for.
    looked: tokio::sync::Mutex<Option<Instant>>,
    reach: Option<Reach>,
}

#[derive(Default)]
struct Known {
    definitions: FxHashMap<(Arc<str>, u32), Arc<Definition>>,
    active: FxHashMap<Arc<str>, Active>,
    /// How often `active` was replaced or changed: what was read before the last time is older than it.
    changes: u64,
    /// Hashes of stored versions that this program cannot read.
    unreadable: FxHashMap<(Arc<str>, u32), Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Active {
    version: u32,
    previous: Option<u32>,
}

/// One line of the list of definitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Hash of its text.
    pub sha256: String,
    /// Whether starts use it.
    pub active: bool,
}

/// Why a definition was not loaded or activated.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionsError {
    /// It has faults.
    #[error("the definition has {} fault(s)", .0.len())]
    Faulty(Vec<Diagnostic>),
    /// A participant of it cannot be reached.
    #[error("E5017: participant `{participant}` cannot be reached over Kafka: {reason}")]
    Unreachable {
        /// The participant.
        participant: String,
        /// Why.
        reason: String,
    },
    /// Compiling it panicked.
    #[error("compiling the definition failed: {0}")]
    Crashed(String),
    /// The version exists with another text.
    #[error("E1060: {name} version {version} is stored with another text; raise its version")]
    Changed {
        /// The definition.
        name: String,
        /// Its version.
        version: u32,
    },
    /// There is no such version.
    #[error("E1091: {name} version {version} is not loaded; load it first")]
    Unknown {
        /// The definition.
        name: String,
        /// Its version.
        version: u32,
    },
    /// There is nothing to return to.
    #[error("E1092: {0} has no earlier active version to roll back to")]
    NoPrevious(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Definitions {
    /// Reads all definitions of a store. One that this program cannot read any more is left out and said so (E3003): its
    /// sagas wait and alert, and all others go on.
    pub async fn open(store: Arc<dyn Store>) -> Result<Arc<Self>, DefinitionsError> {
        Self::reaching(store, None).await
    }

    /// The same, with a bus that reaches participants of other teams; without one, a definition that needs such a
    /// participant is refused.
    pub async fn reaching(store: Arc<dyn Store>, reach: Option<Reach>) -> Result<Arc<Self>, DefinitionsError> {
        let definitions = Self { store, known: RwLock::default(), looked: tokio::sync::Mutex::default(), reach };
        definitions.refresh().await?;
        Ok(Arc::new(definitions))
    }

    /// Reads what other processes have loaded and activated meanwhile.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        self.learn().await?;
        self.catch_up().await
    }

    /// Reads the versions that this process does not know.
    async fn learn(&self) -> Result<(), StoreError> {
        let mut unknown = Rows::new();
        for row in &self.store.read(&VERSIONS, Rows::one([0i64.into()])).await? {
            let (name, version) = named(row)?;
            // A version never changes.
            if !self.knows(&name, version) {
                unknown.push([name.into(), i64::from(version).into()]);
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let rows = self.store.read(&TEXTS, unknown).await?;
        for Stored { name, version, sha256, source } in rows.iter().map(stored).collect::<Result<Vec<_>, _>>()? {
            let (key, hash) = ((name, version), Arc::clone(&sha256));
            let compiled = tokio::task::spawn_blocking(move || reload(&source, &hash)).await;
            match compiled.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(definition) => self.write(|known| drop(known.definitions.insert(key, Arc::new(definition)))),
                Err(reason) => {
                    let (name, version) = &key;
                    tracing::error!(definition = %name, version, %reason, "E3003: a stored definition cannot be read");
                    self.write(|known| drop(known.unreadable.insert(key, sha256)));
                }
            }
        }
        Ok(())
    }

    /// Makes sure that these versions are known, if the store has them: another process may have loaded or activated one a
    /// moment ago. For versions that a saga or a start names, because somebody has read them from the store; a start may also
    /// want the [active one](ACTIVE_VERSION).
    pub async fn ensure(&self, wanted: impl Iterator<Item = (&str, u32)> + Send) -> Result<(), StoreError> {
        let (mut missing, mut active) = (false, false);
        for (name, version) in wanted {
            missing |= version != ACTIVE_VERSION && !self.knows(name, version);
            active |= version == ACTIVE_VERSION && !self.is_active(name);
        }
        if missing {
            self.learn().await?;
        }
        if active { self.catch_up().await } else { Ok(()) }
    }

    /// The version that a saga has; none when this program cannot read it.
    pub async fn of_saga(&self, name: &str, version: u32) -> Result<Option<Arc<Definition>>, StoreError> {
        self.ensure(std::iter::once((name, version))).await?;
        Ok(self.get(name, version))
    }

    /// The version that a start wants, or the active one, for whoever may name anything.
    pub async fn wanted(&self, name: &str, version: Option<u32>) -> Result<Option<Arc<Definition>>, StoreError> {
        let known = || version.map_or_else(|| self.active(name), |version| self.get(name, version));
        self.look_for(|| known().is_some()).await?;
        Ok(known())
    }

    /// Makes sure that the definitions are known which start on an event, for whoever may name any.
    pub async fn look_for_starts_on(&self, event: &str) -> Result<(), StoreError> {
        self.look_for(|| self.starting_on(event).map_or(true, |starting| !starting.is_empty())).await
    }

    /// What nobody here knows is looked for in the store, but not more often than every two seconds.
    async fn look_for(&self, is_known: impl Fn() -> bool) -> Result<(), StoreError> {
        if is_known() {
            return Ok(());
        }
        // Whoever comes while somebody looks waits for what that finds.
        let mut looked = self.looked.lock().await;
        if !is_known() && looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.catch_up().await?;
            *looked = Some(Instant::now());
        }
        Ok(())
    }

    /// Makes sure that the versions are known which are active now.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        loop {
            let changes = self.read(|known| known.changes);
            let rows = self.store.read(&ACTIVE, Rows::one([0i64.into()])).await?;
            let active: FxHashMap<_, _> = rows.iter().map(activated).collect::<Result<_, _>>()?;
            if !active.iter().all(|(name, active)| self.knows(name, active.version)) {
                self.learn().await?;
            }
            let is_newest = self.write(|known| {
                let is_newest = known.changes == changes;
                if is_newest {
                    known.active = active;
                    known.changes += 1;
                }
                is_newest
            });
            if is_newest {
                return Ok(());
            }
        }
    }

    /// Whether a version was read, also one that cannot be.
    fn knows(&self, name: &str, version: u32) -> bool {
        let key = (Arc::from(name), version);
        self.read(|known| known.definitions.contains_key(&key) || known.unreadable.contains_key(&key))
    }

    fn read<T>(&self, read: impl FnOnce(&Known) -> T) -> T {
        read(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Known) -> T) -> T {
        write(&mut self.known.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a definition of this name has an active version, also one that this program cannot read.
    #[must_use]
    pub fn is_active(&self, name: &str) -> bool {
        self.read(|known| known.active.contains_key(name))
    }

    /// One version of a definition.
    #[must_use]
    pub fn get(&self, name: &str, version: u32) -> Option<Arc<Definition>> {
        self.read(|known| known.definitions.get(&(Arc::from(name), version)).cloned())
    }

    /// Whether the store has a version that this program could not read when it met it; a newer one can.
    #[must_use]
    pub fn is_unreadable(&self, name: &str, version: u32) -> bool {
        self.read(|known| known.unreadable.contains_key(&(Arc::from(name), version)))
    }

    /// The version that starts use.
    #[must_use]
    pub fn active(&self, name: &str) -> Option<Arc<Definition>> {
        let version = self.active_version(name)?;
        self.get(name, version)
    }

    /// The same, though this program may not be able to read it.
    #[must_use]
    pub fn active_version(&self, name: &str) -> Option<u32> {
        self.read(|known| known.active.get(name).map(|active| active.version))
    }

    /// All definitions, by name and version.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let mut list = self.read(|known| {
            let listed = |((name, version), definition): (&(Arc<str>, u32), &Arc<Definition>)| Listed {
                name: name.to_string(),
                version: *version,
                sha256: definition.sha256().to_owned(),
                active: known.active.get(name).is_some_and(|active| active.version == *version),
            };
            known.definitions.iter().map(listed).collect::<Vec<_>>()
        });
        list.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        list
    }

    /// Loads a definition; the same text again is no change. A new name is activated at once. Compiling takes
    /// milliseconds: it is done off the threads that serve calls.
    pub async fn load(&self, source: &Source, now_ms: i64) -> Result<Arc<Definition>, DefinitionsError> {
        let text = source.clone();
        let compiled = tokio::task::spawn_blocking(move || Definition::load(&text)).await;
        let compiled = compiled.map_err(|error| DefinitionsError::Crashed(error.to_string()))?;
        let loaded = self.keep(source, Arc::new(compiled.map_err(DefinitionsError::Faulty)?), now_ms).await?;
        if !self.is_active(loaded.name()) {
            // It was activated here, or by somebody who was faster, or another version is the first.
            self.catch_up().await?;
        }
        Ok(loaded)
    }

    /// Stores a version, unless it is.
    async fn keep(
        &self,
        source: &Source,
        definition: Arc<Definition>,
        now_ms: i64,
    ) -> Result<Arc<Definition>, DefinitionsError> {
        let (name, version) = (definition.name().to_string(), definition.version());
        if let Some(known) = self.get(&name, version) {
            let same = known.sha256() == definition.sha256();
            return if same { Ok(known) } else { Err(DefinitionsError::Changed { name, version }) };
        }
        if let Some(sha256) = self.read(|known| known.unreadable.get(&(Arc::from(name.as_str()), version)).cloned()) {
            if *sha256 != *definition.sha256() {
                return Err(DefinitionsError::Changed { name, version });
            }
            // Its row is there; only the program that opened the store could not read it.
            self.write(|known| known.definitions.insert((name.into(), version), Arc::clone(&definition)));
            return Ok(definition);
        }
        self.check_reach(&definition).await?;
        let text = serde_json::to_string(source).unwrap_or_default();
        let row =
            [name.as_str().into(), i64::from(version).into(), definition.sha256().into(), text.into(), now_ms.into()];
        let mut writes = vec![Write::exact(&INSERT, Rows::one(row))];
        if !self.is_active(&name) {
            writes.push(Write::any(&ACTIVATE_FIRST, Rows::one(activation(&name, version, now_ms))));
        }
        if let Err(error) = self.store.commit(Commit { writes, ..Commit::default() }).await {
            // Another process may have been faster.
            self.learn().await?;
            return match self.get(&name, version) {
                Some(known) if known.sha256() == definition.sha256() => Ok(known),
                Some(_) => Err(DefinitionsError::Changed { name, version }),
                None => Err(error.into()),
            };
        }
        self.write(|known| drop(known.definitions.insert((name.into(), version), Arc::clone(&definition))));
        Ok(definition)
    }

    /// Makes starts use a version.
    pub async fn activate(&self, name: &str, version: u32, now_ms: i64) -> Result<(), DefinitionsError> {
        self.catch_up().await?;
        if self.of_saga(name, version).await?.is_none() {
            return Err(DefinitionsError::Unknown { name: name.to_owned(), version });
        }
        let writes = vec![Write::exact(&ACTIVATE, Rows::one(activation(name, version, now_ms)))];
        self.store.commit(Commit { writes, ..Commit::default() }).await?;
        self.switched(name, version);
        Ok(())
    }

    /// Makes starts use the version before; returns it. Of two processes that do so at the same moment one fails.
    pub async fn roll_back(&self, name: &str, now_ms: i64) -> Result<u32, DefinitionsError> {
        self.catch_up().await?;
        let active = self.read(|known| known.active.get(name).copied());
        let none = || DefinitionsError::NoPrevious(name.to_owned());
        let Active { version, previous } = active.ok_or_else(none)?;
        let previous = previous.ok_or_else(none)?;
        if self.of_saga(name, previous).await?.is_none() {
            return Err(DefinitionsError::Unknown { name: name.to_owned(), version: previous });
        }
        let row = [name.into(), i64::from(version).into(), i64::from(previous).into(), now_ms.into()];
        let writes = vec![Write::exact(&ROLL_BACK, Rows::one(row))];
        self.store.commit(Commit { writes, ..Commit::default() }).await?;
        self.switched(name, previous);
        Ok(previous)
    }

    /// This process has made starts use a version.
    fn switched(&self, name: &str, version: u32) {
        self.write(|known| {
            let before = known.active.get(name).copied();
            let previous = match before {
                Some(active) if active.version == version => active.previous,
                Some(active) => Some(active.version),
                None => None,
            };
            known.active.insert(name.into(), Active { version, previous });
            known.changes += 1;
        });
    }
}

fn reload(source: &str, sha256: &str) -> Result<Definition, String> {
    let source: Source = serde_json::from_str(source).map_err(|error| error.to_string())?;
    let faults = |faults: Vec<Diagnostic>| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let definition = Definition::reload(&source).map_err(faults)?;
    if definition.sha256() == sha256 { Ok(definition) } else { Err("it does not have its stored hash".to_owned()) }
}

#[cfg(test)]
mod tests;
