//! What a program says on its standard error, kept short enough for an error text, and without the arguments it was given.

use std::fmt;

/// Kept of the end of what was said.
const KEPT_BYTES: usize = 2 << 10;
/// Lines and characters of it that are told.
const LINES_TOLD: usize = 2;
const CHARS_TOLD: usize = 200;
/// Pieces of arguments shorter than this say nothing, and blanking them out would leave nothing readable.
const SECRET_CHARS_MIN: usize = 4;

/// The end of what a program said, and how much it was.
#[derive(Default)]
pub struct Words {
    end: Vec<u8>,
    total: usize,
}

/// `; it said: "…"`, or nothing.
pub struct Told(String);

impl Words {
    pub fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len());
        self.end.extend_from_slice(bytes);
        // A beginning that may be half an argument is not known as such: it goes as well, when it is told.
        self.end.drain(..self.end.len().saturating_sub(2 * KEPT_BYTES));
    }
    pub fn total(&self) -> usize {
        self.total
    }

    /// The last lines, on one line, with every piece of an argument blanked out.
    pub fn told(&self, arguments: &[String]) -> Told {
        let mut text = String::from_utf8_lossy(&self.end).into_owned();
        if self.total > self.end.len() {
            text = text.split_once(char::is_whitespace).map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        }
        for secret in pieces(arguments) {
            text = text.replace(secret, "…");
        }
        let lines: Vec<&str> = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(LINES_TOLD)..].join(" / ");
        let clean: Vec<char> = last.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let cut = clean.len().saturating_sub(CHARS_TOLD);
        let told: String = clean[cut..].iter().collect();
        Told(if cut > 0 { format!("…{told}") } else { told })
    }
}

/// All that could be a secret, the longest first, so that a part does not spoil the whole. A long option's own name is none.
fn pieces(arguments: &[String]) -> Vec<&str> {
    let mut pieces: Vec<&str> = Vec::new();
    for argument in arguments {
        let value = match argument.strip_prefix("--") {
            Some(option) => option.split_once('=').map_or("", |(_, value)| value),
            None => argument.trim_start_matches('-'),
        };
        // `-pSECRET` is one word.
        pieces.extend(argument.strip_prefix('-').and_then(|rest| Some(rest.split_at_checked(1)?.1)).filter(|_| !value.is_empty()));
        // Of an address the login, and of a script its words.
        let parts = value.split(|c: char| c.is_whitespace() || "=:/@?&,;'\"".contains(c));
        let no_options = parts.filter(|part| !part.starts_with("--"));
        pieces.extend(no_options.chain([value]));
    }
    pieces.retain(|piece| piece.chars().count() >= SECRET_CHARS_MIN);
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
    pieces.dedup();
    pieces
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; it said: \"{}\"", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(said: &[u8], arguments: &[&str]) -> String {
        let mut words = Words::default();
        said.chunks(100).for_each(|chunk| words.push(chunk));
        words.told(&arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>()).to_string()
    }

    #[test]
    fn the_last_lines_are_told_on_one_line_without_control_characters() {
        assert_eq!(told(b"", &[]), "");
        assert_eq!(told(b"\n \r\n", &[]), "");
        assert_eq!(told(b"one\n\ntwo\r\n\x1b[31mthree\n", &[]), "; it said: \"two / ?[31mthree\"");
        assert_eq!(told(b"caf\xc3", &[]), "; it said: \"caf\u{fffd}\"");
        let long = told(&b"word ".repeat(100_000), &[]);
        assert!(long.chars().count() < 250 && long.contains("\"…"), "{long}");
    }

    #[test]
    fn no_piece_of_an_argument_is_told() {
        for (said, arguments) in [
            ("rtsp://u:hunter2@h/x: refused", vec!["-i", "rtsp://u:hunter2@h/x"]),
            ("user u with hunter2 refused", vec!["-i", "rtsp://u:hunter2@h/x"]),
            ("wrong hunter2", vec!["--password=hunter2"]),
            ("wrong hunter2", vec!["-phunter2"]),
            ("wrong hunter2", vec!["-c", "curl -u 'u:hunter2' http://h"]),
            ("a hunter2 word hunter2", vec!["hunter2", "hunter2 word"]),
        ] {
            let said = told(said.as_bytes(), &arguments);
            assert!(!said.contains("hunter2") && said.contains('…'), "{said}");
        }
        // Cut in the middle, it would not be known as one.
        let secret = "hunter2".repeat(500);
        let mut said = secret.clone();
        said.push_str(&"x\n".repeat(1_000));
        assert!(!told(said.as_bytes(), &[&secret]).contains("hunter"));
        // The name of an option, and short words, are what a person needs to read.
        assert_eq!(told(b"unknown option --immediate", &["--immediate", "-n"]), "; it said: \"unknown option --immediate\"");
    }
}
