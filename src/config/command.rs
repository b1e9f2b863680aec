//! The program of a `command:` camera, with its arguments: words as in a shell, but no shell reads them.
//!
//! Blanks separate words; '…' keeps all within, "…" all but \" and \\, and a backslash keeps the next character. Nothing is
//! expanded. What a shell would act on (`|`, `>`, `$`, …) is refused outside of quotes instead of handed to the program: whoever
//! writes it expects something that would not happen.
//!
//! Arguments may hold a password. Nothing here prints them, complaints included; only the program's own name is shown.

use std::fmt;

/// What only a shell understands.
const SHELL_ONLY: &[char] = &['|', '&', ';', '<', '>', '$', '`', '\n'];

/// A program and its arguments. Prints as the program's name and how many arguments it has.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// A bare name to be looked for in PATH, or an absolute path.
    pub program: String,
    pub arguments: Vec<String>,
}

impl CommandLine {
    /// Reads what stands behind `command:`.
    /// # Errors
    /// Says what is wrong, without the text.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut words = words(text)?.into_iter();
        let Some(program) = words.next().filter(|program| !program.is_empty()) else {
            return Err("command: needs a program after it, such as \"command:rpicam-still --nopreview --output -\"".to_owned());
        };
        if program.contains('=') {
            return Err(
                "no shell reads this, so no variable can be set before the program; write \"command:env NAME=value program …\"".into()
            );
        }
        if program.contains('/') && !program.starts_with('/') {
            return Err("the program is a name to be found in PATH, or a whole path that begins with /".to_owned());
        }
        Ok(Self { program, arguments: words.collect() })
    }

    /// The program's name without its folder.
    pub fn name(&self) -> &str {
        self.program.rsplit('/').next().unwrap_or(&self.program)
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, many) = (self.arguments.len(), if self.arguments.len() == 1 { "" } else { "s" });
        write!(f, "{} with {count} argument{many}", self.name().escape_debug())
    }
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\0' => return Err("no program can be given a zero character".to_owned()),
            '\'' | '"' => quoted(c, &mut rest, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(after_backslash(&mut rest)?),
            c if SHELL_ONLY.contains(&c) => {
                return Err(format!(
                    "no shell reads this, and {} would reach the program as it is; put it in quotes if that is meant, else write a \
                     script and name that",
                    c.escape_debug()
                ));
            }
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// The rest of a quoted piece, whose opening mark has been read.
fn quoted(mark: char, rest: &mut std::str::Chars, word: &mut String) -> Result<(), String> {
    loop {
        match rest.next() {
            None => return Err(format!("a quote ({mark}) is opened and not closed")),
            Some('\0') => return Err("no program can be given a zero character".to_owned()),
            Some(c) if c == mark => return Ok(()),
            // As in a shell: before anything else a backslash between double quotes is itself.
            Some('\\') if mark == '"' => match rest.clone().next() {
                Some('"' | '\\') => word.push(after_backslash(rest)?),
                _ => word.push('\\'),
            },
            Some(c) => word.push(c),
        }
    }
}

fn after_backslash(rest: &mut std::str::Chars) -> Result<char, String> {
    match rest.next() {
        Some('\0') => Err("no program can be given a zero character".to_owned()),
        Some(c) => Ok(c),
        None => Err("a backslash stands at the end, with nothing behind it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_those_of_a_shell() {
        for (text, expected) in [
            ("a b  c", vec!["a", "b", "c"]),
            (" \ta\t'b c' ", vec!["a", "b c"]),
            (r#"a "b \"c\" \d \\" e"#, vec!["a", r#"b "c" \d \"#, "e"]),
            (r"a b\ c \'d", vec!["a", "b c", "'d"]),
            (r"a 'b\' ''", vec!["a", r"b\", ""]),
            ("a x'y'\"z\"w", vec!["a", "xyzw"]),
            ("a '|' \"$HOME > `x`\"", vec!["a", "|", "$HOME > `x`"]),
            ("gst-launch-1.0 src ! 'video/x-raw(memory:NVMM), width=1920' ! fdsink", {
                vec!["gst-launch-1.0", "src", "!", "video/x-raw(memory:NVMM), width=1920", "!", "fdsink"]
            }),
        ] {
            let line = CommandLine::read(text).unwrap();
            let all: Vec<&str> = std::iter::once(&line.program).chain(&line.arguments).map(String::as_str).collect();
            assert_eq!(all, expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_command_is_refused_without_showing_it() {
        for (text, part) in [
            ("", "needs a program"),
            ("  ", "needs a program"),
            ("'' hunter2", "needs a program"),
            ("a 'hunter2", "a quote (') is opened"),
            ("a \"hunter2", "a quote (\") is opened"),
            ("a hunter2 \\", "a backslash stands at the end"),
            ("a hunter2 | b", "no shell reads this, and | would"),
            ("a hunter2 > b", "no shell reads this, and > would"),
            ("a $hunter2", "no shell reads this, and $ would"),
            ("PASSWORD=hunter2 a", "command:env NAME=value"),
            ("./hunter2 a", "begins with /"),
            ("a hunter2\0", "zero character"),
        ] {
            let said = CommandLine::read(text).unwrap_err();
            assert!(said.contains(part) && !said.contains("hunter2"), "{text}: {said}");
        }
    }

    #[test]
    fn only_the_programs_name_is_shown() {
        let line = CommandLine::read("/opt/x/grab --password hunter2").unwrap();
        assert_eq!(format!("{line} / {line:?}"), "grab with 2 arguments / grab with 2 arguments");
        assert_eq!(CommandLine::read("grab hunter2").unwrap().to_string(), "grab with 1 argument");
    }

    proptest! {
        #[test]
        fn any_words_survive_their_quotes(words in proptest::collection::vec("[^\0]{0,12}", 0..6)) {
            let text: String = words.iter().map(|w| format!(" '{}'", w.replace('\'', r"'\''"))).collect();
            prop_assert_eq!(CommandLine::read(&format!("p{text}")).unwrap().arguments, words);
        }
        #[test]
        fn any_text_is_answered(text in "[\\s\\S]{0,60}") {
            let _ = CommandLine::read(&text);
        }
    }
}
