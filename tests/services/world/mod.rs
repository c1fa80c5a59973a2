//! The worlds of `tests/world` over PostgreSQL and Kafka: the same cases, journeys and stories, the same checks. Shards are turned
//! by hand there as well; in between, the world waits for what is under way.

#![expect(dead_code, reason = "some of a world's parts are for its own tests")]

#[path = "../../world/act.rs"]
mod act;
#[path = "../../world/archive.rs"]
mod archive;
#[path = "../../world/books.rs"]
mod books;
#[path = "../../world/calls.rs"]
mod calls;
#[path = "../../world/check.rs"]
mod check;
#[path = "../../world/coverage.rs"]
mod coverage;
#[path = "../../world/fault.rs"]
mod fault;
#[path = "../../world/ground.rs"]
mod ground;
#[path = "../../world/hazards.rs"]
mod hazards;
#[path = "../../world/journey.rs"]
mod journey;
#[path = "../../world/network.rs"]
mod network;
#[path = "../../world/provider.rs"]
mod provider;
#[path = "../../world/random.rs"]
mod random;
mod real;
#[path = "../../world/rest.rs"]
mod rest;
#[path = "../../world/run.rs"]
mod run;
#[path = "../../world/story.rs"]
mod story;
#[path = "../../world/system.rs"]
mod system;
#[path = "../../world/template.rs"]
mod template;
#[path = "../../world/three_ways.rs"]
mod three_ways;
#[path = "../../world/walk.rs"]
mod walk;

use coverage::Met;
use endstate_outbox::fused::ROUNDS;
use ground::Grounds;
use real::Real;
use run::World;

/// Seeds that are told over real services; thousands are told on the embedded ones.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=2;

/// What a story told by hand stands on.
async fn home() -> Real {
    Real::new().await
}

/// One seed: chaos, then quiet.
async fn seed(seed: u64, grounds: &dyn Grounds) {
    let mut world = World::new(seed, None, grounds.fresh().await, Met::default()).await;
    world.open_shop().await;
    world.chaos().await;
    let open = world.quiet().await;
    walk::told(&world, world.check(&open).await).await;
}

#[tokio::test]
async fn each_step_over_postgres_and_kafka_is_told_twice_refused_lost_unknown_and_undone() {
    // They mostly wait for brokers and disks.
    let real = [Real::new().await, Real::new().await, Real::new().await];
    three_ways::play_all(&[&real[0], &real[1], &real[2]]).await;
    for one in real {
        one.close().await;
    }
}

#[tokio::test]
async fn every_journey_over_postgres_and_kafka_ends_and_the_books_balance() {
    let real = Real::new().await;
    for rounds in [None, Some(ROUNDS)] {
        walk::all_journeys(&real, rounds).await;
    }
    for seed in SEEDS {
        self::seed(seed, &real).await;
    }
    real.close().await;
}
