//! What the index remembers of each thing: rows, and how they become bytes.

use crate::model::{BootNo, CameraId, Hash8, Priority, Quality, Slot, Stamp};
use crate::protocol::WrittenFor;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapRow {
    pub camera: CameraId,
    pub bytes: u64,
    pub hash8: Hash8,
    /// As the file says; its path follows from camera, number and this.
    pub taken: Stamp,
    pub slots: Vec<Slot>,
    pub width: u32,
    pub height: u32,
    pub source: String,
    pub flags: Vec<String>,
    pub state: SnapState,
    /// As long as this was a `bool` (taken on command), it was the same byte.
    pub priority: Priority,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapState {
    /// The hub has not got it yet.
    Pending,
    /// The hub has it (or there is no hub): free to be forgotten.
    Acknowledged,
    /// The file was found damaged; tombstoned.
    Corrupt,
    /// Back after the index was lost: whether the hub has it is being asked. Counts as not acknowledged.
    Ask,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRow {
    pub boot_id: String,
    /// Wall minus boot time as last seen, and how far it can be believed.
    pub offset_ms: i64,
    pub quality: Quality,
    pub first_ms: u64,
    pub last_ms: u64,
}

/// The first trusted reading of a boot. It gives each picture of that boot its time, also those that no trusted clock stamped, and never
/// changes: a picture's time must not move because a clock was put right again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {
    /// When it was read, on the boot clock.
    pub at_ms: u64,
    /// Wall minus boot time then.
    pub offset_ms: i64,
    pub quality: Quality,
    pub uncertainty_ms: Option<u32>,
}

/// A program that was built at one instant ran at another one: no true time from then on is earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// When it ran, on the boot clock.
    pub at_ms: u64,
    /// When it was built, since 1970.
    pub built_ms: i64,
}

/// All pictures of a camera up to a number are to go, whatever else holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// The newest number there was when it was asked for: pictures taken since are not meant.
    pub upto: u64,
    /// When it was asked for, as the clock said then.
    pub asked_ms: i64,
    pub removed: u64,
    pub done: bool,
}

/// How the agent last ended, as far as the index knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    Running { boot: BootNo },
    Stopped { boot: BootNo },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub count: u64,
    pub bytes: u64,
    pub pending: u64,
    pub pending_bytes: u64,
}

/// A row that cannot be read is damage, whatever redb thinks of its pages.
pub fn row<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    postcard::from_bytes(bytes).map_err(|e| redb::Error::Corrupted(format!("a row cannot be read: {e}")))
}

pub fn bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, redb::Error> {
    postcard::to_stdvec(value).map_err(|e| redb::Error::Corrupted(format!("a row cannot be written: {e}")))
}

/// What was written on one UTC day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenDay {
    /// Days since 1970.
    pub day: i32,
    /// The clock was not trusted: the day is what it said then.
    pub unsure: bool,
    pub written: WrittenFor,
}
