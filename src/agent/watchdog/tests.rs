//! What feeds the watchdog, and what must not.

use super::*;
use crate::model::Failure;
use crate::protocol::CameraState;
use std::cell::{Cell, RefCell};

#[test]
fn the_watchdog_is_fed_while_store_and_uplink_get_on_and_not_when_either_stands_still() {
    let life = |uplink: Option<u64>, store: Option<u64>| Life { uplink_by_ms: uplink, store_since_ms: store };
    let now = 1_000_000;
    for good in [
        life(None, None),
        life(Some(now + 900_000), None),
        life(Some(now - UPLINK_LATE_MAX_MS), Some(now - STORE_WORK_MAX_MS)),
        // Begun after `now` was read.
        life(None, Some(now + 5)),
    ] {
        assert_eq!(stuck(good, now), None, "{good:?}");
    }
    let store = stuck(life(Some(now), Some(now - STORE_WORK_MAX_MS - 1)), now);
    assert_eq!(store, Some(Stuck::Store { for_s: 120 }));
    let uplink = stuck(life(Some(now - UPLINK_LATE_MAX_MS - 1), Some(now)), now);
    assert_eq!(uplink, Some(Stuck::Uplink { for_s: 30 }));
}

/// The count stands for what the disk has answered; the look ends with whoever waits.
#[test]
fn a_recovery_gets_more_time_only_while_the_disk_answers() {
    let (end, ended) = mpsc::channel();
    let end = Cell::new(Some(end));
    let counts = [0, 7, 7, 9, 9].map(|n: u64| n);
    let at = Cell::new(0);
    let told = RefCell::new(Vec::new());
    let count = || {
        let now = counts[at.get()];
        at.set(at.get() + 1);
        if at.get() == counts.len() {
            end.take();
        }
        now
    };
    watch(&ended, Duration::from_millis(1), count, |on| told.borrow_mut().push(on));
    assert_eq!(*told.borrow(), [true, false, true, false]);
}

#[test]
fn one_line_says_what_the_agent_does() {
    let ids: Vec<CameraId> = ["a", "b", "c"].map(|id| id.parse().unwrap()).to_vec();
    let mut now = Now::default();
    assert_eq!(words(&now, &ids, Some(0)), "3 cameras");
    assert_eq!(words(&now, &[], None), "no camera is configured");
    for id in &ids[..2] {
        let failing = CameraState { state: CameraHealth::Failing, error: Some(Failure::new("x", "y")), ..crate::camera::unknown() };
        now.cameras.insert(id.clone(), failing);
    }
    assert_eq!(words(&now, &ids, Some(17_000)), "3 cameras, 2 failing; 17,000 pictures wait for the hub");
    assert_eq!(words(&now, &ids[2..], Some(1)), "1 camera; 1 picture waits for the hub");
    now.fault = Some("the disk is full".into());
    now.config = ConfigOrigin::Kept { error: "3: ...".into() };
    let line = words(&now, &ids[2..], Some(1));
    assert_eq!(line, "1 camera; no pictures: the disk is full; the configuration has errors, the last accepted one runs");
}
