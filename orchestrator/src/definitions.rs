//! The definitions a store knows: immutable by (name, version), one active version per name, switched at run time.

use endstate_events::Catalogue;
use endstate_outbox::{Commit, CommitError, Kind, Row, Rows, Statement, Store, StoreError, Value, Write};
use endstate_saga::definition::{Definition, Diagnostic, Source};
use rustc_hash::FxHashMap;
use std::sync::{Arc, PoisonError, RwLock};

static ALL: Statement = Statement {
    name: "definition.all",
    columns: &[Kind::Int],
    sql: "with r(from_version) as ({rows}) select d.name, d.version, d.sha256, d.source, a.version, a.previous \
          from definition d join r on d.version >= r.from_version left join definition_active a on a.name = d.name \
          order by d.name, d.version",
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

/// Every definition of a store, in memory.
pub struct Definitions {
    store: Arc<dyn Store>,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    definitions: FxHashMap<(Arc<str>, u32), Arc<Definition>>,
    active: FxHashMap<Arc<str>, Active>,
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
    /// Reads all definitions of a store.
    pub async fn open(store: Arc<dyn Store>) -> Result<Arc<Self>, DefinitionsError> {
        let rows = store.read(&ALL, Rows::one([0i64.into()])).await?;
        let mut known = Known::default();
        for row in rows {
            let (definition, active) = stored(&row)?;
            let name = Arc::clone(definition.name());
            if let Some(active) = active {
                known.active.insert(Arc::clone(&name), active);
            }
            known.definitions.insert((name, definition.version()), Arc::new(definition));
        }
        Ok(Arc::new(Self { store, known: RwLock::new(known) }))
    }

    fn read<T>(&self, read: impl FnOnce(&Known) -> T) -> T {
        read(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Known) -> T) -> T {
        write(&mut self.known.write().unwrap_or_else(PoisonError::into_inner))
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

    /// The catalogues of all active definitions together, for whoever must reach participants.
    #[must_use]
    pub fn catalogue(&self) -> Catalogue {
        let mut all = Catalogue::default();
        self.read(|known| {
            for definition in known.definitions.values() {
                all.participants.extend(definition.catalogue().participants.clone());
            }
        });
        all
    }

    /// Loads a definition; the same text again is no change. A new name is activated at once.
    pub async fn load(&self, source: &Source, now_ms: i64) -> Result<Arc<Definition>, DefinitionsError> {
        let definition = Arc::new(Definition::load(source).map_err(DefinitionsError::Faulty)?);
        let (name, version) = (definition.name().to_string(), definition.version());
        if let Some(known) = self.get(&name, version) {
            let same = known.sha256() == definition.sha256();
            return if same { Ok(known) } else { Err(DefinitionsError::Changed { name, version }) };
        }
        let text = serde_json::to_string(source).unwrap_or_default();
        let row =
            [name.as_str().into(), i64::from(version).into(), definition.sha256().into(), text.into(), now_ms.into()];
        let mut writes = vec![Write::exact(&INSERT, Rows::one(row))];
        let first = self.active(&name).is_none();
        if first {
            writes.push(activation(&name, version, now_ms));
        }
        self.store.commit(Commit { writes, ..Commit::default() }).await?;
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

fn stored(row: &Row) -> Result<(Definition, Option<Active>), DefinitionsError> {
    let bad = |reason: String| StoreError::Failed { statement: ALL.name.into(), reason };
    let [Value::Text(name), Value::Int(version), Value::Text(sha256), Value::Text(source), active, previous] =
        row.as_slice()
    else {
        return Err(bad("a row has another shape".into()).into());
    };
    let source: Source = serde_json::from_str(source).map_err(|error| bad(error.to_string()))?;
    let definition = Definition::load(&source).map_err(DefinitionsError::Faulty)?;
    if definition.sha256() != &**sha256 {
        return Err(bad(format!("{name} version {version} does not have its stored hash")).into());
    }
    let number = |value: &Value| value.int().and_then(|n| u32::try_from(n).ok());
    Ok((definition, number(active).map(|version| Active { version, previous: number(previous) })))
}
