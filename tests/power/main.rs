//! The real thing: the agent as a process on a real ext4, whose disk loses power, lies, refuses, or ends the process at any step.
//!
//! `make test` runs the short forms. `make soak` sets `SHUTTER_SOAK_CUTS` (power cuts instead of 10; then every step is failed too,
//! not only some) and `SHUTTER_BIN` (the release build). `SHUTTER_SEED` repeats a run's dice.

#[path = "../rig/agent.rs"]
mod agent;
#[path = "../rig/ask.rs"]
mod ask;
#[path = "../rig/books.rs"]
#[expect(dead_code, reason = "one rig for several tests")]
mod books;
#[path = "../rig/disk.rs"]
mod disk;
#[path = "../rig/parts.rs"]
#[expect(dead_code, reason = "one rig for several tests")]
mod parts;
#[path = "../rig/volatile.rs"]
mod volatile;

mod campaign;
mod cuts;
mod dice;
mod order;
mod points;
