//! How a process is asked to stop: Ctrl-C, or SIGTERM from whoever runs it.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears of it from the moment it is made. Before, the default applies: the process ends at once, which is safe at any
/// time.
pub(crate) struct Stop {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Stop {
    /// Listens from now on; without a handler the default goes on to apply.
    pub(crate) fn listen() -> Self {
        Self { terminate: signal(SignalKind::terminate()).ok(), interrupt: signal(SignalKind::interrupt()).ok() }
    }

    /// Returns when somebody asks this process to stop, once for each time.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            () = heard(&mut self.terminate) => {}
            () = heard(&mut self.interrupt) => {}
        }
    }
}

async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}
