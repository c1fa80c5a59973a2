//! How many sagas are in motion: counted along by the owner of a shard, and counted anew from the rows by its successor.

use crate::system::{System, job, odd_job, source};
use endstate_events::{Actor, Command, InputBody, Message, Reply, SagaId, Topic, Verdict};
use endstate_orchestrator::persist;
use endstate_saga::control::Phase;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Sagas of each definition, and how often something happens to some of them.
const SAGAS: usize = 32;
const ROUNDS: usize = 20;

/// Draws that are the same in every run.
struct Draws(u64);

impl Draws {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn verdict(&mut self, command: &Command) -> Verdict {
        match self.below(10) {
            0 => Verdict::Refused { code: "stock.short".to_owned(), detail: "drawn".to_owned() },
            1 => Verdict::unknown("drawn"),
            _ => {
                Verdict::Done { data: json!({ "payment_no": command.effect_id.to_string(), "pay_url": "http://p/1" }) }
            }
        }
    }
}

async fn begin(system: &mut System) -> Vec<SagaId> {
    for source in [source("refund_payment"), source("flash_sale_order"), source("bench_saga"), odd_job()] {
        system.definitions.load(&source, 0).await.unwrap();
    }
    let sample: Value = serde_json::from_str(&source("flash_sale_order").samples["at_order.json"]).unwrap();
    let (mut sagas, mut starts) = (Vec::new(), Vec::new());
    for n in 0..SAGAS {
        let mut order = sample["input"].clone();
        (order["order_no"], order["user_id"]) = (json!(format!("O-{n}")), json!(format!("u-{n}")));
        let bench = json!({ "number": format!("B-{n}"), "fail_at": "" });
        for (definition, input) in
            [("flash_sale_order", order), ("bench_saga", bench), ("odd_job", job(&format!("J-{n}")))]
        {
            let (saga, start) = system.start(definition, input);
            sagas.push(saga);
            starts.push(start);
        }
    }
    system.queue(&starts).await;
    system.run_until_idle().await;
    sagas
}

/// Both counts agree on every shard.
async fn agree(system: &System, round: usize) {
    for (index, shard) in system.shards.iter().enumerate() {
        let counted = persist::count_in_motion(&*system.store, index as u16).await.unwrap();
        assert_eq!(shard.handler().in_motion(), counted, "round {round}, shard {index}");
    }
}

#[tokio::test]
async fn z07_what_is_in_motion_is_counted_alike_by_an_owner_and_by_its_successor() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::open(folder.path(), 1_000).await;
    let sagas = begin(&mut system).await;
    let (mut draws, mut answered) = (Draws(7), BTreeSet::new());
    // Phases that were met, and those in which a command was under way though the saga was not in motion.
    let (mut met, mut apart) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..4 * ROUNDS {
        // Which saga meets what is drawn by their ids, too: a run that has met too little goes on.
        if round >= ROUNDS && met.len() == 5 && apart.contains(Phase::Parked.label()) {
            break;
        }
        let mut inputs = Vec::new();
        for message in system.to_participants().await {
            let Message::Command(command) = message else { continue };
            let (id, saga) = (command.effect_id.to_string(), command.saga());
            // Some answer twice, and not the same: their saga parks, whatever else is under way.
            let again = answered.contains(&id) && draws.below(12) == 0;
            if again || (draws.below(3) == 0 && answered.insert(id.clone())) {
                let verdict = draws.verdict(&command);
                let id = if again { format!("{id}/again/{round}") } else { id };
                let reply = InputBody::Reply(Reply { effect_id: command.effect_id, verdict });
                inputs.push(system.message(Topic::Progress, saga, id, reply));
            }
        }
        if round % 5 == 4 {
            let saga = sagas[draws.below(sagas.len() as u64) as usize];
            let actor = Actor { subject: "ann".to_owned(), role: "owner".to_owned() };
            let cancel = InputBody::Cancel { reason: "user".to_owned(), actor };
            inputs.push(system.message(Topic::Progress, saga, format!("cancel-{round}"), cancel));
        }
        system.queue(&inputs).await;
        system.clock.advance(draws.below(8_000) as i64);
        system.run_until_idle().await;
        agree(&system, round).await;
        for stored in persist::load_sagas(&*system.store, &sagas).await.unwrap() {
            let saga = stored.saga;
            let definition = system.definitions.get(&saga.definition, saga.definition_version).unwrap();
            let phase = saga.control.phase(definition.plan());
            met.insert(phase.label());
            if saga.control.is_in_motion() && !persist::is_in_motion(phase, stored.due_ms) {
                apart.insert(phase.label());
            }
        }
    }
    for phase in [Phase::Running, Phase::Waiting, Phase::Compensating, Phase::Parked, Phase::Ended] {
        assert!(met.contains(phase.label()), "{} was not met: {met:?}", phase.label());
    }
    assert!(apart.contains(Phase::Parked.label()), "the counts could not have differed: {apart:?}");
    // A successor counts what the rows say.
    let before: Vec<_> = system.shards.iter().map(|shard| shard.handler().in_motion()).collect();
    drop(system);
    let mut successor = System::open(folder.path(), 1_000).await;
    let now_ms = endstate_outbox::Clock::now_ms(&*successor.clock);
    assert!(now_ms <= 1_700_000_000_000, "no timer is due again");
    successor.run_until_idle().await;
    let after: Vec<_> = successor.shards.iter().map(|shard| shard.handler().in_motion()).collect();
    assert_eq!(before, after);
}
