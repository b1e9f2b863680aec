//! The store's side of re-timing, on a real directory and a clock of the test's: one time for each picture, whatever happens then.

use crate::clock::{Clock, Reading, TestClock};
use crate::model::{Quality, Seq, SnapshotId};
use crate::protocol::{RETIMED_REV, Record};
use crate::store::index::{Anchors, Key, Times};
use crate::store::{Configure, Place, Put, Rules, Store, Stored};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

const WALL_MS: i64 = 1_795_000_000_000;
const HOUR_MS: i64 = 3_600_000;

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// A board whose clock says what the test wants.
struct Board {
    dir: PathBuf,
    clock: Arc<TestClock>,
    boot_id: String,
    store: Option<Store>,
    taken: Vec<(Key, Stored)>,
}

impl Board {
    fn new(name: &str, quality: Quality) -> Self {
        let dir = std::env::temp_dir().join(format!("shutterd-retime-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let reading = Reading { boottime_ms: 10_000, wall_ms: 10_000, quality, uncertainty_ms: None };
        let clock = Arc::new(TestClock::new(reading));
        let mut board = Self { dir, clock, boot_id: "boot-1".into(), store: None, taken: Vec::new() };
        board.start();
        board
    }
    fn start(&mut self) {
        let config = Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep: Rules::default(), window_ms: 0 };
        let place = Place { dir: self.dir.clone(), board: "board-1".into(), hub: true };
        let (store, _) = loop {
            match Store::open(&place, config.clone(), self.clock.clone(), &self.boot_id) {
                // The writer of before has not ended yet.
                Err(crate::store::OpenError::Locked { .. }) => std::thread::yield_now(),
                opened => break opened.unwrap(),
            }
        };
        self.store = Some(store);
    }
    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }
    /// The agent is killed, and starts again.
    fn restart(&mut self) {
        self.store = None;
        self.start();
    }
    /// The machine is off for a while, and its clock has lost the time.
    fn reboot(&mut self) {
        self.store = None;
        self.boot_id = format!("{}x", self.boot_id);
        self.clock.change(|r| *r = Reading { boottime_ms: 5_000, wall_ms: 5_000, quality: Quality::Unset, uncertainty_ms: None });
        self.start();
    }
    fn trust(&self, wall_ms: i64, quality: Quality) {
        self.clock.change(|r| (r.wall_ms, r.quality, r.uncertainty_ms) = (wall_ms, quality, Some(25)));
    }
    fn take(&mut self) -> Key {
        self.clock.advance(1_000);
        let n = self.taken.len() as u8;
        let put = Put {
            camera: "gate".parse().unwrap(),
            slots: vec![],
            jpeg: [&[0xFF, 0xD8, 0xFF, 0xDB][..], &[n; 300], &[0xFF, 0xD9]].concat(),
            width: 8,
            height: 8,
            taken_ms: self.clock.boottime_ms(),
            source: "pattern",
            flags: vec![],
            priority: crate::model::Priority::Normal,
            window_ms: None,
        };
        let stored = self.store().put(put).unwrap();
        let key = self.store().key(stored.id).unwrap();
        self.taken.push((key, stored));
        key
    }
    fn flush(&self) {
        block(self.store().flush()).unwrap();
    }
    /// All that is to be told, in steps of one.
    fn untold(&self) -> Vec<Key> {
        let (mut at, mut all) = (self.store().retimed().unwrap(), Vec::new());
        loop {
            let look = self.store().to_retime(at, 2, 1).unwrap();
            all.extend(look.found);
            if !look.more {
                return all;
            }
            at = look.upto;
        }
    }
    fn times(&self) -> Times {
        self.store().times().unwrap()
    }
    fn row_time(&self, key: Key, times: &Times) -> Option<i64> {
        times.taken_ms(&self.store().snap(self.store().id_of(key).unwrap()).unwrap().unwrap().taken)
    }
}
impl Drop for Board {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn pictures_taken_before_the_clock_was_trusted_get_their_time_once_and_for_all() {
    let mut board = Board::new("once", Quality::Unset);
    let early = [board.take(), board.take()];
    assert_eq!(board.untold(), [], "nobody knows their time yet");
    board.trust(WALL_MS, Quality::Hub);
    let at_trust = board.clock.read();
    let late = board.take();
    let first = board.times();
    for (key, ago_ms) in early.into_iter().zip([1_000, 0]) {
        assert_eq!(board.row_time(key, &first), Some(WALL_MS - ago_ms));
        let record = board.store().retimed_record(key).unwrap().unwrap();
        assert_eq!((record.taken.wall_ms, record.taken.quality, record.rev), (WALL_MS - ago_ms, Quality::Hub, RETIMED_REV));
        assert_eq!((record.taken.uncertainty_ms, record.taken.boot), (Some(25), 1));
        let stored = &board.taken.iter().find(|(known, _)| *known == key).unwrap().1;
        assert_eq!(record.hash8, Some(stored.hash8), "it names the file");
        let file = std::fs::read(&stored.path).unwrap();
        let said = crate::image::meta::read(&file).unwrap().record;
        assert_eq!(said.taken.quality, Quality::Unset, "which keeps what it said");
        assert_eq!(Record { taken: said.taken, rev: 0, hash8: None, ..record }, said, "and nothing else has changed");
    }
    assert_eq!(board.untold(), early, "the one of the trusted clock needs nothing");
    assert_eq!(board.store().retimed_record(late).unwrap(), None);
    // A better clock says something else; then somebody sets it by an hour; then the agent is killed.
    for (wall_ms, quality) in [(WALL_MS + 9_000, Quality::Ntp), (WALL_MS + HOUR_MS, Quality::Ntp), (WALL_MS - HOUR_MS, Quality::Hub)] {
        board.trust(wall_ms, quality);
        board.take();
        assert_eq!(early.map(|key| board.row_time(key, &board.times())), [WALL_MS - 1_000, WALL_MS].map(Some));
        board.restart();
    }
    assert_eq!(board.untold(), early);
    board.store().set_retimed(early[0], true);
    board.flush();
    board.restart();
    assert_eq!(board.untold(), early[1..], "what the hub has confirmed is not told again");
    assert_eq!(board.times().known(1).map(|synced| synced.offset_ms), Some(at_trust.offset_ms()));
}

#[test]
fn a_picture_taken_after_the_clock_was_lost_again_has_the_time_of_its_boot() {
    let mut board = Board::new("lost", Quality::Ntp);
    board.trust(WALL_MS, Quality::Ntp);
    board.take();
    board.clock.change(|r| r.quality = Quality::Saved);
    let key = board.take();
    assert_eq!(board.row_time(key, &board.times()), board.times().wall_ms(1, board.clock.boottime_ms()));
    assert_eq!(board.untold(), [key]);
}

#[test]
fn the_first_trusted_reading_is_on_record_without_any_picture() {
    let mut board = Board::new("idle", Quality::Unset);
    board.take();
    board.trust(WALL_MS, Quality::Ntp);
    let mut news = board.store().news();
    news.borrow_and_update();
    // What the agent does as soon as the clock is trusted.
    board.flush();
    assert!(news.has_changed().unwrap(), "the uplink hears of it");
    assert_eq!(board.untold().len(), 1);
}

#[test]
fn a_boot_that_never_had_a_trusted_clock_lies_between_its_neighbours() {
    let mut board = Board::new("between", Quality::Unset);
    board.trust(WALL_MS, Quality::Ntp);
    board.take();
    let end_ms = board.clock.read().wall_ms;
    board.reboot();
    let lost = board.take();
    assert_eq!(board.untold(), [], "its clock may still be trusted one day");
    let bounds = |board: &Board| board.times().bounds_ms(2, 6_000);
    assert_eq!(bounds(&board), (Some(end_ms + 6_000), None));
    board.reboot();
    board.trust(WALL_MS + HOUR_MS, Quality::Ntp);
    let start_ms = board.clock.read().offset_ms();
    let third = board.take();
    assert_eq!(bounds(&board), (Some(end_ms + 6_000), Some(start_ms)), "row and picture of the second boot end at 6 s");
    assert_eq!(board.row_time(lost, &board.times()), None);
    assert!(board.untold().is_empty() && board.row_time(third, &board.times()).is_some(), "and it keeps nobody waiting");
}

#[test]
fn an_index_of_before_such_readings_tells_the_hub_too() {
    let mut board = Board::new("older", Quality::Unset);
    let key = board.take();
    board.trust(WALL_MS, Quality::Ntp);
    board.take();
    board.store = None;
    let index = board.dir.join(crate::store::recover::INDEX);
    let lock = std::fs::File::open(board.dir.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    {
        let index = crate::store::index::Index::open(&index).unwrap();
        let txn = index.begin().unwrap();
        txn.open_table(super::super::tables::STATE)
            .unwrap()
            .retain_in(super::super::tables::values(), |(_, boot, _, _), _| boot == 0)
            .unwrap();
        txn.commit().unwrap();
    }
    drop(lock);
    board.reboot();
    assert_eq!(board.row_time(key, &board.times()), Some(WALL_MS), "by the row of its boot");
    assert_eq!(board.untold(), [key]);
}

#[test]
fn what_the_hub_lost_is_told_again_and_what_was_deleted_never() {
    let mut board = Board::new("again", Quality::Unset);
    let keys: Vec<Key> = (0..4).map(|_| board.take()).collect();
    board.trust(WALL_MS, Quality::Ntp);
    board.take();
    board.store().set_retimed(keys[3], true);
    board.flush();
    assert_eq!(board.untold(), []);
    let id = board.store().id_of(keys[1]).unwrap();
    assert_eq!(block(board.store().want_again(vec![id])).unwrap(), Some(keys[1]));
    board.flush();
    board.restart();
    assert_eq!(board.untold(), keys[1..]);
    block(board.store().erase(&"gate".parse().unwrap())).unwrap();
    while board.store().totals().0 > 0 {
        std::thread::yield_now();
    }
    assert_eq!((board.untold(), board.store().retimed_record(keys[1]).unwrap()), (vec![], None));
}

#[test]
fn after_a_lost_index_a_boot_with_one_trusted_picture_has_its_time_back_and_the_hub_is_told_again() {
    let mut board = Board::new("rebuilt", Quality::Unset);
    let early = board.take();
    board.trust(WALL_MS, Quality::Ntp);
    board.take();
    let told = board.row_time(early, &board.times());
    board.store().set_retimed(early, true);
    board.flush();
    board.reboot();
    let alone = board.take();
    board.store = None;
    while std::fs::write(board.dir.join(crate::store::recover::INDEX), b"lost").is_err() {}
    board.reboot();
    let mut news = board.store().news();
    while board.store().times().unwrap().known(1).is_none() || board.untold().is_empty() {
        let _ = block(async { tokio::time::timeout(std::time::Duration::from_millis(20), news.changed()).await });
    }
    let of = |key: Key| board.store().key(SnapshotId { store: board.taken[0].1.id.store, seq: Seq(key.1) }).unwrap();
    assert_eq!(board.row_time(of(early), &board.times()), told, "by the picture that a trusted clock stamped");
    assert_eq!(board.untold(), [of(early)], "the hub has it already, and says so");
    assert_eq!(board.row_time(of(alone), &board.times()), None, "no picture of that boot tells");
}

/// What happens to a board.
#[derive(Debug, Clone, Copy)]
enum Event {
    Take,
    Trust(u8, i32),
    Lose,
    Restart,
    Reboot,
    Told,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => Just(Event::Take),
        3 => (0u8..2, -5_000_000i32..5_000_000).prop_map(|(better, by_ms)| Event::Trust(better, by_ms)),
        2 => Just(Event::Lose),
        2 => Just(Event::Restart),
        1 => Just(Event::Reboot),
        2 => Just(Event::Told),
    ]
}

/// Lets it happen. No picture's time may change once it has one, nor what the hub is told of it; and all is told in the end.
fn happens(name: &str, events: &[Event], judge: fn(&Board) -> Times) -> Result<(), String> {
    let mut board = Board::new(name, Quality::Unset);
    let mut seen: BTreeMap<Key, i64> = BTreeMap::new();
    let mut told: BTreeMap<Key, Record> = BTreeMap::new();
    for event in events {
        match event {
            Event::Take => _ = board.take(),
            Event::Trust(better, by_ms) => {
                board.trust(WALL_MS + i64::from(*by_ms), if *better > 0 { Quality::Ntp } else { Quality::Hub });
                board.flush();
            }
            Event::Lose => board.clock.change(|r| r.quality = Quality::Saved),
            Event::Restart => board.restart(),
            Event::Reboot => board.reboot(),
            Event::Told => {
                for key in board.untold() {
                    let record = board.store().retimed_record(key).unwrap().ok_or("told of, and no record")?;
                    let before = told.insert(key, record.clone());
                    if before.is_some_and(|before| before != record) {
                        return Err(format!("{key:?}: the hub is told two times"));
                    }
                    board.store().set_retimed(key, true);
                }
            }
        }
        let times = judge(&board);
        for (key, _) in &board.taken {
            match (seen.get(key), board.row_time(*key, &times)) {
                (Some(before), now) if now != Some(*before) => return Err(format!("{key:?} was taken at {before}, and then at {now:?}")),
                (None, Some(at)) => _ = seen.insert(*key, at),
                _ => {}
            }
        }
    }
    board.flush();
    let open = board.untold();
    let unsaid = seen.keys().find(|key| {
        let id = board.store().id_of(**key).unwrap();
        let trusted = board.store().snap(id).unwrap().unwrap().taken.quality.trusted();
        !trusted && !told.contains_key(key) && !open.contains(key)
    });
    unsaid.map_or(Ok(()), |key| Err(format!("{key:?} has its time, and the hub will never know")))
}

fn as_it_is(board: &Board) -> Times {
    board.times()
}
/// The control: by the offset that moves with each better reading.
fn by_the_moving_offset(board: &Board) -> Times {
    Times::of(&board.store().boots().unwrap(), &Anchors::default())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_picture_that_has_its_time_keeps_it_and_the_hub_is_told_that_one_time(events in prop::collection::vec(event(), 1..24)) {
        prop_assert_eq!(happens("random", &events, as_it_is), Ok(()));
    }
}

#[test]
fn times_by_the_moving_offset_are_found_out() {
    let step = [Event::Take, Event::Trust(0, 0), Event::Take, Event::Trust(1, 3_600_000), Event::Take];
    let wrong = happens("moving", &step, by_the_moving_offset);
    assert!(wrong.as_ref().is_err_and(|e| e.contains("was taken at")), "{wrong:?}");
    assert_eq!(happens("fixed", &step, as_it_is), Ok(()));
}

#[test]
fn a_record_is_of_the_picture_in_the_row_or_there_is_none() {
    let mut board = Board::new("damaged", Quality::Unset);
    let (key, other) = (board.take(), board.take());
    board.trust(WALL_MS, Quality::Ntp);
    board.flush();
    let path = |key| board.taken.iter().find(|(known, _)| *known == key).unwrap().1.path.clone();
    std::fs::copy(path(other), path(key)).unwrap();
    assert_eq!(board.store().retimed_record(key).unwrap(), None, "another picture's file");
    assert_eq!(board.store().retimed_record((9, 9)).unwrap(), None);
}
