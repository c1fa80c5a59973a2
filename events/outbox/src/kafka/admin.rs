//! The client that makes topics and asks about them, and why it has no answer.

use super::settings::{ANSWER, KafkaSettings};
use rdkafka::admin::AdminClient;
use rdkafka::client::{Client, ClientContext, DefaultClientContext};
use rdkafka::config::{FromClientConfig as _, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka::util::Timeout;
use std::sync::{Arc, Mutex, PoisonError};

/// Such a client.
pub(super) type Admin = Arc<AdminClient<DefaultClientContext>>;

/// Makes one. An error means that its settings are no settings.
pub(super) fn admin(settings: &KafkaSettings) -> KafkaResult<Admin> {
    AdminClient::from_config(&settings.admin()).map(Arc::new)
}

/// Asks the brokers something. The client waits for the answer in the thread that asks, be it for seconds: never in one that
/// serves calls.
pub(super) async fn ask<T: Send + 'static>(
    admin: &Admin,
    question: impl FnOnce(&Client<DefaultClientContext>) -> KafkaResult<T> + Send + 'static,
) -> KafkaResult<T> {
    let admin = Arc::clone(admin);
    blocking(move || question(admin.inner())).await
}

/// The client blocks; callers do not.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> KafkaResult<T> + Send + 'static,
) -> KafkaResult<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(KafkaError::ClientCreation(error.to_string())))
}

/// What an error means. One that says only that no answer came is explained by a second client, which hears what becomes of
/// its connections: a refused password, a certificate of a stranger, a port on which nobody is.
pub(super) async fn why(settings: &KafkaSettings, error: &KafkaError) -> String {
    let config = settings.admin();
    let knock = move || {
        let client = BaseProducer::from_config_and_context(&config, Said::default()).ok()?;
        // Answered after all: then it was something else.
        client.client().fetch_metadata(None, Timeout::After(ANSWER)).err()?;
        client.poll(Timeout::After(std::time::Duration::ZERO));
        client.context().0.lock().unwrap_or_else(PoisonError::into_inner).take()
    };
    let said = tokio::task::spawn_blocking(knock).await.ok().flatten();
    said.map_or_else(|| error.to_string(), |said| format!("{error}: {said}"))
}

/// Remembers the first trouble of a connection; those that follow are its consequences.
#[derive(Default)]
struct Said(Mutex<Option<String>>);

impl ClientContext for Said {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, reason: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
    }
}

impl ProducerContext for Said {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
