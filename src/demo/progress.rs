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
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: bool,
    placed: AtomicU64,
    ended: AtomicU64,
    kills: AtomicU64,
    orders: u64,
}

impl Progress {
    pub(crate) fn new(orders: usize) -> Self {
        let orders = orders as u64;
        let plain = !std::io::stderr().is_terminal();
        let target = if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(orders), target);
        if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} [{bar:40}] {pos}/{len} orders final  {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, plain, placed: AtomicU64::new(0), ended: AtomicU64::new(0), kills: AtomicU64::new(0), orders }
    }

    /// One that only counts.
    pub(crate) fn silent(orders: usize) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let (placed, ended, kills) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { bar, plain: false, placed, ended, kills, orders: orders as u64 }
    }

    /// How many orders are final, and how many there are.
    pub(crate) fn orders(&self) -> (u64, u64) {
        (self.ended.load(Ordering::Relaxed), self.orders)
    }

    /// A line that stays.
    pub(crate) fn say(&self, line: &str) {
        if self.plain { eprintln!("{line}") } else { self.bar.println(line) }
    }

    /// An order was accepted.
    pub(crate) fn placed(&self) {
        self.placed.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    /// An order became final.
    pub(crate) fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.bar.inc(1);
        self.tell();
    }

    /// The worker was killed and is back.
    pub(crate) fn killed(&self, kill: &Kill) {
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
    pub(crate) async fn lines(&self) {
        loop {
            tokio::time::sleep(LINE_EVERY).await;
            if self.plain {
                let ended = self.ended.load(Ordering::Relaxed);
                eprintln!("{ended} of {} orders final, {}", self.orders, self.line());
            }
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
