//! Refusals as RFC 9457 problems: `application/problem+json` with our code, its page and, per wrong field, a pointer.

use crate::Code;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A refused call. `?` works from handlers.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// What kind.
    pub code: Code,
    /// What about this occurrence.
    pub detail: String,
    /// Which fields.
    pub errors: Vec<FieldError>,
    /// What the caller can use to correct itself, such as the first saga of a number.
    pub location: Option<String>,
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON Pointer (RFC 6901) into the body.
    #[schema(example = "/total_minor")]
    pub pointer: String,
    /// What is wrong.
    #[schema(example = "expected an integer of at least 0")]
    pub detail: String,
}

/// The body of every refusal (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "Problem")]
pub struct ProblemBody<'a> {
    /// Address of the page about the code, relative to this server.
    #[serde(rename = "type")]
    #[schema(example = "/errors/E2002")]
    pub type_uri: String,
    /// One line, the same for every occurrence.
    #[schema(example = "Fields of the body are wrong")]
    pub title: &'a str,
    /// The HTTP status.
    #[schema(example = 422)]
    pub status: u16,
    /// Our code.
    #[schema(example = "E2002")]
    pub code: &'a str,
    /// What about this occurrence.
    #[schema(example = "1 field is wrong")]
    pub detail: &'a str,
    /// Which fields.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub errors: &'a [FieldError],
}

impl Problem {
    /// A problem with a detail for people.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), location: None }
    }

    /// A problem about one field.
    #[must_use]
    pub fn field(code: Code, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let (pointer, detail) = (pointer.into(), detail.into());
        let place = if pointer.is_empty() { "the body" } else { &pointer };
        Self {
            code,
            detail: format!("{place}: {detail}"),
            errors: vec![FieldError { pointer, detail }],
            location: None,
        }
    }

    /// A problem about several fields.
    #[must_use]
    pub fn fields(code: Code, errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] if one.pointer.is_empty() => one.detail.clone(),
            [one] => format!("{}: {}", one.pointer, one.detail),
            many => format!("{} fields are wrong", many.len()),
        };
        Self { code, detail, errors, location: None }
    }

    /// Names what the caller should look at instead.
    #[must_use]
    pub fn at(mut self, location: impl Into<String>) -> Self {
        self.location = Some(location.into());
        self
    }

    /// A mistake of ours: the log has the cause, the caller does not.
    #[must_use]
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(code = Code::Internal.label(), %cause, "a call failed");
        Self::new(Code::Internal, "the server's log has the cause")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemBody {
            type_uri: format!("/errors/{}", self.code.label()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            code: self.code.label(),
            detail: &self.detail,
            errors: &self.errors,
        };
        let bytes = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.code.status(), bytes).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.code.retry_after_s() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code.status() == axum::http::StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"endstate\""));
        }
        if let Some(location) = self.location.and_then(|location| HeaderValue::try_from(location).ok()) {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}
