//! Bounds in tables: what each boot knows, and what its neighbours say of it.

use super::*;
use crate::model::Quality;
use proptest::prelude::*;

const S: i64 = 1_000;
const DAY_MS: i64 = 86_400_000;

/// A boot as the tests write it: how long it lasted, and its offset if a trusted clock ever told.
fn boot(last_ms: u64, offset_ms: Option<i64>) -> BootRow {
    let quality = if offset_ms.is_some() { Quality::Ntp } else { Quality::Saved };
    BootRow { boot_id: "b".into(), offset_ms: offset_ms.unwrap_or(-5), quality, first_ms: 10_000, last_ms }
}

fn times(boots: &[BootRow], anchors: &Anchors) -> Times {
    Times::of(&(1..).zip(boots.iter().cloned()).collect(), anchors)
}

fn stamp(boot: BootNo, boottime_ms: u64, quality: Quality) -> Stamp {
    Stamp { boot, boottime_ms, wall_ms: 42, quality, uncertainty_ms: None }
}

/// Boots, what else is known, boot and instant asked about, not before, not after.
type Case = (&'static str, Vec<BootRow>, Anchors, (BootNo, u64), Option<i64>, Option<i64>);

#[test]
fn a_boot_without_a_clock_lies_between_its_neighbours() {
    let none = Anchors::default();
    let built = |boot, built_ms| Anchors { built: [(boot, Built { at_ms: 10_000, built_ms })].into(), ..Anchors::default() };
    let (known, unknown) = (|last, offset| boot(last, Some(offset)), |last| boot(last, None));
    let table: &[Case] = &[
        (
            "between two known ones",
            vec![known(100_000, DAY_MS), unknown(50_000), known(9_000, 2 * DAY_MS)],
            none.clone(),
            (2, 20_000),
            Some(DAY_MS + 100 * S + 20 * S),
            Some(2 * DAY_MS - 50 * S + 20 * S),
        ),
        (
            "two unknown ones: the second lasted, too",
            vec![known(100_000, DAY_MS), unknown(50_000), unknown(30_000), known(9_000, 2 * DAY_MS)],
            none.clone(),
            (2, 20_000),
            Some(DAY_MS + 120 * S),
            Some(2 * DAY_MS - 30 * S - 50 * S + 20 * S),
        ),
        (
            "and so did the first one",
            vec![known(100_000, DAY_MS), unknown(50_000), unknown(30_000), known(9_000, 2 * DAY_MS)],
            none.clone(),
            (3, 20_000),
            Some(DAY_MS + 100 * S + 50 * S + 20 * S),
            Some(2 * DAY_MS - 30 * S + 20 * S),
        ),
        ("nothing before it", vec![unknown(50_000), known(9_000, DAY_MS)], none.clone(), (1, 20_000), None, Some(DAY_MS - 30 * S)),
        ("nothing after it", vec![known(100_000, DAY_MS), unknown(50_000)], none.clone(), (2, 0), Some(DAY_MS + 100 * S), None),
        ("nothing at all", vec![unknown(50_000)], none.clone(), (1, 20_000), None, None),
        ("a boot nobody knows", vec![unknown(50_000)], none.clone(), (9, 20_000), None, None),
        ("the program was built before it ran", vec![unknown(50_000)], built(1, DAY_MS), (1, 12_000), Some(DAY_MS + 2 * S), None),
        ("and so it was in later boots", vec![unknown(50_000), unknown(5_000)], built(1, DAY_MS), (2, 0), Some(DAY_MS + 40 * S), None),
        ("but not in earlier ones", vec![unknown(50_000), unknown(5_000)], built(2, DAY_MS), (1, 0), None, None),
        (
            "a later program tells more than an old clock",
            vec![known(100_000, DAY_MS), unknown(50_000)],
            built(2, 9 * DAY_MS),
            (2, 10_000),
            Some(9 * DAY_MS),
            None,
        ),
        (
            "its row lags behind its last picture: not after the next boot's start",
            vec![unknown(50_000), known(9_000, DAY_MS)],
            none.clone(),
            (1, 90_000),
            None,
            Some(DAY_MS),
        ),
        (
            "clocks that contradict each other bound nothing",
            vec![known(100_000, 3 * DAY_MS), unknown(50_000), known(9_000, 2 * DAY_MS)],
            none.clone(),
            (2, 20_000),
            None,
            None,
        ),
        (
            "a row that came back from pictures may be of the boot that goes on under the next number",
            vec![BootRow { boot_id: String::new(), ..unknown(50_000) }, BootRow { first_ms: 60_000, ..known(90_000, DAY_MS) }],
            none.clone(),
            (1, 20_000),
            None,
            Some(DAY_MS + 60 * S - 30 * S),
        ),
    ];
    for (story, boots, anchors, (no, at_ms), earliest, latest) in table {
        let times = times(boots, anchors);
        assert_eq!(times.wall_ms(*no, *at_ms), None, "{story}");
        assert_eq!(times.bounds_ms(*no, *at_ms), (*earliest, *latest), "{story}");
    }
}

#[test]
fn a_boots_first_trusted_reading_gives_the_time_and_later_ones_do_not_move_it() {
    let first = Synced { at_ms: 30_000, offset_ms: DAY_MS, quality: Quality::Hub, uncertainty_ms: Some(40) };
    let anchors = Anchors { synced: [(1, first)].into(), ..Anchors::default() };
    // Somebody set the trusted clock by an hour since.
    let times = times(&[boot(900_000, Some(DAY_MS + 3_600 * S))], &anchors);
    let taken = stamp(1, 20_000, Quality::Saved);
    assert_eq!(times.taken_ms(&taken), Some(DAY_MS + 20 * S));
    let told = Stamp { wall_ms: DAY_MS + 20 * S, quality: Quality::Hub, uncertainty_ms: Some(40), ..taken };
    assert_eq!(times.corrected(&taken), Some(told), "boot and boot time are as they were");
    let trusted = stamp(1, 20_000, Quality::Ntp);
    assert_eq!((times.taken_ms(&trusted), times.corrected(&trusted)), (Some(42), None), "what a trusted clock stamped stays");
}

#[test]
fn a_boot_of_an_older_version_has_its_time_from_its_row() {
    let times = times(&[boot(900_000, Some(DAY_MS))], &Anchors::default());
    assert_eq!(times.taken_ms(&stamp(1, 20_000, Quality::Saved)), Some(DAY_MS + 20 * S));
    assert_eq!(times.known_count(), 1);
}

proptest! {
    /// Boots one after the other, each with a true offset, of which some are known: no bound is ever wrong.
    #[test]
    fn the_truth_lies_between_the_bounds(
        boots in prop::collection::vec((1_000u64..1_000_000_000, 0u64..10_000_000_000, any::<bool>(), any::<bool>()), 1..12),
        at in 0.0..1.0f64,
        built in prop::option::of(0usize..12),
    ) {
        let (mut rows, mut truth, mut anchors) = (Vec::new(), Vec::new(), Anchors::default());
        let mut start_ms = 1_700_000_000_000i64;
        for (n, (lasted, off, known, lags)) in boots.iter().enumerate() {
            let last_ms = if *lags { lasted - lasted / 10 } else { *lasted };
            rows.push(BootRow { first_ms: 0, ..boot(last_ms, known.then_some(start_ms)) });
            truth.push((start_ms, *lasted));
            if built == Some(n) {
                // Built up to a day before it ran.
                anchors.built.insert(n as u32 + 1, Built { at_ms: lasted / 2, built_ms: start_ms + (*lasted / 2) as i64 - 1_000 });
            }
            start_ms += (*lasted + off) as i64;
        }
        let times = times(&rows, &anchors);
        for (no, (start_ms, lasted)) in (1..).zip(truth) {
            let at_ms = (lasted as f64 * at) as u64;
            let true_ms = start_ms + at_ms as i64;
            match times.wall_ms(no, at_ms) {
                Some(told) => prop_assert_eq!(told, true_ms),
                None => {
                    let (earliest, latest) = times.bounds_ms(no, at_ms);
                    prop_assert!(earliest.is_none_or(|e| e <= true_ms), "{:?} > {}", earliest, true_ms);
                    prop_assert!(latest.is_none_or(|l| l >= true_ms), "{:?} < {}", latest, true_ms);
                }
            }
        }
    }
}
