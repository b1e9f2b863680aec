//! An index with many pictures, written row by row as an agent would have left it. The files of the pictures are not made.

use redb::{Database, TableDefinition};
use serde::Serialize;
use shutterd::clock::SystemClock;
use shutterd::model::{CameraId, Hash8, Outcome, Quality, Seq, Slot, SnapshotId, Stamp};
use shutterd::store::{BootRow, Configure, Place, Rules, SnapRow, SnapState, Store, Totals};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub const CAMERAS: u64 = 8;
pub const PERIOD_MS: u64 = 300_000;
/// Of the boot that the pictures come from: it ended before this one.
const OLD_BOOT: u32 = 1;

pub type Error = Box<dyn std::error::Error>;

/// The tables that grow with the number of pictures, as the agent leaves them when all are acknowledged.
/// # Errors
/// The store or its index cannot be written.
pub fn fill(data: &Path, rows: u64, now_ms: i64) -> Result<(), Error> {
    /// Days (part 1) and values (part 3).
    const STATE: TableDefinition<(u8, u32, u64, &str), &[u8]> = TableDefinition::new("state");
    const SNAPS: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("snapshots");
    const BY_CAMERA: TableDefinition<(&str, u32, u64), ()> = TableDefinition::new("by_camera");
    const FREE: TableDefinition<(&str, u32, u64), u64> = TableDefinition::new("acknowledged");
    const OUTCOMES: TableDefinition<(&str, u32, u64), &[u8]> = TableDefinition::new("outcomes");
    const BOOTS: TableDefinition<u32, &[u8]> = TableDefinition::new("boots");

    let place = Place { dir: data.to_owned(), board: shutterd::config::board_serial().unwrap_or_default(), hub: false };
    let config = Configure { node: "bench".parse()?, hub: false, version: "0".into(), keep: Rules::default(), window_ms: 0 };
    let (store, _) = Store::open(&place, config, Arc::new(SystemClock), "the boot before")?;
    let id = store.id();
    tokio::runtime::Builder::new_current_thread().build()?.block_on(store.stop())?;
    drop(store);

    let db = open(&data.join("index.redb"))?;
    let offset_ms = now_ms - (rows / CAMERAS * PERIOD_MS) as i64;
    let ord = 1 << 16;
    let mut totals: BTreeMap<CameraId, Totals> = BTreeMap::new();
    for chunk in (0..rows).collect::<Vec<_>>().chunks(50_000) {
        let txn = db.begin_write()?;
        {
            let (mut snaps, mut by_camera, mut free) = (txn.open_table(SNAPS)?, txn.open_table(BY_CAMERA)?, txn.open_table(FREE)?);
            let (mut outcomes, mut days) = (txn.open_table(OUTCOMES)?, txn.open_table(STATE)?);
            for number in chunk {
                let (seq, due_ms) = (number + 1, number / CAMERAS * PERIOD_MS);
                let camera = format!("cam-{}", number % CAMERAS);
                let schedule = format!("{camera}-5m");
                let wall_ms = offset_ms + due_ms as i64;
                let taken = Stamp { boot: OLD_BOOT, boottime_ms: due_ms + 40, wall_ms, quality: Quality::Ntp, uncertainty_ms: Some(3) };
                let slot = Slot { schedule: schedule.parse()?, boot: OLD_BOOT, due_ms, plan_ms: Some(wall_ms) };
                let snap = SnapRow {
                    camera: camera.parse()?,
                    bytes: 150 << 10,
                    hash8: Hash8(seq.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                    taken,
                    slots: vec![slot],
                    width: 1920,
                    height: 1080,
                    source: "rtsp".into(),
                    flags: vec![],
                    state: SnapState::Acknowledged,
                    priority: Default::default(),
                };
                let total = totals.entry(snap.camera.clone()).or_default();
                (total.count, total.bytes) = (total.count + 1, total.bytes + snap.bytes);
                snaps.insert((ord, seq), row(&snap)?.as_slice())?;
                by_camera.insert((camera.as_str(), ord, seq), ())?;
                free.insert((camera.as_str(), ord, seq), snap.bytes)?;
                let outcome = Outcome::Captured { id: SnapshotId { store: id, seq: Seq(seq) }, late_ms: 40 };
                outcomes.insert((schedule.as_str(), OLD_BOOT, due_ms), row(&outcome)?.as_slice())?;
                let day = BTreeMap::from([("captured".to_owned(), 288_u64)]);
                let no = (wall_ms.div_euclid(86_400_000) as i32).abs_diff(i32::MIN);
                days.insert((1, 0, no.into(), schedule.as_str()), row(&day)?.as_slice())?;
            }
        }
        txn.commit()?;
    }
    let txn = db.begin_write()?;
    {
        let mut state = txn.open_table(STATE)?;
        state.insert((3, 0, 0, "next_seq"), row(&(rows + 1))?.as_slice())?;
        state.insert((3, 0, 0, "totals"), row(&totals)?.as_slice())?;
        let last_ms = rows / CAMERAS * PERIOD_MS;
        let boot = BootRow { boot_id: "the boot before".into(), offset_ms, quality: Quality::Ntp, first_ms: 0, last_ms };
        txn.open_table(BOOTS)?.insert(OLD_BOOT, row(&boot)?.as_slice())?;
    }
    txn.commit()?;
    Ok(())
}

fn row(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    Ok(postcard::to_stdvec(value)?)
}

/// The writer thread lets go of the file a moment after it has stopped.
fn open(index: &Path) -> Result<Database, Error> {
    for _ in 0..50 {
        match Database::open(index) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => std::thread::sleep(Duration::from_millis(50)),
            opened => return Ok(opened?),
        }
    }
    Err("the index stays in use".into())
}
