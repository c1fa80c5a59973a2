//! Random commands with duplicates, any order, releases before holds and conflicting bodies, against a model that
//! knows nothing of ledgers: a hold's life is one word, and what is left is what was opened minus what is held or sold.

use crate::check::check_books;
use crate::world::*;
use endstate_events::{Command, Verdict};
use endstate_participants::desk::Desk;
use proptest::prelude::*;
use std::collections::BTreeMap;

const OPENED: i64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Hold,
    /// The hold's id with another quantity.
    Conflict,
    Confirm,
    Unconfirm,
    Release,
    Ask,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Unmet,
    Held,
    Confirmed,
    Released,
    Short,
    Tombstone,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Confirm {
    #[default]
    Unmet,
    Done,
    Undone,
    Refused,
    Tombstone,
}

#[derive(Clone, Debug, Default)]
struct Order {
    quantity: i64,
    hold: Life,
    confirm: Confirm,
    undone: bool,
}

/// What the model expects, and how it moves.
fn expect(order: &mut Order, act: Act, left: i64) -> &'static str {
    match (act, order.hold, order.confirm) {
        (Act::Hold, Life::Unmet, _) if order.quantity <= left => {
            order.hold = Life::Held;
            "done"
        }
        (Act::Hold, Life::Unmet, _) => {
            order.hold = Life::Short;
            "stock.short"
        }
        (Act::Hold | Act::Ask, Life::Held | Life::Confirmed | Life::Released, _) => "done",
        (Act::Hold | Act::Ask, Life::Short, _) => "stock.short",
        (Act::Hold | Act::Ask | Act::Conflict, Life::Tombstone, _) => "released_before",
        (Act::Ask, Life::Unmet, _) => "never_seen",
        (Act::Conflict, Life::Short, _) => "conflict",
        (Act::Conflict, _, _) => "unknown",
        (Act::Confirm, _, Confirm::Done | Confirm::Undone) => "done",
        (Act::Confirm, _, Confirm::Refused) => "stock.released",
        (Act::Confirm, _, Confirm::Tombstone) => "released_before",
        (Act::Confirm, Life::Unmet, Confirm::Unmet) => "unknown",
        (Act::Confirm, Life::Held, Confirm::Unmet) => {
            (order.hold, order.confirm) = (Life::Confirmed, Confirm::Done);
            "done"
        }
        (Act::Confirm, _, Confirm::Unmet) => {
            order.confirm = Confirm::Refused;
            "stock.released"
        }
        (Act::Unconfirm, _, Confirm::Unmet) => {
            order.confirm = Confirm::Tombstone;
            "done"
        }
        (Act::Unconfirm, _, Confirm::Done) => {
            (order.hold, order.confirm) = (Life::Held, Confirm::Undone);
            "done"
        }
        (Act::Unconfirm, _, Confirm::Undone | Confirm::Refused | Confirm::Tombstone) => "done",
        (Act::Release, Life::Unmet, _) => {
            (order.hold, order.undone) = (Life::Tombstone, true);
            "done"
        }
        (Act::Release, Life::Confirmed, _) => "unknown",
        (Act::Release, Life::Held, _) => {
            (order.hold, order.undone) = (Life::Released, true);
            "done"
        }
        (Act::Release, Life::Released | Life::Short | Life::Tombstone, _) => "done",
    }
}

fn command(n: u64, quantity: i64, act: Act) -> Command {
    let hold = hold_stock(n, "A", quantity);
    match act {
        Act::Hold => hold,
        Act::Conflict => hold_stock(n, "A", quantity + 1),
        Act::Confirm => about("confirm", &hold),
        Act::Unconfirm => undo("unconfirm", &about("confirm", &hold)),
        Act::Release => undo("release", &hold),
        Act::Ask => ask(&hold),
    }
}

fn acts() -> impl Strategy<Value = Vec<(u64, Act)>> {
    let act = prop::sample::select(vec![
        Act::Hold,
        Act::Hold,
        Act::Hold,
        Act::Conflict,
        Act::Confirm,
        Act::Confirm,
        Act::Unconfirm,
        Act::Release,
        Act::Ask,
    ]);
    prop::collection::vec((0..5_u64, act), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stock_answers_as_its_model_and_its_books_hold(acts in acts(), sizes in prop::array::uniform5(1..6_i64)) {
        let mut desk = Desk::default();
        says(&mut desk, &change("open", "stock.open", serde_json::json!({ "unit": "A", "quantity": OPENED })));
        let mut orders: BTreeMap<u64, Order> = BTreeMap::new();
        for (n, act) in acts {
            let quantity = sizes[usize::try_from(n).unwrap()];
            let gone: i64 = orders.values()
                .filter(|order| matches!(order.hold, Life::Held | Life::Confirmed))
                .map(|order| order.quantity)
                .sum();
            let order = orders.entry(n).or_insert(Order { quantity, ..Order::default() });
            // A conflicting body that comes first is the first.
            if act == Act::Conflict && order.hold == Life::Unmet {
                continue;
            }
            let expected = expect(order, act, OPENED - gone);
            prop_assert_eq!(says(&mut desk, &command(n, quantity, act)), expected, "{:?} of {}", act, n);
            check_books(&desk);
        }
        let sum = |life: Life| orders.values().filter(|o| o.hold == life).map(|o| o.quantity).sum::<i64>();
        let (held, sold) = (sum(Life::Held), sum(Life::Confirmed));
        prop_assert_eq!(balance(&desk, "stock:A:available"), (OPENED - sold, held));
        prop_assert_eq!(balance(&desk, "stock:A:sold#0"), (sold, 0));
    }

    #[test]
    fn points_never_go_below_zero_but_for_a_debt(
        acts in prop::collection::vec((0..4_u64, 0..7_u8, 0..80_i64), 1..60)
    ) {
        let mut desk = Desk::default();
        let mut answers: BTreeMap<String, Verdict> = BTreeMap::new();
        let mut known: BTreeMap<(u64, u8), i64> = BTreeMap::new();
        for (n, act, amount) in acts {
            // Most repeats carry the first body, as a saga's do; every tenth or so another.
            let amount = if amount % 10 == 0 { amount } else { *known.entry((n, act / 4)).or_insert(amount) };
            let (award, hold) = (points(n, "award", "ann", amount), points(n, "hold", "ann", amount));
            let command = match act {
                0 => award,
                1 => undo("take_back", &award),
                2 => points(n, "take_back", "ann", amount),
                3 => points(n, "give_back", "ann", amount),
                4 => hold,
                5 => about("confirm", &hold),
                _ => undo("release", &hold),
            };
            let verdict = decide_on(&mut desk, &command).unwrap();
            check_books(&desk);
            let key = format!("{} {}", command.effect_id, command.with);
            if !matches!(verdict, Verdict::Unknown { .. }) {
                let first = answers.entry(key).or_insert_with(|| verdict.clone());
                prop_assert_eq!(first, &verdict);
            }
        }
    }
}
