//! The tables and their keys.

use super::rows::bytes;
use redb::{TableDefinition, WriteTransaction};
use serde::Serialize;

/// Version of tables and rows.
pub const FORMAT: u32 = 2;

/// Place of a snapshot: number of its store's incarnation (the table `stores`), and its own. Order is the order of capture.
pub type Key = (u32, u64);
/// Schedule, 1 if only an untrusted clock tells the day, and the UTC day since 1970.
pub type DayKey<'a> = (&'a str, u8, i32);
/// Class (0 on command, 1 scheduled), then [`Key`]: the backlog's order.
pub type PendingKey = (u8, u32, u64);

pub const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub const STORES: TableDefinition<u32, u64> = TableDefinition::new("stores");
pub const SNAPS: TableDefinition<Key, &[u8]> = TableDefinition::new("snapshots");
pub const BY_CAMERA: TableDefinition<(&str, u32, u64), ()> = TableDefinition::new("by_camera");
/// Pictures whose fate the hub is to be asked about.
pub const ASK: TableDefinition<Key, ()> = TableDefinition::new("ask");
pub const PENDING: TableDefinition<PendingKey, ()> = TableDefinition::new("pending");
/// Acknowledged pictures of each camera that nobody pinned, oldest first: what may be deleted.
pub const FREE: TableDefinition<(&str, u32, u64), u64> = TableDefinition::new("acknowledged");
/// Pictures that only an erasure may remove, with their bytes. They are not among [`FREE`].
pub const PINS: TableDefinition<Key, u64> = TableDefinition::new("pins");
/// Erasures asked for, by camera: under way until done, then on record.
pub const ERASURES: TableDefinition<&str, &[u8]> = TableDefinition::new("erasures");
pub const GARBAGE: TableDefinition<&str, ()> = TableDefinition::new("garbage");
pub const OUTCOMES: TableDefinition<(&str, u32, u64), &[u8]> = TableDefinition::new("outcomes");
pub const RANGES: TableDefinition<(&str, u32, u64), &[u8]> = TableDefinition::new("ranges");
/// What became of the slots of each schedule and UTC day; 1 for days that only an untrusted clock told.
pub const DAYS: TableDefinition<DayKey<'static>, &[u8]> = TableDefinition::new("days");
pub const CURSORS: TableDefinition<&str, &[u8]> = TableDefinition::new("cursors");
pub const BOOTS: TableDefinition<u32, &[u8]> = TableDefinition::new("boots");
pub const GAPS: TableDefinition<u64, &[u8]> = TableDefinition::new("gaps");

/// Does something with each table: all of them are listed here, and only here.
macro_rules! each_table {
    (|$table:ident| $do:block) => {
        $crate::store::index::tables::each_table!(@ $table $do
            META STORES SNAPS BY_CAMERA PENDING ASK FREE PINS ERASURES GARBAGE OUTCOMES RANGES DAYS CURSORS BOOTS GAPS)
    };
    (@ $table:ident $do:block $($name:ident)*) => {
        $({
            let $table = $crate::store::index::tables::$name;
            $do
        })*
    };
}
pub(super) use each_table;

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
