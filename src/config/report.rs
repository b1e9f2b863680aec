//! What is wrong or doubtful in a configuration, each with its line.
//!
//! A finding never quotes a value that may hold a credential: sources, hub addresses and the text of a line with a
//! syntax error stay unsaid (the TOML library's own error display prints that line, so it is not used).

use std::fmt;

/// Errors told of one file; one with more is no configuration, and a log must not drown in them.
pub(super) const FINDINGS_MAX: usize = 100;

/// One remark on a file. Line 0 means the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Path of the file, as it was given.
    pub origin: String,
    pub line: usize,
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.origin, self.message),
            line => write!(f, "{}:{line}: {}", self.origin, self.message),
        }
    }
}

/// Everything that is wrong with a file, in the order of its lines; never empty. One finding a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Finding>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, finding) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}
impl std::error::Error for ConfigErrors {}

/// A value as a complaint may show it: short, without control characters, and not at all when it looks like an address,
/// which may hold a password that somebody put into the wrong line.
pub(super) fn quoted(text: &str) -> String {
    match text.contains(['@', '/']) {
        true => "this value".to_owned(),
        false => format!("\"{}\"", text.chars().take(40).flat_map(char::escape_debug).collect::<String>()),
    }
}

/// Collects findings while a text is read; positions are byte offsets into it.
pub(super) struct Report<'t> {
    origin: &'t str,
    /// Byte offset of each line's end.
    line_ends: Vec<usize>,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl<'t> Report<'t> {
    pub fn new(origin: &'t str, text: &'t str) -> Self {
        let line_ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        Self { origin, line_ends, errors: Vec::new(), warnings: Vec::new() }
    }
    pub fn error(&mut self, at: usize, message: impl Into<String>) {
        let finding = self.finding(self.line(at), message.into());
        self.errors.push(finding);
    }
    pub fn warning(&mut self, at: usize, message: impl Into<String>) {
        let finding = self.finding(self.line(at), message.into());
        self.warnings.push(finding);
    }
    /// About the file as a whole, not a line of it.
    pub fn error_of_file(&mut self, message: impl Into<String>) {
        let finding = self.finding(0, message.into());
        self.errors.push(finding);
    }
    pub fn warning_of_file(&mut self, message: impl Into<String>) {
        let finding = self.finding(0, message.into());
        self.warnings.push(finding);
    }
    pub fn line(&self, at: usize) -> usize {
        1 + self.line_ends.partition_point(|end| *end < at)
    }
    /// The value with its warnings, if nothing was wrong.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<(T, Vec<Finding>), ConfigErrors> {
        self.errors.sort_by_key(|finding| finding.line);
        self.warnings.sort_by_key(|finding| finding.line);
        match value {
            Some(value) if self.errors.is_empty() => Ok((value, self.warnings)),
            _ => {
                let more = self.errors.len().saturating_sub(FINDINGS_MAX);
                self.errors.truncate(FINDINGS_MAX);
                if more > 0 {
                    let finding = self.finding(0, format!("{more} more errors are not shown"));
                    self.errors.push(finding);
                }
                Err(ConfigErrors(self.errors))
            }
        }
    }
    fn finding(&self, line: usize, message: String) -> Finding {
        Finding { origin: self.origin.to_owned(), line, message }
    }
}
