//! The block device below the data directory, by the kernel's books in sysfs: what everybody wrote to it, and its wear.
//!
//! ```text
//! dev/block/MAJ:MIN -> …/mmcblk0/mmcblk0p2    the partition: has a file `partition`; the whole disk is the folder above
//!     stat                                    7th field sectors written (of 512 bytes), 16th flushes (whole disks, since 5.5)
//!     device/life_time, device/pre_eol_info   eMMC only, since 4.10; as read when the card was started
//! ```
//! An SD card has no word for its wear: its status register (`ssr`) tells speeds and sizes. USB sticks and NVMe tell the kernel's
//! sysfs nothing of theirs. tmpfs, overlayfs and btrfs have no block device of their own.

use crate::protocol::{Disk, DiskWritten, Life, Spare};
use std::{
    fs,
    path::{Path, PathBuf},
};

pub const SYS: &str = "/sys";
/// Part of the rated life that may be used before somebody should get a new card.
const USED_ALARM_PERCENT: u8 = 90;

/// What is known of one device at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    name: String,
    written: DiskWritten,
    /// Of the partition that was asked about, if it is one.
    partition_bytes: Option<u64>,
    pub life: Option<Life>,
}

impl Device {
    /// The disk of a device number (as `stat(2)` tells it), seen through a sysfs at `sys`.
    pub fn read(sys: &Path, number: u64) -> Option<Self> {
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let own = fs::canonicalize(sys.join(format!("dev/block/{major}:{minor}"))).ok()?;
        let partition = own.join("partition").exists();
        let whole: PathBuf = if partition { own.parent()?.to_owned() } else { own.clone() };
        let stat = |dir: &Path| written(&fs::read_to_string(dir.join("stat")).ok()?);
        let text = |name: &str| fs::read_to_string(whole.join("device").join(name)).ok();
        Some(Self {
            name: whole.file_name()?.to_string_lossy().into_owned(),
            written: stat(&whole)?,
            partition_bytes: if partition { stat(&own).map(|part| part.bytes) } else { None },
            life: life(text("life_time").as_deref(), text("pre_eol_info").as_deref()),
        })
    }

    /// As it is told, with what happened since `start`.
    pub fn since(self, start: &Self) -> Disk {
        let flushes = self.written.flushes.zip(start.written.flushes).map(|(now, then)| now.saturating_sub(then));
        Disk {
            since_start: DiskWritten { bytes: self.written.bytes.saturating_sub(start.written.bytes), flushes },
            partition_bytes: self.partition_bytes.zip(start.partition_bytes).map(|(now, then)| now.saturating_sub(then)),
            since_boot: self.written,
            name: self.name,
            life: self.life,
        }
    }

    /// What somebody should do something about, if there is anything.
    pub fn alarm(&self) -> Option<String> {
        let life = self.life?;
        let worn = life.used_percent.is_some_and(|used| used > USED_ALARM_PERCENT);
        let spent = matches!(life.spare, Some(Spare::Warning | Spare::Urgent));
        (worn || spent).then(|| format!("the card {} is nearly worn out ({}): replace it", self.name, life_in_words(&life)))
    }
}

pub fn life_in_words(life: &Life) -> String {
    let used = life.used_percent.map(|used| match used {
        110.. => "more of its life used than it was made for".to_owned(),
        used => format!("{}-{used} % of its life used", used.saturating_sub(10)),
    });
    let spare = life.spare.map(|spare| {
        match spare {
            Spare::Normal => "spare blocks normal",
            Spare::Warning => "80 % of its spare blocks used",
            Spare::Urgent => "90 % of its spare blocks used",
        }
        .to_owned()
    });
    used.into_iter().chain(spare).collect::<Vec<_>>().join(", ")
}

/// From a `stat` file (Documentation/block/stat.rst). For partitions the kernel keeps no count of flushes: its field stays 0.
fn written(stat: &str) -> Option<DiskWritten> {
    let fields: Vec<u64> = stat.split_whitespace().map_while(|field| field.parse().ok()).collect();
    Some(DiskWritten { bytes: fields.get(6)?.checked_mul(512)?, flushes: fields.get(15).copied() })
}

/// JESD84-B51 7.4.42: two estimates, for both kinds of cell an eMMC may mix, in steps of 10 %: 0x01 is 0-10 %, 0x0b past the end,
/// 0x00 not told. The worse one counts.
fn life(life_time: Option<&str>, pre_eol_info: Option<&str>) -> Option<Life> {
    let hex = |word: &str| u8::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let steps = life_time.into_iter().flat_map(str::split_whitespace).filter_map(hex).filter(|step| (0x01..=0x0b).contains(step));
    let spare = match pre_eol_info.map(str::trim).and_then(hex) {
        Some(0x01) => Some(Spare::Normal),
        Some(0x02) => Some(Spare::Warning),
        Some(0x03) => Some(Spare::Urgent),
        _ => None,
    };
    let used_percent = steps.max().map(|step| step * 10);
    (used_percent.is_some() || spare.is_some()).then_some(Life { used_percent, spare })
}

#[cfg(test)]
mod tests;
