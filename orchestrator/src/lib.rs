//! Consume, decide, persist, relay, timers, sweep and view of sagas.
