//! Definitions at run time: list, load, activate, roll back. Versions are immutable; a running saga keeps its own.

use super::model::{DefinitionBody, Page};
use super::{Api, refuse};
use axum::Json as Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use endstate_http::guard::StrictJson;
use endstate_http::problem::ProblemBody;
use endstate_http::{Allowed, Code, Fields, Problem, scope};
use endstate_saga::definition::Source;
use utoipa::ToSchema;

fn listed(api: &Api, name: Option<&str>) -> Vec<DefinitionBody> {
    let list = api.gateway.definitions().list().into_iter();
    let list = list.filter(|listed| name.is_none_or(|name| listed.name == name));
    list.map(|listed| DefinitionBody {
        name: listed.name,
        version: listed.version,
        sha256: listed.sha256,
        active: listed.active,
    })
    .collect()
}

/// List all versions of all definitions.
#[utoipa::path(
    get, path = "/v1/definitions", operation_id = "listDefinitions", tag = "definitions",
    responses((status = 200, description = "All of them", body = Page<DefinitionBody>)),
    security(("token" = ["definitions:read"]))
)]
pub async fn list(State(api): State<Api>, _allowed: Allowed<scope::DefinitionsRead>) -> Body<Page<DefinitionBody>> {
    Body(Page { items: listed(&api, None), next: None, lag_ms: None })
}

/// The texts of a definition.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the body; serde reads it as a source")]
pub struct LoadCall {
    /// The file's name, for messages.
    #[schema(example = "flash_sale_order.yaml")]
    file: String,
    /// Its text.
    text: String,
    /// Schema files by the path that the definition names them by.
    #[schema(value_type = Object)]
    schemas: endstate_events::Json,
    /// Sample files by name.
    #[schema(value_type = Object)]
    samples: endstate_events::Json,
    /// Catalogue files by name.
    #[schema(value_type = Object)]
    catalogues: endstate_events::Json,
    /// Names of the definitions that lie beside this one.
    siblings: Vec<String>,
}

/// Load a version of a definition.
///
/// The first version of a name is activated at once; a later one when it is activated. The same text again changes
/// nothing.
#[utoipa::path(
    post, path = "/v1/definitions", operation_id = "loadDefinition", tag = "definitions",
    request_body = LoadCall,
    responses(
        (status = 201, description = "All versions of that name", body = Page<DefinitionBody>),
        (status = 409, description = "E2309", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "E2308", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("token" = ["definitions:write"]))
)]
pub async fn load(
    State(api): State<Api>,
    _allowed: Allowed<scope::DefinitionsWrite>,
    StrictJson(body): StrictJson,
) -> Result<(StatusCode, Body<Page<DefinitionBody>>), Problem> {
    let source: Source =
        serde_json::from_value(body).map_err(|error| Problem::field(Code::InvalidFields, "", error.to_string()))?;
    let now_ms = api.gateway.clock().now_ms();
    let loaded = api.gateway.definitions().load(&source, now_ms).await.map_err(refuse::definitions)?;
    let page = Page { items: listed(&api, Some(loaded.name())), next: None, lag_ms: None };
    Ok((StatusCode::CREATED, Body(page)))
}

/// The body of an activation.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the body; `Fields` reads it")]
pub struct ActivateCall {
    /// A loaded version.
    #[schema(example = 2)]
    version: u32,
}

/// Make new sagas use a version.
#[utoipa::path(
    post, path = "/v1/definitions/{definition}/activate", operation_id = "activateDefinition", tag = "definitions",
    params(("definition" = String, Path)),
    request_body = ActivateCall,
    responses((status = 200, description = "All versions of that name", body = Page<DefinitionBody>)),
    security(("token" = ["definitions:write"]))
)]
pub async fn activate(
    State(api): State<Api>,
    _allowed: Allowed<scope::DefinitionsWrite>,
    Path(definition): Path<String>,
    StrictJson(body): StrictJson,
) -> Result<Body<Page<DefinitionBody>>, Problem> {
    let mut fields = Fields::of(body)?;
    let version = fields.integer("version", 1..=i64::from(u32::MAX));
    fields.finish()?;
    let (now_ms, version) = (api.gateway.clock().now_ms(), u32::try_from(version).unwrap_or(u32::MAX));
    api.gateway.definitions().activate(&definition, version, now_ms).await.map_err(refuse::definitions)?;
    Ok(Body(Page { items: listed(&api, Some(&definition)), next: None, lag_ms: None }))
}

/// Make new sagas use the version before.
#[utoipa::path(
    post, path = "/v1/definitions/{definition}/rollback", operation_id = "rollBackDefinition", tag = "definitions",
    params(("definition" = String, Path)),
    responses((status = 200, description = "All versions of that name", body = Page<DefinitionBody>)),
    security(("token" = ["definitions:write"]))
)]
pub async fn roll_back(
    State(api): State<Api>,
    _allowed: Allowed<scope::DefinitionsWrite>,
    Path(definition): Path<String>,
) -> Result<Body<Page<DefinitionBody>>, Problem> {
    let now_ms = api.gateway.clock().now_ms();
    api.gateway.definitions().roll_back(&definition, now_ms).await.map_err(refuse::definitions)?;
    Ok(Body(Page { items: listed(&api, Some(&definition)), next: None, lag_ms: None }))
}
