//! All SQL of the participants. One statement reads or writes all rows that a batch has for one table.

use crate::cells::Change;
use crate::desk::{Call, Desk, Operation};
use crate::effect::{Effect, EffectState, Pledge};
use crate::ledger::{Account, AccountKind, Transfer, TransferKind};
use crate::token::{Token, TokenState};
use endstate_events::Lane;
use endstate_outbox::{Kind, Row, Rows, Statement, Value, Write};
use std::sync::Arc;

/// The effects named, and those that they confirm or undo.
pub(crate) static READ_EFFECTS: Statement = Statement {
    name: "participants.read_effects",
    columns: &[Kind::Text],
    sql: "with r(id) as ({rows}), named as ( \
            select effect.id, effect.of_id from effect join r on effect.id = r.id), \
          wanted(id) as (select id from named union select of_id from named where of_id is not null) \
          select e.id, e.lane, e.participant, e.action, e.body, e.state, e.code, e.data, e.of_id, \
                 e.debit, e.credit, e.amount, e.open_id, e.token, e.time_ms \
          from effect e join wanted on e.id = wanted.id",
};

/// The accounts named, of one shard.
pub(crate) static READ_ACCOUNTS: Statement = Statement {
    name: "participants.read_accounts",
    columns: &[Kind::Text, Kind::Int],
    sql: "with r(id, shard) as ({rows}) \
          select a.id, a.asset, a.owner, a.kind, a.posted, a.pending \
          from r join account a on a.id = r.id and a.shard = r.shard",
};

/// The transfers named, and what resolved them.
pub(crate) static READ_TRANSFERS: Statement = Statement {
    name: "participants.read_transfers",
    columns: &[Kind::Text],
    sql: "with r(id) as ({rows}) \
          select t.id, t.kind, t.debit, t.credit, t.amount, t.refers_to from r join transfer t on t.id = r.id \
          union \
          select t.id, t.kind, t.debit, t.credit, t.amount, t.refers_to from r join transfer t on t.refers_to = r.id",
};

/// The tokens named, whichever shard they are of: a number belongs to one owner only, and somebody else's is refused.
pub(crate) static READ_TOKENS: Statement = Statement {
    name: "participants.read_tokens",
    columns: &[Kind::Text],
    sql: "with r(id) as ({rows}) select t.id, t.owner, t.state, t.holder from r join token t on t.id = r.id",
};

/// The open calls named.
pub(crate) static READ_CALLS: Statement = Statement {
    name: "participants.read_calls",
    columns: &[Kind::Text],
    sql: "with r(id) as ({rows}) select c.id, c.lane, c.command, c.time_ms from r join call c on c.id = r.id",
};

/// All open calls of a shard, the oldest first.
pub(crate) static READ_OPEN_CALLS: Statement = Statement {
    name: "participants.read_open_calls",
    columns: &[Kind::Int, Kind::Text, Kind::Int],
    sql: "with r(shard, after_id, page) as ({rows}) \
          select c.id, c.lane, c.command, c.time_ms from r join call c on c.shard = r.shard and c.id > r.after_id \
          order by c.id limit (select page from r)",
};

/// Open holds that nobody was asked about since a time, and how many open holds there are.
pub(crate) static READ_OLD_HOLDS: Statement = Statement {
    name: "participants.read_old_holds",
    columns: &[Kind::Int, Kind::Int, Kind::Int],
    sql: "with r(shard, before_ms, page) as ({rows}) \
          select e.id, e.lane from effect e, r where e.shard = r.shard and e.state = 'held' and e.asked_ms < r.before_ms \
          order by e.asked_ms limit (select page from r)",
};

static ASKED_HOLDS: Statement = Statement {
    name: "participants.asked_holds",
    columns: &[Kind::Text, Kind::Int],
    sql: "with r(id, now_ms) as ({rows}) update effect set asked_ms = r.now_ms from r where effect.id = r.id",
};

static INSERT_EFFECTS: Statement = Statement {
    name: "participants.insert_effects",
    columns: &[
        Kind::Text,
        Kind::Int,
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Int,
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Int,
        Kind::Text,
        Kind::Text,
        Kind::Int,
    ],
    sql: "with r(id, shard, lane, participant, action, body, state, code, data, of_id, debit, credit, amount, \
                 open_id, token, time_ms) as ({rows}) \
          insert into effect (id, shard, lane, participant, action, body, state, code, data, of_id, debit, credit, \
                 amount, open_id, token, time_ms, asked_ms) \
          select id, shard, lane, participant, action, body, state, code, data, of_id, debit, credit, amount, \
                 open_id, token, time_ms, time_ms from r",
};

/// Carries what was read, because it may have been remembered: each hold of an effect has a pending transfer of its own.
static CHANGE_EFFECTS: Statement = Statement {
    name: "participants.change_effects",
    columns: &[Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Text],
    sql: "with r(id, before, open_before, state, code, data, open_id) as ({rows}) \
          update effect set state = r.state, code = r.code, data = r.data, open_id = r.open_id \
          from r where effect.id = r.id and effect.state = r.before \
          and effect.open_id is not distinct from r.open_before",
};

static INSERT_ACCOUNTS: Statement = Statement {
    name: "participants.insert_accounts",
    columns: &[Kind::Text, Kind::Int, Kind::Text, Kind::Text, Kind::Text, Kind::Int, Kind::Int, Kind::Int],
    sql: "with r(id, shard, asset, owner, kind, may_be_negative, posted, pending) as ({rows}) \
          insert into account (id, shard, asset, owner, kind, may_be_negative, posted, pending) \
          select id, shard, asset, owner, kind, may_be_negative, posted, pending from r",
};

/// Carries what was read, because it may have been remembered: a balance that has moved since is hit by no row.
static CHANGE_ACCOUNTS: Statement = Statement {
    name: "participants.change_accounts",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int, Kind::Int, Kind::Int],
    sql: "with r(id, shard, posted_before, pending_before, posted, pending) as ({rows}) \
          update account set posted = r.posted, pending = r.pending \
          from r where account.id = r.id and account.shard = r.shard \
          and account.posted = r.posted_before and account.pending = r.pending_before",
};

static INSERT_TRANSFERS: Statement = Statement {
    name: "participants.insert_transfers",
    columns: &[Kind::Text, Kind::Int, Kind::Text, Kind::Text, Kind::Text, Kind::Int, Kind::Text, Kind::Int],
    sql: "with r(id, shard, kind, debit, credit, amount, refers_to, time_ms) as ({rows}) \
          insert into transfer (id, shard, kind, debit, credit, amount, refers_to, time_ms) \
          select id, shard, kind, debit, credit, amount, refers_to, time_ms from r",
};

static INSERT_TOKENS: Statement = Statement {
    name: "participants.insert_tokens",
    columns: &[Kind::Text, Kind::Int, Kind::Text, Kind::Text, Kind::Text],
    sql: "with r(id, shard, owner, state, holder) as ({rows}) \
          insert into token (id, shard, owner, state, holder) select id, shard, owner, state, holder from r",
};

static CHANGE_TOKENS: Statement = Statement {
    name: "participants.change_tokens",
    columns: &[Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Text],
    sql: "with r(id, state_before, holder_before, state, holder) as ({rows}) \
          update token set state = r.state, holder = r.holder from r \
          where token.id = r.id and token.state = r.state_before and token.holder is not distinct from r.holder_before",
};

static INSERT_CALLS: Statement = Statement {
    name: "participants.insert_calls",
    columns: &[Kind::Text, Kind::Int, Kind::Text, Kind::Text, Kind::Int],
    sql: "with r(id, shard, lane, command, time_ms) as ({rows}) \
          insert into call (id, shard, lane, command, time_ms) select id, shard, lane, command, time_ms from r",
};

static DELETE_CALLS: Statement = Statement {
    name: "participants.delete_calls",
    columns: &[Kind::Text],
    sql: "with r(id) as ({rows}) delete from call where id in (select id from r)",
};

/// A line that nobody could decide is decided again when it is sent again; every other stays as it is.
static INSERT_OPERATIONS: Statement = Statement {
    name: "participants.insert_operations",
    columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Int],
    sql: "with r(operation, line, shard, action, with_json, verdict, verdict_json, time_ms) as ({rows}) \
          insert into operation (operation, line, shard, action, with_json, verdict, verdict_json, time_ms) \
          select operation, line, shard, action, with_json, verdict, verdict_json, time_ms from r where true \
          on conflict (operation, line) do update set action = excluded.action, with_json = excluded.with_json, \
          verdict = excluded.verdict, verdict_json = excluded.verdict_json, time_ms = excluded.time_ms \
          where operation.verdict = 'unknown'",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[
    &READ_EFFECTS,
    &READ_ACCOUNTS,
    &READ_TRANSFERS,
    &READ_TOKENS,
    &READ_CALLS,
    &READ_OPEN_CALLS,
    &READ_OLD_HOLDS,
    &ASKED_HOLDS,
    &INSERT_EFFECTS,
    &CHANGE_EFFECTS,
    &INSERT_ACCOUNTS,
    &CHANGE_ACCOUNTS,
    &INSERT_TRANSFERS,
    &INSERT_TOKENS,
    &CHANGE_TOKENS,
    &INSERT_CALLS,
    &DELETE_CALLS,
    &INSERT_OPERATIONS,
];

/// Everything the desk changed, as writes in an order that the constraints accept.
pub(crate) fn writes(desk: &Desk, now_ms: i64) -> Vec<Write> {
    let shard = Value::Int(desk.shard.into());
    let mut writes = Writes::default();
    for Change { before, now } in desk.ledger.changed_accounts() {
        match (before, now) {
            (None, Some(account)) => writes.add(&INSERT_ACCOUNTS, new_account(account, &shard)),
            (Some(before), Some(now)) => writes.add(&CHANGE_ACCOUNTS, changed_account(before, now, &shard)),
            (None | Some(_), None) => {}
        }
    }
    for transfer in desk.ledger.new_transfers() {
        writes.add(&INSERT_TRANSFERS, new_transfer(transfer, &shard, now_ms));
    }
    for Change { before, now } in desk.tokens.changes() {
        let Some(now) = now else { continue };
        let (id, state, holder) = (now.id.clone(), now.state.label(), now.holder.clone());
        match before {
            None => writes
                .add(&INSERT_TOKENS, [id.into(), shard.clone(), now.owner.clone().into(), state.into(), holder.into()]),
            Some(before) => writes.add(
                &CHANGE_TOKENS,
                [id.into(), before.state.label().into(), before.holder.clone().into(), state.into(), holder.into()],
            ),
        }
    }
    for Change { before, now } in desk.effects.changes() {
        match (before, now) {
            (None, Some(effect)) => writes.add(&INSERT_EFFECTS, new_effect(effect, &shard)),
            (Some(before), Some(now)) => writes.add(&CHANGE_EFFECTS, changed_effect(before, now)),
            (_, None) => {}
        }
    }
    for Change { before, now } in desk.calls.changes() {
        match (before, now) {
            (None, Some(call)) => writes.add(&INSERT_CALLS, new_call(call, &shard)),
            (Some(before), None) => writes.add(&DELETE_CALLS, [before.id.clone().into()]),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    desk.operations.iter().for_each(|done| writes.add(&INSERT_OPERATIONS, new_operation(done, &shard, now_ms)));
    writes.0
}

/// Marks holds as asked about.
pub(crate) fn asked(holds: &[Arc<str>], now_ms: i64) -> Write {
    let mut rows = Rows::new();
    holds.iter().for_each(|hold| rows.push([hold.clone().into(), now_ms.into()]));
    Write::any(&ASKED_HOLDS, rows)
}

/// Writes in the order in which their statements were first used; each must hit every row.
#[derive(Default)]
struct Writes(Vec<Write>);

impl Writes {
    fn add<const N: usize>(&mut self, statement: &'static Statement, row: [Value; N]) {
        let at = self.0.iter().position(|write| std::ptr::eq(write.statement, statement));
        let at = at.unwrap_or_else(|| {
            // What is known changes, what is new is added: never the same row.
            self.0.push(Write::exact(statement, Rows::new()).apart());
            self.0.len() - 1
        });
        let write = &mut self.0[at];
        write.rows.push(row);
        write.expect = Some(write.rows.len() as u64);
    }
}

fn new_account(account: &Account, shard: &Value) -> [Value; 8] {
    [
        account.id.clone().into(),
        shard.clone(),
        account.asset.clone().into(),
        account.owner.clone().into(),
        account.kind.label().into(),
        i64::from(account.kind.may_be_negative()).into(),
        account.posted.into(),
        account.pending.into(),
    ]
}

fn changed_account(before: &Account, now: &Account, shard: &Value) -> [Value; 6] {
    let [posted_before, pending_before] = [before.posted, before.pending].map(Value::Int);
    [now.id.clone().into(), shard.clone(), posted_before, pending_before, now.posted.into(), now.pending.into()]
}

fn new_transfer(transfer: &Transfer, shard: &Value, now_ms: i64) -> [Value; 8] {
    [
        transfer.id.clone().into(),
        shard.clone(),
        transfer.kind.label().into(),
        transfer.debit.clone().into(),
        transfer.credit.clone().into(),
        transfer.amount.into(),
        transfer.refers_to.clone().into(),
        now_ms.into(),
    ]
}

fn new_effect(effect: &Effect, shard: &Value) -> [Value; 16] {
    let pledge = effect.pledge.as_ref();
    [
        effect.id.clone().into(),
        shard.clone(),
        effect.lane.label().into(),
        effect.participant.clone().into(),
        effect.action.clone().into(),
        effect.body.into(),
        effect.state.label().into(),
        effect.code.clone().into(),
        data(&effect.data),
        effect.of.clone().into(),
        pledge.map(|pledge| pledge.debit.clone()).into(),
        pledge.map(|pledge| pledge.credit.clone()).into(),
        pledge.map(|pledge| pledge.amount).into(),
        pledge.and_then(|pledge| pledge.open.clone()).into(),
        effect.token.clone().into(),
        effect.time_ms.into(),
    ]
}

fn changed_effect(before: &Effect, now: &Effect) -> [Value; 7] {
    let open = |effect: &Effect| effect.pledge.as_ref().and_then(|pledge| pledge.open.clone());
    [
        now.id.clone().into(),
        before.state.label().into(),
        open(before).into(),
        now.state.label().into(),
        now.code.clone().into(),
        data(&now.data),
        open(now).into(),
    ]
}

fn new_call(call: &Call, shard: &Value) -> [Value; 5] {
    let (lane, command) = (call.lane.label(), json(&*call.command));
    [call.id.clone().into(), shard.clone(), lane.into(), command, call.time_ms.into()]
}

fn new_operation(operation: &Operation, shard: &Value, now_ms: i64) -> [Value; 8] {
    let (id, line) = operation.id.rsplit_once('/').unwrap_or((&operation.id, "0"));
    [
        id.into(),
        line.parse::<i64>().unwrap_or_default().into(),
        shard.clone(),
        operation.action.clone().into(),
        json(&operation.with),
        operation.verdict.label().into(),
        json(&operation.verdict),
        now_ms.into(),
    ]
}

/// What came as JSON goes as JSON.
fn json<T: serde::Serialize>(value: &T) -> Value {
    Value::json(value).unwrap_or_else(|_| "".into())
}
fn data(data: &endstate_events::Json) -> Value {
    if data.is_null() { Value::Null } else { json(data) }
}

/// Reads a row of [`READ_EFFECTS`].
pub(crate) fn effect(row: &Row) -> Option<Effect> {
    let [id, lane, participant, action, body, state, code, data, of, debit, credit, amount, open, token, time_ms] =
        row.as_slice()
    else {
        return None;
    };
    let pledge = match (shared(debit), shared(credit), amount.int()) {
        (Some(debit), Some(credit), Some(amount)) => Some(Pledge { debit, credit, amount, open: shared(open) }),
        _ => None,
    };
    Some(Effect {
        id: shared(id)?,
        lane: lane_of(lane)?,
        participant: shared(participant)?,
        action: shared(action)?,
        body: body.int(),
        state: EffectState::ALL.into_iter().find(|known| Some(known.label()) == state.text())?,
        code: shared(code),
        data: data.text().map_or(Ok(endstate_events::Json::Null), serde_json::from_str).ok()?,
        of: shared(of),
        pledge,
        token: shared(token),
        time_ms: time_ms.int()?,
    })
}

/// Reads a row of [`READ_ACCOUNTS`].
pub(crate) fn account(row: &Row) -> Option<Account> {
    let [id, asset, owner, kind, posted, pending] = row.as_slice() else { return None };
    Some(Account {
        id: shared(id)?,
        asset: shared(asset)?,
        owner: shared(owner)?,
        kind: AccountKind::ALL.into_iter().find(|known| Some(known.label()) == kind.text())?,
        posted: posted.int()?,
        pending: pending.int()?,
    })
}

/// Reads a row of [`READ_TRANSFERS`].
pub(crate) fn transfer(row: &Row) -> Option<Transfer> {
    let [id, kind, debit, credit, amount, refers_to] = row.as_slice() else { return None };
    Some(Transfer {
        id: shared(id)?,
        kind: TransferKind::from_label(kind.text()?)?,
        debit: shared(debit)?,
        credit: shared(credit)?,
        amount: amount.int()?,
        refers_to: shared(refers_to),
    })
}

/// Reads a row of [`READ_TOKENS`].
pub(crate) fn token(row: &Row) -> Option<Token> {
    let [id, owner, state, holder] = row.as_slice() else { return None };
    let state = TokenState::ALL.into_iter().find(|known| Some(known.label()) == state.text())?;
    Some(Token { id: shared(id)?, owner: shared(owner)?, state, holder: shared(holder) })
}

/// Reads a row of [`READ_CALLS`] or [`READ_OPEN_CALLS`].
pub(crate) fn call(row: &Row) -> Option<Call> {
    let [id, lane, command, time_ms] = row.as_slice() else { return None };
    let command = Arc::new(serde_json::from_str(command.text()?).ok()?);
    Some(Call { id: shared(id)?, lane: lane_of(lane)?, command, time_ms: time_ms.int()? })
}

/// Reads a row of [`READ_OLD_HOLDS`]: the hold and its lane.
pub(crate) fn old_hold(row: &Row) -> Option<(Arc<str>, Lane)> {
    let [id, lane] = row.as_slice() else { return None };
    Some((shared(id)?, lane_of(lane)?))
}

fn shared(value: &Value) -> Option<Arc<str>> {
    if let Value::Text(text) = value { Some(text.clone()) } else { None }
}

fn lane_of(value: &Value) -> Option<Lane> {
    Lane::labelled(value.text()?)
}
