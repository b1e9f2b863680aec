//! Reads the source tree and holds it to the house rules: layers, one reader of clocks, no loose ends.
//!
//! Each rule is a function from a file's text to complaints, and each has a control: a text that it must complain of.

use std::{fs, path::Path};

/// Rooms by layer, lowest first. A file may use rooms of lower rows and its own; never a neighbour in its row.
/// Finer than the table of `lib.rs` where one room of a layer carries its neighbours: readings, payloads.
const LAYERS: &[&[&str]] = &[
    &["model", "error", "secret"],
    &["clock", "protocol"],
    &["schedule", "wheel", "image", "outbox"],
    &["config"],
    &["capture", "store", "status"],
    &["camera", "uplink"],
    &["agent"],
    &["api"],
    &["cli"],
    &["main", "lib", "bin", "build"],
];
/// The hub stands beside the agent and knows only what both share.
const HUB_USES: &[&str] = &["model", "error", "secret", "clock", "protocol", "image", "hub"];

/// Reads of a clock, and where time comes from instead.
const CLOCK_CALLS: &[&str] = &["Instant::now", "SystemTime::now", "Utc::now", "Local::now", "clock_gettime", "adjtimex", ".elapsed()"];
/// What a finished file does not hold.
const LOOSE_ENDS: &[&str] = &["todo!", "unimplemented!", "dbg!", ".unwrap()", ".expect(", "panic!(", "TODO", "FIXME", "XXX"];
const LINES_MAX: usize = 600;
/// Folders that exist on one machine only.
const MACHINE_PATHS: &[&str] = &["/home/", "/Users/"];

/// Exceptions: (file, part of the line, why it is right there).
const ALLOWED: &[(&str, &str, &str)] = &[
    ("src/build.rs", "SystemTime::now", "the build's own date is what it is for"),
    ("src/capture/pattern.rs", "panic!(", "the test card panics when told to: that is the fault it simulates"),
];

struct Source {
    /// From the package's root, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// Line numbers and lines without tests, comments blanked, string contents kept.
    fn code(&self) -> Vec<(usize, String)> {
        let mut lines = Vec::new();
        if self.path.ends_with("/tests.rs") {
            return lines;
        }
        let mut skip_depth = None::<i64>;
        let mut depth = 0i64;
        let mut test_next = false;
        for (index, line) in self.text.lines().enumerate() {
            let code = without_comment(line);
            let opened = depth;
            depth += braces(&code);
            if skip_depth.is_none() && code.trim_start().starts_with("#[cfg(test)]") {
                test_next = true;
            }
            let skipped = skip_depth.is_some() || test_next;
            if test_next && (code.contains('{') || code.trim_end().ends_with(';')) {
                test_next = false;
                skip_depth = (depth > opened).then_some(opened);
            } else if skip_depth.is_some_and(|limit| depth <= limit) {
                skip_depth = None;
            }
            if !skipped && !code.trim().is_empty() {
                lines.push((index + 1, code));
            }
        }
        lines
    }

    /// The first folder or file below `src`.
    fn room(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
    }

    fn complain(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    fn banned(&self, calls: &[&str], instead: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (number, line) in self.code() {
            let plain = without_strings(&line);
            for call in calls.iter().filter(|call| plain.contains(**call)) {
                let allowed = ALLOWED.iter().any(|(path, part, _)| *path == self.path && plain.contains(part));
                if !allowed {
                    found.push(self.complain(number, format!("{call}: {instead}")));
                }
            }
        }
        found
    }
}

/// Cuts a `//` comment off, unless it stands in a string (an address has two slashes too).
fn without_comment(line: &str) -> String {
    let mut in_string = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' if !line[..at].ends_with('\'') => in_string = !in_string,
            '/' if !in_string && line[at..].starts_with("//") => return line[..at].into(),
            _ => {}
        }
    }
    line.into()
}

fn without_strings(line: &str) -> String {
    let mut out = String::new();
    let (mut in_string, mut escaped) = (false, false);
    for c in line.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' if !out.ends_with('\'') || in_string => in_string = !in_string,
            _ if in_string => {}
            _ => out.push(c),
        }
    }
    out
}

fn braces(line: &str) -> i64 {
    let plain = without_strings(line).replace("'{'", "").replace("'}'", "");
    plain.matches('{').count() as i64 - plain.matches('}').count() as i64
}

/// The rooms that follow `crate::` (or `shutterd::`, in binaries) in the code.
fn rooms_used(source: &Source) -> Vec<(usize, String)> {
    let mut used = Vec::new();
    let code = source.code();
    for (at, (number, line)) in code.iter().enumerate() {
        let plain = without_strings(line);
        for root in ["crate::", "shutterd::"] {
            for (found, _) in plain.match_indices(root) {
                let rest = &plain[found + root.len()..];
                if let Some(group) = rest.strip_prefix('{') {
                    let whole = code[at + 1..].iter().fold(group.to_owned(), |all, (_, line)| all + line);
                    used.extend(heads(&whole).into_iter().map(|room| (*number, room)));
                } else {
                    used.push((*number, head(rest)));
                }
            }
        }
    }
    used
}

fn head(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// First names in the group whose opening brace has just been read; it may go on over the lines below.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut item) = (1, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            names.push(head(item.trim()));
            item.clear();
        } else {
            item.push(c);
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn layers(source: &Source) -> Vec<String> {
    let room = source.room();
    let layer_of = |room: &str| LAYERS.iter().position(|row| row.contains(&room));
    if room != "hub" && layer_of(room).is_none() {
        return vec![source.complain(1, format!("room `{room}` has no layer; give it one here and in lib.rs"))];
    }
    let on_top = layer_of(room) == Some(LAYERS.len() - 1);
    let mut wrong = Vec::new();
    for (number, used) in rooms_used(source) {
        let below = match room {
            "hub" => HUB_USES.contains(&used.as_str()),
            _ if on_top => true,
            _ => used == room || layer_of(&used).is_some_and(|used| Some(used) < layer_of(room)),
        };
        if !below {
            wrong.push(source.complain(number, format!("`{room}` must not use `{used}`: arrows go down, never to a neighbour")));
        }
    }
    wrong
}

/// Inside a folder `mod.rs` stands above its files: a file must not look back up into it.
fn folders(source: &Source) -> Vec<String> {
    if source.path.ends_with("/mod.rs") || source.path.matches('/').count() < 2 || source.room() == "bin" {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    let own = format!("crate::{}::", source.room());
    let code = source.code();
    for (at, (number, line)) in code.iter().enumerate() {
        let ways = ["super::", own.as_str()];
        for (found, way) in ways.iter().flat_map(|way| line.match_indices(way)) {
            let rest = &line[found + way.len()..];
            let names = match rest.strip_prefix('{') {
                Some(group) => heads(&code[at + 1..].iter().fold(group.to_owned(), |all, (_, line)| all + line)),
                None => vec![rest.to_owned()],
            };
            // `super::Name` reaches into mod.rs; `super::file::Name` goes to a file beside.
            if names.iter().any(|name| name.starts_with(|c: char| c.is_uppercase() || c == '*')) {
                wrong.push(source.complain(*number, "looks up into its mod.rs; put what is shared into a file below both"));
            }
        }
    }
    wrong
}

fn clocks(source: &Source) -> Vec<String> {
    if source.room() == "clock" { Vec::new() } else { source.banned(CLOCK_CALLS, "only clock/ reads clocks; take `now` as an argument") }
}

fn loose_ends(source: &Source) -> Vec<String> {
    source.banned(LOOSE_ENDS, "not outside of tests; return an error that says what the world did")
}

fn header(source: &Source) -> Vec<String> {
    if source.text.starts_with("//!") { Vec::new() } else { vec![source.complain(1, "starts without `//!`: what is this file for?")] }
}

fn length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//")).count();
    if lines <= LINES_MAX { Vec::new() } else { vec![source.complain(lines, format!("over {LINES_MAX} lines: it has two subjects"))] }
}

fn unsafe_reasons(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut wrong = Vec::new();
    for (number, line) in source.code() {
        let plain = without_strings(&line);
        let is_unsafe = plain.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        // The reason is on the line, or in the comment that ends right above it (attributes may stand between).
        let above = lines[..number - 1].iter().rev().take_while(|line| {
            let line = line.trim_start();
            line.starts_with("//") || line.starts_with("#[")
        });
        let said = lines[number - 1].contains("// SAFETY:") || above.into_iter().any(|line| line.contains("SAFETY:"));
        if is_unsafe && !said {
            wrong.push(source.complain(number, "`unsafe` without a `// SAFETY:` comment right above"));
        }
    }
    wrong
}

fn machine_paths(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for path in MACHINE_PATHS.iter().filter(|path| line.contains(**path)) {
            wrong.push(source.complain(index + 1, format!("{path}… exists on one machine only")));
        }
    }
    wrong
}

/// A camera thread must be able to catch a panic of a decoder.
fn unwinding(cargo_toml: &str) -> Vec<String> {
    let squeezed: String = cargo_toml.chars().filter(|c| !c.is_whitespace()).collect();
    if squeezed.contains("panic=\"abort\"") {
        vec!["Cargo.toml: panic = \"abort\" would let one bad picture end the agent".into()]
    } else {
        Vec::new()
    }
}

type Rule = fn(&Source) -> Vec<String>;
const RULES: &[(&str, Rule)] = &[
    ("layers", layers),
    ("folders", folders),
    ("clocks", clocks),
    ("loose ends", loose_ends),
    ("header", header),
    ("length", length),
    ("unsafe", unsafe_reasons),
    ("machine paths", machine_paths),
];

fn sources(dir: &Path, root: &Path, into: &mut Vec<Source>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, root, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            into.push(Source { path: name, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

#[test]
fn the_tree_keeps_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tree = Vec::new();
    sources(&root.join("src"), root, &mut tree);
    assert!(tree.len() > 5, "the tree was not found");
    let mut wrong = unwinding(&fs::read_to_string(root.join("Cargo.toml")).unwrap());
    for (_, rule) in RULES {
        wrong.extend(tree.iter().flat_map(rule));
    }
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
}

/// Each rule must complain of these, or it proves nothing.
#[test]
fn each_rule_sees_what_breaks_it() {
    let long = "let x = 1;\n".repeat(LINES_MAX + 1);
    let machine = format!("//! See {}me/x\n", "/ho");
    let broken: &[(&str, &str, &str)] = &[
        ("layers", "src/schedule/grid.rs", "use crate::wheel::Wheel;"),
        ("layers", "src/wheel.rs", "fn f() { crate::store::open() }"),
        ("layers", "src/store/keep.rs", "use crate::{\n    model::Seq,\n    status::{Now, Status},\n};"),
        ("layers", "src/protocol.rs", "use crate::clock::Reading;"),
        ("layers", "src/hub/mod.rs", "use crate::store::Store;"),
        ("layers", "src/somewhere.rs", "//! A room nobody gave a layer."),
        ("folders", "src/store/blobs.rs", "use super::Store;"),
        ("folders", "src/store/blobs.rs", "use crate::store::Store;"),
        ("folders", "src/store/blobs.rs", "use super::{\n    index,\n    Store,\n};"),
        ("clocks", "src/agent.rs", "let t = std::time::Instant::now();"),
        ("clocks", "src/agent.rs", "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\nlet t = start.elapsed();"),
        ("loose ends", "src/agent.rs", "let x = y.unwrap();"),
        ("loose ends", "src/agent.rs", "fn f() { unimplemented!() }"),
        ("header", "src/agent.rs", "use std::fs;"),
        ("length", "src/agent.rs", &long),
        ("unsafe", "src/clock.rs", "let x = 1;\nlet y = unsafe { read() };"),
        ("machine paths", "src/agent.rs", &machine),
    ];
    for (name, path, text) in broken {
        let (_, rule) = RULES.iter().find(|(rule, _)| rule == name).unwrap();
        assert!(!rule(&Source::new(path, text)).is_empty(), "`{name}` lets this pass: {text}");
    }
    for (name, _) in RULES {
        assert!(broken.iter().any(|(control, ..)| control == name), "`{name}` has no control");
    }
    assert!(!unwinding("[profile.release]\npanic   = \"abort\"\n").is_empty());
}

/// And must not complain of these.
#[test]
fn what_is_right_passes() {
    let right: &[(&str, &str)] = &[
        ("src/schedule/mod.rs", "//! A.\nuse crate::clock::Reading;\nuse crate::model::BootNo;\n"),
        ("src/store/blobs.rs", "//! A.\nuse super::{index::Index, keep};\nuse super::index::Index;\nuse crate::store::index::Row;\n"),
        ("src/agent.rs", "//! Says `.unwrap()` and Instant::now only in words.\nlet url = \"http://x\"; // .unwrap()\n"),
        ("src/agent.rs", "//! A.\nfn f() {}\n#[cfg(test)]\nmod tests {\n    fn g() { x.unwrap(); Instant::now(); }\n}\n"),
        ("src/clock.rs", "//! A.\n// SAFETY: only reads.\nlet now = unsafe { read() };\n"),
        ("src/hub/mod.rs", "//! A.\nuse crate::{image::meta, protocol::Topic};\n"),
    ];
    for (path, text) in right {
        for (name, rule) in RULES {
            assert_eq!(rule(&Source::new(path, text)), Vec::<String>::new(), "`{name}` complains of {text}");
        }
    }
}
