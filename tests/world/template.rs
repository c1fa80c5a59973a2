//! A store with all definitions loaded, made once and copied for every seed.

use endstate_orchestrator::definitions::Definitions;
use endstate_outbox::SqliteStore;
use endstate_saga::definition::{Source, shipped};
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
        let folder = memory_folder();
        let store = SqliteStore::open(folder.path()).await.expect("the template opens");
        let definitions = Definitions::open(store).await.expect("no definitions yet");
        for source in shipped().into_iter().chain([odd_job()]) {
            if let Err(error) = definitions.load(&source, 0).await {
                panic!("{}: {error:?}", source.file);
            }
        }
        Self { folder, definitions }
    }

    pub(crate) fn copy_to(&self, folder: &Path) {
        for file in ["endstate.db", "endstate.db-wal"] {
            std::fs::copy(self.folder.path().join(file), folder.join(file)).expect("the template is copied");
        }
    }
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
