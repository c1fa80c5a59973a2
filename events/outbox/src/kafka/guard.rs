//! A thread of the bus that panics begins anew: what it kept alive would otherwise stay as it was for ever, shards that
//! are owned and never read among them.

use crate::trouble;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Pause before it begins anew: long enough not to fill the log, short enough for who waits.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs `body` until it returns. When it panics, `fallen` lets go of what it held, and it begins anew.
pub(super) fn survive(what: &str, body: impl FnMut(), fallen: impl FnMut(&str)) {
    survive_after(PAUSE, what, body, fallen);
}

fn survive_after(pause: Duration, what: &str, mut body: impl FnMut(), mut fallen: impl FnMut(&str)) {
    while let Err(panic) = catch_unwind(AssertUnwindSafe(&mut body)) {
        let reason = trouble::panicked(&*panic);
        tracing::error!(%reason, "E4066: {what} panicked and begins anew");
        fallen(reason);
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_lets_go_of_what_it_held_and_begins_anew() {
        let (mut runs, mut told) = (0, Vec::new());
        let body = || {
            runs += 1;
            assert!(runs > 2, "run {runs}");
        };
        survive_after(Duration::ZERO, "a thread", body, |reason| told.push(reason.to_owned()));
        assert_eq!(told, ["run 1", "run 2"]);
        assert_eq!(runs, 3);
    }
}
