//! The hub contract: topics and payloads, shared by agent and hub.
//!
//! Everything JSON carries `v` ([`VERSION`]); readers ignore fields they do not know. Pictures and chunks are raw
//! bytes. PUBACK means that a broker has a packet; only [`Ack::have`] means that a picture is safe.
//!
//! Chunks of one picture carry its hash in the MQTT correlation data (8 bytes, [`Hash8`] big endian), so that two boards
//! with a cloned card, sending different pictures under one id, cannot spoil each other's transfer. A sender that omits
//! it means the hash of its latest `init`.

use crate::model::{
    CameraId, GAP_BYTES_MAX, GAP_ITEMS_MAX, Hash8, NodeId, Outcome, Quality, Seq, Session, Slot, SnapshotId, Stamp, StoreId,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of every JSON payload.
pub const VERSION: u32 = 1;
/// First levels of every topic.
pub const PREFIX: &str = "shutter/v1";
/// Hub presence and time: [`HubPresence`], retained.
pub const HUB_TOPIC: &str = "shutter/v1/hub";
/// User property on an uploaded picture or `init`: the session that sent it, in hex. Tells clones apart.
pub const SESSION_PROPERTY: &str = "session";
/// User property on a [`Gap`]: all messages up to and including this number were confirmed, and the node has them no more. A
/// hub that never saw them (a new disk) must not wait for them.
pub const AFTER_PROPERTY: &str = "after";
/// Room for the fields of a [`Gap`] around its items.
const ENVELOPE_BYTES: usize = 128;

/// What a topic below a node's root is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// [`State`], retained, also the last will.
    State,
    /// [`Info`], retained.
    Info,
    /// [`CameraState`], retained.
    Camera(CameraId),
    /// A whole JPEG.
    Image(SnapshotId),
    /// [`Init`]: a chunked transfer begins or resumes; the hub answers with `ack.part`.
    Init(SnapshotId),
    /// Raw bytes at `offset`, CRC-32C in hex.
    Chunk {
        id: SnapshotId,
        offset: u64,
        crc32c: u32,
    },
    /// [`Init`] again: all chunks were sent.
    Fin(SnapshotId),
    /// [`Record`] alone, with its `hash8`.
    Snap(CameraId),
    /// [`Ack`], to the node.
    Ack,
    /// [`Ask`].
    Ask,
    /// [`Gap`].
    Gap,
    Cmd,
    Res,
}

impl Topic {
    /// The full topic of `node`.
    pub fn of(&self, node: &NodeId) -> String {
        let tail = match self {
            Self::State => "state".into(),
            Self::Info => "info".into(),
            Self::Camera(camera) => format!("cam/{camera}"),
            Self::Image(id) => format!("img/{id}"),
            Self::Init(id) => format!("x/{id}/init"),
            Self::Chunk { id, offset, crc32c } => format!("x/{id}/{offset}/{crc32c:08x}"),
            Self::Fin(id) => format!("x/{id}/fin"),
            Self::Snap(camera) => format!("snap/{camera}"),
            Self::Ack => "ack".into(),
            Self::Ask => "ask".into(),
            Self::Gap => "gap".into(),
            Self::Cmd => "cmd".into(),
            Self::Res => "res".into(),
        };
        format!("{PREFIX}/{node}/{tail}")
    }

    /// Takes a full topic apart; `None` for anything that is not of this contract.
    pub fn parse(topic: &str) -> Option<(NodeId, Self)> {
        let rest = topic.strip_prefix(PREFIX)?.strip_prefix('/')?;
        let levels: Vec<&str> = rest.split('/').collect();
        let (node, tail) = levels.split_first()?;
        let node: NodeId = node.parse().ok()?;
        let topic = match *tail {
            ["state"] => Self::State,
            ["info"] => Self::Info,
            ["cam", camera] => Self::Camera(camera.parse().ok()?),
            ["img", id] => Self::Image(id.parse().ok()?),
            ["x", id, "init"] => Self::Init(id.parse().ok()?),
            ["x", id, "fin"] => Self::Fin(id.parse().ok()?),
            ["x", id, offset, crc] if crc.len() == 8 => {
                Self::Chunk { id: id.parse().ok()?, offset: offset.parse().ok()?, crc32c: u32::from_str_radix(crc, 16).ok()? }
            }
            ["snap", camera] => Self::Snap(camera.parse().ok()?),
            ["ack"] => Self::Ack,
            ["ask"] => Self::Ask,
            ["gap"] => Self::Gap,
            ["cmd"] => Self::Cmd,
            ["res"] => Self::Res,
            _ => return None,
        };
        Some((node, topic))
    }
}

/// Whether a node is there. The will is `offline` with the session of the connection it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub v: u32,
    pub state: NodeState,
    pub session: Session,
    /// What is wrong, for `fault`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    Online,
    /// The connection ended without a word (last will).
    Offline,
    /// An ordered stop.
    Stopped,
    /// Up, but the store cannot be used: no pictures.
    Fault,
}

/// What a node is and has; on connect and every 15 minutes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Info {
    pub v: u32,
    pub session: Session,
    /// Version of the agent.
    pub version: String,
    /// Contract versions the agent can speak.
    pub speaks: Vec<u32>,
    pub store: Option<StoreId>,
    pub cameras: Vec<CameraId>,
    pub schedules: Vec<crate::model::ScheduleId>,
    /// Pictures and bytes that wait for this hub.
    pub backlog: u64,
    pub backlog_bytes: u64,
    pub stored: u64,
    pub stored_bytes: u64,
    /// What became of the slots lately; absent while the store cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completeness: Option<Completeness>,
    /// `file`, or `kept` when the present file is bad and the last accepted one runs; then with the reason.
    pub config: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_error: Option<String>,
    pub clock: Quality,
    /// `checked`, or `unchecked` while certificates are judged without a trusted clock; absent without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_clock: Option<String>,
    /// Another agent with this node's name was seen.
    #[serde(default)]
    pub clone_seen: bool,
    /// What was written to the node's disk, and how the disk is; absent while the store cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flash: Option<Flash>,
}

/// What a disk was asked to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub bytes: u64,
    pub flushes: u64,
}
impl std::ops::Add for Written {
    type Output = Self;
    fn add(self, more: Self) -> Self {
        Self { bytes: self.bytes + more.bytes, flushes: self.flushes + more.flushes }
    }
}
impl std::ops::Sub for Written {
    type Output = Self;
    fn sub(self, less: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(less.bytes), flushes: self.flushes.saturating_sub(less.flushes) }
    }
}

/// The agent's own count, by what it was for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFor {
    pub pictures: Written,
    pub index: Written,
}

/// The same for one UTC day. After a crash or power cut what came after the last commit is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlashDay {
    /// `2026-11-22`.
    pub day: String,
    /// The clock was not trusted: the day is what it said then.
    pub unsure: bool,
    #[serde(flatten)]
    pub written: WrittenFor,
}

/// How the node treats its disk, and what the disk says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flash {
    /// A power cut may lose the pictures of so many seconds, each with its reason on record; 0: none that was taken.
    pub loss_window_s: u64,
    /// Since the agent's start.
    pub since_start: WrittenFor,
    pub today: FlashDay,
    /// The block device below the data directory, if there is one.
    #[serde(default)]
    pub disk: Option<Disk>,
}

/// A whole block device as the kernel counts it: everybody's writes, and what filesystem and journal add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Such as `mmcblk0`.
    pub name: String,
    pub since_boot: DiskWritten,
    /// Since the agent's start.
    pub since_start: DiskWritten,
    /// The part of that which went to the data directory's own partition (bytes).
    #[serde(default)]
    pub partition_bytes: Option<u64>,
    /// Absent where the kernel cannot tell.
    #[serde(default)]
    pub life: Option<Life>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskWritten {
    pub bytes: u64,
    /// Kernels before 5.5 do not count them.
    pub flushes: Option<u64>,
}

/// What an eMMC says of its wear (JESD84-B51, bytes 267-269 of the extended CSD).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Up to this much of the rated life is used, in steps of ten; 110: more than it was made for.
    pub used_percent: Option<u8>,
    pub spare: Option<Spare>,
}

/// Blocks left to take the place of worn ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spare {
    Normal,
    /// 80 % are used.
    Warning,
    /// 90 % are used.
    Urgent,
}

/// How the planned pictures of a node ended, all schedules together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completeness {
    /// The first UTC day that is counted, such as `2026-11-22`.
    pub since: String,
    /// How many slots ended how, such as `captured` or `failed: timeout`; `unknown number …` counts stretches nobody could count.
    pub slots: std::collections::BTreeMap<String, u64>,
}

/// In front of the label of stretches whose slots nobody could count.
pub const UNKNOWN: &str = "unknown number ";

/// Planned and captured slots, and the share in percent with two decimals: never rounded up to whole while a slot is missing. `None`
/// where nothing was planned.
pub fn share(slots: &std::collections::BTreeMap<String, u64>) -> (u64, u64, Option<f64>) {
    let counted = slots.iter().filter(|(label, _)| !label.starts_with(UNKNOWN));
    let planned = counted.fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
    let captured = slots.get("captured").copied().unwrap_or(0);
    let share = (u128::from(captured) * 10_000).checked_div(planned.into());
    (planned, captured, share.map(|share| share as f64 / 100.0))
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CameraState {
    pub v: u32,
    pub state: CameraHealth,
    /// The latest good picture.
    #[serde(default)]
    pub last_good: Option<Stamp>,
    /// Why it fails, while it fails.
    #[serde(default)]
    pub error: Option<crate::model::Failure>,
    /// Since the agent started.
    pub captured: u64,
    pub failed: u64,
    #[serde(default)]
    pub on_time: Punctuality,
}

/// How long after they were due the pictures of a camera's schedules were taken, since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Punctuality {
    /// All that came when they were due; one served late on purpose is none of them.
    pub of: u64,
    pub worst_ms: u64,
    /// How many of them were taken within so many milliseconds; each count includes those before it.
    pub within_ms: BTreeMap<u64, u64>,
}

impl Punctuality {
    /// The bounds that are counted by.
    pub const WITHIN_MS: [u64; 10] = [5, 20, 50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000];

    pub fn count(&mut self, late_ms: u64) {
        self.of += 1;
        self.worst_ms = self.worst_ms.max(late_ms);
        for bound_ms in Self::WITHIN_MS {
            *self.within_ms.entry(bound_ms).or_default() += u64::from(late_ms <= bound_ms);
        }
    }

    /// The nearest bound that holds for 95 % of them, or else the last one, with the share in whole per cent that it holds for.
    pub fn mostly(&self) -> Option<(u64, u64)> {
        let mut shares = self.within_ms.iter().map(|(bound_ms, count)| (*bound_ms, (count * 100).checked_div(self.of).unwrap_or(0)));
        let last = shares.clone().next_back();
        shares.find(|(_, share)| *share >= 95).or(last)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CameraHealth {
    Ok,
    Failing,
    Off,
}

/// What is known of one picture; the private segment of its JPEG holds exactly this as JSON (rev 0).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Format of the self-description.
    pub v: u32,
    pub node: NodeId,
    pub id: SnapshotId,
    pub camera: CameraId,
    /// Empty for a picture taken on command.
    pub slots: Vec<Slot>,
    /// When the frame was taken.
    pub taken: Stamp,
    pub width: u32,
    pub height: u32,
    /// Kind of source: `rtsp`, `pattern`, …; never its address.
    pub source: String,
    /// Remarks: `flat` (nothing can be seen), `repeated` (byte for byte the picture before: the camera has frozen), `unsettled` (exposure had no
    /// time to settle).
    #[serde(default)]
    pub flags: Vec<String>,
    /// Version of the privacy mask that was applied; 0 is none.
    #[serde(default)]
    pub mask: u32,
    /// First 8 hex digits of the SHA-256 of the configuration in force.
    pub config: String,
    /// SHA-256, hex, of the file without the private segment.
    pub sha256: String,
    /// Higher wins at the hub; the file itself always says 0.
    #[serde(default)]
    pub rev: u32,
    /// Which file it speaks of. A file cannot hold its own hash: only a record alone says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash8: Option<Hash8>,
}

/// Revision of a record whose picture got its true time after it was taken.
pub const RETIMED_REV: u32 = 1;

/// Opens a chunked transfer, and closes it (`fin`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    pub v: u32,
    pub hash8: Hash8,
    /// Whole file.
    pub len: u64,
}

/// From the hub: what it durably has, and what it lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    pub v: u32,
    /// The store that `have` and `gaps` speak of.
    pub store: StoreId,
    /// Image bytes durable at the hub, hash checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub have: Vec<(Seq, Hash8)>,
    /// All gap messages of this store up to and including this number are durable at the hub.
    #[serde(default)]
    pub gaps: u64,
    /// For a transfer under way: the byte ranges `[from, to)` the hub holds, with the hash they belong to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub part: BTreeMap<SnapshotId, Part>,
    /// Pictures the hub asks for again (it lost them).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub want: Vec<SnapshotId>,
    /// Pictures the hub will not take, with the reason (damaged, not a picture of this node).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
    /// Bytes a second the hub would like at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Records that came alone and are durable at the hub, each with the revision that stands there now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revs: Vec<(Seq, u32)>,
    /// The whole range that was asked about has been answered by the acks before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Ask>,
    /// With `done`: the hub's wall clock when it answered, for boards without a better one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<i64>,
}

impl Ack {
    /// An ack that says nothing yet.
    pub fn of(store: StoreId) -> Self {
        Self {
            v: VERSION,
            store,
            have: Vec::new(),
            gaps: 0,
            part: BTreeMap::new(),
            want: Vec::new(),
            refused: Vec::new(),
            rate: None,
            revs: Vec::new(),
            done: None,
            time_ms: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub hash8: Hash8,
    pub ranges: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub id: SnapshotId,
    pub hash8: Hash8,
    pub reason: String,
}

/// After a rebuild: which of these do you have? Answered with acks, the last of which repeats it as `done`. With `from` above `to` it asks for
/// nothing but that answer, and the hub's time in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    pub v: u32,
    pub store: StoreId,
    pub from: Seq,
    /// Inclusive.
    pub to: Seq,
}

/// One numbered message of reasons: kept at the node until the hub says it has stored it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    pub v: u32,
    pub store: StoreId,
    /// 1, 2, 3 … within the store, without holes.
    pub no: u64,
    pub items: Vec<GapItem>,
}

impl Gap {
    /// Cuts reasons into messages that any usable broker takes: by number and by bytes, at least one item each.
    pub fn cut(items: &[GapItem]) -> impl Iterator<Item = &[GapItem]> {
        let mut rest = items;
        std::iter::from_fn(move || {
            let mut bytes = ENVELOPE_BYTES;
            let fits = |item: &&GapItem| {
                // What has no JSON form fails where the message is made.
                bytes += serde_json::to_vec(item).map_or(0, |json| json.len() + 1);
                bytes <= GAP_BYTES_MAX
            };
            let count = rest.iter().take(GAP_ITEMS_MAX).take_while(fits).count().max(1).min(rest.len());
            let (message, left) = rest.split_at(count);
            rest = left;
            (!message.is_empty()).then_some(message)
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum GapItem {
    /// One slot without a picture. A picture that names the slot wins over it: it was found after this was told.
    Slot { slot: Slot, outcome: Outcome },
    /// A run of slots with the same outcome.
    Range(GapRange),
    /// A picture that was deleted or found damaged before the hub had it.
    Tombstone { id: SnapshotId, camera: CameraId, reason: String },
}

/// Slots of one schedule between two instants, none of which has a picture. One that begins where an earlier one did takes its place:
/// slots that nobody could count have been counted since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRange {
    pub schedule: crate::model::ScheduleId,
    /// First slot (or first instant, if unknown) of the range.
    pub from: Instant,
    /// Last slot of the range, inclusive.
    pub to: Instant,
    pub outcome: Outcome,
    /// How many slots, at even distances; `None` when no clock can tell.
    pub count: Option<u64>,
}

/// A boot's instant, with the wall time where one is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instant {
    pub boot: crate::model::BootNo,
    pub due_ms: u64,
    #[serde(default)]
    pub wall_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubPresence {
    pub v: u32,
    pub online: bool,
    /// The hub's wall clock when it wrote this. For people: whoever reads it cannot know how old it is.
    #[serde(default)]
    pub time_ms: Option<i64>,
    /// Random per hub process: a worker that sees another's will re-asserts its own presence.
    pub worker: Session,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_reads_back_as_it_was_written() {
        let node: NodeId = "n1".parse().unwrap();
        let id: SnapshotId = "00c0ffee00c0ffee-42".parse().unwrap();
        let camera: CameraId = "gate".parse().unwrap();
        for topic in [
            Topic::State,
            Topic::Info,
            Topic::Camera(camera.clone()),
            Topic::Image(id),
            Topic::Init(id),
            Topic::Chunk { id, offset: 98_304, crc32c: 0xdead_beef },
            Topic::Fin(id),
            Topic::Snap(camera),
            Topic::Ack,
            Topic::Ask,
            Topic::Gap,
            Topic::Cmd,
            Topic::Res,
        ] {
            assert_eq!(Topic::parse(&topic.of(&node)), Some((node.clone(), topic)));
        }
    }

    #[test]
    fn a_message_of_reasons_is_never_larger_than_any_usable_broker_takes_and_loses_none() {
        let tombstone = |seq, length| GapItem::Tombstone {
            id: SnapshotId { store: StoreId(u64::MAX), seq: Seq(seq) },
            camera: "gate".parse().unwrap(),
            reason: "\"".repeat(length),
        };
        let items: Vec<_> = (0..600).map(|seq| tombstone(seq, if seq < 300 { 0 } else { 500 })).collect();
        let cut: Vec<_> = Gap::cut(&items).collect();
        assert_eq!(cut.concat(), items);
        for message in &cut {
            let gap = Gap { v: VERSION, store: StoreId(u64::MAX), no: u64::MAX, items: message.to_vec() };
            let bytes = serde_json::to_vec(&gap).unwrap().len();
            assert!(message.len() <= GAP_ITEMS_MAX && bytes <= GAP_BYTES_MAX, "{} items in {bytes} bytes", message.len());
        }
        assert!(cut.len() < 60, "{} messages: they are filled", cut.len());
        assert_eq!(Gap::cut(&[tombstone(1, GAP_BYTES_MAX), tombstone(2, 1)]).map(<[_]>::len).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(Gap::cut(&[]).count(), 0);
    }

    #[test]
    fn a_foreign_topic_is_none_not_a_panic() {
        for topic in [
            "",
            "shutter/v1",
            "shutter/v1/",
            "shutter/v1/N/state",
            "shutter/v1/n/x/1/2",
            "shutter/v10/n/state",
            "shutter/v1/n/img/../x",
            HUB_TOPIC,
        ] {
            assert_eq!(Topic::parse(topic), None, "{topic}");
        }
    }
}
