//! The tables and their keys.

use super::rows::bytes;
use crate::model::BootNo;
use redb::{TableDefinition, WriteTransaction};
use serde::Serialize;
use std::ops::Range;

/// Version of tables and rows.
pub const FORMAT: u32 = 2;

/// Place of a snapshot: number of its store's incarnation (the table `stores`), and its own. Order is the order of capture.
pub type Key = (u32, u64);
/// Class ([`Priority::class`](crate::model::Priority::class)), then [`Key`]: the backlog's order.
pub type PendingKey = (u8, u32, u64);
/// A part of [`STATE`], then what that part is ordered by.
pub type StateKey<'a> = (u8, u32, u64, &'a str);

pub const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// What every commit changes, in one table: each table that a commit touches costs it a page of 4 KiB at least. Its parts are the days
/// of the ledger, the schedules' cursors, single values and the pictures to be sent; those of today lie together.
pub const STATE: TableDefinition<StateKey<'static>, &[u8]> = TableDefinition::new("state");
pub const STORES: TableDefinition<u32, u64> = TableDefinition::new("stores");
pub const SNAPS: TableDefinition<Key, &[u8]> = TableDefinition::new("snapshots");
pub const BY_CAMERA: TableDefinition<(&str, u32, u64), ()> = TableDefinition::new("by_camera");
/// Pictures whose fate the hub is to be asked about.
pub const ASK: TableDefinition<Key, ()> = TableDefinition::new("ask");
/// Acknowledged pictures of each camera that nobody pinned, oldest first: what may be deleted.
pub const FREE: TableDefinition<(&str, u32, u64), u64> = TableDefinition::new("acknowledged");
/// Pictures that only an erasure may remove, with their bytes. They are not among [`FREE`].
pub const PINS: TableDefinition<Key, u64> = TableDefinition::new("pins");
/// Erasures asked for, by camera: under way until done, then on record.
pub const ERASURES: TableDefinition<&str, &[u8]> = TableDefinition::new("erasures");
pub const GARBAGE: TableDefinition<&str, ()> = TableDefinition::new("garbage");
pub const OUTCOMES: TableDefinition<(&str, u32, u64), &[u8]> = TableDefinition::new("outcomes");
pub const RANGES: TableDefinition<(&str, u32, u64), &[u8]> = TableDefinition::new("ranges");
pub const BOOTS: TableDefinition<u32, &[u8]> = TableDefinition::new("boots");
pub const GAPS: TableDefinition<u64, &[u8]> = TableDefinition::new("gaps");

/// Does something with each table: all of them are listed here, and only here.
macro_rules! each_table {
    (|$table:ident| $do:block) => {
        $crate::store::index::tables::each_table!(@ $table $do
            META STATE STORES SNAPS BY_CAMERA ASK FREE PINS ERASURES GARBAGE OUTCOMES RANGES BOOTS GAPS)
    };
    (@ $table:ident $do:block $($name:ident)*) => {
        $({
            let $table = $crate::store::index::tables::$name;
            $do
        })*
    };
}
pub(super) use each_table;

/// Parts of [`STATE`]. What became of a schedule's slots, by UTC day since 1970, and on days that only an untrusted clock told.
const UNSURE_DAYS: u8 = 0;
const DAYS: u8 = 1;
pub const CURSORS: u8 = 2;
const VALUES: u8 = 3;
/// The backlog: pictures on command and of high priority, then normal ones, then the rest. No other part may follow it.
const PENDING: u8 = 4;

pub fn day_key(unsure: u8, day: i32, schedule: &str) -> StateKey<'_> {
    (if unsure == 0 { DAYS } else { UNSURE_DAYS }, 0, day.abs_diff(i32::MIN).into(), schedule)
}
/// What [`day_key`] was made of.
pub fn day_of((part, _, day, schedule): StateKey<'_>) -> (u8, i32, &str) {
    (u8::from(part == UNSURE_DAYS), i32::MIN.wrapping_add_unsigned(day as u32), schedule)
}
/// All days from this one on are in these two parts.
pub fn days_from(day: i32) -> [Range<StateKey<'static>>; 2] {
    [day_key(1, day, "")..part(DAYS).start, day_key(0, day, "")..part(CURSORS).start]
}
pub fn cursor_key(schedule: &str) -> StateKey<'_> {
    (CURSORS, 0, 0, schedule)
}
pub fn value_key(name: &str) -> StateKey<'_> {
    (VALUES, 0, 0, name)
}
/// What is remembered of one boot besides its row. Rows of boots were there first, and hold no more than they did; whoever does not know
/// these values reads past them.
pub fn boot_key(boot: BootNo, name: &str) -> StateKey<'_> {
    (VALUES, boot, 0, name)
}
/// All values of all boots, and the single ones too.
pub fn values() -> Range<StateKey<'static>> {
    part(VALUES)
}
pub fn pending_key((class, ord, seq): PendingKey) -> StateKey<'static> {
    (PENDING + class, ord, seq, "")
}
/// What [`pending_key`] was made of.
pub fn pending_of((part, ord, seq, _): StateKey<'_>) -> PendingKey {
    (part - PENDING, ord, seq)
}
/// The whole of a part.
pub fn part(part: u8) -> Range<StateKey<'static>> {
    (part, 0, 0, "")..(part + 1, 0, 0, "")
}

pub fn create_tables(txn: &WriteTransaction) -> Result<(), redb::Error> {
    each_table!(|table| {
        txn.open_table(table)?;
    });
    Ok(())
}

pub fn put_meta<T: Serialize>(txn: &WriteTransaction, key: &str, value: &T) -> Result<(), redb::Error> {
    txn.open_table(META)?.insert(key, bytes(value)?.as_slice())?;
    Ok(())
}

/// Values that change with every commit.
pub fn put_value<T: Serialize>(txn: &WriteTransaction, name: &str, value: &T) -> Result<(), redb::Error> {
    txn.open_table(STATE)?.insert(value_key(name), bytes(value)?.as_slice())?;
    Ok(())
}
