//! All SQL of sagas: what a batch reads and what it writes.

use crate::orphan::{self, Orphan};
use endstate_events::SagaId;
use endstate_outbox::{Alert, Kind, Row, Rows, Statement, Store, StoreError, Value, Write, alert};
use endstate_saga::control::Phase;
use endstate_saga::event::Event;
use endstate_saga::saga::Saga;
use std::sync::Arc;

static LOAD_SAGAS: Statement = Statement {
    name: "saga.load",
    columns: &[Kind::Id],
    sql: "with r(id) as ({rows}) select s.id, s.state, s.due from saga s join r on s.id = r.id",
};

/// The same for those who wait: of a saga that goes on by itself nobody needs the state. The phases are those of
/// [`Notice::is_settled`](crate::waiters::Notice::is_settled).
static LOOK: Statement = Statement {
    name: "saga.look",
    columns: &[Kind::Id],
    sql: "with r(id) as ({rows}) select s.id, case when s.phase in ('waiting', 'parked', 'ended') then s.state end, s.due \
          from saga s join r on s.id = r.id",
};

static LOAD_NUMBERS: Statement = Statement {
    name: "saga_number.load",
    columns: &[Kind::Text, Kind::Text],
    sql: "with r(definition, number) as ({rows}) select n.definition, n.number, n.saga, n.body_hash \
          from saga_number n join r on n.definition = r.definition and n.number = r.number",
};

/// Due sagas of a shard, and the first that is due later, so that one read also tells when to look again.
static DUE: Statement = Statement {
    name: "saga.due",
    columns: &[Kind::Int, Kind::Int],
    sql: "with r(shard, page) as ({rows}) select s.id, s.due from saga s where \
          s.shard = (select shard from r) and s.due is not null order by s.due limit (select page from r)",
};

/// The same as [`is_in_motion`].
static IN_MOTION: Statement = Statement {
    name: "saga.in_motion",
    columns: &[Kind::Int],
    sql: "with r(shard) as ({rows}) select count(*) from saga s join r on s.shard = r.shard where s.due is not null \
          and s.phase in ('running', 'compensating', 'reversing')",
};

/// A number is claimed once: a second claim breaks the key, and the batch is decided again with the first one known.
static CLAIM: Statement = Statement {
    name: "saga_number.claim",
    columns: &[Kind::Text, Kind::Text, Kind::Id, Kind::Text],
    sql: "with r(definition, number, saga, body_hash) as ({rows}) \
          insert into saga_number (definition, number, saga, body_hash) \
          select definition, number, saga, body_hash from r where true order by definition, number \
          on conflict (definition, number) do nothing",
};

static INSERT_SAGAS: Statement = Statement {
    name: "saga.insert",
    columns: &[Kind::Id, Kind::Int, Kind::Int, Kind::Text, Kind::Int, Kind::Text],
    sql: "with r(id, shard, version, phase, due, state) as ({rows}) \
          insert into saga (id, shard, version, phase, due, state) select * from r where true on conflict (id) do nothing",
};

static UPDATE_SAGAS: Statement = Statement {
    name: "saga.update",
    columns: &[Kind::Id, Kind::Int, Kind::Int, Kind::Text, Kind::Int, Kind::Text],
    sql: "with r(id, before, version, phase, due, state) as ({rows}) update saga set version = r.version, \
          phase = r.phase, due = r.due, state = r.state from r where saga.id = r.id and saga.version = r.before",
};

/// Moves a timer, and nothing else: of a saga whose row or definition nobody here can read.
static PUT_OFF: Statement = Statement {
    name: "saga.put_off",
    columns: &[Kind::Id, Kind::Int],
    sql: "with r(id, due) as ({rows}) update saga set due = r.due from r where saga.id = r.id",
};

static INSERT_EVENTS: Statement = Statement {
    name: "event.insert",
    columns: &[Kind::Int, Kind::Int, Kind::Id, Kind::Int, Kind::Int, Kind::Int, Kind::Text],
    sql: "with r(shard, seq, saga, version, events, time_ms, body) as ({rows}) \
          insert into event (shard, seq, saga, version, events, time_ms, body) select * from r",
};

/// Where a saga's last snapshot is: the version of its row of events. Days of events ask for it, nobody else does.
static PUT_SNAPSHOTS: Statement = Statement {
    name: "snapshot.put",
    columns: &[Kind::Id, Kind::Int, Kind::Int],
    sql: "with r(saga, version, time_ms) as ({rows}) insert into snapshot (saga, version, time_ms) \
          select saga, version, time_ms from r where true \
          on conflict (saga) do update set version = excluded.version, time_ms = excluded.time_ms",
};

static INSERT_DISCREPANCIES: Statement = Statement {
    name: "discrepancy.insert",
    columns: &[Kind::Id, Kind::Text, Kind::Text, Kind::Text, Kind::Int],
    sql: "with r(saga, kind, effect_id, detail, time_ms) as ({rows}) \
          insert into discrepancy (saga, kind, effect_id, detail, time_ms) select * from r",
};

static TIMELINE: Statement = Statement {
    name: "event.timeline",
    columns: &[Kind::Id],
    sql: "with r(saga) as ({rows}) select e.version, e.time_ms, e.body from event e join r on e.saga = r.saga \
          order by e.version",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[
    &LOAD_SAGAS,
    &LOOK,
    &LOAD_NUMBERS,
    &DUE,
    &IN_MOTION,
    &CLAIM,
    &INSERT_SAGAS,
    &UPDATE_SAGAS,
    &INSERT_EVENTS,
    &PUT_SNAPSHOTS,
    &INSERT_DISCREPANCIES,
    &PUT_OFF,
    &TIMELINE,
];

/// A saga's row.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The saga.
    pub saga: Saga,
    /// The `due` of its row: never later than the saga's own, see [`due`].
    pub due_ms: Option<i64>,
    /// How long its row is.
    pub bytes: usize,
}

/// An earlier claim of a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Who holds it.
    pub saga: SagaId,
    /// The body it was claimed with.
    pub body_hash: Arc<str>,
}

fn unreadable(statement: &Statement, reason: impl ToString) -> StoreError {
    StoreError::Failed { statement: statement.name.to_owned(), reason: reason.to_string() }
}

/// Loads the sagas that exist among `ids`.
pub async fn load_sagas(store: &dyn Store, ids: &[SagaId]) -> Result<Vec<Stored>, StoreError> {
    load_each(store, ids).await?.into_iter().map(|(_, stored)| stored).collect()
}

/// Loads the sagas that exist among `ids`; a row that cannot be read does not hide the others.
pub async fn load_each(
    store: &dyn Store,
    ids: &[SagaId],
) -> Result<Vec<(SagaId, Result<Stored, StoreError>)>, StoreError> {
    let mut rows = Rows::new();
    ids.iter().for_each(|id| rows.push([id.0.into()]));
    let rows = if ids.is_empty() { Vec::new() } else { store.read(&LOAD_SAGAS, rows).await? };
    rows.iter().map(|row| stored(row)).collect()
}

fn stored(row: &[Value]) -> Result<(SagaId, Result<Stored, StoreError>), StoreError> {
    let [Value::Id(id), Value::Text(state), due] = row else {
        return Err(unreadable(&LOAD_SAGAS, "a row has another shape"));
    };
    let saga = serde_json::from_str(state).map_err(|error| unreadable(&LOAD_SAGAS, error));
    Ok((SagaId(*id), saga.map(|saga| Stored { saga, due_ms: due.int(), bytes: state.len() })))
}

/// The sagas that exist among `ids`, each with what it came to when it is settled; none also when its row cannot be read.
pub async fn look(store: &dyn Store, ids: &[SagaId]) -> Result<Vec<(SagaId, Option<Saga>)>, StoreError> {
    let mut rows = Rows::new();
    ids.iter().for_each(|id| rows.push([id.0.into()]));
    let looked = |row: &Row| match row.as_slice() {
        [Value::Id(id), Value::Null, _] => Ok((SagaId(*id), None)),
        row => stored(row).map(|(id, stored)| (id, stored.ok().map(|stored| stored.saga))),
    };
    store.read(&LOOK, rows).await?.iter().map(looked).collect()
}

/// Finds earlier claims of (definition, number).
pub async fn load_numbers(
    store: &dyn Store,
    numbers: &[(&str, &str)],
) -> Result<Vec<((String, String), Claimed)>, StoreError> {
    let mut rows = Rows::new();
    numbers.iter().for_each(|(definition, number)| rows.push([(*definition).into(), (*number).into()]));
    let rows = if numbers.is_empty() { Vec::new() } else { store.read(&LOAD_NUMBERS, rows).await? };
    let claim = |row: Row| match row.as_slice() {
        [Value::Text(definition), Value::Text(number), Value::Id(saga), Value::Text(body_hash)] => {
            let claimed = Claimed { saga: SagaId(*saga), body_hash: Arc::clone(body_hash) };
            Ok(((definition.to_string(), number.to_string()), claimed))
        }
        _ => Err(unreadable(&LOAD_NUMBERS, "a row has another shape")),
    };
    rows.into_iter().map(claim).collect()
}

/// The shard's sagas with the earliest timers, at most `page`: (id, due).
pub async fn load_due(store: &dyn Store, shard: u16, page: usize) -> Result<Vec<(SagaId, i64)>, StoreError> {
    let rows = Rows::one([i64::from(shard).into(), (page as i64).into()]);
    let due = |row: Row| match row.as_slice() {
        [Value::Id(id), Value::Int(due)] => Ok((SagaId(*id), *due)),
        _ => Err(unreadable(&DUE, "a row has another shape")),
    };
    store.read(&DUE, rows).await?.into_iter().map(due).collect()
}

/// Whether a saga is in motion: it goes on by itself as soon as a command is answered. One that waits or is parked is not,
/// whatever else is under way. Known from its row alone, so that it can be counted.
#[must_use]
pub fn is_in_motion(phase: Phase, due_ms: Option<i64>) -> bool {
    match phase {
        Phase::Running | Phase::Compensating | Phase::Reversing => due_ms.is_some(),
        Phase::Waiting | Phase::Parked | Phase::Ended => false,
    }
}

/// How many sagas of the shard are in motion.
pub async fn count_in_motion(store: &dyn Store, shard: u16) -> Result<usize, StoreError> {
    let rows = store.read(&IN_MOTION, Rows::one([i64::from(shard).into()])).await?;
    let count = rows.first().and_then(|row| row.first()).and_then(Value::int).unwrap_or(0);
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Events of one saga in order: the version before each, when, and the events as JSON.
pub async fn load_timeline(store: &dyn Store, saga: SagaId) -> Result<Vec<(u64, i64, Vec<Event>)>, StoreError> {
    let rows = store.read(&TIMELINE, Rows::one([saga.0.into()])).await?;
    let entry = |row: Row| match row.as_slice() {
        [Value::Int(version), Value::Int(time_ms), Value::Text(body)] => {
            let events = serde_json::from_str(body).map_err(|error| unreadable(&TIMELINE, error))?;
            Ok((u64::try_from(*version).unwrap_or(0), *time_ms, events))
        }
        _ => Err(unreadable(&TIMELINE, "a row has another shape")),
    };
    rows.into_iter().map(entry).collect()
}

/// The `due` to store: it only moves earlier (an early firing arms again), so that most updates leave the index alone.
#[must_use]
pub fn due(stored_ms: Option<i64>, wanted_ms: Option<i64>) -> Option<i64> {
    match (stored_ms, wanted_ms) {
        (Some(stored), Some(wanted)) => Some(stored.min(wanted)),
        (_, wanted) => wanted,
    }
}

/// The rows of one batch, collected saga by saga.
#[derive(Debug, Default)]
pub struct Pages {
    claims: Rows,
    inserts: Rows,
    updates: Rows,
    events: Rows,
    snapshots: Rows,
    orphans: Rows,
    adopted: Rows,
    discrepancies: Rows,
    put_off: Rows,
    alerts: Vec<Alert>,
}

impl Pages {
    /// Claims a number for a saga.
    pub fn claim(&mut self, definition: &str, number: &str, saga: SagaId, body_hash: &str) {
        self.claims.push([definition.into(), number.into(), saga.0.into(), body_hash.into()]);
    }

    /// Writes a saga's row: inserted when `before` is none, else guarded by the version that was read. Returns its bytes.
    pub fn saga(
        &mut self,
        shard: u16,
        before: Option<u64>,
        saga: &Saga,
        phase: Phase,
        due_ms: Option<i64>,
    ) -> Result<usize, StoreError> {
        let state = Value::json(saga).map_err(|error| unreadable(&UPDATE_SAGAS, error))?;
        let bytes = state.text().map_or(0, str::len);
        let (id, version) = (saga.id.0.into(), (saga.version as i64).into());
        let phase = phase.label().into();
        match before {
            None => self.inserts.push([id, i64::from(shard).into(), version, phase, due_ms.into(), state]),
            Some(before) => {
                self.updates.push([id, (before as i64).into(), version, phase, due_ms.into(), state]);
            }
        }
        Ok(bytes)
    }

    /// Writes a saga's events of this batch: one row.
    pub fn events(
        &mut self,
        shard: u16,
        seq: i64,
        saga: SagaId,
        before: u64,
        time_ms: i64,
        events: &[Event],
    ) -> Result<(), StoreError> {
        let body = Value::json(events).map_err(|error| unreadable(&INSERT_EVENTS, error))?;
        self.events.push([
            i64::from(shard).into(),
            seq.into(),
            saga.0.into(),
            (before as i64).into(),
            (events.len() as i64).into(),
            time_ms.into(),
            body,
        ]);
        Ok(())
    }

    /// Remembers that the row of events behind version `before` holds a snapshot.
    pub fn snapshot(&mut self, saga: SagaId, before: u64, time_ms: i64) {
        self.snapshots.push([saga.0.into(), (before as i64).into(), time_ms.into()]);
    }

    /// Keeps an input whose saga is unknown.
    pub fn orphan(&mut self, shard: u16, orphan: &Orphan, now_ms: i64) {
        let Orphan { saga, envelope, .. } = orphan;
        let body = serde_json::to_string(envelope).unwrap_or_default();
        let (shard, time_ms) = (i64::from(shard), envelope.time_ms);
        self.orphans.push([shard.into(), saga.0.into(), time_ms.into(), now_ms.into(), body.into()]);
    }

    /// Forgets an orphan that its saga was given.
    pub fn adopted(&mut self, orphan: i64) {
        self.adopted.push([orphan.into()]);
    }

    /// Writes a discrepancy.
    pub fn discrepancy(&mut self, saga: SagaId, kind: &str, effect_id: Option<String>, text: &str, time_ms: i64) {
        self.discrepancies.push([saga.0.into(), kind.into(), effect_id.into(), text.into(), time_ms.into()]);
    }

    /// Has a saga that stands still looked at again later.
    pub fn put_off(&mut self, saga: SagaId, due_ms: i64) {
        self.put_off.push([saga.0.into(), due_ms.into()]);
    }

    /// Tells people.
    pub fn alert(&mut self, alert: Alert) {
        self.alerts.push(alert);
    }

    /// All of it as bulk writes.
    #[must_use]
    pub fn into_writes(self) -> Vec<Write> {
        let pages = [
            (&CLAIM, self.claims),
            (&INSERT_SAGAS, self.inserts),
            (&UPDATE_SAGAS, self.updates),
            (&INSERT_EVENTS, self.events),
            (&PUT_SNAPSHOTS, self.snapshots),
            (&orphan::INSERT, self.orphans),
            (&orphan::DELETE, self.adopted),
            (&INSERT_DISCREPANCIES, self.discrepancies),
            (&PUT_OFF, self.put_off),
        ];
        let rows = pages.into_iter().filter(|(_, rows)| !rows.is_empty()).map(|(s, rows)| Write::exact(s, rows));
        // A saga is new, or known, or put off.
        let rows = rows.map(Write::apart);
        rows.chain(alert::write(&self.alerts)).collect()
    }
}
