//! The pure saga core: definition, state, decide, invariants.
