//! Stamps the build with its date: the earliest time any clock of a board can truly show.
//! SOURCE_DATE_EPOCH, where set, makes the build reproducible.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let built = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|s| s.parse().ok()).unwrap_or_else(now);
    println!("cargo::rustc-env=SHUTTERD_BUILD_UNIX={built}");
}
