//! From an older format to the present one, in one commit: a power cut leaves the old index or the new one, nothing between.
//!
//! | format | adds                                                                                          |
//! |--------|-----------------------------------------------------------------------------------------------|
//! | 1      |                                                                                               |
//! | 2      | days (counted from what is on record), ranges of like slots, pins, erasures, questions to the hub; |
//! |        | the list of each schedule's pictures is gone: the outcomes name them                          |

use super::book::Book;
use super::tables::{FORMAT, create_tables, put_meta};
use redb::{TableDefinition, WriteTransaction};

/// Brings the tables up to [`FORMAT`] from the one before it.
pub fn migrate(txn: &WriteTransaction) -> Result<(), redb::Error> {
    create_tables(txn)?;
    txn.delete_table(TableDefinition::<(&str, u32, u64), ()>::new("by_schedule"))?;
    let mut book = Book::open(txn, None)?;
    book.count_all()?;
    book.close()?;
    put_meta(txn, "format", &FORMAT)
}
