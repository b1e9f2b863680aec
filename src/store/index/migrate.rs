//! From an older format to the present one, in one commit: a power cut leaves the old index or the new one, nothing between.
//!
//! | format | adds                                                                                          |
//! |--------|-----------------------------------------------------------------------------------------------|
//! | 1      |                                                                                               |
//! | 2      | days (counted from what is on record), ranges of like slots, pins, erasures, questions to the hub; |
//! |        | the list of each schedule's pictures is gone: the outcomes name them; what every commit        |
//! |        | changes is in one table                                                                        |

use super::apply::NOTHING;
use super::book::Book;
use super::tables::{FORMAT, META, PendingKey, STATE, create_tables, cursor_key, pending_key, put_meta, value_key};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

/// Brings the tables up to [`FORMAT`] from the one before it.
pub fn migrate(txn: &WriteTransaction) -> Result<(), redb::Error> {
    create_tables(txn)?;
    txn.delete_table(TableDefinition::<(&str, u32, u64), ()>::new("by_schedule"))?;
    move_state(txn)?;
    let mut book = Book::open(txn, None)?;
    book.count_all()?;
    book.close()?;
    put_meta(txn, "format", &FORMAT)
}

/// What had tables of its own, or stood among what seldom changes.
fn move_state(txn: &WriteTransaction) -> Result<(), redb::Error> {
    let (cursors, pending) = (TableDefinition::<&str, &[u8]>::new("cursors"), TableDefinition::<PendingKey, ()>::new("pending"));
    let mut state = txn.open_table(STATE)?;
    let mut meta = txn.open_table(META)?;
    for name in ["next_seq", "next_gap", "totals", "trusted_ms"] {
        if let Some(value) = meta.remove(name)? {
            state.insert(value_key(name), value.value())?;
        }
    }
    for entry in txn.open_table(cursors)?.iter()? {
        let (schedule, memory) = entry?;
        state.insert(cursor_key(schedule.value()), memory.value())?;
    }
    for entry in txn.open_table(pending)?.iter()? {
        state.insert(pending_key(entry?.0.value()), NOTHING)?;
    }
    txn.delete_table(cursors)?;
    txn.delete_table(pending)?;
    Ok(())
}
