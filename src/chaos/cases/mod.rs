//! What each case does to the town while the load runs. Each ends with everything started again, and tells what it did.

mod processes;
mod records;
mod servers;
mod sessions;
pub(super) mod versions;

use super::Plan;
use super::case::Case;
use super::ground::{Ground, Server};
use super::load::Load;
use super::town::Town;
use crate::demo::random::Random;
use crate::demo::shop::Shop;
use anyhow::Context as _;
use endstate_events::Environment;
use endstate_outbox::kafka::raw::Raw;
use std::time::{Duration, Instant};

/// What a case does with.
struct Scene<'a> {
    town: &'a mut Town,
    ground: &'a Ground,
    /// Its way in, beside the buyers'.
    shop: &'a Shop,
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
    load: &Load,
    plan: &Plan,
    random: Random,
) -> anyhow::Result<Vec<String>> {
    let (started, run, load) = (Instant::now(), &load.run, plan.load);
    let shop = &run.office;
    let mut scene = Scene { town, ground, shop, random, started, load, done: Vec::new() };
    match case {
        Case::Kill => processes::kill(&mut scene).await?,
        Case::Freeze => processes::freeze(&mut scene).await?,
        Case::Storm => processes::storm(&mut scene).await?,
        Case::Sessions => sessions::terminate(&mut scene).await?,
        Case::Cut => sessions::cut(&mut scene).await?,
        Case::Records => records::inject(&mut scene).await?,
        Case::Offsets => records::move_groups(&mut scene).await?,
        Case::Versions => versions::switch(&mut scene).await?,
        Case::Strangers => records::strangers(&mut scene).await?,
        Case::Database => servers::restart(&mut scene, Server::Postgres).await?,
        Case::Broker => servers::restart(&mut scene, Server::Kafka).await?,
        Case::Standby => servers::promote(&mut scene, run).await?,
    }
    Ok(scene.done)
}

/// The broker, as strangers of the town see it.
pub(super) fn raw(town: &Town, ground: &Ground) -> anyhow::Result<Raw> {
    let environment = Environment::new(&town.environment).context("the environment's name")?;
    Ok(Raw::new(&ground.brokers, environment))
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
