//! Short ways to say what a saga sends, and a desk that keeps everything, as a store would.

use endstate_events::*;
use endstate_outbox::{Shard, Turn};
use endstate_participants::Participants;
use endstate_participants::decide;
use endstate_participants::desk::{Desk, Job};
use endstate_participants::operation::{self, Line};
use serde_json::json;
use std::sync::Arc;

pub(crate) const NOW_MS: i64 = 1_800_000_000_000;

pub(crate) fn saga(n: u64) -> SagaId {
    SagaId::mint(NOW_MS, Slot::of(&format!("saga-{n}")), n)
}

/// A command of saga `n`; its step is the action's name.
pub(crate) fn tell(n: u64, call: &str, key: &str, with: Json) -> Command {
    let (participant, action) = call.split_once('.').unwrap();
    let saga = saga(n);
    let step = format!("{participant}_{action}");
    Command {
        effect_id: EffectId { saga, step, item: String::new(), direction: Direction::Do, round: 0 },
        kind: CommandKind::Do,
        participant: participant.into(),
        action: action.into(),
        number: n.to_string(),
        definition: "test".into(),
        definition_version: 1,
        key: key.into(),
        with,
        of: None,
        reply_to: ReplyTo { topic: Topic::Progress, partition: 0 },
    }
}

/// `action` about what `command` made: a confirm.
pub(crate) fn about(action: &str, command: &Command) -> Command {
    Command {
        with: json!({}),
        of: Some(Forward { effect_id: command.effect_id.clone(), with: command.with.clone(), reply: Json::Null }),
        ..tell_like(action, command)
    }
}

/// The undo of `command`.
pub(crate) fn undo(action: &str, command: &Command) -> Command {
    Command {
        effect_id: EffectId { direction: Direction::Undo, ..command.effect_id.clone() },
        kind: CommandKind::Undo,
        action: action.into(),
        of: Some(Forward { effect_id: command.effect_id.clone(), with: command.with.clone(), reply: Json::Null }),
        ..command.clone()
    }
}

pub(crate) fn ask(command: &Command) -> Command {
    Command { kind: CommandKind::Ask, ..command.clone() }
}

fn tell_like(action: &str, command: &Command) -> Command {
    let step = format!("{}_{action}", command.participant);
    Command { effect_id: EffectId { step, ..command.effect_id.clone() }, action: action.into(), ..command.clone() }
}

pub(crate) fn hold_stock(n: u64, unit: &str, quantity: i64) -> Command {
    tell(n, "stock.hold", unit, json!({ "unit": unit, "quantity": quantity }))
}

pub(crate) fn hold_coupon(n: u64, coupon: &str, user: &str) -> Command {
    tell(n, "coupon.hold", user, json!({ "coupon": coupon, "user": user }))
}

pub(crate) fn points(n: u64, action: &str, user: &str, points: i64) -> Command {
    tell(n, &format!("points.{action}"), user, json!({ "user": user, "points": points }))
}

/// An operator's change, as the command it becomes.
pub(crate) fn change(operation: &str, call: &str, with: Json) -> Command {
    let (participant, action) = call.split_once('.').unwrap();
    let line = Line { participant: participant.into(), action: action.into(), with };
    let mut messages = operation::messages(operation, &[line], Lane::Live, 4, NOW_MS).unwrap();
    match Arc::unwrap_or_clone(messages.remove(0).envelope).message {
        Message::Command(command) => command,
        other => panic!("{other:?}"),
    }
}

/// Decides a command; `None` while an outside party is called.
pub(crate) fn decide_on(desk: &mut Desk, command: &Command) -> Option<Verdict> {
    let id = command.effect_id.to_string().into();
    decide::decide(desk, &Job { command, id: &id, lane: Lane::Live, shard: desk.shard, now_ms: NOW_MS })
}

/// The answer in short: `done`, a refusal's code, `unknown`, `never_seen` or `calling`.
pub(crate) fn says(desk: &mut Desk, command: &Command) -> String {
    match decide_on(desk, command) {
        Some(Verdict::Refused { code, .. }) => code,
        Some(verdict) => verdict.label().to_owned(),
        None => "calling".to_owned(),
    }
}

/// A desk with ten units of A (and five on standby), a coupon and 100 points for ann.
pub(crate) fn opened() -> Desk {
    let mut desk = Desk::default();
    for (index, (call, with)) in [
        ("stock.open", json!({ "unit": "A", "quantity": 10 })),
        ("stock.open", json!({ "unit": "A", "quantity": 5, "standby": true })),
        ("coupon.open", json!({ "coupon": "C", "user": "ann" })),
        ("points.adjust", json!({ "user": "ann", "delta": 100 })),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(says(&mut desk, &change(&format!("open-{index}"), call, with)), "done");
    }
    desk
}

/// (posted, pending) of an account; zero when there is none.
pub(crate) fn balance(desk: &Desk, account: &str) -> (i64, i64) {
    desk.ledger.account(account).map_or((0, 0), |account| (account.posted, account.pending))
}

/// Turns of one shard until it is idle at most; the longest test takes some dozens.
const TURNS: u32 = 1_000;

/// Doubts in a row at most: here no store fails for long.
const DOUBTS: u32 = 20;

/// What a shard still did when its bounds were used up.
pub(crate) async fn until_idle(shard: &mut Shard<Participants>) -> Option<Turn> {
    let mut doubts = 0;
    let mut last = Turn::Idle;
    for _ in 0..TURNS {
        last = shard.turn().await;
        doubts = if matches!(last, Turn::Wait(_)) { doubts + 1 } else { 0 };
        if last == Turn::Idle {
            return None;
        }
        if doubts == DOUBTS {
            break;
        }
    }
    Some(last)
}
