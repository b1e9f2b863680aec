//! From an older format to the present one, in one commit: a power cut leaves the old index or the new one, nothing between.

use super::tables::{FORMAT, create_tables, put_meta};
use redb::WriteTransaction;

/// Brings the tables up to [`FORMAT`] from the one before it.
pub fn migrate(txn: &WriteTransaction) -> Result<(), redb::Error> {
    create_tables(txn)?;
    put_meta(txn, "format", &FORMAT)
}
