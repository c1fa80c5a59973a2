//! What customers, the warehouse, risk control and operators do with one order, drawn from the seed.

use super::random::Random;
use endstate_events::{ForcedEnd, Json, Operation};
use serde_json::json;
use std::collections::VecDeque;

/// The first of [`JOURNEYS`] are those of the flash sale.
pub(crate) const SALES: usize = 26;

/// Every journey.
pub(crate) const JOURNEYS: [&str; 36] = [
    "pays",
    "pays_late",
    "pays_twice",
    "pays_wrong_amount",
    "pays_wrong_currency",
    "never_pays",
    "callback_lost",
    "cancels_before_payment",
    "cancels_after_payment",
    "cancels_while_paying",
    "risk_cancels",
    "warehouse_cancels",
    "refunds_lines",
    "refunds_whole",
    "refunds_twice",
    "refund_waits_for_approval",
    "refund_withdrawn",
    "refund_never_approved",
    "refund_of_unknown_line",
    "free",
    "starts_again",
    "number_taken",
    "operator_compensates",
    "operator_forces_completed",
    "operator_forces_cancelled",
    "turned_down",
    "bench",
    "job_done",
    "job_sub_fails",
    "job_silent",
    "job_mismatch",
    "job_deadline",
    "job_faults",
    "job_undo_refused",
    "job_forced",
    "job_lies",
];

/// Amounts of stock, coupons and points that a seed opens.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    /// Unit, main stock, standby stock.
    pub(crate) units: Vec<(String, i64, i64)>,
    pub(crate) users: Vec<(String, i64)>,
    /// Coupon and whose it is.
    pub(crate) coupons: Vec<(String, String)>,
}

/// One order, bench saga or odd job, and what happens around it.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) journey: &'static str,
    pub(crate) definition: &'static str,
    pub(crate) number: String,
    pub(crate) input: Json,
    pub(crate) acts: VecDeque<Act>,
    /// When the next act may happen.
    pub(crate) ready_ms: i64,
    /// False when an operator forces its end: its books are compared only as far as discrepancies allow.
    pub(crate) exact: bool,
}

/// One thing that somebody does, that long after the one before.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    pub(crate) after_ms: i64,
    pub(crate) doing: Doing,
}

/// What somebody does.
#[derive(Clone, Debug)]
pub(crate) enum Doing {
    Start,
    /// The same number again, with the same body or another.
    StartAgain {
        other_body: bool,
    },
    /// Money is taken; the callback comes that often.
    Pay {
        wrong_by: i64,
        currency: &'static str,
        late: bool,
        callbacks: u32,
    },
    Cancel {
        reason: &'static str,
        role: &'static str,
    },
    Operate(Operation),
    /// Only once the saga gives back.
    OperateWhileGivingBack(Operation),
    Refund {
        refund_no: String,
        lines: Json,
        needs_approval: bool,
    },
    Approve {
        refund_no: String,
        wrong_first: bool,
    },
    Withdraw {
        refund_no: String,
    },
    Signal {
        value: i64,
    },
    /// The participant takes back what it said.
    Lie,
    /// An event that the definition does not know.
    Nonsense,
}

const MINUTE_MS: i64 = 60_000;

pub(crate) fn shelf(random: &mut Random) -> Shelf {
    let unit = |n: i64, random: &mut Random| {
        let short = random.chance(30);
        let main = if short { random.between(1, 4) } else { random.between(20, 200) };
        (format!("unit-{n}"), main, if random.chance(50) { random.between(1, 40) } else { 0 })
    };
    let units = (0..5).map(|n| unit(n, random)).collect();
    let users: Vec<_> = (0..6).map(|n| (format!("user-{n}"), random.between(0, 900))).collect();
    let coupons = (0..8).map(|n| (format!("coupon-{n}"), random.pick(&users).0.clone())).collect();
    Shelf { units, users, coupons }
}

/// The `n`th saga of a seed.
pub(crate) fn order(n: u64, journey: &'static str, shelf: &Shelf, random: &mut Random) -> Order {
    let number = format!("N{n}");
    if let Some(job) = journey.strip_prefix("job_") {
        return odd_job(journey, job, number, random);
    }
    if journey == "bench" {
        let fail_at = *random.pick(&["", "", "", "reserve", "lock", "deduct", "confirm"]);
        let input = json!({ "number": number, "fail_at": fail_at });
        return made(journey, "bench_saga", number, input, vec![(0, Doing::Start)], true);
    }
    let exact = !journey.starts_with("operator_forces");
    let input = order_input(n, journey, exact, shelf, random);
    let acts = order_acts(&number, journey, &input, random);
    made(journey, "flash_sale_order", number, input, acts, exact)
}

fn made(
    journey: &'static str,
    definition: &'static str,
    number: String,
    input: Json,
    acts: Vec<(i64, Doing)>,
    exact: bool,
) -> Order {
    let acts = acts.into_iter().map(|(after_ms, doing)| Act { after_ms, doing }).collect();
    Order { journey, definition, number, input, acts, ready_ms: 0, exact }
}

fn order_input(n: u64, journey: &str, exact: bool, shelf: &Shelf, random: &mut Random) -> Json {
    let mut lines = Vec::new();
    let mut total = 0;
    for line in 0..random.between(1, 3) {
        let unit = if exact { random.pick(&shelf.units).0.clone() } else { format!("forced-{n}") };
        let (quantity, price) = (random.between(1, 3), random.between(1, 9) * 700);
        total += quantity * price;
        lines.push(json!({ "line_no": line.to_string(), "sku": unit, "quantity": quantity, "price_minor": price }));
    }
    let free = journey == "free";
    let discount = if free { total } else { random.between(0, total / 2) };
    let user = if exact { random.pick(&shelf.users).0.clone() } else { format!("forced-{n}") };
    let mut input = json!({
        "order_no": format!("N{n}"), "user_id": user, "activity_id": format!("sale-{}", n % 3), "store": "harbour",
        "currency": "CNY", "total_minor": total, "discount_minor": discount,
        "points": if random.chance(40) { random.between(1, 400) } else { 0 },
        "stock_strategy": random.pick(&["reserve", "at_order", "at_payment"]),
        "pay_within_s": random.between(10, 30) * 60,
        "lines": lines,
    });
    if random.chance(40) && exact {
        // Mostly the user's own; at times somebody else's or one that does not exist.
        let own = shelf.coupons.iter().find(|(_, owner)| *owner == user && !random.chance(10));
        let other = random.pick(&shelf.coupons).0.clone();
        let coupon = own.map_or(if random.chance(50) { other } else { "coupon-none".to_owned() }, |(id, _)| id.clone());
        input["coupon_id"] = json!(coupon);
    }
    input
}

fn pay(random: &mut Random) -> Doing {
    let callbacks = random.between(1, 8) as u32;
    Doing::Pay { wrong_by: 0, currency: "CNY", late: false, callbacks }
}

fn cancel(reason: &'static str, role: &'static str) -> Doing {
    Doing::Cancel { reason, role }
}

fn order_acts(number: &str, journey: &str, input: &Json, random: &mut Random) -> Vec<(i64, Doing)> {
    let soon = random.between(0, 20_000);
    let later = random.between(1_000, 5 * MINUTE_MS);
    let mut acts = vec![(random.between(0, 10_000), Doing::Start)];
    match journey {
        "pays" => acts.push((soon, pay(random))),
        "pays_late" => acts.push((
            random.between(31, 60) * MINUTE_MS,
            Doing::Pay { wrong_by: 0, currency: "CNY", late: true, callbacks: 2 },
        )),
        "pays_twice" => acts.extend([(soon, pay(random)), (later, late_money(0, "CNY"))]),
        "pays_wrong_amount" => {
            let wrong_by = *random.pick(&[-1, 1, 500]);
            acts.push((soon, late_money(wrong_by, "CNY")));
            acts.push((later, pay(random)));
        }
        "pays_wrong_currency" => acts.extend([(soon, late_money(0, "USD")), (later, pay(random))]),
        "callback_lost" => {
            acts.push((soon, Doing::Pay { wrong_by: 0, currency: "CNY", late: false, callbacks: 0 }));
        }
        "cancels_before_payment" => acts.push((soon, cancel("user", "owner"))),
        "cancels_after_payment" => acts.extend([(soon, pay(random)), (soon, cancel("user", "owner"))]),
        "cancels_while_paying" => {
            let mut both = [(soon, late_money(0, "CNY")), (0, cancel("user", "owner"))];
            if random.chance(50) {
                both.reverse();
            }
            acts.extend(both);
        }
        "risk_cancels" => acts.extend([(soon, cancel("risk", "risk")), (0, pay(random))]),
        "warehouse_cancels" => acts.extend([(soon, pay(random)), (later / 8, cancel("short_stock", "warehouse"))]),
        refunds if refunds.starts_with("refund") => {
            acts.push((soon, pay(random)));
            acts.extend(refund_acts(number, refunds, input, later, random));
        }
        "starts_again" => acts.extend([(soon / 8, Doing::StartAgain { other_body: false }), (soon, pay(random))]),
        "number_taken" => acts.extend([(soon / 8, Doing::StartAgain { other_body: true }), (soon, pay(random))]),
        "operator_compensates" => acts.extend([(soon, pay(random)), (soon, Doing::Operate(Operation::Compensate))]),
        "operator_forces_completed" => acts.extend([
            (soon, pay(random)),
            (random.between(0, 3_000), Doing::Operate(Operation::Force { end: ForcedEnd::Completed })),
        ]),
        "operator_forces_cancelled" => {
            let force = || Doing::Operate(Operation::Force { end: ForcedEnd::Cancelled });
            acts.extend([(soon, pay(random)), (random.between(0, 3_000), force()), (0, force())]);
        }
        "turned_down" => acts.extend([
            (soon, cancel("user", "risk")),
            (0, cancel("no_such_reason", "owner")),
            (0, cancel("unpaid", "deadline")),
            (0, Doing::Nonsense),
            (0, Doing::Operate(Operation::Wake { step: "no_such_step".to_owned() })),
            (soon, Doing::Operate(Operation::Wake { step: "hold_stock".to_owned() })),
            (soon, cancel("user", "owner")),
            (0, cancel("user", "owner")),
            (3 * MINUTE_MS, Doing::Operate(Operation::Compensate)),
        ]),
        // Nobody does anything more.
        _ => {}
    }
    acts
}

/// What follows on a paid order that its customer sends back, whole or in part.
fn refund_acts(number: &str, journey: &str, input: &Json, later: i64, random: &mut Random) -> Vec<(i64, Doing)> {
    let refund = |n: &str, lines: Json, needs_approval| Doing::Refund {
        refund_no: format!("{number}-{n}"),
        lines,
        needs_approval,
    };
    let whole: Vec<Json> = input["lines"].as_array().into_iter().flatten().map(line_of).collect();
    let some = vec![json!({ "line_no": "0", "quantity": 1 })];
    let refund_no = format!("{number}-a");
    match journey {
        "refunds_lines" => vec![(later, refund("a", json!(some), false))],
        "refunds_whole" => vec![(later, refund("a", json!(whole), false))],
        "refunds_twice" => vec![
            (later, refund("a", json!(whole), false)),
            (random.between(0, later), refund("b", json!(whole), false)),
        ],
        "refund_waits_for_approval" => vec![
            (later, refund("a", json!(some), true)),
            (later, Doing::Approve { refund_no: refund_no.clone(), wrong_first: random.chance(50) }),
            // Past its point of no return, mostly.
            (random.between(0, 20_000), Doing::Withdraw { refund_no }),
        ],
        "refund_withdrawn" => vec![(later, refund("a", json!(some), true)), (later, Doing::Withdraw { refund_no })],
        "refund_never_approved" => vec![(later, refund("a", json!(some), true))],
        // The order has no such line.
        _ => vec![(later, refund("a", json!([{ "line_no": "nine", "quantity": 1 }]), false))],
    }
}

fn line_of(line: &Json) -> Json {
    json!({ "line_no": line["line_no"], "quantity": line["quantity"] })
}

/// Money that comes whatever the order's state.
fn late_money(wrong_by: i64, currency: &'static str) -> Doing {
    Doing::Pay { wrong_by, currency, late: true, callbacks: 3 }
}

fn odd_job(journey: &'static str, job: &str, number: String, random: &mut Random) -> Order {
    let mut input = json!({
        "number": number, "do": "done", "undo": "done", "hint": random.pick(&["done", "silent", "refuse"]),
        "value": 1, "divisor": 2, "sub_fails_at": "",
    });
    let signal = (random.between(0, 4_000), Doing::Signal { value: 1 });
    let mut acts = vec![(random.between(0, 10_000), Doing::Start)];
    match job {
        "sub_fails" => {
            input["sub_fails_at"] = json!("lock");
            acts.push(signal);
        }
        "silent" => input["do"] = json!(random.pick(&["silent", "refuse"])),
        "mismatch" => acts.extend([(random.between(0, 9_000), Doing::Signal { value: 2 }), (70_000, signal.1)]),
        "deadline" => acts.push((300_000, signal.1)),
        "faults" => {
            input["divisor"] = json!(0);
            acts.push(signal);
        }
        "undo_refused" => {
            (input["undo"], input["sub_fails_at"]) = (json!("refuse_once"), json!("lock"));
            acts.push(signal);
        }
        "forced" => {
            (input["undo"], input["divisor"]) = (json!("silent"), json!(0));
            let force = Operation::Force { end: ForcedEnd::Cancelled };
            acts.extend([signal, (0, Doing::OperateWhileGivingBack(force))]);
        }
        "lies" => acts.extend([(random.between(0, 9_000), Doing::Lie), signal]),
        _ => acts.push(signal),
    }
    made(journey, "odd_job", number, input, acts, true)
}
