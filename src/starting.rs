//! What a process answers while it waits for its database and its brokers: it is alive, and not ready.

use anyhow::Context as _;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Answers until it is dropped, or takes the address over.
pub(crate) struct Starting {
    listener: TcpListener,
    _stop: Option<DropGuard>,
}

impl Starting {
    /// Listens, and answers at once.
    pub(crate) async fn answering(address: SocketAddr) -> anyhow::Result<Self> {
        let mut starting = Self::silent(address)?;
        let listener = starting.listener.into_std()?;
        let stop = CancellationToken::new();
        // The same socket twice: whoever calls in between waits for the second one.
        let answered = TcpListener::from_std(listener.try_clone()?)?;
        let served = axum::serve(answered, router()).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::spawn(served.into_future());
        starting = Self { listener: TcpListener::from_std(listener)?, _stop: Some(stop.drop_guard()) };
        Ok(starting)
    }

    /// Only listens: callers wait.
    pub(crate) fn silent(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = endstate_http::listen(address)
            .with_context(|| format!("cannot listen on {address}; choose another address with --listen"))?;
        Ok(Self { listener, _stop: None })
    }

    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// It has started: somebody else answers from now on.
    pub(crate) fn over(self) -> TcpListener {
        self.listener
    }
}

fn router() -> Router {
    let not_yet = async || {
        let text = "starting: the database or the brokers do not answer yet; the log says which\n";
        (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "2")], text).into_response()
    };
    Router::new().route("/livez", get(async || "ok\n")).fallback(not_yet)
}
