//! Where the systems of these tests live: the embedded store and its own bus.

use endstate_outbox::{Bus, Commit, Kind, Rows, SqliteStore, Statement, Store, Write};
use std::path::Path;
use std::sync::Arc;

/// The store in a folder, and its bus.
pub(crate) async fn open(folder: &Path) -> (Arc<dyn Store>, Arc<dyn Bus>) {
    let store = SqliteStore::open(folder).await.unwrap();
    let bus = store.bus();
    (store, bus)
}

/// Changes the bytes of inputs that are queued.
pub(crate) async fn rewrite_progress(_: &Path, store: &dyn Store, from: &str, to: &str) {
    static REWRITE: Statement = Statement {
        name: "test.rewrite_progress",
        columns: &[Kind::Text, Kind::Text],
        sql: "with r(old, new) as ({rows}) update outbox set body = replace(body, r.old, r.new) from r \
              where outbox.topic = 'progress'",
    };
    let writes = vec![Write::any(&REWRITE, Rows::one([from.into(), to.into()]))];
    store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
}
