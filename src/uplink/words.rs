//! The small messages: state, info and cameras, and when they are due.

use super::context::Context;
use crate::model::{CameraId, Session};
use crate::protocol::{CameraHealth, CameraState, Completeness, Info, NodeState, State, Topic, VERSION};
use crate::status::ConfigOrigin;
use crate::store::Store;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Everything is said again this often.
const REPEAT_MS: u64 = 900_000;
/// How far back the completeness goes that the hub shows.
const COMPLETENESS_DAYS: i64 = 30;

/// What is yet to be said on this connection. Bounded by nature: a message is a mark, its text is made when it is sent.
#[derive(Default)]
pub struct Words {
    state_due: bool,
    info_due: bool,
    cameras_due: BTreeSet<CameraId>,
    cameras_said: BTreeMap<CameraId, Shown>,
    repeat_ms: u64,
}

/// Health and error code: what makes a camera worth a message of its own. Counters alone wait for the next round.
type Shown = (CameraHealth, Option<String>);

fn shown(camera: &CameraState) -> Shown {
    (camera.state, camera.error.as_ref().map(|error| error.code.clone()))
}

impl Words {
    pub fn say_state(&mut self) {
        self.state_due = true;
    }
    pub fn say_info(&mut self) {
        self.info_due = true;
    }

    /// Marks everything when its time has come, which it has on a new connection.
    pub fn repeat(&mut self, context: &Context, now_ms: u64) {
        if now_ms >= self.repeat_ms {
            self.repeat_ms = now_ms + REPEAT_MS;
            (self.state_due, self.info_due) = (true, true);
            self.cameras_due.extend(context.status.read().cameras.into_keys());
        }
    }
    pub fn repeat_ms(&self) -> u64 {
        self.repeat_ms
    }

    pub fn notice_cameras(&mut self, context: &Context) {
        for (camera, state) in &context.status.read().cameras {
            if self.cameras_said.get(camera) != Some(&shown(state)) {
                self.cameras_due.insert(camera.clone());
            }
        }
    }

    /// The next message: its kind, topic and payload. All are retained.
    pub fn next(
        &mut self,
        context: &Context,
        session: Session,
        store: Option<&Store>,
        fault: Option<&str>,
    ) -> Option<(&'static str, String, Vec<u8>)> {
        let node = &context.node;
        if std::mem::take(&mut self.state_due) {
            let payload = match store {
                Some(_) => state(NodeState::Online, session, None),
                None => state(NodeState::Fault, session, fault.map(str::to_owned).or_else(|| context.status.read().fault)),
            };
            return Some(("state", Topic::State.of(node), payload));
        }
        if std::mem::take(&mut self.info_due) {
            return Some(("info", Topic::Info.of(node), info(context, session, store)));
        }
        while let Some(camera) = self.cameras_due.pop_first() {
            if let Some(state) = context.status.read().cameras.get(&camera) {
                self.cameras_said.insert(camera.clone(), shown(state));
                return Some(("camera", Topic::Camera(camera).of(node), json(state)));
            }
        }
        None
    }
}

/// JSON of a payload. Ours have only string keys, so that nothing can fail.
pub fn json(payload: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(payload).unwrap_or_default()
}

pub fn state(state: NodeState, session: Session, detail: Option<String>) -> Vec<u8> {
    json(&State { v: VERSION, state, session, detail })
}

fn info(context: &Context, session: Session, store: Option<&Store>) -> Vec<u8> {
    let now = context.status.read();
    let (backlog, backlog_bytes) = store.map_or((0, 0), Store::pending_totals);
    let (stored, stored_bytes) = store.map_or((0, 0), Store::totals);
    let (config, config_error) = match now.config {
        ConfigOrigin::File => ("file", None),
        ConfigOrigin::Kept { error } => ("kept", Some(error)),
    };
    json(&Info {
        v: VERSION,
        session,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        speaks: vec![VERSION],
        store: store.map(Store::id),
        cameras: context.cameras.clone(),
        schedules: context.schedules.clone(),
        backlog,
        backlog_bytes,
        stored,
        stored_bytes,
        completeness: store.and_then(|store| completeness(store, context.clock.read().wall_ms)),
        config: config.to_owned(),
        config_error,
        clock: context.clock.read().quality,
        tls_clock: now.uplink.tls_clock,
        clone_seen: now.uplink.clone_seen,
        flash: store.map(|store| store.flash(&context.clock.read())),
    })
}

/// A store that cannot be read has worse to tell than this.
fn completeness(store: &Store, now_ms: i64) -> Option<Completeness> {
    const DAY_MS: i64 = 86_400_000;
    let from_day = now_ms.div_euclid(DAY_MS) - COMPLETENESS_DAYS;
    let mut slots = BTreeMap::new();
    for (_, _, _, counts) in store.days(from_day as i32).ok()? {
        for (label, count) in counts {
            *slots.entry(label).or_default() += count;
        }
    }
    let since = chrono::DateTime::from_timestamp_millis(from_day * DAY_MS)?.format("%Y-%m-%d").to_string();
    Some(Completeness { since, slots })
}
