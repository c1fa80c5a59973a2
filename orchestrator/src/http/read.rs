//! Reading sagas: one from its own row, lists from the view.

use super::model::{Linked, Page, SagaBody, SagaDetail, TimelineEntry};
use super::{Api, refuse, show};
use crate::gateway::Gateway;
use crate::persist::Stored;
use crate::view::{self, Filter};
use axum::Json as Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use endstate_http::{Allowed, Caller, Code, Cursor, Params, Problem, Scope, Timestamp, headers, scope};
use endstate_saga::definition::Definition;
use std::sync::Arc;

/// Entries of a page unless the caller says otherwise, and at most.
const LIMITS: (i64, i64) = (50, 200);

const PHASES: [&str; 6] = ["running", "waiting", "compensating", "reversing", "parked", "ended"];
const OUTCOMES: [&str; 4] = ["completed", "cancelled", "reversed", "forced"];

/// Finds a saga that the caller may see. Somebody else's looks as if there was none.
pub(super) async fn find(
    gateway: &Gateway,
    caller: &Caller,
    definition: &str,
    number: &str,
) -> Result<(Stored, Arc<Definition>), Problem> {
    let unknown = || Problem::new(Code::UnknownSaga, "there is none with this definition and number");
    let saga = gateway.find(definition, number).await.map_err(refuse::store)?.ok_or_else(unknown)?;
    let stored = gateway.get(saga).await.map_err(refuse::store)?.ok_or_else(unknown)?;
    if !sees_others(caller) && stored.saga.owner.as_deref() != Some(&*caller.subject) {
        return Err(unknown());
    }
    let (name, version) = (&stored.saga.definition, stored.saga.definition_version);
    let known = gateway.definitions().of_saga(name, version).await.map_err(refuse::store)?;
    let known = known.ok_or_else(|| unread(name, version))?;
    Ok((stored, known))
}

/// Another process can.
pub(super) fn unread(definition: &str, version: u32) -> Problem {
    Problem::new(Code::VersionUnread, format!("E3003: this process cannot read version {version} of `{definition}`"))
}

fn sees_others(caller: &Caller) -> bool {
    use Scope::{OrdersRead, OrdersWrite, RoleOperator, RoleRisk, RoleWarehouse, SagasForce, SagasOperate, SagasRead};
    let able = [OrdersRead, SagasRead, OrdersWrite, SagasOperate, SagasForce, RoleRisk, RoleWarehouse, RoleOperator];
    able.into_iter().any(|scope| caller.may(scope))
}

/// Show a saga.
///
/// With `Prefer: wait=N` the answer comes as soon as nothing more happens without somebody outside: the saga has ended (200), or
/// it waits for an event or is parked (202). It comes after N seconds (202) otherwise.
#[utoipa::path(
    get, path = "/v1/sagas/{definition}/{number}", operation_id = "getSaga", tag = "sagas",
    params(
        ("definition" = String, Path, example = "flash_sale_order"),
        ("number" = String, Path, description = "The business number, percent-encoded", example = "ORDER-17"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: seconds to wait for the saga to end, to wait for somebody outside, or to park; at most 30"),
    ),
    responses(
        (status = 200, description = "The saga", body = SagaDetail),
        (status = 202, description = "It has not ended: it waits for somebody outside, is parked, or went on for longer than the wait", body = SagaDetail),
        (status = 404, description = "E2202", body = endstate_http::problem::ProblemBody, content_type = "application/problem+json"),
    ),
    security(("token" = ["sagas:read"]), ("token" = ["orders:read"]), ("token" = ["orders:own"]))
)]
pub async fn get(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::SeeAny>,
    Path((definition, number)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (mut stored, definition) = find(&api.gateway, &caller, &definition, &number).await?;
    let wait = headers::wait(&headers)?;
    if let Some(wait) = wait {
        api.gateway.news(stored.saga.id, Some(wait)).await.map_err(refuse::store)?;
        stored = api.gateway.get(stored.saga.id).await.map_err(refuse::store)?.unwrap_or(stored);
    }
    let body = SagaDetail { saga: show::body(&definition, &stored.saga), linked: linked(&api, stored.saga.id).await? };
    let Some(wait) = wait else { return Ok(Body(body).into_response()) };
    let status = if body.saga.ended() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let applied = [(headers::PREFERENCE_APPLIED, headers::wait_applied(wait))];
    let location = show::location(&body.saga.definition, &body.saga.number);
    Ok((status, applied, [(header::LOCATION, location)], Body(body)).into_response())
}

/// The sagas that belong to one.
pub(super) async fn linked(api: &Api, saga: endstate_events::SagaId) -> Result<Vec<Linked>, Problem> {
    let rows = view::of_order(&**api.gateway.store(), saga).await.map_err(refuse::store)?;
    let linked = |row: view::ViewRow| Linked {
        saga: row.saga,
        definition: row.definition,
        number: row.number,
        status: row.status,
    };
    Ok(rows.into_iter().map(linked).collect())
}

/// Show what happened to a saga, from its start on.
#[utoipa::path(
    get, path = "/v1/sagas/{definition}/{number}/timeline", operation_id = "getTimeline", tag = "sagas",
    params(("definition" = String, Path), ("number" = String, Path)),
    responses((status = 200, description = "Its events in order", body = Page<TimelineEntry>)),
    security(("token" = ["sagas:read"]))
)]
pub async fn timeline(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::SagasRead>,
    Path((definition, number)): Path<(String, String)>,
) -> Result<Body<Page<TimelineEntry>>, Problem> {
    let (stored, definition) = find(&api.gateway, &caller, &definition, &number).await?;
    let pages = api.gateway.timeline(stored.saga.id).await.map_err(refuse::store)?;
    Ok(Body(Page { items: show::timeline(&definition, pages), next: None, lag_ms: None }))
}

/// What a list call asks for.
pub(super) struct ListCall {
    pub(super) filter: Filter,
    after: Option<Cursor>,
    limit: usize,
}

/// Reads the filters of a list from the query; `fixed` is what the route itself demands.
pub(super) fn list_call(mut params: Params, fixed: Filter) -> Result<ListCall, Problem> {
    let mut searches = params.prefixed("search.");
    if let Some(goods) = params.text("goods") {
        searches.insert("goods".to_owned(), goods);
    }
    if searches.len() > 1 {
        return Err(Problem::new(Code::InvalidParameter, "only one search attribute at a time"));
    }
    let mut filter = Filter {
        status: params.text("status"),
        phase: params.one_of("phase", &PHASES)?,
        outcome: params.one_of("outcome", &OUTCOMES)?,
        number_prefix: params.text("number").filter(|prefix| !prefix.is_empty()),
        search: searches.pop_first().map(|(name, value)| (name, show::indexed(&value).to_owned())),
        since_ms: time(&mut params, "since")?,
        until_ms: time(&mut params, "until")?,
        ..fixed
    };
    if filter.definition.is_none() {
        filter.definition = params.text("definition");
    }
    if filter.owner.is_none() {
        filter.owner = params.text("owner");
    }
    let limit = params.integer("limit", 1..=LIMITS.1)?.unwrap_or(LIMITS.0) as usize;
    let after = params.text("cursor").map(|text| Cursor::decode(&text, &filter.fingerprint())).transpose()?;
    params.finish()?;
    Ok(ListCall { filter, after, limit })
}

fn time(params: &mut Params, name: &str) -> Result<Option<i64>, Problem> {
    let Some(text) = params.text(name) else { return Ok(None) };
    let wrong = || {
        let detail = format!("parameter `{name}`: expected a time such as 2026-11-22T01:00:00Z");
        Problem::new(Code::InvalidParameter, detail)
    };
    Timestamp::parse(&text).map(|time| Some(time.0)).ok_or_else(wrong)
}

/// One page of the view.
pub(super) async fn page<T: utoipa::ToSchema>(
    api: &Api,
    call: ListCall,
    show: impl Fn(view::ViewRow) -> T,
) -> Result<Page<T>, Problem> {
    let found = view::list(&**api.gateway.store(), &call.filter, call.after, call.limit).await;
    let (rows, next) = found.map_err(refuse::store)?;
    let next = next.map(|cursor| cursor.encode(&call.filter.fingerprint()));
    Ok(Page { items: rows.into_iter().map(show).collect(), next, lag_ms: api.lag_ms() })
}

/// List sagas, newest first.
#[utoipa::path(
    get, path = "/v1/sagas", operation_id = "listSagas", tag = "sagas",
    params(
        ("definition" = Option<String>, Query), ("status" = Option<String>, Query),
        ("phase" = Option<String>, Query, description = "running, waiting, compensating, reversing, parked or ended"),
        ("outcome" = Option<String>, Query, description = "completed, cancelled, reversed or forced"),
        ("owner" = Option<String>, Query), ("number" = Option<String>, Query, description = "Beginning of the number"),
        ("goods" = Option<String>, Query, description = "The search attribute `goods`"),
        ("search.NAME" = Option<String>, Query, description = "Any other search attribute of the definition; one at a time"),
        ("since" = Option<String>, Query, description = "Started at or after", example = "2026-11-22T00:00:00Z"),
        ("until" = Option<String>, Query, description = "Started before"),
        ("limit" = Option<i64>, Query, description = "1 to 200, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before, with the same filters"),
    ),
    responses((status = 200, description = "A page", body = Page<SagaBody>)),
    security(("token" = ["sagas:read"]))
)]
pub async fn list(
    State(api): State<Api>,
    _allowed: Allowed<scope::SagasRead>,
    params: Params,
) -> Result<Body<Page<SagaBody>>, Problem> {
    let call = list_call(params, Filter::default())?;
    Ok(Body(page(&api, call, SagaBody::from).await?))
}

/// The caller as a customer: their own orders and nothing else.
pub(super) fn only_own(caller: Caller) -> Caller {
    Caller { subject: caller.subject, scopes: [Scope::OrdersOwn].into_iter().collect() }
}
