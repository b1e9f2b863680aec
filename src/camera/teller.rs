//! How a capture ended, as it is told: to the status, to the ledger, and to those who asked for it.

use super::queue::{SnapAnswer, Waiting};
use crate::clock::{Clock, SystemClock};
use crate::model::{CameraId, Failure, Outcome, Skipped, Stamp};
use crate::protocol::{CameraHealth, CameraState, Punctuality};
use crate::status::Status;
use crate::store::{PutError, Store, Stored};
use tokio::sync::oneshot;

/// Why a slot got no picture.
#[derive(Clone)]
pub enum Trouble {
    Failed(Failure),
    Full,
    Fault,
    /// Given up as hung meanwhile: its slots have their outcome.
    Late,
}
impl From<PutError> for Trouble {
    fn from(e: PutError) -> Self {
        match e {
            PutError::Full => Self::Full,
            PutError::Fault => Self::Fault,
            PutError::Unusable(why) => Self::Failed(Failure::new("unusable", why)),
        }
    }
}

/// Tells status and ledger how a capture ended, from the camera's thread or, of a picture that was held, from the store's.
pub struct Teller {
    id: CameraId,
    /// When the camera delivered.
    delivered: Stamp,
    status: Status,
    store: Store,
}

impl Teller {
    pub fn now(id: CameraId, status: Status, store: Store) -> Self {
        let delivered = SystemClock.read().stamp(store.boot());
        Self { id, delivered, status, store }
    }

    /// `slots` get the outcome, unless the commit gave them theirs. `taken_ms`: of the frame, if there was one. Returns the answer for
    /// those who asked.
    pub fn told(&self, slots: &[Waiting], taken_ms: u64, result: Result<Stored, Trouble>) -> SnapAnswer {
        let all = |outcome: Outcome| slots.iter().for_each(|w| self.store.outcome(w.slot.clone(), outcome.clone()));
        match result {
            Ok(stored) => {
                self.good(slots, taken_ms);
                Ok(stored)
            }
            Err(Trouble::Failed(reason)) => {
                failing(&self.status, &self.id, &reason);
                all(Outcome::Failed { reason: reason.clone() });
                Err(reason)
            }
            Err(Trouble::Full) => {
                let reason = Failure::new("full", "the store is full: connect the hub, raise keep.bytes or make room on the disk");
                failing(&self.status, &self.id, &reason);
                all(Outcome::Skipped { reason: Skipped::Full });
                Err(reason)
            }
            // Nothing can be written any more; the next start finds these slots without an outcome.
            Err(Trouble::Fault) => Err(Failure::new("storage", "the store has failed")),
            Err(Trouble::Late) => Err(Failure::new("hung", "the camera came back too late")),
        }
    }

    fn good(&self, slots: &[Waiting], taken_ms: u64) {
        let id = &self.id;
        self.status.edit(|now| {
            // Its camera may be gone from the configuration by now.
            let Some(state) = now.cameras.get_mut(id) else { return };
            if state.state == CameraHealth::Failing {
                tracing::info!(camera = %id, "delivers pictures again");
            }
            // One offered late, on purpose or after a suspend, says nothing about the camera.
            for waited in slots.iter().filter(|w| w.in_time) {
                state.on_time.count(taken_ms.saturating_sub(waited.slot.due_ms));
            }
            *state = CameraState {
                state: CameraHealth::Ok,
                last_good: Some(self.delivered),
                error: None,
                captured: state.captured + 1,
                ..state.clone()
            };
        });
    }
}

/// A capture failed. A lasting fault is logged when it starts, and once more when it ends.
pub fn failing(status: &Status, id: &CameraId, reason: &Failure) {
    status.edit(|now| {
        let state = now.cameras.entry(id.clone()).or_insert_with(unknown);
        if state.error.as_ref().is_none_or(|e| e.code != reason.code) {
            tracing::error!(camera = %id, code = reason.code, "no picture: {}", reason.detail);
        }
        *state = CameraState { state: CameraHealth::Failing, error: Some(reason.clone()), failed: state.failed + 1, ..state.clone() };
    });
}

/// A camera that has not been asked for a picture yet.
pub fn unknown() -> CameraState {
    CameraState {
        v: crate::protocol::VERSION,
        state: CameraHealth::Off,
        last_good: None,
        error: None,
        captured: 0,
        failed: 0,
        on_time: Punctuality::default(),
    }
}

pub fn answer(asked: Vec<oneshot::Sender<SnapAnswer>>, answer: &SnapAnswer) {
    for asked in asked {
        let _ = asked.send(answer.clone());
    }
}
