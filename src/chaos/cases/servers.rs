//! The servers themselves: stopped as their operator would, or as a crash would, and started again.

use super::Scene;
use crate::chaos::ground::Server;
use crate::demo::Run;
use anyhow::Context as _;

pub(super) async fn restart(scene: &mut Scene<'_>, server: Server) -> anyhow::Result<()> {
    let mut gently = scene.random.chance(50);
    while scene.goes_on() {
        scene.pause(2_000, 4_000).await;
        match gently {
            true => scene.ground.stop(server).await?,
            false => scene.ground.crash(server).await?,
        }
        let how = if gently { "stopped" } else { "crashed" };
        scene.done.push(format!("{} {how}", server.label()));
        scene.pause(0, 3_000).await;
        if let Server::Kafka = server {
            // Who starts while the broker is away waits for it.
            let last = scene.town.members.len() - 1;
            scene.town.members[last].kill().await?;
            scene.town.members[last].spawn()?;
        }
        scene.ground.start(server).await?;
        gently = !gently;
        // Time to come to itself, so that something is under way at the next blow.
        scene.pause(3_000, 6_000).await;
    }
    Ok(())
}

/// A standby that lacks the last commits takes over: once, because there is one.
pub(super) async fn promote(scene: &mut Scene<'_>, run: &Run) -> anyhow::Result<()> {
    let half_ms = usize::try_from(scene.load.as_millis())? / 2;
    scene.pause(half_ms / 2, half_ms + 1).await;
    let address = scene.ground.promote().await?;
    run.promote();
    scene.town.proxy.as_ref().context("this case has a proxy")?.lead_to(&address);
    scene.done.push("the standby promoted, a second behind".to_owned());
    Ok(())
}
