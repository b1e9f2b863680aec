//! Reads a trace of the hub's system calls: what was flushed and named when, and when it was acknowledged.

use super::books::Picture;
use std::collections::HashMap;
use std::path::Path;

/// The system calls in question; the hub stays the test's own child (`-D`).
pub fn strace(into: &str) -> Vec<&str> {
    let calls = "trace=fsync,fdatasync,link,linkat,rename,renameat,renameat2,write,writev,sendto,sendmsg";
    vec!["/usr/bin/strace", "-D", "-f", "-y", "-s", "65536", "-e", calls, "-o", into]
}

/// What a line of the trace means; flushes and names count when they are done, messages when they begin.
enum Event {
    Flushed(String),
    Named { from: String, to: String },
    Sent(String),
}

fn events(trace: &str) -> Vec<Event> {
    let mut begun: HashMap<&str, String> = HashMap::new();
    let mut events = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let first = if let Some(start) = call.strip_suffix("<unfinished ...>") {
            begun.insert(thread, start.to_owned());
            start
        } else {
            call
        };
        if ["write(", "writev(", "sendto(", "sendmsg("].iter().any(|name| first.starts_with(name)) {
            events.push(Event::Sent(first.to_owned()));
        }
        let whole = match call.strip_prefix("<... ").and_then(|rest| rest.split_once("resumed>")) {
            Some((_, rest)) => begun.remove(thread).unwrap_or_default() + rest,
            None => call.to_owned(),
        };
        if !whole.ends_with("= 0") {
            continue;
        }
        if whole.starts_with("fsync(") || whole.starts_with("fdatasync(") {
            let path = whole.split_once('<').and_then(|(_, rest)| Some(rest.rsplit_once('>')?.0));
            events.extend(path.map(|path| Event::Flushed(path.to_owned())));
        } else if whole.starts_with("link") || whole.starts_with("rename") {
            let names: Vec<&str> = whole.split('"').skip(1).step_by(2).collect();
            if let [from, to] = names[..] {
                events.push(Event::Named { from: from.into(), to: to.into() });
            }
        }
    }
    events
}

/// Every acknowledged picture was flushed, then named, then its directory flushed, and only then acknowledged. Returns how many
/// acknowledgements were looked at, and the complaints.
pub fn flushed_before_acknowledged(trace: &str, at_hub: &[Picture]) -> (usize, Vec<String>) {
    let events = events(trace);
    let (mut acknowledged, mut complaints) = (0, Vec::new());
    for picture in at_hub {
        let (id, hash8) = picture.key();
        let hash8 = hash8.to_string();
        let ack = events.iter().position(|e| matches!(e, Event::Sent(data) if data.contains("/ack") && data.contains(&hash8)));
        let Some(ack) = ack else { continue };
        acknowledged += 1;
        let before = &events[..ack];
        let name = picture.path.file_name().unwrap_or_default().to_string_lossy();
        let named = before.iter().position(|e| matches!(e, Event::Named { to, .. } if to.ends_with(&*name)));
        let Some((at, Event::Named { from, to })) = named.map(|at| (at, &before[at])) else {
            complaints.push(format!("{id} was acknowledged before it had its name"));
            continue;
        };
        if !before.iter().any(|e| matches!(e, Event::Flushed(path) if path == from || path == to)) {
            complaints.push(format!("{id} was acknowledged before its bytes were flushed"));
        }
        let dir = Path::new(to).parent().unwrap_or(Path::new("/")).to_string_lossy();
        if !before[at..].iter().any(|e| matches!(e, Event::Flushed(path) if *path == *dir)) {
            complaints.push(format!("{id} was acknowledged before its directory was flushed"));
        }
    }
    (acknowledged, complaints)
}
