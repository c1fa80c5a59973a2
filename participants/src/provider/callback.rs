//! Callbacks of the payment provider (A5): signed over their time and their bytes, so that a forged or an old one is
//! refused before anything in it is believed.

use crate::payment::Captured;
use axum::http::HeaderMap;
use endstate_events::{MinorUnits, SagaId};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Header with the time of signing, milliseconds since 1970.
pub const TIMESTAMP: &str = "provider-timestamp";
/// Header with the signature: HMAC-SHA256 over `TIMESTAMP.BODY`, in hex.
pub const SIGNATURE: &str = "provider-signature";

/// What a provider tells: money was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// Id of this event at the provider; the same at every delivery.
    pub event_id: String,
    /// The provider's name.
    pub provider: String,
    /// Its number of the payment.
    pub provider_no: String,
    /// Our merchant reference.
    pub saga: SagaId,
    /// How much it took.
    pub amount_minor: MinorUnits,
    /// In which currency.
    pub currency: String,
    /// When, milliseconds since 1970.
    pub captured_ms: i64,
}

impl Callback {
    /// The payment that it tells of.
    #[must_use]
    pub fn captured(self) -> Captured {
        let Self { provider, provider_no, saga, amount_minor, currency, .. } = self;
        Captured { provider, provider_no, amount_minor, currency, saga }
    }
}

/// Why a callback is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// A header is missing or no number.
    #[error("E5030: the callback has no readable `{0}` header")]
    Header(&'static str),
    /// Signed too long ago, or in the future.
    #[error("E5031: the callback was signed outside the time window")]
    Stale,
    /// The signature does not fit.
    #[error("E5032: the signature of the callback does not fit")]
    Forged,
    /// Signed well, but not a callback.
    #[error("E5033: the callback cannot be read: {0}")]
    Malformed(String),
}

/// Signs bytes at a time, as the provider and we both do.
#[must_use]
pub fn sign(secret: &[u8], time_ms: i64, body: &[u8]) -> String {
    let digest = mac(secret, time_ms, body);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks signature, then time, then form. `window_ms` is how old a signature may be, and how far ahead.
pub fn verify_callback(
    secret: &[u8],
    headers: &HeaderMap,
    body: &[u8],
    now_ms: i64,
    window_ms: i64,
) -> Result<Callback, CallbackError> {
    verify(secret, headers, body, now_ms, window_ms)?;
    serde_json::from_slice(body).map_err(|error| CallbackError::Malformed(error.to_string()))
}

/// Checks signature and time of any signed call.
pub(crate) fn verify(
    secret: &[u8],
    headers: &HeaderMap,
    body: &[u8],
    now_ms: i64,
    window_ms: i64,
) -> Result<(), CallbackError> {
    let header =
        |name: &'static str| headers.get(name).and_then(|value| value.to_str().ok()).ok_or(CallbackError::Header(name));
    let time_ms: i64 = header(TIMESTAMP)?.parse().map_err(|_| CallbackError::Header(TIMESTAMP))?;
    let claimed = header(SIGNATURE)?;
    let expected = sign(secret, time_ms, body);
    if !bool::from(expected.as_bytes().ct_eq(claimed.as_bytes())) {
        return Err(CallbackError::Forged);
    }
    if now_ms.abs_diff(time_ms) > window_ms.unsigned_abs() {
        return Err(CallbackError::Stale);
    }
    Ok(())
}

fn mac(secret: &[u8], time_ms: i64, body: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return [0; 32] };
    mac.update(time_ms.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"event_id":"E1","provider":"simpay","provider_no":"P1","amount_minor":100,
        "saga":"0193a0b2-7c00-8abc-9def-0123456789ab","currency":"CNY","captured_ms":5}"#;

    fn headers(time: &str, signature: &str) -> HeaderMap {
        [(TIMESTAMP, time), (SIGNATURE, signature)]
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_signed_callback_is_believed_only_within_its_window() {
        let signed = headers("1000", &sign(b"secret", 1000, BODY));
        assert_eq!(verify_callback(b"secret", &signed, BODY, 1500, 500).unwrap().provider_no, "P1");
        assert_eq!(verify_callback(b"secret", &signed, BODY, 500, 500).unwrap().provider_no, "P1");
        assert_eq!(verify_callback(b"secret", &signed, BODY, 1501, 500), Err(CallbackError::Stale));
        assert_eq!(verify_callback(b"secret", &signed, BODY, 499, 500), Err(CallbackError::Stale));
    }

    #[test]
    fn what_is_forged_or_changed_is_refused() {
        let signature = sign(b"secret", 1000, BODY);
        let verify = |headers: &HeaderMap, body: &[u8]| verify_callback(b"secret", headers, body, 1000, 500);
        assert_eq!(verify(&headers("1000", &sign(b"guess", 1000, BODY)), BODY), Err(CallbackError::Forged));
        assert_eq!(verify(&headers("1001", &signature), BODY), Err(CallbackError::Forged));
        assert_eq!(verify(&headers("1000", &signature), &BODY[1..]), Err(CallbackError::Forged));
        assert_eq!(verify(&headers("1000", &signature[..63]), BODY), Err(CallbackError::Forged));
        assert_eq!(verify(&headers("soon", &signature), BODY), Err(CallbackError::Header(TIMESTAMP)));
        assert_eq!(verify(&HeaderMap::new(), BODY), Err(CallbackError::Header(TIMESTAMP)));
        let nonsense = headers("1000", &sign(b"secret", 1000, b"[]"));
        assert!(matches!(verify(&nonsense, b"[]"), Err(CallbackError::Malformed(_))));
    }
}
