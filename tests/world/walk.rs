//! Every journey in one world that has no faults.

use super::check::Fault;
use super::ground::Grounds;
use super::journey::{self, JOURNEYS, Shelf};
use super::random::Random;
use super::run::World;

/// People walk all journeys at once: who pays, pays twice, late or wrong, lets it lapse, cancels, wants a refund, and the
/// rest. Every order ends, and everything adds up. `rounds`: of a transaction in fused mode.
pub(crate) async fn all_journeys(grounds: &dyn Grounds, rounds: Option<usize>) {
    let mut random = Random::new(7);
    let users: Vec<_> = (0..6).map(|n| (format!("user-{n}"), 900)).collect();
    let coupons = (0..8).map(|n| (format!("coupon-{n}"), users[n % users.len()].0.clone())).collect();
    let shelf = Shelf { units: (0..5).map(|n| (format!("unit-{n}"), 200, 10)).collect(), users, coupons };
    let orders: Vec<_> =
        (0..).zip(JOURNEYS).map(|(n, journey)| journey::order(n, journey, &shelf, &mut random)).collect();
    let count = orders.len();
    let mut world = World::calm(shelf, orders, (4096, rounds), grounds.fresh().await).await;
    world.open_shop().await;
    let open = world.quiet().await;
    told(&world, world.check(&open).await).await;
    assert!(world.seen.len() >= count, "{} sagas of {count} orders", world.seen.len());
}

/// Panics with all that happened when something is wrong.
pub(crate) async fn told(world: &World, checked: Result<(), Fault>) {
    if let Err(Fault { saga, text }) = checked {
        let trace = match saga {
            Some(saga) => world.trace(saga).await,
            None => String::new(),
        };
        panic!("{text}\n{}\n{trace}", world.journal.join("\n"));
    }
}
