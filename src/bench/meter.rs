//! What a run costs, read from outside the code that is measured: CPU time from the kernel's accounts, of this process
//! and of the services it uses; flushes from the block device.

use super::processes::{self, Service};
use std::fs;
use std::path::{Path, PathBuf};

/// Name of the threads that play the world outside, clients and payment provider; their CPU time is shown apart.
pub(crate) const CLIENT_THREAD: &str = "bench-client";

/// Reads what is measured.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    /// Folder on the block device whose flushes count.
    pub(crate) data: PathBuf,
    pub(crate) kafka: Option<Service>,
    pub(crate) postgres: Option<Service>,
}

/// Readings at one moment, or what happened between two.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    /// CPU time of this process, milliseconds, clients included.
    pub(crate) process_ms: f64,
    /// Of that, the clients' threads.
    pub(crate) clients_ms: f64,
    /// CPU time of the broker; none where there is none, or where its process is not known.
    pub(crate) kafka_ms: Option<f64>,
    /// CPU time of the database with all its sessions; none where there is none, or where its process is not known.
    pub(crate) postgres_ms: Option<f64>,
    /// Flushes that the block device of the data folder completed, everybody's; none where the kernel does not count.
    pub(crate) flushes: Option<u64>,
}

impl Meter {
    /// Reads everything now.
    pub(crate) fn now(&self) -> Reading {
        let (mut process_ms, mut clients_ms) = (0.0, 0.0);
        for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let path = task.path();
            let ms = processes::run_ms(&path);
            process_ms += ms;
            if fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim_end() == CLIENT_THREAD) {
                clients_ms += ms;
            }
        }
        let kafka_ms = self.kafka.as_ref().map(Service::cpu_ms);
        let postgres_ms = self.postgres.as_ref().map(Service::cpu_ms);
        Reading { process_ms, clients_ms, kafka_ms, postgres_ms, flushes: flushes(&self.data) }
    }
}

impl Reading {
    /// What happened since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        let less = |now: Option<f64>, then: Option<f64>| now.zip(then).map(|(now, then)| now - then);
        Self {
            process_ms: self.process_ms - earlier.process_ms,
            clients_ms: self.clients_ms - earlier.clients_ms,
            kafka_ms: less(self.kafka_ms, earlier.kafka_ms),
            postgres_ms: less(self.postgres_ms, earlier.postgres_ms),
            flushes: self.flushes.zip(earlier.flushes).map(|(now, then)| now.saturating_sub(then)),
        }
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        let sum = |one: Option<f64>, two: Option<f64>| two.map(|two| two + one.unwrap_or(0.0));
        Self {
            process_ms: self.process_ms + other.process_ms,
            clients_ms: self.clients_ms + other.clients_ms,
            kafka_ms: sum(self.kafka_ms, other.kafka_ms),
            postgres_ms: sum(self.postgres_ms, other.postgres_ms),
            flushes: other.flushes.map(|flushes| flushes + self.flushes.unwrap_or(0)),
        }
    }

    /// Everything but the clients.
    pub(crate) fn system_ms(self) -> f64 {
        self.process_ms - self.clients_ms + self.kafka_ms.unwrap_or(0.0) + self.postgres_ms.unwrap_or(0.0)
    }
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
