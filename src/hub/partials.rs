//! Chunked transfers under way, on disk under `partials/<node>/<id>-<hash8>.part`, with a sidecar of what is there.
//!
//! Nothing here is durable, and need not be: chunks survive a restart of the hub, and after a power cut a sidecar may
//! claim bytes that were lost. The picture's own hash finds that out at the end, and a transfer that had been resumed
//! from disk is then asked for anew instead of refused. Space and number are bounded; the oldest transfer goes first.

use crate::model::{Hash8, NodeId, PARTIAL_BYTES_MAX, PARTIAL_RANGES_MAX, PARTIALS_PER_NODE_MAX, PICTURE_BYTES_MAX, SnapshotId};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, fs, io, os::unix::fs::FileExt, path::PathBuf};

/// One picture of one sender: two boards with a cloned card do not spoil each other's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub node: NodeId,
    pub id: SnapshotId,
    pub hash8: Hash8,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Partial {
    len: u64,
    /// `[from, to)`, in order, neither touching nor overlapping.
    ranges: Vec<(u64, u64)>,
    /// Higher was touched later.
    #[serde(skip)]
    touched: u64,
    /// Some of it was written by an earlier run of the hub.
    #[serde(skip)]
    resumed: bool,
}

pub struct Partials {
    dir: PathBuf,
    open: HashMap<Key, Partial>,
    /// Which picture a chunk without correlation data belongs to.
    latest: HashMap<(NodeId, SnapshotId), Hash8>,
    touches: u64,
}

/// All bytes of a transfer.
pub struct Complete {
    pub bytes: Vec<u8>,
    pub resumed: bool,
}

impl Partials {
    /// Finds what an earlier run left behind.
    ///
    /// # Errors
    /// The directory can be neither read nor made.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let mut found = Self { dir, open: HashMap::new(), latest: HashMap::new(), touches: 0 };
        for node in fs::read_dir(&found.dir)?.collect::<Result<Vec<_>, _>>()? {
            let Ok(name) = node.file_name().to_string_lossy().parse::<NodeId>() else { continue };
            for file in fs::read_dir(node.path())?.collect::<Result<Vec<_>, _>>()? {
                let path = file.path();
                let stem = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.rsplit_once('-'));
                let key = stem.and_then(|(id, hash)| Some(Key { node: name.clone(), id: id.parse().ok()?, hash8: hash.parse().ok()? }));
                match (path.extension().and_then(|e| e.to_str()), key) {
                    (Some("ranges"), Some(key)) => {
                        let partial = fs::read(&path).ok().and_then(|b| serde_json::from_slice::<Partial>(&b).ok());
                        let usable = |p: &Partial| p.len <= PICTURE_BYTES_MAX as u64 && p.ranges.iter().all(|r| r.0 < r.1 && r.1 <= p.len);
                        match partial.filter(usable) {
                            Some(partial) => {
                                found.latest.insert((key.node.clone(), key.id), key.hash8);
                                found.open.insert(key, Partial { resumed: true, ..partial });
                            }
                            None => found.forget(&key),
                        }
                    }
                    // Its sidecar comes on its own turn.
                    (Some("part"), Some(_)) if path.with_extension("ranges").exists() => {}
                    _ => drop(fs::remove_file(&path)),
                }
            }
        }
        Ok(found)
    }

    /// Begins a transfer, or goes on with it: the ranges that are already here. `None`: no picture can be that long.
    pub fn init(&mut self, key: &Key, len: u64) -> io::Result<Option<Vec<(u64, u64)>>> {
        if len == 0 || len > PICTURE_BYTES_MAX as u64 {
            return Ok(None);
        }
        self.latest.insert((key.node.clone(), key.id), key.hash8);
        if self.open.get(key).is_none_or(|p| p.len != len) {
            self.forget(key);
            self.make_room(key, len);
            fs::create_dir_all(self.dir.join(key.node.as_str()))?;
            fs::File::create(self.path(key, "part"))?;
            self.latest.insert((key.node.clone(), key.id), key.hash8);
            self.open.insert(key.clone(), Partial { len, ..Partial::default() });
        }
        self.touch(key);
        Ok(Some(self.ranges(key)))
    }

    pub fn ranges(&self, key: &Key) -> Vec<(u64, u64)> {
        self.open.get(key).map(|p| p.ranges.clone()).unwrap_or_default()
    }

    /// The picture that a sender without correlation data means.
    pub fn latest(&self, node: &NodeId, id: SnapshotId) -> Option<Hash8> {
        self.latest.get(&(node.clone(), id)).copied()
    }

    /// Keeps a chunk. False: it was damaged on the way, or belongs to no transfer, and is ignored.
    pub fn chunk(&mut self, key: &Key, offset: u64, crc32c: u32, bytes: &[u8]) -> io::Result<bool> {
        let path = self.path(key, "part");
        let Some(partial) = self.open.get_mut(key) else { return Ok(false) };
        let to = offset.saturating_add(bytes.len() as u64);
        let fits = !bytes.is_empty() && to <= partial.len && partial.ranges.len() < PARTIAL_RANGES_MAX;
        if !fits || crc32c::crc32c(bytes) != crc32c {
            return Ok(false);
        }
        fs::File::options().write(true).open(path)?.write_all_at(bytes, offset)?;
        merge(&mut partial.ranges, offset, to);
        let sidecar = serde_json::to_vec(partial).map_err(io::Error::other)?;
        fs::write(self.path(key, "ranges"), sidecar)?;
        self.touch(key);
        Ok(true)
    }

    /// The whole picture, once every byte is here.
    pub fn complete(&self, key: &Key) -> io::Result<Option<Complete>> {
        match self.open.get(key) {
            Some(p) if p.ranges == [(0, p.len)] => Ok(Some(Complete { bytes: fs::read(self.path(key, "part"))?, resumed: p.resumed })),
            _ => Ok(None),
        }
    }

    /// The transfer is over, or starts again from nothing.
    pub fn forget(&mut self, key: &Key) {
        self.open.remove(key);
        self.latest.remove(&(key.node.clone(), key.id));
        for kind in ["ranges", "part"] {
            if let Err(e) = fs::remove_file(self.path(key, kind))
                && e.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(id = %key.id, "cannot remove a partial transfer: {e}");
            }
        }
    }

    fn make_room(&mut self, new: &Key, len: u64) {
        loop {
            let bytes: u64 = self.open.values().map(|p| p.len).sum();
            let of_node = |k: &&Key| k.node == new.node;
            let crowded = self.open.keys().filter(of_node).count() >= PARTIALS_PER_NODE_MAX;
            if !crowded && bytes + len <= PARTIAL_BYTES_MAX {
                return;
            }
            let candidates = self.open.iter().filter(|(k, _)| !crowded || of_node(k));
            let Some(oldest) = candidates.min_by_key(|(_, p)| p.touched).map(|(k, _)| k.clone()) else { return };
            tracing::warn!(node = %oldest.node, id = %oldest.id, "dropped a partial transfer to make room");
            self.forget(&oldest);
        }
    }

    fn touch(&mut self, key: &Key) {
        self.touches += 1;
        if let Some(partial) = self.open.get_mut(key) {
            partial.touched = self.touches;
        }
    }

    fn path(&self, key: &Key, kind: &str) -> PathBuf {
        self.dir.join(key.node.as_str()).join(format!("{}-{}.{kind}", key.id, key.hash8))
    }
}

/// Adds `[from, to)` to ordered, separate ranges.
fn merge(ranges: &mut Vec<(u64, u64)>, mut from: u64, mut to: u64) {
    ranges.retain(|&(a, b)| {
        let apart = b < from || a > to;
        if !apart {
            (from, to) = (from.min(a), to.max(b));
        }
        apart
    });
    let at = ranges.partition_point(|r| r.0 < from);
    ranges.insert(at, (from, to));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_hold_exactly_the_bytes_that_came(chunks in proptest::collection::vec((0u64..60, 1u64..12), 0..24)) {
            let (mut ranges, mut bytes) = (vec![], [false; 80]);
            for (from, len) in chunks {
                merge(&mut ranges, from, from + len);
                bytes[from as usize..(from + len) as usize].fill(true);
            }
            for (at, here) in bytes.iter().enumerate() {
                prop_assert_eq!(ranges.iter().any(|r| (r.0..r.1).contains(&(at as u64))), *here);
            }
            prop_assert!(ranges.windows(2).all(|w| w[0].1 < w[1].0));
        }
    }
}
