//! When a camera is open: pure, time by argument.
//!
//! One whose pictures follow each other closely is left open. Any other is closed after its picture, and opened early before the next
//! by what its last opening took: so its frame is taken when it was due, not when it had warmed up, and it is open no longer than
//! that needs. Slots of a short series follow closely whatever the schedule's own interval is.

/// Kept open when pictures come more often than this, or than so many times the warm-up they would cost.
const KEEP_OPEN_BELOW_MS: u64 = 10_000;
const KEEP_OPEN_BELOW_WARM_UPS: u64 = 3;
/// A slot that is known to follow within this is waited for with the camera open.
const SOON_MS: u64 = 5_000;
/// What an opening that was never measured is taken to last.
const WARM_UP_UNKNOWN_MS: u64 = 2_000;
/// On top of the warm-up: a part of it, for one that takes longer than the last, and what the machine's other work may cost.
const MARGIN_PART: u64 = 4;
const MARGIN_MS: u64 = 250;
/// A camera that takes longer is late: it costs power all the time.
const LEAD_MAX_MS: u64 = 60_000;
const LEAD_PART_OF_INTERVAL: u64 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// Between two pictures at the closest, series apart; `None` without schedules.
    pub interval_ms: Option<u64>,
    /// From opening to a usable frame, as measured last.
    pub warm_up_ms: Option<u64>,
    /// False for a source that has nothing to open, such as a program.
    pub opens: bool,
}

/// What a camera does that has no slot to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    Wait {
        /// When there may be something to do though nobody came.
        until_ms: Option<u64>,
    },
    /// Open and warm up, for a slot due then.
    Open {
        due_ms: u64,
    },
    Close,
}

impl Habits {
    /// Whether it is left open between its pictures.
    pub fn stays_open(&self) -> bool {
        let below_ms = KEEP_OPEN_BELOW_MS.max(self.warm_up_ms.unwrap_or(0) * KEEP_OPEN_BELOW_WARM_UPS);
        self.interval_ms.is_some_and(|interval_ms| interval_ms < below_ms)
    }

    /// How long before a slot it has to be opened.
    pub fn lead_ms(&self) -> u64 {
        // The control: it is opened when its slot is due.
        #[cfg(feature = "break")]
        if std::env::var("SHUTTER_BREAK").is_ok_and(|b| b == "no_lead") {
            return 0;
        }
        let warm_up_ms = match self.warm_up_ms {
            _ if !self.opens => 0,
            Some(0) => 0,
            Some(measured_ms) => measured_ms + measured_ms / MARGIN_PART + MARGIN_MS,
            None => WARM_UP_UNKNOWN_MS,
        };
        let most_ms = self.interval_ms.map_or(LEAD_MAX_MS, |ms| LEAD_MAX_MS.min(ms / LEAD_PART_OF_INTERVAL));
        warm_up_ms.min(most_ms)
    }

    /// Whether an open camera is not worth closing before a slot due then.
    pub fn follows(&self, now_ms: u64, due_ms: u64) -> bool {
        due_ms < now_ms + SOON_MS.max(2 * self.lead_ms())
    }

    /// `next_ms`: when the next slot that is known of is due; `tried_ms`: for which one an opening was tried last.
    pub fn idle(&self, now_ms: u64, open: bool, next_ms: Option<u64>, tried_ms: Option<u64>) -> Idle {
        let lead_ms = self.lead_ms();
        match next_ms {
            _ if open && self.stays_open() => Idle::Wait { until_ms: None },
            // Past due and not offered yet: it is about to come, or never will, and then it is no longer known of.
            Some(due_ms) if open && self.follows(now_ms, due_ms) => Idle::Wait { until_ms: Some(due_ms + LATE_MS) },
            _ if open => Idle::Close,
            // An opening that failed is not tried again before the slot's own capture.
            Some(due_ms) if lead_ms > 0 && tried_ms < Some(due_ms) && now_ms < due_ms => {
                let at_ms = due_ms.saturating_sub(lead_ms);
                if now_ms >= at_ms { Idle::Open { due_ms } } else { Idle::Wait { until_ms: Some(at_ms) } }
            }
            _ => Idle::Wait { until_ms: None },
        }
    }
}

/// A slot that is known of and has not come so long after it was due will not come: it was planned anew.
pub const LATE_MS: u64 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    const HOURLY: Habits = Habits { interval_ms: Some(3_600_000), warm_up_ms: Some(2_000), opens: true };

    #[test]
    fn a_camera_stays_open_for_short_intervals_and_where_its_warm_up_would_cost_a_third() {
        for (interval_s, warm_up_ms, open) in [
            (Some(5), None, true),
            (Some(10), None, false),
            (Some(10), Some(400), false),
            (Some(10), Some(3_400), true),
            (Some(3600), Some(3_000), false),
            (None, Some(60_000), false),
        ] {
            let habits = Habits { interval_ms: interval_s.map(|s| s * 1_000), warm_up_ms, opens: true };
            assert_eq!(habits.stays_open(), open, "{habits:?}");
        }
    }

    #[test]
    fn the_lead_is_what_the_last_opening_took_and_a_margin_within_its_bounds() {
        let lead = |interval_ms, warm_up_ms| Habits { interval_ms, warm_up_ms, opens: true }.lead_ms();
        assert_eq!(lead(Some(3_600_000), Some(2_000)), 2_750);
        assert_eq!(lead(Some(3_600_000), None), 2_000);
        assert_eq!(lead(Some(12_000), Some(9_000)), 4_000, "a third of the interval");
        assert_eq!(lead(None, Some(90_000)), 60_000);
        assert_eq!(lead(Some(3_600_000), Some(0)), 0);
        assert_eq!(Habits { opens: false, warm_up_ms: None, ..HOURLY }.lead_ms(), 0);
    }

    #[test]
    fn a_closed_camera_is_opened_its_lead_before_a_slot_once_and_closed_after_it() {
        let due_ms = 1_000_000;
        assert_eq!(HOURLY.idle(900_000, false, Some(due_ms), None), Idle::Wait { until_ms: Some(due_ms - 2_750) });
        assert_eq!(HOURLY.idle(due_ms - 2_750, false, Some(due_ms), None), Idle::Open { due_ms });
        assert_eq!(HOURLY.idle(due_ms - 100, false, Some(due_ms), Some(due_ms)), Idle::Wait { until_ms: None }, "it failed");
        assert_eq!(HOURLY.idle(due_ms - 100, true, Some(due_ms), Some(due_ms)), Idle::Wait { until_ms: Some(due_ms + LATE_MS) });
        assert_eq!(HOURLY.idle(due_ms + 50, true, Some(due_ms + 3_600_000), Some(due_ms)), Idle::Close);
        assert_eq!(HOURLY.idle(due_ms - 100, true, None, Some(due_ms)), Idle::Close, "the slot went away");
        assert_eq!(HOURLY.idle(due_ms, false, None, None), Idle::Wait { until_ms: None });
        let next = due_ms + 3_600_000;
        assert_eq!(HOURLY.idle(next - 1, false, Some(next), Some(due_ms)), Idle::Open { due_ms: next });
    }

    #[test]
    fn a_camera_is_not_closed_within_a_series() {
        let quick = Habits { warm_up_ms: Some(100), ..HOURLY };
        assert!(quick.lead_ms() < 1_000);
        assert_eq!(quick.idle(5_030, true, Some(6_000), Some(5_000)), Idle::Wait { until_ms: Some(6_000 + LATE_MS) });
    }

    /// It would be opened again at once.
    #[test]
    fn what_is_closed_is_not_yet_to_be_opened() {
        for warm_up_ms in [None, Some(0), Some(100), Some(5_000), Some(50_000), Some(900_000)] {
            for interval_ms in [None, Some(10_000), Some(60_000), Some(3_600_000)] {
                let habits = Habits { interval_ms, warm_up_ms, opens: true };
                for ahead_ms in (0..200_000).step_by(500) {
                    if habits.idle(0, true, Some(ahead_ms), None) == Idle::Close {
                        assert!(!matches!(habits.idle(0, false, Some(ahead_ms), None), Idle::Open { .. }), "{habits:?} {ahead_ms}");
                    }
                }
            }
        }
    }
}
