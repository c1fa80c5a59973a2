//! Who is outside: the payment provider, the channels to people, and the HTTP participants of loaded definitions.

use crate::config::{Config, ProviderKind};
use anyhow::Context as _;
use endstate_http::Trust;
use endstate_orchestrator::definitions::Definitions;
use endstate_outbox::Clock;
use endstate_participants::caller::{Directory, Outside};
use endstate_participants::notify::{FileChannel, Notify, SmsChannel, WebhookChannel};
use endstate_participants::outside::Outsides;
use endstate_participants::provider::{Payments, ProviderClient};
use std::sync::Arc;
use std::time::Duration;

/// All outside parties; those of definitions that are loaded while the program runs are found, too.
pub(crate) struct Outdoors {
    known: Outsides,
    definitions: Arc<Definitions>,
}

impl Outdoors {
    /// Calls the payment provider at `provider_url`.
    pub(crate) fn new(
        config: &Config,
        provider_url: &str,
        secret: &[u8],
        definitions: Arc<Definitions>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let trust = config.tls.trust()?;
        let timeout = Duration::from_millis(config.payment.timeout_ms);
        let provider = ProviderClient::new(provider_url, secret, timeout, clock, &trust)?;
        // Without an address of its own the provider is the simulated one of this process.
        let simulated = config.payment.url.is_empty() || config.payment.kind == ProviderKind::Simulated;
        let payments = if simulated { Payments::simulated } else { Payments::real };
        let notify = channels(config, &trust)?;
        let known = Outsides::new(Arc::new(payments(Arc::new(provider))), Arc::new(notify), trust);
        known.learn(&definitions.catalogue())?;
        Ok(Self { known, definitions })
    }
}

/// The configured ways to reach people.
fn channels(config: &Config, trust: &Trust) -> anyhow::Result<Notify> {
    let settings = &config.notify;
    let timeout = Duration::from_millis(settings.timeout_ms);
    let mut notify = Notify::new(FileChannel::open(&config.in_data(&settings.file))?);
    if !settings.webhook_url.is_empty() {
        notify = notify.with("webhook", Arc::new(WebhookChannel::new(&settings.webhook_url, timeout, trust)?));
    }
    if !settings.sms_url.is_empty() {
        notify = notify.with("sms", Arc::new(SmsChannel::new(&settings.sms_url, timeout, trust)?));
    }
    let channel = &settings.channel;
    notify.preferring(channel).with_context(|| {
        format!(
            "notify.channel = \"{channel}\" is no channel that is configured: use \"file\", or set notify.{channel}_url"
        )
    })
}

impl Directory for Outdoors {
    fn find(&self, participant: &str) -> Option<Arc<dyn Outside>> {
        self.known.find(participant).or_else(|| {
            if let Err(error) = self.known.learn(&self.definitions.catalogue()) {
                tracing::error!(%error, participant, "the catalogue names a participant that cannot be called");
            }
            self.known.find(participant)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderMap;
    use endstate_events::{Command, CommandKind, Direction, EffectId, Lane, ReplyTo, SagaId, Slot, Topic, Verdict};
    use endstate_participants::caller::Outside;
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    fn message(with: Value) -> Command {
        let saga = SagaId::mint(1_700_000_000_000, Slot::of("ann"), 1);
        let direction = Direction::Do;
        Command {
            effect_id: EffectId { saga, step: "tell".into(), item: String::new(), direction, round: 0 },
            kind: CommandKind::Do,
            participant: "notify".into(),
            action: "send".into(),
            number: "ORDER-17".into(),
            definition: "flash_sale_order".into(),
            key: "ann".into(),
            with,
            of: None,
            reply_to: ReplyTo { topic: Topic::Progress, partition: 0 },
        }
    }

    /// Two addresses that take messages: what came to which, with its idempotency key.
    async fn receiver() -> (String, mpsc::UnboundedReceiver<(&'static str, String, Value)>) {
        let (sender, received) = mpsc::unbounded_channel();
        let take = |name: &'static str| {
            let sender = sender.clone();
            axum::routing::post(move |headers: HeaderMap, body: axum::Json<Value>| async move {
                let key = headers["idempotency-key"].to_str().unwrap().to_owned();
                sender.send((name, key, body.0)).unwrap();
            })
        };
        let router = axum::Router::new().route("/webhook", take("webhook")).route("/sms", take("sms"));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, router).into_future());
        (url, received)
    }

    #[tokio::test]
    async fn configured_channels_get_the_messages() {
        let (url, mut received) = receiver().await;
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::load(None, []).unwrap();
        config.data = folder.path().to_owned();
        config.notify.webhook_url = format!("{url}/webhook");
        config.notify.sms_url = format!("{url}/sms");
        config.notify.channel = "webhook".to_owned();
        let notify = channels(&config, &Trust::system()).unwrap();

        let paid = message(json!({ "user": "ann", "template": "order_paid", "data": { "amount_minor": 1 } }));
        assert!(matches!(notify.make(&paid, Lane::Live).await, Verdict::Done { .. }));
        let (channel, key, body) = received.recv().await.unwrap();
        assert_eq!((channel, key), ("webhook", paid.effect_id.to_string()));
        assert_eq!(
            (&body["user"], &body["template"], &body["number"]),
            (&json!("ann"), &json!("order_paid"), &json!("ORDER-17"))
        );

        let short = message(json!({ "user": "ann", "template": "order_paid", "channel": "sms" }));
        assert!(matches!(notify.make(&short, Lane::Live).await, Verdict::Done { .. }));
        let (channel, _, body) = received.recv().await.unwrap();
        assert_eq!((channel, &body["to"], &body["reference"]), ("sms", &json!("ann"), &json!("ORDER-17")));

        assert!(matches!(notify.make(&paid, Lane::Load).await, Verdict::Done { .. }));
        let file = std::fs::read_to_string(folder.path().join("messages.ndjson")).unwrap();
        assert_eq!(file.lines().count(), 1, "load traffic reaches nobody: {file}");
    }

    #[tokio::test]
    async fn a_channel_that_is_not_configured_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::load(None, []).unwrap();
        config.data = folder.path().to_owned();
        config.notify.channel = "sms".to_owned();
        let refused = channels(&config, &Trust::system()).err().unwrap().to_string();
        assert!(refused.contains("notify.sms_url"), "{refused}");
    }
}
