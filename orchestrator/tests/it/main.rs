//! The orchestrator's side on a real store and bus; nobody answers its commands but the tests.

mod alerts;
mod archive;
mod hazards;
mod jobs;
mod late;
mod linked;
mod lists;
mod listening;
mod memory;
mod motion;
mod newer;
mod numbers;
mod orphans;
mod place;
mod poison;
mod rush;
mod size;
mod snapshot;
mod system;
mod view;
