//! How a [`Change`] becomes rows, inside its one transaction.

use super::book::{Book, News};
use super::change::{Change, Counters};
use super::gaps::Reasons;
use super::rows::{SnapRow, SnapState, bytes, row};
use super::tables::{ASK, BY_CAMERA, ERASURES, FREE, GAPS, GARBAGE, PINS, SNAPS, STATE, STORES, cursor_key, pending_key};
use crate::model::{Seq, SnapshotId, StoreId};
use crate::protocol::GapItem;
use redb::{ReadableTable, WriteTransaction};
use std::collections::BTreeMap;

/// The row of a picture in the backlog: its key says all.
pub const NOTHING: &[u8] = &[];

pub fn store_names(txn: &WriteTransaction) -> Result<BTreeMap<u32, StoreId>, redb::Error> {
    txn.open_table(STORES)?.iter()?.map(|e| e.map(|(k, v)| (k.value(), StoreId(v.value()))).map_err(Into::into)).collect()
}

pub fn apply_snaps(txn: &WriteTransaction, book: &mut Book, change: &Change, next: &mut Counters) -> Result<(), redb::Error> {
    let stores = store_names(txn)?;
    let (mut snaps, mut by_camera) = (txn.open_table(SNAPS)?, txn.open_table(BY_CAMERA)?);
    let (mut pending, mut free) = (txn.open_table(STATE)?, txn.open_table(FREE)?);
    for ((ord, seq), snap) in &change.snaps {
        let camera = snap.camera.as_str();
        snaps.insert((*ord, *seq), bytes(snap)?.as_slice())?;
        by_camera.insert((camera, *ord, *seq), ())?;
        let totals = next.totals.entry(snap.camera.clone()).or_default();
        totals.count += 1;
        totals.bytes += snap.bytes;
        match snap.state {
            SnapState::Pending => {
                pending.insert(pending_key((snap.priority.class(), *ord, *seq)), NOTHING)?;
                totals.pending += 1;
                totals.pending_bytes += snap.bytes;
            }
            SnapState::Acknowledged => {
                free.insert((camera, *ord, *seq), snap.bytes)?;
            }
            SnapState::Ask => {
                txn.open_table(ASK)?.insert((*ord, *seq), ())?;
                totals.pending += 1;
                totals.pending_bytes += snap.bytes;
            }
            SnapState::Corrupt => {}
        }
        let id = SnapshotId { store: stores.get(ord).copied().unwrap_or(next.store), seq: Seq(*seq) };
        book.remember_boot(&snap.taken)?;
        for slot in &snap.slots {
            book.captured(slot, id, &snap.taken)?;
        }
        next.next_seq = next.next_seq.max(seq + 1);
    }
    Ok(())
}

pub fn apply_acks(txn: &WriteTransaction, change: &Change, next: &mut Counters) -> Result<(), redb::Error> {
    if !(change.acks.is_empty() && change.wanted.is_empty()) {
        let mut ask = txn.open_table(ASK)?;
        let (mut snaps, mut pending, mut free) = (txn.open_table(SNAPS)?, txn.open_table(STATE)?, txn.open_table(FREE)?);
        let pins = txn.open_table(PINS)?;
        let acked = change.acks.iter().map(|(key, hash)| (key, Some(hash), SnapState::Pending, SnapState::Acknowledged));
        let wanted = change.wanted.iter().map(|key| (key, None, SnapState::Acknowledged, SnapState::Pending));
        for (key, hash, from, to) in acked.chain(wanted) {
            let Some(mut snap) = snaps.get(key)?.map(|v| row::<SnapRow>(v.value())).transpose()? else { continue };
            let asked = snap.state == SnapState::Ask;
            if (snap.state != from && !asked) || hash.is_some_and(|h| *h != snap.hash8) {
                continue;
            }
            snap.state = to;
            snaps.insert(key, bytes(&snap)?.as_slice())?;
            if asked {
                ask.remove(*key)?;
            }
            let totals = next.totals.entry(snap.camera.clone()).or_default();
            let (camera, queued) = ((snap.camera.as_str(), key.0, key.1), pending_key((snap.priority.class(), key.0, key.1)));
            if to == SnapState::Acknowledged {
                pending.remove(queued)?;
                if pins.get(key)?.is_none() {
                    free.insert(camera, snap.bytes)?;
                }
                totals.pending = totals.pending.saturating_sub(1);
                totals.pending_bytes = totals.pending_bytes.saturating_sub(snap.bytes);
            } else {
                free.remove(camera)?;
                pending.insert(queued, NOTHING)?;
                if !asked {
                    totals.pending += 1;
                    totals.pending_bytes += snap.bytes;
                }
            }
        }
    }
    for (from, to) in &change.answered {
        let (mut ask, mut snaps, mut pending) = (txn.open_table(ASK)?, txn.open_table(SNAPS)?, txn.open_table(STATE)?);
        let unknown = ask.range(*from..=*to)?.map(|e| e.map(|(k, _)| k.value())).collect::<Result<Vec<_>, _>>()?;
        for key in unknown {
            ask.remove(key)?;
            let Some(mut snap) = snaps.get(key)?.map(|v| row::<SnapRow>(v.value())).transpose()? else { continue };
            snap.state = SnapState::Pending;
            pending.insert(pending_key((snap.priority.class(), key.0, key.1)), NOTHING)?;
            snaps.insert(key, bytes(&snap)?.as_slice())?;
        }
    }
    if change.gaps_acked > 0 {
        txn.open_table(GAPS)?.retain_in(..=change.gaps_acked, |_, _| false)?;
    }
    Ok(())
}

/// A pinned picture is not among those that may be deleted, whatever the hub says of it.
pub fn apply_pins(txn: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    if change.pins.is_empty() {
        return Ok(());
    }
    let (mut pins, mut free, snaps) = (txn.open_table(PINS)?, txn.open_table(FREE)?, txn.open_table(SNAPS)?);
    for (key, pin) in &change.pins {
        let Some(snap) = snaps.get(key)?.map(|v| row::<SnapRow>(v.value())).transpose()? else { continue };
        let place = (snap.camera.as_str(), key.0, key.1);
        if *pin {
            pins.insert(key, snap.bytes)?;
            free.remove(place)?;
        } else if pins.remove(key)?.is_some() && matches!(snap.state, SnapState::Acknowledged | SnapState::Corrupt) {
            free.insert(place, snap.bytes)?;
        }
    }
    Ok(())
}

pub fn apply_deletes(txn: &WriteTransaction, change: &Change, next: &mut Counters, reasons: &mut Reasons) -> Result<(), redb::Error> {
    let nothing = change.deletes.is_empty() && change.erased.is_empty() && change.erasures.is_empty();
    if nothing && change.corrupt.is_empty() && change.garbage_gone.is_empty() {
        return Ok(());
    }
    let stores = store_names(txn)?;
    let (mut snaps, mut by_camera) = (txn.open_table(SNAPS)?, txn.open_table(BY_CAMERA)?);
    let (mut pending, mut free, mut garbage) = (txn.open_table(STATE)?, txn.open_table(FREE)?, txn.open_table(GARBAGE)?);
    let mut pins = txn.open_table(PINS)?;
    let gone = change.deletes.iter().map(|(key, reason)| (*key, (*reason).to_owned(), true, false));
    let erased = change.erased.iter().map(|key| (*key, "erased on request".to_owned(), true, true));
    let damaged = change.corrupt.iter().map(|(key, found)| (*key, found.clone(), false, true));
    for (key, reason, forget, pinned_too) in gone.chain(erased).chain(damaged) {
        let pinned = pins.get(key)?.is_some();
        // Pinned by this very commit, after the choice was made.
        if pinned && !pinned_too {
            continue;
        }
        let Some(mut snap) = snaps.get(key)?.map(|v| row::<SnapRow>(v.value())).transpose()? else { continue };
        let camera = snap.camera.clone();
        let totals = next.totals.entry(camera.clone()).or_default();
        if matches!(snap.state, SnapState::Pending | SnapState::Ask) {
            totals.pending = totals.pending.saturating_sub(1);
            totals.pending_bytes = totals.pending_bytes.saturating_sub(snap.bytes);
        }
        // What is still to be sent, or asked for, is not at the hub as far as we know.
        if !matches!(snap.state, SnapState::Acknowledged | SnapState::Corrupt)
            && let Some(store) = stores.get(&key.0)
        {
            reasons.add(GapItem::Tombstone { id: SnapshotId { store: *store, seq: Seq(key.1) }, camera: camera.clone(), reason });
        }
        pending.remove(pending_key((snap.priority.class(), key.0, key.1)))?;
        if snap.state == SnapState::Ask {
            txn.open_table(ASK)?.remove(key)?;
        }
        free.remove((camera.as_str(), key.0, key.1))?;
        if forget {
            totals.count = totals.count.saturating_sub(1);
            totals.bytes = totals.bytes.saturating_sub(snap.bytes);
            garbage.insert(crate::store::path::path_of(&camera, Seq(key.1), &snap.taken).to_string_lossy().as_ref(), ())?;
            by_camera.remove((camera.as_str(), key.0, key.1))?;
            snaps.remove(key)?;
            pins.remove(key)?;
        } else {
            snap.state = SnapState::Corrupt;
            // A damaged picture may still go when its time comes.
            if !pinned {
                free.insert((camera.as_str(), key.0, key.1), snap.bytes)?;
            }
            snaps.insert(key, bytes(&snap)?.as_slice())?;
        }
    }
    let mut erasures = txn.open_table(ERASURES)?;
    for (camera, erasure) in &change.erasures {
        erasures.insert(camera.as_str(), bytes(erasure)?.as_slice())?;
    }
    for path in &change.garbage_gone {
        garbage.remove(path.to_string_lossy().as_ref())?;
    }
    Ok(())
}

pub fn apply_ledger(txn: &WriteTransaction, book: &mut Book, change: &Change, reasons: &mut Reasons) -> Result<(), redb::Error> {
    // Before single slots: two of these that end alike are joined only where no range stands between them.
    for range in &change.ranges {
        book.range(range)?;
        reasons.add(GapItem::Range(range.clone()));
    }
    for (slot, outcome) in &change.outcomes {
        let item = || GapItem::Slot { slot: slot.clone(), outcome: outcome.clone() };
        match book.without(slot, outcome)? {
            News::Known => {}
            News::New => reasons.add(item()),
            News::Joined => reasons.join(item()),
        }
    }
    let mut cursors = txn.open_table(STATE)?;
    for (schedule, memory) in &change.cursors {
        match memory {
            Some(memory) => cursors.insert(cursor_key(schedule.as_str()), memory.as_slice())?,
            None => cursors.remove(cursor_key(schedule.as_str()))?,
        };
    }
    Ok(())
}
