//! How the acts of a journey become inputs.

use super::coverage::met;
use super::fault::POISON;
use super::journey::{Doing, Order};
use super::run::World;
use super::system::Seen;
use endstate_events::{Actor, Direction, EffectId, InputBody, Json, Lane, Message, Operation, Reply, SagaId, Verdict};
use endstate_orchestrator::persist;
use endstate_outbox::dead_letter;
use serde_json::json;

impl World {
    /// Does it, or finds that it makes no sense any more (both true); false: not yet.
    pub(crate) async fn act(&mut self, order: &Order, doing: &Doing) -> bool {
        let seen = self.find(order.definition, &order.number);
        match (doing, seen) {
            (Doing::Start, _) => self.start(order, false).await,
            (Doing::StartAgain { other_body }, _) => self.start(order, *other_body).await,
            (_, None) => false,
            (Doing::Pay { wrong_by, currency, late, callbacks }, Some(seen)) => {
                self.pay(order, &seen, *wrong_by, currency, *late, *callbacks)
            }
            (Doing::Cancel { reason, role }, Some(seen)) => self.cancel(seen.id, reason, role).await,
            (Doing::Operate(operation), Some(seen)) => self.operate(seen.id, operation.clone()).await,
            (Doing::OperateWhileGivingBack(operation), Some(seen)) => match seen.phase.as_str() {
                "compensating" => self.operate(seen.id, operation.clone()).await,
                "ended" => true,
                _ => false,
            },
            (Doing::Refund { refund_no, lines, needs_approval }, Some(seen)) => {
                self.refund(order, &seen, refund_no, lines, *needs_approval).await
            }
            (Doing::Approve { refund_no, wrong_first }, Some(seen)) => {
                self.approve(&seen, refund_no, *wrong_first).await
            }
            (Doing::Withdraw { refund_no }, Some(seen)) => match self.find("refund_order", refund_no) {
                Some(refund) => self.cancel(refund.id, "withdrawn", "owner").await,
                None => seen.phase == "ended" && seen.status != "completed",
            },
            (Doing::Signal { value }, Some(seen)) => self.event(seen.id, "lab.signal", json!({ "value": value })).await,
            (Doing::Lie, Some(seen)) => match seen.status.as_str() {
                "preparing" => seen.phase == "ended",
                _ => self.lie(seen.id).await,
            },
            (Doing::Nonsense, Some(seen)) => self.event(seen.id, "no.such", json!({})).await,
        }
    }

    async fn start(&mut self, order: &Order, other_body: bool) -> bool {
        let mut input = order.input.clone();
        if other_body {
            // Somebody else's order under the same number.
            input["user_id"] = json!("stranger");
        }
        let random = self.random.next();
        let message = self.system.start(order.definition, &input, None, random);
        self.note(|| format!("{}: start {} {input}", order.journey, order.number));
        self.system.produce(vec![message]).await;
        true
    }

    fn pay(&mut self, order: &Order, seen: &Seen, wrong_by: i64, currency: &str, late: bool, callbacks: u32) -> bool {
        let amount = |name: &str| order.input[name].as_i64().unwrap_or_default();
        let due = amount("total_minor") - amount("discount_minor");
        if due == 0 {
            return true;
        }
        if !self.provider.book(|book| book.opened.contains_key(&seen.id)) {
            return seen.phase == "ended";
        }
        let taken = self.provider.book(|book| book.capture(seen.id, (due + wrong_by).max(1), currency, late));
        self.note(|| format!("{}: pay {} {taken:?}", order.journey, order.number));
        let Some(captured) = taken else { return true };
        for _ in 0..callbacks {
            let at = self.system.now_ms() + self.random.between(0, 30_000);
            let message = captured.message(Lane::Live, self.system.partitions(), self.system.now_ms());
            self.schedule(at, message);
        }
        true
    }

    async fn ask(&mut self, saga: SagaId, body: InputBody) -> bool {
        let id = format!("act-{}", self.next_act());
        self.asked.push(self.system.waiters.inputs.wait((saga, id.clone())));
        self.note(|| format!("{saga} {body:?}"));
        let message = self.system.input(saga, id, body);
        self.system.produce(vec![message]).await;
        true
    }

    async fn cancel(&mut self, saga: SagaId, reason: &str, role: &str) -> bool {
        let actor = Actor { subject: "somebody".to_owned(), role: role.to_owned() };
        self.ask(saga, InputBody::Cancel { reason: reason.to_owned(), actor }).await
    }

    pub(crate) async fn operate(&mut self, saga: SagaId, operation: Operation) -> bool {
        let actor = Actor { subject: "olga".to_owned(), role: "operator".to_owned() };
        self.ask(saga, InputBody::Operate { operation, reason: "the world".to_owned(), actor }).await
    }

    async fn event(&mut self, saga: SagaId, name: &str, data: Json) -> bool {
        self.ask(saga, InputBody::Event { name: name.to_owned(), data }).await
    }

    /// The cause is gone: operators send again what was poison, in the order in which it came.
    pub(crate) async fn replay_letters(&mut self) {
        let (store, bus) = (self.system.store(), self.system.bus());
        for letter in dead_letter::list(&*store, 0, 10_000).await.expect("letters can be read") {
            if letter.letter.reason == POISON && letter.replayed_ms.is_none() {
                met(&self.coverage, "operator", "replay");
                self.note(|| format!("letter {} is sent again", letter.id));
                let wish = dead_letter::Replay { by: "operator".into(), reason: "the world".into() };
                dead_letter::replay(&*store, &*bus, letter.id, &wish, self.system.now_ms(), async |letter| {
                    Ok(vec![letter])
                })
                .await
                .expect("it is sent again");
            }
        }
    }

    async fn refund(
        &mut self,
        order: &Order,
        seen: &Seen,
        refund_no: &str,
        lines: &Json,
        needs_approval: bool,
    ) -> bool {
        match (seen.phase.as_str(), seen.status.as_str()) {
            ("ended", "completed") => {}
            (phase, _) => return phase == "ended",
        }
        let stored = persist::load_sagas(&*self.system.store(), &[seen.id]).await.expect("the order is read");
        let Some(saga) = stored.into_iter().next().map(|stored| stored.saga) else { return true };
        let plan = self.system.definitions.get(&saga.definition, saga.definition_version).expect("it is loaded");
        let link = (saga.id, saga.key.to_string(), saga.snapshot(plan.plan()));
        let input = json!({
            "order_no": order.number, "refund_no": refund_no, "reason": "does not fit",
            "needs_approval": needs_approval, "lines": lines,
        });
        let random = self.random.next();
        let message = self.system.start("refund_order", &input, Some(link), random);
        // As the gateway does: what makes no saga is not queued.
        let refused = self.system.refuses(&message);
        assert_eq!(refused, lines[0]["line_no"] == "nine", "only the line that no order has: {input}");
        self.note(|| format!("{}: refund {input}{}", order.journey, if refused { ", refused" } else { "" }));
        if refused {
            return true;
        }
        self.system.produce(vec![message]).await;
        true
    }

    async fn approve(&mut self, order: &Seen, refund_no: &str, wrong_first: bool) -> bool {
        let Some(refund) = self.find("refund_order", refund_no) else {
            return order.phase == "ended" && order.status != "completed";
        };
        if wrong_first {
            self.event(refund.id, "refund.approved", json!({ "refund_no": "another" })).await;
        }
        self.event(refund.id, "refund.approved", json!({ "refund_no": refund_no })).await
    }

    /// The laboratory refuses what it said was done.
    async fn lie(&mut self, saga: SagaId) -> bool {
        let (step, item) = ("make".to_owned(), String::new());
        let effect_id = EffectId { saga, step, item, direction: Direction::Do, round: 0 };
        let verdict = Verdict::Refused { code: "lab.no".to_owned(), detail: "a lie".to_owned() };
        self.note(|| format!("the laboratory lies about {effect_id}"));
        let message = self.system.input(saga, effect_id.to_string(), InputBody::Reply(Reply { effect_id, verdict }));
        debug_assert!(matches!(message.envelope.message, Message::Input(_)));
        self.system.produce(vec![message]).await;
        true
    }
}
