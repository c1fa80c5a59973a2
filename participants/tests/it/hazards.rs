//! HAZARDS on the participants' side, by number, where no store is needed.

use crate::check::check_books;
use crate::world::*;
use endstate_events::Json;
use endstate_events::{Command, EffectId, SagaId, Verdict};
use endstate_participants::decide::{self, Answered};
use endstate_participants::desk::Desk;
use serde_json::json;
use std::sync::Arc;

fn payment(no: &str, amount: i64, saga: SagaId) -> Json {
    json!({ "provider": "simpay", "provider_no": no, "amount_minor": amount, "currency": "CNY", "saga": saga })
}

fn refund(n: u64, no: &str, amount: i64) -> Command {
    let with = json!({ "payment": payment(no, 100, saga(n)), "amount_minor": amount });
    tell(n, "payment.refund", "k", with)
}

fn answer(desk: &mut Desk, command: &Command, verdict: Verdict) -> Option<Answered> {
    decide::answered(desk, &Arc::from(command.effect_id.to_string()), verdict)
}

fn done(data: Json) -> Verdict {
    Verdict::Done { data }
}

fn unknown() -> Verdict {
    Verdict::unknown("slow")
}

#[test]
fn z08_a_refund_is_booked_once_however_often_it_is_told_and_answered() {
    let mut desk = Desk::default();
    let refund = refund(1, "P1", 60);
    assert_eq!(says(&mut desk, &refund), "calling");
    assert_eq!(says(&mut desk, &refund), "calling", "told again while the call runs");
    assert_eq!(desk.calls.changes().len(), 1);
    assert_eq!(answer(&mut desk, &refund, unknown()).unwrap().verdict, unknown());
    assert_eq!(says(&mut desk, &refund), "calling", "told again after nobody knew: called again under the same id");
    let booked = done(json!({ "refund_no": "R1", "amount_minor": 60 }));
    assert!(answer(&mut desk, &refund, booked.clone()).is_some());
    assert!(answer(&mut desk, &refund, booked.clone()).is_none(), "an answer twice");
    assert_eq!(decide_on(&mut desk, &refund), Some(booked.clone()));
    assert_eq!(decide_on(&mut desk, &ask(&refund)), Some(booked));
    assert_eq!(balance(&desk, "money:CNY:refund_clearing#0"), (60, 0));
    assert_eq!(balance(&desk, &format!("money:CNY:{}:order#0", saga(1))), (40, 0));
    assert_eq!(balance(&desk, "money:CNY:psp_clearing#0"), (-100, 0));
    check_books(&desk);
}

#[test]
fn z08_an_ask_after_a_lost_call_goes_to_the_outside_party() {
    let mut desk = Desk::default();
    let refund = refund(1, "P1", 60);
    assert_eq!(says(&mut desk, &ask(&refund)), "never_seen");
    says(&mut desk, &refund);
    assert_eq!(says(&mut desk, &ask(&refund)), "calling");
    answer(&mut desk, &refund, unknown());
    assert_eq!(says(&mut desk, &ask(&refund)), "calling");
    let answered = answer(&mut desk, &refund, Verdict::NeverSeen).unwrap();
    assert_eq!(answered.verdict, Verdict::NeverSeen, "the saga sends the command again");
    assert_eq!(says(&mut desk, &refund), "calling");
}

#[test]
fn z08_a_refused_refund_gives_back_what_it_set_aside() {
    let mut desk = Desk::default();
    let command = refund(1, "P1", 60);
    says(&mut desk, &command);
    let order = format!("money:CNY:{}:order#0", saga(1));
    assert_eq!(balance(&desk, &order), (100, 60));
    answer(&mut desk, &command, Verdict::Refused { code: "payment.rejected".into(), detail: String::new() });
    assert_eq!(balance(&desk, &order), (100, 0));
    assert_eq!(says(&mut desk, &command), "payment.rejected");
}

#[test]
fn z09_lines_rounds_and_directions_never_share_an_effect() {
    let mut desk = opened();
    let line = |item: &str, round: u8| {
        let hold = hold_stock(1, "A", 1);
        Command { effect_id: EffectId { item: item.into(), round, ..hold.effect_id.clone() }, ..hold }
    };
    let holds = [line("1", 0), line("2", 0), line("1", 1), line("1:do", 0), line("", 0)];
    for hold in &holds {
        assert_eq!(says(&mut desk, hold), "done");
        assert_eq!(says(&mut desk, &about("confirm", hold)), "done");
    }
    assert_eq!(balance(&desk, "stock:A:sold#0"), (5, 0));
    for hold in &holds {
        assert_eq!(says(&mut desk, &undo("unconfirm", &about("confirm", hold))), "done");
        assert_eq!(says(&mut desk, &undo("release", hold)), "done");
    }
    assert_eq!(balance(&desk, "stock:A:available"), (10, 0));
    check_books(&desk);
}

#[test]
fn z12_two_payments_of_one_order_are_two_and_each_goes_back_once() {
    let mut desk = Desk::default();
    let book = tell(1, "payment.book", "k", json!({ "payment": payment("P1", 100, saga(1)) }));
    assert_eq!(says(&mut desk, &book), "done");
    // The second payment is refunded by a linked saga, twice as much as it was is refused, and the first stays.
    let second = |n: u64, amount: i64| {
        let with = json!({ "payment": payment("P2", 100, saga(1)), "amount_minor": amount });
        tell(n, "payment.refund", "k", with)
    };
    assert_eq!(says(&mut desk, &second(2, 100)), "calling");
    answer(&mut desk, &second(2, 100), done(json!({ "refund_no": "R1" })));
    let order = format!("money:CNY:{}:order#0", saga(1));
    assert_eq!(balance(&desk, &order), (100, 0));
    assert_eq!(says(&mut desk, &refund(1, "P1", 100)), "calling");
    assert_eq!(says(&mut desk, &second(3, 1)), "payment.exceeded");
    answer(&mut desk, &refund(1, "P1", 100), done(json!({ "refund_no": "R2" })));
    assert_eq!(balance(&desk, &order), (0, 0));
    assert_eq!(balance(&desk, "money:CNY:refund_clearing#0"), (200, 0));
    check_books(&desk);
}

#[test]
fn z12_the_same_payment_with_another_amount_or_currency_is_refused() {
    let mut desk = Desk::default();
    let book = |n: u64, payment: Json| tell(n, "payment.book", "k", json!({ "payment": payment }));
    assert_eq!(says(&mut desk, &book(1, payment("P1", 100, saga(1)))), "done");
    assert_eq!(says(&mut desk, &book(2, payment("P1", 100, saga(1)))), "done", "entered once");
    assert_eq!(says(&mut desk, &book(3, payment("P1", 99, saga(1)))), "payment.conflict");
    assert_eq!(says(&mut desk, &book(4, payment("P1", 100, saga(2)))), "payment.conflict");
    let mut euros = payment("P1", 100, saga(1));
    euros["currency"] = json!("EUR");
    assert_eq!(says(&mut desk, &book(5, euros)), "payment.conflict");
    assert_eq!(balance(&desk, "money:CNY:psp_clearing#0"), (-100, 0));
    check_books(&desk);
}

#[test]
fn z21_a_close_that_finds_money_is_done_and_tells_the_saga() {
    let mut desk = Desk::default();
    let open = tell(1, "payment.open", "k", json!({ "amount_minor": 100, "currency": "CNY", "expires_in_s": 60 }));
    let close = undo("close", &open);
    assert_eq!(says(&mut desk, &open), "calling");
    answer(&mut desk, &open, done(json!({ "payment_no": "1", "pay_url": "u" })));
    assert_eq!(says(&mut desk, &close), "calling");
    let found = json!({ "captures": [payment("P1", 100, saga(1))] });
    let answered = answer(&mut desk, &close, done(found)).unwrap();
    assert!(matches!(answered.verdict, Verdict::Done { .. }));
    assert_eq!(answered.captures.len(), 1);
    let message = answered.captures[0].message(answered.call.lane, 4, NOW_MS);
    assert_eq!(message.envelope.id, "payment/simpay/P1", "the id that the callback's input has, too");
    assert_eq!(message.partition, saga(1).slot().partition(4));
}

#[test]
fn z21_a_close_before_its_open_still_reaches_the_provider_and_stops_the_open() {
    let mut desk = Desk::default();
    let open = tell(1, "payment.open", "k", json!({ "amount_minor": 100, "currency": "CNY", "expires_in_s": 60 }));
    assert_eq!(says(&mut desk, &undo("close", &open)), "calling");
    assert_eq!(says(&mut desk, &open), "released_before");
}

#[test]
fn an_undo_that_an_outside_party_refuses_can_be_sent_again() {
    let mut desk = Desk::default();
    let wrap = tell(1, "gift_wrap.wrap", "k", json!({ "order": "1" }));
    says(&mut desk, &wrap);
    answer(&mut desk, &wrap, done(json!({})));
    let unwrap = undo("unwrap", &wrap);
    says(&mut desk, &unwrap);
    let refused = Verdict::Refused { code: "gift_wrap.shipped".into(), detail: String::new() };
    assert_eq!(answer(&mut desk, &unwrap, refused.clone()).unwrap().verdict, refused);
    assert_eq!(says(&mut desk, &unwrap), "calling");
}

#[test]
fn z22_points_taken_back_after_they_were_spent_become_a_debt_that_awards_settle() {
    let mut desk = Desk::default();
    let award = points(1, "award", "ann", 50);
    let spend = points(2, "hold", "ann", 40);
    for command in [&award, &spend, &about("confirm", &spend)] {
        assert_eq!(says(&mut desk, command), "done");
    }
    let Some(Verdict::Done { data }) = decide_on(&mut desk, &undo("take_back", &award)) else { panic!() };
    assert_eq!(data, json!({ "points": 50, "debt": 40 }));
    assert_eq!(balance(&desk, "points:ann:available"), (0, 0));
    assert_eq!(balance(&desk, "points:ann:debt"), (-40, 0));
    check_books(&desk);
    assert_eq!(says(&mut desk, &undo("take_back", &award)), "done");
    assert_eq!(balance(&desk, "points:ann:debt"), (-40, 0), "taken back once");
    let Some(Verdict::Done { data }) = decide_on(&mut desk, &points(3, "award", "ann", 60)) else { panic!() };
    assert_eq!(data, json!({ "points": 60, "debt": 0 }));
    assert_eq!(balance(&desk, "points:ann:available"), (20, 0));
    assert_eq!(balance(&desk, "points:ann:debt"), (0, 0));
    check_books(&desk);
}
