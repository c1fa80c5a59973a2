//! Kills the worker: with SIGKILL, in the middle of things, and starts it again on the same store.

use super::Run;
use super::process::Process;
use super::random::Random;
use reqwest::Method;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Open sagas must stand in this many stages before a kill counts as one in the middle of things.
const STAGES: usize = 3;

/// How long a kill waits for that; a thin sale of one's own may never have it.
const PATIENCE: Duration = Duration::from_secs(10);

/// One kill.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Kill {
    /// When, after the sale opened.
    pub(crate) at_ms: u128,
    /// Open sagas by definition and status at that moment.
    pub(crate) open: BTreeMap<String, u64>,
    /// How long nobody answered.
    pub(crate) down_ms: u128,
}

impl Kill {
    /// In how many stages sagas were open.
    pub(crate) fn stages(&self) -> usize {
        self.open.len()
    }
}

/// Kills the worker `kills` times, spread over the sale.
pub(crate) async fn run(run: &Run, worker: &mut Process, kills: u32, mut random: Random) -> anyhow::Result<Vec<Kill>> {
    let last_ms = run.sale.journeys.last().map_or(0, |journey| journey.at_ms).max(1_000);
    let mut done = Vec::new();
    for kill in 0..u64::from(kills) {
        // One in each part of the sale, at a random moment of it.
        let part_ms = last_ms / u64::from(kills);
        let at_ms = 300 + kill * part_ms + random.below(part_ms.max(2) as usize * 3 / 4) as u64;
        tokio::time::sleep_until(run.opened + Duration::from_millis(at_ms)).await;
        let open = in_the_middle(run).await?;
        let at_ms = run.opened.elapsed().as_millis();
        let down = Instant::now();
        worker.kill().await?;
        tokio::time::sleep(Duration::from_millis(random.below(250) as u64)).await;
        worker.start().await?;
        let kill = Kill { at_ms, open, down_ms: down.elapsed().as_millis() };
        run.progress.killed(&kill);
        done.push(kill);
    }
    Ok(done)
}

/// Waits for a moment with open sagas in enough stages, and tells what was open then.
async fn in_the_middle(run: &Run) -> anyhow::Result<BTreeMap<String, u64>> {
    let started = Instant::now();
    loop {
        let open = open_sagas(run).await?;
        if open.len() >= STAGES || started.elapsed() > PATIENCE {
            return Ok(open);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Open sagas by definition and status.
pub(crate) async fn open_sagas(run: &Run) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut open = BTreeMap::new();
    for phase in ["running", "waiting", "compensating", "reversing", "parked"] {
        let path = format!("/v1/sagas?phase={phase}&limit=200");
        let page = run.office.must(Method::GET, &path, None, None).await?;
        for saga in page["items"].as_array().into_iter().flatten() {
            let text = |name: &str| saga[name].as_str().unwrap_or_default().to_owned();
            *open.entry(format!("{}/{}", text("definition"), text("status"))).or_default() += 1;
        }
    }
    Ok(open)
}
