//! Settings that cannot be wrong: what the rest of the agent is built from.
//!
//! Only `config::checked` makes them, from a file; each value is already within its bounds. Units are in the names.

use crate::config::secret::{Secret, SourceUrl};
use crate::model::{CameraId, ECONOMY_WINDOW_MS, NodeId, Priority, ScheduleId, Tier};
use crate::schedule::{Place, Rule, Zone};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub node: NodeId,
    pub home: Home,
    pub cameras: Vec<Camera>,
    pub schedules: Vec<Schedule>,
    /// Without a hub every stored picture counts as acknowledged.
    pub hub: Option<Hub>,
    pub store: Store,
    pub keep: Keep,
    pub log: Log,
    /// First 8 hex digits of the SHA-256 of the file: goes into every record.
    pub version: String,
}

/// Where the node is.
#[derive(Debug, Clone, PartialEq)]
pub struct Home {
    /// Of schedules that name no other.
    pub zone: Zone,
    pub zone_from: ZoneFrom,
    /// What the sun is reckoned for.
    pub place: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneFrom {
    File,
    System,
    /// Neither says: UTC.
    Unknown,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Camera {
    pub id: CameraId,
    pub source: SourceUrl,
    /// JPEG quality 1–100 where we encode; a camera's own JPEG is stored as it came. Default 85.
    pub quality: u8,
    /// How long one grab may take at most. Default 10 s.
    pub timeout: Duration,
    /// Largest picture accepted, in pixels.
    pub max_pixels: u64,
    /// What a `v4l2:` camera is told to give.
    pub video: Video,
}

/// `None` everywhere: the camera's own choice, or ours among what it offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Video {
    /// Width and height.
    pub size: Option<(u32, u32)>,
    /// Frames per second that the camera sends, of which pictures are taken.
    pub rate: Option<u32>,
    /// Four characters, such as `MJPG`.
    pub format: Option<[u8; 4]>,
    pub controls: Controls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Controls {
    /// In microseconds.
    pub exposure: Option<Set>,
    /// In Kelvin.
    pub white_balance: Option<Set>,
    /// In the camera's own units.
    pub focus: Option<Set>,
    pub power_line: Option<PowerLine>,
}

/// By the camera itself, or to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    Auto,
    To(u32),
}

/// Which lamps the camera's exposure keeps step with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerLine {
    Off,
    Hz50,
    Hz60,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    pub id: ScheduleId,
    pub camera: CameraId,
    pub enabled: bool,
    pub rule: Rule,
    pub wish: Wish,
}

/// How a schedule wants its pictures; `None` everywhere: as the camera gives them and the store keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// Reduced, in eighths, until it fits into this width and height.
    pub size: Option<(u32, u32)>,
    /// JPEG quality 1-100, also where the camera gives JPEG.
    pub quality: Option<u8>,
    pub profile: Option<Profile>,
    pub priority: Priority,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Hub {
    pub host: String,
    pub port: u16,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub tls: Option<Tls>,
    pub keep_alive: Duration,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tls {
    /// PEM file of the authorities to believe; `None`: the system's bundle. Read anew at each connect.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and key (PEM), both or neither.
    pub client: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    /// Data directory. Default `/var/lib/shutterd`.
    pub dir: PathBuf,
    /// Runtime directory: socket and crash notes. Default `/run/shutterd`.
    pub runtime_dir: PathBuf,
    pub when_full: WhenFull,
    pub profile: Profile,
    /// What must be mounted before the data directory is used.
    pub require_mount: Option<Mount>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// The data directory is not on the filesystem of `/`.
    NotRoot,
    /// This directory, the data directory or one above, is where a filesystem is mounted.
    At(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Every picture is made durable at once.
    Prompt,
    /// Pictures wait for others, so that they share their flushes; a power cut may lose those that wait.
    Economy,
}
impl Profile {
    /// How long a picture may wait.
    pub fn window_ms(self) -> u64 {
        match self {
            Self::Prompt => 0,
            Self::Economy => ECONOMY_WINDOW_MS,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Take no more pictures; the slots are `skipped(full)`.
    Stop,
    /// Delete the oldest the hub has not got, with a tombstone.
    DropOldest,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Keep {
    /// Acknowledged pictures older than this go.
    pub age: Option<Duration>,
    /// All pictures together stay under this many bytes.
    pub bytes: Option<u64>,
    /// And under this number.
    pub count: Option<u64>,
    /// Bytes and inodes that the disk keeps free.
    pub free: Option<u64>,
    pub free_inodes: Option<u64>,
    /// What is left of older and older pictures; empty: all.
    pub thin: Vec<Tier>,
    /// Bytes and number of one camera's pictures, for those that have a share of their own.
    pub cameras: BTreeMap<CameraId, (Option<u64>, Option<u64>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub level: Level,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}
