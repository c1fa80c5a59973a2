//! Alerts to people (H2): logged, posted to a webhook with a link, and kept in a file when the webhook does not take them.

use crate::handler::Alert;
use endstate_http::{Trust, outgoing};
use endstate_outbox::Clock;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::UnboundedReceiver;

/// Pauses between tries; together a webhook gets about fifteen seconds to come back.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// How long a webhook may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where alerts go.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Address that takes a POST; none: file and log only.
    pub webhook_url: Option<String>,
    /// Takes, one JSON object a line, what the webhook does not.
    pub file: PathBuf,
    /// Address under which people reach the API, for links.
    pub public_url: String,
    /// Whom calls to the webhook trust.
    pub trust: Trust,
}

/// The body of a post, and a line of the file.
#[derive(Debug, Serialize)]
struct Body<'a> {
    kind: &'a str,
    definition: &'a str,
    number: &'a str,
    saga: String,
    text: &'a str,
    time_ms: i64,
    /// Where to look and act.
    link: String,
}

/// Delivers alerts in order until their senders are gone.
pub async fn deliver(mut alerts: UnboundedReceiver<Alert>, channel: Channel, clock: Arc<dyn Clock>) {
    let Ok(http) = channel.trust.builder().timeout(PATIENCE).build() else { return };
    // While the webhook is down, each further alert gets one try, so that a flood of them does not take hours.
    let mut up = true;
    while let Some(alert) = alerts.recv().await {
        tracing::error!(kind = %alert.kind, definition = %alert.definition, number = %alert.number, "{}", alert.text);
        let body = Body {
            kind: alert.kind,
            definition: &alert.definition,
            number: &alert.number,
            saga: alert.saga.to_string(),
            text: &alert.text,
            time_ms: clock.now_ms(),
            link: link(&channel.public_url, &alert),
        };
        let pauses = if up { &PAUSES[..] } else { &[] };
        up = post(&http, channel.webhook_url.as_deref(), &body, pauses).await;
        if !up {
            keep(&channel.file, &body).await;
        }
    }
}

fn link(public_url: &str, alert: &Alert) -> String {
    let encode = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect::<String>()
    };
    let base = public_url.trim_end_matches('/');
    if alert.definition.is_empty() {
        // An input without a saga: the job that tries it again shows it.
        return format!("{base}/v1/jobs/orphans/runs");
    }
    format!("{base}/v1/sagas/{}/{}/timeline", encode(&alert.definition), encode(&alert.number))
}

async fn post(http: &reqwest::Client, url: Option<&str>, body: &Body<'_>, pauses: &[Duration]) -> bool {
    let Some(url) = url else { return false };
    let mut pauses = pauses.iter();
    loop {
        let failure = match http.post(url).json(body).send().await {
            Ok(answer) if answer.status().is_success() => return true,
            Ok(answer) => answer.status().to_string(),
            Err(error) => outgoing::reason(error),
        };
        tracing::warn!(failure, "the alert webhook did not take an alert");
        match pauses.next() {
            Some(pause) => tokio::time::sleep(*pause).await,
            None => return false,
        }
    }
}

async fn keep(file: &PathBuf, body: &Body<'_>) {
    let line = serde_json::to_string(body).unwrap_or_default() + "\n";
    let written = async {
        let mut file = tokio::fs::OpenOptions::new().create(true).append(true).open(file).await?;
        file.write_all(line.as_bytes()).await?;
        file.flush().await
    };
    if let Err(error) = written.await {
        tracing::error!(%error, file = %file.display(), "an alert could not be kept");
    }
}
