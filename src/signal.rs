//! How a process is asked to stop: Ctrl-C, or SIGTERM from whoever runs it.

use tokio::signal::unix::{SignalKind, signal};

/// Returns when somebody asks this process to stop.
pub(crate) async fn asked_to_stop() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            // Without the handler the default applies: the process ends at once, which is safe at any time.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}
