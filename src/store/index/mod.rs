//! The index: redb tables, their rows, and the one commit that moves them.
//!
//! Every change to what the node remembers is one [`Change`], applied by one durable commit: rows, outcomes, the pending
//! list, gap messages and the next number together, or none of it. A commit writes about 10 pages of 4 KiB for one picture and
//! 14 for eight of one camera (measured), so callers gather.
//!
//! redb settings: two-phase commit (on a disk that lies about flushes one-phase refuses to open twice as often), integrity
//! check on open, quick-repair off (it returned silently wrong data on such a disk), small cache (the default grows to 138 MB
//! over 1 M rows).

mod apply;
mod book;
mod change;
mod counted;
mod gaps;
mod list;
mod migrate;
mod open;
mod read;
mod retime;
mod rows;
pub mod tables;
mod times;

pub use book::{DayRow, known, step_of};
pub use list::Query;
pub use retime::{RETIMED, Untold};
pub use rows::{BootRow, Built, Erasure, RunState, SnapRow, SnapState, Synced, Totals, WrittenDay, row};
pub use tables::{FORMAT, Key, PendingKey};
pub use times::{Anchors, BUILT, SYNCED, Times};

pub use change::{Change, Counters};
pub use counted::{answered, answers};
pub use open::Index;

use apply::{apply_acks, apply_deletes, apply_ledger, apply_pins, apply_snaps};
use book::Book;
use gaps::Reasons;
use retime::apply_retimed;
use rows::bytes;
use tables::{STORES, put_meta, put_value};
use times::put_once;

impl Index {
    /// Applies a change durably. `report` makes gap messages for the hub; `store` numbers are taken from and put back to
    /// `counters`.
    /// # Errors
    /// Nothing may be believed to be stored; the caller must not go on.
    pub fn commit(&self, change: &Change, counters: &mut Counters, report: bool) -> Result<(), redb::Error> {
        // As long as somebody reads what was before, redb leaves the pages that this commit frees to the next one. Otherwise it frees them
        // at once, and the list of what that changed costs the next commit a page.
        let _before = self.read()?;
        let txn = self.begin()?;
        let mut next = counters.clone();
        if let Some((ord, store, board)) = &change.new_store {
            (next.ord, next.store) = (*ord, *store);
            next.next_gap = gaps::renumber(&txn, *store)?;
            txn.open_table(STORES)?.insert(ord, store.0)?;
            put_meta(&txn, "ord", ord)?;
            put_meta(&txn, "board", board)?;
            put_meta(&txn, "format", &FORMAT)?;
        }
        for (ord, store) in &change.old_stores {
            txn.open_table(STORES)?.insert(ord, store.0)?;
        }
        let mut reasons = Reasons::open(&txn, change.gap_unseen, &next)?;
        let mut book = Book::open(&txn, change.boot.as_ref())?;
        apply_snaps(&txn, &mut book, change, &mut next)?;
        apply_acks(&txn, change, &mut next)?;
        if change.retimed.is_some() || !change.wanted.is_empty() {
            apply_retimed(&txn, change, self.retimed()?)?;
        }
        if let Some((boot, synced)) = &change.synced {
            put_once(&txn, *boot, SYNCED, &bytes(synced)?)?;
        }
        if let Some((boot, built)) = &change.built {
            put_once(&txn, *boot, BUILT, &bytes(built)?)?;
        }
        apply_pins(&txn, change)?;
        apply_deletes(&txn, change, &mut next, &mut reasons)?;
        apply_ledger(&txn, &mut book, change, &mut reasons)?;
        book.close()?;
        if report {
            reasons.write(&txn, &mut next)?;
        }
        put_value(&txn, "next_seq", &next.next_seq)?;
        put_value(&txn, "next_gap", &next.next_gap)?;
        if let Some(below) = &change.rebuild {
            put_meta(&txn, "rebuild", below)?;
        }
        if let Some(run) = &change.run {
            put_meta(&txn, "run", run)?;
        }
        if let Some(marks) = &change.sweep_marks {
            put_meta(&txn, "sweep", marks)?;
        }
        if !change.written.is_empty() {
            put_value(&txn, "written", &change.written)?;
        }
        if let Some(ms) = &change.trusted_ms {
            put_value(&txn, "trusted_ms", ms)?;
        }
        if next.totals != counters.totals {
            put_value(&txn, "totals", &next.totals)?;
        }
        txn.commit()?;
        *counters = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
