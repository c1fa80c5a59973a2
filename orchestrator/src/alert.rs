//! Telling people (H2): alerts wait as rows, which are logged, posted to a webhook with a link, and kept in a file when
//! the webhook does not take them. At least once: a kill between telling and marking tells again, under the same id.

use endstate_http::{Trust, outgoing};
use endstate_outbox::alert::{self, Tried, Waiting};
use endstate_outbox::{Alert, Clock, Store, StoreError};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How often waiting alerts are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Alerts of one round at most; they are marked together.
const PAGE: i64 = 32;

/// How long a webhook may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a round may take: every post of it is slow, and the file is, too. Until then nobody else tells its alerts.
const LEASE_MS: i64 = (PAGE + 4) * PATIENCE.as_millis() as i64;

/// The first pause before an alert is posted again; it doubles up to [`PAUSE_MOST_MS`].
const PAUSE_MS: i64 = 1_000;
const PAUSE_MOST_MS: i64 = 3_600_000;

/// A webhook gets about fifteen seconds to come back; then the file has the alert as well.
const KEPT_AFTER: i64 = 4;

/// About a day of pauses. Then the file alone has to do.
const GIVEN_UP_AFTER: i64 = 36;

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
    /// The same for a repeat.
    id: &'a str,
    kind: &'a str,
    definition: &'a str,
    number: &'a str,
    saga: String,
    text: &'a str,
    /// When it happened.
    time_ms: i64,
    /// Where to look and act.
    link: String,
}

/// Tells people what waits to be told.
pub struct Teller {
    store: Arc<dyn Store>,
    channel: Channel,
    clock: Arc<dyn Clock>,
    http: reqwest::Client,
}

impl Teller {
    /// Tells what `store` holds over `channel`; fails when its trust cannot be used.
    pub fn new(store: Arc<dyn Store>, channel: Channel, clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        let http = channel.trust.builder().timeout(PATIENCE).build()?;
        Ok(Self { store, channel, clock, http })
    }

    /// Tells until it is dropped.
    pub async fn run(self) {
        loop {
            match self.round().await {
                // There may be more.
                Ok(tried) if tried > 0 => continue,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "alerts could not be read or marked; tried again"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Tells those whose time it is, and marks them; returns how many they were.
    pub async fn round(&self) -> Result<usize, StoreError> {
        let now_ms = self.clock.now_ms();
        let waiting = alert::waiting(&*self.store, now_ms, PAGE).await?;
        if waiting.is_empty() {
            return Ok(0);
        }
        // Several processes may look; and one that dies while it tells leaves them to whoever looks when its time is over.
        if !alert::claim(&*self.store, &waiting, now_ms + LEASE_MS).await? {
            return Ok(0);
        }
        let mut tried = Vec::with_capacity(waiting.len());
        // Once the webhook fails, the others of the round wait for another one: a flood of them must not take hours.
        let mut up = true;
        for waiting in &waiting {
            let Alert { id, kind, definition, number, text, .. } = &waiting.alert;
            if waiting.tries == 0 {
                tracing::error!(%kind, %definition, %number, "{text}");
            }
            let body = self.body(&waiting.alert);
            up = up && self.post(&body).await;
            let came = if up { Tried::Told("webhook") } else { self.put_off(waiting, &body).await };
            tried.push((id.clone(), came));
        }
        alert::mark(&*self.store, &tried, self.clock.now_ms()).await?;
        Ok(tried.len())
    }

    fn body<'a>(&self, alert: &'a Alert) -> Body<'a> {
        Body {
            id: &alert.id,
            kind: &alert.kind,
            definition: &alert.definition,
            number: &alert.number,
            saga: alert.saga.map(|saga| saga.to_string()).unwrap_or_default(),
            text: &alert.text,
            time_ms: alert.time_ms,
            link: link(&self.channel.public_url, alert),
        }
    }

    async fn post(&self, body: &Body<'_>) -> bool {
        let Some(url) = &self.channel.webhook_url else { return false };
        let failure = match self.http.post(url).header("idempotency-key", body.id).json(body).send().await {
            Ok(answer) if answer.status().is_success() => return true,
            Ok(answer) => answer.status().to_string(),
            Err(error) => outgoing::reason(error),
        };
        tracing::warn!(failure, "the alert webhook did not take an alert");
        false
    }

    /// Nobody took it: later again, from some time on with a copy in the file, and in the end the file alone.
    async fn put_off(&self, waiting: &Waiting, body: &Body<'_>) -> Tried {
        let has_webhook = self.channel.webhook_url.is_some();
        let must_keep = !has_webhook || waiting.tries >= KEPT_AFTER;
        let kept = waiting.kept || (must_keep && keep(&self.channel.file, body).await);
        if kept && (!has_webhook || waiting.tries >= GIVEN_UP_AFTER) {
            return Tried::Told("file");
        }
        let pause_ms = (PAUSE_MS << waiting.tries.clamp(0, 20)).min(PAUSE_MOST_MS);
        Tried::Again { kept, next_ms: self.clock.now_ms() + pause_ms }
    }
}

fn link(public_url: &str, alert: &Alert) -> String {
    let encode = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect::<String>()
    };
    let base = public_url.trim_end_matches('/');
    match (&*alert.kind, alert.saga) {
        // Of the participants' side, or of a whole shard.
        (_, None) => format!("{base}/v1/shards"),
        // An input without a saga, or of one that stands still: the job that tries it again shows it.
        ("orphan" | "unreadable", Some(_)) => format!("{base}/v1/jobs/orphans/runs"),
        (_, Some(_)) if alert.definition.is_empty() => format!("{base}/v1/dead-letters"),
        (_, Some(_)) => {
            format!("{base}/v1/sagas/{}/{}/timeline", encode(&alert.definition), encode(&alert.number))
        }
    }
}

/// True when the file has it.
async fn keep(file: &Path, body: &Body<'_>) -> bool {
    let line = serde_json::to_string(body).unwrap_or_default() + "\n";
    let written = async {
        let mut file = tokio::fs::OpenOptions::new().create(true).append(true).open(file).await?;
        file.write_all(line.as_bytes()).await?;
        file.sync_data().await
    };
    match written.await {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%error, file = %file.display(), "an alert could not be kept");
            false
        }
    }
}

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teller").field("channel", &self.channel).finish_non_exhaustive()
    }
}
