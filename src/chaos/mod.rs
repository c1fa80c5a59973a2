//! `endstate chaos`: faults on real parts under load, and the books afterwards.
//!
//! - [`ground`]: the PostgreSQL and the Kafka it runs on, and what it may do to them
//! - [`town`]: a database, an environment and processes of a case's own, and the payment provider beside them
//! - [`proxy`]: a way to the database that can be cut
//! - [`operator`]: a person who looks at what is parked
//! - [`load`]: buyers and small sagas, driven over HTTP until each has its end
//! - [`case`]: what goes wrong; [`cases`] does it
//! - [`check`]: what must be true afterwards; when a standby was promoted, [`anew`]: what may be decided otherwise, and
//!   [`twice`]: what money may do
//! - [`report`]: a line per case

mod anew;
mod case;
mod cases;
mod check;
mod ground;
mod load;
mod operator;
mod proxy;
mod report;
mod town;
mod twice;

use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::demo::random::Random;
use crate::signal::Stop;
use anyhow::Context as _;
use case::Case;
use ground::Ground;
use load::Load;
use report::{Ended, Report};
use rustc_hash::FxHasher;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use town::Town;

/// Load of a case at least, whatever `--seconds` leaves it: a session must be able to end in it.
const LEAST: Duration = Duration::from_secs(10);

/// How long a case may take beside its load: starting, healing, waiting for the last saga, stopping.
const HEALING: Duration = Duration::from_secs(400);

/// What to do to whom.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    scripts/services run --only postgres,kafka -- endstate chaos\n  \
    scripts/services run --only postgres,kafka -- endstate chaos --case kill --seconds 60 --seed 7\n  \
    scripts/services run --only postgres,kafka -- endstate chaos --seconds 1800 -o json\n\n\
    docs/chaos.md lists the cases, and tells how to read what it prints.")]
pub(crate) struct ChaosArgs {
    /// Seconds of load, divided over the cases; each has at least ten. Starting and healing come on top.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Seed of the load and of what goes wrong when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this case; repeat for several. Without it, all that can be run here.
    #[arg(long = "case", value_enum, value_name = "NAME")]
    cases: Vec<Case>,
    /// Both sides of a shard in one transaction (engine.mode = "fused").
    #[arg(long)]
    fused: bool,
    /// Only cases that leave the servers alone.
    #[arg(long, conflicts_with = "cases")]
    quick: bool,
    /// Orders a second, and as many small sagas.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=200))]
    rate: u64,
    /// Server to make databases on: postgres://USER:PASSWORD@HOST:PORT/ANY.
    #[arg(long, env = "ENDSTATE_TEST_POSTGRES", hide_env_values = true, value_name = "URL")]
    postgres: String,
    /// Brokers to make topics on, `host:port` separated by commas.
    #[arg(long, env = "ENDSTATE_TEST_KAFKA", value_name = "BROKERS")]
    kafka: String,
    /// Script that stops and starts these very servers, if nobody else uses them; `scripts/services run` sets it.
    #[arg(long, env = "ENDSTATE_TEST_SERVICES", requires = "services_data", value_name = "SCRIPT")]
    services: Option<PathBuf>,
    /// The script's data folder.
    #[arg(long, env = "ENDSTATE_TEST_SERVICES_DATA", value_name = "DIR")]
    services_data: Option<PathBuf>,
    /// Keep logs, provider's files and journals in this folder; otherwise those of failed cases are kept.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// What a case is given.
pub(crate) struct Plan {
    /// How long buyers come.
    load: Duration,
    /// Orders a second, and as many small sagas.
    rate: u64,
    seed: u64,
    /// The engine's mode.
    fused: bool,
}

/// Runs the cases one after the other; a failure when one did not end well.
pub(crate) async fn run(args: ChaosArgs, output: Output) -> Result<(), Failure> {
    let ground = Ground::of(&args)?;
    let cases = chosen(&args, &ground)?;
    let load = Duration::from_secs(args.seconds) / u32::try_from(cases.len()).unwrap_or(1).max(1);
    let plan = Plan { load: load.max(LEAST), rate: args.rate, seed: args.seed, fused: args.fused };
    let folder = match &args.keep {
        Some(folder) => folder.clone(),
        None => tempfile::Builder::new().prefix("endstate-chaos-").tempdir().map_err(anyhow::Error::from)?.keep(),
    };
    let (started, mut asked) = (Instant::now(), Stop::listen());
    let all = async {
        let mut ended = Vec::new();
        for case in cases {
            ended.push(one(case, &ground, &plan, &folder.join(case.label()), args.keep.is_some()).await);
        }
        ended
    };
    let ended = tokio::select! {
        ended = all => ended,
        // What was started ends with the future that owns it.
        () = asked.asked() => return Err(Failure::no("stopped before the last case had ended")),
    };
    // Gone when every case ended well.
    std::fs::remove_dir(&folder).ok();
    let report = Report { ended: &ended, seconds: started.elapsed().as_secs_f64(), plan: &plan, folder: &folder };
    output.print(&report.json(), |_| report.text())?;
    report.verdict()
}

/// The cases to run: those that are named, or all that can be run here.
fn chosen(args: &ChaosArgs, ground: &Ground) -> Result<Vec<Case>, Failure> {
    let barred = |case: &Case| case.hurts_servers() && !ground.is_ours();
    if let Some(case) = args.cases.iter().find(|case| barred(case)) {
        let hint = "scripts/services run --only postgres,kafka -- endstate chaos ... gives it servers of its own";
        return Err(
            Failure::usage(format!("{} stops the servers, and these may be somebody else's", case.label())).hint(hint)
        );
    }
    if !args.cases.is_empty() {
        return Ok(args.cases.clone());
    }
    let (run, left): (Vec<Case>, Vec<Case>) =
        Case::ALL.into_iter().partition(|case| !(barred(case) || args.quick && case.hurts_servers()));
    if !left.is_empty() {
        let left: Vec<&str> = left.iter().map(|case| case.label()).collect();
        eprintln!("left out, because they stop the servers: {}", left.join(", "));
    }
    Ok(run)
}

/// One case, whatever becomes of it.
async fn one(case: Case, ground: &Ground, plan: &Plan, folder: &Path, keep: bool) -> Ended {
    let started = Instant::now();
    eprintln!("{}: {}", case.label(), case.about());
    let mut ended = Ended::new(case);
    let limit = plan.load + HEALING;
    match tokio::time::timeout(limit, act(case, ground, plan, folder, &mut ended)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => ended.wrong.push(format!("{error:#}")),
        Err(_) => ended.wrong.push(format!("it was not over after {limit:?}")),
    }
    // Servers that a failed case left stopped would fail all that come after it.
    if let Err(error) = ground.heal().await {
        ended.wrong.push(format!("the servers were not started again: {error:#}"));
    }
    ended.seconds = started.elapsed().as_secs_f64();
    if ended.wrong.is_empty() && !keep {
        std::fs::remove_dir_all(folder).ok();
    }
    eprintln!("{}", ended.line());
    ended
}

async fn act(case: Case, ground: &Ground, plan: &Plan, folder: &Path, ended: &mut Ended) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut hasher = FxHasher::default();
    (plan.seed, case.label()).hash(&mut hasher);
    let random = Random::new(hasher.finish());
    let mut town = Town::found(ground, case, folder, plan).await?;
    if case == Case::Standby {
        // It takes its time, which is none of the load's.
        ground.standby().await?;
    }
    town.start().await?;
    let load = Arc::new(Load::open(case, &town.gateways, plan, &random).await?);
    let (told, faults) = tokio::select! {
        done = async { tokio::try_join!(load.drive(), cases::act(case, &mut town, ground, &load, plan, random)) } => done?,
        () = say(case, &load) => unreachable!("lines are written until dropped"),
        error = operator::work(&load), if case.needs_operator() => return Err(error),
    };
    if faults.is_empty() {
        ended.wrong.push("nothing went wrong: a case that does nothing shows nothing".to_owned());
    }
    ended.faults = faults;
    town.heal().await?;
    ended.count(&told);
    ended.wrong.append(&mut town.ended);
    let (wrong, expected) = tokio::select! {
        found = check::after(case, &town, &load, &told) => found?,
        error = operator::work(&load), if case.needs_operator() => return Err(error),
    };
    ended.wrong.extend(wrong);
    ended.faults.extend(expected);
    ended.wrong.extend(town.stop().await);
    if ended.wrong.is_empty() {
        // A broker that is killed in a later case would have all of them to recover.
        let wiped = cases::raw(&town, ground)?.wipe().await;
        wiped.unwrap_or_else(|error| eprintln!("{}: its topics stay: {error}", case.label()));
    }
    Ok(())
}

/// A line now and then, until dropped.
async fn say(case: Case, load: &Load) {
    let started = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        eprintln!("{}: {:>3} s, {}", case.label(), started.elapsed().as_secs(), load.progress());
    }
}
