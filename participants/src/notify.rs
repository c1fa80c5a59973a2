//! Messages to people, over channels behind one trait. A message can never fail an order; sent twice under one id, a
//! good channel delivers it once.

use crate::caller::Outside;
use crate::outside;
use async_trait::async_trait;
use endstate_events::{Command, Json, Lane, Verdict};
use endstate_http::{Trust, outgoing};
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Name of the channel that takes what no other is asked for, and everything that is no live traffic.
pub const FILE: &str = "file";

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Notice {
    /// The effect id: the same message again has the same id.
    pub id: String,
    /// To whom.
    pub user: String,
    /// Which text.
    pub template: String,
    /// What the text speaks of.
    pub data: Json,
    /// The business number, such as the order's.
    pub number: String,
    /// Kind of traffic.
    pub lane: Lane,
}

/// A way to reach people. The answer is the effect's: done, refused, or unknown.
#[async_trait]
pub trait Channel: Send + Sync + 'static {
    /// Delivers one message.
    async fn deliver(&self, notice: &Notice) -> Verdict;
}

/// All channels, as the outside party of participant `notify`.
pub struct Notify {
    channels: BTreeMap<String, Arc<dyn Channel>>,
    default: String,
}

impl Notify {
    /// Writes to a file until other channels are added.
    #[must_use]
    pub fn new(file: FileChannel) -> Self {
        let channels = BTreeMap::from([(FILE.to_owned(), Arc::new(file) as Arc<dyn Channel>)]);
        Self { channels, default: FILE.to_owned() }
    }

    /// Adds a channel under a name that `with.channel` may choose.
    #[must_use]
    pub fn with(mut self, name: &str, channel: Arc<dyn Channel>) -> Self {
        self.channels.insert(name.to_owned(), channel);
        self
    }

    /// Makes a channel the one of messages that name none; `None` when there is no such channel.
    #[must_use]
    pub fn preferring(self, name: &str) -> Option<Self> {
        self.channels.contains_key(name).then(|| Self { default: name.to_owned(), ..self })
    }
}

#[derive(Deserialize)]
struct Sending {
    user: String,
    template: String,
    channel: Option<String>,
    #[serde(default)]
    data: Json,
}

#[async_trait]
impl Outside for Notify {
    async fn make(&self, command: &Command, lane: Lane) -> Verdict {
        let Sending { user, template, channel, data } = match Sending::deserialize(&command.with) {
            Ok(sending) => sending,
            Err(error) => return rejected(error.to_string()),
        };
        // Testers' and load generators' messages must never reach a person.
        let name = if lane == Lane::Live { channel.as_deref().unwrap_or(&self.default) } else { FILE };
        let Some(channel) = self.channels.get(name) else {
            return rejected(format!("there is no channel {name}"));
        };
        let (id, number) = (command.effect_id.to_string(), command.number.clone());
        channel.deliver(&Notice { id, user, template, data, number, lane }).await
    }

    /// Channels keep no memory: the message is sent again under its id.
    async fn ask(&self, _command: &Command, _lane: Lane) -> Verdict {
        Verdict::NeverSeen
    }
}

fn rejected(detail: String) -> Verdict {
    Verdict::Refused { code: "notify.rejected".to_owned(), detail }
}

/// Appends messages to a file, one JSON object per line.
#[derive(Debug)]
pub struct FileChannel(Mutex<std::fs::File>);

impl FileChannel {
    /// Opens or makes the file.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self(Mutex::new(std::fs::File::options().create(true).append(true).open(path)?)))
    }
}

#[async_trait]
impl Channel for FileChannel {
    async fn deliver(&self, notice: &Notice) -> Verdict {
        let mut line = serde_json::to_vec(notice).unwrap_or_default();
        line.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match file.write_all(&line) {
            Ok(()) => Verdict::Done { data: json!({ "channel": FILE }) },
            Err(error) => Verdict::unknown(error.to_string()),
        }
    }
}

/// Posts messages to an address as they are.
#[derive(Debug)]
pub struct WebhookChannel {
    client: Client,
    url: String,
}

impl WebhookChannel {
    /// `url` takes a [`Notice`] as JSON, with its id as `Idempotency-Key`.
    pub fn new(url: &str, timeout: Duration, trust: &Trust) -> Result<Self, reqwest::Error> {
        Ok(Self { client: outside::client(trust, timeout)?, url: url.to_owned() })
    }
}

#[async_trait]
impl Channel for WebhookChannel {
    async fn deliver(&self, notice: &Notice) -> Verdict {
        post(&self.client, &self.url, notice, &json!(notice)).await
    }
}

/// Sends short messages through a gateway that takes `{to, template, parameters, reference}`.
#[derive(Debug)]
pub struct SmsChannel {
    client: Client,
    url: String,
}

impl SmsChannel {
    /// `url` is the gateway's.
    pub fn new(url: &str, timeout: Duration, trust: &Trust) -> Result<Self, reqwest::Error> {
        Ok(Self { client: outside::client(trust, timeout)?, url: url.to_owned() })
    }
}

#[async_trait]
impl Channel for SmsChannel {
    async fn deliver(&self, notice: &Notice) -> Verdict {
        let body = json!({
            "to": notice.user,
            "template": notice.template,
            "parameters": notice.data,
            "reference": notice.number,
        });
        post(&self.client, &self.url, notice, &body).await
    }
}

async fn post(client: &Client, url: &str, notice: &Notice, body: &Json) -> Verdict {
    match client.post(url).header("idempotency-key", &notice.id).json(body).send().await {
        Ok(response) if response.status().is_success() => Verdict::Done { data: json!({}) },
        Ok(response) if response.status() == reqwest::StatusCode::CONFLICT => {
            rejected(format!("the channel answered {}", response.status()))
        }
        Ok(response) => Verdict::unknown(format!("the channel answered {}", response.status())),
        Err(error) => Verdict::unknown(outgoing::reason(error)),
    }
}
