//! Scheduled jobs: what there are, what their runs did, and running one by hand.

use super::model::Page;
use super::{Api, refuse};
use crate::job::{Asked, JobError, Run};
use axum::Json as Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use endstate_events::Json;
use endstate_http::guard::StrictJson;
use endstate_http::problem::ProblemBody;
use endstate_http::{Allowed, Code, Fields, Params, Problem, Timestamp, headers, scope};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// How long a run by hand may take before it is answered as still running.
const PATIENCE: Duration = Duration::from_secs(20);

/// A scheduled job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobBody {
    /// Its name.
    #[schema(example = "sweep")]
    pub job: &'static str,
    /// What it does.
    #[schema(example = "pushes sagas past their time, and tells people of parked ones")]
    pub about: &'static str,
    /// When it runs: second minute hour day month weekday, UTC.
    #[schema(example = "0 * * * * *")]
    pub schedule: String,
    /// Its last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<RunBody>,
}

/// A run of a job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RunBody {
    /// The job.
    #[schema(example = "sweep")]
    pub job: String,
    /// When it was due.
    pub due_at: Timestamp,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// `done`, `failed` or `abandoned` (its process died); absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "done")]
    pub outcome: Option<String>,
    /// True when it only looked.
    pub dry_run: bool,
    /// How many differences it found.
    #[schema(example = 2)]
    pub found: i64,
    /// How many it changed.
    #[schema(example = 2)]
    pub changed: i64,
    /// The first hundred differences.
    #[schema(value_type = Vec<Object>, example = json!([{"overdue": "0199c1a2-7c00-8abc-9def-0123456789ab", "phase": "running", "late_s": 75}]))]
    pub details: Json,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who ran it by hand; absent for the clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<Run> for RunBody {
    fn from(run: Run) -> Self {
        let (by, reason) = run.asked.map(|Asked { by, reason }| (by, reason)).unzip();
        Self {
            job: run.job,
            due_at: Timestamp(run.due_ms),
            started_at: Timestamp(run.started_ms),
            ended_at: run.ended_ms.map(Timestamp),
            outcome: run.outcome,
            dry_run: run.dry_run,
            found: run.found,
            changed: run.changed,
            details: run.details,
            error: run.error,
            by,
            reason,
        }
    }
}

fn unknown(api: &Api) -> Problem {
    let known: Vec<_> = api.jobs.timetable().iter().map(|entry| entry.job.name()).collect();
    Problem::new(Code::UnknownJob, format!("expected one of: {}", known.join(", ")))
}

/// List the scheduled jobs, each with its last run.
#[utoipa::path(
    get, path = "/v1/jobs", operation_id = "listJobs", tag = "system",
    responses((status = 200, description = "All of them", body = Page<JobBody>)),
    security(("token" = ["audit:read"]))
)]
pub async fn list(State(api): State<Api>, _allowed: Allowed<scope::AuditRead>) -> Result<Body<Page<JobBody>>, Problem> {
    let mut items = Vec::new();
    for entry in api.jobs.timetable() {
        let (job, about) = (entry.job.name(), entry.job.about());
        let last = api.jobs.runs(job, i64::MAX, 1).await.map_err(refuse::store)?.pop();
        items.push(JobBody { job, about, schedule: entry.schedule.clone(), last_run: last.map(Into::into) });
    }
    Ok(Body(Page { items, next: None, lag_ms: None }))
}

/// List the runs of a job, newest first.
#[utoipa::path(
    get, path = "/v1/jobs/{job}/runs", operation_id = "listJobRuns", tag = "system",
    params(
        ("job" = String, Path, example = "sweep"),
        ("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query),
    ),
    responses(
        (status = 200, description = "A page", body = Page<RunBody>),
        (status = 404, description = "E2208", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("token" = ["audit:read"]))
)]
pub async fn runs(
    State(api): State<Api>,
    _allowed: Allowed<scope::AuditRead>,
    Path(job): Path<String>,
    mut params: Params,
) -> Result<Body<Page<RunBody>>, Problem> {
    let limit = params.integer("limit", 1..=200)?.unwrap_or(20);
    let before = super::admin::id_cursor(&mut params)?.unwrap_or(i64::MAX);
    params.finish()?;
    let job = api.jobs.find(&job).ok_or_else(|| unknown(&api))?;
    let found = api.jobs.runs(job.name(), before, limit).await.map_err(refuse::store)?;
    let next = found.last().filter(|_| found.len() as i64 == limit).map(|last| last.id.to_string());
    Ok(Body(Page { items: found.into_iter().map(Into::into).collect(), next, lag_ms: None }))
}

/// The body of a run by hand.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the body; `Fields` reads it")]
pub struct RunCall {
    /// Why; it stands in the run's record.
    #[schema(example = "OPS-1234: after the provider's outage")]
    reason: String,
    /// Only look, and change nothing; false when left out.
    dry_run: Option<bool>,
}

/// Run a job now.
///
/// A run that takes longer than 20 seconds is answered with 202 and goes on; its record tells when it ended.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/run", operation_id = "runJob", tag = "operators",
    params(("job" = String, Path, example = "sweep")),
    request_body = RunCall,
    responses(
        (status = 200, description = "It has run; `outcome` says how", body = RunBody),
        (status = 202, description = "It still runs; `Location` leads to its record"),
        (status = 404, description = "E2208", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "E2317", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("token" = ["sagas:operate"]))
)]
pub async fn run(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::SagasOperate>,
    Path(job): Path<String>,
    StrictJson(body): StrictJson,
) -> Result<Response, Problem> {
    let mut fields = Fields::of(body)?;
    let reason = fields.text("reason", super::act::REASON);
    let dry_run = fields.flag("dry_run");
    fields.finish()?;
    let job = api.jobs.find(&job).ok_or_else(|| unknown(&api))?;
    let (name, jobs) = (job.name(), Arc::clone(&api.jobs));
    let asked = Some(Asked { by: caller.subject, reason });
    // On a task of its own: a caller who goes away must not cut a run in two.
    let running = tokio::spawn(async move { jobs.run(&*job, dry_run, asked).await });
    match tokio::time::timeout(PATIENCE, running).await {
        Ok(Ok(Ok(run))) => Ok(Body(RunBody::from(run)).into_response()),
        Ok(Ok(Err(error))) => Err(failed(error)),
        Ok(Err(error)) => Err(Problem::internal(&error)),
        Err(_) => {
            let location = format!("/v1/jobs/{}/runs", headers::segment(name));
            Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)]).into_response())
        }
    }
}

fn failed(error: JobError) -> Problem {
    match error {
        JobError::Taken(_) => Problem::new(Code::JobRuns, error.to_string()),
        JobError::Store(error) => refuse::store(error),
        JobError::Commit(error) => refuse::commit(error),
        JobError::Schedule { .. } => Problem::internal(&error),
    }
}
