//! One command after another: what each participant answers, and what it does to the books.

use crate::check::check_books;
use crate::world::*;
use endstate_events::Verdict;
use serde_json::json;

#[test]
fn a_hold_is_confirmed_taken_back_and_released() {
    let mut desk = opened();
    let hold = hold_stock(1, "A", 4);
    let confirm = about("confirm", &hold);
    assert_eq!(says(&mut desk, &hold), "done");
    assert_eq!(balance(&desk, "stock:A:available"), (10, 4));
    assert_eq!(says(&mut desk, &confirm), "done");
    assert_eq!(balance(&desk, "stock:A:available"), (6, 0));
    assert_eq!(balance(&desk, "stock:A:sold#0"), (4, 0));
    assert_eq!(says(&mut desk, &undo("release", &hold)), "unknown", "a confirmed hold is not released");
    assert_eq!(says(&mut desk, &undo("unconfirm", &confirm)), "done");
    assert_eq!(balance(&desk, "stock:A:available"), (10, 4));
    assert_eq!(says(&mut desk, &undo("release", &hold)), "done");
    assert_eq!(balance(&desk, "stock:A:available"), (10, 0));
    assert_eq!(balance(&desk, "stock:A:sold#0"), (0, 0));
    check_books(&desk);
}

#[test]
fn units_of_a_line_are_claimed_once_whoever_claims_them() {
    let mut desk = opened();
    let claim = |n: u64, quantity: i64| {
        tell(n, "returns.claim", "order", json!({ "order": "o", "line": "1", "ordered": 3, "quantity": quantity }))
    };
    assert_eq!(says(&mut desk, &claim(1, 4)), "returns.exceeded");
    let two = claim(2, 2);
    assert_eq!(says(&mut desk, &two), "done");
    assert_eq!(says(&mut desk, &two), "done", "told again");
    assert_eq!(says(&mut desk, &claim(3, 2)), "returns.exceeded");
    assert_eq!(says(&mut desk, &undo("release", &two)), "done");
    assert_eq!(balance(&desk, "returns:o/1:available"), (3, 0));
    let early = claim(4, 1);
    assert_eq!(says(&mut desk, &undo("release", &early)), "done");
    assert_eq!(says(&mut desk, &early), "released_before");
    assert_eq!(says(&mut desk, &claim(5, 3)), "done");
    assert_eq!(says(&mut desk, &claim(6, 0)), "payload");
    check_books(&desk);
}

#[test]
fn told_again_or_asked_the_answer_is_the_same() {
    let mut desk = opened();
    let (hold, short) = (hold_stock(1, "A", 4), hold_stock(2, "A", 7));
    assert_eq!(says(&mut desk, &ask(&hold)), "never_seen");
    let first = decide_on(&mut desk, &hold);
    assert_eq!(says(&mut desk, &short), "stock.short");
    says(&mut desk, &undo("release", &hold));
    assert_eq!(decide_on(&mut desk, &hold), first, "also after it was released");
    assert_eq!(decide_on(&mut desk, &ask(&hold)), first);
    assert_eq!(says(&mut desk, &short), "stock.short", "also when there would be enough by now");
    assert_eq!(says(&mut desk, &ask(&short)), "stock.short");
    assert_eq!(balance(&desk, "stock:A:available"), (10, 0));
}

#[test]
fn a_release_before_its_hold_makes_the_hold_come_too_late() {
    let mut desk = opened();
    for hold in [hold_stock(1, "A", 4), hold_coupon(1, "C", "ann"), points(1, "hold", "ann", 5)] {
        assert_eq!(says(&mut desk, &undo("release", &hold)), "done");
        assert_eq!(says(&mut desk, &hold), "released_before");
        assert_eq!(says(&mut desk, &ask(&hold)), "released_before");
        assert_eq!(says(&mut desk, &undo("release", &hold)), "done");
    }
    let confirm = about("confirm", &hold_stock(2, "A", 1));
    assert_eq!(says(&mut desk, &undo("unconfirm", &confirm)), "done");
    assert_eq!(says(&mut desk, &confirm), "released_before");
    assert_eq!(balance(&desk, "stock:A:available"), (10, 0));
    assert_eq!(balance(&desk, "points:ann:available"), (100, 0));
}

#[test]
fn another_body_under_a_known_id_changes_nothing() {
    let mut desk = opened();
    assert_eq!(says(&mut desk, &hold_stock(1, "A", 4)), "done");
    let Some(Verdict::Unknown { reason, .. }) = decide_on(&mut desk, &hold_stock(1, "A", 5)) else {
        panic!("a refusal would keep the saga from undoing the first")
    };
    assert!(reason.starts_with("conflict"), "{reason}");
    assert_eq!(says(&mut desk, &hold_stock(2, "A", 7)), "stock.short");
    assert_eq!(says(&mut desk, &hold_stock(2, "A", 1)), "conflict");
    assert_eq!(balance(&desk, "stock:A:available"), (10, 4));
}

#[test]
fn every_refusal_has_its_code_and_leaves_nothing_behind() {
    let mut desk = opened();
    assert_eq!(says(&mut desk, &hold_coupon(1, "C", "ann")), "done");
    let confirmed = hold_stock(9, "A", 1);
    says(&mut desk, &confirmed);
    says(&mut desk, &undo("release", &confirmed));
    for (command, code) in [
        (hold_stock(2, "A", 11), "stock.short"),
        (hold_stock(3, "B", 1), "stock.unknown"),
        (hold_stock(4, "A", 0), "payload"),
        (hold_stock(5, "A", -3), "payload"),
        (hold_stock(6, "A", i64::MAX), "payload"),
        (tell(7, "stock.hold", "A", json!({ "unit": "A", "quantity": 1.5 })), "payload"),
        (tell(8, "stock.hold", "A", json!("A")), "payload"),
        (about("confirm", &confirmed), "stock.released"),
        (tell(10, "stock.put_back", "A", json!({ "unit": "A", "quantity": 1 })), "stock.unsold"),
        (hold_coupon(2, "C", "ann"), "coupon.held"),
        (hold_coupon(3, "C", "bob"), "coupon.foreign"),
        (hold_coupon(4, "D", "ann"), "coupon.unknown"),
        (tell(5, "coupon.give_back", "ann", json!({ "coupon": "C", "user": "ann" })), "coupon.unused"),
        (points(2, "hold", "ann", 101), "points.short"),
        (points(3, "hold", "bob", 1), "points.short"),
        (points(4, "award", "ann", -1), "payload"),
        (tell(1, "bench.reserve", "x", json!({ "fail": true })), "bench.failed"),
        (tell(11, "stock.open", "A", json!({ "unit": "A", "quantity": 5 })), "unknown"),
        (tell(12, "stock.melt", "A", json!({})), "unknown"),
    ] {
        let before = [balance(&desk, "stock:A:available"), balance(&desk, "points:ann:available")];
        assert_eq!(says(&mut desk, &command), code, "{command:?}");
        assert_eq!([balance(&desk, "stock:A:available"), balance(&desk, "points:ann:available")], before);
        check_books(&desk);
    }
}

#[test]
fn standby_stock_serves_what_finds_the_main_stock_short() {
    let mut desk = opened();
    let with = |quantity: i64| json!({ "unit": "A", "quantity": quantity, "standby": true });
    assert_eq!(says(&mut desk, &tell(1, "stock.take", "A", with(8))), "done");
    let Some(Verdict::Done { data }) = decide_on(&mut desk, &tell(2, "stock.take", "A", with(4))) else { panic!() };
    assert_eq!(data, json!({ "unit": "A", "quantity": 4, "standby": 4 }));
    assert_eq!(balance(&desk, "stock:A:available"), (2, 0));
    assert_eq!(balance(&desk, "stock:A:standby"), (1, 0));
    assert_eq!(says(&mut desk, &tell(3, "stock.take", "A", with(3))), "stock.short");
    assert_eq!(says(&mut desk, &undo("put_back", &tell(2, "stock.take", "A", with(4)))), "done");
    assert_eq!(balance(&desk, "stock:A:standby"), (5, 0), "what came from standby goes back there");
    assert_eq!(says(&mut desk, &tell(4, "stock.put_back", "A", json!({ "unit": "A", "quantity": 3 }))), "done");
    assert_eq!(balance(&desk, "stock:A:sold#0"), (5, 0));
    check_books(&desk);
}

#[test]
fn a_coupon_is_used_once_and_freed_by_who_held_it() {
    let mut desk = opened();
    let hold = hold_coupon(1, "C", "ann");
    let confirm = about("confirm", &hold);
    for command in [&hold, &confirm] {
        assert_eq!(says(&mut desk, command), "done");
    }
    assert_eq!(says(&mut desk, &hold_coupon(2, "C", "ann")), "coupon.used");
    for command in [undo("unconfirm", &confirm), undo("release", &hold)] {
        assert_eq!(says(&mut desk, &command), "done");
    }
    assert_eq!(says(&mut desk, &hold_coupon(3, "C", "ann")), "done");
    assert_eq!(says(&mut desk, &undo("release", &hold)), "done", "repeated: must not free another order's coupon");
    assert_eq!(says(&mut desk, &hold_coupon(4, "C", "ann")), "coupon.held");
    assert_eq!(
        says(&mut desk, &change("v", "coupon.void", json!({ "coupon": "C", "user": "ann" }))),
        "coupon.not_free"
    );
}

#[test]
fn operators_changes_count_once() {
    let mut desk = opened();
    let add = change("delivery-7", "stock.adjust", json!({ "unit": "A", "delta": 5 }));
    assert_eq!(says(&mut desk, &add), "done");
    assert_eq!(says(&mut desk, &add), "done");
    assert_eq!(balance(&desk, "stock:A:available"), (15, 0));
    let other = change("delivery-7", "stock.adjust", json!({ "unit": "A", "delta": 6 }));
    assert_eq!(says(&mut desk, &other), "unknown", "the same id with another body");
    for (id, with, says_what) in [
        ("a", json!({ "unit": "A", "delta": -16 }), "stock.short"),
        ("b", json!({ "unit": "B", "delta": 1 }), "stock.unknown"),
        ("c", json!({ "unit": "A", "delta": 0 }), "payload"),
        ("d", json!({ "unit": "A", "delta": i64::MIN }), "payload"),
    ] {
        assert_eq!(says(&mut desk, &change(id, "stock.adjust", with)), says_what);
    }
    assert_eq!(balance(&desk, "stock:A:available"), (15, 0));
    check_books(&desk);
}
