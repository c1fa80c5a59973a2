//! What somebody who watches sees: a bar on a terminal, plain lines elsewhere. Standard error only.

use super::killer::Kill;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often a plain line is written.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Progress of a run.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    plain: bool,
    placed: AtomicU64,
    ended: AtomicU64,
    kills: AtomicU64,
    orders: u64,
}

impl Progress {
    pub(super) fn new(orders: usize) -> Self {
        let orders = orders as u64;
        let plain = !std::io::stderr().is_terminal();
        let target = if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(orders), target);
        if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} [{bar:40}] {pos}/{len} orders final  {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, plain, placed: AtomicU64::new(0), ended: AtomicU64::new(0), kills: AtomicU64::new(0), orders }
    }

    /// A line that stays.
    pub(super) fn say(&self, line: &str) {
        if self.plain { eprintln!("{line}") } else { self.bar.println(line) }
    }

    /// An order was accepted.
    pub(super) fn placed(&self) {
        self.placed.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    /// An order became final.
    pub(super) fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.bar.inc(1);
        self.tell();
    }

    /// The worker was killed and is back.
    pub(super) fn killed(&self, kill: &Kill) {
        let number = self.kills.fetch_add(1, Ordering::Relaxed) + 1;
        let open: Vec<String> = kill.open.iter().map(|(stage, count)| format!("{count} {stage}")).collect();
        let seconds = kill.at_ms as f64 / 1_000.0;
        self.say(&format!(
            "kill {number} at {seconds:.1} s, back after {} ms; open were {}",
            kill.down_ms,
            open.join(", ")
        ));
        self.tell();
    }

    fn tell(&self) {
        self.bar.set_message(self.line());
    }

    fn line(&self) -> String {
        format!("{} placed, {} kills", self.placed.load(Ordering::Relaxed), self.kills.load(Ordering::Relaxed))
    }

    /// Writes plain lines until dropped, where there is no terminal.
    pub(super) async fn lines(&self) {
        loop {
            tokio::time::sleep(LINE_EVERY).await;
            if self.plain {
                let ended = self.ended.load(Ordering::Relaxed);
                eprintln!("{ended} of {} orders final, {}", self.orders, self.line());
            }
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
