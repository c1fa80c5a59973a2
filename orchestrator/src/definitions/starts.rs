//! Which definitions starts and events mean.

use super::Definitions;
use endstate_events::{ACTIVE_VERSION, Start};
use endstate_saga::definition::Definition;
use std::sync::Arc;

impl Definitions {
    /// What a start is to be decided with; else the version that it means.
    pub fn of_start(&self, start: &Start) -> Result<Arc<Definition>, u32> {
        let version = match start.version {
            ACTIVE_VERSION => self.active_version(&start.definition).unwrap_or(ACTIVE_VERSION),
            version => version,
        };
        self.get(&start.definition, version).ok_or(version)
    }

    /// The active definitions that start on an event, by name; else one that this program cannot read, and of which another
    /// version does.
    pub fn starting_on(&self, event: &str) -> Result<Vec<Arc<Definition>>, (Arc<str>, u32)> {
        let mut starting: Vec<_> = self.read(|known| {
            let starts = known.definitions.values().filter(|known| known.start_events().any(|name| **name == *event));
            let active = starts.filter_map(|starts| {
                let (name, active) = known.active.get_key_value(starts.name())?;
                let key = (Arc::clone(name), active.version);
                match known.definitions.get(&key) {
                    Some(definition) => (definition.version() == starts.version()).then(|| Ok(Arc::clone(definition))),
                    None => Some(Err(key)),
                }
            });
            active.collect::<Result<_, _>>()
        })?;
        starting.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(starting)
    }
}
