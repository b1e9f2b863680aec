//! The numbered messages of reasons for the hub: made by a commit, kept until the hub has them.
//!
//! A message that nobody has seen yet may still grow: a camera that fails for weeks without a link costs one range in one message, not
//! a message a minute.

use super::book::step_of;
use super::change::Counters;
use super::tables::GAPS;
use crate::model::{ScheduleId, StoreId};
use crate::protocol::{self, Gap, GapItem, GapRange, Instant};
use redb::{ReadableTable, WriteTransaction};

/// A message beyond this does not grow: each growth writes all of it again.
const GROWN_BYTES_MAX: usize = 4 << 10;

/// What is to be told, in order.
pub struct Reasons {
    items: Vec<GapItem>,
    /// The message they begin with.
    no: u64,
    news: bool,
}

impl Reasons {
    /// Begins with what message `grow` holds, which nobody has seen yet.
    pub fn open(txn: &WriteTransaction, grow: Option<u64>, next: &Counters) -> Result<Self, redb::Error> {
        let (mut items, mut no) = (Vec::new(), next.next_gap);
        if let Some(last) = grow.filter(|last| last + 1 == next.next_gap)
            && let Some(json) = txn.open_table(GAPS)?.get(last)?.filter(|json| json.value().len() < GROWN_BYTES_MAX)
        {
            (items, no) = (serde_json::from_slice::<Gap>(json.value()).map_err(unreadable)?.items, last);
        }
        Ok(Self { items, no, news: false })
    }

    pub fn add(&mut self, item: GapItem) {
        self.items.push(item);
        self.news = true;
    }

    /// Adds a slot that ended like the one of its schedule before it: both are one range.
    pub fn join(&mut self, item: GapItem) {
        let longer = |last: &mut GapItem| range_with(last, &item).map(|range| *last = GapItem::Range(range));
        match self.items.iter_mut().rev().find(|told| schedule_of(told) == schedule_of(&item)).and_then(longer) {
            Some(()) => self.news = true,
            None => self.add(item),
        }
    }

    pub fn write(self, txn: &WriteTransaction, next: &mut Counters) -> Result<(), redb::Error> {
        if !self.news {
            return Ok(());
        }
        let mut table = txn.open_table(GAPS)?;
        next.next_gap = self.no;
        for items in Gap::cut(&self.items) {
            let message = Gap { v: protocol::VERSION, store: next.store, no: next.next_gap, items: items.to_vec() };
            table.insert(next.next_gap, serde_json::to_vec(&message).map_err(unreadable)?.as_slice())?;
            next.next_gap += 1;
        }
        Ok(())
    }
}

fn schedule_of(item: &GapItem) -> Option<&ScheduleId> {
    match item {
        GapItem::Slot { slot, .. } => Some(&slot.schedule),
        GapItem::Range(range) => Some(&range.schedule),
        GapItem::Tombstone { .. } => None,
    }
}

/// The range of what was told last and a slot that follows at the same distance and for the same reason.
fn range_with(last: &GapItem, item: &GapItem) -> Option<GapRange> {
    let GapItem::Slot { slot, outcome } = item else { return None };
    let to = Instant { boot: slot.boot, due_ms: slot.due_ms, wall_ms: slot.plan_ms };
    match last {
        GapItem::Slot { slot: first, outcome: before } if first.boot == slot.boot && first.due_ms < slot.due_ms => {
            let from = Instant { boot: first.boot, due_ms: first.due_ms, wall_ms: first.plan_ms };
            let range = GapRange { schedule: slot.schedule.clone(), from, to, outcome: before.clone(), count: Some(2) };
            before.same_reason(outcome).then_some(range)
        }
        GapItem::Range(range) if range.to.boot == slot.boot && range.outcome.same_reason(outcome) => {
            let step = step_of(range)?;
            let longer = GapRange { to, count: range.count.map(|count| count + 1), ..range.clone() };
            (slot.due_ms.checked_sub(range.to.due_ms) == Some(step)).then_some(longer)
        }
        _ => None,
    }
}

/// Messages count from 1 in each incarnation: those that the hub has not confirmed go on under the new store's id. Returns the next
/// free number.
pub fn renumber(txn: &WriteTransaction, store: StoreId) -> Result<u64, redb::Error> {
    let mut table = txn.open_table(GAPS)?;
    let old = table.iter()?.map(|e| e.map(|(_, v)| v.value().to_vec())).collect::<Result<Vec<_>, _>>()?;
    table.retain(|_, _| false)?;
    let mut no = 1;
    for json in old {
        let gap: Gap = serde_json::from_slice(&json).map_err(unreadable)?;
        let json = serde_json::to_vec(&Gap { store, no, ..gap }).map_err(unreadable)?;
        table.insert(no, json.as_slice())?;
        no += 1;
    }
    Ok(no)
}

fn unreadable(e: serde_json::Error) -> redb::Error {
    redb::Error::Corrupted(e.to_string())
}
