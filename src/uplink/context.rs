//! What the uplink needs of the agent.

use crate::clock::Clock;
use crate::config::settings::Hub;
use crate::model::{CameraId, NodeId, ScheduleId};
use crate::status::Status;
use crate::store::Store;
use std::sync::Arc;
use tokio::sync::watch;

/// Everything comes in as an argument, so that a test can run the real uplink.
pub struct Context {
    pub node: NodeId,
    pub hub: Hub,
    pub cameras: Vec<CameraId>,
    pub schedules: Vec<ScheduleId>,
    /// `None` while the store is in fault.
    pub store: watch::Receiver<Option<Store>>,
    pub status: Status,
    pub clock: Arc<dyn Clock>,
    /// The latest time on record that came from a trusted clock.
    pub last_trusted_ms: i64,
}
