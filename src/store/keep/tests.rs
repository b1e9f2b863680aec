//! Rules against random stores: whatever they hold, what goes was allowed to go. The checks must fail on deciders that are wrong.

use super::*;
use crate::clock::Reading;
use crate::model::{CameraId, Grain, Hash8, Priority, Quality, SWEEP_MAX, Seq, Stamp, Tier};
use crate::store::index::{Anchors, BootRow, Change, Counters, Index, Key, SnapRow, SnapState, Times, Totals};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// 2026-11-23T00:00:00Z.
const NOW_MS: i64 = 1_795_392_000_000;

fn camera(name: &str) -> CameraId {
    name.parse().unwrap()
}

fn now(quality: Quality) -> Reading {
    Reading { boottime_ms: 1_000_000, wall_ms: NOW_MS, quality, uncertainty_ms: None }
}

/// A picture as the tests write it.
#[derive(Debug, Clone)]
struct Pic {
    camera: u8,
    bytes: u64,
    age_ms: u64,
    /// Whether anybody knows its time.
    timed: bool,
    state: SnapState,
    pinned: bool,
}

struct World {
    index: Index,
    counters: Counters,
    times: Times,
    pics: BTreeMap<Key, Pic>,
}

impl World {
    fn new(pics: &[Pic]) -> Self {
        let index = Index::in_memory().unwrap();
        let store = crate::model::StoreId(7);
        let mut counters = Counters { ord: 1, store, next_seq: 1, next_gap: 1, totals: BTreeMap::new() };
        let mut change = Change { new_store: Some((1, store, "board".into())), ..Change::default() };
        let mut world = BTreeMap::new();
        for (at, pic) in pics.iter().enumerate() {
            let key = (1, at as u64 + 1);
            let quality = if pic.timed { Quality::Ntp } else { Quality::Saved };
            let taken = Stamp { boot: 1, boottime_ms: 5, wall_ms: NOW_MS - pic.age_ms as i64, quality, uncertainty_ms: None };
            let row = SnapRow {
                camera: camera(&format!("c{}", pic.camera)),
                bytes: pic.bytes,
                hash8: Hash8(key.1),
                taken,
                slots: vec![],
                width: 1,
                height: 1,
                source: String::new(),
                flags: vec![],
                state: pic.state,
                priority: if pic.age_ms % 7 == 0 { Priority::High } else { Priority::Low },
            };
            change.snaps.push((key, row));
            if pic.pinned {
                change.pins.push((key, true));
            }
            world.insert(key, pic.clone());
        }
        index.commit(&change, &mut counters, true).unwrap();
        Self { index, counters, times: Times::default(), pics: world }
    }

    fn totals(&self) -> BTreeMap<CameraId, Totals> {
        self.counters.totals.clone()
    }
    fn pinned_bytes(&self) -> u64 {
        self.pics.values().filter(|p| p.pinned).map(|p| p.bytes).sum()
    }
    fn bytes(&self) -> u64 {
        self.pics.values().map(|p| p.bytes).sum()
    }

    /// As the writer does it.
    fn forget(&mut self, deletes: &[(Key, &'static str)]) {
        let change = Change { deletes: deletes.to_vec(), ..Change::default() };
        self.index.commit(&change, &mut self.counters, true).unwrap();
        for (key, _) in deletes {
            self.pics.remove(key);
        }
    }
}

/// What must hold of every choice for room.
fn check_space(world: &World, rules: &Rules, disk: Disk, need: &Need, verdict: &Verdict) -> Result<(), String> {
    let gone: BTreeSet<Key> = verdict.deletes.iter().map(|(key, _)| *key).collect();
    if gone.len() != verdict.deletes.len() || gone.len() > SWEEP_MAX {
        return Err(format!("{} deletions of {} pictures", verdict.deletes.len(), gone.len()));
    }
    let mut left: BTreeMap<u8, (u64, u64)> = BTreeMap::new();
    for (key, pic) in &world.pics {
        if gone.contains(key) {
            if pic.pinned {
                return Err(format!("{key:?} is pinned"));
            }
            if pic.state == SnapState::Pending && !rules.drop_oldest {
                return Err(format!("{key:?} is not at the hub"));
            }
            if pic.state == SnapState::Pending && world.pics.iter().any(|(k, p)| may_go_first(k, p, pic, rules) && !gone.contains(k)) {
                return Err(format!("{key:?} is not at the hub, and others that are stay"));
            }
            // Oldest first.
            let older = |k: &Key, p: &Pic| k < key && p.camera == pic.camera && p.state == pic.state && !p.pinned;
            if world.pics.iter().any(|(k, p)| older(k, p) && !gone.contains(k)) {
                return Err(format!("{key:?} goes before an older one"));
            }
        } else {
            let held = left.entry(pic.camera).or_default();
            *held = (held.0 + pic.bytes, held.1 + 1);
        }
    }
    let (bytes, count) = left.values().fold((0, 0), |(b, n), (bytes, count)| (b + bytes, n + count));
    let taken: Vec<_> = need.cameras.iter().filter(|(camera, _)| verdict.refused.is_none() && !verdict.full.contains_key(camera)).collect();
    let new_bytes: u64 = taken.iter().map(|(_, (b, _))| b).sum();
    if !taken.is_empty() && !verdict.more {
        if rules.bytes.is_some_and(|most| bytes + new_bytes > most) || rules.count.is_some_and(|most| count + taken.len() as u64 > most) {
            return Err(format!("{bytes} + {new_bytes} bytes, {count} pictures: more than the rules allow"));
        }
        for (camera, (b, n)) in &taken {
            let held = camera.as_str()[1..].parse().ok().and_then(|no: u8| left.get(&no).copied()).unwrap_or_default();
            let quota = rules.cameras.get(*camera).copied().unwrap_or_default();
            if quota.bytes.is_some_and(|most| held.0 + b > most) || quota.count.is_some_and(|most| held.1 + n > most) {
                return Err(format!("{camera} has more than its share"));
            }
        }
        let freed: u64 = gone.iter().map(|key| world.pics[key].bytes).sum();
        if disk.free_bytes + freed < new_bytes {
            return Err("there is no room on the disk for what is taken".into());
        }
        let floor = rules.free_bytes.unwrap_or(0);
        if disk.free_bytes + freed < floor + new_bytes && freed < new_bytes - new_bytes / 8 && need.made_bytes < new_bytes as i64 {
            return Err("the floor sinks".into());
        }
    }
    let ceded: u64 = verdict.for_the_disk_bytes;
    if ceded > new_bytes.max(need.cameras.values().map(|(b, _)| b).sum()) + world.bytes().div_ceil(2) + 1_000 {
        return Err("something else got more than half".into());
    }
    Ok(())
}

/// Whether `p` should have gone before the unacknowledged `pic`.
fn may_go_first(_: &Key, p: &Pic, pic: &Pic, rules: &Rules) -> bool {
    let same = rules.cameras.is_empty() || p.camera == pic.camera;
    same && !p.pinned && p.state == SnapState::Acknowledged
}

/// What must hold of every choice by time.
fn check_time(world: &World, rules: &Rules, clock: &Reading, gone: &BTreeSet<Key>) -> Result<(), String> {
    for key in gone {
        let pic = &world.pics[key];
        if !clock.quality.trusted() {
            return Err(format!("{key:?} goes while nobody knows the time"));
        }
        if pic.pinned || pic.state == SnapState::Pending || !pic.timed {
            return Err(format!("{key:?} may not go by time: {pic:?}"));
        }
        if rules.age_ms.is_some_and(|age| pic.age_ms > age) {
            continue;
        }
        let begins = [0].into_iter().chain(rules.thin.iter().map(|t| t.until_ms.unwrap_or(u64::MAX)));
        let grain = begins.zip(rules.thin.iter().map(|t| Some(t.grain)).chain([None])).filter(|(begin, _)| pic.age_ms > *begin).last();
        let Some((_, Some(grain))) = grain else {
            if grain.is_none() {
                return Err(format!("{key:?} is too young for any rule"));
            }
            continue;
        };
        // An earlier one of its stretch stays, or went by age.
        let time = |p: &Pic| NOW_MS - p.age_ms as i64;
        let stretch = grain.stretch(time(pic));
        let sibling = |(k, p): (&Key, &Pic)| *k < *key && p.camera == pic.camera && p.timed && grain.stretch(time(p)) == stretch;
        if stretch.is_none() || !world.pics.iter().any(sibling) {
            return Err(format!("{key:?} is the first of its stretch"));
        }
    }
    Ok(())
}

type Decide = fn(&Scene, &Need) -> Result<Verdict, redb::Error>;

fn ask(world: &World, rules: &Rules, disk: Disk, need: &Need, decide: Decide) -> Verdict {
    let totals = world.totals();
    let pinned_bytes = world.pinned_bytes();
    let scene = Scene { index: &world.index, totals: &totals, rules, disk, held_bytes: 0, ceded_bytes: 0, pinned_bytes };
    decide(&scene, need).unwrap()
}

fn pic() -> impl Strategy<Value = Pic> {
    let state = prop_oneof![3 => Just(SnapState::Acknowledged), 2 => Just(SnapState::Pending)];
    (0..3u8, 100..1_000u64, any::<bool>(), state, prop::bool::weighted(0.1)).prop_map(|(camera, bytes, timed, state, pinned)| Pic {
        camera,
        bytes,
        age_ms: 0,
        timed,
        state,
        pinned,
    })
}

/// Pictures in the order they were taken, some hours apart.
fn archive() -> impl Strategy<Value = Vec<Pic>> {
    (prop::collection::vec((pic(), 0..8 * HOUR_MS), 0..60)).prop_map(|mut pics| {
        let mut age_ms = 0;
        for (pic, gap) in pics.iter_mut().rev() {
            age_ms += *gap;
            pic.age_ms = age_ms;
        }
        pics.into_iter().map(|(pic, _)| pic).collect()
    })
}

fn rules() -> impl Strategy<Value = Rules> {
    let quota = (prop::option::of(500..9_000u64), prop::option::of(1..20u64)).prop_map(|(bytes, count)| Quota { bytes, count });
    let cameras = prop::collection::btree_map((0..3u8).prop_map(|n| camera(&format!("c{n}"))), quota, 0..2);
    let (bytes, count) = (prop::option::of(1_000..30_000u64), prop::option::of(1..60u64));
    (bytes, count, cameras, prop::option::of(0..20_000u64), any::<bool>(), any::<bool>()).prop_map(
        |(bytes, count, cameras, free_bytes, drop_oldest, on_full_disk)| Rules {
            bytes,
            count,
            cameras,
            free_bytes,
            drop_oldest,
            on_full_disk,
            ..Rules::default()
        },
    )
}

fn tiers() -> impl Strategy<Value = Vec<Tier>> {
    prop_oneof![
        Just(vec![]),
        (1..4 * DAY_MS, 4 * DAY_MS..9 * DAY_MS, any::<bool>()).prop_map(|(one, two, end)| vec![
            Tier { grain: Grain::All, until_ms: Some(one) },
            Tier { grain: Grain::Hourly, until_ms: Some(two) },
            Tier { grain: Grain::Daily, until_ms: end.then_some(two + 3 * DAY_MS) },
        ]),
        Just(vec![Tier { grain: Grain::Daily, until_ms: None }]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn room_is_made_only_by_what_may_go(
        pics in archive(), rules in rules(), free in 0..30_000u64, need in prop::collection::btree_map((0..3u8).prop_map(|n| camera(&format!("c{n}"))), (100..2_000u64, Just(1u64)), 1..3),
    ) {
        let (mut world, disk) = (World::new(&pics), Disk { total_bytes: 100_000, free_bytes: free, free_inodes: None });
        let need = Need { cameras: need, made_bytes: 0 };
        let verdict = ask(&world, &rules, disk, &need, decide);
        prop_assert_eq!(check_space(&world, &rules, disk, &need, &verdict), Ok(()));
        // Who must wait is told why.
        prop_assert!(verdict.refused.iter().chain(verdict.full.values()).all(|why| why.len() > 10));
        prop_assert!(verdict.rows_read <= 8 * (verdict.deletes.len() as u64 + 64));
        let before = world.pics.len() - verdict.deletes.len();
        world.forget(&verdict.deletes);
        prop_assert_eq!(world.totals().values().map(|t| t.count).sum::<u64>(), before as u64, "each was really forgotten");
    }

    #[test]
    fn by_time_only_known_and_old_and_surplus_pictures_go(
        pics in archive(), thin in tiers(), age in prop::option::of(DAY_MS..12 * DAY_MS), trusted in prop::bool::weighted(0.9),
    ) {
        let rules = Rules { thin, age_ms: age, ..Rules::default() };
        let clock = now(if trusted { Quality::Ntp } else { Quality::Saved });
        let mut world = World::new(&pics);
        let cameras: Vec<_> = world.totals().into_keys().collect();
        let mut by_time = ByTime::new(&rules, &world.times, None, 0);
        let gone = by_time.sweep(&world.index, cameras.iter(), &world.times, &clock).unwrap();
        let keys: BTreeSet<Key> = gone.iter().map(|(key, _)| *key).collect();
        prop_assert_eq!(check_time(&world, &rules, &clock, &keys), Ok(()));
        world.forget(&gone);
        if trusted && !rules.passes().is_empty() {
            // Nothing that should have gone is left, by a sweep that remembers nothing.
            let again = ByTime::new(&rules, &world.times, None, 0).sweep(&world.index, cameras.iter(), &world.times, &clock).unwrap();
            prop_assert_eq!(again, vec![]);
            // And one that remembers reads next to nothing, as soon as it has seen what another pass left of its place.
            by_time.sweep(&world.index, cameras.iter(), &world.times, &clock).unwrap();
            let before = by_time.rows_read;
            prop_assert_eq!(by_time.sweep(&world.index, cameras.iter(), &world.times, &clock).unwrap(), vec![]);
            prop_assert!(by_time.rows_read - before <= 3 * (cameras.len() * rules.passes().len()) as u64);
        }
    }
}

fn many(count: usize, every_ms: u64, state: SnapState) -> Vec<Pic> {
    let one = |n: usize| Pic {
        camera: (n % 2) as u8,
        bytes: 1_000,
        age_ms: (count - n) as u64 * every_ms,
        timed: true,
        state,
        pinned: n.is_multiple_of(10),
    };
    (0..count).map(one).collect()
}

const AMPLE: Disk = Disk { total_bytes: 1 << 40, free_bytes: 1 << 40, free_inodes: None };

fn need(bytes: u64) -> Need {
    Need { cameras: [(camera("c0"), (bytes, 1))].into(), made_bytes: 0 }
}

/// The controls: each decider has one thing wrong, and the checks say so.
#[test]
fn the_checks_catch_deciders_that_are_wrong() {
    let waiting = World::new(&many(20, HOUR_MS, SnapState::Pending));
    let rules = Rules { bytes: Some(10_000), ..Rules::default() };
    let drops_always: Decide = |scene, need| {
        let rules = Rules { drop_oldest: true, ..scene.rules.clone() };
        decide(&Scene { rules: &rules, ..*scene }, need)
    };
    let seen = |world: &World, decide| check_space(world, &rules, AMPLE, &need(500), &ask(world, &rules, AMPLE, &need(500), decide));
    assert_eq!(seen(&waiting, decide), Ok(()));
    assert!(seen(&waiting, drops_always).unwrap_err().ends_with("is not at the hub"));

    let safe = World::new(&many(20, HOUR_MS, SnapState::Acknowledged));
    let forgets_pins: Decide = |scene, need| {
        let change = Change { pins: scene.index.pins().unwrap().into_iter().map(|(key, _)| (key, false)).collect(), ..Change::default() };
        let mut counters = Counters { ord: 1, store: crate::model::StoreId(7), next_seq: 99, next_gap: 1, totals: scene.totals.clone() };
        scene.index.commit(&change, &mut counters, true).unwrap();
        decide(scene, need)
    };
    assert_eq!(seen(&safe, decide), Ok(()));
    assert!(seen(&safe, forgets_pins).unwrap_err().ends_with("is pinned"));
    let takes_newest: Decide = |scene, need| {
        let mut made = decide(scene, need)?;
        made.deletes.first_mut().unwrap().0 = (1, 19);
        Ok(made)
    };
    assert!(seen(&World::new(&many(20, HOUR_MS, SnapState::Acknowledged)), takes_newest).unwrap_err().contains("older"));
    let stays_over: Decide = |scene, need| {
        let mut made = decide(scene, need)?;
        made.deletes.pop();
        Ok(made)
    };
    assert!(seen(&World::new(&many(20, HOUR_MS, SnapState::Acknowledged)), stays_over).unwrap_err().contains("more than the rules"));

    let world = World::new(&many(20, HOUR_MS, SnapState::Acknowledged));
    let (rules, cameras) = (Rules { age_ms: Some(HOUR_MS), ..Rules::default() }, [camera("c0"), camera("c1")]);
    let believing =
        ByTime::new(&rules, &world.times, None, 0).sweep(&world.index, cameras.iter(), &world.times, &now(Quality::Ntp)).unwrap();
    let keys = believing.iter().map(|(key, _)| *key).collect();
    assert_eq!(check_time(&world, &rules, &now(Quality::Ntp), &keys), Ok(()));
    assert!(check_time(&world, &rules, &now(Quality::Saved), &keys).unwrap_err().contains("nobody knows the time"));
    let strict = Rules { thin: vec![Tier { grain: Grain::Daily, until_ms: None }], ..Rules::default() };
    assert!(check_time(&world, &strict, &now(Quality::Ntp), &keys).unwrap_err().contains("first of its stretch"));
}

#[test]
fn at_1970_nothing_goes_and_at_a_trusted_2026_the_same_rows_do() {
    let world = World::new(&many(100, HOUR_MS, SnapState::Acknowledged));
    let rules = Rules { age_ms: Some(DAY_MS), ..Rules::default() };
    let cameras = [camera("c0"), camera("c1")];
    let mut by_time = ByTime::new(&rules, &world.times, None, 0);
    let mut sweep = |clock: Reading| {
        let due = by_time.due(&clock);
        (due, by_time.sweep(&world.index, cameras.iter(), &world.times, &clock).unwrap().len())
    };
    assert_eq!(sweep(Reading { wall_ms: 12_000, ..now(Quality::Unset) }), (false, 0));
    assert_eq!(sweep(Reading { wall_ms: NOW_MS + 900 * DAY_MS as i64, ..now(Quality::Saved) }), (false, 0));
    assert_eq!(sweep(Reading { wall_ms: 12_000, ..now(Quality::Hub) }).1, 0, "pictures of the future are not old");
    let day_before = Reading { wall_ms: NOW_MS - DAY_MS as i64, ..now(Quality::Ntp) };
    assert_eq!(sweep(day_before).1, 0, "a clock that was in 1970 a moment ago");
    let today = Reading { boottime_ms: day_before.boottime_ms + DAY_MS, ..now(Quality::Ntp) };
    assert_eq!(sweep(today), (true, 68), "76 are older than a day, 8 of them pinned");
}

/// What is deleted stays so, and a clock that leaps is wrong before or after.
#[test]
fn a_clock_that_leaps_years_ahead_deletes_nothing_for_a_day() {
    let world = World::new(&many(100, HOUR_MS, SnapState::Acknowledged));
    let (rules, cameras) = (Rules { age_ms: Some(DAY_MS * 9), ..Rules::default() }, [camera("c0"), camera("c1")]);
    let clock = |after_ms: u64, ahead_days: i64| {
        let now = now(Quality::Ntp);
        let passed = after_ms as i64;
        Reading { boottime_ms: now.boottime_ms + after_ms, wall_ms: now.wall_ms + passed + ahead_days * DAY_MS as i64, ..now }
    };
    let gone = |by_time: &mut ByTime, clock: Reading| by_time.sweep(&world.index, cameras.iter(), &world.times, &clock).unwrap().len();
    let years = 56 * 365;
    let mut set = ByTime::new(&rules, &world.times, None, 0);
    assert_eq!(gone(&mut set, clock(0, 0)), 0, "nothing is as old");
    assert_eq!([0, HOUR_MS, DAY_MS - 1].map(|after| gone(&mut set, clock(1_000 + after, years))), [0; 3]);
    assert_eq!(set.wake_ms(&clock(DAY_MS, years)), Some(clock(DAY_MS + 1_000, years).boottime_ms));
    assert!(gone(&mut set, clock(DAY_MS + 1_000, years)) > 0, "it stays so");
    let mut put_right = ByTime::new(&rules, &world.times, None, 0);
    assert_eq!(
        [(0, 0), (1_000, years), (2_000, 0), (2 * DAY_MS, 0)].map(|(after, ahead)| gone(&mut put_right, clock(after, ahead))),
        [0; 4]
    );
    // A start with a clock that is years after the last time on record.
    let mut begun = ByTime::new(&rules, &world.times, None, NOW_MS);
    assert_eq!(gone(&mut begun, clock(0, years)), 0);
    let mut of_no_record = ByTime::new(&rules, &world.times, None, 0);
    assert!(gone(&mut of_no_record, clock(0, years)) > 0, "the control: without the record nobody can know");
}

#[test]
fn a_picture_of_an_unknown_time_is_old_when_it_cannot_be_younger() {
    // Pictures of boot 1, which nobody knows; boot 2 is known, and began ten days ago.
    let untimed: Vec<Pic> =
        many(4, HOUR_MS, SnapState::Acknowledged).into_iter().map(|pic| Pic { timed: false, pinned: false, ..pic }).collect();
    let world = World::new(&untimed);
    let began_ms = NOW_MS - 10 * DAY_MS as i64;
    let boot = |quality, offset_ms, last_ms| BootRow { boot_id: "b".into(), offset_ms, quality, first_ms: 0, last_ms };
    let boots = [(1, boot(Quality::Saved, 0, HOUR_MS)), (2, boot(Quality::Ntp, began_ms, 10 * DAY_MS))];
    let alone = Times::of(&boots[..1].iter().cloned().collect(), &Anchors::default());
    let bounded = Times::of(&boots.into_iter().collect(), &Anchors::default());
    let cameras = [camera("c0"), camera("c1")];
    for (times, days, gone) in [(&alone, 9, 0), (&bounded, 11, 0), (&bounded, 9, 4)] {
        let rules = Rules { age_ms: Some(days * DAY_MS), ..Rules::default() };
        for quality in [Quality::Saved, Quality::Ntp] {
            let chosen = ByTime::new(&rules, times, None, 0).sweep(&world.index, cameras.iter(), times, &now(quality)).unwrap();
            assert_eq!(chosen.len(), if quality.trusted() { gone } else { 0 }, "{days} days, clock {quality:?}");
        }
    }
}

#[test]
fn thinning_keeps_the_first_of_each_hour_and_day_and_says_when_it_is_due_again() {
    // Every ten minutes for five days, one camera.
    let pics: Vec<Pic> = (0..720)
        .map(|n| Pic { camera: 0, pinned: false, age_ms: (720 - n) * 600_000, ..many(1, 1, SnapState::Acknowledged)[0].clone() })
        .collect();
    let mut world = World::new(&pics);
    let thin = vec![
        Tier { grain: Grain::All, until_ms: Some(DAY_MS) },
        Tier { grain: Grain::Hourly, until_ms: Some(3 * DAY_MS) },
        Tier { grain: Grain::Daily, until_ms: None },
    ];
    let rules = Rules { thin, ..Rules::default() };
    let (cameras, clock) = ([camera("c0")], now(Quality::Ntp));
    let mut by_time = ByTime::new(&rules, &world.times, None, 0);
    let mut steps = 0;
    loop {
        let gone = by_time.sweep(&world.index, cameras.iter(), &world.times, &clock).unwrap();
        steps += 1;
        assert!(gone.len() <= SWEEP_MAX);
        world.forget(&gone);
        if !by_time.more {
            break;
        }
    }
    let ages: Vec<u64> = world.pics.values().map(|p| p.age_ms).collect();
    assert_eq!(ages.iter().filter(|age| **age <= DAY_MS).count(), 144, "all of the last day");
    assert_eq!(ages.iter().filter(|age| (DAY_MS + 1..=3 * DAY_MS).contains(*age)).count(), 48);
    assert_eq!(ages.iter().filter(|age| **age > 3 * DAY_MS).map(|age| age / HOUR_MS).collect::<Vec<_>>(), [120, 96]);
    assert_eq!(steps, 3, "574 - 48 + 2 went, 256 a step");
    assert!(by_time.rows_read < 2 * 720 + 200, "{}", by_time.rows_read);
    // A moment later one more is older than a day; what is remembered over a restart makes that cheap.
    let mut by_time = ByTime::new(&rules, &world.times, by_time.save().as_deref(), 0);
    let later = Reading { boottime_ms: clock.boottime_ms + 1, wall_ms: clock.wall_ms + 1, ..clock };
    assert!(by_time.due(&later));
    assert_eq!(by_time.sweep(&world.index, cameras.iter(), &world.times, &later).unwrap().len(), 0, "it is the first of its hour");
    assert!(by_time.rows_read <= 8, "{}", by_time.rows_read);
    let wake_ms = by_time.wake_ms(&later).unwrap();
    assert_eq!(wake_ms, later.boottime_ms + 600_000, "when the next one is");
    let short = Reading { wall_ms: later.wall_ms + 599_000, boottime_ms: later.boottime_ms + 599_000, ..later };
    assert!(!by_time.due(&short) && by_time.due(&Reading { boottime_ms: wake_ms, wall_ms: later.wall_ms + 600_000, ..later }));
}

#[test]
fn a_late_acknowledgement_is_thinned_too() {
    let mut pics = many(12, 600_000, SnapState::Acknowledged);
    for (n, pic) in pics.iter_mut().enumerate() {
        (pic.camera, pic.pinned) = (0, false);
        pic.age_ms += 40 * DAY_MS;
        if n < 3 {
            pic.state = SnapState::Pending;
        }
    }
    let mut world = World::new(&pics);
    let rules = Rules { thin: vec![Tier { grain: Grain::Daily, until_ms: None }], ..Rules::default() };
    let (cameras, clock) = ([camera("c0")], now(Quality::Ntp));
    let mut by_time = ByTime::new(&rules, &world.times, None, 0);
    let gone = by_time.sweep(&world.index, cameras.iter(), &world.times, &clock).unwrap();
    world.forget(&gone);
    assert_eq!(world.pics.len(), 4 + usize::from(!gone.len().is_multiple_of(8)), "the first acknowledged one of each day stays");
    let acks = (1..=3).map(|seq| ((1, seq), Hash8(seq))).collect();
    world.index.commit(&Change { acks, ..Change::default() }, &mut world.counters, true).unwrap();
    for pic in world.pics.values_mut() {
        pic.state = SnapState::Acknowledged;
    }
    by_time.freed((1, 1));
    let gone = by_time.sweep(&world.index, cameras.iter(), &world.times, &clock).unwrap();
    assert!(gone.iter().all(|(key, _)| key.1 > 1) && gone.len() >= 2, "{gone:?}");
    world.forget(&gone);
    assert!(world.pics.contains_key(&(1, 1)), "the first of the day");
}

#[test]
fn the_camera_with_most_bytes_gives_first_and_another_cameras_share_is_its_own() {
    let mut pics = many(40, HOUR_MS, SnapState::Acknowledged);
    for (n, pic) in pics.iter_mut().enumerate() {
        (pic.camera, pic.pinned) = (u8::from(n % 4 == 0), false);
    }
    // 30 of c0, 10 of c1.
    let world = World::new(&pics);
    let rules = Rules { bytes: Some(20_000), ..Rules::default() };
    let verdict = ask(&world, &rules, AMPLE, &need(0), decide);
    let of = |verdict: &Verdict, camera| verdict.deletes.iter().filter(|(key, _)| world.pics[key].camera == camera).count();
    assert_eq!((of(&verdict, 0), of(&verdict, 1)), (20, 0), "10 of each are left");
    let share = Quota { bytes: Some(5_000), count: None };
    let rules = Rules { cameras: [(camera("c1"), share)].into(), ..Rules::default() };
    let verdict = ask(&world, &rules, AMPLE, &Need { cameras: [(camera("c1"), (1_000, 1))].into(), made_bytes: 0 }, decide);
    assert_eq!((of(&verdict, 0), of(&verdict, 1)), (0, 6));
}

#[test]
fn a_camera_that_has_its_share_waits_alone() {
    let world = World::new(&many(20, HOUR_MS, SnapState::Pending));
    let rules = Rules { cameras: [(camera("c1"), Quota { bytes: None, count: Some(10) })].into(), ..Rules::default() };
    let both = Need { cameras: ["c0", "c1"].map(|c| (camera(c), (500, 1))).into(), made_bytes: 0 };
    let verdict = ask(&world, &rules, AMPLE, &both, decide);
    assert_eq!((verdict.refused, verdict.deletes), (None, vec![]));
    assert_eq!(verdict.full.into_keys().collect::<Vec<_>>(), [camera("c1")]);
}

/// 18 pictures of 1,000 bytes may go; the disk wants more and more.
#[test]
fn pictures_make_room_up_to_half_and_then_say_who_fills_the_disk() {
    let world = World::new(&many(20, HOUR_MS, SnapState::Acknowledged));
    let rules = Rules { free_bytes: Some(50_000), ..Rules::default() };
    let on = |free_bytes| {
        let disk = Disk { total_bytes: 100_000, free_bytes, free_inodes: None };
        let verdict = ask(&world, &rules, disk, &need(1_000), decide);
        check_space(&world, &rules, disk, &need(1_000), &verdict).unwrap();
        (verdict.deletes.len(), verdict.refused, verdict.foreign.is_some())
    };
    assert_eq!(on(51_000), (0, None, false));
    assert_eq!(on(46_000), (5, None, false), "the floor is met");
    assert_eq!(on(40_000), (11, None, false), "half of 20, and the room of the new one");
    assert_eq!(on(30_000), (1, None, true), "one for one: the floor cannot be met by deleting pictures");
    assert_eq!(on(0), (1, None, true));
    let inodes = Rules { free_inodes: Some(100), ..Rules::default() };
    let disk = |free| Disk { total_bytes: 100_000, free_bytes: 100_000, free_inodes: Some(free) };
    assert_eq!(ask(&world, &inodes, disk(103), &need(1_000), decide).deletes.len(), 0);
    assert_eq!(ask(&world, &inodes, disk(101), &need(1_000), decide).deletes.len(), 2);
}

#[test]
fn what_was_given_to_others_once_counts_until_it_is_back() {
    let world = World::new(&many(20, HOUR_MS, SnapState::Acknowledged));
    let (rules, totals) = (Rules { free_bytes: Some(50_000), ..Rules::default() }, world.totals());
    let disk = Disk { total_bytes: 100_000, free_bytes: 46_000, free_inodes: None };
    let scene =
        |ceded_bytes| Scene { index: &world.index, totals: &totals, rules: &rules, disk, held_bytes: 0, ceded_bytes, pinned_bytes: 0 };
    assert_eq!(decide(&scene(0), &need(1_000)).unwrap().deletes.len(), 5);
    let later = decide(&scene(20_000), &need(1_000)).unwrap();
    assert_eq!((later.deletes.len(), later.foreign.is_some()), (1, true), "40 there were, 20 are left: no further");
}

#[test]
fn pins_that_hold_the_room_are_named() {
    let mut pics = many(20, HOUR_MS, SnapState::Acknowledged);
    pics.iter_mut().for_each(|pic| pic.pinned = true);
    let world = World::new(&pics);
    let rules = Rules { free_bytes: Some(50_000), ..Rules::default() };
    let disk = Disk { total_bytes: 100_000, free_bytes: 45_000, free_inodes: None };
    let verdict = ask(&world, &rules, disk, &need(1_000), decide);
    assert!(verdict.deletes.is_empty() && verdict.refused.unwrap().contains("pinned pictures hold 20 kB"));
}

/// 50,000 rows, of which few go: what is read does not grow with what is there.
#[test]
fn a_sweep_reads_about_as_much_as_it_deletes() {
    let pics = many(50_000, 60_000, SnapState::Acknowledged);
    let mut world = World::new(&pics);
    let over = world.bytes() - 99_000;
    let verdict = ask(&world, &Rules { bytes: Some(over), ..Rules::default() }, AMPLE, &need(1_000), decide);
    assert_eq!(verdict.deletes.len(), 100);
    assert!(verdict.rows_read <= 2 * 128 + 64, "{}", verdict.rows_read);
    let rules = Rules { age_ms: Some(49_900 * 60_000), ..Rules::default() };
    let (cameras, clock) = ([camera("c0"), camera("c1")], now(Quality::Ntp));
    let mut by_time = ByTime::new(&rules, &world.times, None, 0);
    let gone = by_time.sweep(&world.index, cameras.iter(), &world.times, &clock).unwrap();
    assert_eq!(gone.len(), 90, "100 are older, 10 of them pinned");
    assert!(by_time.rows_read <= 90 + 2 * 64, "{}", by_time.rows_read);
    world.forget(&gone);
    let before = by_time.rows_read;
    assert!(by_time.sweep(&world.index, cameras.iter(), &world.times, &clock).unwrap().is_empty());
    assert!(by_time.rows_read - before <= 4);
    let seqs: Vec<Seq> = gone.iter().map(|(key, _)| Seq(key.1)).collect();
    println!("keep: 50,000 rows; 100 deletions for room read {} rows, {} by age read {before}", verdict.rows_read, seqs.len());
}
