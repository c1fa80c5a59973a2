//! The servers themselves: stopped as their operator would, or as a crash would, and started again.

use super::Scene;
use crate::chaos::ground::Server;

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
        scene.ground.start(server).await?;
        gently = !gently;
        // Time to come to itself, so that something is under way at the next blow.
        scene.pause(3_000, 6_000).await;
    }
    Ok(())
}
