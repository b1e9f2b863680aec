//! When a picture was taken, as far as any trusted clock can tell by now.
//!
//! A boot whose clock was once trusted tells the time of all its pictures: its first trusted reading turns boot time into true time, and
//! is never replaced. A boot without one lies between others, and on the boot clock distances are exact:
//!
//! ```text
//!  boot 2, known          boot 3, unknown            boot 4, unknown     boot 5, known
//!  ├──────────────┤   ├─────────●───────────┤   ├──────────────┤     ├───────────
//!         its end ▲             ▲ not before: the end of boot 2 + the picture's boot time
//!                               ▲ not after: the start of boot 5 - what is known of boot 4 - what is known of boot 3 after it
//! ```
//! Where nothing is known before, no picture is older than the program that took it.
//!
//! First readings have values of their own beside the rows of boots (`tables.rs`): a row moves with each reading as good as the last, is
//! not self-describing and could hold no more without a new format, and an older program that wrote it again would drop what it does not
//! know. After a lost index a boot has its time back if one of its pictures was stamped by a trusted clock; else its pictures have bounds
//! here, while the hub keeps the time that it was told.

use super::open::Index;
use super::rows::{BootRow, Built, Synced, row};
use super::tables::{STATE, boot_key, values};
use crate::model::{BootNo, Stamp};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};
use std::collections::BTreeMap;

pub const SYNCED: &str = "synced";
pub const BUILT: &str = "built";

/// What boots say of time besides their rows.
#[derive(Debug, Clone, Default)]
pub struct Anchors {
    pub synced: BTreeMap<BootNo, Synced>,
    pub built: BTreeMap<BootNo, Built>,
}

/// Boots, and when they were.
#[derive(Debug, Clone, Default)]
pub struct Times(BTreeMap<BootNo, Span>);

#[derive(Debug, Clone, Copy, Default)]
struct Span {
    known: Option<Synced>,
    /// Bounds of wall minus boot time.
    earliest_ms: Option<i64>,
    latest_ms: Option<i64>,
    /// When the next boot had begun at the latest.
    over_ms: Option<i64>,
}

impl Times {
    pub fn of(boots: &BTreeMap<BootNo, BootRow>, anchors: &Anchors) -> Self {
        let mut spans = BTreeMap::new();
        let (mut ended_ms, mut came_back) = (None::<i64>, false);
        for (no, boot) in boots {
            // Before such readings were kept, a boot's row was all there was; rows of pictures of a lost index are all there is.
            let of_row = || Synced { at_ms: boot.last_ms, offset_ms: boot.offset_ms, quality: boot.quality, uncertainty_ms: None };
            let known = anchors.synced.get(no).copied().or_else(|| boot.quality.trusted().then(of_row));
            let built = anchors.built.get(no).map(|b| b.built_ms.saturating_sub_unsigned(b.at_ms));
            let after = ended_ms.map(|end| end.saturating_sub_unsigned(first_seen_ms(came_back, boot)));
            let earliest_ms = after.max(built);
            // Its latest reading tells best when it ended.
            let offset_ms = if boot.quality.trusted() { Some(boot.offset_ms) } else { known.map(|k| k.offset_ms).or(earliest_ms) };
            ended_ms = offset_ms.map(|offset| offset.saturating_add_unsigned(boot.last_ms)).or(ended_ms);
            came_back = boot.boot_id.is_empty();
            spans.insert(*no, Span { known, earliest_ms, ..Span::default() });
        }
        let mut over_ms = None::<i64>;
        for (no, span) in spans.iter_mut().rev() {
            let Some(boot) = boots.get(no) else { continue };
            span.over_ms = over_ms;
            span.latest_ms = over_ms.map(|end| end.saturating_sub_unsigned(boot.last_ms));
            let came_back = boots.range(..no).next_back().is_some_and(|(_, before)| before.boot_id.is_empty());
            let offset_ms = span.known.map(|k| k.offset_ms).or(span.latest_ms);
            over_ms = offset_ms.map(|offset| offset.saturating_add_unsigned(first_seen_ms(came_back, boot)));
        }
        Self(spans)
    }

    /// The reading that turns a boot's instants into true time.
    pub fn known(&self, boot: BootNo) -> Option<&Synced> {
        self.0.get(&boot)?.known.as_ref()
    }
    /// How many boots have one.
    pub fn known_count(&self) -> usize {
        self.0.values().filter(|span| span.known.is_some()).count()
    }

    /// The true time of an instant of a boot.
    pub fn wall_ms(&self, boot: BootNo, at_ms: u64) -> Option<i64> {
        Some(self.known(boot)?.offset_ms.saturating_add_unsigned(at_ms))
    }
    /// When a picture was taken.
    pub fn taken_ms(&self, taken: &Stamp) -> Option<i64> {
        if taken.quality.trusted() { Some(taken.wall_ms) } else { self.wall_ms(taken.boot, taken.boottime_ms) }
    }

    /// Not before, and not after: for an instant whose true time is not known. Clocks that contradict each other bound nothing.
    pub fn bounds_ms(&self, boot: BootNo, at_ms: u64) -> (Option<i64>, Option<i64>) {
        let Some(span) = self.0.get(&boot) else { return (None, None) };
        let earliest = span.earliest_ms.map(|offset| offset.saturating_add_unsigned(at_ms));
        // A boot's row lags behind its last picture.
        let latest =
            span.latest_ms.map(|offset| offset.saturating_add_unsigned(at_ms)).map(|at| span.over_ms.map_or(at, |over| at.min(over)));
        if earliest.zip(latest).is_some_and(|(earliest, latest)| earliest > latest) { (None, None) } else { (earliest, latest) }
    }

    /// When a picture was taken at the latest.
    pub fn latest_ms(&self, taken: &Stamp) -> Option<i64> {
        self.taken_ms(taken).or_else(|| self.bounds_ms(taken.boot, taken.boottime_ms).1)
    }

    /// The stamp that a trusted clock would have given, for one that no trusted clock gave.
    pub fn corrected(&self, taken: &Stamp) -> Option<Stamp> {
        let Synced { offset_ms, quality, uncertainty_ms, .. } = *self.known(taken.boot).filter(|_| !taken.quality.trusted())?;
        Some(Stamp { wall_ms: offset_ms.saturating_add_unsigned(taken.boottime_ms), quality, uncertainty_ms, ..*taken })
    }
}

/// A boot begins after the one before it has ended. Only a boot whose row came back from pictures may be the same one as the next, which
/// got a new number when the index was lost: then that is true of what was seen of them.
fn first_seen_ms(came_back: bool, boot: &BootRow) -> u64 {
    if came_back { boot.first_ms } else { 0 }
}

impl Anchors {
    pub fn read(txn: &ReadTransaction) -> Result<Self, redb::Error> {
        let mut anchors = Self::default();
        for entry in txn.open_table(STATE)?.range(values())? {
            let (key, value) = entry?;
            match key.value() {
                (_, boot, _, SYNCED) => _ = anchors.synced.insert(boot, row(value.value())?),
                (_, boot, _, BUILT) => _ = anchors.built.insert(boot, row(value.value())?),
                _ => {}
            }
        }
        Ok(anchors)
    }
}

/// The first one stays, whoever brings another.
pub fn put_once(txn: &WriteTransaction, boot: BootNo, name: &str, value: &[u8]) -> Result<(), redb::Error> {
    let mut state = txn.open_table(STATE)?;
    if state.get(boot_key(boot, name))?.is_none() {
        state.insert(boot_key(boot, name), value)?;
    }
    Ok(())
}

impl Index {
    pub fn anchors(&self) -> Result<Anchors, redb::Error> {
        Anchors::read(&self.read()?)
    }
    pub fn times(&self) -> Result<Times, redb::Error> {
        Ok(Times::of(&self.boots()?, &self.anchors()?))
    }
}

#[cfg(test)]
#[cfg(not(redb_4_1))]
mod tests;
