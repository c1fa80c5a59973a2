//! What strangers and faults may leave on the broker: records twice, out of order, unreadable, too large, of another
//! environment; and positions of the groups, moved.

use super::Scene;
use crate::chaos::town::{PARTITIONS, Town};
use anyhow::anyhow;
use endstate_events::{Side, Topic};
use endstate_outbox::kafka::raw::{Place, RawRecord};
use std::time::Duration;

/// Topics whose records decide something.
const TOPICS: [Topic; 3] = [Topic::Start, Topic::Progress, Topic::Commands];

/// Records of a partition that are looked at.
const LAST: usize = 20;

/// As large as a topic takes, and more than any message of ours.
const HUGE: usize = 1_040_000;

/// How long a process may take to stop.
const STOP: Duration = Duration::from_secs(45);

/// Tells real records again, mangles them, and adds nonsense.
pub(super) async fn inject(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let raw = super::raw(scene.town, scene.ground)?;
    while scene.goes_on() {
        scene.pause(100, 900).await;
        let (topic, partition) = (TOPICS[scene.random.below(3)], scene.random.below(usize::from(PARTITIONS)) as u16);
        let mut found = raw.read(topic, partition, LAST).await.map_err(|error| anyhow!(error))?;
        found.retain(|record| is_genuine(record, &scene.town.environment));
        let (records, what, unreadable) = tampered(scene, found);
        let sent = records.len();
        raw.send(topic, partition, records).await.map_err(|error| anyhow!(error))?;
        if sent > 0 {
            scene.town.dead_letters += unreadable;
            scene.done.push(what.to_owned());
        }
    }
    Ok(())
}

/// Whether nobody has tampered with it: what is sent twice must not be one more unreadable record.
fn is_genuine(record: &RawRecord, environment: &str) -> bool {
    let ours = |(name, value): &(String, Vec<u8>)| name == "ce_environment" && value == environment.as_bytes();
    record.headers.iter().any(ours) && serde_json::from_slice::<serde_json::Value>(&record.payload).is_ok()
}

/// What to send, how it is called, and how many of them cannot be read.
fn tampered(scene: &mut Scene<'_>, mut found: Vec<RawRecord>) -> (Vec<RawRecord>, &'static str, usize) {
    let nonsense =
        |bytes: usize| RawRecord { key: Some(b"nobody".to_vec()), payload: vec![b'x'; bytes], headers: vec![] };
    let kind = scene.random.below(6);
    let picked = if found.is_empty() { None } else { Some(found[scene.random.below(found.len())].clone()) };
    match (kind, picked) {
        (1, _) => {
            scene.random.shuffle(&mut found);
            found.truncate(LAST / 2);
            (found, "records sent out of order", 0)
        }
        (2, _) => (vec![nonsense(64)], "a record without sense", 1),
        (3, _) => (vec![nonsense(HUGE)], "a huge record without sense", 1),
        (4, Some(mut record)) => {
            record.payload.truncate(record.payload.len() / 2);
            (vec![record], "a record cut in half", 1)
        }
        (5, Some(mut record)) => {
            let named = |header: &&mut (String, Vec<u8>)| header.0 == "ce_environment";
            record.headers.iter_mut().filter(named).for_each(|header| header.1 = b"somebody-else".to_vec());
            (vec![record], "a record of another environment", 1)
        }
        _ => (found, "records sent twice", 0),
    }
}

/// While nobody is in the groups, their positions are moved.
pub(super) async fn move_groups(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let raw = super::raw(scene.town, scene.ground)?;
    let mut place = Place::Beginning;
    while scene.goes_on() {
        scene.pause(2_000, 4_000).await;
        // The first only takes calls, and is in no group.
        let stopping = scene.town.members[1..].iter_mut().map(|member| member.stop(STOP));
        for stopped in futures_util::future::join_all(stopping).await {
            stopped?;
        }
        for side in [Side::Orchestrator, Side::Participants] {
            raw.move_group(side, PARTITIONS, place).await.map_err(|error| anyhow!("moving a group: {error}"))?;
        }
        let to = if place == Place::Beginning { "the beginning" } else { "the end" };
        scene.done.push(format!("both groups moved to {to}"));
        place = if place == Place::Beginning { Place::End } else { Place::Beginning };
        for member in &mut scene.town.members[1..] {
            member.spawn()?;
        }
        scene.town.ready().await?;
    }
    Ok(())
}

/// Processes of another environment on the same servers, and some that are set up wrong.
pub(super) async fn strangers(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let other = || format!("{}-x", &scene.town.environment[..scene.town.environment.len().min(30)]);
    let (environment, everything) = (other(), "gateway,orchestrator,participants,sweeper");
    let database = scene.ground.database(&environment.replace('-', "_"));
    let own = [("ENDSTATE_ENVIRONMENT", environment.clone()), ("ENDSTATE_STORE_URL", database)];
    let port = crate::demo::process::free_port()?;
    let mut stranger = scene.town.process("stranger", everything, port, &own)?;
    stranger.start().await?;
    scene.done.push("another environment beside it".to_owned());
    let wrong = [
        ("of another environment", ("ENDSTATE_ENVIRONMENT", environment.clone())),
        ("with other partitions", ("ENDSTATE_ENGINE_PARTITIONS", (PARTITIONS * 2).to_string())),
    ];
    for (how, variable) in wrong {
        refused(scene.town, how, variable, None).await?;
        scene.done.push(format!("a process {how} was refused"));
    }
    let second = ("ENDSTATE_STORE_URL", scene.ground.database(&format!("{}_second", environment.replace('-', "_"))));
    refused(scene.town, "with another database", second, Some("E4068")).await?;
    scene.done.push("a process with another database was refused".to_owned());
    while scene.goes_on() {
        scene.pause(200, 500).await;
    }
    stranger.stop(STOP).await
}

/// A process of the town's own but for a variable, that must end by itself and not well, and say so.
async fn refused(town: &Town, how: &str, variable: (&'static str, String), code: Option<&str>) -> anyhow::Result<()> {
    let port = crate::demo::process::free_port()?;
    let mut process = town.process("refused", "orchestrator,participants", port, &[variable])?;
    process.spawn()?;
    let ended = process.ended_within(STOP).await?;
    let said = process.last_words();
    let refused = ended == Some(false) && code.is_none_or(|code| said.contains(code));
    anyhow::ensure!(refused, "a process {how} was not refused:\n{said}");
    Ok(())
}
