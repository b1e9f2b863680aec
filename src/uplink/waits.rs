//! How long a node waits before it calls the hub: always at random, so that ten thousand of them do not call in chorus.
//!
//! - **After a boot** the first attempt lies anywhere in [`BOOT_SPREAD_MS`]: a region whose power comes back boots within seconds, and
//!   all of it has a backlog. An agent that starts on a board long up connects at once: it starts alone.
//! - **After a failure** anywhere between nothing and a limit that doubles with each failure in a row (full jitter), up to a minute.

/// An agent that starts this soon after its board may be one of many whose power has just come back.
const JUST_BOOTED_MS: u64 = 120_000;
/// Over this long the first attempts are spread. A picture waits no longer for it than for a slow boot.
const BOOT_SPREAD_MS: u64 = 10_000;
/// First and longest limit of the wait after a failure.
const BACKOFF_MS: u64 = 1_000;
const BACKOFF_MAX_MS: u64 = 60_000;

/// Before the first attempt of an agent that starts so long after its board.
pub fn first_wait_ms(boottime_ms: u64, random: u64) -> u64 {
    if boottime_ms < JUST_BOOTED_MS { random % (BOOT_SPREAD_MS + 1) } else { 0 }
}

/// Before the next attempt, after so many failures in a row before the latest one.
pub fn backoff_ms(failures: u32, random: u64) -> u64 {
    let limit = BACKOFF_MS.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX_MS);
    random % (limit + 1)
}

#[cfg(test)]
mod tests;
