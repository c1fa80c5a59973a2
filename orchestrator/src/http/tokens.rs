//! Tokens over HTTP. The first one closes the door that was open to this machine only.

use super::model::Page;
use super::{Api, refuse};
use axum::Json as Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use endstate_http::guard::StrictJson;
use endstate_http::scope::Scopes;
use endstate_http::{Allowed, Code, Fields, Problem, Timestamp, Token, scope};
use serde::Serialize;
use utoipa::ToSchema;

const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// A token as lists show it; never its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TokenBody {
    /// Public part.
    #[schema(example = "9f86d081884c7d65")]
    pub id: String,
    /// Whose it is; for customers, the owner of their orders.
    #[schema(example = "shop")]
    pub subject: String,
    /// What it allows.
    #[schema(example = json!(["orders:write", "sagas:read"]))]
    pub scopes: Vec<&'static str>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Timestamp,
    /// When somebody revoked it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

impl From<Token> for TokenBody {
    fn from(token: Token) -> Self {
        Self {
            id: token.id,
            subject: token.subject,
            scopes: token.scopes.iter().map(|scope| scope.label()).collect(),
            created_at: Timestamp(token.created_ms),
            expires_at: Timestamp(token.expires_ms),
            revoked_at: token.revoked_ms.map(Timestamp),
        }
    }
}

/// A token just made.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedToken {
    /// What lists show of it.
    #[serde(flatten)]
    pub body: TokenBody,
    /// What the bearer sends; shown this once.
    #[schema(example = "es_9f86d081884c7d65_SECRET")]
    pub token: String,
}

/// The body of a new token.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the body; `Fields` reads it")]
pub struct CreateCall {
    /// Whose it is.
    #[schema(example = "shop")]
    subject: String,
    /// At least one; not more than the caller has.
    #[schema(example = json!(["orders:write", "sagas:read"]))]
    scopes: Vec<String>,
    /// Days until it stops working: 1 to 366, default 90.
    expires_days: Option<u16>,
}

/// List tokens.
#[utoipa::path(
    get, path = "/v1/tokens", operation_id = "listTokens", tag = "system",
    responses((status = 200, description = "All of them, oldest first", body = Page<TokenBody>)),
    security(("token" = ["tokens:write"]))
)]
pub async fn list(State(api): State<Api>, _allowed: Allowed<scope::TokensWrite>) -> Body<Page<TokenBody>> {
    Body(Page { items: api.tokens.list().into_iter().map(TokenBody::from).collect(), next: None, lag_ms: None })
}

/// Make a token. Nobody gives away more than they have.
#[utoipa::path(
    post, path = "/v1/tokens", operation_id = "createToken", tag = "system",
    request_body = CreateCall,
    responses((status = 201, description = "The token, shown this once", body = CreatedToken)),
    security(("token" = ["tokens:write"]))
)]
pub async fn create(
    State(api): State<Api>,
    Allowed(caller, ..): Allowed<scope::TokensWrite>,
    StrictJson(body): StrictJson,
) -> Result<(StatusCode, Body<CreatedToken>), Problem> {
    let mut fields = Fields::of(body)?;
    let subject = fields.text("subject", 1..=200);
    let labels = fields.texts("scopes");
    let days = fields.optional_integer("expires_days", 1..=366).unwrap_or(90);
    fields.finish()?;
    let scopes = Scopes::parse(&labels.join(" ")).map_err(|unknown| {
        let known: Vec<_> = Scopes::all().iter().map(|scope| scope.label()).collect();
        let short: String = unknown.chars().take(64).collect();
        Problem::field(Code::InvalidFields, "/scopes", format!("`{short}` is none of {}", known.join(", ")))
    })?;
    if !caller.scopes.include(scopes) {
        return Err(Problem::new(Code::ScopeMissing, "a token cannot allow more than its maker's"));
    }
    let now_ms = api.gateway.clock().now_ms();
    let made = api.tokens.create(&subject, scopes, days * DAY_MS, now_ms).await.map_err(refuse::token)?;
    Ok((StatusCode::CREATED, Body(CreatedToken { body: made.token.into(), token: made.secret })))
}

/// Revoke a token; it stops working at once.
#[utoipa::path(
    delete, path = "/v1/tokens/{id}", operation_id = "revokeToken", tag = "system",
    params(("id" = String, Path)),
    responses((status = 204, description = "Revoked")),
    security(("token" = ["tokens:write"]))
)]
pub async fn revoke(
    State(api): State<Api>,
    _allowed: Allowed<scope::TokensWrite>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let now_ms = api.gateway.clock().now_ms();
    match api.tokens.revoke(&id, now_ms).await.map_err(refuse::token)? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::new(Code::UnknownToken, "or it was revoked before")),
    }
}
