//! Inputs other than starts: events, cancels, and what operators do. All are queued; a cancel or an operator's action is
//! answered with what its saga said, and the timeline shows what came of it.

use super::answer::{RequestAnswers, RequestHeaders, SagaPath, request};
use super::model::{Accepted, Woken};
use super::read::find;
use super::{Api, refuse};
use crate::listen::EVENT_ID;
use crate::persist::Stored;
use crate::view::{self, Filter};
use crate::waiters::Answer;
use axum::Json as Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use endstate_events::{Actor, ForcedEnd, InputBody, Json, Operation, Transport};
use endstate_http::auth::LOCAL;
use endstate_http::guard::StrictJson;
use endstate_http::problem::ProblemBody;
use endstate_http::{Allowed, Caller, Code, FieldError, Fields, Problem, Scope, headers, scope};
use endstate_saga::definition::{Definition, Misfit};
use utoipa::ToSchema;
use uuid::Uuid;

/// Characters of a reason: long enough for a ticket and a sentence.
pub(super) const REASON: std::ops::RangeInclusive<usize> = 1..=500;

/// Sagas woken by one call; call again for more.
const WAKE: usize = 2_000;

/// Send an event to a saga.
///
/// `Idempotency-Key` is the event's id: repeated, it changes nothing. An event that comes before its wait is kept; one
/// that comes too late is treated by the definition's `late` rule. An event of a participant is taken from that
/// participant only (E2318): a payment is what the provider's signed callback says.
#[utoipa::path(
    post, path = "/v1/sagas/{definition}/{number}/events/{name}", operation_id = "sendEvent", tag = "events",
    params(
        SagaPath,
        ("name" = String, Path, example = "shop.approved"),
        ("Idempotency-Key" = String, Header, description = "The event's id"),
    ),
    request_body(content = Object, description = "The event's data", example = json!({"amount_minor": 17900})),
    responses(
        (status = 202, description = "Queued durably", body = Accepted),
        (status = 403, description = "E2318", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "E2302, E2307", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("token" = ["events:write"]))
)]
pub async fn event(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::EventsWrite>,
    Path((definition, number, name)): Path<(String, String, String)>,
    headers: HeaderMap,
    StrictJson(data): StrictJson,
) -> Result<(StatusCode, Body<Accepted>), Problem> {
    let missing = || Problem::new(Code::InvalidHeader, "Idempotency-Key: send the event's id in it");
    let id = headers::idempotency_key(&headers)?.ok_or_else(missing)?;
    let (stored, definition) = find(&api.gateway, &system(), &definition, &number).await?;
    known_event(&definition, &name)?;
    check_event(&caller, &definition, &name, &data, "")?;
    let saga = &stored.saga;
    let id = event_id(&name, &id);
    let sent = api.gateway.send(saga.id, id.clone(), saga.lane, InputBody::Event { name, data }).await;
    sent.map_err(|error| refuse::gateway(&saga.definition, error))?;
    Ok((StatusCode::ACCEPTED, Body(Accepted { input: id, saga: saga.id })))
}

/// Whoever may send events may send them to every saga, without seeing it.
pub(super) fn system() -> Caller {
    Caller { subject: "events".to_owned(), scopes: [Scope::SagasRead].into_iter().collect() }
}

pub(super) fn known_event(definition: &Definition, name: &str) -> Result<(), Problem> {
    let events = &definition.plan().events;
    if events.iter().any(|event| &*event.name == name) {
        return Ok(());
    }
    let known: Vec<_> = events.iter().map(|event| &*event.name).collect();
    let short: String = name.chars().take(64).collect();
    Err(Problem::new(Code::UnknownEvent, format!("`{short}` is not one of: {}", known.join(", "))))
}

/// Checks who tells an event, and that its data is what its declaration says. `place` is where the data stands in the
/// body. An event of a built-in participant never comes this way, one of an outside participant from a token in its name.
pub(super) fn check_event(
    caller: &Caller,
    definition: &Definition,
    name: &str,
    data: &Json,
    place: &str,
) -> Result<(), Problem> {
    if let Some((participant, transport)) = definition.teller(name) {
        let itself = caller.subject == participant || caller.subject == LOCAL;
        match transport {
            Transport::Http { .. } | Transport::Kafka { .. } if itself => {}
            Transport::Http { .. } | Transport::Kafka { .. } => {
                let detail = format!("`{name}` is taken from a token whose subject is `{participant}`");
                return Err(Problem::new(Code::EventNotYours, detail));
            }
            Transport::Builtin => {
                let detail = format!("`{name}` is what the built-in participant `{participant}` itself says");
                return Err(Problem::new(Code::EventNotYours, detail));
            }
        }
    }
    let misfits = definition.event_misfits(name, data);
    if misfits.is_empty() {
        return Ok(());
    }
    let error = |misfit: Misfit| FieldError { pointer: format!("{place}{}", misfit.pointer), detail: misfit.reason };
    Err(Problem::fields(Code::InputRefused, misfits.into_iter().map(error).collect()))
}

/// The identity of an event that somebody sends: apart from those of participants, so that nobody can use up the id of
/// a payment that is still to come.
pub(super) fn event_id(name: &str, id: &str) -> String {
    format!("{EVENT_ID}{name}/{id}")
}

/// The body of a cancel.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the body; `Fields` reads it")]
pub struct CancelCall {
    /// One of the definition's `cancel` reasons.
    #[schema(example = "user")]
    reason: String,
}

/// Cancel a saga.
///
/// Every reason belongs to a role: `owner` is the saga's owner (or a token with `orders:write`), any other needs the
/// scope `role:ROLE`. What a cancel does after the pivot is up to the definition.
#[utoipa::path(
    post, path = "/v1/sagas/{definition}/{number}/cancel", operation_id = "cancelSaga", tag = "sagas",
    params(SagaPath, RequestHeaders),
    request_body = CancelCall,
    responses(RequestAnswers),
    security(("token" = ["orders:own"]), ("token" = ["orders:write"]), ("token" = ["role:risk"]),
        ("token" = ["role:warehouse"]), ("token" = ["role:operator"]))
)]
pub async fn cancel(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::CancelAny>,
    Path((definition, number)): Path<(String, String)>,
    headers: HeaderMap,
    StrictJson(body): StrictJson,
) -> Result<Response, Problem> {
    let mut fields = Fields::of(body)?;
    let reason = fields.text("reason", 1..=64);
    fields.finish()?;
    let (stored, definition) = find(&api.gateway, &caller, &definition, &number).await?;
    let role = role_for(&definition, &reason)?;
    if !plays(&caller, &role, &stored) {
        let detail = format!("`{reason}` belongs to the role {role}");
        return Err(Problem::new(Code::ReasonNotAllowed, detail));
    }
    let actor = Actor { subject: caller.subject, role };
    request(&api, &stored, &headers, InputBody::Cancel { reason, actor }).await
}

fn role_for(definition: &Definition, reason: &str) -> Result<String, Problem> {
    let reasons = &definition.plan().reasons;
    let found = reasons.iter().find(|declared| &*declared.name == reason);
    found.map(|declared| declared.role.to_string()).ok_or_else(|| {
        let known: Vec<_> = reasons.iter().map(|declared| &*declared.name).collect();
        Problem::field(Code::UnknownReason, "/reason", format!("expected one of: {}", known.join(", ")))
    })
}

/// `deadline` is played by nobody but a wait.
fn plays(caller: &Caller, role: &str, stored: &Stored) -> bool {
    match role {
        "owner" => caller.may(Scope::OrdersWrite) || stored.saga.owner.as_deref() == Some(&*caller.subject),
        "deadline" => false,
        other => Scope::find(&format!("role:{other}")).is_some_and(|scope| caller.may(scope)),
    }
}

/// The body of an operator's action.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the body; `Fields` reads it")]
pub struct ReasonCall {
    /// Why; it stands in the saga's timeline.
    #[schema(example = "OPS-1234: provider is back")]
    reason: String,
}

async fn operate(
    api: &Api,
    caller: Caller,
    (definition, number): (String, String),
    headers: &HeaderMap,
    reason: String,
    operation: Operation,
) -> Result<Response, Problem> {
    let (stored, _) = find(&api.gateway, &caller, &definition, &number).await?;
    let actor = Actor { subject: caller.subject, role: "operator".to_owned() };
    request(api, &stored, headers, InputBody::Operate { operation, reason, actor }).await
}

fn only_reason(body: Json) -> Result<String, Problem> {
    let mut fields = Fields::of(body)?;
    let reason = fields.text("reason", REASON);
    fields.finish()?;
    Ok(reason)
}

/// Send again what is parked or silent.
#[utoipa::path(
    post, path = "/v1/sagas/{definition}/{number}/retry", operation_id = "retrySaga", tag = "operators",
    params(SagaPath, RequestHeaders),
    request_body = ReasonCall,
    responses(RequestAnswers),
    security(("token" = ["sagas:operate"]))
)]
pub async fn retry(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::SagasOperate>,
    Path(name): Path<(String, String)>,
    headers: HeaderMap,
    StrictJson(body): StrictJson,
) -> Result<Response, Problem> {
    let reason = only_reason(body)?;
    operate(&api, caller, name, &headers, reason, Operation::Retry).await
}

/// Give back (before the pivot) or reverse (after it).
#[utoipa::path(
    post, path = "/v1/sagas/{definition}/{number}/compensate", operation_id = "compensateSaga", tag = "operators",
    params(SagaPath, RequestHeaders),
    request_body = ReasonCall,
    responses(RequestAnswers),
    security(("token" = ["sagas:operate"]))
)]
pub async fn compensate(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::SagasOperate>,
    Path(name): Path<(String, String)>,
    headers: HeaderMap,
    StrictJson(body): StrictJson,
) -> Result<Response, Problem> {
    let reason = only_reason(body)?;
    operate(&api, caller, name, &headers, reason, Operation::Compensate).await
}

/// The body of a forced end.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the body; `Fields` reads it")]
pub struct ForceCall {
    /// Why.
    #[schema(example = "OPS-1234: shipped by hand")]
    reason: String,
    /// `completed` (nothing is undone) or `cancelled` (everything goes back).
    #[schema(example = "cancelled")]
    end: String,
}

/// Name the end of a saga. What stays unsettled becomes a discrepancy.
#[utoipa::path(
    post, path = "/v1/sagas/{definition}/{number}/force", operation_id = "forceSaga", tag = "operators",
    params(SagaPath, RequestHeaders),
    request_body = ForceCall,
    responses(RequestAnswers),
    security(("token" = ["sagas:force"]))
)]
pub async fn force(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::SagasForce>,
    Path(name): Path<(String, String)>,
    headers: HeaderMap,
    StrictJson(body): StrictJson,
) -> Result<Response, Problem> {
    let mut fields = Fields::of(body)?;
    let reason = fields.text("reason", REASON);
    let ends = [("completed", ForcedEnd::Completed), ("cancelled", ForcedEnd::Cancelled)];
    let end = fields.one_of("end", &ends);
    fields.finish()?;
    let Some(end) = end else { return Err(Problem::field(Code::InvalidFields, "/end", "missing")) };
    operate(&api, caller, name, &headers, reason, Operation::Force { end }).await
}

/// Wake everything that is parked on one step.
///
/// Goes to the definition's parked sagas as the view knows them, at most 2,000 a call; those parked elsewhere are not
/// touched.
#[utoipa::path(
    post, path = "/v1/definitions/{definition}/steps/{step}/wake", operation_id = "wakeStep", tag = "operators",
    params(
        ("definition" = String, Path), ("step" = String, Path, example = "refund"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: seconds to wait for all decisions, at most 30; 5 without it"),
    ),
    request_body = ReasonCall,
    responses(
        (status = 200, description = "Every saga has decided", body = Woken),
        (status = 202, description = "Queued durably; some have not decided in time", body = Woken),
        (status = 404, description = "E2201, E2207", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("token" = ["sagas:operate"]))
)]
pub async fn wake(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::SagasOperate>,
    Path((definition, step)): Path<(String, String)>,
    headers: HeaderMap,
    StrictJson(body): StrictJson,
) -> Result<(StatusCode, Body<Woken>), Problem> {
    let reason = only_reason(body)?;
    let wait = headers::wait(&headers)?;
    let loaded = api.gateway.definitions().wanted(&definition, None).await.map_err(refuse::store)?;
    let loaded = loaded.ok_or_else(|| Problem::new(Code::UnknownDefinition, "it has no active version"))?;
    if loaded.plan().step(&step).is_none() {
        let steps: Vec<_> = loaded.plan().steps.iter().map(|step| &*step.name).collect();
        return Err(Problem::new(Code::UnknownStep, format!("expected one of: {}", steps.join(", "))));
    }
    let filter = Filter { definition: Some(definition.clone()), phase: Some("parked".into()), ..Filter::default() };
    let (rows, next) = view::list(&**api.gateway.store(), &filter, None, WAKE).await.map_err(refuse::store)?;
    let sagas: Vec<_> = rows.iter().map(|row| (row.saga, row.lane)).collect();
    let actor = Actor { subject: caller.subject, role: "operator".to_owned() };
    let body = InputBody::Operate { operation: Operation::Wake { step }, reason, actor };
    let asked = api.gateway.ask_each(&sagas, &Uuid::new_v4().to_string(), &body, wait).await;
    let answers = asked.map_err(|error| refuse::gateway(&definition, error))?;
    let count = |fits: fn(&Answer) -> bool| answers.iter().filter(|answer| fits(answer)).count();
    let undecided = count(|answer| answer.is_none());
    let woken = Woken {
        sagas: answers.len(),
        woken: count(|answer| *answer == Some(Ok(()))),
        untouched: count(|answer| matches!(answer, Some(Err(_)))),
        undecided,
        more: next.is_some(),
    };
    Ok((if undecided == 0 { StatusCode::OK } else { StatusCode::ACCEPTED }, Body(woken)))
}
