//! What each case does to the town while the load runs. Each ends with everything started again, and tells what it did.

mod processes;
mod servers;
mod sessions;

use super::Plan;
use super::case::Case;
use super::ground::{Ground, Server};
use super::town::Town;
use crate::demo::random::Random;
use std::time::{Duration, Instant};

/// What a case does with.
struct Scene<'a> {
    town: &'a mut Town,
    ground: &'a Ground,
    random: Random,
    started: Instant,
    load: Duration,
    /// What was done so far.
    done: Vec<String>,
}

/// Does it; returns what was done, one entry for each time.
pub(super) async fn act(
    case: Case,
    town: &mut Town,
    ground: &Ground,
    plan: &Plan,
    random: Random,
) -> anyhow::Result<Vec<String>> {
    let (started, load) = (Instant::now(), plan.load);
    let mut scene = Scene { town, ground, random, started, load, done: Vec::new() };
    match case {
        Case::Kill => processes::kill(&mut scene).await?,
        Case::Freeze => processes::freeze(&mut scene).await?,
        Case::Storm => processes::storm(&mut scene).await?,
        Case::Sessions => sessions::terminate(&mut scene).await?,
        Case::Cut => sessions::cut(&mut scene).await?,
        Case::Database => servers::restart(&mut scene, Server::Postgres).await?,
        Case::Broker => servers::restart(&mut scene, Server::Kafka).await?,
    }
    Ok(scene.done)
}

impl Scene<'_> {
    /// Whether buyers still come.
    fn goes_on(&self) -> bool {
        self.started.elapsed() < self.load
    }

    /// A pause between two bounds.
    async fn pause(&mut self, least_ms: usize, most_ms: usize) {
        let ms = least_ms + self.random.below(most_ms - least_ms);
        tokio::time::sleep(Duration::from_millis(ms as u64)).await;
    }
}
