//! What operators look at: dead letters, shards.

use super::model::Page;
use super::{Api, refuse};
use crate::listen;
use axum::Json as Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use endstate_events::{Envelope, Message, Side, Topic};
use endstate_http::guard::StrictJson;
use endstate_http::problem::ProblemBody;
use endstate_http::{Allowed, Code, Fields, Params, Problem, Timestamp, scope};
use endstate_outbox::dead_letter::{self, Replay};
use endstate_outbox::{Kind, Outgoing, Rows, Statement};
use serde::Serialize;
use utoipa::ToSchema;

static SHARDS: Statement = Statement {
    name: "api.list_shards",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select s.side, s.shard, s.epoch, s.position_start, s.position_progress, s.next_seq, \
          coalesce(p.seq, 0) \
          from r cross join shard s left join projection p on p.shard = s.shard and s.side = 'orchestrator' \
          order by s.side, s.shard",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&SHARDS];

/// A record that nobody could handle.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeadLetterBody {
    /// Its id.
    #[schema(example = 1)]
    pub id: i64,
    /// Whose shard read it: `orchestrator` or `participants`.
    #[schema(example = "orchestrator")]
    pub side: &'static str,
    /// The topic.
    #[schema(example = "progress")]
    pub topic: &'static str,
    /// Its place there.
    pub partition: u16,
    /// Its place there.
    pub offset: i64,
    /// The record.
    pub bytes: String,
    /// Why.
    pub reason: String,
    /// When it was put aside.
    pub at: Timestamp,
    /// When it was sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed_at: Option<Timestamp>,
    /// Who sent it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed_by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_reason: Option<String>,
}

/// One shard: who owns it and how far it has got.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ShardBody {
    /// `orchestrator` or `participants`.
    pub side: String,
    /// Its number.
    pub shard: i64,
    /// How often it was assigned.
    pub epoch: i64,
    /// Next position to read in `start`; over Kafka 1024 times the offset, plus the message in that record.
    pub position_start: i64,
    /// The same in `progress`; for participants, in `commands`.
    pub position_progress: i64,
    /// Next sequence number of its events.
    pub next_seq: i64,
    /// Events that the view has not met.
    pub view_behind: i64,
}

/// The cursor of a list whose entries have numbers.
pub(super) fn id_cursor(params: &mut Params) -> Result<Option<i64>, Problem> {
    let Some(text) = params.text("cursor") else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Problem::new(Code::InvalidCursor, "this is not a cursor of ours"))
}

/// List dead letters, oldest first.
#[utoipa::path(
    get, path = "/v1/dead-letters", operation_id = "listDeadLetters", tag = "system",
    params(("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page", body = Page<DeadLetterBody>)),
    security(("token" = ["audit:read"]))
)]
pub async fn dead_letters(
    State(api): State<Api>,
    _allowed: Allowed<scope::AuditRead>,
    mut params: Params,
) -> Result<Body<Page<DeadLetterBody>>, Problem> {
    let limit = params.integer("limit", 1..=200)?.unwrap_or(50);
    let after = id_cursor(&mut params)?.unwrap_or(0);
    params.finish()?;
    let found = dead_letter::list(&**api.gateway.store(), after, limit).await.map_err(refuse::store)?;
    let next = found.last().filter(|_| found.len() as i64 == limit).map(|last| last.id.to_string());
    let side = |topic| match topic {
        Topic::Commands => Side::Participants.label(),
        Topic::Start | Topic::Progress | Topic::Events | Topic::DeadLetters => Side::Orchestrator.label(),
        Topic::Foreign(_) => "foreign",
    };
    let item = |stored: dead_letter::Stored| DeadLetterBody {
        id: stored.id,
        side: side(stored.letter.topic),
        topic: stored.letter.topic.label(),
        partition: stored.letter.partition,
        offset: stored.letter.offset,
        bytes: stored.letter.bytes,
        reason: stored.letter.reason,
        at: Timestamp(stored.letter.time_ms),
        replayed_at: stored.replayed_ms.map(Timestamp),
        replayed_by: stored.replayed.as_ref().map(|replay| replay.by.clone()),
        replay_reason: stored.replayed.map(|replay| replay.reason),
    };
    Ok(Body(Page { items: found.into_iter().map(item).collect(), next, lag_ms: None }))
}

/// What a replay did.
#[derive(Debug, Serialize, ToSchema)]
pub struct Replayed {
    /// The dead letter.
    pub id: i64,
    /// Who sent it again.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Send a dead letter to its partition again.
///
/// What still cannot be handled becomes another dead letter. Who and why stays with the letter.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/replay", operation_id = "replayDeadLetter", tag = "operators",
    params(("id" = i64, Path)),
    request_body = super::act::ReasonCall,
    responses(
        (status = 202, description = "Queued durably", body = Replayed),
        (status = 404, description = "E2205", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("token" = ["sagas:operate"]))
)]
pub async fn replay(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::SagasOperate>,
    Path(id): Path<String>,
    StrictJson(body): StrictJson,
) -> Result<(StatusCode, Body<Replayed>), Problem> {
    let mut fields = Fields::of(body)?;
    let reason = fields.text("reason", 1..=500);
    fields.finish()?;
    let id = id.parse().map_err(|_| Problem::new(Code::UnknownDeadLetter, "ids of dead letters are numbers"))?;
    let now_ms = api.gateway.clock().now_ms();
    let wish = Replay { by: caller.subject, reason };
    let again = async |letter: Outgoing| again(&api, letter).await;
    dead_letter::replay(&**api.gateway.store(), &**api.gateway.bus(), id, &wish, now_ms, again)
        .await
        .map_err(refuse::replay)?;
    let Replay { by, reason } = wish;
    tracing::info!(id, by, reason, "a dead letter was replayed");
    Ok((StatusCode::ACCEPTED, Body(Replayed { id, by, reason })))
}

/// What is sent for a letter. One of another team's topic is never written there: what it means is queued here. Who speaks in
/// that topic the configuration says, never the letter: its bytes may be a stranger's.
async fn again(api: &Api, letter: Outgoing) -> Result<Vec<Outgoing>, String> {
    let mut envelope = Envelope::clone(&letter.envelope);
    match (letter.topic, &mut envelope.message) {
        (Topic::Foreign(topic), Message::Foreign(event)) => {
            let speaks = api.tellers.iter().find(|(known, _)| *known == topic);
            event.teller = speaks.and_then(|(_, teller)| teller.clone());
            listen::inputs_of(&api.gateway, &envelope).await.map_err(|fault| fault.to_string())
        }
        (Topic::Foreign(_), _) => Err("it is no event".to_owned()),
        (_, Message::Foreign(_)) => Err("an event of another team comes by a topic of theirs".to_owned()),
        _ => Ok(vec![letter]),
    }
}

/// Show every shard's owner and positions.
#[utoipa::path(
    get, path = "/v1/shards", operation_id = "listShards", tag = "system",
    responses((status = 200, description = "All of them", body = Page<ShardBody>)),
    security(("token" = ["audit:read"]))
)]
pub async fn shards(
    State(api): State<Api>,
    _allowed: Allowed<scope::AuditRead>,
) -> Result<Body<Page<ShardBody>>, Problem> {
    let rows = api.gateway.store().read(&SHARDS, Rows::one([1.into()])).await.map_err(refuse::store)?;
    let item = |row: &endstate_outbox::Row| {
        let [side, shard, epoch, start, progress, next_seq, seen] = row.as_slice() else { return None };
        let (side, next_seq) = (side.text()?.to_owned(), next_seq.int()?);
        let behind = if side == Side::Orchestrator.label() { next_seq - 1 - seen.int()? } else { 0 };
        Some(ShardBody {
            side,
            shard: shard.int()?,
            epoch: epoch.int()?,
            position_start: start.int()?,
            position_progress: progress.int()?,
            next_seq,
            view_behind: behind.max(0),
        })
    };
    Ok(Body(Page { items: rows.iter().filter_map(item).collect(), next: None, lag_ms: api.lag_ms() }))
}
