//! Who is outside: the payment provider, the channels to people, and HTTP participants, as the version that a saga runs
//! describes them.

use crate::config::{Config, ProviderKind};
use anyhow::Context as _;
use async_trait::async_trait;
use endstate_events::{Command, Lane, Transport, Verdict};
use endstate_http::Trust;
use endstate_orchestrator::definitions::Definitions;
use endstate_outbox::{Alert, Clock, Commit, Store, alert};
use endstate_participants::caller::{Directory, Outside};
use endstate_participants::notify::{FileChannel, Notify, SmsChannel, WebhookChannel};
use endstate_participants::outside::Outsides;
use endstate_participants::provider::{Payments, ProviderClient};
use endstate_saga::definition::Definition;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// All outside parties; those of definitions that are loaded while the program runs are found, too.
pub(crate) struct Outdoors {
    known: Outsides,
    definitions: Arc<Definitions>,
    /// Where participants live now, whatever a catalogue says.
    addresses: BTreeMap<String, String>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl Outdoors {
    /// Calls the payment provider at `provider_url`; what is wrong with a participant's replies is told over `store`.
    pub(crate) fn new(
        config: &Config,
        provider_url: &str,
        secret: &[u8],
        definitions: Arc<Definitions>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let trust = config.tls.trust()?;
        let timeout = Duration::from_millis(config.payment.timeout_ms);
        let provider = ProviderClient::new(provider_url, secret, timeout, clock.clone(), &trust)?;
        // Without an address of its own the provider is the simulated one of this process.
        let simulated = config.payment.url.is_empty() || config.payment.kind == ProviderKind::Simulated;
        let payments = if simulated { Payments::simulated } else { Payments::real };
        let notify = channels(config, &trust)?;
        let known = Outsides::new(Arc::new(payments(Arc::new(provider))), Arc::new(notify), trust);
        let addresses = config.participants.addresses()?;
        for url in addresses.values() {
            known.at(url, 1)?;
        }
        Ok(Self { known, definitions, addresses, store, clock })
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
    fn find(&self, command: &Command) -> Option<Arc<dyn Outside>> {
        let Command { definition, definition_version, participant, .. } = command;
        if let Some(builtin) = self.known.builtin(participant) {
            return Some(builtin);
        }
        let definition = match definition_version {
            // Queued by a program that did not say.
            0 => self.definitions.active(definition),
            version => self.definitions.get(definition, *version),
        }?;
        let described = definition.catalogue().participants.get(participant)?;
        let Transport::Http { url, timeout_ms } = &described.transport else { return None };
        let inner = match self.known.at(self.addresses.get(participant).unwrap_or(url), *timeout_ms) {
            Ok(inner) => inner,
            Err(error) => {
                tracing::error!(%error, %participant, "the catalogue names a participant that cannot be called");
                return None;
            }
        };
        let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
        Some(Arc::new(Checked { inner, definition, store, clock }))
    }
}

/// A participant whose word is taken only where it keeps what its catalogue promises.
struct Checked {
    inner: Arc<dyn Outside>,
    /// Knows what its replies must look like.
    definition: Arc<Definition>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl Checked {
    /// Data that breaks its schema says neither that it is done nor that it is not: a saga could not go on with it.
    async fn check(&self, command: &Command, verdict: Verdict) -> Verdict {
        let Verdict::Done { data } = &verdict else { return verdict };
        let Command { participant, action, definition, definition_version, number, .. } = command;
        let Some(misfit) = self.definition.reply_misfit(participant, action, data) else { return verdict };
        let path = misfit.place();
        let reason =
            format!("E5016: the reply of {participant}.{action} breaks its schema at {path}: {}", misfit.reason);
        tracing::error!(%participant, %action, %definition, %number, path, reason = misfit.reason, "E5016: a reply breaks its schema");
        let now_ms = self.clock.now_ms();
        let alert = Alert::new("reply", &[participant, action, definition, definition_version, &path], &reason, now_ms);
        let alert = alert.of(command.saga(), definition.as_str().into(), number.as_str().into());
        let writes = alert::write(&[alert]).into_iter().collect();
        if let Err(error) = self.store.commit(Commit { writes, ..Commit::default() }).await {
            tracing::warn!(%error, "the alert about a reply was not written; the next reply writes it");
        }
        Verdict::unknown(reason)
    }
}

#[async_trait]
impl Outside for Checked {
    async fn make(&self, command: &Command, lane: Lane) -> Verdict {
        self.check(command, self.inner.make(command, lane).await).await
    }

    async fn ask(&self, command: &Command, lane: Lane) -> Verdict {
        self.check(command, self.inner.ask(command, lane).await).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderMap;
    use endstate_events::{CommandKind, Direction, EffectId, ReplyTo, SagaId, Slot, Topic};
    use endstate_outbox::SqliteStore;
    use endstate_saga::definition::Source;
    use serde_json::{Value, json};
    use std::sync::Mutex;
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
            definition_version: 1,
            key: "ann".into(),
            with,
            of: None,
            reply_to: ReplyTo { topic: Topic::Progress, partition: 0 },
        }
    }

    /// The tutorial's definition in a version, its participant at an address.
    fn gift_order(version: u32, url: &str) -> Source {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tutorial/gift_order.yaml");
        let mut source = Source::read(std::path::Path::new(file)).unwrap();
        source.text = source.text.replace("\nversion: 1\n", &format!("\nversion: {version}\n"));
        for text in source.catalogues.values_mut() {
            *text = text.replace("http://127.0.0.1:7800", url);
        }
        source
    }

    fn wrap(definition_version: u32) -> Command {
        let (participant, action, definition) = ("gift_wrap".into(), "wrap".into(), "gift_order".into());
        Command { participant, action, definition, definition_version, ..message(json!({ "paper": "gold" })) }
    }

    /// A participant that answers every call with `reply`, which may change.
    async fn gift_wrap(reply: Value) -> (String, Arc<Mutex<Value>>) {
        let reply = Arc::new(Mutex::new(reply));
        let said = Arc::clone(&reply);
        let answer = move || {
            let said = said.lock().unwrap().clone();
            async move { axum::Json(said) }
        };
        let router = axum::Router::new().fallback(answer);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, router).into_future());
        (url, reply)
    }

    async fn outdoors(folder: &std::path::Path, addresses: &str) -> (Outdoors, Arc<Definitions>, Arc<SqliteStore>) {
        let store = SqliteStore::open(folder).await.unwrap();
        let definitions = Definitions::open(store.clone()).await.unwrap();
        let mut config = Config::load(None, []).unwrap();
        config.data = folder.to_owned();
        config.participants.addresses = addresses.to_owned();
        let clock = Arc::new(endstate_outbox::ManualClock::new(1));
        let found = Outdoors::new(&config, "http://127.0.0.1:1", b"s", definitions.clone(), store.clone(), clock);
        (found.unwrap(), definitions, store)
    }

    #[tokio::test]
    async fn a_reply_that_breaks_its_schema_is_unknown_and_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let (outdoors, definitions, store) = outdoors(folder.path(), "").await;
        let (url, reply) = gift_wrap(json!({ "tag": 7 })).await;
        definitions.load(&gift_order(1, &url), 1).await.unwrap();
        let participant = outdoors.find(&wrap(1)).unwrap();
        for _ in 0..2 {
            for verdict in [participant.make(&wrap(1), Lane::Live).await, participant.ask(&wrap(1), Lane::Live).await] {
                let Verdict::Unknown { reason, .. } = verdict else { panic!("{verdict:?}") };
                assert!(
                    reason.starts_with("E5016: the reply of gift_wrap.wrap breaks its schema at /tag: "),
                    "{reason}"
                );
            }
        }
        let told = alert::waiting(&*store, 1, 10).await.unwrap();
        assert_eq!((told.len(), &*told[0].alert.kind, &*told[0].alert.number), (1, "reply", "ORDER-17"));
        *reply.lock().unwrap() = json!({ "tag": "gift-1", "more": true });
        let done = Verdict::Done { data: json!({ "tag": "gift-1", "more": true }) };
        assert_eq!(participant.make(&wrap(1), Lane::Live).await, done);
        assert_eq!(participant.ask(&wrap(1), Lane::Live).await, done);
    }

    #[tokio::test]
    async fn a_saga_calls_the_address_of_its_version_unless_the_configuration_moves_it() {
        let folder = tempfile::tempdir().unwrap();
        let [(first, _), (second, _), (moved, _)] = [
            gift_wrap(json!({ "tag": "1" })).await,
            gift_wrap(json!({ "tag": "2" })).await,
            gift_wrap(json!({ "tag": "3" })).await,
        ];
        let said = async |outdoors: &Outdoors, version| {
            let participant = outdoors.find(&wrap(version))?;
            let Verdict::Done { data } = participant.make(&wrap(version), Lane::Live).await else { panic!() };
            Some(data["tag"].clone())
        };
        {
            let (outdoors, definitions, _store) = outdoors(folder.path(), "").await;
            definitions.load(&gift_order(1, &first), 1).await.unwrap();
            assert_eq!(said(&outdoors, 1).await, Some(json!("1")));
            definitions.load(&gift_order(2, &second), 1).await.unwrap();
            let both = [said(&outdoors, 1).await, said(&outdoors, 2).await];
            assert_eq!(both, [Some(json!("1")), Some(json!("2"))], "a newer version moves no running saga");
            assert_eq!(said(&outdoors, 0).await, Some(json!("1")), "a command that does not say: the active version");
            assert_eq!(said(&outdoors, 3).await, None);
        }
        let (outdoors, ..) = outdoors(folder.path(), &format!("gift_wrap={moved} other=http://127.0.0.1:1")).await;
        assert_eq!([said(&outdoors, 1).await, said(&outdoors, 2).await], [Some(json!("3")), Some(json!("3"))]);
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
