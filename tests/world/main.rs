//! The seeded world: thousands of small worlds, each drawn from its seed and replayable by it. A world has the real
//! store, the real shards of both sides, shipped definitions and 26 sagas with customers, a payment provider, risk
//! control, a warehouse and operators; commits fail or lose their answers, messages come twice, late, in another order
//! or never, processes crash and the clock jumps. Every second world runs fused. Then the faults stop, and everything must add up.
//!
//! `WORLD_SEED=N cargo test --test world` runs one seed again and prints its journal; `WORLD_SEEDS=N` runs that many.
//!
//! Modules in reading order:
//! - [`run`]: one seed: chaos, then quiet
//! - [`journey`], [`act`]: what people do
//! - [`provider`], [`calls`]: what outside parties do
//! - [`fault`], [`network`]: what the store and the network do
//! - [`check`], [`books`]: what must be true at the end
//! - [`coverage`]: what the seeds have met
//! - [`system`], [`ground`], [`template`], [`random`]: what they stand on
//! - [`story`], [`hazards`], [`archive`]: stories told by hand
//! - [`fused`]: the same orders hop by hop and fused
//! - [`walk`]: every journey without faults
//! - [`three_ways`]: each step of each definition told twice, refused, undone

mod rest;
mod run;
mod journey;
mod act;
mod provider;
mod calls;
mod fault;
mod network;
mod check;
mod books;
mod coverage;
mod system;
mod ground;
mod template;
mod random;
mod story;
mod hazards;
mod fused;
mod walk;
mod three_ways;
mod archive;

use check::{EVENTS, Fault};
use coverage::{Coverage, Met};
use ground::Grounds as _;
use run::World;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use template::Templates;

/// What a story told by hand stands on; `tests/services/world` tells the same ones over PostgreSQL and Kafka.
async fn home() -> template::Template {
    template::Template::make().await
}

/// Seeds of a run without `WORLD_SEEDS`, for a developer who waits; CI runs 2,000.
const SEEDS: u64 = 200;

/// One of this many seeds is run twice, to show that a seed is one history.
const TWICE: u64 = 50;

/// What a seed leaves: its coverage, and everything that happened as one text.
struct History {
    coverage: Coverage,
    trace: String,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Runs one seed; an error is the report of what is wrong with it.
fn run(seed: u64, templates: &Templates) -> Result<History, String> {
    let (template, rounds) = templates.of(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let met = Met::default();
        let mut world = World::new(seed, rounds, template.fresh().await, Arc::clone(&met)).await;
        world.open_shop().await;
        world.chaos().await;
        let open = world.quiet().await;
        let checked = world.check(&open).await;
        if let Err(Fault { saga, text }) = checked {
            let trace = match saga {
                Some(saga) => world.trace(saga).await,
                None => String::new(),
            };
            return Err(format!("WORLD_SEED={seed}\n{text}\n{}\nsaga {saga:?}:\n{trace}", world.journal.join("\n")));
        }
        let events = world.system.read(&EVENTS).await;
        let trace = format!("{}\n{events:?}", world.journal.join("\n"));
        let coverage = met.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(History { coverage, trace })
    })
}

/// Runs `seeds` on all cores; returns what they met, and the first failure.
fn run_all(seeds: u64) -> (Coverage, Option<String>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let templates = runtime.block_on(Templates::make());
    let (next, all, failed) = (AtomicU64::new(1), Mutex::new(Coverage::default()), Mutex::new(None));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let failed = || failed.lock().unwrap_or_else(PoisonError::into_inner);
            if seed > seeds || failed().is_some() {
                return;
            }
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_checked(seed, &templates)));
            let result = result.unwrap_or_else(|_| Err(format!("WORLD_SEED={seed}\nit panicked, see above")));
            match result {
                Ok(history) => all.lock().unwrap_or_else(PoisonError::into_inner).merge(&history.coverage),
                Err(report) => *failed() = Some(report),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let coverage = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    (coverage, failed.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn run_checked(seed: u64, templates: &Templates) -> Result<History, String> {
    let history = run(seed, templates)?;
    if seed.is_multiple_of(TWICE) {
        let again = run(seed, templates)?;
        if again.trace != history.trace {
            let differ = history.trace.lines().zip(again.trace.lines()).find(|(a, b)| a != b);
            return Err(format!("WORLD_SEED={seed}\nrun twice, it is two histories: {differ:?}"));
        }
    }
    Ok(history)
}

#[test]
fn every_order_reaches_its_end_and_the_books_balance() {
    if let Some(seed) = number("WORLD_SEED") {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let templates = runtime.block_on(Templates::make());
        match run(seed, &templates) {
            Ok(history) => println!(
                "{}\n{}",
                history.trace.lines().filter(|l| l.len() < 2000).collect::<Vec<_>>().join("\n"),
                history.coverage
            ),
            Err(report) => panic!("{report}"),
        }
        return;
    }
    let seeds = number("WORLD_SEEDS").unwrap_or(SEEDS);
    let begin = std::time::Instant::now();
    let (coverage, failed) = run_all(seeds);
    if let Some(report) = failed {
        panic!("{report}");
    }
    println!("{seeds} seeds in {:?}\n{coverage}", begin.elapsed());
    for (kind, names) in [
        ("fault", &fault::FAULTS[..]),
        ("fused", &fault::FUSED),
        ("event", &run::EVENTS),
        ("outside", &provider::ANSWERS),
        ("journey", &journey::JOURNEYS),
        ("fact", &coverage::FACTS),
        ("denied", &coverage::DENIED),
        ("refusal", &coverage::REFUSALS),
    ] {
        let missing = coverage.missing(kind, names);
        // A few seeds cannot meet everything; those of CI must.
        assert!(seeds < 500 || missing.is_empty(), "never met: {kind} {missing:?}");
    }
}

#[tokio::test]
async fn each_step_is_told_twice_refused_lost_unknown_and_undone_twice_and_before_it_is_done() {
    three_ways::play_all(&[&template::Template::make().await]).await;
}

#[tokio::test]
async fn every_journey_ends_and_the_books_balance() {
    walk::all_journeys(&template::Template::make().await, None).await;
}
