//! What goes when pictures must go.
//!
//! | rule | takes | never |
//! |---|---|---|
//! | `keep.age`, `keep.thin` | what the hub has, by the time it was taken at the latest | while the clock is not trusted; pictures of which nobody knows that |
//! | a camera's `keep_bytes`, `keep_count` | that camera's oldest | another camera's |
//! | `keep.bytes`, `keep.count` | the oldest of the camera that holds most | |
//! | `keep.free`, `keep.free_inodes`, a full disk | the same | more than half of what there was: then something else fills the disk |
//! | `erase` | all of a camera, pinned or not | what was taken after it was asked for |
//!
//! Acknowledged pictures go first. What the hub has not got (or is still being asked about) goes only where the owner said
//! `when_full = "drop_oldest"`, and leaves a tombstone. A pinned picture is not in the list that these rules read from, so no rule
//! can take it. Without a hub every stored picture counts as acknowledged.
//!
//! Work is proportional to what is deleted: the list is in order of age, each sweep by time begins where the last one ended and
//! knows when the next picture is due, and one commit forgets at most [`SWEEP_MAX`](crate::model::SWEEP_MAX).
//! What something else took from the disk counts from the agent's start: after a restart half of the rest may go.

mod disk;
mod rules;
mod space;
#[cfg(test)]
mod tests;
mod time;

pub use disk::{Disk, mounted, same_filesystem};
pub use rules::{Quota, Rules};
pub use space::{Need, Scene, Verdict, decide};
pub use time::ByTime;
