//! The clock of a board that has lost the time: boot time goes on, the wall clock says what the story wants.

#![allow(dead_code, reason = "each test program uses what it needs")]

use shutterd::clock::{Clock, Reading, SystemClock};
use shutterd::model::Quality;
use std::sync::{Arc, Mutex};

/// Boot time is the machine's, the wall clock is the story's.
#[derive(Clone)]
pub struct BoardClock(Arc<Mutex<(i64, Quality)>>);

impl BoardClock {
    pub fn of_1970() -> Self {
        Self(Arc::new(Mutex::new((0, Quality::Unset))))
    }
    /// Now it is this time.
    pub fn set(&self, wall_ms: i64, quality: Quality) {
        *self.0.lock().unwrap() = (wall_ms - SystemClock.boottime_ms() as i64, quality);
    }
    pub fn offset_ms(&self) -> i64 {
        self.0.lock().unwrap().0
    }
}

impl Clock for BoardClock {
    fn read(&self) -> Reading {
        let ((offset_ms, quality), boottime_ms) = (*self.0.lock().unwrap(), SystemClock.boottime_ms());
        Reading { boottime_ms, wall_ms: boottime_ms as i64 + offset_ms, quality, uncertainty_ms: Some(20) }
    }
}
