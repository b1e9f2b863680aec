//! Which pictures and gap messages of a store are durable here: an index in memory over the object keys.
//!
//! A store's keys are listed when it is first spoken of, at 16 bytes a picture; the objects alone are the truth.

use crate::hub::objects::{Objects, StorageFault};
use crate::model::{Hash8, NodeId, Seq, SnapshotId, StoreId};
use std::collections::{BTreeSet, HashMap};

/// Stores indexed at once; beyond that all are dropped and listed again on demand.
const SHELVES_MAX: usize = 20_000;

#[derive(Debug, Default)]
pub struct Shelf {
    pub have: BTreeSet<(Seq, Hash8)>,
    /// All gap messages up to this number are here, or were confirmed by a hub and are with nobody else any more …
    gaps_through: u64,
    /// … and these beyond it.
    gaps_above: BTreeSet<u64>,
}

impl Shelf {
    pub fn hashes_of(&self, seq: Seq) -> impl Iterator<Item = Hash8> + '_ {
        self.have.range((seq, Hash8(0))..=(seq, Hash8(u64::MAX))).map(|&(_, hash)| hash)
    }
    pub fn gaps(&self) -> u64 {
        self.gaps_through
    }
    pub fn add_gap(&mut self, no: u64) {
        if no > self.gaps_through {
            self.gaps_above.insert(no);
        }
        self.close_up();
    }
    /// The node has no message up to `after` any more: none of them can still come. Not written down, because the node says it
    /// with each message, also to a hub that starts anew.
    pub fn start_gaps_after(&mut self, after: u64) {
        if after > self.gaps_through {
            self.gaps_through = after;
            self.gaps_above = self.gaps_above.split_off(&after.saturating_add(1));
        }
        self.close_up();
    }
    fn close_up(&mut self) {
        while self.gaps_above.remove(&self.gaps_through.saturating_add(1)) {
            self.gaps_through += 1;
        }
    }
}

#[derive(Default)]
pub struct Shelves(HashMap<(NodeId, StoreId), Shelf>);

impl Shelves {
    pub async fn of(&mut self, objects: &Objects, node: &NodeId, store: StoreId) -> Result<&mut Shelf, StorageFault> {
        let key = (node.clone(), store);
        if !self.0.contains_key(&key) {
            if self.0.len() >= SHELVES_MAX {
                self.0.clear();
            }
            let mut shelf = Shelf::default();
            for name in objects.list(&format!("img/{node}/{store}")).await?.0 {
                let parts = name.strip_suffix(".jpg").and_then(|n| n.split_once('-'));
                let parsed = parts.and_then(|(seq, hash)| Some((Seq(seq.parse().ok()?), hash.parse().ok()?)));
                shelf.have.extend(parsed);
            }
            for name in objects.list(&format!("gap/{node}/{store}")).await?.0 {
                if let Some(no) = name.strip_suffix(".json").and_then(|n| n.parse().ok()) {
                    shelf.add_gap(no);
                }
            }
            // A process that died after naming a file may not have flushed that name.
            objects.flush_listed(&format!("img/{node}/{store}"))?;
            objects.flush_listed(&format!("gap/{node}/{store}"))?;
            self.0.insert(key.clone(), shelf);
        }
        Ok(self.0.entry(key).or_default())
    }
}

/// Object key of a picture, without its ending.
pub fn picture_key(node: &NodeId, id: SnapshotId, hash8: Hash8) -> String {
    format!("img/{node}/{}/{}-{hash8}", id.store, id.seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_acknowledged_only_up_to_the_first_hole() {
        let mut shelf = Shelf::default();
        for (no, through) in [(2, 0), (1, 2), (4, 2), (4, 2), (3, 4), (1, 4)] {
            shelf.add_gap(no);
            assert_eq!(shelf.gaps(), through, "after {no}");
        }
    }

    #[test]
    fn what_the_node_has_no_more_is_no_hole() {
        let mut shelf = Shelf::default();
        for no in [55, 58, 60] {
            shelf.add_gap(no);
        }
        shelf.start_gaps_after(56);
        assert_eq!(shelf.gaps(), 56);
        shelf.add_gap(57);
        assert_eq!(shelf.gaps(), 58, "59 is still to come");
        shelf.start_gaps_after(3);
        assert_eq!(shelf.gaps(), 58, "an old copy takes nothing back");
        shelf.start_gaps_after(100);
        assert_eq!(shelf.gaps_above.len(), 0);
    }
}
