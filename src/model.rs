//! The nouns of the product and every limit it has.
//!
//! Ids parse once, at the edge, and cannot be wrong afterwards: a [`CameraId`] has no slash, no dot and no upper-case
//! letter, so a path or a topic built from one cannot leave its directory. Every bound of a queue, a table or a packet
//! is a named constant here.
//!
//! Units are in the names: `_ms` is milliseconds, `_bytes` bytes. `due_ms`, `boottime_ms` are milliseconds of
//! CLOCK_BOOTTIME in one boot; `wall_ms`, `plan_ms` are milliseconds since 1970-01-01T00:00:00Z.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// Longest camera, schedule or node id, in bytes.
pub const SLUG_MAX: usize = 32;
/// Cameras one agent may have; each is a thread.
pub const CAMERAS_MAX: usize = 64;
/// Schedules one agent may have.
pub const SCHEDULES_MAX: usize = 1_024;
/// Timers the wheel can hold: each schedule has one, each camera three, the rest is head-room for waiting slots.
pub const WHEEL_CAPACITY: usize = 4_096;
/// Shortest and longest period of a grid schedule.
pub const PERIOD_MIN_MS: u64 = 1_000;
pub const PERIOD_MAX_MS: u64 = 31 * 86_400_000;
/// Pictures of a burst are so far apart.
pub const BURST_GAP_MS: u64 = 1_000;
/// And no more than this many.
pub const BURST_MAX: u64 = 20;
/// How late a slot may still be served, where nobody said.
pub const GRACE_DEFAULT_MS: u64 = 600_000;
/// Slots one picture may answer for; further ones get a capture of their own.
pub const SLOTS_PER_PICTURE_MAX: usize = 16;
/// Snapshots one commit may carry, and their bytes (DESIGN: group commit without a timer).
pub const GROUP_MAX: usize = 8;
pub const GROUP_BYTES_MAX: usize = 4 << 20;
/// The profile `economy` waits so long for a group to fill, which is what a power cut may cost; and its groups are larger. Measured on
/// ext4, its own mount (`benches/store.rs`), in flushes and bytes a picture of 150 KiB: 0.73 and 1.16 in groups of 8, 0.38 and 1.10
/// of 16, 0.27 and 1.08 of 32 (where the bytes end it), alone 4.05 and 1.61; of 40 KiB: 0.71 and 1.64, 0.36 and 1.41, 0.20 and 1.29, of
/// 64 0.14 and 1.23, alone 4.05 and 3.32.
pub const ECONOMY_WINDOW_MS: u64 = 60_000;
pub const ECONOMY_GROUP_MAX: usize = 32;
/// Work that may wait for the store writer: a full queue means a disk that hangs, which is a storage fault.
pub const STORE_QUEUE_MAX: usize = 4_096;
/// Snapshots in one bucket directory: small enough to list quickly, large enough that a new one is rare.
pub const BUCKET: u64 = 1_000;
/// Highest number of a picture: one a millisecond for 8,900 years.
pub const SEQ_MAX: u64 = 1 << 48;
/// Highest number that is believed when a file or a record claims it: a forged one must leave room for those to come.
pub const SEQ_BELIEVED_MAX: u64 = SEQ_MAX / 2;
/// Highest boot number that is believed: one a minute for 2,000 years.
pub const BOOT_MAX: BootNo = 1 << 30;
/// Furthest from its zero that any clock's reading is believed, in either direction: 8,900 years.
pub const TIME_MAX_MS: u64 = 1 << 48;
/// Slots with a row of their own in the ledger: a year of eight five-minute cameras, 60 MB of index. The oldest go first; the days
/// keep what they sum up to.
pub const OUTCOME_ROWS_MAX: u64 = 1_000_000;
/// Ranges of slots that ended alike, 15 MB of index.
pub const RANGE_ROWS_MAX: u64 = 100_000;
/// Days of which the ledger keeps the sums.
pub const DAYS_KEPT: i32 = 1_100;
/// Pictures that the hub is asked about with one message.
pub const ASK_MAX: usize = 256;
/// Numbers that one such message may span: the hub answers with all it has of them, and where few pictures were left here by thinning
/// that could be a year of them.
pub const ASK_SPAN_MAX: u64 = 4_096;
/// Largest picture accepted from any source.
pub const PICTURE_BYTES_MAX: usize = 32 << 20;
/// Most that the program of a `command:` camera may say on its standard error in one run.
pub const PROGRAM_WORDS_MAX: usize = 4 << 20;
/// Time that a program has to end when it is told to, taken from the camera's `timeout`.
pub const PROGRAM_GRACE_MAX_MS: u64 = 1_000;
/// Default of `max_pixels`, checked from headers before anything is allocated (8K UHD).
pub const PIXELS_MAX: u64 = 7_680 * 4_320;
/// Scans a progressive JPEG may have; ordinary ones have ten, a hostile one thousands, each a pass over the picture.
pub const JPEG_SCANS_MAX: u32 = 100;
/// How long a camera may take to confirm that its session has ended (old firmware otherwise runs out of sessions).
pub const TEARDOWN_MAX_MS: u64 = 1_000;
/// An image up to this size travels in one packet; larger ones in chunks of this size (AWS caps a packet at 128 KB).
pub const CHUNK_BYTES: usize = 96 << 10;
/// Publishes in flight, further limited by the broker's Receive Maximum (rumqttc's default of 65,535 costs 14 MB).
pub const WINDOW_MAX: u16 = 8;
/// Unacknowledged pictures of the backlog known to the outbox at once; the rest stays in the index.
pub const OUTBOX_CANDIDATES_MAX: usize = 64;
/// Pictures the hub refused, or whose acknowledgement is on its way into the index: passed over, but remembered.
pub const OUTBOX_ASIDE_MAX: usize = 256;
/// Chunked transfers open at once: the next picture's `init` travels while this one's chunks flow.
pub const TRANSFERS_OPEN_MAX: usize = 4;
/// Bytes of pictures held in memory for sending; a lane's only picture may exceed it.
pub const TRANSFER_BYTES_MAX: u64 = 8 << 20;
/// Gap messages sent and not yet confirmed.
pub const GAPS_IN_FLIGHT_MAX: usize = 8;
/// Records of pictures that got their time later, sent and not yet confirmed; and rows looked at for them at once.
pub const RETIMES_IN_FLIGHT_MAX: usize = 32;
pub const RETIMES_LOOK_MAX: usize = 256;
/// Room a packet needs besides its payload: topic, properties, header.
pub const PACKET_OVERHEAD_BYTES: u64 = 512;
/// Largest packet the agent takes from a broker (rumqttc's default of 10 KiB is less than one large ack).
pub const INCOMING_BYTES_MAX: u32 = 256 << 10;
/// MQTT events that may wait for the uplink; a full channel stops reading from the socket.
pub const UPLINK_EVENTS_MAX: usize = 32;
/// Outcomes in one gap message.
pub const GAP_ITEMS_MAX: usize = 256;
/// Bytes of one gap message, unless a single outcome has more; a broker must take packets of this size.
pub const GAP_BYTES_MAX: usize = 16 << 10;
/// Quarantined files kept as evidence; the oldest goes first.
pub const QUARANTINE_FILES_MAX: usize = 32;
/// Most that `max_pixels` can be raised to: its frame, decoded, still fits the memory of a small board.
pub const PIXELS_LIMIT: u64 = 4 * PIXELS_MAX;
/// Longest side of a picture that a JPEG can hold, and the highest rate of frames that a camera is asked for.
pub const SIDE_MAX: u32 = 65_535;
pub const RATE_MAX: u64 = 1_000;
/// Side of a test card.
pub const PATTERN_SIDE_MIN: u32 = 16;
pub const PATTERN_SIDE_MAX: u32 = 7_680;
/// Longest delay that a test card can be told to make.
pub const PATTERN_DELAY_MAX_MS: u64 = 600_000;
/// Bounds and default of a camera's `timeout`.
pub const GRAB_TIMEOUT_MIN_MS: u64 = 100;
pub const GRAB_TIMEOUT_MAX_MS: u64 = 600_000;
pub const GRAB_TIMEOUT_DEFAULT_MS: u64 = 10_000;
/// Default of a camera's `quality`.
pub const QUALITY_DEFAULT: u8 = 85;
/// Bounds and default of the hub's `keep_alive` (MQTT counts it in 16-bit seconds).
pub const KEEP_ALIVE_MIN_MS: u64 = 5_000;
pub const KEEP_ALIVE_MAX_MS: u64 = 3_600_000;
pub const KEEP_ALIVE_DEFAULT_MS: u64 = 30_000;
/// Smallest values of `[keep]`: below them a picture would be gone before anybody could look at it.
pub const KEEP_AGE_MIN_MS: u64 = 60_000;
pub const KEEP_BYTES_MIN: u64 = 1 << 20;
pub const KEEP_COUNT_MIN: u64 = 10;
/// A file for each of them is more than any disk of a node can hold.
pub const KEEP_COUNT_LIMIT: u64 = 1_000_000_000;
/// Pictures that may be pinned at once.
pub const PINS_MAX: u64 = 10_000;
/// Pictures that one commit forgets at most: a sweep holds new pictures up no longer than that.
pub const SWEEP_MAX: usize = 256;
/// Largest configuration file and password file read.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
pub const PASSWORD_BYTES_MAX: u64 = 4 << 10;
/// How long a due slot waits for its busy camera at most, besides half its period.
pub const BUSY_WAIT_MAX_MS: u64 = 10_000;
/// Largest MQTT packet the hub takes: a chunk with its topic and properties.
pub const HUB_PACKET_BYTES_MAX: usize = CHUNK_BYTES + (64 << 10);
/// Unacknowledged messages a broker may send to the hub, and the embedded broker to or from one node.
pub const HUB_RECEIVE_MAX: u16 = 32;
/// Messages that may wait inside the hub; more than any broker may have in flight to it.
pub const HUB_QUEUE_MAX: usize = 128;
/// Pictures one ack may name.
pub const ACK_HAVE_MAX: usize = 256;
/// Nodes one hub keeps in view.
pub const HUB_NODES_MAX: usize = 10_000;
/// Alarms of one node that stay in view; all of them stay in the object store.
pub const HUB_ALARMS_SHOWN: usize = 20;
/// Chunked transfers under way: bytes reserved for all of them, and their number per node. The oldest goes first.
pub const PARTIAL_BYTES_MAX: u64 = 1 << 30;
pub const PARTIALS_PER_NODE_MAX: usize = 8;
/// Separate byte ranges one transfer may be in.
pub const PARTIAL_RANGES_MAX: usize = 1_024;

/// An identifier made of `a-z`, `0-9`, `-` and `_`, starting with a letter or digit, 1 to [`SLUG_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slug(heapless::String<SLUG_MAX>);

/// Why a text is not an id; the message says what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{shown}\" is not an id: use 1 to 32 of a-z, 0-9, - and _, starting with a letter or digit")]
pub struct SlugError {
    shown: String,
}

impl Slug {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = SlugError;
    fn from_str(text: &str) -> Result<Self, SlugError> {
        let head = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits = text.bytes().next().is_some_and(head) && text.bytes().all(|c| head(c) || c == b'-' || c == b'_');
        match heapless::String::try_from(text) {
            Ok(inner) if fits => Ok(Self(inner)),
            _ => Err(SlugError { shown: text.chars().take(40).flat_map(char::escape_default).collect() }),
        }
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Serialises a type as its `Display` text and reads it back by `FromStr`.
macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
serde_as_text!(Slug);

macro_rules! slug_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Slug);
        impl $name {
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }
        impl FromStr for $name {
            type Err = SlugError;
            fn from_str(text: &str) -> Result<Self, SlugError> {
                text.parse().map(Self)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}
slug_type!(
    /// A camera of this node; also the name of its directory and topic.
    CameraId
);
slug_type!(
    /// A schedule of this node.
    ScheduleId
);
slug_type!(
    /// This node; the topic root is `shutter/v1/<node>`.
    NodeId
);

/// Why a text is not one of the numbers below.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not {wanted}")]
pub struct IdError {
    text: String,
    wanted: &'static str,
}

fn hex64(text: &str, wanted: &'static str) -> Result<u64, IdError> {
    let plain = text.len() == 16 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    let wrong = || IdError { text: text.chars().take(40).collect(), wanted };
    if plain { u64::from_str_radix(text, 16).map_err(|_| wrong()) } else { Err(wrong()) }
}

macro_rules! hex_type {
    ($(#[$doc:meta])* $name:ident, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                hex64(text, $wanted).map(Self)
            }
        }
        serde_as_text!($name);
    };
}
hex_type!(
    /// One incarnation of the sequence counter: 64 random bits, 16 hex digits in text.
    StoreId,
    "a store id (16 hex digits)"
);
hex_type!(
    /// The first 8 bytes (big endian) of the SHA-256 of a picture's private segment: binds an ack to exactly that picture.
    Hash8,
    "a picture hash (16 hex digits)"
);
hex_type!(
    /// 64 random bits chosen per MQTT connection: tells our own last will from a clone's.
    Session,
    "a session (16 hex digits)"
);

/// Number of a snapshot within its store. Gaps mean nothing; reuse is a defect.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);
impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A snapshot's name for ever: `<store>-<seq>`, such as `00c0ffee00c0ffee-42`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId {
    pub store: StoreId,
    pub seq: Seq,
}
impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.store, self.seq)
    }
}
impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for SnapshotId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong =
            || IdError { text: text.chars().take(60).collect(), wanted: "a snapshot id (<store>-<number>, as `shutterd ls` prints it)" };
        let (store, seq) = text.split_once('-').ok_or_else(wrong)?;
        let canonical = !seq.is_empty() && seq.bytes().all(|c| c.is_ascii_digit()) && (seq == "0" || !seq.starts_with('0'));
        let seq = seq.parse().ok().filter(|_| canonical).ok_or_else(wrong)?;
        Ok(Self { store: store.parse().map_err(|_| wrong())?, seq: Seq(seq) })
    }
}
serde_as_text!(SnapshotId);

/// How far a wall-clock reading can be believed; ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// Earlier than this program was built: nobody set the clock.
    Unset,
    /// Plausible, but only carried over from the last shutdown.
    Saved,
    /// From a clock chip that says nothing impossible ([`crate::clock`] calls any other `saved`).
    Rtc,
    /// From the hub, over MQTT.
    Hub,
    /// The kernel says that it is synchronised.
    Ntp,
}
impl Quality {
    /// Good enough to plan by the clock and to date a picture without a mark.
    pub fn trusted(self) -> bool {
        self >= Self::Rtc
    }
}

/// A row of the boots table; boot 1 is the first boot this store has seen.
pub type BootNo = u32;

/// An instant, with all that was known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub boot: BootNo,
    pub boottime_ms: u64,
    pub wall_ms: i64,
    pub quality: Quality,
    /// Half-width of the interval that holds the true time, where the kernel states one.
    pub uncertainty_ms: Option<u32>,
}

/// One planned picture: a schedule's instant in one boot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    pub schedule: ScheduleId,
    pub boot: BootNo,
    pub due_ms: u64,
    /// The UTC instant meant, for slots bound to the clock.
    #[serde(default)]
    pub plan_ms: Option<i64>,
}

/// Which pictures travel to the hub first: those on command and of high priority, then normal ones, then the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    #[default]
    Normal,
    High,
    Low,
}
impl Priority {
    /// Place in the backlog: lower goes first.
    pub fn class(self) -> u8 {
        match self {
            Self::High => 0,
            Self::Normal => 1,
            Self::Low => 2,
        }
    }
}

/// What became of a slot: the closed list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Captured { id: SnapshotId, late_ms: u64 },
    Failed { reason: Failure },
    Missed { reason: Missed },
    Skipped { reason: Skipped },
    Off { reason: Off },
}

/// A stable code for machines, and a sentence for people (no secrets, at most [`Failure::DETAIL_MAX`] bytes).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub code: String,
    pub detail: String,
}
impl Failure {
    pub const DETAIL_MAX: usize = 300;
    pub fn new(code: &str, detail: impl fmt::Display) -> Self {
        let mut detail = detail.to_string();
        if detail.len() > Self::DETAIL_MAX {
            let cut = (0..=Self::DETAIL_MAX).rev().find(|&i| detail.is_char_boundary(i)).unwrap_or(0);
            detail.truncate(cut);
        }
        Self { code: code.to_owned(), detail }
    }
}

/// How many pictures of a camera thinning leaves: the first of each stretch of UTC time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grain {
    All,
    Hourly,
    Daily,
    Weekly,
}
impl Grain {
    /// The stretch that an instant lies in, or `None` where every picture stays. Weeks begin on Monday.
    pub fn stretch(self, wall_ms: i64) -> Option<i64> {
        const HOUR_MS: i64 = 3_600_000;
        match self {
            Self::All => None,
            Self::Hourly => Some(wall_ms.div_euclid(HOUR_MS)),
            Self::Daily => Some(wall_ms.div_euclid(24 * HOUR_MS)),
            // 1970 began on a Thursday.
            Self::Weekly => Some((wall_ms + 3 * 24 * HOUR_MS).div_euclid(7 * 24 * HOUR_MS)),
        }
    }
}

/// One step of a thinning rule: what is left of pictures up to this age; `None` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tier {
    pub grain: Grain,
    pub until_ms: Option<u64>,
}

/// The camera was still busy with an earlier slot, the machine slept through the instant, or the clock was set past it (or not known yet).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    Busy,
    Asleep,
    Clock,
}
/// The store was full, or somebody paused the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skipped {
    Full,
    Paused,
}
/// Nobody was there to take the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Off {
    /// The agent was stopped in order.
    Stop,
    /// The agent died while the machine ran on.
    Crash,
    /// The machine went down without an ordered stop.
    Power,
    /// The store could not be used.
    Storage,
    /// The index was lost with what it knew.
    IndexLost,
}

impl Outcome {
    /// A short name for counting, such as `failed: timeout`.
    pub fn label(&self) -> String {
        match self {
            Self::Captured { .. } => "captured".into(),
            Self::Failed { reason } => format!("failed: {}", reason.code),
            Self::Missed { reason: Missed::Busy } => "missed: busy".into(),
            Self::Missed { reason: Missed::Asleep } => "missed: asleep".into(),
            Self::Missed { reason: Missed::Clock } => "missed: clock".into(),
            Self::Skipped { reason: Skipped::Full } => "skipped: full".into(),
            Self::Skipped { reason: Skipped::Paused } => "skipped: paused".into(),
            Self::Off { reason } => match reason {
                Off::Stop => "off: stopped",
                Off::Crash => "off: crash",
                Off::Power => "off: power",
                Off::Storage => "off: storage",
                Off::IndexLost => "off: index lost",
            }
            .into(),
        }
    }

    /// Whether both ended without a picture for the same reason: the same code in the same words, whatever the numbers in them.
    pub fn same_reason(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Captured { .. }, _) => false,
            (Self::Failed { reason: a }, Self::Failed { reason: b }) => {
                let words = |failure: &Failure| failure.detail.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
                a.code == b.code && words(a) == words(b)
            }
            _ => self == other,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Captured { id, late_ms } => write!(f, "captured as {id}, {:.1} s after it was due", *late_ms as f64 / 1000.0),
            Self::Failed { reason } => write!(f, "no picture: {} ({})", reason.detail, reason.code),
            Self::Missed { reason: Missed::Busy } => f.write_str("no picture: the camera was still busy with an earlier slot"),
            Self::Missed { reason: Missed::Asleep } => f.write_str("no picture: the machine was asleep, or held the agent up"),
            Self::Missed { reason: Missed::Clock } => f.write_str("no picture: the board's clock was wrong or not set when it was due"),
            Self::Skipped { reason: Skipped::Full } => f.write_str("no picture: the store was full"),
            Self::Skipped { reason: Skipped::Paused } => f.write_str("no picture: the schedule was paused"),
            Self::Off { reason } => f.write_str(match reason {
                Off::Stop => "no picture: the agent had been stopped",
                Off::Crash => "no picture: the agent had died",
                Off::Power => "no picture: the machine was off",
                Off::Storage => "no picture: the store could not be used",
                Off::IndexLost => "no picture on record: the index of that time was lost",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_directory_or_topic() {
        for bad in ["", ".", "..", "../x", "a/b", "a b", "A", "-a", "_a", "ä", "a#", "a+", "a\0", &"x".repeat(33)] {
            assert!(bad.parse::<CameraId>().is_err(), "{bad:?}");
        }
        for good in ["a", "gate-2", "0", "north_bank", &"x".repeat(32)] {
            assert_eq!(good.parse::<CameraId>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_snapshot_id_has_one_spelling() {
        let id: SnapshotId = "00c0ffee00c0ffee-42".parse().unwrap();
        assert_eq!(id.to_string(), "00c0ffee00c0ffee-42");
        for bad in ["", "-", "00c0ffee00c0ffee-", "00C0FFEE00C0FFEE-1", "00c0ffee00c0ffee-01", "00c0ffee00c0ffee-+1", "c0ffee-1"] {
            assert!(bad.parse::<SnapshotId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_long_failure_text_is_cut_at_a_character() {
        let long = "é".repeat(400);
        assert!(Failure::new("x", long).detail.len() <= Failure::DETAIL_MAX);
    }
}
