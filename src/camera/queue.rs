//! Which slots wait for a camera, which a capture serves, which waited too long: pure, time by argument.

use crate::model::{BUSY_WAIT_MAX_MS, Failure, Missed, Outcome, SLOTS_PER_PICTURE_MAX, Slot};
use crate::store::Stored;
use std::collections::VecDeque;
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
    grabs: u64,
    pub stop: bool,
}

pub struct Waiting {
    pub slot: Slot,
    give_up_ms: u64,
}

/// A capture under way.
pub struct Grab {
    number: u64,
    hung_at_ms: u64,
    pub serving: Vec<Slot>,
    pub hung: bool,
}

pub type Settled = Vec<(Slot, Outcome)>;

impl Queue {
    /// A slot falls due. Returns slots that end right here.
    pub fn offer(&mut self, slot: Slot, period_ms: u64) -> Settled {
        if let Some(grab) = self.grab.as_ref().filter(|g| g.hung) {
            let detail = format!("the camera has not come back from capture {} and is past {HUNG_TIMEOUTS} time-outs", grab.number);
            return vec![(slot, Outcome::Failed { reason: Failure::new("hung", detail) })];
        }
        let give_up_ms = slot.due_ms + (period_ms / 2).min(BUSY_WAIT_MAX_MS);
        let earlier = self.waiting.iter().position(|w| w.slot.schedule == slot.schedule);
        let replaced = earlier.map(|i| (self.waiting.swap_remove(i).slot, Outcome::Missed { reason: Missed::Busy }));
        self.waiting.push(Waiting { slot, give_up_ms });
        replaced.into_iter().collect()
    }

    /// Ends what waited too long and what hangs. Call at [`Queue::next_check_ms`].
    pub fn check(&mut self, now_ms: u64) -> Settled {
        let mut settled = Settled::new();
        if let Some(grab) = &mut self.grab {
            self.waiting.retain(|w| {
                let over = w.give_up_ms <= now_ms;
                if over {
                    settled.push((w.slot.clone(), Outcome::Missed { reason: Missed::Busy }));
                }
                !over
            });
            if !grab.hung && grab.hung_at_ms <= now_ms {
                grab.hung = true;
                let failure =
                    Failure::new("hung", "the camera did not come back from the capture within three time-outs; it may need a restart");
                settled.extend(grab.serving.drain(..).map(|slot| (slot, Outcome::Failed { reason: failure.clone() })));
            }
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
        self.grabs += 1;
        let asked = self.commands.drain(..).collect();
        self.grab =
            Some(Grab { number: self.grabs, hung_at_ms: now_ms + HUNG_TIMEOUTS * timeout_ms, serving: serving.clone(), hung: false });
        Some(Begun { number: self.grabs, serving, asked })
    }

    /// Takes waiting slots that are due by `taken_ms`.
    pub fn due(&mut self, taken_ms: u64, limit: usize) -> Vec<Slot> {
        let mut due = Vec::new();
        self.waiting.retain(|w| {
            let take = w.slot.due_ms <= taken_ms && due.len() < limit;
            if take {
                due.push(w.slot.clone());
            }
            !take
        });
        due
    }

    /// The frame is there: returns all slots it serves, or `None` if the capture was given up as hung meanwhile.
    pub fn framed(&mut self, number: u64, taken_ms: u64) -> Option<Vec<Slot>> {
        let grab = self.grab.as_ref().filter(|g| g.number == number && !g.hung)?;
        let room = SLOTS_PER_PICTURE_MAX - grab.serving.len();
        let more = self.due(taken_ms, room);
        let grab = self.grab.as_mut()?;
        grab.serving.extend(more);
        Some(grab.serving.clone())
    }

    /// The capture is over; returns the slots that still need an outcome.
    pub fn end(&mut self) -> Vec<Slot> {
        self.grab.take().map(|g| g.serving).unwrap_or_default()
    }
}

pub struct Begun {
    pub number: u64,
    pub serving: Vec<Slot>,
    pub asked: Vec<oneshot::Sender<SnapAnswer>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(schedule: &str, due_ms: u64) -> Slot {
        Slot { schedule: schedule.parse().unwrap(), boot: 1, due_ms, plan_ms: None }
    }

    #[test]
    fn one_capture_serves_all_slots_due_before_its_frame_and_no_later_one() {
        let mut queue = Queue::default();
        assert!(queue.offer(slot("a", 1_000), 1_000).is_empty() && queue.offer(slot("b", 1_000), 2_000).is_empty());
        let begun = queue.begin(1_001, 10_000).unwrap();
        assert_eq!(begun.serving.len(), 2);
        queue.offer(slot("a", 2_000), 1_000);
        queue.offer(slot("c", 2_500), 1_000);
        assert_eq!(queue.framed(begun.number, 2_200).unwrap().len(), 3, "a/2000 was due before the frame");
        queue.end();
        assert_eq!(queue.begin(2_600, 10_000).unwrap().serving, [slot("c", 2_500)]);
    }

    #[test]
    fn a_slot_that_waits_for_a_busy_camera_too_long_is_missed() {
        let mut queue = Queue::default();
        queue.offer(slot("a", 0), 60_000);
        queue.begin(0, 30_000).unwrap();
        queue.offer(slot("b", 1_000), 4_000);
        assert_eq!(queue.next_check_ms(), Some(3_000));
        assert!(queue.check(2_999).is_empty());
        assert_eq!(queue.check(3_000), [(slot("b", 1_000), Outcome::Missed { reason: Missed::Busy })]);
        queue.offer(slot("b", 5_000), 4_000);
        let replaced = queue.offer(slot("b", 9_000), 4_000);
        assert_eq!(replaced, [(slot("b", 5_000), Outcome::Missed { reason: Missed::Busy })], "one waits per schedule");
    }

    #[test]
    fn a_slot_that_waits_for_a_free_camera_is_never_missed() {
        let mut queue = Queue::default();
        queue.offer(slot("a", 0), 1_000);
        assert!(queue.check(99_000).is_empty(), "the thread is about to take it");
    }

    #[test]
    fn a_capture_past_three_time_outs_is_hung_and_its_late_frame_serves_nobody() {
        let mut queue = Queue::default();
        queue.offer(slot("a", 0), 60_000);
        let begun = queue.begin(0, 1_000).unwrap();
        assert!(matches!(&queue.check(3_000)[..], [(s, Outcome::Failed { reason })] if *s == slot("a", 0) && reason.code == "hung"));
        assert!(matches!(&queue.offer(slot("a", 60_000), 60_000)[..], [(_, Outcome::Failed { .. })]));
        assert!(queue.framed(begun.number, 61_000).is_none());
        assert!(queue.end().is_empty(), "each slot got its outcome once");
        queue.offer(slot("a", 120_000), 60_000);
        assert!(queue.begin(120_000, 1_000).is_some(), "the camera is back");
    }
}
