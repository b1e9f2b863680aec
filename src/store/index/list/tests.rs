//! Lists against a plain filter over everything, and how little of a long archive they read.

use super::*;
use crate::model::{Hash8, Quality, Slot, Stamp};
use crate::store::index::{BootRow, Change, Counters, SnapState};
use redb::backends::InMemoryBackend;
use std::collections::BTreeMap;

const T0_MS: i64 = 1_795_381_501_000;
const STEP_MS: i64 = 300_000;

/// A picture every five minutes, of two cameras in turn; now and then a boot whose clock was carried over and is late.
fn archive(count: u64) -> (Index, Vec<(Key, SnapRow)>) {
    let index = Index::on(InMemoryBackend::new()).unwrap();
    let mut counters = Counters { ord: 0, store: StoreId(0), next_seq: 1, next_gap: 1, totals: BTreeMap::new() };
    let mut change = Change { new_store: Some((7, StoreId(7), "board".into())), ..Change::default() };
    let mut all = Vec::new();
    for seq in 1..=count {
        let name = ["gate", "yard"][seq as usize % 2];
        let saved = seq % 97 < 5;
        let taken = Stamp {
            boot: 1,
            boottime_ms: seq * STEP_MS as u64,
            wall_ms: T0_MS + seq as i64 * STEP_MS - if saved { 600_000 } else { 0 },
            quality: if saved { Quality::Saved } else { Quality::Ntp },
            uncertainty_ms: None,
        };
        let slot = |due_ms| Slot { schedule: format!("{name}-10m").parse().unwrap(), boot: 1, due_ms, plan_ms: None };
        // Now and then one that waited for the camera is served by the same picture.
        let slots = (0..=u64::from(seq % 10 == 1)).map(|early| slot(taken.boottime_ms - early)).collect();
        let snap = SnapRow {
            camera: name.parse().unwrap(),
            bytes: 1,
            hash8: Hash8(seq),
            taken,
            slots,
            width: 1,
            height: 1,
            source: "pattern".into(),
            flags: vec![],
            state: SnapState::Pending,
            priority: Default::default(),
        };
        all.push(((7, seq), snap.clone()));
        change.snaps.push(((7, seq), snap));
        if seq % 500 == 0 || seq == count {
            index.commit(&std::mem::take(&mut change), &mut counters, false).unwrap();
        }
    }
    (index, all)
}

#[test]
fn a_list_is_what_a_filter_over_everything_gives() {
    let (index, all) = archive(2_000);
    let at = |seq: i64| Some(T0_MS + seq * STEP_MS + 1);
    let names = [(None, None), (Some("gate"), None), (None, Some("yard-10m")), (Some("gate"), Some("yard-10m"))];
    let times = [(None, None), (at(500), None), (None, at(900)), (at(700), at(720)), (at(5_000), None), (None, at(-9)), (at(9), at(8))];
    let mut compared = 0;
    for (camera, schedule) in names {
        for (since_ms, until_ms) in times {
            for before in [None, Some((7, 1_501)), Some((7, 710))] {
                let (camera, schedule) = (camera.map(|c: &str| c.parse().unwrap()), schedule.map(|s: &str| s.parse().unwrap()));
                let query = Query { camera, schedule, since_ms, until_ms, before, limit: 50 };
                let fits = |(key, snap): &&(Key, SnapRow)| {
                    query.camera.as_ref().is_none_or(|c| *c == snap.camera)
                        && query.schedule.as_ref().is_none_or(|s| snap.slots[0].schedule == *s)
                        && since_ms.is_none_or(|t| snap.taken.wall_ms >= t)
                        && until_ms.is_none_or(|t| snap.taken.wall_ms <= t)
                        && before.is_none_or(|b| *key < b)
                };
                let wanted: Vec<Key> = all.iter().rev().filter(fits).map(|(key, _)| *key).take(50).collect();
                let got: Vec<Key> = index.list(&query).unwrap().into_iter().map(|(key, _)| key).collect();
                assert_eq!(got, wanted, "{query:?}");
                compared += 1;
            }
        }
    }
    println!("{compared} lists compared");
}

#[test]
fn pictures_without_a_trusted_stamp_are_found_by_what_is_known_of_their_time() {
    let index = Index::on(InMemoryBackend::new()).unwrap();
    let mut counters = Counters { ord: 0, store: StoreId(0), next_seq: 1, next_gap: 1, totals: BTreeMap::new() };
    // Boot 1 got its time late, boot 2 never, boot 3 had it at once; each took a picture after a minute, and lasted an hour.
    const MINUTE_MS: u64 = 60_000;
    const DAY_MS: i64 = 86_400_000;
    for (boot, known, quality) in [(1, true, Quality::Unset), (2, false, Quality::Unset), (3, true, Quality::Ntp)] {
        let offset_ms = T0_MS + i64::from(boot) * DAY_MS;
        let of_boot = if known { Quality::Ntp } else { Quality::Saved };
        let row = BootRow { boot_id: format!("{boot}"), offset_ms, quality: of_boot, first_ms: 0, last_ms: 60 * MINUTE_MS };
        let wall_ms = if quality.trusted() { offset_ms + MINUTE_MS as i64 } else { MINUTE_MS as i64 };
        let taken = Stamp { boot, boottime_ms: MINUTE_MS, wall_ms, quality, uncertainty_ms: None };
        let snap = SnapRow { taken, slots: vec![], ..archive(1).1[0].1.clone() };
        let new_store = (boot == 1).then(|| (7, StoreId(7), "board".into()));
        let change = Change { new_store, boot: Some((boot, row)), snaps: vec![((7, u64::from(boot)), snap)], ..Change::default() };
        index.commit(&change, &mut counters, false).unwrap();
    }
    let start = |boot: i64| T0_MS + boot * DAY_MS;
    let found = |since_ms, until_ms| -> Vec<u64> {
        let query = Query { since_ms, until_ms, limit: 9, ..Query::default() };
        index.list(&query).unwrap().into_iter().map(|((_, seq), _)| seq).collect()
    };
    assert_eq!(found(Some(start(1)), Some(start(1) + DAY_MS / 48)), [1], "by its true time, not by 1970");
    assert_eq!(found(Some(start(2)), Some(start(2) + 1)), [2], "it may have been then");
    assert_eq!(found(Some(start(1) + DAY_MS / 2), None), [3, 2]);
    assert_eq!(found(None, Some(start(1) + DAY_MS / 48)), [1], "the second boot began later");
    assert_eq!(found(None, Some(1_000_000)), [0; 0], "in 1970 nothing was taken");
}
