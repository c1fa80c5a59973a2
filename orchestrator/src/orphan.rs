//! Orphans: inputs whose saga nobody knows. They may be money (a callback for an archived order), so they are kept, tried
//! again, and told of; nothing is dropped. And starts of a version that the shard's owner cannot read: in an upgrade, a newer
//! program can.
//!
//! A saga that starts is given its orphans at once, in the order in which they came ([`rows`]): starts lie in another topic
//! than what follows them, so that after a failover to an older state the two may be read in another order (Z14). The job
//! sends what is left.

mod rows;

pub use rows::{Awaited, Orphan};
pub(crate) use rows::{DELETE, INSERT, load};

use crate::consume::start_of;
use crate::gateway::Gateway;
use crate::job::{Job, Report};
use async_trait::async_trait;
use endstate_events::{ACTIVE_VERSION, Envelope, SagaId, Start, Topic};
use endstate_outbox::{Alert, Commit, CommitError, Kind, Outgoing, Row, Rows, Statement, StoreError, Write, alert};
use rows::{OF_SAGAS, SAGAS};
use serde_json::json;
use std::sync::Arc;

/// Orphans that one run takes because it is their turn, and at most as many more because their saga has turned up.
const PAGE: i64 = 500;

/// Orphans of which one run looks whether their saga has turned up: most of many wait for one that nobody knows.
const AHEAD: i64 = 20_000;

static WAITING: Statement = Statement {
    name: "orphan.waiting",
    columns: &[Kind::Int, Kind::Int],
    // A probe of `saga` per row, not a join: PostgreSQL might read all sagas for that.
    sql: "with r(page, ahead) as ({rows}), \
          turn as (select id, saga, tries, tried_ms from orphan order by (tries > 0), tried_ms, id \
          limit (select ahead from r)), \
          first as (select id from turn order by (tries > 0), tried_ms, id limit (select page from r)), \
          known as (select id from turn where (select 1 from saga s where s.id = turn.saga) is not null \
          order by tried_ms, id limit (select page from r)) \
          select o.id, o.saga, o.time_ms, o.tries, o.body, exists (select 1 from saga s where s.id = o.saga) \
          from orphan o where o.id in (select id from first union select id from known) order by o.id",
};

static TRIED: Statement = Statement {
    name: "orphan.tried",
    columns: &[Kind::Int, Kind::Id, Kind::Int],
    sql: "with r(id, saga, now_ms) as ({rows}) update orphan set tries = tries + 1, tried_ms = r.now_ms from r \
          where orphan.id = r.id and orphan.saga = r.saga",
};

/// Of this saga: a shard may have given it the orphan meanwhile, and an embedded store gives ids again.
static SENT: Statement = Statement {
    name: "orphan.sent",
    columns: &[Kind::Int, Kind::Id],
    sql: "with r(id, saga) as ({rows}) delete from orphan \
          where exists (select 1 from r where r.id = orphan.id and r.saga = orphan.saga)",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&WAITING, &TRIED, &SENT, &INSERT, &DELETE, &SAGAS, &OF_SAGAS];

/// Sends orphans whose saga has turned up, and tells people of the others.
pub struct Orphans {
    gateway: Gateway,
}

struct Waiting {
    id: i64,
    saga: SagaId,
    time_ms: i64,
    tries: i64,
    /// None when it cannot be read: a newer program may have written it.
    envelope: Option<Arc<Envelope>>,
    has_saga: bool,
}

impl Waiting {
    /// The start that it is, if it is one.
    fn start(&self) -> Option<&Start> {
        start_of(self.envelope.as_ref()?.message.as_input()?)
    }

    /// What people know it by.
    fn name(&self) -> String {
        self.envelope.as_ref().map_or_else(|| format!("row {}", self.id), |envelope| envelope.id.clone())
    }

    /// Where it is sent: what sagas start is not held back among new starts.
    fn topic(&self) -> Topic {
        let is_new = self.start().is_some_and(|start| start.link.as_ref().is_none_or(|link| link.caller.is_none()));
        if is_new { Topic::Start } else { Topic::Progress }
    }
}

impl Orphans {
    /// A job over the gateway's store.
    #[must_use]
    pub fn new(gateway: Gateway) -> Self {
        Self { gateway }
    }
}

impl Waiting {
    fn alert(&self, now_ms: i64) -> Alert {
        let id = self.name();
        let time_ms = self.envelope.as_ref().map_or(self.time_ms, |envelope| envelope.time_ms);
        let text = match self.start() {
            _ if self.envelope.is_none() => format!("the input in {id} of orphan cannot be read, and waits"),
            Some(Start { definition, version: ACTIVE_VERSION, .. }) => {
                format!("start {id} waits for a program that can read the active version of {definition}")
            }
            Some(Start { definition, version, .. }) => {
                format!("start {id} waits for a program that can read version {version} of {definition}")
            }
            None => format!("input {id} waits for a saga that nobody knows"),
        };
        Alert::new("orphan", &[&self.saga, &id, &time_ms], text, now_ms).of(self.saga, "".into(), "".into())
    }
}

#[async_trait]
impl Job for Orphans {
    fn name(&self) -> &'static str {
        "orphans"
    }

    fn about(&self) -> &'static str {
        "sends inputs whose saga has turned up, and tells people of the others"
    }

    async fn run(&self, now_ms: i64, dry_run: bool) -> Result<Report, StoreError> {
        let store = self.gateway.store();
        let mut report = Report::default();
        let (mut found, mut tried, mut messages, mut alerts) = (Rows::new(), Rows::new(), Vec::new(), Vec::new());
        let rows = store.read(&WAITING, Rows::one([PAGE.into(), AHEAD.into()])).await?;
        let orphans: Vec<Waiting> = rows.iter().filter_map(waiting).collect();
        let definitions = self.gateway.definitions();
        let versions =
            orphans.iter().filter_map(|orphan| orphan.start().map(|start| (&*start.definition, start.version)));
        definitions.ensure(versions).await?;
        for orphan in orphans {
            let can_start = orphan.start().is_some_and(|start| definitions.of_start(start).is_ok());
            let ready = orphan.envelope.clone().filter(|_| orphan.has_saga || can_start);
            report.found += 1;
            let detail = json!({ "orphan": orphan.name(), "saga": orphan.saga, "sent": ready.is_some() });
            report.details.push(detail);
            if let Some(envelope) = ready {
                let (topic, partition) = (orphan.topic(), orphan.saga.slot().partition(store.partitions()));
                found.push([orphan.id.into(), orphan.saga.0.into()]);
                messages.push(Outgoing { topic, partition, envelope });
            } else {
                tried.push([orphan.id.into(), orphan.saga.0.into(), now_ms.into()]);
                if orphan.tries == 0 {
                    alerts.push(orphan.alert(now_ms));
                }
            }
        }
        if dry_run || report.found == 0 {
            return Ok(report);
        }
        report.changed = found.len();
        let writes = [Write::any(&SENT, found), Write::exact(&TRIED, tried)];
        let writes = writes.into_iter().filter(|write| !write.rows.is_empty()).chain(alert::write(&alerts)).collect();
        let failed = |reason: String| StoreError::Failed { statement: "orphan.run".to_owned(), reason };
        // Sent first: what is sent and not deleted is sent again, and its saga knows it by its id.
        self.gateway.bus().produce(messages).await.map_err(|error| failed(error.to_string()))?;
        match store.commit(Commit { writes, ..Commit::default() }).await {
            // One has been given to its saga meanwhile: nobody is told of it. The next run does the rest again.
            Ok(_) | Err(CommitError::Conflict { .. }) => Ok(report),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

fn waiting(row: &Row) -> Option<Waiting> {
    let [id, saga, time_ms, tries, body, has_saga] = row.as_slice() else { return None };
    Some(Waiting {
        id: id.int()?,
        saga: SagaId(saga.id()?),
        time_ms: time_ms.int()?,
        tries: tries.int()?,
        envelope: serde_json::from_str(body.text()?).ok(),
        has_saga: has_saga.int()? == 1,
    })
}
