//! Exit codes, and how a chain of errors is written for a person.

use std::{error::Error, fmt};

/// How the process ends; systemd and scripts may rely on these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    /// A panic outside of a camera thread: a bug of ours.
    Bug = 70,
    /// A write or flush of the store failed while running: nothing was acknowledged after it.
    Storage = 75,
    /// The configuration cannot be used and no earlier accepted one is kept.
    Config = 78,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}

/// Shows an error with everything that caused it, once each: `cannot open X: Permission denied`.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many libraries repeat their source in their own text.
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said.push_str(&text);
            }
            next = cause.source();
        }
        Ok(())
    }
}
