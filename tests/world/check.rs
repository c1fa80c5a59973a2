//! What must be true when all is quiet: the books of the provider, of the ledger and of the sagas agree, and the rows
//! are what their events say.

use super::books::Books;
use super::coverage::met;
use super::fault::POISON;
use super::run::World;
use endstate_events::{EffectId, SagaId};
use endstate_orchestrator::persist;
use endstate_outbox::{Kind, Statement, Value, dead_letter};
use endstate_saga::control::{Control, Outcome, apply_to};
use endstate_saga::event::{Event, Fact};
use endstate_saga::saga::Saga;
use endstate_saga::{fold, invariant};
use std::collections::BTreeMap;

static OPEN_EFFECTS: Statement = Statement {
    name: "world.open_effects",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select e.id, e.state from r cross join effect e where e.state in ('held', 'calling') \
          union all select c.id, 'call' from r cross join call c",
};
static REFUSALS: Statement = Statement {
    name: "world.refusals",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select e.participant, e.code from r cross join effect e where e.code is not null",
};
pub(crate) static EVENTS: Statement = Statement {
    name: "world.events",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select e.shard, e.seq, e.saga, e.version, e.events, e.body \
          from r cross join event e order by e.shard, e.seq",
};
static ORPHANS: Statement = Statement {
    name: "world.orphans",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select o.body from r cross join orphan o",
};
static SHARD_ROWS: Statement = Statement {
    name: "world.shards",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select s.side, s.shard, s.position_start, s.position_progress, s.next_seq \
          from r cross join shard s",
};
/// What is wrong, and with which saga.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) saga: Option<SagaId>,
    pub(crate) text: String,
}

pub(crate) type Check = Result<(), Fault>;

pub(crate) fn fault(saga: impl Into<Option<SagaId>>, text: String) -> Fault {
    Fault { saga: saga.into(), text }
}

pub(crate) fn text(value: &Value) -> String {
    value.text().unwrap_or_default().to_owned()
}

pub(crate) fn int(value: &Value) -> i64 {
    value.int().unwrap_or_default()
}

impl World {
    /// All checks.
    pub(crate) async fn check(&self, open: &[super::system::Seen]) -> Check {
        if let Some(open) = open.first() {
            return Err(fault(open.id, format!("a saga has not ended: {open:?}")));
        }
        let books = self.books().await;
        self.check_rows(&books).await?;
        self.check_leftovers(&books).await?;
        self.check_accounts(&books).await?;
        self.check_money(&books)?;
        self.check_stock(&books)?;
        self.check_points(&books)?;
        self.check_coupons(&books).await?;
        self.check_positions().await
    }

    /// Each row is what its events say; each event and each rest keeps the invariants.
    async fn check_rows(&self, books: &Books) -> Check {
        let mut next_seq: BTreeMap<i64, i64> = BTreeMap::new();
        let mut histories: BTreeMap<SagaId, Vec<Vec<Event>>> = BTreeMap::new();
        for row in self.system.read(&EVENTS).await {
            let id = SagaId(row[2].id().expect("events have a saga"));
            let seq = next_seq.entry(int(&row[0])).or_insert(1);
            if int(&row[1]) != *seq {
                return Err(fault(id, format!("shard {} has seq {} where {seq} belongs", int(&row[0]), int(&row[1]))));
            }
            *seq += 1;
            let events: Vec<Event> = serde_json::from_str(&text(&row[5])).expect("events can be read");
            let history = histories.entry(id).or_default();
            let version: usize = history.iter().map(Vec::len).sum();
            if (int(&row[3]), int(&row[4])) != (version as i64, events.len() as i64) {
                return Err(fault(id, format!("its events say version {} where {version} belongs", int(&row[3]))));
            }
            history.push(events);
        }
        for (id, saga) in &books.sagas {
            let Some(history) = histories.remove(id) else { return Err(fault(*id, "it has no events".to_owned())) };
            self.check_history(saga, &history)?;
        }
        match histories.into_keys().next() {
            Some(id) => Err(fault(id, "it has events and no row".to_owned())),
            None => Ok(()),
        }
    }

    fn check_history(&self, saga: &Saga, history: &[Vec<Event>]) -> Check {
        let definition = self.system.definitions.get(&saga.definition, saga.definition_version);
        let definition = definition.expect("its definition is loaded");
        let plan = definition.plan();
        let mut control = Control::default();
        for batch in history {
            for event in batch {
                met(&self.coverage, "fact", event.fact.label());
                if let Fact::RunRefused { code, .. } = &event.fact {
                    met(&self.coverage, "refusal", code);
                }
                if let Fact::TurnedBack { reversal, reason } = &event.fact {
                    met(&self.coverage, if *reversal { "reversed for" } else { "cancelled for" }, reason);
                }
                let Some(fact) = event.fact.control() else { continue };
                let before = control;
                apply_to(&mut control, &fact);
                if let Some(broken) = invariant::broken_by(plan, &before, &fact, &control) {
                    return Err(fault(saga.id, format!("{} broken by {fact:?}: {}", broken.id, broken.says)));
                }
            }
            if let Some(broken) = invariant::broken_at_rest(plan, &control) {
                return Err(fault(saga.id, format!("{} broken at rest: {}", broken.id, broken.says)));
            }
        }
        let replayed = fold::replay(history.iter().flatten());
        if replayed.as_ref() != Some(saga) {
            return Err(fault(saga.id, format!("replay gives another row:\n{replayed:?}\n{saga:?}")));
        }
        let outcome = saga.control.outcome().map_or("open", Outcome::label);
        met(&self.coverage, "outcome", &format!("{} {outcome}", saga.definition));
        Ok(())
    }

    /// Nothing was put aside without a reason that the world knows; nothing is held or called any more.
    async fn check_leftovers(&self, books: &Books) -> Check {
        if let Some(row) = self.system.read(&ORPHANS).await.first() {
            return Err(fault(None, format!("an input found no saga: {}", text(&row[0]))));
        }
        for letter in dead_letter::list(&*self.system.store(), 0, 1000).await.expect("letters can be read") {
            let cured = letter.letter.reason == POISON && letter.replayed_ms.is_some();
            // The gateway lets no NUL in; who passes it by finds that PostgreSQL holds none.
            let unholdable = letter.letter.bytes.contains("\\u0000");
            let explained = cured || unholdable;
            if !explained {
                return Err(fault(
                    None,
                    format!("unexplained dead letter: {}: {}", letter.letter.reason, letter.letter.bytes),
                ));
            }
            met(&self.coverage, "dead_letter", if cured { POISON } else { "unholdable" });
        }
        for (saga, kind) in &books.discrepancies {
            met(&self.coverage, "discrepancy", kind);
            let exact = saga.and_then(|saga| books.sagas.get(&saga)).is_none_or(|saga| {
                let forced = saga.control.outcome() == Some(Outcome::Forced);
                // A letter after the end is told, whatever it said.
                !forced && self.find_journey(&saga.number) != "job_lies" && kind != "dead_letter"
            });
            if exact {
                return Err(fault(*saga, format!("a discrepancy of a saga that nobody forced: {kind}")));
            }
        }
        for row in self.system.read(&OPEN_EFFECTS).await {
            let id: Option<EffectId> = text(&row[0]).parse().ok();
            let saga = id.and_then(|id| books.sagas.get(&id.saga));
            // An operator's end leaves what did not answer, and says so in a discrepancy.
            if saga.is_none_or(|saga| saga.control.outcome() != Some(Outcome::Forced)) {
                return Err(fault(saga.map(|saga| saga.id), format!("still {}: {}", text(&row[1]), text(&row[0]))));
            }
        }
        for row in self.system.read(&REFUSALS).await {
            met(&self.coverage, "participant refuses", &format!("{} {}", text(&row[0]), text(&row[1])));
        }
        for answer in self.asked.iter().filter_map(|waiting| waiting.latest()) {
            met(&self.coverage, "denied", answer.as_ref().err().map_or("no", endstate_saga::decide::Denied::label));
        }
        Ok(())
    }

    fn find_journey(&self, number: &str) -> &'static str {
        self.orders.iter().find(|order| order.number == number).map_or("", |order| order.journey)
    }

    /// Everything queued was read, offsets have no gap, and no shard has given a number that no event has.
    async fn check_positions(&self) -> Check {
        let ends = self.system.ends().await?;
        let rows = self.system.read(&EVENTS).await;
        for row in self.system.read(&SHARD_ROWS).await {
            let (side, shard) = (text(&row[0]), int(&row[1]));
            let topics: &[(&str, usize)] =
                if side == "participants" { &[("commands", 3)] } else { &[("start", 2), ("progress", 3)] };
            for (topic, column) in topics {
                let end = ends.get(&((*topic).to_owned(), shard)).copied().unwrap_or(0);
                if int(&row[*column]) != end {
                    return Err(fault(
                        None,
                        format!("{side}/{shard} stands at {} of {end} in {topic}", int(&row[*column])),
                    ));
                }
            }
            let events = rows.iter().filter(|event| side == "orchestrator" && int(&event[0]) == shard).count() as i64;
            if int(&row[4]) != events + 1 {
                return Err(fault(None, format!("{side}/{shard} gives {} next after {events} rows", int(&row[4]))));
            }
        }
        Ok(())
    }

    /// All that happened to one saga, for people.
    pub(crate) async fn trace(&self, saga: SagaId) -> String {
        let timeline = persist::load_timeline(&*self.system.store(), saga).await.unwrap_or_default();
        let lines = timeline.iter().flat_map(|(_, _, events)| events);
        lines.map(|event| format!("{:>9} {:?}\n", event.at_ms - super::system::BEGIN_MS, event.fact)).collect()
    }
}
