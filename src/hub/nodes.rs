//! What the hub knows of each node, in memory for the page and as objects for ever.
//!
//! `node/<node>/{state,info}.json`, `node/<node>/cam/<camera>.json`, `node/<node>/latest/<camera>.json` and
//! `alarm/<node>/<unix_ms>-<kind>.json`. A node once seen never disappears by itself.

use crate::hub::objects::{Objects, StorageFault};
use crate::model::{CameraId, HUB_ALARMS_SHOWN, HUB_NODES_MAX, Hash8, NodeId, SnapshotId, Stamp};
use crate::protocol::{CameraState, Info, NodeState, State};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};

/// A clone that flaps raises one alarm in this time, not one per connection.
const ALARM_AGAIN_MS: i64 = 3_600_000;
/// Two agents under one client id push each other off the broker for ever, and are never online together: this many
/// new sessions in this time are no bad link any more.
const FLAPS: usize = 6;
const FLAPS_MS: i64 = 60_000;

/// Something a node said, and when (hub's clock) it said so for the first time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen<T> {
    pub since_ms: i64,
    pub said: T,
}

/// The newest picture of a camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latest {
    pub id: SnapshotId,
    pub hash8: Hash8,
    pub taken: Stamp,
    pub received_ms: i64,
    pub bytes: u64,
}

impl Latest {
    /// Numbers order one store; between stores (a new card) only trusted clocks can, else the later arrival wins.
    fn newer_than(&self, other: &Self) -> bool {
        if self.id.store == other.id.store {
            return self.id.seq > other.id.seq;
        }
        let trusted = self.taken.quality.trusted() && other.taken.quality.trusted();
        if trusted { self.taken.wall_ms > other.taken.wall_ms } else { self.received_ms >= other.received_ms }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    pub at_ms: i64,
    /// `clone`, `two-pictures`, `two-reasons`, `renamed`.
    pub kind: String,
    pub text: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Node {
    pub state: Option<Seen<State>>,
    pub info: Option<Seen<Info>>,
    pub cameras: BTreeMap<CameraId, Seen<CameraState>>,
    pub latest: BTreeMap<CameraId, Latest>,
    /// Messages that hold reasons for pictures that do not exist.
    pub gap_messages: u64,
    /// Newest last.
    pub alarms: Vec<Alarm>,
    /// When the latest new sessions came online.
    #[serde(skip)]
    arrivals_ms: Vec<i64>,
}

impl Node {
    pub fn all_cameras(&self) -> BTreeSet<&CameraId> {
        let told = self.info.iter().flat_map(|i| &i.said.cameras);
        told.chain(self.cameras.keys()).chain(self.latest.keys()).collect()
    }
}

#[derive(Debug, Clone, Default)]
pub struct Nodes(pub BTreeMap<NodeId, Node>);

impl Nodes {
    /// Reads back what earlier runs have written.
    pub async fn load(objects: &Objects) -> Result<Self, StorageFault> {
        let mut nodes = Self::default();
        let mut names = BTreeSet::new();
        for kind in ["node", "img", "gap", "alarm"] {
            names.extend(objects.list(kind).await?.1.iter().filter_map(|n| n.parse::<NodeId>().ok()));
        }
        for name in names.into_iter().take(HUB_NODES_MAX) {
            let mut node = Node {
                state: read(objects, &format!("node/{name}/state.json")).await?,
                info: read(objects, &format!("node/{name}/info.json")).await?,
                cameras: read_each(objects, &format!("node/{name}/cam")).await?,
                latest: read_each(objects, &format!("node/{name}/latest")).await?,
                ..Node::default()
            };
            for store in objects.list(&format!("gap/{name}")).await?.1 {
                node.gap_messages += objects.list(&format!("gap/{name}/{store}")).await?.0.len() as u64;
            }
            let mut alarms = objects.list(&format!("alarm/{name}")).await?.0;
            alarms.sort();
            for alarm in &alarms[alarms.len().saturating_sub(HUB_ALARMS_SHOWN)..] {
                node.alarms.extend(read(objects, &format!("alarm/{name}/{alarm}")).await?);
            }
            nodes.0.insert(name, node);
        }
        Ok(nodes)
    }

    /// The node's place; `None` when the hub is full of nodes.
    pub fn entry(&mut self, node: &NodeId) -> Option<&mut Node> {
        if !self.0.contains_key(node) && self.0.len() >= HUB_NODES_MAX {
            tracing::warn!(%node, "not kept in view: the hub holds {HUB_NODES_MAX} nodes");
            return None;
        }
        Some(self.0.entry(node.clone()).or_default())
    }
}

/// What a `state` message means.
#[derive(Debug, PartialEq, Eq)]
pub enum StateNews {
    /// Nothing to write down.
    Known,
    Changed,
    /// New sessions come so fast that two agents must be pushing each other out.
    Flapping,
    /// Somebody else's farewell.
    Foreign,
}

impl Node {
    /// Takes in a state.
    pub fn hear_state(&mut self, state: State, now_ms: i64) -> StateNews {
        let up = |s: NodeState| matches!(s, NodeState::Online | NodeState::Fault);
        let former = self.state.as_ref().map(|s| &s.said);
        let foreign = |s: &State| s.session != state.session && up(s.state);
        if !up(state.state) && former.is_some_and(foreign) {
            return StateNews::Foreign;
        }
        if former == Some(&state) {
            return StateNews::Known;
        }
        let mut flapping = false;
        if up(state.state) && former.is_none_or(|f| f.session != state.session) {
            self.arrivals_ms.retain(|&at| now_ms - at < FLAPS_MS);
            self.arrivals_ms.push(now_ms);
            flapping = self.arrivals_ms.len() >= FLAPS;
            if flapping {
                self.arrivals_ms.clear();
            }
        }
        // A reconnect does not change since when the node is there.
        let since_ms = match &self.state {
            Some(seen) if seen.said.state == state.state => seen.since_ms,
            _ => now_ms,
        };
        self.state = Some(Seen { since_ms, said: state });
        if flapping { StateNews::Flapping } else { StateNews::Changed }
    }

    /// Takes in what a node says of itself; true when it has met another agent of its name. Only an agent that lives can tell:
    /// a new session while the former still counts as online is mostly one agent, back before the broker noticed that it
    /// had died.
    pub fn hear_info(&mut self, info: Seen<Info>) -> bool {
        let met = info.said.clone_seen && self.info.as_ref().is_none_or(|known| !known.said.clone_seen);
        self.info = Some(info);
        met
    }

    /// Takes in a picture; true when it is the newest of its camera.
    pub fn hear_picture(&mut self, camera: &CameraId, picture: Latest) -> bool {
        let newest = self.latest.get(camera).is_none_or(|known| picture.newer_than(known));
        if newest {
            self.latest.insert(camera.clone(), picture);
        }
        newest
    }

    /// Takes in an alarm; false when the same was raised lately.
    pub fn hear_alarm(&mut self, alarm: &Alarm) -> bool {
        let same = |a: &Alarm| a.kind == alarm.kind && a.text == alarm.text && alarm.at_ms - a.at_ms < ALARM_AGAIN_MS;
        if self.alarms.iter().any(same) {
            return false;
        }
        self.alarms.push(alarm.clone());
        let old = self.alarms.len().saturating_sub(HUB_ALARMS_SHOWN);
        self.alarms.drain(..old);
        true
    }
}

/// `None` also for an object that this version cannot read: the page then shows less, nothing is lost.
async fn read<T: DeserializeOwned>(objects: &Objects, key: &str) -> Result<Option<T>, StorageFault> {
    let Some(bytes) = objects.get(key).await? else { return Ok(None) };
    Ok(serde_json::from_slice(&bytes).inspect_err(|e| tracing::warn!(key, "cannot be read: {e}")).ok())
}

async fn read_each<T: DeserializeOwned>(objects: &Objects, prefix: &str) -> Result<BTreeMap<CameraId, T>, StorageFault> {
    let mut all = BTreeMap::new();
    for name in objects.list(prefix).await?.0 {
        let Some(camera) = name.strip_suffix(".json").and_then(|n| n.parse().ok()) else { continue };
        if let Some(value) = read(objects, &format!("{prefix}/{name}")).await? {
            all.insert(camera, value);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Session;

    fn state(state: NodeState, session: u64) -> State {
        State { v: 1, state, session: Session(session), detail: None }
    }

    #[test]
    fn a_second_session_is_no_clone_and_a_foreign_farewell_is_ignored() {
        let mut node = Node::default();
        assert_eq!(node.hear_state(state(NodeState::Online, 1), 10), StateNews::Changed);
        assert_eq!(node.hear_state(state(NodeState::Offline, 9), 11), StateNews::Foreign);
        assert_eq!(node.hear_state(state(NodeState::Online, 2), 12), StateNews::Changed);
        assert_eq!(node.state.as_ref().unwrap().since_ms, 10);
    }
}
