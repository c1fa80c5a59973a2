//! What a run costs, read from outside the code that is measured: CPU time from the kernel's accounts, flushes from the
//! block device.

use std::fs;
use std::path::Path;

/// Name of the threads that play the clients; their CPU time is shown apart.
pub(crate) const CLIENT_THREAD: &str = "bench-client";

/// Readings at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    /// CPU time of the process, milliseconds.
    pub(crate) process_ms: f64,
    /// Of that, the clients' threads.
    pub(crate) clients_ms: f64,
    /// Flushes that the block device of the data folder completed, everybody's; none where the kernel does not count.
    pub(crate) flushes: Option<u64>,
}

impl Reading {
    /// Reads everything now.
    pub(crate) fn now(data: &Path) -> Self {
        let (mut process_ms, mut clients_ms) = (0.0, 0.0);
        for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let path = task.path();
            let ms = run_ms(&path);
            process_ms += ms;
            if fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim_end() == CLIENT_THREAD) {
                clients_ms += ms;
            }
        }
        Self { process_ms, clients_ms, flushes: flushes(data) }
    }

    /// What happened since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            process_ms: self.process_ms - earlier.process_ms,
            clients_ms: self.clients_ms - earlier.clients_ms,
            flushes: self.flushes.zip(earlier.flushes).map(|(now, then)| now.saturating_sub(then)),
        }
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            process_ms: self.process_ms + other.process_ms,
            clients_ms: self.clients_ms + other.clients_ms,
            flushes: other.flushes.map(|flushes| flushes + self.flushes.unwrap_or(0)),
        }
    }
}

/// A thread's time on a core; `schedstat` counts nanoseconds where `stat` only knows ticks.
fn run_ms(task: &Path) -> f64 {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}

/// The 16th field of the device's statistics: completed flush requests.
fn flushes(data: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let device = fs::metadata(data).ok()?.dev();
    // The encoding of the kernel's `new_encode_dev`, as glibc's major() and minor() undo it.
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    text.split_whitespace().nth(15)?.parse().ok()
}
