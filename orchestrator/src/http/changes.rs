//! Status changes for other teams, and their events for us (CloudEvents 1.0).

use super::model::{Change, Page, Received, StartedBody};
use super::{Api, act, read, refuse};
use crate::feed::{FeedError, Position};
use axum::Json as Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use endstate_events::foreign::identity;
use endstate_events::{InputBody, Json};
use endstate_http::guard::Raw;
use endstate_http::problem::ProblemBody;
use endstate_http::{Allowed, Caller, Code, Fields, Params, Problem, headers, scope, strict_json};
use std::time::Instant;

/// Status changes, in order per saga.
///
/// Pass `next` as `after` to go on. With `Prefer: wait=N` an empty page is given only after N seconds. Without `after`
/// the page begins with the oldest change that is kept. A change may come twice; (saga, version) identifies it.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "listChanges", tag = "events",
    params(
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<i64>, Query, description = "1 to 1000, default 200"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: seconds to wait for a change, at most 30"),
    ),
    responses(
        (status = 200, description = "A page; `next` is always there", body = Page<Change>),
        (status = 410, description = "E2012", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("token" = ["sagas:read"]))
)]
pub async fn changes(
    State(api): State<Api>,
    _allowed: Allowed<scope::SagasRead>,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let store = api.gateway.store();
    let position = match params.text("after") {
        Some(text) => Position::decode(&text, store.partitions())?,
        None => Position::oldest(&**store).await.map_err(refuse::store)?,
    };
    let limit = params.integer("limit", 1..=1_000)?.unwrap_or(200) as usize;
    params.finish()?;
    let wait = headers::wait(&headers)?;
    let until = Instant::now() + wait.unwrap_or_default();
    let found = api.gateway.followers().follow(&position, limit, until, || api.drain.started()).await;
    let (items, next) = found.map_err(refused)?;
    let page = Body(Page { items, next: Some(next.encode()), lag_ms: None });
    Ok(match wait {
        Some(wait) => ([(headers::PREFERENCE_APPLIED, headers::wait_applied(wait))], page).into_response(),
        None => page.into_response(),
    })
}

fn refused(error: FeedError) -> Problem {
    match error {
        FeedError::Gone { .. } => {
            let detail = format!("{error}; read the sagas' state from /v1/sagas, then follow without `after`");
            Problem::new(Code::ChangesGone, detail)
        }
        FeedError::Store(error) => refuse::store(error),
    }
}

/// One event of another team.
struct CloudEvent {
    id: String,
    kind: String,
    subject: Option<String>,
    data: Json,
}

/// Take an event of another team (CloudEvents 1.0, structured or binary).
///
/// With a `subject` of `DEFINITION/NUMBER` it goes to that saga; else it starts a saga of every active definition whose
/// `starts_on` names its type. (`source`, `id`) is its identity: repeated, it changes nothing. An event of a participant
/// is taken from that participant only (E2318). Nothing starts unless the event fits every definition that starts on it.
#[utoipa::path(
    post, path = "/v1/events", operation_id = "receiveEvent", tag = "events",
    request_body(content = Object, content_type = "application/cloudevents+json", description = "The event",
        example = json!({"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "shop.approved", "subject": "flash_sale_order/ORDER-17", "data": {"by": "u-2"}})),
    responses(
        (status = 202, description = "Queued durably", body = Received),
        (status = 403, description = "E2318", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "E2302, E2307, E2311", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("token" = ["events:write"]))
)]
pub async fn receive(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::EventsWrite>,
    headers: HeaderMap,
    Raw(bytes): Raw,
) -> Result<(StatusCode, Body<Received>), Problem> {
    let event = cloud_event(&headers, &bytes)?;
    let named = match event.subject.as_deref().and_then(|subject| subject.split_once('/')) {
        Some((definition, number)) => {
            let definitions = api.gateway.definitions();
            definitions.wanted(definition, None).await.map_err(refuse::store)?;
            // Also one whose active version is too new for this process: the saga may have another.
            definitions.is_active(definition).then_some((definition, number))
        }
        None => None,
    };
    let started = match named {
        Some((definition, number)) => {
            let (stored, loaded) = read::find(&api.gateway, &act::system(), definition, number).await?;
            act::known_event(&loaded, &event.kind)?;
            act::check_event(&caller, &loaded, &event.kind, &event.data, "/data")?;
            let id = act::event_id(&event.kind, &event.id);
            let body = InputBody::Event { name: event.kind, data: event.data };
            let sent = api.gateway.send(stored.saga.id, id, stored.saga.lane, body).await;
            sent.map_err(|error| refuse::gateway(definition, error))?;
            Vec::new()
        }
        None => start_all(&api, &caller, &event).await?,
    };
    Ok((StatusCode::ACCEPTED, Body(Received { started })))
}

async fn start_all(api: &Api, caller: &Caller, event: &CloudEvent) -> Result<Vec<StartedBody>, Problem> {
    let definitions = api.gateway.definitions();
    definitions.look_for_starts_on(&event.kind).await.map_err(refuse::store)?;
    let starting = definitions.starting_on(&event.kind).map_err(|(name, version)| read::unread(&name, version))?;
    if starting.is_empty() {
        return Err(Problem::new(Code::NothingStarts, "no subject, and no `starts_on` names its type"));
    }
    let mut starts = Vec::with_capacity(starting.len());
    for definition in starting {
        act::check_event(caller, &definition, &event.kind, &event.data, "/data")?;
        let failed = |error: endstate_saga::plan::EvalError| Problem::new(Code::InputRefused, error.to_string());
        let input = definition.start_input(&event.kind, &event.data).map_err(failed)?;
        starts.extend(input.map(|input| (definition, input)));
    }
    // All or none: what nobody can start is refused before the first one is queued.
    let mut composed = Vec::with_capacity(starts.len());
    for (definition, input) in starts {
        let start = api.gateway.compose(&definition, input, None).await;
        composed
            .push((definition.name().to_owned(), start.map_err(|error| refuse::gateway(definition.name(), error))?));
    }
    let mut started = Vec::with_capacity(composed.len());
    for (name, start) in composed {
        let start = api.gateway.begin(start, None).await;
        let start = start.map_err(|error| refuse::gateway(&name, error))?;
        started.push(StartedBody::new(&name, &start));
    }
    Ok(started)
}

fn cloud_event(headers: &HeaderMap, bytes: &[u8]) -> Result<CloudEvent, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/cloudevents+json" => structured(strict_json::parse(bytes)?),
        "application/json" if headers.contains_key("ce-specversion") => {
            let attribute = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            let envelope = [
                ("specversion", "ce-specversion"),
                ("id", "ce-id"),
                ("source", "ce-source"),
                ("type", "ce-type"),
                ("subject", "ce-subject"),
            ];
            let known =
                envelope.into_iter().filter_map(|(name, header)| Some((name.to_owned(), attribute(header)?.into())));
            let mut event: serde_json::Map<String, Json> = known.collect();
            event.insert("data".into(), strict_json::parse(bytes)?);
            structured(event.into())
        }
        _ => Err(Problem::new(
            Code::UnsupportedMedia,
            "send application/cloudevents+json, or application/json with the headers ce-specversion, ce-id, ce-source, ce-type",
        )),
    }
}

fn structured(event: Json) -> Result<CloudEvent, Problem> {
    let mut fields = Fields::of(event)?;
    fields.one_of("specversion", &[("1.0", ())]);
    let (id, source) = (fields.text("id", 1..=128), fields.text("source", 1..=256));
    let kind = fields.text("type", 1..=128);
    let subject = fields.optional_text("subject", 1..=256);
    let data = fields.json("data");
    fields.ignore_rest();
    fields.finish()?;
    Ok(CloudEvent { id: identity(&source, &id), kind, subject, data })
}
