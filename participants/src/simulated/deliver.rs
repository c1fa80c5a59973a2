//! Delivery of callbacks: several times, each after a time of its own, so that they arrive late and out of order; and
//! again, with growing pauses, while nobody acknowledges.

use super::{Config, Desk, MOST_DELIVERIES};
use crate::outside;
use crate::provider::{Callback, SIGNATURE, TIMESTAMP, sign};
use endstate_http::Trust;
use endstate_outbox::Clock;
use reqwest::Client;
use std::sync::Arc;
use std::time::Duration;

/// Pause before a delivery that was not acknowledged is repeated; doubles each time.
const REPEAT: Duration = Duration::from_millis(250);

/// How long a merchant may take to acknowledge.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends callbacks.
pub(super) struct Delivery {
    client: Client,
    url: String,
    secret: Vec<u8>,
    clock: Arc<dyn Clock>,
}

impl Delivery {
    pub(super) fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        let client = outside::client(&Trust::system(), PATIENCE)?;
        Ok(Self { client, url: config.callback_url.clone(), secret: config.secret.clone(), clock })
    }

    /// One delivery; true when it was acknowledged.
    async fn send(&self, callback: &Callback) -> bool {
        let body = serde_json::to_vec(callback).unwrap_or_default();
        let time_ms = self.clock.now_ms();
        let request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .header(TIMESTAMP, time_ms.to_string())
            .header(SIGNATURE, sign(&self.secret, time_ms, &body))
            .body(body);
        matches!(request.send().await, Ok(response) if response.status().is_success())
    }
}

impl Desk {
    /// Delivers a callback in the background: `times` at random moments up to `delay`, then until it is acknowledged,
    /// at most [`MOST_DELIVERIES`] in all.
    pub(super) fn deliver(self: &Arc<Self>, callback: Callback, times: Option<u8>, delay: Option<Duration>) {
        let most = u64::from(self.config.deliveries.clamp(1, MOST_DELIVERIES));
        let times = times.unwrap_or_else(|| u8::try_from(self.chance(1, most)).unwrap_or(1));
        let delay_ms = u64::try_from(delay.unwrap_or(self.config.delay).as_millis()).unwrap_or(u64::MAX);
        let mut moments: Vec<u64> = (0..times).map(|_| self.chance(0, delay_ms)).collect();
        moments.sort_unstable();
        let desk = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = desk.stop.cancelled() => {}
                () = desk.deliver_all(&callback, &moments) => {}
            }
        });
    }

    async fn deliver_all(&self, callback: &Callback, moments: &[u64]) {
        let mut acknowledged = false;
        let mut waited = 0;
        for moment in moments {
            tokio::time::sleep(Duration::from_millis(moment - waited)).await;
            waited = *moment;
            acknowledged |= self.delivered(callback).await;
        }
        let mut pause = REPEAT;
        for _ in moments.len()..usize::from(MOST_DELIVERIES) {
            if acknowledged {
                return;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            acknowledged = self.delivered(callback).await;
        }
    }

    async fn delivered(&self, callback: &Callback) -> bool {
        let acknowledged = self.delivery.send(callback).await;
        if acknowledged && self.book().acknowledge(&callback.provider_no, self.now_ms()).is_err() {
            tracing::warn!(payment = %callback.provider_no, "the provider's file cannot be written");
        }
        acknowledged
    }
}
