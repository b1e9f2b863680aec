//! What the wheel's timers are for.

use crate::model::{CameraId, ScheduleId, WHEEL_CAPACITY};
use crate::schedule::Due;
use crate::wheel::Wheel;

pub enum Timer {
    Slot {
        schedule: ScheduleId,
        due: Due,
    },
    /// A schedule without a slot for years: there may be one by now.
    Plan {
        schedule: ScheduleId,
    },
    Check {
        camera: CameraId,
    },
    OpenStore,
    /// The clock is not trusted yet: look again.
    Clock,
    /// Cameras that were held back begin.
    Cameras,
    Watchdog,
}

pub type Timers = Wheel<Timer, WHEEL_CAPACITY>;
