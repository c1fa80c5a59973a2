//! Calls to a server, and what its refusals mean to people.

use super::args::Global;
use super::failure::{Exit, Failure};
use endstate_http::Trust;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use std::time::Duration;

/// A server to talk to.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
}

impl Client {
    /// Reads the token file, if one is named.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let token = match &global.token_file {
            None => None,
            Some(file) => Some(
                std::fs::read_to_string(file)
                    .map_err(|error| Failure::usage(format!("cannot read the token file {}: {error}", file.display())))?
                    .trim()
                    .to_owned(),
            ),
        };
        let trust = match &global.ca_file {
            Some(file) => Trust::with(file).map_err(|error| Failure::usage(error.to_string()))?,
            None => Trust::system(),
        };
        let http = trust.builder().timeout(Duration::from_secs(70)).build();
        let http = http.map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Self { http, server: global.server.trim_end_matches('/').to_owned(), token })
    }

    /// Reads.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        self.send(self.request(Method::GET, path).query(query)).await
    }

    /// Acts.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// A call to be completed and given to [`Self::send`].
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.server));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a call; a problem (RFC 9457) becomes a failure with its code.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let body = answer.text().await.map_err(|error| self.unreachable(&error))?;
        let value =
            if body.is_empty() { Value::Null } else { serde_json::from_str(&body).unwrap_or(Value::String(body)) };
        if status.is_success() { Ok(value) } else { Err(refused(&self.server, status.as_u16(), &value)) }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        if error.is_builder() {
            return Failure::usage(format!(
                "`{}` is no address: expected something like http://127.0.0.1:7600",
                self.server
            ));
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let message = format!("no answer from {}: {cause}", self.server);
        Failure { exit: Exit::Unreachable, message, hint: None }
            .hint("start one with `endstate dev`, or name another with --server URL or ENDSTATE_SERVER")
    }
}

/// One path segment, so that a number may hold anything: all but unreserved characters is percent-encoded.
pub(crate) fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn refused(server: &str, status: u16, problem: &Value) -> Failure {
    let code = problem["code"].as_str().unwrap_or("HTTP");
    let title = problem["title"].as_str().unwrap_or("the server refused");
    let mut message = format!("error[{code}]: {title} ({status})");
    if let Some(detail) = problem["detail"].as_str().filter(|detail| !detail.is_empty()) {
        message += &format!(": {detail}");
    }
    for error in problem["errors"].as_array().into_iter().flatten() {
        message +=
            &format!("\n  {} {}", error["pointer"].as_str().unwrap_or(""), error["detail"].as_str().unwrap_or(""));
    }
    let failure = Failure::no(message);
    match (status, problem["type"].as_str()) {
        (401, _) => failure
            .hint("name a token with --token-file FILE; make one with `endstate token create` on the server's machine"),
        (403, _) => failure.hint("this token may not do that; `endstate token list` shows scopes"),
        (_, Some(page)) if page.starts_with('/') => failure.hint(format!("see {server}{page}")),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_cannot_leave_its_place() {
        assert_eq!(segment("simpay/P-1 ?#李"), "simpay%2FP-1%20%3F%23%E6%9D%8E");
        assert_eq!(segment("../x"), "..%2Fx");
    }

    #[test]
    fn a_problem_is_told_with_code_places_and_hint() {
        let problem = serde_json::json!({"code": "E2002", "title": "Fields are wrong", "errors": [{"pointer": "/a", "detail": "missing"}]});
        let told = |status, problem: &Value| refused("http://h", status, problem).to_string();
        assert_eq!(told(422, &problem), "error[E2002]: Fields are wrong (422)\n  /a missing");
        let page = serde_json::json!({"code": "E2314", "title": "Nothing is parked", "type": "/errors/E2314"});
        assert!(told(409, &page).ends_with("hint: see http://h/errors/E2314"));
        assert!(told(401, &Value::Null).contains("token create"));
    }
}
