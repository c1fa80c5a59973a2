//! Processes that are killed, frozen, or come and go.

use super::Scene;
use crate::chaos::check;
use crate::chaos::town::SESSION;
use crate::demo::process::free_port;
use std::time::Duration;

/// Processes that are frozen at most until others have taken over from one.
const FREEZES: usize = 8;

/// Guests that are there at a time.
const GUESTS: usize = 3;

/// How long a guest may take to leave.
const LEAVE: Duration = Duration::from_secs(45);

/// SIGKILL, which no process sees coming, at any moment.
pub(super) async fn kill(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    while scene.goes_on() {
        scene.pause(500, 4_000).await;
        let victim = scene.random.below(scene.town.members.len());
        let name = scene.town.members[victim].name().to_owned();
        scene.town.members[victim].kill().await?;
        scene.done.push(format!("{name} killed"));
        scene.pause(0, 1_500).await;
        // Nobody waits: the next one is killed while this one may still be starting.
        scene.town.members[victim].spawn()?;
    }
    Ok(())
}

/// SIGSTOP in the middle of work, until others have taken over; then it wakes, and goes on as if nothing had been.
pub(super) async fn freeze(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let session_ms = usize::try_from(SESSION.as_millis())?;
    let store = check::store(scene.town).await?;
    let (mut blows, mut taken_over) = (0, false);
    // One that had no shard, or whose group was still busy with an earlier one, shows nothing.
    while scene.goes_on() || (!taken_over && blows < FREEZES) {
        blows += 1;
        scene.pause(300, 2_000).await;
        let before = check::epochs(&store).await?;
        // The first only takes calls.
        let victim = 1 + scene.random.below(scene.town.members.len() - 1);
        let member = &scene.town.members[victim];
        let name = member.name().to_owned();
        member.signal("STOP").await?;
        scene.pause(session_ms + 2_000, session_ms + 4_000).await;
        scene.town.members[victim].signal("CONT").await?;
        let taken = check::epochs(&store).await? - before;
        taken_over |= taken > 0;
        scene.done.push(format!("{name} frozen{}", if taken > 0 { ", others took over" } else { "" }));
    }
    anyhow::ensure!(taken_over, "nobody took over from {blows} frozen processes: that shows nothing");
    Ok(())
}

/// Processes join, and leave well or badly, while others still look for their place.
pub(super) async fn storm(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut guests = Vec::new();
    let mut number = 0;
    while scene.goes_on() {
        if guests.len() < GUESTS && (guests.is_empty() || scene.random.chance(60)) {
            number += 1;
            let roles = ["orchestrator,participants", "orchestrator", "participants"][scene.random.below(3)];
            let mut guest = scene.town.process(&format!("guest-{number}"), roles, free_port()?, &[])?;
            guest.spawn()?;
            guests.push(guest);
            scene.done.push("a process joined".to_owned());
        } else {
            let place = scene.random.below(guests.len());
            let mut guest = guests.swap_remove(place);
            if guest.has_ended() {
                scene.town.ended.push(format!("{} ended by itself:\n{}", guest.name(), guest.last_words()));
            }
            match scene.random.chance(50) {
                true => {
                    guest.kill().await?;
                    scene.done.push("a process was killed".to_owned());
                }
                false => {
                    if let Err(error) = guest.stop(LEAVE).await {
                        scene.town.ended.push(format!("{error:#}"));
                    }
                    scene.done.push("a process left".to_owned());
                }
            }
        }
        scene.pause(500, 3_000).await;
    }
    let leaving = guests.iter_mut().map(|guest| guest.stop(LEAVE));
    let left = futures_util::future::join_all(leaving).await;
    scene.town.ended.extend(left.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")));
    Ok(())
}
