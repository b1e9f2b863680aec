//! What a look at a whole store found: a check for each promise, with its count and what is wrong in words.

use serde::Serialize;

/// Findings of one kind that are told one by one.
const TOLD_MAX: usize = 20;

/// One promise, held against all that is there.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What was counted, such as `pictures`.
    pub of: &'static str,
    pub count: u64,
    /// What holds when nothing is wrong, such as `all whole`.
    #[serde(skip)]
    holds: &'static str,
    /// The first of what breaks the promise, and how many there are in all.
    pub problems: Vec<String>,
    pub problems_total: u64,
    /// The first of what is worth knowing and breaks nothing, and how many there are in all.
    pub notes: Vec<String>,
    pub notes_total: u64,
}

impl Check {
    pub fn new(of: &'static str, holds: &'static str) -> Self {
        Self { of, count: 0, holds, problems: Vec::new(), problems_total: 0, notes: Vec::new(), notes_total: 0 }
    }

    pub fn problem(&mut self, what: impl ToString) {
        Self::add(&mut self.problems, &mut self.problems_total, what);
    }
    pub fn note(&mut self, what: impl ToString) {
        Self::add(&mut self.notes, &mut self.notes_total, what);
    }

    fn add(told: &mut Vec<String>, total: &mut u64, what: impl ToString) {
        *total += 1;
        if told.len() < TOLD_MAX {
            // Names come from the disk: whatever they hold, a line stays a line.
            told.push(what.to_string().chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect());
        }
    }

    /// One line, then a line for each finding.
    pub fn lines(&self) -> Vec<String> {
        let verdict = match self.problems_total {
            0 => self.holds.to_owned(),
            n => format!("{} WRONG", grouped(n)),
        };
        let mut lines = vec![format!("{} {}: {verdict}", grouped(self.count), self.of)];
        for (told, total, mark) in [(&self.problems, self.problems_total, "!"), (&self.notes, self.notes_total, "-")] {
            lines.extend(told.iter().map(|what| format!("  {mark} {what}")));
            let rest = total - told.len() as u64;
            if rest > 0 {
                lines.push(format!("  {mark} and {} more", grouped(rest)));
            }
        }
        lines
    }
}

#[derive(Debug, Default, Serialize)]
pub struct Findings {
    pub checks: Vec<Check>,
    /// The disk refused to be read in places: what it holds there is unknown.
    pub disk_failed: bool,
}

impl Findings {
    pub fn problems(&self) -> u64 {
        self.checks.iter().map(|check| check.problems_total).sum()
    }
}

/// A number as people write it: `12,042`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
