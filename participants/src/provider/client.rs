//! Client of a provider that speaks HTTP like the simulated one. Its calls are signed like the callbacks it sends.

use super::{Opened, Opening, PaymentProvider, ProviderError, RefundOrder, Refunded, SIGNATURE, TIMESTAMP, sign};
use crate::outside;
use crate::payment::Captured;
use async_trait::async_trait;
use endstate_events::{Json, SagaId, Verdict};
use endstate_http::{Trust, outgoing};
use endstate_outbox::Clock;
use reqwest::{Client, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

/// A provider over HTTP.
pub struct ProviderClient {
    client: Client,
    /// Base address without a closing slash.
    url: String,
    secret: Vec<u8>,
    clock: Arc<dyn Clock>,
}

impl ProviderClient {
    /// `url` is the provider's base address, `secret` what both sides sign with.
    pub fn new(
        url: &str,
        secret: &[u8],
        timeout: Duration,
        clock: Arc<dyn Clock>,
        trust: &Trust,
    ) -> Result<Self, reqwest::Error> {
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { client: outside::client(trust, timeout)?, url, secret: secret.to_vec(), clock })
    }

    async fn call(&self, method: Method, path: &str, key: &str, body: &impl Serialize) -> Verdict {
        let body = serde_json::to_vec(body).unwrap_or_default();
        let time_ms = self.clock.now_ms();
        let request = self
            .client
            .request(method, format!("{}{path}", self.url))
            .header("idempotency-key", key)
            .header("content-type", "application/json")
            .header(TIMESTAMP, time_ms.to_string())
            .header(SIGNATURE, sign(&self.secret, time_ms, &body))
            .body(body);
        match request.send().await {
            Ok(response) => outside::verdict(response).await,
            Err(error) => Verdict::unknown(outgoing::reason(error)),
        }
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        body: &impl Serialize,
    ) -> Result<T, ProviderError> {
        match self.call(Method::POST, path, key, body).await {
            Verdict::Done { data } => read(data),
            Verdict::Refused { code, detail } => Err(ProviderError::Refused { code, detail }),
            Verdict::Unknown { reason, .. } => Err(ProviderError::Unknown(reason)),
            Verdict::NeverSeen => Err(ProviderError::Unknown(format!("the provider does not know {path}"))),
        }
    }

    /// `None` when the provider does not know what is asked for.
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ProviderError> {
        match self.call(Method::GET, path, "", &()).await {
            Verdict::Done { data } => read(data).map(Some),
            Verdict::NeverSeen => Ok(None),
            Verdict::Refused { code, detail } => Err(ProviderError::Refused { code, detail }),
            Verdict::Unknown { reason, .. } => Err(ProviderError::Unknown(reason)),
        }
    }
}

#[derive(serde::Deserialize)]
struct Captures {
    captures: Vec<Captured>,
}

#[async_trait]
impl PaymentProvider for ProviderClient {
    async fn open(&self, key: &str, opening: &Opening) -> Result<Opened, ProviderError> {
        self.post("/payments", key, opening).await
    }

    async fn close(&self, saga: SagaId) -> Result<Vec<Captured>, ProviderError> {
        let Captures { captures } = self.post(&format!("/payments/{saga}/close"), "", &()).await?;
        Ok(captures)
    }

    async fn captures(&self, saga: SagaId) -> Result<Vec<Captured>, ProviderError> {
        let found: Option<Captures> = self.get(&format!("/payments/{saga}")).await?;
        Ok(found.map(|found| found.captures).unwrap_or_default())
    }

    async fn refund(&self, key: &str, refund: &RefundOrder) -> Result<Refunded, ProviderError> {
        self.post("/refunds", key, refund).await
    }

    async fn find(&self, key: &str) -> Result<Option<Json>, ProviderError> {
        self.get(&format!("/effects/{}", escaped(key))).await
    }
}

/// A text as it may stand in a segment of a path, or in a header.
pub(super) fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

fn read<T: DeserializeOwned>(data: Json) -> Result<T, ProviderError> {
    serde_json::from_value(data).map_err(|error| ProviderError::Unknown(format!("unreadable answer: {error}")))
}
