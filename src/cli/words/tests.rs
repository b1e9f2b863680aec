//! Times nobody is sure of, as people read them.

use super::*;

/// 2026-11-22T12:05:30Z.
const NOON_MS: i64 = 1_795_349_130_000;
const DAY_MS: i64 = 86_400_000;

/// Date, hour and minute in the local zone.
fn minute(ms: i64) -> String {
    local(ms)[..16].to_owned()
}
fn zone(ms: i64) -> String {
    local(ms)[20..].to_owned()
}

#[test]
fn a_time_nobody_is_sure_of_is_marked_and_told_by_what_is_known() {
    let stamp = |quality, wall_ms| Stamp { boot: 3, boottime_ms: 17_400, wall_ms, quality, uncertainty_ms: None };
    let (of_1970, carried_over) = (stamp(Quality::Unset, 17_400), stamp(Quality::Saved, NOON_MS));
    let end = " (boot 3 + 17 s)";
    let (from, to) = (NOON_MS - DAY_MS, NOON_MS + DAY_MS);
    let said = |ms| format!("≈ {}{end}", local(ms));
    let after = |ms| format!("≈ after {} {}{end}", minute(ms), zone(ms));
    let before = |ms| format!("≈ before {} {}{end}", minute(ms), zone(ms));
    let both = format!("≈ {} … {} {}{end}", minute(from), minute(to), zone(to));
    let table = [
        (&of_1970, None, None, said(17_400)),
        (&of_1970, Some(from), None, after(from)),
        (&of_1970, None, Some(to), before(to)),
        (&of_1970, Some(from), Some(to), both.clone()),
        (&carried_over, None, None, said(NOON_MS)),
        (&carried_over, Some(from), None, said(NOON_MS)),
        (&carried_over, Some(to), None, after(to)),
        (&carried_over, None, Some(from), before(from)),
        (&carried_over, Some(from), Some(to), both),
    ];
    for (taken, earliest, latest, words) in table {
        assert_eq!(taken_in_words(None, (earliest, latest), taken), words);
    }
    assert_eq!(taken_in_words(Some(NOON_MS), (None, None), &of_1970), local(NOON_MS), "a known time has no mark");
    // Half a year apart, where summer time is kept: then each end says its zone.
    let half_a_year = between((Some(NOON_MS), Some(NOON_MS + 180 * DAY_MS))).unwrap();
    assert_eq!(half_a_year.matches(&zone(NOON_MS)).count() > 1, zone(NOON_MS) != zone(NOON_MS + 180 * DAY_MS), "{half_a_year}");
}
