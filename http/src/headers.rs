//! Headers with a meaning of ours: `Prefer: wait=N` (RFC 7240) and `Idempotency-Key`.

use crate::{Code, Problem};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use endstate_events::Lane;
use std::time::Duration;

/// Name of the header that answers `Prefer`.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// Name of the header that marks the answer to a repeat.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Longest wait granted; below the usual idle limit of proxies.
pub const MAX_WAIT_S: u64 = 30;
/// Longest idempotency key taken.
const MAX_KEY: usize = 200;

/// How long the caller wants to wait for an end, capped at [`MAX_WAIT_S`]. Other preferences are ignored, as the RFC says.
pub fn wait(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    for value in headers.get_all("prefer") {
        let text = value.to_str().map_err(|_| Problem::new(Code::InvalidHeader, "Prefer: not readable as text"))?;
        for preference in text.split(',') {
            let (name, value) =
                preference.split(';').next().and_then(|p| p.split_once('=')).unwrap_or((preference, ""));
            if !name.trim().eq_ignore_ascii_case("wait") {
                continue;
            }
            let seconds: u64 = value.trim().trim_matches('"').parse().map_err(|_| {
                Problem::new(Code::InvalidHeader, "Prefer: wait must be a whole number of seconds, such as wait=10")
            })?;
            return Ok(Some(Duration::from_secs(seconds.min(MAX_WAIT_S))));
        }
    }
    Ok(None)
}

/// The answer to [`wait`].
#[must_use]
pub fn wait_applied(wait: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("wait={}", wait.as_secs())).unwrap_or(HeaderValue::from_static("wait"))
}

/// The caller's idempotency key, if any. A quoted one (as the IETF draft spells it) means the same.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let wrong = |detail: &str| Problem::new(Code::InvalidHeader, format!("Idempotency-Key: {detail}"));
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(wrong("given twice"));
    }
    let text = value.to_str().map_err(|_| wrong("only visible ASCII characters"))?.trim();
    let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(wrong("expected 1 to 200 characters"));
    }
    Ok(Some(key.to_owned()))
}

/// Kind of traffic, from the header `Endstate-Lane`, if it is there.
pub fn lane(headers: &HeaderMap) -> Result<Option<Lane>, Problem> {
    let Some(value) = headers.get("endstate-lane") else { return Ok(None) };
    let found = value.to_str().ok().and_then(Lane::labelled);
    found.map(Some).ok_or_else(|| Problem::new(Code::InvalidHeader, "Endstate-Lane: expected live, test or load"))
}

/// One path segment, so that a number may hold anything: all but unreserved characters (RFC 3986) is percent-encoded.
#[must_use]
pub fn segment(text: &str) -> String {
    let mut spelled = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            spelled.push(char::from(byte));
        } else {
            spelled.push_str(&format!("%{byte:02X}"));
        }
    }
    spelled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn waits_are_read_and_capped() {
        assert_eq!(wait(&HeaderMap::new()).unwrap(), None);
        assert_eq!(wait(&headers("prefer", &["respond-async, wait=10"])).unwrap(), Some(Duration::from_secs(10)));
        assert_eq!(
            wait(&headers("prefer", &["handling=lenient", "Wait = 9999"])).unwrap().unwrap().as_secs(),
            MAX_WAIT_S
        );
        assert_eq!(wait(&headers("prefer", &["wait=-1"])).unwrap_err().code, Code::InvalidHeader);
        assert_eq!(wait(&headers("prefer", &["return=minimal"])).unwrap(), None);
    }

    #[test]
    fn keys_are_read_once() {
        assert_eq!(idempotency_key(&headers("idempotency-key", &["\"a-1\""])).unwrap().as_deref(), Some("a-1"));
        assert!(idempotency_key(&headers("idempotency-key", &["a", "b"])).is_err());
        assert!(idempotency_key(&headers("idempotency-key", &[""])).is_err());
        assert!(idempotency_key(&headers("idempotency-key", &["x".repeat(201).as_str()])).is_err());
    }
}
