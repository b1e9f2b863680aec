//! The file as a tree with positions: syntax, names of keys, types of values.
//!
//! Not `serde` derives: they stop at the first wrong value, and a person at a board wants all mistakes of a file at
//! once, each with its line. The TOML library's own tree keeps the position of every key and value.

use super::report::{FINDINGS_MAX, Report};
use std::collections::HashSet;
use std::ops::RangeInclusive;
use toml::de::{DeTable, DeValue};

/// Texts of one list.
const LIST_MAX: usize = 64;

/// A value, and where it stands in the text (byte offset).
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub value: T,
    pub at: usize,
}

/// A table of the file, its keys known to be valid.
pub(super) struct Section<'a, 't> {
    /// As in the file: `[cameras.gate]`.
    pub title: String,
    pub at: usize,
    table: &'a DeTable<'t>,
}

/// Reads the syntax. `None`: it is so broken that judging values would only add noise.
pub(super) fn read<'t>(text: &'t str, report: &mut Report) -> Option<DeTable<'t>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let (mut lines_said, mut broken) = (HashSet::new(), false);
    for error in errors {
        if lines_said.len() > FINDINGS_MAX {
            return None;
        }
        let at = error.span().map_or(text.len(), |span| span.start.min(text.len()));
        let duplicate = error.message().starts_with("duplicate key");
        broken |= !duplicate;
        // One slip makes the parser stumble several times over the same line, and over each key of a doubled section.
        let told = duplicate && !line_of(text, at).starts_with('[') && lines_said.contains(&header_line(text, report.line(at)));
        if !told && lines_said.insert(report.line(at)) {
            let key = error.span().and_then(|span| text.get(span)).unwrap_or_default();
            let message = if duplicate { duplicate_message(text, at, key, report) } else { syntax_message(text, at, error.message()) };
            report.error(at, message);
        }
    }
    (!broken).then(|| tree.into_inner())
}

impl<'a, 't> Section<'a, 't> {
    /// The whole file.
    pub fn root(table: &'a DeTable<'t>, known: &[&str], report: &mut Report) -> Self {
        let root = Self { title: String::new(), at: 0, table };
        root.refuse_unknown(known, report);
        root
    }

    /// The table under `key`, if there is one.
    pub fn section(&self, key: &str, known: &[&str], report: &mut Report) -> Option<Section<'a, 't>> {
        let (name, value) = self.table.get_key_value(key)?;
        let section = self.as_section(key, name.span().start, value.get_ref(), report)?;
        section.refuse_unknown(known, report);
        Some(section)
    }

    /// The tables under `key`, such as all `[cameras.NAME]`, in the order of the file.
    pub fn named(&self, key: &str, known: &[&str], report: &mut Report) -> Vec<(At<&'a str>, Section<'a, 't>)> {
        let Some((name, value)) = self.table.get_key_value(key) else { return Vec::new() };
        let Some(all) = self.as_section(key, name.span().start, value.get_ref(), report) else { return Vec::new() };
        let mut found: Vec<_> = all
            .table
            .iter()
            .filter_map(|(name, value)| {
                let at = name.span().start;
                let section = all.as_section(name.get_ref(), at, value.get_ref(), report)?;
                section.refuse_unknown(known, report);
                Some((At { value: &**name.get_ref(), at }, section))
            })
            .collect();
        found.sort_by_key(|(name, _)| name.at);
        found
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where a key stands, or the section when it is not there.
    pub fn place(&self, key: &str) -> usize {
        self.table.get_key_value(key).map_or(self.at, |(name, _)| name.span().start)
    }

    pub fn text(&self, key: &str, expected: &str, report: &mut Report) -> Option<At<&'a str>> {
        let value = self.table.get(key)?;
        let found = value.get_ref().as_str();
        if found.is_none() {
            self.wrong_type(key, expected, value.get_ref(), report);
        }
        Some(At { value: found?, at: value.span().start })
    }

    /// A text that means something: what `read` makes of it, or its complaint.
    pub fn parsed<T>(&self, key: &str, expected: &str, report: &mut Report, read: impl FnOnce(&str) -> Result<T, String>) -> Option<At<T>> {
        let text = self.text(key, expected, report)?;
        match read(text.value) {
            Ok(value) => Some(At { value, at: text.at }),
            Err(complaint) => {
                self.error(key, complaint, report);
                None
            }
        }
    }

    pub fn number(&self, key: &str, range: RangeInclusive<u64>, report: &mut Report) -> Option<u64> {
        let value = self.table.get(key)?;
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(key, &expected, value.get_ref(), report);
            return None;
        };
        let found = u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| range.contains(n));
        if found.is_none() {
            self.error(key, format!("{number} is out of range; write {expected}"), report);
        }
        found
    }

    /// A number with or without a fraction.
    pub fn decimal(&self, key: &str, range: RangeInclusive<f64>, report: &mut Report) -> Option<f64> {
        let value = self.table.get(key)?;
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let text = match value.get_ref() {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) => number.as_str(),
            other => {
                self.wrong_type(key, &expected, other, report);
                return None;
            }
        };
        let found = text.parse().ok().filter(|number| range.contains(number));
        if found.is_none() {
            self.error(key, format!("{text} is out of range; write {expected}"), report);
        }
        found
    }

    /// A text, or a list of texts: what `read` makes of each, or its complaints, each at the line of its text.
    pub fn each_parsed<T>(
        &self,
        key: &str,
        expected: &str,
        report: &mut Report,
        mut read: impl FnMut(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.table.get(key)?;
        let items = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![value],
        };
        if items.is_empty() {
            self.error(key, format!("is an empty list; write {expected}"), report);
        }
        if items.len() > LIST_MAX {
            self.error(key, format!("is a list of {}; {LIST_MAX} is the most", items.len()), report);
            return None;
        }
        let mut found = Vec::with_capacity(items.len());
        for item in &items {
            match item.get_ref().as_str().map(&mut read) {
                Some(Ok(value)) => found.push(value),
                Some(Err(complaint)) => report.error(item.span().start, format!("{} {key}: {complaint}", self.title)),
                None => self.wrong_type(key, expected, item.get_ref(), report),
            }
        }
        (!found.is_empty() && found.len() == items.len()).then_some(found)
    }

    pub fn flag(&self, key: &str, report: &mut Report) -> Option<bool> {
        let value = self.table.get(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong_type(key, "true or false", value.get_ref(), report);
        }
        found
    }

    pub fn is_text(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().as_str().is_some())
    }

    /// A complaint about a key of this section (or about its absence).
    pub fn error(&self, key: &str, complaint: impl AsRef<str>, report: &mut Report) {
        report.error(self.place(key), format!("{} {key}: {}", self.title, complaint.as_ref()));
    }

    fn as_section(&self, key: &str, at: usize, value: &'a DeValue<'t>, report: &mut Report) -> Option<Section<'a, 't>> {
        let path = self.title.trim_matches(['[', ']']);
        let title = if path.is_empty() { format!("[{}]", plain(key)) } else { format!("[{path}.{}]", plain(key)) };
        match value {
            DeValue::Table(table) => Some(Section { title, at, table }),
            DeValue::Array(_) => {
                report.error(at, format!("{title} is written as a list; use single brackets, and a name of its own for each"));
                None
            }
            other => {
                report.error(at, format!("{title}: expected a section, got {}", type_name(other)));
                None
            }
        }
    }

    fn wrong_type(&self, key: &str, expected: &str, got: &DeValue, report: &mut Report) {
        self.error(key, format!("expected {expected}, got {}", type_name(got)), report);
    }

    fn refuse_unknown(&self, known: &[&str], report: &mut Report) {
        for (key, value) in self.table.iter() {
            if known.contains(&&**key.get_ref()) {
                continue;
            }
            let what = if value.get_ref().is_table() { "section" } else { "key" };
            let place = if self.title.is_empty() { String::new() } else { format!(" in {}", self.title) };
            let advice = if **key.get_ref() == *"password" {
                "passwords do not stand in a key of their own; name a file with password_file".to_owned()
            } else {
                suggestion(key.get_ref(), known.iter().copied())
            };
            report.error(key.span().start, format!("unknown {what} \"{}\"{place}; {advice}", plain(key.get_ref())));
        }
    }
}

/// The known name that was probably meant, or all of them.
pub(super) fn suggestion<'n>(name: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    match nearest(name, known.clone()) {
        Some(candidate) => format!("did you mean \"{candidate}\"?"),
        None if known.clone().next().is_some() => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
        None => "there is none yet".to_owned(),
    }
}

/// The known name that was probably meant.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let (wrong, candidate) = known.map(|candidate| (distance(name, candidate), candidate)).min()?;
    // A third of the letters wrong is still a slip; more is another word.
    (wrong <= 1 + candidate.len() / 3).then_some(candidate)
}

/// Levenshtein distance, of names short enough to be slips.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A key as it may be shown: one that is no plain word could be a misplaced address with its password.
fn plain(key: &str) -> &str {
    let word = key.len() <= 40 && key.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_');
    if word { key } else { "…" }
}

fn type_name(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

fn line_of(text: &str, at: usize) -> &str {
    let start = text.as_bytes()[..at].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    text[start..].lines().next().unwrap_or_default().trim()
}

/// The line of the section's header that a line stands under.
fn header_line(text: &str, line: usize) -> usize {
    let above = text.lines().take(line.saturating_sub(1)).collect::<Vec<_>>();
    above.iter().rposition(|line| line.trim_start().starts_with('[')).map_or(0, |index| index + 1)
}

fn duplicate_message(text: &str, at: usize, key: &str, report: &Report) -> String {
    let line = line_of(text, at);
    if !line.starts_with('[') {
        return format!("\"{}\" is set a second time in this section; delete one of the two lines", plain(key));
    }
    let header = line.split('#').next().unwrap_or_default().trim();
    let first = text.match_indices(header).find(|(i, _)| line_of(text, *i).starts_with(header)).map(|(i, _)| report.line(i));
    let first = first.map_or(String::new(), |line| format!(" (the first is on line {line})"));
    format!("a second section of the name \"{}\"{first}; give one of them another name, or delete it", plain(key))
}

/// The parser's words without the line it stumbled over, and what is most often meant.
fn syntax_message(text: &str, at: usize, said: &str) -> String {
    let line = line_of(text, at);
    let advice = match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
        _ if line.starts_with('[') => "a section is written [name], such as [cameras.gate]",
        None => "a line is written key = value",
        Some(("", _)) => "a line is written key = value",
        Some((_, "")) => "the value is missing",
        Some((_, value)) if value.starts_with(['"', '\'']) => "a text stands between two double quotes; a backslash in it is written \\\\",
        Some((key, _)) if key.contains(' ') => "a line is written key = value",
        Some(_) => "a text stands between double quotes, such as every = \"5m\"; numbers, true and false stand alone",
    };
    // The parser asks for "literal string", TOML's name of a rarer kind of quotes, and for "nothing".
    let said = said.trim_end_matches(", expected literal string").trim_end_matches(", expected nothing");
    format!("this line is not TOML ({said}); {advice}")
}
