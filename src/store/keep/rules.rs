//! The rules in force, as the configuration gives them.

use crate::model::{CameraId, Grain, Tier};
use std::collections::BTreeMap;

/// How much there may be at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    pub bytes: Option<u64>,
    pub count: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    pub age_ms: Option<u64>,
    /// Of all cameras together.
    pub bytes: Option<u64>,
    pub count: Option<u64>,
    pub cameras: BTreeMap<CameraId, Quota>,
    /// What the disk keeps free.
    pub free_bytes: Option<u64>,
    pub free_inodes: Option<u64>,
    /// What is left of older and older pictures; empty: all.
    pub thin: Vec<Tier>,
    /// What is not acknowledged may go too: `when_full = "drop_oldest"`, or there is no hub to acknowledge anything.
    pub drop_oldest: bool,
    /// Old pictures make room on a full disk, without any floor. Not without a hub, unless the owner said so: these pictures are
    /// nowhere else.
    pub on_full_disk: bool,
}

/// One way through a camera's pictures: from an age on, all go, or all but the first of each stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    pub after_ms: u64,
    /// `None`: all go.
    pub leaves: Option<Grain>,
    pub why: &'static str,
}

impl Rules {
    pub fn passes(&self) -> Vec<Pass> {
        let aged = self.age_ms.map(|after_ms| Pass { after_ms, leaves: None, why: "older than keep.age" });
        let begins = [Some(0)].into_iter().chain(self.thin.iter().map(|tier| tier.until_ms));
        let ends = self.thin.iter().map(|tier| Some(tier.grain)).chain([None]);
        // A last tier without an end begins nothing.
        let thinned = begins.zip(ends).filter(|(_, leaves)| *leaves != Some(Grain::All) && !self.thin.is_empty());
        let thinned = thinned.filter_map(|(after, leaves)| Some(Pass { after_ms: after?, leaves, why: "thinned out by keep.thin" }));
        aged.into_iter().chain(thinned).collect()
    }
}
