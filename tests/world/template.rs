//! A store with all definitions loaded, made once and copied for every seed.

use endstate_orchestrator::definitions::Definitions;
use endstate_outbox::fused::ROUNDS;
use endstate_outbox::sqlite::Made;
use endstate_outbox::{SqliteStore, Store};
use endstate_saga::definition::{Source, shipped};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The template and its definitions, which never change and are shared by all seeds.
pub(crate) struct Template {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) definitions: Arc<Definitions>,
}

impl Template {
    /// Makes the store. It stays open: its writer must not move the files while they are copied.
    pub(crate) async fn make() -> Self {
        Self::make_with(None).await
    }

    /// [`make`](Self::make) with a number of partitions.
    pub(crate) async fn make_with(partitions: Option<NonZeroU16>) -> Self {
        let folder = memory_folder();
        let made = Made { partitions, ..Made::default() };
        let store = SqliteStore::open_as(folder.path(), &made).await.expect("the template opens");
        Self { folder, definitions: loaded(store).await }
    }

    pub(crate) fn copy_to(&self, folder: &Path) {
        for file in ["endstate.db", "endstate.db-wal"] {
            std::fs::copy(self.folder.path().join(file), folder.join(file)).expect("the template is copied");
        }
    }
}

/// All definitions that worlds run, loaded into a store that has none.
pub(crate) async fn loaded(store: Arc<dyn Store>) -> Arc<Definitions> {
    let definitions = Definitions::open(store).await.expect("no definitions yet");
    for source in shipped().into_iter().chain([odd_job()]) {
        if let Err(error) = definitions.load(&source, 0).await {
            panic!("{}: {error:?}", source.file);
        }
    }
    definitions
}

/// A temporary folder in memory where the system has one: the promise under test is about order, not about disks.
pub(crate) fn memory_folder() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    let made = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    made.expect("a temporary folder")
}

/// The world's own definition, for what no shipped one can meet.
fn odd_job() -> Source {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/world/sagas"));
    let mut source = Source::read(&folder.join("odd_job.yaml")).unwrap_or_else(|fault| panic!("{fault}"));
    source.siblings.push("bench_saga".to_owned());
    source
}

/// One template per way that the shards of a world may work.
pub(crate) struct Templates {
    many: Template,
    one: Template,
}

impl Templates {
    pub(crate) async fn make() -> Self {
        Self { many: Template::make().await, one: Template::make_with(NonZeroU16::new(1)).await }
    }

    /// How a seed's shards work: every second in fused mode, with few rounds or all, on one partition or several.
    pub(crate) fn of(&self, seed: u64) -> (&Template, Option<usize>) {
        let rounds = [1, 2, ROUNDS][(seed / 4 % 3) as usize];
        match seed % 4 {
            0 | 2 => (&self.many, None),
            1 => (&self.many, Some(rounds)),
            _ => (&self.one, Some(rounds)),
        }
    }
}
