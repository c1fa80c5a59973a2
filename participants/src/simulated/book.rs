//! What the provider knows. Every change is a line in its file before it is answered, so the file is a record of the
//! money that is independent of ours.

use crate::payment::Captured;
use crate::provider::{Callback, Opened, Opening, RefundOrder, Refunded};
use endstate_events::{Json, MinorUnits, SagaId};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When, milliseconds since 1970.
    pub time_ms: i64,
    /// What.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What happened at the provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// A merchant opened a payment.
    Opened {
        /// Idempotency key.
        key: String,
        /// Number shown to the buyer.
        payment_no: String,
        /// What was asked.
        #[serde(flatten)]
        opening: Opening,
    },
    /// A merchant closed whatever is open for a reference.
    Closed {
        /// The reference.
        saga: SagaId,
    },
    /// Money was taken.
    Captured {
        /// What the merchant is told.
        #[serde(flatten)]
        callback: Callback,
    },
    /// The merchant has acknowledged the callback.
    Acknowledged {
        /// The payment.
        provider_no: String,
    },
    /// Money was given back.
    Refunded {
        /// Idempotency key.
        key: String,
        /// Number of the refund.
        refund_no: String,
        /// What was asked.
        #[serde(flatten)]
        refund: RefundOrder,
    },
}

/// Reads a provider's file, for comparing books.
pub fn read_file(path: &Path) -> Result<Vec<Line>, String> {
    read(&std::fs::read_to_string(path).map_err(|error| error.to_string())?)
}

/// Reads whole lines. What a crash cut off has no line end, and was never answered.
fn read(text: &str) -> Result<Vec<Line>, String> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| format!("line {}: {error}", number + 1))
    };
    whole.lines().enumerate().map(line).collect()
}

/// The provider's books in memory, and the file behind them.
#[derive(Debug)]
pub(super) struct Book {
    name: String,
    file: File,
    payments: FxHashMap<SagaId, Payment>,
    by_number: FxHashMap<String, SagaId>,
    closed: FxHashSet<SagaId>,
    captures: Vec<Callback>,
    /// Where those of a reference stand among them.
    captured: FxHashMap<SagaId, Vec<usize>>,
    acknowledged: FxHashSet<String>,
    refunds: Vec<(RefundOrder, Refunded)>,
    /// Answers by idempotency key, with what was asked.
    answers: FxHashMap<String, (Json, Json)>,
}

#[derive(Clone, Debug)]
struct Payment {
    opening: Opening,
    opened_ms: i64,
}

/// Why the provider does not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum No {
    /// It vouches: nothing happened.
    Refused(&'static str),
    /// The key is known with another body.
    Conflict,
    /// It does not know what is spoken of.
    NotFound,
    /// The file cannot be written.
    Broken(String),
}

impl Book {
    pub(super) fn open(name: &str, path: &Path) -> Result<Self, String> {
        let file = File::options().create(true).append(true).read(true).open(path).map_err(|e| e.to_string())?;
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(|error| error.to_string())?;
        let mut book = Self {
            name: name.to_owned(),
            file,
            payments: FxHashMap::default(),
            by_number: FxHashMap::default(),
            closed: FxHashSet::default(),
            captures: Vec::new(),
            captured: FxHashMap::default(),
            acknowledged: FxHashSet::default(),
            refunds: Vec::new(),
            answers: FxHashMap::default(),
        };
        for line in read(&text)? {
            book.apply(line);
        }
        Ok(book)
    }

    /// Finds the reference behind a payment number, or reads the reference itself.
    pub(super) fn reference(&self, id: &str) -> Option<SagaId> {
        self.by_number.get(id).copied().or_else(|| id.parse().ok())
    }

    pub(super) fn open_payment(&mut self, key: &str, opening: Opening, now_ms: i64) -> Result<Json, No> {
        if let Some(answer) = self.answered(key, &json!(opening))? {
            return Ok(answer);
        }
        if self.closed.contains(&opening.saga) || self.payments.contains_key(&opening.saga) {
            return Err(No::Refused("payment.rejected"));
        }
        let payment_no = format!("{}-{:08}", self.name, self.payments.len() + 1);
        self.record(now_ms, Entry::Opened { key: key.to_owned(), payment_no, opening })?;
        self.answer(key).ok_or(No::NotFound)
    }

    pub(super) fn close(&mut self, saga: SagaId, now_ms: i64) -> Result<Vec<Captured>, No> {
        if !self.closed.contains(&saga) {
            self.record(now_ms, Entry::Closed { saga })?;
        }
        Ok(self.captures(saga))
    }

    pub(super) fn captures(&self, saga: SagaId) -> Vec<Captured> {
        self.callbacks(saga).into_iter().map(Callback::captured).collect()
    }

    /// Takes money for a reference. `late` takes it although the payment is closed or has expired.
    pub(super) fn capture(
        &mut self,
        saga: SagaId,
        amount_minor: Option<MinorUnits>,
        currency: Option<String>,
        late: bool,
        now_ms: i64,
    ) -> Result<Callback, No> {
        let payment = self.payments.get(&saga).ok_or(No::NotFound)?;
        let lives_ms = i64::try_from(payment.opening.expires_in_s).unwrap_or(i64::MAX).saturating_mul(1000);
        let expired = now_ms.saturating_sub(payment.opened_ms) > lives_ms;
        if !late && (expired || self.closed.contains(&saga)) {
            return Err(No::Refused("payment.closed"));
        }
        let number = self.captures.len() + 1;
        let callback = Callback {
            event_id: format!("E{number:08}"),
            provider: self.name.clone(),
            provider_no: format!("P{number:08}"),
            saga,
            amount_minor: amount_minor.unwrap_or(payment.opening.amount_minor),
            currency: currency.unwrap_or_else(|| payment.opening.currency.clone()),
            captured_ms: now_ms,
        };
        self.record(now_ms, Entry::Captured { callback: callback.clone() })?;
        Ok(callback)
    }

    /// What was captured before for this reference, as callbacks.
    pub(super) fn callbacks(&self, saga: SagaId) -> Vec<Callback> {
        let places = self.captured.get(&saga).into_iter().flatten();
        places.map(|place| self.captures[*place].clone()).collect()
    }

    pub(super) fn undelivered(&self) -> Vec<Callback> {
        let open = |callback: &&Callback| !self.acknowledged.contains(&callback.provider_no);
        self.captures.iter().filter(open).cloned().collect()
    }

    pub(super) fn acknowledge(&mut self, provider_no: &str, now_ms: i64) -> Result<(), No> {
        if self.acknowledged.contains(provider_no) {
            return Ok(());
        }
        self.record(now_ms, Entry::Acknowledged { provider_no: provider_no.to_owned() })
    }

    pub(super) fn refund(&mut self, key: &str, refund: RefundOrder, now_ms: i64) -> Result<Json, No> {
        if let Some(answer) = self.answered(key, &json!(refund))? {
            return Ok(answer);
        }
        let payment = self.captures.iter().find(|callback| callback.provider_no == refund.provider_no);
        let payment = payment.ok_or(No::Refused("payment.unknown"))?;
        let back: i64 = self
            .refunds
            .iter()
            .filter(|(earlier, _)| earlier.provider_no == refund.provider_no)
            .map(|(earlier, _)| earlier.amount_minor.get())
            .sum();
        let amount = refund.amount_minor.get();
        if amount < 1 || refund.currency != payment.currency || amount > payment.amount_minor.get() - back {
            return Err(No::Refused("payment.exceeded"));
        }
        let refund_no = format!("R{:08}", self.refunds.len() + 1);
        self.record(now_ms, Entry::Refunded { key: key.to_owned(), refund_no, refund })?;
        self.answer(key).ok_or(No::NotFound)
    }

    /// What was answered under a key.
    pub(super) fn answer(&self, key: &str) -> Option<Json> {
        self.answers.get(key).map(|(_, answer)| answer.clone())
    }

    fn answered(&self, key: &str, asked: &Json) -> Result<Option<Json>, No> {
        match self.answers.get(key) {
            Some((known, answer)) if known == asked => Ok(Some(answer.clone())),
            Some(_) => Err(No::Conflict),
            None => Ok(None),
        }
    }

    fn record(&mut self, time_ms: i64, entry: Entry) -> Result<(), No> {
        let line = Line { time_ms, entry };
        let broken = |error: std::io::Error| No::Broken(error.to_string());
        let mut text = serde_json::to_vec(&line).map_err(|error| No::Broken(error.to_string()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(broken)?;
        self.apply(line);
        Ok(())
    }

    fn apply(&mut self, Line { time_ms, entry }: Line) {
        match entry {
            Entry::Opened { key, payment_no, opening } => {
                let answer = json!({ "payment_no": payment_no });
                self.by_number.insert(payment_no, opening.saga);
                self.answers.insert(key, (json!(opening), answer));
                self.payments.insert(opening.saga, Payment { opening, opened_ms: time_ms });
            }
            Entry::Closed { saga } => {
                self.closed.insert(saga);
            }
            Entry::Captured { callback } => {
                self.captured.entry(callback.saga).or_default().push(self.captures.len());
                self.captures.push(callback);
            }
            Entry::Acknowledged { provider_no } => {
                self.acknowledged.insert(provider_no);
            }
            Entry::Refunded { key, refund_no, refund } => {
                let refunded = Refunded { refund_no, amount_minor: refund.amount_minor };
                self.answers.insert(key, (json!(refund), json!(refunded)));
                self.refunds.push((refund, refunded));
            }
        }
    }
}

/// The answer to an opening, with the address where the buyer pays.
pub(super) fn opened(url: &str, answer: &Json) -> Opened {
    let payment_no = answer["payment_no"].as_str().unwrap_or_default().to_owned();
    let pay_url = format!("{url}/payments/{payment_no}/pay");
    Opened { payment_no, pay_url }
}
