//! The suite of all stores, over the embedded one.

#[path = "../conformance/mod.rs"]
pub(crate) mod conformance;

use endstate_outbox::{SqliteStore, Store};
use std::sync::Arc;

async fn open() -> (Arc<dyn Store>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    (store, folder)
}

crate::conformance! { open:
    an_owner_goes_on_where_the_last_one_stopped
    z05_an_older_owner_writes_nothing
    the_fence_is_looked_at_before_the_data
    every_fence_of_a_commit_must_hold
    a_failing_batch_does_not_take_its_neighbours_with_it
    one_batch_too_few_is_not_made_good_by_one_too_many
    a_write_sees_those_before_it
    nothing_to_write_hits_nothing
    any_number_of_rows_of_every_kind_comes_back_as_it_went_in
    the_same_record_is_one_dead_letter
}
