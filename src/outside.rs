//! Who is outside: the payment provider, the channels to people, and the HTTP participants of loaded definitions.

use crate::config::Config;
use endstate_orchestrator::definitions::Definitions;
use endstate_outbox::Clock;
use endstate_participants::caller::{Directory, Outside};
use endstate_participants::notify::{FileChannel, Notify};
use endstate_participants::outside::Outsides;
use endstate_participants::provider::{Payments, ProviderClient};
use std::sync::Arc;
use std::time::Duration;

/// How long the payment provider may take to answer a call.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(5);

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
        let provider = ProviderClient::new(provider_url, secret, PROVIDER_TIMEOUT, clock, &trust)?;
        let notify = Notify::new(FileChannel::open(&config.in_data(&config.notify.file))?);
        let known = Outsides::new(Arc::new(Payments(Arc::new(provider))), Arc::new(notify), trust);
        known.learn(&definitions.catalogue())?;
        Ok(Self { known, definitions })
    }
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
