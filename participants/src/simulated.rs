//! A simulated payment provider: a process of its own kind, with its own file of what it took and gave back. It signs
//! its callbacks and delivers them as badly as real ones do: up to eight times, late, out of order.
//!
//! - `book`: what it knows, and the file that survives it
//! - `routes`: its HTTP, for us and for customers
//! - `deliver`: its callbacks

mod book;
mod deliver;
mod routes;

pub use book::{Entry, Line, read_file};
pub use routes::Pay;

use book::Book;
use deliver::Delivery;
use endstate_outbox::Clock;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Deliveries of one callback at most.
pub const MOST_DELIVERIES: u8 = 8;

/// Settings of a simulated provider.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where buyers reach it, for pay links; where it listens, when there is none.
    pub public_url: Option<String>,
    /// Its name; part of every payment's identity.
    pub name: String,
    /// What both sides sign with.
    pub secret: Vec<u8>,
    /// Where callbacks go.
    pub callback_url: String,
    /// Its file, JSON lines; made when missing, read again at the start.
    pub file: PathBuf,
    /// Deliveries of a callback that was acknowledged: a random number from 1 to this, at most [`MOST_DELIVERIES`].
    pub deliveries: u8,
    /// Each delivery waits a random time up to this, so that they arrive out of order.
    pub delay: Duration,
    /// It answers every call that much later.
    pub latency: Duration,
    /// Seed of its chances.
    pub seed: u64,
    /// Customers pay as soon as their payment is open: for load that has no customers of its own.
    pub pays_at_once: bool,
}

impl Config {
    /// A well-behaved provider on a free port of this machine: one delivery, at once.
    #[must_use]
    pub fn local(callback_url: &str, secret: &[u8], file: &Path) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            public_url: None,
            name: "simpay".to_owned(),
            secret: secret.to_vec(),
            callback_url: callback_url.to_owned(),
            file: file.to_owned(),
            deliveries: 1,
            delay: Duration::ZERO,
            latency: Duration::ZERO,
            seed: 0,
            pays_at_once: false,
        }
    }
}

/// Why the provider does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its file.
    #[error("E5040: the provider's file {path} cannot be used: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Its address.
    #[error("E5041: the provider cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// Its client for callbacks.
    #[error("E5013: the HTTP client cannot be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// A provider that listens, but does not answer yet.
pub struct Simulated {
    listener: TcpListener,
    address: SocketAddr,
    desk: Arc<Desk>,
}

/// What all its calls share.
struct Desk {
    config: Config,
    /// What pay links begin with.
    url: String,
    book: Mutex<Book>,
    chance: Mutex<StdRng>,
    delivery: Delivery,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Simulated {
    /// Reads its file and binds its address.
    pub async fn bind(config: Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let book = Book::open(&config.name, &config.file)
            .map_err(|reason| StartError::File { path: config.file.clone(), reason })?;
        let listen = |error| StartError::Listen { address: config.listen, error };
        let listener = endstate_http::listen(config.listen).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let desk = Desk {
            url: config.public_url.as_deref().map_or_else(|| format!("http://{address}"), bare),
            book: Mutex::new(book),
            chance: Mutex::new(StdRng::seed_from_u64(config.seed)),
            delivery: Delivery::new(&config, Arc::clone(&clock))?,
            clock,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            config,
        };
        Ok(Self { listener, address, desk: Arc::new(desk) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is stopped. Callbacks that nobody has acknowledged are delivered again at the next start.
    pub async fn serve(self, stop: CancellationToken) -> std::io::Result<()> {
        let desk = self.desk;
        for callback in desk.book().undelivered() {
            desk.deliver(callback, None, None);
        }
        let routes = routes::router(Arc::clone(&desk));
        let stopped = desk.stop.clone();
        let served = axum::serve(self.listener, routes).with_graceful_shutdown(async move {
            stop.cancelled().await;
            stopped.cancel();
        });
        let result = served.await;
        desk.tasks.close();
        desk.tasks.wait().await;
        result
    }
}

/// A URL to which a path is added.
fn bare(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

impl Desk {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A random number up to `most`, inclusive.
    fn chance(&self, least: u64, most: u64) -> u64 {
        let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        chance.random_range(least..=most.max(least))
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }
}
