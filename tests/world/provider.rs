//! The outside parties, played by the world: a payment provider that keeps its own books, a channel to people, and a
//! laboratory that does what its orders say. While faults are on they answer late, falsely "unknown", or refuse.

use super::coverage::{Met, met};
use super::random::Random;
use async_trait::async_trait;
use endstate_events::{Command, CommandKind, Json, Lane, MinorUnits, SagaId, Verdict};
use endstate_participants::caller::Outside;
use endstate_participants::desk::Call;
use endstate_participants::payment::Captured;
use endstate_participants::provider::{
    Opened, Opening, PaymentProvider, Payments, ProviderError, RefundOrder, Refunded,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) const NAME: &str = "worldpay";

/// Everything the outside parties can do to us.
pub(crate) const ANSWERS: [&str; 9] = [
    "unknown_before",
    "unknown_after",
    "refund_refused",
    "open_refused",
    "asked_done",
    "asked_never_seen",
    "notify_refused",
    "notify_unknown",
    "close_found_money",
];

/// The provider's own books.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) opened: BTreeMap<SagaId, Opening>,
    pub(crate) closed: BTreeSet<SagaId>,
    pub(crate) captures: Vec<Captured>,
    pub(crate) refunds: Vec<(String, RefundOrder)>,
    answers: BTreeMap<String, Json>,
    vouched: BTreeSet<String>,
}

impl Book {
    /// What went back of a payment.
    pub(crate) fn refunded(&self, provider_no: &str) -> i64 {
        let of = self.refunds.iter().filter(|(_, refund)| refund.provider_no == provider_no);
        of.map(|(_, refund)| refund.amount_minor.get()).sum()
    }

    /// Takes a customer's money. A closed payment takes none, unless the money is already on its way (`late`).
    pub(crate) fn capture(&mut self, saga: SagaId, amount: i64, currency: &str, late: bool) -> Option<Captured> {
        if !self.opened.contains_key(&saga) || (self.closed.contains(&saga) && !late) {
            return None;
        }
        let captured = Captured {
            provider: NAME.to_owned(),
            provider_no: format!("P{:05}", self.captures.len() + 1),
            amount_minor: MinorUnits::new(amount).ok()?,
            currency: currency.to_owned(),
            saga,
        };
        self.captures.push(captured.clone());
        Some(captured)
    }
}

#[derive(Debug)]
struct State {
    book: Book,
    on: bool,
    random: Random,
}

/// The payment provider.
#[derive(Debug)]
pub(crate) struct Provider {
    state: Mutex<State>,
    coverage: Met,
}

impl Provider {
    pub(crate) fn new(random: Random, coverage: Met) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { book: Book::default(), on: false, random }), coverage })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn turn(&self, on: bool) {
        self.state().on = on;
    }

    pub(crate) fn book<T>(&self, read: impl FnOnce(&mut Book) -> T) -> T {
        read(&mut self.state().book)
    }

    fn draws(&self, percent: u64, name: &str) -> bool {
        let mut state = self.state();
        let hit = state.on && state.random.chance(percent);
        if hit {
            met(&self.coverage, "outside", name);
        }
        hit
    }

    /// Acts, unless the request or the answer is lost on the way.
    fn act<T>(&self, act: impl FnOnce(&mut Book) -> Result<T, ProviderError>) -> Result<T, ProviderError> {
        if self.draws(10, "unknown_before") {
            return Err(ProviderError::Unknown("drawn: the request was lost".to_owned()));
        }
        let answer = self.book(act);
        if self.draws(8, "unknown_after") {
            return Err(ProviderError::Unknown("drawn: the answer was lost".to_owned()));
        }
        answer
    }

    /// A refusal is a vouch: the same key is refused for ever.
    fn refuses(&self, key: &str, percent: u64, name: &str) -> Result<(), ProviderError> {
        let refused = self.book(|book| book.vouched.contains(key));
        let known = self.book(|book| book.answers.contains_key(key));
        if refused || (!known && self.draws(percent, name)) {
            self.book(|book| book.vouched.insert(key.to_owned()));
            return Err(ProviderError::Refused { code: "payment.rejected".to_owned(), detail: "drawn".to_owned() });
        }
        Ok(())
    }
}

#[async_trait]
impl PaymentProvider for Provider {
    async fn open(&self, key: &str, opening: &Opening) -> Result<Opened, ProviderError> {
        self.refuses(key, 2, "open_refused")?;
        self.act(|book| {
            if book.closed.contains(&opening.saga) && !book.answers.contains_key(key) {
                let (code, detail) = ("payment.rejected".to_owned(), "closed before it was opened".to_owned());
                return Err(ProviderError::Refused { code, detail });
            }
            let opened = Opened { payment_no: format!("pay-{}", opening.saga), pay_url: String::new() };
            book.opened.insert(opening.saga, opening.clone());
            book.answers.insert(key.to_owned(), json!(opened));
            Ok(opened)
        })
    }

    async fn close(&self, saga: SagaId) -> Result<Vec<Captured>, ProviderError> {
        let captures = self.act(|book| {
            book.closed.insert(saga);
            Ok(book.captures.iter().filter(|captured| captured.saga == saga).cloned().collect::<Vec<_>>())
        })?;
        if !captures.is_empty() {
            met(&self.coverage, "outside", "close_found_money");
        }
        Ok(captures)
    }

    async fn captures(&self, saga: SagaId) -> Result<Vec<Captured>, ProviderError> {
        self.act(|book| Ok(book.captures.iter().filter(|captured| captured.saga == saga).cloned().collect()))
    }

    async fn refund(&self, key: &str, refund: &RefundOrder) -> Result<Refunded, ProviderError> {
        self.refuses(key, 8, "refund_refused")?;
        self.act(|book| {
            let refunded = Refunded { refund_no: format!("R-{key}"), amount_minor: refund.amount_minor };
            if book.answers.contains_key(key) {
                return Ok(refunded);
            }
            let taken = book.captures.iter().find(|captured| captured.provider_no == refund.provider_no);
            let left = taken.map_or(0, |taken| taken.amount_minor.get()) - book.refunded(&refund.provider_no);
            if refund.amount_minor.get() > left {
                let (code, detail) = ("payment.exceeded".to_owned(), format!("{refund:?}"));
                return Err(ProviderError::Refused { code, detail });
            }
            book.refunds.push((key.to_owned(), refund.clone()));
            book.answers.insert(key.to_owned(), json!(refunded));
            Ok(refunded)
        })
    }

    async fn find(&self, key: &str) -> Result<Option<Json>, ProviderError> {
        let found = self.act(|book| Ok(book.answers.get(key).cloned()))?;
        met(&self.coverage, "outside", if found.is_some() { "asked_done" } else { "asked_never_seen" });
        Ok(found)
    }
}

/// Calls whom the command names, as the caller would: a resumed call is asked about first.
pub(crate) async fn call(provider: &Arc<Provider>, call: &Call, resumed: bool) -> Verdict {
    let (command, lane) = (&*call.command, call.lane);
    match command.participant.as_str() {
        "payment" => {
            let payments = Payments::simulated(Arc::clone(provider) as Arc<dyn PaymentProvider>);
            let asks = command.kind == CommandKind::Ask;
            match asks || resumed {
                false => payments.make(command, lane).await,
                true => match payments.ask(command, lane).await {
                    Verdict::NeverSeen if !asks => payments.make(command, lane).await,
                    known => known,
                },
            }
        }
        "notify" => notify(provider, command, lane),
        _ => laboratory(command),
    }
}

fn notify(provider: &Provider, command: &Command, _lane: Lane) -> Verdict {
    if command.kind == CommandKind::Ask {
        return Verdict::NeverSeen;
    }
    if provider.draws(10, "notify_refused") {
        return Verdict::Refused { code: "notify.rejected".to_owned(), detail: "drawn".to_owned() };
    }
    if provider.draws(10, "notify_unknown") {
        return Verdict::unknown("drawn");
    }
    Verdict::Done { data: json!({}) }
}

/// The laboratory does what it is told to say; see `odd_job.yaml`.
fn laboratory(command: &Command) -> Verdict {
    let undo = command.kind == CommandKind::Undo || command.effect_id.direction == endstate_events::Direction::Undo;
    let says = if undo { &command.with["undo"] } else { &command.with["do"] };
    match (says.as_str().unwrap_or("done"), command.effect_id.round) {
        ("silent", _) => Verdict::unknown("the laboratory is silent"),
        ("refuse", _) | ("refuse_once", 0) => Verdict::Refused { code: "lab.no".to_owned(), detail: String::new() },
        _ => Verdict::Done { data: json!({}) },
    }
}
