//! The payment provider as we see it: what it can be asked to do, how its callbacks are verified, and the client of a
//! provider that speaks our simulated one's HTTP. Another provider is another implementation of [`PaymentProvider`].

mod callback;
mod client;

pub(crate) use callback::verify;
pub use callback::{Callback, CallbackError, SIGNATURE, TIMESTAMP, sign, verify_callback};
pub use client::ProviderClient;
use client::escaped;

use crate::caller::Outside;
use crate::payment::{Captured, Refund};
use async_trait::async_trait;
use endstate_events::{Command, Json, Lane, MinorUnits, SagaId, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// A payment to open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Our merchant reference: a callback finds its saga by it.
    pub saga: SagaId,
    /// How much.
    pub amount_minor: MinorUnits,
    /// In which currency.
    pub currency: String,
    /// How long it can be paid, in seconds.
    pub expires_in_s: u64,
}

/// An opened payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The payment number shown to the buyer.
    pub payment_no: String,
    /// Where the buyer pays.
    pub pay_url: String,
}

/// Money to give back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundOrder {
    /// The provider's number of the payment.
    pub provider_no: String,
    /// How much of it.
    pub amount_minor: MinorUnits,
    /// In which currency.
    pub currency: String,
}

/// Money given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refunded {
    /// The provider's number of the refund.
    pub refund_no: String,
    /// How much.
    pub amount_minor: MinorUnits,
}

/// What a provider answers instead of a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It vouches that nothing happened and will not.
    #[error("{code}: {detail}")]
    Refused {
        /// Refusal code.
        code: String,
        /// For people.
        detail: String,
    },
    /// Nobody knows.
    #[error("{0}")]
    Unknown(String),
}

/// A payment provider. `key` is the idempotency key: the same key is the same act.
#[async_trait]
pub trait PaymentProvider: Send + Sync + 'static {
    /// Opens a payment.
    async fn open(&self, key: &str, opening: &Opening) -> Result<Opened, ProviderError>;

    /// Closes whatever is open for the saga, for good, and tells what was captured for it. Never refuses: a reference
    /// that the provider does not know is closed before it can be opened (Z21).
    async fn close(&self, saga: SagaId) -> Result<Vec<Captured>, ProviderError>;

    /// What was captured for the saga so far.
    async fn captures(&self, saga: SagaId) -> Result<Vec<Captured>, ProviderError>;

    /// Gives money back.
    async fn refund(&self, key: &str, refund: &RefundOrder) -> Result<Refunded, ProviderError>;

    /// What became of the act with this key, as the act itself answered; `None` when it was never met.
    async fn find(&self, key: &str) -> Result<Option<Json>, ProviderError>;
}

/// Code of a payment that no provider is asked for.
const REJECTED: &str = "payment.rejected";

/// The provider as the outside party of participant `payment`.
pub struct Payments {
    provider: Arc<dyn PaymentProvider>,
    /// Whether test and load traffic may reach it, too.
    simulated: bool,
}

impl Payments {
    /// A provider that moves real money: for live traffic only.
    #[must_use]
    pub fn real(provider: Arc<dyn PaymentProvider>) -> Self {
        Self { provider, simulated: false }
    }

    /// A provider that moves none: for every lane.
    #[must_use]
    pub fn simulated(provider: Arc<dyn PaymentProvider>) -> Self {
        Self { provider, simulated: true }
    }

    fn serves(&self, lane: Lane) -> bool {
        self.simulated || lane == Lane::Live
    }

    async fn act(&self, command: &Command, lane: Lane) -> Result<Json, ProviderError> {
        if !self.serves(lane) {
            return without_provider(command, lane);
        }
        let key = command.effect_id.to_string();
        match command.action.as_str() {
            "open" => {
                #[derive(Deserialize)]
                struct With {
                    amount_minor: MinorUnits,
                    currency: String,
                    expires_in_s: u64,
                }
                let With { amount_minor, currency, expires_in_s } = with(command)?;
                let opening = Opening { saga: command.saga(), amount_minor, currency, expires_in_s };
                self.provider.open(&key, &opening).await.map(|opened| json!(opened))
            }
            "close" => Ok(json!({ "captures": self.provider.close(command.saga()).await? })),
            "ask" => {
                let captures = self.provider.captures(command.saga()).await?;
                let mut answer = json!({ "captured": !captures.is_empty(), "captures": captures });
                if let Some(first) = captures.first() {
                    answer["event"] = json!(first);
                }
                Ok(answer)
            }
            "refund" => {
                let Refund { payment: Captured { provider_no, currency, .. }, amount_minor } = with(command)?;
                let order = RefundOrder { provider_no, amount_minor, currency };
                Ok(json!(self.provider.refund(&refund_key(command), &order).await?))
            }
            action => Err(ProviderError::Unknown(format!("E5001: participant payment has no action {action}"))),
        }
    }
}

#[async_trait]
impl Outside for Payments {
    async fn make(&self, command: &Command, lane: Lane) -> Verdict {
        verdict(self.act(command, lane).await)
    }

    async fn ask(&self, command: &Command, lane: Lane) -> Verdict {
        match command.action.as_str() {
            _ if !self.serves(lane) => Verdict::NeverSeen,
            "open" => found(self.provider.find(&command.effect_id.to_string()).await),
            "refund" => found(self.provider.find(&refund_key(command)).await),
            // Closing and asking again is harmless and tells the latest.
            _ => Verdict::NeverSeen,
        }
    }
}

/// The idempotency key of a refund: its effect's id, but all of a payment goes back once, whichever saga gives it back. After
/// a promotion that lost commits that may be another one than the one that had asked before (Z14).
fn refund_key(command: &Command) -> String {
    match Refund::deserialize(&command.with) {
        Ok(Refund { payment, amount_minor }) if amount_minor == payment.amount_minor => {
            let [provider, number] = [&payment.provider, &payment.provider_no].map(|text| escaped(text));
            format!("payment/{provider}/{number}:refund:{}", command.effect_id.round)
        }
        Ok(_) | Err(_) => command.effect_id.to_string(),
    }
}

fn found(answer: Result<Option<Json>, ProviderError>) -> Verdict {
    match answer {
        Ok(Some(data)) => Verdict::Done { data },
        Ok(None) => Verdict::NeverSeen,
        Err(error) => verdict(Err(error)),
    }
}

/// Test and load traffic where the only provider moves real money: nothing was opened for it, nothing will be.
fn without_provider(command: &Command, lane: Lane) -> Result<Json, ProviderError> {
    match command.action.as_str() {
        "close" => Ok(json!({ "captures": [] })),
        "ask" => Ok(json!({ "captured": false, "captures": [] })),
        _ => {
            let lane = lane.label();
            let detail = format!("E5042: the payment provider takes live traffic only, this is lane {lane}");
            Err(ProviderError::Refused { code: REJECTED.to_owned(), detail })
        }
    }
}

fn with<'a, T: Deserialize<'a>>(command: &'a Command) -> Result<T, ProviderError> {
    T::deserialize(&command.with).map_err(|error| ProviderError::Refused {
        code: crate::desk::BAD_PAYLOAD.to_owned(),
        detail: error.to_string(),
    })
}

fn verdict(result: Result<Json, ProviderError>) -> Verdict {
    match result {
        Ok(data) => Verdict::Done { data },
        Err(ProviderError::Refused { code, detail }) => Verdict::Refused { code, detail },
        Err(ProviderError::Unknown(reason)) => Verdict::unknown(reason),
    }
}
