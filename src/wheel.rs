//! The timing wheel: every instant the agent waits for, in one fixed piece of memory.
//!
//! Pure: time is milliseconds of CLOCK_BOOTTIME and comes in as an argument. Promises:
//! - at most `N` timers, and not one allocation after the wheel itself was made: a full wheel refuses, it never grows;
//! - [`insert`](Wheel::insert) and [`cancel`](Wheel::cancel) are O(1), whatever the distance: the whole range of `u64` fits;
//! - [`advance`](Wheel::advance) fires what is due in the order (instant, insertion), each timer once, never early;
//!   its cost depends on the timers that it passes, never on the time that went by (a board that slept for a year);
//! - [`next_deadline`](Wheel::next_deadline) is exact, so an owner who sleeps until then is never woken in vain.
//!
//! Shape: 11 levels of 64 slots, 6 bits of the instant each. A timer lives on the level of the highest digit in which
//! its instant differs from the present, in the slot of that digit. So all timers of a level are later than all of the
//! levels below, a level's first occupied slot is its earliest, and one bit per slot finds it without a walk. Passing
//! the start of a slot moves its timers down; this happens on the way, never by a wake-up of its own.
//!
//! Paths not taken: `BinaryHeap` (cancelled timers stay in it until they are due; `benches/wheel.rs` compares), and a
//! tick per slot (an idle agent must not wake).

use heapless::Vec;

/// Bits of one digit; a level has as many slots as fit in one word of its occupancy map.
const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
/// Enough digits for any `u64`, so no instant has to be clamped.
const LEVELS: usize = 64usize.div_ceil(DIGIT_BITS as usize);
/// The list after all slots: timers that were already past when they came in.
const OVERDUE: usize = LEVELS * SLOTS;
/// "No timer" in a link.
const NONE: u16 = u16::MAX;

/// Names one inserted timer; after it fired or was cancelled the name is void for ever, even if its place is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId {
    place: u16,
    /// Counts insertions. 64 bits do not wrap, so no two timers ever share a name.
    order: u64,
}

/// All places are taken; nothing was inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all timers are in use")]
pub struct Full;

#[derive(Debug)]
struct Timer<T> {
    at_ms: u64,
    order: u64,
    /// Neighbours in the list of its slot; in a free place `next` is the next free place.
    prev: u16,
    next: u16,
    /// `None`: the place is free.
    item: Option<T>,
}

#[derive(Debug, Clone, Copy)]
struct List {
    head: u16,
    tail: u16,
}

/// See the module. `N` is at most 65,534.
#[derive(Debug)]
pub struct Wheel<T, const N: usize> {
    now_ms: u64,
    inserted: u64,
    len: usize,
    free: u16,
    /// One bit per slot of each level: set while its list holds a timer.
    occupied: [u64; LEVELS],
    lists: [List; OVERDUE + 1],
    timers: Vec<Timer<T>, N>,
}

impl<T, const N: usize> Default for Wheel<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> Wheel<T, N> {
    /// An empty wheel. Its size is about `N` × (`T` + 32 bytes): a large one belongs into [`boxed`](Self::boxed).
    pub const fn new() -> Self {
        const { assert!(N < NONE as usize, "places are numbered in 16 bits") };
        let lists = [List { head: NONE, tail: NONE }; OVERDUE + 1];
        Self { now_ms: 0, inserted: 0, len: 0, free: NONE, occupied: [0; LEVELS], lists, timers: Vec::new() }
    }

    /// An empty wheel on the heap, where its owner may be moved about cheaply.
    pub fn boxed() -> Box<Self> {
        Box::new(Self::new())
    }

    /// Timers that wait.
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Waits for `at_ms`; an instant already past fires at the next [`advance`](Self::advance).
    /// # Errors
    /// [`Full`] when `N` timers wait.
    pub fn insert(&mut self, at_ms: u64, item: T) -> Result<TimerId, Full> {
        let order = self.inserted;
        let timer = Timer { at_ms, order, prev: NONE, next: NONE, item: Some(item) };
        let place = self.free;
        let place = if place == NONE {
            let place = self.timers.len() as u16;
            self.timers.push(timer).map_err(|_| Full)?;
            place
        } else {
            let cell = &mut self.timers[place as usize];
            self.free = cell.next;
            *cell = timer;
            place
        };
        self.inserted += 1;
        self.len += 1;
        self.link(place);
        Ok(TimerId { place, order })
    }

    /// Takes a timer back; `None` if it fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        let timer = self.timers.get(id.place as usize)?;
        if timer.order != id.order || timer.item.is_none() {
            return None;
        }
        let list = self.list_of(timer.at_ms);
        self.unlink(list, id.place);
        self.release(id.place)
    }

    /// The instant of the earliest timer, exactly. Walks the timers of one slot.
    pub fn next_deadline(&self) -> Option<u64> {
        let list = if self.lists[OVERDUE].head != NONE {
            OVERDUE
        } else {
            let (level, digit) = self.first_slot()?;
            level * SLOTS + digit
        };
        let mut earliest = None::<u64>;
        let mut place = self.lists[list].head;
        while place != NONE {
            let timer = &self.timers[place as usize];
            earliest = Some(earliest.map_or(timer.at_ms, |e| e.min(timer.at_ms)));
            place = timer.next;
        }
        earliest
    }

    /// The present is `now_ms` from here on: fires every timer at or before it, in the order (instant, insertion).
    /// The boot clock cannot run backwards; an earlier `now_ms` than the last one counts as the last one.
    pub fn advance(&mut self, now_ms: u64, fire: &mut dyn FnMut(TimerId, u64, T)) {
        if self.lists[OVERDUE].head != NONE {
            self.fire_overdue(fire);
        }
        let now_ms = now_ms.max(self.now_ms);
        while let Some((level, digit)) = self.first_slot() {
            let start_ms = self.slot_start_ms(level, digit);
            if start_ms > now_ms {
                break;
            }
            self.now_ms = start_ms;
            let list = level * SLOTS + digit;
            while let Some(place) = self.pop(list) {
                if level == 0 {
                    self.fire(place, fire);
                } else {
                    // Now that the present shares this digit, the timer belongs further down; the order is kept.
                    self.link(place);
                }
            }
        }
        self.now_ms = now_ms;
    }

    /// Timers that came in late stand in the order of insertion; they fire in the order of their instants.
    fn fire_overdue(&mut self, fire: &mut dyn FnMut(TimerId, u64, T)) {
        let mut places: Vec<u16, N> = Vec::new();
        while let Some(place) = self.pop(OVERDUE) {
            // Cannot fail: the list holds no more places than the wheel has.
            let _ = places.push(place);
        }
        places.sort_unstable_by_key(|&place| {
            let timer = &self.timers[place as usize];
            (timer.at_ms, timer.order)
        });
        for &place in &places {
            self.fire(place, fire);
        }
    }

    fn fire(&mut self, place: u16, fire: &mut dyn FnMut(TimerId, u64, T)) {
        let Timer { at_ms, order, .. } = self.timers[place as usize];
        if let Some(item) = self.release(place) {
            fire(TimerId { place, order }, at_ms, item);
        }
    }

    /// The earliest occupied slot: no timer outside of it is earlier than any inside.
    fn first_slot(&self) -> Option<(usize, usize)> {
        let level = self.occupied.iter().position(|&bits| bits != 0)?;
        Some((level, self.occupied[level].trailing_zeros() as usize))
    }

    fn slot_start_ms(&self, level: usize, digit: usize) -> u64 {
        let shift = DIGIT_BITS * level as u32;
        // The top level has no digits above it, and a shift by 64 or more is none in hardware.
        let above = self.now_ms.checked_shr(shift + DIGIT_BITS).map_or(0, |high| high << (shift + DIGIT_BITS));
        above | (digit as u64) << shift
    }

    /// Where a timer belongs, which is a function of the present alone: it needs no note of it.
    fn list_of(&self, at_ms: u64) -> usize {
        if at_ms < self.now_ms {
            return OVERDUE;
        }
        let level = (63 - ((at_ms ^ self.now_ms) | 1).leading_zeros()) / DIGIT_BITS;
        let digit = (at_ms >> (DIGIT_BITS * level)) as usize % SLOTS;
        level as usize * SLOTS + digit
    }

    /// Appends a timer to the list where it belongs.
    fn link(&mut self, place: u16) {
        let list = self.list_of(self.timers[place as usize].at_ms);
        let tail = self.lists[list].tail;
        self.timers[place as usize].prev = tail;
        self.timers[place as usize].next = NONE;
        match tail {
            NONE => self.lists[list].head = place,
            _ => self.timers[tail as usize].next = place,
        }
        self.lists[list].tail = place;
        if let Some(bits) = self.occupied.get_mut(list / SLOTS) {
            *bits |= 1 << (list % SLOTS);
        }
    }

    fn unlink(&mut self, list: usize, place: u16) {
        let Timer { prev, next, .. } = self.timers[place as usize];
        match prev {
            NONE => self.lists[list].head = next,
            _ => self.timers[prev as usize].next = next,
        }
        match next {
            NONE => self.lists[list].tail = prev,
            _ => self.timers[next as usize].prev = prev,
        }
        if self.lists[list].head == NONE
            && let Some(bits) = self.occupied.get_mut(list / SLOTS)
        {
            *bits &= !(1 << (list % SLOTS));
        }
    }

    fn pop(&mut self, list: usize) -> Option<u16> {
        let place = self.lists[list].head;
        if place == NONE {
            return None;
        }
        self.unlink(list, place);
        Some(place)
    }

    /// Frees a place that is in no list any more.
    fn release(&mut self, place: u16) -> Option<T> {
        let timer = &mut self.timers[place as usize];
        timer.next = self.free;
        self.free = place;
        self.len -= 1;
        timer.item.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WHEEL_CAPACITY;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Fired = std::vec::Vec<(u64, u32)>;

    fn advance<const N: usize>(wheel: &mut Wheel<u32, N>, now_ms: u64) -> Fired {
        let mut fired = Fired::new();
        wheel.advance(now_ms, &mut |_, at_ms, item| fired.push((at_ms, item)));
        fired
    }

    const WEEK_MS: u64 = 7 * 86_400_000;

    #[test]
    fn one_timer_a_week_ahead_costs_one_wake_up() {
        let mut wheel = Wheel::<u32, 8>::new();
        advance(&mut wheel, 123_456_789);
        wheel.insert(123_456_789 + WEEK_MS, 1).unwrap();
        let mut wakes = 0;
        while let Some(at_ms) = wheel.next_deadline() {
            advance(&mut wheel, at_ms);
            wakes += 1;
        }
        assert_eq!(wakes, 1);
    }

    #[test]
    fn timers_of_one_instant_fire_as_they_were_inserted_wherever_they_waited() {
        let mut wheel = Wheel::<u32, 8>::new();
        let at_ms = 1_000_000;
        for (now_ms, item) in [(0, 0), (500_000, 1), (999_900, 2), (999_999, 3)] {
            assert_eq!(advance(&mut wheel, now_ms), []);
            wheel.insert(at_ms, item).unwrap();
        }
        assert_eq!(advance(&mut wheel, u64::MAX), [(at_ms, 0), (at_ms, 1), (at_ms, 2), (at_ms, 3)]);
    }

    #[test]
    fn what_is_past_already_fires_at_once_and_in_order() {
        let mut wheel = Wheel::<u32, 8>::new();
        advance(&mut wheel, 1_000);
        for (at_ms, item) in [(900, 0), (1_000, 1), (5, 2), (900, 3)] {
            wheel.insert(at_ms, item).unwrap();
        }
        assert_eq!(wheel.next_deadline(), Some(5));
        assert_eq!(advance(&mut wheel, 1_000), [(5, 2), (900, 0), (900, 3), (1_000, 1)]);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_full_wheel_refuses_and_a_cancelled_place_is_new_again() {
        let mut wheel = Wheel::<u32, 2>::new();
        let old = wheel.insert(10, 0).unwrap();
        wheel.insert(20, 1).unwrap();
        assert_eq!(wheel.insert(30, 2), Err(Full));
        assert_eq!(wheel.cancel(old), Some(0));
        let new = wheel.insert(30, 3).unwrap();
        assert_eq!(wheel.cancel(old), None, "the old name must not reach the new timer in its place");
        assert_eq!(wheel.cancel(new), Some(3));
        assert_eq!(advance(&mut wheel, 100), [(20, 1)]);
    }

    #[test]
    fn the_full_sized_wheel_can_be_made_on_a_small_stack() {
        let made = std::thread::Builder::new().stack_size(1 << 20).spawn(|| {
            let mut wheel = Wheel::<u64, WHEEL_CAPACITY>::boxed();
            for i in 0..WHEEL_CAPACITY as u64 {
                wheel.insert(i * 1_000, i).unwrap();
            }
            let mut fired = 0;
            wheel.advance(u64::MAX, &mut |_, _, _| fired += 1);
            fired
        });
        assert_eq!(made.unwrap().join().unwrap(), WHEEL_CAPACITY);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert {
            ahead_ms: i64,
        },
        /// Cancels the n-th name ever given out, stale or not.
        Cancel {
            nth: usize,
        },
        Advance {
            by_ms: u64,
        },
        /// Sleeps until the deadline the wheel names.
        Sleep,
    }

    fn span_ms() -> impl Strategy<Value = u64> {
        prop_oneof![0..3u64, 0..200u64, 0..10_000_000u64, 0..(1u64 << 40), Just(1 << 36), Just(64), Just(4_096)]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => span_ms().prop_map(|ms| Step::Insert { ahead_ms: ms as i64 }),
            1 => span_ms().prop_map(|ms| Step::Insert { ahead_ms: -(ms as i64) }),
            2 => any::<usize>().prop_map(|nth| Step::Cancel { nth }),
            2 => span_ms().prop_map(|by_ms| Step::Advance { by_ms }),
            2 => Just(Step::Sleep),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn it_does_what_a_sorted_map_does(start_ms in prop_oneof![Just(0), any::<u32>().prop_map(u64::from)], steps in prop::collection::vec(step(), 1..150)) {
            const N: usize = 12;
            let mut wheel = Wheel::<u32, N>::new();
            let mut model = BTreeMap::<(u64, u32), TimerId>::new();
            let mut names = std::vec::Vec::<((u64, u32), TimerId)>::new();
            let mut now_ms = start_ms;
            prop_assert_eq!(advance(&mut wheel, now_ms), []);
            for (item, step) in (0u32..).zip(steps) {
                match step {
                    Step::Insert { ahead_ms } => {
                        let key = (now_ms.saturating_add_signed(ahead_ms), item);
                        match wheel.insert(key.0, item) {
                            Ok(id) => {
                                prop_assert!(model.len() < N);
                                model.insert(key, id);
                                names.push((key, id));
                            }
                            Err(Full) => prop_assert_eq!(model.len(), N),
                        }
                    }
                    Step::Cancel { nth } if !names.is_empty() => {
                        let (key, id) = names[nth % names.len()];
                        let expected = model.remove(&key).map(|_| key.1);
                        prop_assert_eq!(wheel.cancel(id), expected);
                    }
                    Step::Cancel { .. } => {}
                    Step::Advance { .. } | Step::Sleep => {
                        now_ms = match step {
                            Step::Advance { by_ms } => now_ms.saturating_add(by_ms),
                            _ => wheel.next_deadline().unwrap_or(now_ms).max(now_ms),
                        };
                        let later = model.split_off(&(now_ms, u32::MAX));
                        let due: Fired = std::mem::replace(&mut model, later).into_keys().collect();
                        prop_assert_eq!(advance(&mut wheel, now_ms), due);
                    }
                }
                prop_assert_eq!(wheel.next_deadline(), model.keys().next().map(|key| key.0));
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
