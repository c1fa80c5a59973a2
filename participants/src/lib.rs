//! Ledger and tokens, the participants built on them, and the caller of outside parties.
