//! When a schedule is in force: windows of the day, of the week, of the year, by the clock or by the sun.

/// A union of windows.
#[derive(Debug, Clone, PartialEq)]
pub struct During {
    /// Milliseconds of the UTC day.
    pub from_ms: i64,
    pub to_ms: i64,
}

impl During {
    /// Whether an instant (UTC milliseconds) lies inside: the beginning of a window does, its end does not.
    pub fn contains(&self, wall_ms: i64) -> bool {
        (self.from_ms..self.to_ms).contains(&wall_ms.rem_euclid(86_400_000))
    }

    /// The first instant at or after `wall_ms` that lies inside; `None` if there is none in the coming years.
    pub fn open_from(&self, wall_ms: i64) -> Option<i64> {
        if self.contains(wall_ms) {
            return Some(wall_ms);
        }
        let day = wall_ms.div_euclid(86_400_000);
        (day..=day + 1).map(|day| day * 86_400_000 + self.from_ms).find(|at| *at >= wall_ms)
    }
}
