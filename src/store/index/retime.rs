//! Which pictures are to be told of to the hub again, because their time is known now and was not when they were taken.
//!
//! One place in the index is all that is remembered: every picture up to it has its true time at the hub, or needs none. Pictures lie in
//! the order of their boots, and only the present boot can still get a trusted clock, so nothing before that place is ever missed.

use super::change::Change;
use super::open::Index;
use super::rows::{SnapRow, SnapState, row};
use super::tables::{Key, SNAPS, put_value};
use crate::model::BootNo;
use redb::WriteTransaction;
use std::ops::Bound;

pub const RETIMED: &str = "retimed";

/// What a look found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Untold {
    pub found: Vec<Key>,
    /// Everything up to here was looked at.
    pub upto: Key,
    /// How many rows that were.
    pub rows: usize,
    /// There may be more right behind it.
    pub more: bool,
}

impl Index {
    /// The place up to which all is told.
    pub fn retimed(&self) -> Result<Key, redb::Error> {
        Ok(self.value(RETIMED)?.unwrap_or_default())
    }

    /// Pictures behind a place whose time is known now: at most `found_max`, looking at `rows_max` rows at most. Ends before the first
    /// picture of the present boot whose clock is not trusted yet, and finds nothing while pictures of a lost index come back: the boots'
    /// times come with them.
    pub fn to_retime(&self, after: Key, present: BootNo, rows_max: usize, found_max: usize) -> Result<Untold, redb::Error> {
        let mut untold = Untold { upto: after, ..Untold::default() };
        if self.meta::<Option<u64>>("rebuild")?.flatten().is_some() {
            return Ok(untold);
        }
        let mut times = None;
        let txn = self.read()?;
        let snaps = txn.open_table(SNAPS)?;
        for entry in snaps.range::<Key>((Bound::Excluded(after), Bound::Unbounded))?.take(rows_max) {
            let (key, value) = entry?;
            let snap: SnapRow = row(value.value())?;
            if !snap.taken.quality.trusted() && snap.state != SnapState::Corrupt {
                let times = match &mut times {
                    Some(times) => times,
                    none => none.insert(self.times()?),
                };
                if times.known(snap.taken.boot).is_some() {
                    untold.found.push(key.value());
                } else if snap.taken.boot == present {
                    return Ok(untold);
                }
            }
            (untold.upto, untold.rows) = (key.value(), untold.rows + 1);
            if untold.found.len() == found_max {
                untold.more = true;
                return Ok(untold);
            }
        }
        untold.more = untold.rows == rows_max;
        Ok(untold)
    }
}

/// Moves the place. Pictures that the hub lost will come to it as they were taken: what it is to know of them it has lost too.
pub fn apply_retimed(txn: &WriteTransaction, change: &Change, known: Key) -> Result<(), redb::Error> {
    let told = change.retimed.map_or(known, |(upto, _)| upto);
    let before = change.wanted.iter().min().map_or(told, |(ord, seq)| told.min((*ord, seq.saturating_sub(1))));
    if before == known { Ok(()) } else { put_value(txn, RETIMED, &before) }
}

#[cfg(test)]
#[cfg(not(redb_4_1))]
mod tests;
