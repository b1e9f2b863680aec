//! The days by tables, and what they cost the disk, by the index's own count.
use super::*;
use crate::model::{BootNo, Hash8, Quality, Slot, Stamp, StoreId};
use crate::protocol::Written;
use crate::store::index::{Change, Counters, Index, SnapRow, SnapState};

fn at(day: i64, quality: Quality) -> Reading {
    Reading { boottime_ms: 0, wall_ms: day * DAY_MS + 3_600_000, quality, uncertainty_ms: None }
}
fn all(pictures: u64, index: u64) -> WrittenFor {
    let written = |bytes| Written { bytes, flushes: bytes / 10 };
    WrittenFor { pictures: written(pictures), index: written(index) }
}

#[test]
fn each_byte_belongs_to_the_day_it_was_written_on_and_to_one_only() {
    let mut days = Days::default();
    days.count(&at(7, Quality::Ntp), all(100, 30));
    days.count(&at(7, Quality::Ntp), all(150, 40));
    days.count(&at(8, Quality::Ntp), all(250, 40));
    days.count(&at(8, Quality::Ntp), all(250, 40));
    assert_eq!(
        days.rows().iter().map(|r| (r.day, r.unsure, r.written)).collect::<Vec<_>>(),
        [(7, false, all(150, 40)), (8, false, WrittenFor { index: Written::default(), ..all(100, 0) }),]
    );
    assert_eq!(days.since_start(), all(250, 40));
    assert_eq!(days.today(&at(9, Quality::Ntp)).written, WrittenFor::default());
    // Another run: its counters begin at nothing, the rows stay.
    let mut days = Days::new(days.rows().to_vec());
    days.count(&at(8, Quality::Saved), all(20, 10));
    days.count(&at(8, Quality::Ntp), all(30, 10));
    assert_eq!(days.today(&at(8, Quality::Ntp)).written, all(130, 10));
    assert!(days.rows().iter().any(|row| row.unsure), "which part an untrusted clock dated stays on record");
}

#[test]
fn the_record_is_bounded_whatever_the_clock_says_and_small_enough_to_ride_along() {
    let mut days = Days::default();
    for n in 1..=1_000 {
        // A clock that jumps about, as far as it can.
        let quality = if n % 3 == 0 { Quality::Saved } else { Quality::Ntp };
        days.count(&at((n * 7_919) % 50_000, quality), all(n as u64 * 4_000_000_000, n as u64 * 900_000_000));
    }
    let bytes = postcard::to_stdvec(days.rows()).unwrap().len();
    println!("written: {} days on record in {bytes} bytes", days.rows().len());
    assert!(days.rows().len() == DAYS_MAX && bytes <= 40 * DAYS_MAX, "{bytes}");
    assert_eq!(days.today(&at(1_000 * 7_919 % 50_000, Quality::Ntp)).written.pictures.bytes, 4_000_000_000, "the newest is kept");
}

/// Pages are 4 KiB: what a commit of one picture writes with the days on record, and without.
#[test]
fn the_days_ride_along_without_a_page_of_their_own() {
    let dir = std::env::temp_dir().join(format!("shutterd-days-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    const COMMITS: u64 = 300;
    let cost = |name: &str, days: bool, cameras: u64| {
        let index = Index::open(&dir.join(format!("{name}-{cameras}"))).unwrap();
        index.prepare().unwrap();
        let mut counters = Counters { ord: 1, store: StoreId(7), next_seq: 1, next_gap: 1, totals: Default::default() };
        let begin = Change { new_store: Some((1, StoreId(7), "board".into())), ..Change::default() };
        index.commit(&begin, &mut counters, true).unwrap();
        let mut written = Days::default();
        for n in 0..DAYS_MAX as i64 {
            written.count(&at(20_000 + n, Quality::Ntp), all(n as u64 * 3_000_000_000, n as u64 * 500_000_000));
        }
        let start = index.written();
        for n in 0..COMMITS {
            let (camera, boot): (_, BootNo) = (format!("camera-{}", n % cameras), 1);
            let slot = Slot { schedule: camera.parse().unwrap(), boot, due_ms: n * 300_000, plan_ms: None };
            let taken = Stamp { boot, boottime_ms: n * 300_000, wall_ms: 1_790_000_000_000, quality: Quality::Ntp, uncertainty_ms: None };
            let snap = SnapRow {
                camera: camera.parse().unwrap(),
                bytes: 150_000,
                hash8: Hash8(n),
                taken,
                slots: vec![slot],
                width: 1920,
                height: 1080,
                source: "v4l2".into(),
                flags: vec![],
                state: SnapState::Pending,
                priority: Default::default(),
            };
            let mut so_far = written.since_start();
            so_far.pictures.bytes += 150_000;
            so_far.index = index.written();
            written.count(&at(20_000 + DAYS_MAX as i64 - 1, Quality::Ntp), so_far);
            let rows = if days { written.rows().to_vec() } else { Vec::new() };
            let change = Change { snaps: vec![((1, n + 1), snap)], written: rows, trusted_ms: Some(n as i64), ..Change::default() };
            index.commit(&change, &mut counters, true).unwrap();
        }
        index.written() - start
    };
    for cameras in [1, 8, 32] {
        let (with, without) = (cost("with", true, cameras), cost("without", false, cameras));
        println!(
            "written: {COMMITS} commits of {cameras} cameras write {} B and {} flushes with the days, {} B and {} without",
            with.bytes, with.flushes, without.bytes, without.flushes
        );
        assert_eq!(with.flushes, without.flushes);
        assert!(with.bytes - without.bytes < COMMITS * 2_048, "a page now and then, where the table is cut in two: {with:?} {without:?}");
        // One page more, as a table of its own for what changes every time would make, is found out.
        assert!(cameras > 1 || with.bytes < COMMITS * 43_000, "a commit of one picture writes {} B", with.bytes / COMMITS);
    }
    std::fs::remove_dir_all(dir).unwrap();
}
