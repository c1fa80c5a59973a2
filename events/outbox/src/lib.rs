//! Shard, fence, append, relay and dead letters, with the Store and Bus ports.
