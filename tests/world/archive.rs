//! The archive on the integrated system: what it deletes nobody misses, and what comes after all is kept.

use super::ground::Grounds as _;
use super::hazards::{ORPHANS, settled, status_of, world};
use super::home;
use super::journey::Act;
use super::provider::NAME;
use super::story::{order, pays};
use super::system::SHARDS;
use async_trait::async_trait;
use endstate_events::{Lane, MinorUnits, SagaId};
use endstate_orchestrator::archive::{Archive, Holders};
use endstate_orchestrator::job::Job as _;
use endstate_orchestrator::view::Projector;
use endstate_outbox::{Store, StoreError};
use endstate_participants::holding;
use endstate_participants::payment::Captured;
use std::sync::Arc;

/// What the participants really hold, for the archive.
struct Holding(Arc<dyn Store>);

#[async_trait]
impl Holders for Holding {
    async fn holding(&self, sagas: &[SagaId]) -> Result<Vec<SagaId>, StoreError> {
        holding::of(&*self.0, sagas).await
    }
}

#[tokio::test]
async fn z12_money_for_an_archived_order_is_kept_and_the_books_hold() {
    let home = home().await;
    let mut world = world(&home, vec![order("Z12", "ann", 100, vec![(0, pays(1))])], 4096).await;
    world.orders[0].acts.truncate(1);
    while world.step().await {}
    let seen = world.find("flash_sale_order", "Z12").expect("it waits for its payment");
    let store = world.system.store();
    assert_eq!(holding::of(&*store, &[seen.id]).await.expect("effects are read"), [seen.id]);
    world.orders[0].acts.push_back(Act { after_ms: 0, doing: pays(1) });
    assert_eq!(status_of(&settled(&mut world).await, "flash_sale_order", "Z12"), "completed");
    assert_eq!(holding::of(&*store, &[seen.id]).await.expect("effects are read"), []);

    let books = endstate_participants::books::read(&*store).await.expect("books are read");
    let (definitions, clock) = (world.system.definitions.clone(), world.system.clock.clone());
    let mut projector = Projector::open(store.clone(), definitions, clock).await.expect("it opens");
    while projector.look().await.expect("it looks") {}
    world.system.clock.advance(31 * 24 * 3_600_000);
    let archive = Archive::new(store.clone(), Arc::new(Holding(store.clone())), 30 * 24 * 3_600_000, 10);
    assert_eq!(archive.run(world.system.now_ms(), false).await.expect("it runs").changed, 1);
    assert!(world.system.sagas().await.is_empty());

    let captured = Captured {
        provider: NAME.to_owned(),
        provider_no: "P-late".to_owned(),
        amount_minor: MinorUnits::new(50_000).expect("a small amount"),
        currency: "CNY".to_owned(),
        saga: seen.id,
    };
    world.system.produce(vec![captured.message(Lane::Live, SHARDS, world.system.now_ms())]).await;
    // Days later the self-check of holds goes round once more.
    while world.step().await {}
    assert_eq!(world.system.read(&ORPHANS).await[0][0].id(), Some(seen.id.0));
    assert_eq!(endstate_participants::books::read(&*store).await.expect("books are read"), books);
    assert!(books.iter().all(|book| book.balanced));
    home.close().await;
}
