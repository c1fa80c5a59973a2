//! Z20 on a broker: a log that is much longer than what its shard takes, in a process of its own.

use crate::rig::{Rig, item, send_text, take};
use endstate_events::{Environment, Topic};
use endstate_outbox::{Bus as _, KafkaBus, KafkaSettings};

/// Messages that lie unread, and the bytes of each: a hundred MiB.
const MANY: usize = 1_000;
const BYTES: usize = 100 * 1024;

/// What a process may take while it reads them, in MiB, beyond what it has before: a queue of 8 to its shard, 16 in the
/// client, a fetch on its way, all of it as records and as messages for a moment.
const BOUND_MIB: u64 = 72;

/// Names the environment, in the process in which it is measured.
const MEASURE: &str = "ENDSTATE_TEST_MEASURE_MEMORY";

/// Resident memory in MiB: now, or its peak.
fn resident_mib(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Forgets the peak that resident memory had.
fn peak_begins_anew() -> std::io::Result<()> {
    std::fs::write("/proc/self/clear_refs", "5")
}

/// Text that no compression makes shorter: the client bounds what it fetches as it comes, packed.
fn noise(seed: usize) -> String {
    let mut state = seed as u64 + 1;
    let next = move || {
        // Numerical Recipes' generator; the upper bits are good enough.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (state >> 58) as u8 % 64)
    };
    std::iter::repeat_with(next).filter(|c| *c != '\\').take(BYTES).collect()
}

#[tokio::test]
async fn z20_a_log_that_nobody_takes_stays_within_a_bound_of_memory() {
    if peak_begins_anew().is_err() {
        return; // Only Linux tells, and not everywhere.
    }
    let rig = Rig::new();
    if let Ok(environment) = std::env::var(MEASURE) {
        let environment = Environment::new(&environment).unwrap();
        return measure(KafkaSettings { environment, ..rig.settings }).await;
    }
    let bus = rig.bus().await;
    for page in (0..MANY).collect::<Vec<_>>().chunks(20) {
        bus.produce(page.iter().map(|n| send_text(&n.to_string(), noise(*n))).collect()).await.unwrap();
    }
    bus.close().await;
    let name = "memory::z20_a_log_that_nobody_takes_stays_within_a_bound_of_memory";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let child = child.args([name, "--exact", "--nocapture"]).env(MEASURE, rig.settings.environment.as_str());
    let child = child.output().unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}\n{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("peak"), "it measured nothing: {said}");
    rig.wipe().await;
}

async fn measure(settings: KafkaSettings) {
    let bus = KafkaBus::open(settings).await.unwrap();
    let before = resident_mib("VmRSS");
    peak_begins_anew().unwrap();
    let mut consumer = bus.consumer(Topic::Commands, 2, 0);
    // One at a time: the reader is always ahead, as far as it may be.
    for n in 0..MANY {
        assert_eq!(item(&take(&mut *consumer, 1).await.unwrap()[0]), n.to_string());
    }
    let peak = resident_mib("VmHWM");
    println!("from {before} MiB to a peak of {peak}");
    assert!(peak.saturating_sub(before) <= BOUND_MIB, "from {before} MiB to {peak}");
    bus.close().await;
}
