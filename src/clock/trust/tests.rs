//! What the clock is worth, told step by step over whole boots.

use super::*;

const BUILD_MS: i64 = BUILD_UNIX_S * 1_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: i64 = 86_400_000;
/// What the wall clock says at boot, in the tests below.
const BOOT_MS: i64 = BUILD_MS + 30 * DAY_MS;

const NO_CHIP: fn() -> Option<i64> = || None;

/// The system's clock at an instant of the boot clock, `off_ms` away from right.
fn seen(boottime_ms: u64, off_ms: i64, kernel: Kernel) -> Seen {
    Seen { boottime_ms, wall_ms: BOOT_MS + boottime_ms as i64 + off_ms, kernel, marker_ms: None }
}
fn synced(error_ms: u32) -> Kernel {
    Kernel::Synced { error_ms }
}
fn hub(wall_ms: i64, asked_ms: u64, heard_ms: u64) -> HubTime {
    HubTime { wall_ms, asked_ms, heard_ms }
}

#[test]
fn nothing_known_is_saved_and_before_the_build_unset() {
    let mut trust = Trust::new();
    assert_eq!(trust.judge(seen(9, 0, Kernel::Unsynced), NO_CHIP).quality, Quality::Saved);
    let in_1970 = Seen { wall_ms: 60_000, ..seen(10, 0, Kernel::Unsynced) };
    assert_eq!(trust.judge(in_1970, NO_CHIP).quality, Quality::Unset);
    let lying = Seen { kernel: synced(1), ..in_1970 };
    assert_eq!(trust.judge(lying, NO_CHIP).quality, Quality::Unset, "no kernel can be right about a time before its program");
}

#[test]
fn weeks_without_a_server_make_the_clock_less_exact_and_no_less_trusted() {
    let mut trust = Trust::new();
    assert_eq!(trust.judge(seen(0, 0, synced(40)), NO_CHIP).uncertainty_ms, Some(40));
    assert_eq!(trust.judge(seen(9 * HOUR_MS, 0, synced(15_900)), NO_CHIP).uncertainty_ms, Some(15_900));
    let weeks_ms = 21 * 24 * HOUR_MS;
    let reading = trust.judge(seen(9 * HOUR_MS + weeks_ms, 0, Kernel::Unsynced), NO_CHIP);
    assert_eq!((reading.quality, reading.uncertainty_ms), (Quality::Ntp, Some(15_900 + 181_440)));
    // A leap second, or a daemon's last correction.
    let reading = trust.judge(seen(10 * HOUR_MS + weeks_ms, -999, Kernel::Unsynced), NO_CHIP);
    assert_eq!((reading.quality, reading.wall_ms), (Quality::Ntp, BOOT_MS + (10 * HOUR_MS + weeks_ms) as i64 - 999));
}

#[test]
fn a_step_ends_what_was_known_and_stepping_back_does_not_bring_it_back() {
    let mut trust = Trust::new();
    trust.judge(seen(0, 0, synced(1)), NO_CHIP);
    assert_eq!(trust.judge(seen(5_000, HOUR_MS as i64, Kernel::Unsynced), NO_CHIP).quality, Quality::Saved);
    assert_eq!(trust.judge(seen(6_000, 0, Kernel::Unsynced), NO_CHIP).quality, Quality::Saved);
    assert_eq!(trust.judge(seen(7_000, 0, synced(1)), NO_CHIP).quality, Quality::Ntp);
}

#[test]
fn an_agent_that_starts_again_in_the_same_boot_recalls_what_the_store_has() {
    let mut trust = Trust::new();
    trust.recall(BOOT_MS, Some((BOOT_MS, Quality::Ntp, 4_000)));
    assert_eq!(trust.judge(seen(9_000, 300, Kernel::Unsynced), NO_CHIP).quality, Quality::Ntp);
    assert_eq!(trust.judge(seen(9_500, -2_000, Kernel::Unsynced), NO_CHIP).quality, Quality::Saved, "stepped while nobody looked");

    let mut trust = Trust::new();
    trust.recall(BOOT_MS, Some((BOOT_MS + DAY_MS, Quality::Hub, 4_000)));
    let reading = trust.judge(seen(9_000, 0, Kernel::Unsynced), NO_CHIP);
    assert_eq!((reading.quality, reading.wall_ms), (Quality::Hub, BOOT_MS + DAY_MS + 9_000));

    let mut trust = Trust::new();
    trust.recall(BOOT_MS, Some((BOOT_MS, Quality::Saved, 4_000)));
    assert_eq!(trust.judge(seen(9_000, 0, Kernel::Unsynced), NO_CHIP).quality, Quality::Saved);
}

#[test]
fn where_the_kernel_may_not_be_asked_a_marker_of_this_boot_after_the_last_step_counts() {
    let at =
        |boottime_ms, off_ms, marker_ms| Seen { marker_ms: Some(BOOT_MS + marker_ms), ..seen(boottime_ms, off_ms, Kernel::Unreadable) };
    let mut trust = Trust::new();
    assert_eq!(trust.judge(at(60_000, 0, 30_000), NO_CHIP).quality, Quality::Ntp);
    // Somebody sets the clock forward: the marker is from before.
    let hour = HOUR_MS as i64;
    assert_eq!(trust.judge(at(70_000, hour, 30_000), NO_CHIP).quality, Quality::Saved);
    // Timesyncd puts it right, and touches the marker before anybody reads the clock again.
    assert_eq!(trust.judge(at(80_000, 0, 30_000), NO_CHIP).quality, Quality::Saved, "that server spoke before two steps");
    assert_eq!(trust.judge(at(90_000, 0, 79_000), NO_CHIP).quality, Quality::Ntp);
    assert_eq!(trust.judge(at(90_500, -hour, 79_000), NO_CHIP).quality, Quality::Saved, "back: a marker from the future");

    assert_eq!(Trust::new().judge(at(60_000, 0, -5_000), NO_CHIP).quality, Quality::Saved, "of an earlier boot");
    let readable = Seen { kernel: Kernel::Unsynced, ..at(60_000, 0, 30_000) };
    assert_eq!(Trust::new().judge(readable, NO_CHIP).quality, Quality::Saved, "the kernel's own word wins");
}

#[test]
fn the_hubs_time_moves_the_agents_offset_by_half_a_round_trip_of_doubt() {
    let mut trust = Trust::new();
    let now = |boottime_ms| Seen { wall_ms: boottime_ms as i64, ..seen(boottime_ms, 0, Kernel::Unsynced) };
    assert!(trust.wants_hub_time(&now(1_000)));
    assert!(trust.hear_hub(hub(BOOT_MS + 1_300, 1_000, 62_000)).unwrap_err().contains("took 61 s"), "it has waited somewhere");
    trust.hear_hub(hub(BOOT_MS + 1_300, 1_000, 1_600)).unwrap();
    let reading = trust.judge(now(2_000), NO_CHIP);
    assert_eq!((reading.quality, reading.wall_ms, reading.uncertainty_ms), (Quality::Hub, BOOT_MS + 2_000, Some(300)));
    // Less exact, and true as well: not taken. More exact: taken.
    trust.hear_hub(hub(BOOT_MS + 5_000, 3_000, 9_000)).unwrap();
    assert_eq!(trust.judge(now(9_000), NO_CHIP).wall_ms, BOOT_MS + 9_000);
    trust.hear_hub(hub(BOOT_MS + 9_950, 9_980, 10_000)).unwrap();
    let reading = trust.judge(now(10_000), NO_CHIP);
    assert_eq!((reading.wall_ms, reading.uncertainty_ms), (BOOT_MS + 9_960, Some(10)));
    assert_eq!(trust.judge(now(10_000 + 24 * HOUR_MS), NO_CHIP).uncertainty_ms, Some(10 + 8_640), "a quartz drifts");
    // Somebody set the hub's clock right.
    trust.hear_hub(hub(BOOT_MS + DAY_MS, 20_000, 20_000)).unwrap();
    assert_eq!(trust.judge(now(20_000), NO_CHIP).wall_ms, BOOT_MS + DAY_MS);
    // Setting the system's clock does not move it.
    assert_eq!(trust.judge(seen(21_000, DAY_MS, Kernel::Unsynced), NO_CHIP).wall_ms, BOOT_MS + DAY_MS + 1_000);
}

#[test]
fn the_kernels_word_wins_over_the_hub_and_what_is_left_of_it_while_it_is_the_more_exact() {
    let mut trust = Trust::new();
    trust.hear_hub(hub(BOOT_MS + DAY_MS, 0, 200)).unwrap();
    let reading = trust.judge(seen(1_000, 0, synced(20)), NO_CHIP);
    assert_eq!((reading.quality, reading.wall_ms), (Quality::Ntp, BOOT_MS + 1_000));
    assert!(!trust.wants_hub_time(&seen(1_000, 0, synced(20))));
    assert_eq!(trust.judge(seen(2_000, 0, Kernel::Unsynced), NO_CHIP).quality, Quality::Ntp);
    trust.judge(seen(9 * HOUR_MS, 0, synced(16_000)), NO_CHIP);
    trust.hear_hub(hub(BOOT_MS + 10 * HOUR_MS as i64, 10 * HOUR_MS - 40, 10 * HOUR_MS)).unwrap();
    let reading = trust.judge(seen(10 * HOUR_MS, 700, Kernel::Unsynced), NO_CHIP);
    assert_eq!((reading.quality, reading.uncertainty_ms), (Quality::Hub, Some(20)));
}

#[test]
fn a_hub_whose_own_clock_is_wrong_is_not_believed() {
    let mut trust = Trust::new();
    for wall_ms in [0, BUILD_MS - 1, BUILD_MS + YEARS_AHEAD_MS, i64::MAX, i64::MIN] {
        let why = trust.hear_hub(hub(wall_ms, 5, 9)).unwrap_err();
        assert!(why.starts_with("the hub's clock says ") && why.ends_with("set the hub's clock"), "{why}");
    }
    assert_eq!(trust.judge(seen(1_000, 0, Kernel::Unsynced), NO_CHIP).quality, Quality::Saved);
}

#[test]
fn a_clock_chip_is_believed_while_it_says_nothing_impossible() {
    let quality_at = |wall_ms: i64, chip_ms: Option<i64>, last_trusted_ms: i64| {
        let mut trust = Trust::new();
        trust.recall(last_trusted_ms, None);
        let seen = Seen { boottime_ms: 20_000, wall_ms, kernel: Kernel::Unsynced, marker_ms: None };
        trust.judge(seen, || chip_ms).quality
    };
    assert_eq!(quality_at(BOOT_MS, Some(BOOT_MS - 900), BUILD_MS), Quality::Rtc);
    assert_eq!(quality_at(BOOT_MS, None, 0), Quality::Saved, "no chip set it");
    assert_eq!(quality_at(BOOT_MS, Some(BOOT_MS - 60_000), 0), Quality::Saved, "set by somebody since");
    assert_eq!(quality_at(BOOT_MS, Some(BOOT_MS), BOOT_MS + 1), Quality::Saved, "behind the last trusted time on record");
    let in_2090 = 3_786_912_000_000;
    assert_eq!(quality_at(in_2090, Some(in_2090), 0), Quality::Saved);
    let within = BUILD_MS + YEARS_AHEAD_MS - 1;
    assert_eq!(quality_at(within, Some(within), 0), Quality::Rtc);
}

#[test]
fn the_chip_is_asked_once_and_again_after_a_step() {
    let mut trust = Trust::new();
    let mut asked = 0;
    for (at_ms, off_ms) in [(1_000, 0), (2_000, 0), (3_000, 0), (4_000, DAY_MS), (5_000, DAY_MS)] {
        let seen = seen(at_ms, off_ms, Kernel::Unsynced);
        let quality = trust.judge(seen, || {
            asked += 1;
            Some(BOOT_MS)
        });
        assert_eq!(quality.quality, if off_ms == 0 { Quality::Rtc } else { Quality::Saved });
    }
    assert_eq!(asked, 2);
}
