//! Shards, sockets, the set of held connections and their timers.
