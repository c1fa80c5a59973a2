//! The definitions a store knows: immutable by (name, version), one active version per name, switched at run time.

use endstate_events::{Environment, ForeignTopic, TopicNameError, Transport};
use endstate_outbox::{Bus, Commit, CommitError, Kind, Row, Rows, Statement, Store, StoreError, Value, Write};
use endstate_saga::definition::{Definition, Diagnostic, Source};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

static ALL: Statement = Statement {
    name: "definition.all",
    columns: &[Kind::Int],
    sql: "with r(from_version) as ({rows}) select d.name, d.version, d.sha256, d.source, a.version, a.previous \
          from definition d join r on d.version >= r.from_version left join definition_active a on a.name = d.name \
          order by d.name, d.version",
};

static ACTIVE: Statement = Statement {
    name: "definition.active",
    columns: &[Kind::Int],
    sql: "with r(least) as ({rows}) select a.name, a.version from definition_active a join r on a.version >= r.least",
};

static INSERT: Statement = Statement {
    name: "definition.insert",
    columns: &[Kind::Text, Kind::Int, Kind::Text, Kind::Text, Kind::Int],
    sql: "with r(name, version, sha256, source, loaded_ms) as ({rows}) \
          insert into definition (name, version, sha256, source, loaded_ms) select * from r",
};

static ACTIVATE: Statement = Statement {
    name: "definition.activate",
    columns: &[Kind::Text, Kind::Int, Kind::Int],
    sql: "with r(name, version, now_ms) as ({rows}) \
          insert into definition_active (name, version, activated_ms) select name, version, now_ms from r where true \
          on conflict (name) do update set previous = case when definition_active.version = excluded.version \
          then definition_active.previous else definition_active.version end, version = excluded.version, \
          activated_ms = excluded.activated_ms",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&ALL, &ACTIVE, &INSERT, &ACTIVATE];

/// Every definition of a store, in memory.
pub struct Definitions {
    store: Arc<dyn Store>,
    known: RwLock<Known>,
    reach: Option<Reach>,
}

/// How participants of other teams are reached over Kafka.
pub struct Reach {
    /// The bus that knows their topics.
    pub bus: Arc<dyn Bus>,
    /// The system's name, which may be part of a topic's.
    pub environment: Environment,
    /// Topics that take commands now, by participant, whatever a catalogue says.
    pub moved: BTreeMap<String, ForeignTopic>,
}

impl Reach {
    fn topic(&self, participant: &str, transport: &Transport) -> Option<Result<ForeignTopic, TopicNameError>> {
        let topic = transport.topic(&self.environment)?;
        Some(self.moved.get(participant).copied().map_or(topic, Ok))
    }
}

#[derive(Clone, Default)]
struct Known {
    definitions: FxHashMap<(Arc<str>, u32), Arc<Definition>>,
    active: FxHashMap<Arc<str>, Active>,
    /// Hashes of stored versions that this program cannot read.
    unreadable: FxHashMap<(Arc<str>, u32), Arc<str>>,
}

#[derive(Clone, Copy)]
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
        let definitions = Self { store, known: RwLock::default(), reach };
        definitions.refresh().await?;
        Ok(Arc::new(definitions))
    }

    /// The topic that takes commands to a participant of another team; none for participants that are not on Kafka.
    #[must_use]
    pub fn foreign_topic(&self, definition: &Definition, participant: &str) -> Option<ForeignTopic> {
        let transport = &definition.catalogue().participants.get(participant)?.transport;
        match transport {
            Transport::Builtin | Transport::Http { .. } => None,
            Transport::Kafka { .. } => self.reach.as_ref()?.topic(participant, transport)?.ok(),
        }
    }

    /// Looks whether everybody whom the definition calls over Kafka can be reached.
    async fn check_reach(&self, definition: &Definition) -> Result<(), DefinitionsError> {
        let plan = definition.plan();
        let asks = plan.stages.iter().filter_map(|stage| stage.wait.as_ref()?.ask.as_ref());
        let calls = plan.steps.iter().flat_map(|step| std::iter::once(&step.call).chain(&step.undo)).chain(asks);
        let names: BTreeSet<&str> = calls.map(|call| &*call.participant).collect();
        for name in names {
            let Some(participant) = definition.catalogue().participants.get(name) else { continue };
            let Transport::Kafka { partitions, .. } = participant.transport else { continue };
            let unreachable = |reason: String| DefinitionsError::Unreachable { participant: name.to_owned(), reason };
            let none =
                "this process has the embedded bus; topics need `endstate serve` with store.url and kafka.brokers";
            let reach = self.reach.as_ref().ok_or_else(|| unreachable(none.to_owned()))?;
            let Some(topic) = reach.topic(name, &participant.transport) else { continue };
            let topic = topic.map_err(|error| unreachable(error.to_string()))?;
            reach.bus.reach(topic, partitions).await.map_err(|error| unreachable(error.to_string()))?;
        }
        Ok(())
    }

    /// Reads what other processes have loaded and activated meanwhile.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let rows = self.store.read(&ALL, Rows::one([0i64.into()])).await?;
        let mut known = self.read(Known::clone);
        for Stored { name, version, sha256, source, active } in
            rows.iter().map(stored).collect::<Result<Vec<_>, _>>()?
        {
            if let Some(active) = active {
                known.active.insert(Arc::clone(&name), active);
            }
            let key = (name, version);
            // A version never changes.
            if known.definitions.contains_key(&key) || known.unreadable.contains_key(&key) {
                continue;
            }
            let hash = Arc::clone(&sha256);
            let compiled = tokio::task::spawn_blocking(move || reload(&source, &hash)).await;
            match compiled.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(definition) => drop(known.definitions.insert(key, Arc::new(definition))),
                Err(reason) => {
                    let (name, version) = &key;
                    tracing::error!(definition = %name, version, %reason, "E3003: a stored definition cannot be read");
                    known.unreadable.insert(key, sha256);
                }
            }
        }
        self.write(|current| {
            // What this process has loaded since the rows were read stays.
            for (key, definition) in std::mem::take(&mut current.definitions) {
                known.definitions.entry(key).or_insert(definition);
            }
            for (name, active) in std::mem::take(&mut current.active) {
                known.active.entry(name).or_insert(active);
            }
            *current = known;
        });
        Ok(())
    }

    /// Makes sure that these versions are known, if the store has them: another process may have loaded one a moment ago.
    pub async fn ensure(&self, mut wanted: impl Iterator<Item = (&str, u32)> + Send) -> Result<(), StoreError> {
        let missing = self.read(|known| {
            wanted.any(|(name, version)| {
                let key = (Arc::from(name), version);
                !known.definitions.contains_key(&key) && !known.unreadable.contains_key(&key)
            })
        });
        if missing { self.refresh().await } else { Ok(()) }
    }

    /// Makes sure that the versions are known which are active now; false when they were.
    pub async fn catch_up(&self) -> Result<bool, StoreError> {
        let rows = self.store.read(&ACTIVE, Rows::one([0i64.into()])).await?;
        let known = self.read(|known| known.active.clone());
        let is_known = |row: &Row| Some(i64::from(known.get(row.first()?.text()?)?.version) == row.get(1)?.int()?);
        let missing = !rows.iter().all(|row| is_known(row).unwrap_or(false));
        if missing { self.refresh().await.map(|()| true) } else { Ok(false) }
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

    /// The version that starts use.
    #[must_use]
    pub fn active(&self, name: &str) -> Option<Arc<Definition>> {
        self.read(|known| {
            let version = known.active.get(name)?.version;
            known.definitions.get(&(Arc::from(name), version)).cloned()
        })
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
        let definition = Arc::new(compiled.map_err(DefinitionsError::Faulty)?);
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
        let first = self.read(|known| !known.active.contains_key(name.as_str()));
        if first {
            writes.push(activation(&name, version, now_ms));
        }
        if let Err(error) = self.store.commit(Commit { writes, ..Commit::default() }).await {
            // Another process may have been faster.
            self.refresh().await?;
            return match self.get(&name, version) {
                Some(known) if known.sha256() == definition.sha256() => Ok(known),
                Some(_) => Err(DefinitionsError::Changed { name, version }),
                None => Err(error.into()),
            };
        }
        self.write(|known| {
            let name: Arc<str> = name.into();
            if first {
                known.active.insert(Arc::clone(&name), Active { version, previous: None });
            }
            known.definitions.insert((name, version), Arc::clone(&definition));
        });
        Ok(definition)
    }

    /// Makes starts use a version.
    pub async fn activate(&self, name: &str, version: u32, now_ms: i64) -> Result<(), DefinitionsError> {
        if self.get(name, version).is_none() {
            return Err(DefinitionsError::Unknown { name: name.to_owned(), version });
        }
        let writes = vec![activation(name, version, now_ms)];
        self.store.commit(Commit { writes, ..Commit::default() }).await?;
        self.write(|known| {
            let before = known.active.get(name).copied();
            let previous = match before {
                Some(active) if active.version == version => active.previous,
                Some(active) => Some(active.version),
                None => None,
            };
            known.active.insert(name.into(), Active { version, previous });
        });
        Ok(())
    }

    /// Makes starts use the version before; returns it.
    pub async fn roll_back(&self, name: &str, now_ms: i64) -> Result<u32, DefinitionsError> {
        let previous = self.read(|known| known.active.get(name).and_then(|active| active.previous));
        let previous = previous.ok_or_else(|| DefinitionsError::NoPrevious(name.to_owned()))?;
        self.activate(name, previous, now_ms).await?;
        Ok(previous)
    }
}

fn activation(name: &str, version: u32, now_ms: i64) -> Write {
    Write::exact(&ACTIVATE, Rows::one([name.into(), i64::from(version).into(), now_ms.into()]))
}

/// A row of the store.
struct Stored {
    name: Arc<str>,
    version: u32,
    sha256: Arc<str>,
    source: Arc<str>,
    active: Option<Active>,
}

fn stored(row: &Row) -> Result<Stored, StoreError> {
    let [Value::Text(name), Value::Int(version), Value::Text(sha256), Value::Text(source), active, previous] =
        row.as_slice()
    else {
        let reason = "a row has another shape".to_owned();
        return Err(StoreError::Failed { statement: ALL.name.to_owned(), reason });
    };
    let number = |value: &Value| value.int().and_then(|n| u32::try_from(n).ok());
    Ok(Stored {
        name: Arc::from(&**name),
        version: u32::try_from(*version).unwrap_or_default(),
        sha256: Arc::from(&**sha256),
        source: Arc::clone(source),
        active: number(active).map(|version| Active { version, previous: number(previous) }),
    })
}

fn reload(source: &str, sha256: &str) -> Result<Definition, String> {
    let source: Source = serde_json::from_str(source).map_err(|error| error.to_string())?;
    let faults = |faults: Vec<Diagnostic>| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let definition = Definition::reload(&source).map_err(faults)?;
    if definition.sha256() == sha256 { Ok(definition) } else { Err("it does not have its stored hash".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use endstate_outbox::SqliteStore;
    use endstate_saga::definition::shipped;

    fn bench() -> Source {
        shipped().into_iter().find(|source| source.file.contains("bench_saga")).unwrap()
    }

    /// Stores a text as an older program would have, without looking at it.
    async fn store_text(store: &SqliteStore, source: &Source, version: i64, sha256: &str) {
        let text = serde_json::to_string(source).unwrap();
        let row = ["bench_saga".into(), version.into(), sha256.into(), text.into(), 0.into()];
        let writes = vec![Write::exact(&INSERT, Rows::one(row)), activation("bench_saga", 1, 0)];
        store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
    }

    #[tokio::test]
    async fn rules_made_stricter_later_stop_no_stored_definition() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).await.unwrap();
        let sha256 = Definition::load(&bench()).unwrap().sha256().to_owned();
        // To its author, samples that cannot be read are a fault; to its sagas they are nothing.
        let mut careless = bench();
        careless.samples = [("ok.json".to_owned(), "{".to_owned())].into();
        assert!(Definition::load(&careless).is_err());
        store_text(&store, &careless, 1, &sha256).await;
        let definitions = Definitions::open(store).await.unwrap();
        assert_eq!(definitions.active("bench_saga").unwrap().sha256(), sha256);
    }

    #[tokio::test]
    async fn a_stored_definition_that_cannot_be_read_stops_nobody_and_can_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).await.unwrap();
        let sha256 = Definition::load(&bench()).unwrap().sha256().to_owned();
        let damaged = Source { text: "saga: [".to_owned(), ..bench() };
        store_text(&store, &damaged, 1, &sha256).await;
        let definitions = Definitions::open(store).await.unwrap();
        assert!(definitions.active("bench_saga").is_none() && definitions.list().is_empty());
        let other = Source { text: format!("{}\n# more", bench().text), ..bench() };
        let changed = definitions.load(&other, 0).await;
        assert!(matches!(changed, Err(DefinitionsError::Changed { .. })), "its version is taken");
        definitions.load(&bench(), 0).await.unwrap();
        assert!(definitions.active("bench_saga").is_some());
    }

    #[test]
    fn compiling_does_not_block_the_threads_that_serve_calls() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let definitions = Definitions::open(SqliteStore::open(folder.path()).await.unwrap()).await.unwrap();
            // The only thread for what blocks is taken, so whoever compiles on it has to wait.
            let (release, held) = std::sync::mpsc::channel::<()>();
            let holding = tokio::task::spawn_blocking(move || held.recv());
            let faulty = Source { text: "saga: x".to_owned(), ..bench() };
            let mut loading = std::pin::pin!(definitions.load(&faulty, 0));
            tokio::select! {
                biased;
                _ = &mut loading => panic!("it was compiled on a thread that serves calls"),
                () = std::future::ready(()) => {}
            }
            release.send(()).unwrap();
            assert!(matches!(loading.await, Err(DefinitionsError::Faulty(_))));
            holding.await.unwrap().unwrap();
        });
    }
}
