//! Where the systems of these tests live: PostgreSQL, and a bus in memory.

pub(crate) use crate::real::open;

use endstate_events::Topic;
use endstate_outbox::Store;
use std::path::Path;

/// Changes the bytes of inputs that are queued.
pub(crate) async fn rewrite_progress(folder: &Path, _: &dyn Store, from: &str, to: &str) {
    let (_, bus) = crate::real::known(folder);
    let mut partitions = bus.lock();
    let bodies =
        partitions.iter_mut().filter(|((topic, _), _)| *topic == Topic::Progress).flat_map(|(_, bodies)| bodies);
    bodies.for_each(|body| *body = body.replace(from, to));
}
