//! Power cuts at full rate: nothing acknowledged is lost on a disk that does what it says, and nothing is silently wrong on one that lies.

use crate::books::told;
use crate::campaign::{Campaign, Partition, Tally, node};
use crate::dice::soak_cuts;
use crate::volatile::VolatileDisk;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Cuts in `make test`.
const CUTS: u32 = 10;
/// A filesystem is made anew after so many cuts.
const CUTS_A_DISK: u32 = 20;
/// A seed of the device by which it keeps none of what was not flushed.
const NOTHING_SURVIVES: u64 = 2;
/// How many flushes in a hundred the lying disk does not do.
const LIES: u32 = 30;

/// Campaigns that make so many cuts together, in turn on a partition of their own and on a shared one. `None` where they cannot run.
fn campaigns(name: &str, cuts: u32, lies: u32) -> Option<(Tally, Vec<String>)> {
    // An even number each, so that half of them strike inside a write.
    let each = CUTS_A_DISK.min(cuts.div_ceil(4) * 2);
    let (mut tally, mut complaints, mut made, mut disks) = (Tally::default(), Vec::new(), 0, 0);
    for partition in [Partition::Own, Partition::Shared].into_iter().cycle() {
        if made == cuts {
            break;
        }
        let node = node(name, partition);
        let mut campaign = Campaign::new(name, &node, lies, &[])?;
        campaign.tally = tally;
        campaign.run(each.min(cuts - made));
        made += each.min(cuts - made);
        complaints.append(&mut campaign.complaints);
        tally = campaign.tally;
        disks += 1;
    }
    println!("{name}: {tally:?}");
    println!(
        "{name}: cuts {}, inside a write {}, acknowledged {}, lost {}, silently wrong {}, refused to start {}",
        tally.cuts,
        tally.inside,
        tally.acknowledged,
        tally.lost,
        tally.silently_wrong,
        tally.cuts + disks - tally.starts
    );
    Some((tally, complaints))
}

#[test]
fn the_disk_forgets_what_was_not_flushed() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("forgets-{}", std::process::id()));
    {
        let Some(mut disk) = VolatileDisk::new(&dir, 64, 0) else { return };
        let mark = [0x5A; 4_096];
        let (flushed_at, unflushed_at) = (60 << 20, 61 << 20);
        disk.power_on(0);
        let before = disk.stats();
        // Through the filesystem: a flush arrives with every fsync.
        std::fs::File::create(disk.at.join("file")).unwrap().sync_all().unwrap();
        assert!(disk.stats().flushes > before.flushes, "no flush reaches the device: {before:?}");
        // Beside it: a write that reached the device survives if a flush came after it, and else as the die falls.
        let raw = std::fs::File::options().write(true).open(disk.raw()).unwrap();
        raw.write_all_at(&mark, flushed_at).unwrap();
        raw.sync_all().unwrap();
        assert_eq!(disk.stats().pending, 0);
        raw.write_all_at(&mark, unflushed_at).unwrap();
        drop(raw);
        assert_eq!(disk.stats().pending, 1);
        let cut = disk.cut(NOTHING_SURVIVES, 0);
        assert_eq!((cut.kind.as_str(), cut.unflushed, cut.survived_bytes), ("none", 1, 0));
        disk.power_off();
        let survived = |at| {
            let mut found = [0; 4_096];
            disk.survived().read_exact_at(&mut found, at).unwrap();
            found
        };
        assert_eq!(survived(flushed_at), mark);
        assert_eq!(survived(unflushed_at), [0; 4_096]);
    }
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn no_acknowledged_picture_is_lost_when_the_power_goes() {
    let cuts = soak_cuts().unwrap_or(CUTS);
    let Some((tally, complaints)) = campaigns("power", cuts, 0) else { return };
    assert!(complaints.is_empty(), "{}", told(&complaints));
    assert_eq!((tally.lost, tally.silently_wrong, tally.rebuilt, tally.slots_open), (0, 0, 0, 0));
    assert_eq!(tally.cuts, u64::from(cuts));
    assert!(tally.inside * 2 >= tally.cuts && tally.with_unflushed * 2 >= tally.cuts, "too few cuts inside a write: this shows nothing");
    assert!(tally.fewest >= Some(50) && tally.slots > 0);
}

#[test]
fn flushes_that_never_reach_the_disk_are_noticed() {
    if !std::path::Path::new("/usr/bin/strace").exists() {
        return crate::disk::skipped("strace is not installed");
    }
    // The kernel does not even see them; the agent is told that all went well.
    let calls = "fsync,fdatasync,syncfs";
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:retval=0"));
    let words = ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-e", &trace, "-e", &inject, "-o", "/dev/null"];
    let node = node("unflushed", Partition::Shared);
    let Some(mut campaign) = Campaign::new("unflushed", &node, 0, &words) else { return };
    campaign.run(1);
    println!("as it should, it complains: {}; {:?}", told(&campaign.complaints), campaign.tally);
    assert!(campaign.tally.lost > 0 && campaign.complaints.iter().any(|c| c.contains("was acknowledged and is lost")));
}

#[test]
fn on_a_disk_that_lies_about_flushes_nothing_is_silently_wrong_and_the_agent_starts() {
    let Some((tally, complaints)) = campaigns("lies", soak_cuts().unwrap_or(CUTS), LIES) else { return };
    assert!(complaints.is_empty(), "{}", told(&complaints));
    assert_eq!(tally.silently_wrong, 0);
    assert!(tally.lies > 0, "the disk never lied: this shows nothing");
}
