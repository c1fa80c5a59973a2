//! Participants elsewhere, over HTTP: `POST {url}/{action}` with the command and `Idempotency-Key`, and
//! `GET {url}/effects/{effect id}` to ask. docs/participants.md is the contract.

use crate::caller::Outside;
use async_trait::async_trait;
use endstate_events::{Command, EffectId, Json, Lane, Verdict};
use endstate_http::{Trust, outgoing, strict_json};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use rustc_hash::FxHashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Bytes of an answer at most; more is nothing a saga could record.
const ANSWER_BYTES: usize = 256 * 1024;

/// Header with the lane of a call that is no live one.
const LANE: &str = "endstate-lane";

/// A client for calls to outside parties.
pub fn client(trust: &Trust, timeout: Duration) -> Result<Client, reqwest::Error> {
    trust.builder().timeout(timeout).connect_timeout(timeout.min(Duration::from_secs(3))).build()
}

/// Everybody that can be called: built-in parties by name, and HTTP participants by their address.
pub struct Outsides {
    builtin: FxHashMap<&'static str, Arc<dyn Outside>>,
    /// By address and time limit. Addresses are few: they stand in catalogues and in the configuration.
    http: RwLock<FxHashMap<(String, u64), Arc<HttpParticipant>>>,
    trust: Trust,
}

impl Outsides {
    /// `payment` calls the payment provider, `notify` the channels to people; `trust` is for the others.
    #[must_use]
    pub fn new(payment: Arc<dyn Outside>, notify: Arc<dyn Outside>, trust: Trust) -> Self {
        let builtin = [("payment", payment), ("notify", notify)].into_iter().collect();
        Self { builtin, http: RwLock::default(), trust }
    }

    /// A built-in party, if the name is one's.
    #[must_use]
    pub fn builtin(&self, participant: &str) -> Option<Arc<dyn Outside>> {
        self.builtin.get(participant).cloned()
    }

    /// The participant at an address; its connections are kept.
    pub fn at(&self, url: &str, timeout_ms: u64) -> Result<Arc<HttpParticipant>, OutsideError> {
        let key = (url.to_owned(), timeout_ms);
        if let Some(known) = self.http.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(HttpParticipant::new(url, Duration::from_millis(timeout_ms), &self.trust)?);
        let mut http = self.http.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(http.entry(key).or_insert(made)))
    }
}

/// A participant that cannot be called as the catalogue describes it.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// Not an address.
    #[error("E5012: `{0}` is no address of a participant: expected http://HOST:PORT/PATH or https://HOST/PATH")]
    Url(String),
    /// The client cannot be made.
    #[error("E5013: the HTTP client cannot be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// One participant over HTTP.
#[derive(Debug)]
pub struct HttpParticipant {
    client: Client,
    base: Url,
}

impl HttpParticipant {
    /// Checks the address.
    pub fn new(url: &str, timeout: Duration, trust: &Trust) -> Result<Self, OutsideError> {
        let known = |base: &Url| matches!(base.scheme(), "http" | "https") && base.host().is_some();
        let base = Url::parse(url).ok().filter(known);
        let base = base.ok_or_else(|| OutsideError::Url(url.chars().take(200).collect()))?;
        Ok(Self { client: client(trust, timeout)?, base })
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        // An address with a host can always take path segments.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

#[async_trait]
impl Outside for HttpParticipant {
    async fn make(&self, command: &Command, lane: Lane) -> Verdict {
        let request = self.client.post(self.url(&[&command.action])).json(command);
        settled(answer(request, &command.effect_id, lane).await)
    }

    async fn ask(&self, command: &Command, lane: Lane) -> Verdict {
        let request = self.client.get(self.url(&["effects", &command.effect_id.to_string()]));
        answer(request, &command.effect_id, lane).await
    }
}

/// A participant that does not know the path of an action has not vouched for anything.
fn settled(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::NeverSeen => Verdict::unknown("404: the participant has no such action"),
        settled @ (Verdict::Done { .. } | Verdict::Refused { .. } | Verdict::Unknown { .. }) => settled,
    }
}

async fn answer(request: RequestBuilder, effect: &EffectId, lane: Lane) -> Verdict {
    let mut request = request.header("idempotency-key", effect.to_string());
    if lane != Lane::Live {
        request = request.header(LANE, lane.label());
    }
    match request.send().await {
        Ok(response) => verdict(response).await,
        Err(error) => Verdict::unknown(outgoing::reason(error)),
    }
}

/// 2xx is done, 409 with a code is refused, 404 was never seen, all else nobody knows.
pub(crate) async fn verdict(response: Response) -> Verdict {
    let status = response.status();
    let body = match body(response).await {
        Ok(body) => body,
        Err(reason) => return Verdict::unknown(format!("{status}: {reason}")),
    };
    match (status, body.get("code").and_then(Json::as_str)) {
        (status, _) if status.is_success() => Verdict::Done { data: body },
        (StatusCode::CONFLICT, Some(code)) => {
            let detail = body.get("detail").and_then(Json::as_str).unwrap_or_default().to_owned();
            Verdict::Refused { code: code.to_owned(), detail }
        }
        (StatusCode::NOT_FOUND, _) => Verdict::NeverSeen,
        (status, _) => Verdict::unknown(format!("answered {status}")),
    }
}

/// The body as JSON: null when empty; only a success must be JSON.
async fn body(mut response: Response) -> Result<Json, String> {
    let must_parse = response.status().is_success();
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(outgoing::reason)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES {
            return Err(format!("the answer is longer than {ANSWER_BYTES} bytes"));
        }
    }
    if bytes.is_empty() {
        return Ok(Json::Null);
    }
    // As strictly as what callers send: it becomes part of the saga's row, and must be readable there.
    match strict_json::parse(&bytes) {
        Ok(body) => Ok(body),
        Err(problem) if must_parse => Err(format!("the answer cannot be taken: {}", problem.detail)),
        Err(_) => Ok(Json::Null),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It would be written into a row that nobody could read again.
    #[tokio::test]
    async fn an_answer_that_no_row_should_hold_says_nothing() {
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        for text in [deep.as_str(), r#"{"a":1,"a":2}"#, r#"{"a":"\u0000"}"#, r#"{"n":9007199254740993}"#, "{"] {
            let answered = verdict(axum::http::Response::new(text.to_owned()).into()).await;
            assert!(matches!(answered, Verdict::Unknown { .. }), "{text}: {answered:?}");
        }
        let done = verdict(axum::http::Response::new(r#"{"a":1}"#.to_owned()).into()).await;
        assert!(matches!(done, Verdict::Done { .. }), "{done:?}");
    }
}
