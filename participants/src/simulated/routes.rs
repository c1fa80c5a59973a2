//! The provider's HTTP. Merchants sign their calls; customers just pay.

use super::book::{No, opened};
use super::{Desk, MOST_DELIVERIES};
use crate::provider::{Callback, Opening, RefundOrder};
use axum::Json as Body;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use endstate_events::{Json, MinorUnits, SagaId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How old a merchant's signature may be.
const WINDOW_MS: i64 = 300_000;

/// Callbacks of one customer's payment at most, whatever is asked for.
const MOST_NUMBERS: u8 = 8;

/// How a customer pays; the test hook of the simulation. Without options: once, the amount due, in time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pay {
    /// Another amount than the one due.
    pub amount_minor: Option<MinorUnits>,
    /// Another currency.
    pub currency: Option<String>,
    /// Pays that many times, each under a number of its own.
    pub numbers: Option<u8>,
    /// Pays once more, although something was paid before.
    pub again: bool,
    /// Pays although the payment is closed or has expired.
    pub late: bool,
    /// How often each callback is delivered, instead of a random number of times.
    pub deliveries: Option<u8>,
    /// Each delivery waits a random time up to this, instead of the provider's usual one.
    pub delay_ms: Option<u64>,
}

type Shared = State<Arc<Desk>>;

pub(super) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/payments", post(open))
        .route("/payments/{id}", get(find_payment))
        .route("/payments/{id}/pay", post(pay))
        .route("/payments/{id}/close", post(close))
        .route("/refunds", post(refund))
        .route("/effects/{key}", get(find_effect))
        .with_state(desk)
}

async fn open(State(desk): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let (key, opening) = match desk.signed::<Opening>(&headers, &body).await {
        Ok(signed) => signed,
        Err(refused) => return refused,
    };
    let saga = opening.saga;
    let answer = desk.book().open_payment(&key, opening, desk.now_ms());
    if answer.is_ok()
        && desk.config.pays_at_once
        && let Err(no) = desk.paid(saga)
    {
        return no.into_response();
    }
    match answer {
        Ok(answer) => Body(opened(&desk.url, &answer)).into_response(),
        Err(no) => no.into_response(),
    }
}

async fn close(State(desk): Shared, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(refused) = desk.signed::<Json>(&headers, &body).await {
        return refused;
    }
    let mut book = desk.book();
    let Some(saga) = book.reference(&id) else { return No::NotFound.into_response() };
    match book.close(saga, desk.now_ms()) {
        Ok(captures) => Body(json!({ "captures": captures })).into_response(),
        Err(no) => no.into_response(),
    }
}

async fn find_payment(State(desk): Shared, Path(id): Path<String>) -> Response {
    tokio::time::sleep(desk.config.latency).await;
    let book = desk.book();
    match book.reference(&id) {
        Some(saga) => Body(json!({ "captures": book.captures(saga) })).into_response(),
        None => No::NotFound.into_response(),
    }
}

async fn refund(State(desk): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let (key, refund) = match desk.signed::<RefundOrder>(&headers, &body).await {
        Ok(signed) => signed,
        Err(refused) => return refused,
    };
    match desk.book().refund(&key, refund, desk.now_ms()) {
        Ok(answer) => Body(answer).into_response(),
        Err(no) => no.into_response(),
    }
}

async fn find_effect(State(desk): Shared, Path(key): Path<String>) -> Response {
    tokio::time::sleep(desk.config.latency).await;
    match desk.book().answer(&key) {
        Some(answer) if answer.get("payment_no").is_some() => Body(opened(&desk.url, &answer)).into_response(),
        Some(answer) => Body(answer).into_response(),
        None => No::NotFound.into_response(),
    }
}

/// A customer pays. Paying again without `again` answers with what was paid before.
async fn pay(State(desk): Shared, Path(id): Path<String>, body: Bytes) -> Response {
    let pay: Pay = match if body.is_empty() { Ok(Pay::default()) } else { serde_json::from_slice(&body) } {
        Ok(pay) => pay,
        Err(error) => return problem(StatusCode::BAD_REQUEST, "payload", &error.to_string()),
    };
    let taken = desk.take(&id, &pay);
    match taken {
        Ok(callbacks) => {
            for callback in callbacks.iter().filter(|(_, new)| *new).map(|(callback, _)| callback) {
                let delay = pay.delay_ms.map(Duration::from_millis);
                desk.deliver(callback.clone(), pay.deliveries.map(|n| n.clamp(1, MOST_DELIVERIES)), delay);
            }
            let callbacks: Vec<_> = callbacks.into_iter().map(|(callback, _)| callback).collect();
            Body(json!({ "payments": callbacks })).into_response()
        }
        Err(no) => no.into_response(),
    }
}

impl Desk {
    /// Takes the money; tells of each payment whether it is new.
    fn take(&self, id: &str, pay: &Pay) -> Result<Vec<(Callback, bool)>, No> {
        let mut book = self.book();
        let saga = book.reference(id).ok_or(No::NotFound)?;
        let before = book.callbacks(saga);
        if !before.is_empty() && !pay.again {
            return Ok(before.into_iter().map(|callback| (callback, false)).collect());
        }
        let numbers = pay.numbers.unwrap_or(1).clamp(1, MOST_NUMBERS);
        (0..numbers)
            .map(|_| book.capture(saga, pay.amount_minor, pay.currency.clone(), pay.late, self.now_ms()))
            .map(|taken| taken.map(|callback| (callback, true)))
            .collect()
    }

    /// The customer pays what is due, unless that was done before.
    fn paid(self: &Arc<Self>, saga: SagaId) -> Result<(), No> {
        let mut book = self.book();
        if book.captures(saga).is_empty() {
            let callback = book.capture(saga, None, None, false, self.now_ms())?;
            drop(book);
            self.deliver(callback, None, None);
        }
        Ok(())
    }

    /// Waits as slowly as it is told to, checks the signature, reads key and body.
    async fn signed<T: for<'a> Deserialize<'a>>(
        &self,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(String, T), Response> {
        tokio::time::sleep(self.config.latency).await;
        crate::provider::verify(&self.config.secret, headers, body, self.now_ms(), WINDOW_MS)
            .map_err(|error| problem(StatusCode::UNAUTHORIZED, "signature", &error.to_string()))?;
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
        let body = serde_json::from_slice(body)
            .map_err(|error| problem(StatusCode::BAD_REQUEST, "payload", &error.to_string()))?;
        Ok((key.to_owned(), body))
    }
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(code) => problem(StatusCode::CONFLICT, code, ""),
            Self::Conflict => {
                problem(StatusCode::UNPROCESSABLE_ENTITY, "conflict", "the key is known with another body")
            }
            Self::NotFound => problem(StatusCode::NOT_FOUND, "not_found", ""),
            Self::Broken(reason) => problem(StatusCode::INTERNAL_SERVER_ERROR, "broken", &reason),
        }
    }
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    (status, Body(json!({ "code": code, "detail": detail }))).into_response()
}
