//! The clients: each has its connection and starts one saga after the other, or at a given rate, and waits for its end.

use super::meter::CLIENT_THREAD;
use super::{Saga, order};
use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Pause before an order that waits is asked about again: its payer's callback is on its way.
const ASK_AGAIN: Duration = Duration::from_millis(25);

/// How often at most: a minute and a half.
const ASKS: usize = 3_600;

/// What the clients do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) server: SocketAddr,
    pub(crate) saga: Saga,
    pub(crate) clients: usize,
    /// Sagas per second over all clients; none: closed loop.
    pub(crate) rate: Option<f64>,
    /// Per cent of the sagas that are refused, those of `bench_saga` at `fail_at`.
    pub(crate) fail_percent: u64,
    pub(crate) fail_at: String,
    /// Part of every number, so that runs on one store do not meet.
    pub(crate) run: String,
}

/// What the clients saw.
pub(crate) struct Seen {
    pub(crate) micros: Histogram<u64>,
    pub(crate) completed: u64,
    pub(crate) cancelled: u64,
    /// Answers that were not the expected end.
    pub(crate) wrong: Vec<String>,
}

/// Clients at work on threads of their own.
pub(crate) struct Clients {
    _outside: Outside,
    handles: Vec<tokio::task::JoinHandle<anyhow::Result<Seen>>>,
    stop: Arc<AtomicBool>,
    /// Answers so far.
    pub(crate) answered: Arc<AtomicU64>,
    /// Set while latencies count.
    pub(crate) measuring: Arc<AtomicBool>,
    /// Whether they begin new sagas.
    go: watch::Sender<bool>,
    /// Clients that wait for an answer.
    busy: Arc<AtomicUsize>,
}

/// Threads of the world outside: clients, and the payment provider.
pub(crate) struct Outside(Option<Runtime>);

impl Outside {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(CLIENT_THREAD)
            .enable_all()
            .build();
        Ok(Self(Some(threads.context("cannot start the clients' threads")?)))
    }
}

impl Deref for Outside {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Outside {
    /// A runtime that is dropped waits for its threads, and whoever drops this one may not block. By then its clients are
    /// done, or the run has failed.
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Clients {
    /// Connects and begins.
    pub(crate) fn start(outside: Outside, plan: &Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let measuring = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU64::new(0));
        let (go, may_go) = watch::channel(true);
        let busy = Arc::new(AtomicUsize::new(0));
        let handles = (0..plan.clients)
            .map(|_| {
                let worker = Worker {
                    plan: plan.clone(),
                    stop: stop.clone(),
                    answered: answered.clone(),
                    measuring: measuring.clone(),
                    next: next.clone(),
                    may_go: may_go.clone(),
                    busy: busy.clone(),
                };
                outside.spawn(worker.run())
            })
            .collect();
        Self { _outside: outside, handles, stop, answered, measuring, go, busy }
    }

    /// Lets every client finish its saga and begin none, and waits until all have.
    pub(crate) async fn pause(&self) {
        self.go.send_replace(false);
        while self.busy.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Lets them go on.
    pub(crate) fn resume(&self) {
        self.go.send_replace(true);
    }

    /// Lets every client finish its saga, and adds up what they saw.
    pub(crate) async fn finish(self) -> anyhow::Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.resume();
        let seen = futures_util::future::join_all(self.handles).await;
        let mut all = Seen::new()?;
        for seen in seen {
            let seen = seen.context("a client was aborted")??;
            all.micros.add(&seen.micros).context("cannot add up latencies")?;
            all.completed += seen.completed;
            all.cancelled += seen.cancelled;
            all.wrong.extend(seen.wrong);
        }
        Ok(all)
    }
}

impl Seen {
    fn new() -> anyhow::Result<Self> {
        let micros = Histogram::new_with_bounds(1, 600_000_000, 3).context("cannot make a histogram")?;
        Ok(Self { micros, completed: 0, cancelled: 0, wrong: Vec::new() })
    }
}

struct Worker {
    plan: Plan,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    measuring: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
    may_go: watch::Receiver<bool>,
    busy: Arc<AtomicUsize>,
}

impl Worker {
    async fn run(mut self) -> anyhow::Result<Seen> {
        let mut sender = connect(self.plan.server).await?;
        let mut seen = Seen::new()?;
        let begin = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            // Busy first: whoever pauses may not miss one who has just been let go.
            self.busy.fetch_add(1, Ordering::AcqRel);
            if !*self.may_go.borrow() {
                self.busy.fetch_sub(1, Ordering::AcqRel);
                self.may_go.wait_for(|go| *go).await.context("the benchmark has ended")?;
                continue;
            }
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            // Open loop: a saga's latency counts from when it should have begun, not from when a client was free.
            let due = self.plan.rate.map(|rate| begin + Duration::from_secs_f64(n as f64 / rate));
            if let Some(due) = due {
                tokio::time::sleep_until(due.into()).await;
            }
            let since = due.unwrap_or_else(Instant::now);
            let fails = n % 100 < self.plan.fail_percent;
            let outcome = self.saga(&mut sender, n, fails).await;
            // Whoever pauses does not wait for a client that has given up.
            let outcome = outcome.inspect_err(|_| _ = self.busy.fetch_sub(1, Ordering::AcqRel))?;
            if self.measuring.load(Ordering::Relaxed) {
                seen.micros.saturating_record(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            match (outcome.as_str(), fails) {
                ("completed", false) => seen.completed += 1,
                ("cancelled", true) => seen.cancelled += 1,
                _ => seen.wrong.push(format!("saga {n} ended as `{outcome}`, refused at a step: {fails}")),
            }
            self.answered.fetch_add(1, Ordering::Relaxed);
            self.busy.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(seen)
    }

    async fn saga(&self, sender: &mut SendRequest<Full<Bytes>>, n: u64, fails: bool) -> anyhow::Result<String> {
        let fail_at = if fails { self.plan.fail_at.as_str() } else { "" };
        // Rising, as the numbers of a shop are; all clients draw from one sequence.
        let number = format!("{}-{n:08}", self.plan.run);
        let body = match self.plan.saga {
            Saga::BenchSaga => format!(r#"{{"number":"{number}","fail_at":"{fail_at}"}}"#),
            Saga::FlashSaleOrder => order::body(&number, n, fails),
        };
        let path = self.plan.saga.path();
        let start = hyper::Request::post(path).header("content-type", "application/json");
        if let Some(outcome) = ask(sender, start, body.into()).await? {
            return Ok(outcome);
        }
        // An order whose payment is open waits for somebody outside, and that is told; its payer is quick.
        for _ in 0..ASKS {
            tokio::time::sleep(ASK_AGAIN).await;
            let look = hyper::Request::get(format!("{path}/{number}"));
            if let Some(outcome) = ask(sender, look, Bytes::new()).await? {
                return Ok(outcome);
            }
        }
        bail!("saga {number} still waits")
    }
}

/// Asks, and waits for the saga's end. None when it has not come: a saga that waits itself is told at once.
async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    request: hyper::http::request::Builder,
    body: Bytes,
) -> anyhow::Result<Option<String>> {
    let request = request.header("host", "localhost").header("prefer", "wait=30").body(Full::new(body))?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("the server answered {status}: {}", String::from_utf8_lossy(&body));
    }
    outcome(&body)
}

/// The outcome that an answer tells: a saga's own, or that of the saga in an order.
fn outcome(body: &[u8]) -> anyhow::Result<Option<String>> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Answer {
        Order { saga: Ended },
        Saga(Ended),
    }
    #[derive(serde::Deserialize)]
    struct Ended {
        outcome: Option<String>,
    }
    let answer = serde_json::from_slice(body)
        .with_context(|| format!("the answer is no saga: {}", String::from_utf8_lossy(body)))?;
    let (Answer::Order { saga: Ended { outcome } } | Answer::Saga(Ended { outcome })) = answer;
    Ok(outcome)
}

async fn connect(server: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = tokio::net::TcpStream::connect(server).await.with_context(|| format!("cannot reach {server}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_order_is_found_in_the_answer_to_its_start_and_to_a_look() {
        let told = |body: &str| outcome(body.as_bytes()).unwrap();
        assert_eq!(told(r#"{"saga":"01a2","status":"awaiting_payment"}"#), None);
        assert_eq!(told(r#"{"saga":"01a2","outcome":"completed"}"#).as_deref(), Some("completed"));
        assert_eq!(told(r#"{"number":"7","saga":{"saga":"01a2","status":"paid"}}"#), None);
        assert_eq!(
            told(r#"{"number":"7","saga":{"saga":"01a2","outcome":"cancelled"}}"#).as_deref(),
            Some("cancelled")
        );
        assert!(outcome(b"[7]").is_err());
    }
}
