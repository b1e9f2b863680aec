//! Which slots wait for a camera, which a capture serves, which waited too long: pure, time by argument.

use super::habits::LATE_MS;
use crate::config::settings::Wish;
use crate::model::{BUSY_WAIT_MAX_MS, Failure, Missed, Outcome, SLOTS_PER_PICTURE_MAX, ScheduleId, Slot};
use crate::store::Stored;
use std::collections::{BTreeSet, VecDeque};
use tokio::sync::oneshot;

/// A grab past this many of its time-outs is hung.
pub const HUNG_TIMEOUTS: u64 = 3;
/// Commands that may wait for one camera.
pub const COMMANDS_MAX: usize = 8;

/// What a capture on command is answered with.
pub type SnapAnswer = Result<Stored, Failure>;

/// Slots and commands of one camera; pure.
#[derive(Default)]
pub struct Queue {
    pub waiting: Vec<Waiting>,
    pub commands: VecDeque<oneshot::Sender<SnapAnswer>>,
    pub grab: Option<Grab>,
    /// Slots that are known to come: when, and whose.
    foreseen: BTreeSet<(u64, ScheduleId)>,
    grabs: u64,
    pub stop: bool,
}

/// A slot that falls due, as its camera is told.
#[derive(Debug, Clone)]
pub struct Offered {
    pub slot: Slot,
    /// Between two slots of its schedule: how long it is worth waiting follows from it.
    pub period_ms: u64,
    pub wish: Wish,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    pub slot: Slot,
    pub wish: Wish,
    /// It came when it was due, and not long after: how late its picture is tells of the camera.
    pub in_time: bool,
    give_up_ms: u64,
}

/// A capture under way, or an opening ahead of one.
pub struct Grab {
    number: u64,
    hung_at_ms: u64,
    pub serving: Vec<Waiting>,
    pub hung: bool,
    /// Slots that come meanwhile wait for what they would have to wait for anyway.
    opening: bool,
}

pub type Settled = Vec<(Slot, Outcome)>;

impl Queue {
    /// A slot falls due, or is to be served though it did a while ago: it waits its time from now. Returns slots that end right here.
    pub fn offer(&mut self, Offered { slot, period_ms, wish }: Offered, now_ms: u64) -> Settled {
        self.foreseen.retain(|(due_ms, schedule)| *schedule != slot.schedule || *due_ms > slot.due_ms);
        if let Some(grab) = self.grab.as_ref().filter(|g| g.hung) {
            let detail = format!("the camera has not come back from capture {} and is past {HUNG_TIMEOUTS} time-outs", grab.number);
            return vec![(slot, Outcome::Failed { reason: Failure::new("hung", detail) })];
        }
        let wait_ms = (period_ms / 2).min(BUSY_WAIT_MAX_MS);
        let (in_time, give_up_ms) = (now_ms <= slot.due_ms + wait_ms, slot.due_ms.max(now_ms) + wait_ms);
        let earlier = self.waiting.iter().position(|w| w.slot.schedule == slot.schedule);
        let replaced = earlier.map(|i| (self.waiting.swap_remove(i).slot, Outcome::Missed { reason: Missed::Busy }));
        self.waiting.push(Waiting { slot, wish, in_time, give_up_ms });
        replaced.into_iter().collect()
    }

    /// Ends what waited too long and what hangs. Call at [`Queue::next_check_ms`].
    pub fn check(&mut self, now_ms: u64) -> Settled {
        let mut settled = Settled::new();
        if let Some(grab) = &mut self.grab {
            if !grab.hung && grab.hung_at_ms <= now_ms {
                grab.hung = true;
                let failure =
                    Failure::new("hung", "the camera did not come back from the capture within three time-outs; it may need a restart");
                settled.extend(grab.serving.drain(..).map(|w| (w.slot, Outcome::Failed { reason: failure.clone() })));
            }
            self.waiting.retain(|w| {
                let over = w.give_up_ms <= now_ms && (!grab.opening || grab.hung);
                if over {
                    settled.push((w.slot.clone(), Outcome::Missed { reason: Missed::Busy }));
                }
                !over
            });
        }
        settled
    }

    /// When [`Queue::check`] next has something to do; `None` while nothing is under way.
    pub fn next_check_ms(&self) -> Option<u64> {
        let hung = self.grab.as_ref().filter(|g| !g.hung).map(|g| g.hung_at_ms);
        self.waiting.iter().map(|w| w.give_up_ms).chain(hung).min()
    }

    /// Begins a capture, if there is something to capture: the slots due, and those who asked.
    pub fn begin(&mut self, now_ms: u64, timeout_ms: u64) -> Option<Begun> {
        if self.waiting.is_empty() && self.commands.is_empty() {
            return None;
        }
        let serving = self.due(now_ms, SLOTS_PER_PICTURE_MAX);
        let asked = self.commands.drain(..).collect();
        let label = serving.first().map(|w| w.slot.clone());
        let number = self.enter(now_ms, timeout_ms, serving, false);
        Some(Begun { number, first: label, asked })
    }

    /// Begins to open the camera ahead of a slot.
    pub fn begin_opening(&mut self, now_ms: u64, timeout_ms: u64) {
        self.enter(now_ms, timeout_ms, Vec::new(), true);
    }

    fn enter(&mut self, now_ms: u64, timeout_ms: u64, serving: Vec<Waiting>, opening: bool) -> u64 {
        self.grabs += 1;
        self.grab = Some(Grab { number: self.grabs, hung_at_ms: now_ms + HUNG_TIMEOUTS * timeout_ms, serving, hung: false, opening });
        self.grabs
    }

    /// A schedule's next slot is known, or there is none any more. One that has just fallen due stays known until it is offered: the
    /// camera must not be closed under it. Returns whether there is such a one, so that an offer follows.
    pub fn foresee(&mut self, schedule: &ScheduleId, due_ms: Option<u64>, now_ms: u64) -> bool {
        let mut fallen_due = false;
        self.foreseen.retain(|(due_ms, known)| {
            let fell_due = *known == *schedule && *due_ms <= now_ms;
            fallen_due |= fell_due;
            fell_due || *known != *schedule
        });
        self.foreseen.extend(due_ms.map(|due_ms| (due_ms, schedule.clone())));
        fallen_due
    }

    /// When the next slot that is known of is due.
    pub fn next_ms(&mut self, now_ms: u64) -> Option<u64> {
        self.foreseen.retain(|(due_ms, _)| now_ms < *due_ms + LATE_MS);
        self.foreseen.first().map(|(due_ms, _)| *due_ms)
    }

    /// Takes waiting slots that are due by `taken_ms`.
    pub fn due(&mut self, taken_ms: u64, limit: usize) -> Vec<Waiting> {
        let mut due = Vec::new();
        self.waiting.retain(|w| {
            let take = w.slot.due_ms <= taken_ms && due.len() < limit;
            if take {
                due.push(w.clone());
            }
            !take
        });
        due
    }

    /// Whether this capture goes on, and was not given up as hung.
    pub fn goes_on(&self, number: u64) -> bool {
        self.grab.as_ref().is_some_and(|g| g.number == number && !g.hung)
    }

    /// The frame is there: returns all slots it serves, or `None` if the capture was given up as hung meanwhile.
    pub fn framed(&mut self, number: u64, taken_ms: u64) -> Option<Vec<Waiting>> {
        let grab = self.grab.as_ref().filter(|g| g.number == number && !g.hung)?;
        let room = SLOTS_PER_PICTURE_MAX - grab.serving.len();
        let more = self.due(taken_ms, room);
        let grab = self.grab.as_mut()?;
        grab.serving.extend(more);
        Some(grab.serving.clone())
    }

    /// The capture is over; returns the slots that still need an outcome.
    pub fn end(&mut self) -> Vec<Waiting> {
        self.grab.take().map(|g| g.serving).unwrap_or_default()
    }
}

pub struct Begun {
    pub number: u64,
    /// One of the slots it serves.
    pub first: Option<Slot>,
    pub asked: Vec<oneshot::Sender<SnapAnswer>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(schedule: &str, due_ms: u64) -> Slot {
        Slot { schedule: schedule.parse().unwrap(), boot: 1, due_ms, plan_ms: None }
    }
    fn slots(waiting: &[Waiting]) -> Vec<Slot> {
        waiting.iter().map(|w| w.slot.clone()).collect()
    }

    /// Offers a slot just when it is due.
    impl Queue {
        fn falls_due(&mut self, slot: Slot, period_ms: u64) -> Settled {
            let now_ms = slot.due_ms;
            self.offer(Offered { slot, period_ms, wish: Wish::default() }, now_ms)
        }
    }

    #[test]
    fn one_capture_serves_all_slots_due_before_its_frame_and_no_later_one() {
        let mut queue = Queue::default();
        assert!(queue.falls_due(slot("a", 1_000), 1_000).is_empty() && queue.falls_due(slot("b", 1_000), 2_000).is_empty());
        let begun = queue.begin(1_001, 10_000).unwrap();
        assert_eq!(queue.grab.as_ref().unwrap().serving.len(), 2);
        queue.falls_due(slot("a", 2_000), 1_000);
        queue.falls_due(slot("c", 2_500), 1_000);
        assert_eq!(queue.framed(begun.number, 2_200).unwrap().len(), 3, "a/2000 was due before the frame");
        queue.end();
        queue.begin(2_600, 10_000).unwrap();
        assert_eq!(slots(&queue.grab.unwrap().serving), [slot("c", 2_500)]);
    }

    #[test]
    fn a_slot_that_waits_for_a_busy_camera_too_long_is_missed() {
        let mut queue = Queue::default();
        queue.falls_due(slot("a", 0), 60_000);
        queue.begin(0, 30_000).unwrap();
        queue.falls_due(slot("b", 1_000), 4_000);
        assert_eq!(queue.next_check_ms(), Some(3_000));
        assert!(queue.check(2_999).is_empty());
        assert_eq!(queue.check(3_000), [(slot("b", 1_000), Outcome::Missed { reason: Missed::Busy })]);
        queue.falls_due(slot("b", 5_000), 4_000);
        let replaced = queue.falls_due(slot("b", 9_000), 4_000);
        assert_eq!(replaced, [(slot("b", 5_000), Outcome::Missed { reason: Missed::Busy })], "one waits per schedule");
    }

    #[test]
    fn a_slot_that_waits_for_a_free_camera_is_never_missed() {
        let mut queue = Queue::default();
        queue.falls_due(slot("a", 0), 1_000);
        assert!(queue.check(99_000).is_empty(), "the thread is about to take it");
    }

    #[test]
    fn a_capture_past_three_time_outs_is_hung_and_its_late_frame_serves_nobody() {
        let mut queue = Queue::default();
        queue.falls_due(slot("a", 0), 60_000);
        let begun = queue.begin(0, 1_000).unwrap();
        assert!(matches!(&queue.check(3_000)[..], [(s, Outcome::Failed { reason })] if *s == slot("a", 0) && reason.code == "hung"));
        assert!(matches!(&queue.falls_due(slot("a", 60_000), 60_000)[..], [(_, Outcome::Failed { .. })]));
        assert!(queue.framed(begun.number, 61_000).is_none());
        assert!(queue.end().is_empty(), "each slot got its outcome once");
        queue.falls_due(slot("a", 120_000), 60_000);
        assert!(queue.begin(120_000, 1_000).is_some(), "the camera is back");
    }

    #[test]
    fn a_slot_served_late_waits_its_time_from_when_it_was_offered_and_says_nothing_of_punctuality() {
        let mut queue = Queue::default();
        queue.falls_due(slot("a", 0), 60_000);
        queue.begin(0, 30_000).unwrap();
        let offer = |schedule, due_ms| Offered { slot: slot(schedule, due_ms), period_ms: 4_000, wish: Wish::default() };
        assert!(queue.offer(offer("minutes-late", 1_000), 400_000).is_empty());
        assert!(queue.offer(offer("a-bit-late", 398_500), 400_000).is_empty());
        assert_eq!(queue.next_check_ms(), Some(90_000), "the hung capture");
        assert!(queue.check(401_999).iter().all(|(slot, _)| slot.schedule.as_str() == "a"));
        let in_time: Vec<bool> = queue.waiting.iter().map(|w| w.in_time).collect();
        assert_eq!(in_time, [false, true]);
        assert_eq!(queue.check(402_000).len(), 2);
    }

    #[test]
    fn a_slot_that_comes_while_the_camera_is_opened_for_another_is_not_missed() {
        let mut queue = Queue::default();
        queue.begin_opening(0, 10_000);
        queue.falls_due(slot("a", 500), 1_000);
        assert!(queue.check(9_000).is_empty(), "its own capture would have had to open the camera too");
        assert!(queue.end().is_empty());
        queue.begin(9_000, 10_000).unwrap();
        assert_eq!(slots(&queue.end()), [slot("a", 500)]);
        queue.begin_opening(20_000, 10_000);
        queue.falls_due(slot("a", 20_500), 1_000);
        assert_eq!(queue.check(50_000), [(slot("a", 20_500), Outcome::Missed { reason: Missed::Busy })], "the opening hangs");
        assert!(matches!(&queue.falls_due(slot("a", 60_000), 1_000)[..], [(_, Outcome::Failed { .. })]));
    }

    #[test]
    fn the_next_slot_is_known_until_it_comes_goes_or_is_long_past() {
        let mut queue = Queue::default();
        let (a, b) = (slot("a", 0).schedule, slot("b", 0).schedule);
        assert!(!queue.foresee(&a, Some(4_000), 0) && !queue.foresee(&b, Some(9_000), 0));
        assert!(!queue.foresee(&a, Some(5_000), 0), "planned anew");
        assert_eq!(queue.next_ms(0), Some(5_000));
        assert!(queue.foresee(&a, Some(65_000), 5_000));
        assert_eq!(queue.next_ms(5_000), Some(5_000), "it is about to be offered");
        queue.falls_due(slot("a", 5_000), 60_000);
        assert_eq!(queue.next_ms(5_000), Some(9_000), "the one after it is not forgotten with it");
        queue.foresee(&b, None, 5_000);
        assert_eq!(queue.next_ms(5_000), Some(65_000));
        queue.falls_due(slot("a", 65_000), 60_000);
        assert_eq!(queue.next_ms(65_000), None);
        queue.foresee(&a, Some(70_000), 65_000);
        assert_eq!((queue.next_ms(71_999), queue.next_ms(72_000)), (Some(70_000), None), "it was planned anew");
    }
}
