//! The orchestrator's side over PostgreSQL and a bus that is not its store: the tests of tests/it, and nothing else.
//!
//! `scripts/services run --only postgres -- cargo test --workspace --test postgres` brings the server along.

#[path = "../it/alerts.rs"]
mod alerts;
#[path = "../it/archive.rs"]
mod archive;
#[path = "../../../events/outbox/tests/support/memory.rs"]
mod bus;
mod feed;
#[path = "../it/hazards.rs"]
mod hazards;
#[path = "../it/jobs.rs"]
mod jobs;
#[path = "../it/late.rs"]
mod late;
#[path = "../it/linked.rs"]
mod linked;
#[path = "../it/lists.rs"]
mod lists;
#[path = "../it/motion.rs"]
mod motion;
#[path = "../it/newer.rs"]
mod newer;
#[path = "../it/orphans.rs"]
mod orphans;
mod place;
#[path = "../it/poison.rs"]
mod poison;
#[path = "../../../events/outbox/tests/support/real.rs"]
mod real;
#[path = "../it/rush.rs"]
mod rush;
#[path = "../it/size.rs"]
mod size;
#[path = "../it/snapshot.rs"]
mod snapshot;
mod spill;
#[path = "../it/system.rs"]
mod system;
#[path = "../it/view.rs"]
mod view;
