//! What is flushed before the hub says that it has a picture: read from the system calls of the real program.

use crate::node::*;
use shutterd::model::Seq;
use shutterd::protocol::{Init, Topic};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};

/// The system calls of a hub that takes one picture (or finds it left by a process that died), until after its ack. `None`: no strace here, said aloud.
async fn trace(dir: &Dir, break_it: Option<&str>, found: bool) -> Option<Vec<String>> {
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "strace is missing");
        eprintln!("SKIPPED: strace is missing");
        return None;
    }
    let log = dir.0.join("trace");
    let mut command = tokio::process::Command::new("strace");
    command.args(["-f", "-y", "-s", "120", "-e", "trace=fsync,fdatasync,link,linkat,rename,write,writev,sendto,sendmsg", "-o"]).arg(&log);
    command.arg(env!("CARGO_BIN_EXE_shutter-hub")).args(["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]);
    command.arg(dir.0.join("data")).env_remove("SHUTTER_BREAK").stdout(Stdio::piped()).kill_on_drop(true);
    if let Some(what) = break_it {
        command.env("SHUTTER_BREAK", what);
    }
    let mut hub = command.spawn().unwrap();
    let mut lines = BufReader::new(hub.stdout.take().unwrap()).lines();
    let mqtt = lines.next_line().await.unwrap().unwrap().strip_prefix("mqtt ").unwrap().parse().unwrap();
    assert!(lines.next_line().await.unwrap().unwrap().starts_with("http 127.0.0.1:"));

    let mut node = Node::connect(mqtt, "n1").await;
    let (bytes, hash) = picture("n1", 42, 10, 64);
    let length = bytes.len() as u64;
    if found {
        let store = dir.0.join(format!("data/objects/img/n1/{STORE}"));
        std::fs::create_dir_all(&store).unwrap();
        std::fs::write(store.join(format!("42-{hash}.jpg")), bytes).unwrap();
        node.send(Topic::Init(id(42)), json(&Init { v: 1, hash8: hash, len: length })).await;
    } else {
        node.send(Topic::Image(id(42)), bytes).await;
    }
    assert_eq!(node.ack().await.have, [(Seq(42), hash)]);
    if !found {
        assert_eq!(lines.next_line().await.unwrap().unwrap(), format!("stored n1 gate {} {length} bytes", id(42)));
    }

    // strace passes the signal on; the hub stops in order.
    let program = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", hub.id().unwrap())).unwrap();
    let pid = rustix::process::Pid::from_raw(program.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(tokio::time::timeout(SOON, hub.wait()).await.unwrap().unwrap().success());
    Some(std::fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect())
}

#[tokio::test]
async fn a_hub_whose_disk_fails_acknowledges_nothing_and_ends_as_a_storage_fault() {
    let dir = Dir::new("fault");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_shutter-hub"));
    command.args(["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]).arg(dir.0.join("data"));
    let mut hub = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(hub.stdout.take().unwrap()).lines();
    let mqtt = lines.next_line().await.unwrap().unwrap().strip_prefix("mqtt ").unwrap().parse().unwrap();
    let mut node = Node::connect(mqtt, "n1").await;
    // A file where a directory must go.
    std::fs::write(dir.0.join("data/objects/img"), "").unwrap();
    node.send(Topic::Image(id(1)), picture("n1", 1, 10, 64).0).await;
    while let Ok((topic, _)) = node.next().await {
        assert!(!topic.ends_with("/ack"), "acknowledged without a disk");
    }
    assert_eq!(tokio::time::timeout(SOON, hub.wait()).await.unwrap().unwrap().code(), Some(75));
}

/// Whether file, name and directories were on disk before the ack left for the broker.
fn flushed_before_ack(calls: &[String]) -> bool {
    let at =
        |from: usize, parts: &[&str]| calls.iter().skip(from).position(|call| parts.iter().all(|p| call.contains(p))).map(|i| i + from);
    let ack = at(0, &["shutter/v1/n1/ack", "have"]).expect("no ack was seen");
    let store = "/objects/img/n1/00c0ffee00c0ffee";
    let Some(content) = at(0, &["sync(", &format!("{store}/42-"), ".jpg"]) else { return false };
    let link = at(content, &["link", ".jpg\""]).expect("the file got no final name");
    let Some(name) = at(link, &["sync(", &format!("{store}>")]) else { return false };
    let parents = ["/objects/img/n1>", "/objects/img>", "/objects>"].map(|d| at(0, &["sync(", d]));
    name < ack && parents.iter().all(|p| p.is_some_and(|p| p < ack))
}

#[tokio::test]
async fn the_picture_its_name_and_its_directories_are_flushed_before_the_ack() {
    let dir = Dir::new("flush");
    if let Some(calls) = trace(&dir, None, false).await {
        assert!(flushed_before_ack(&calls), "{}", calls.join("\n"));
    }
}

#[tokio::test]
async fn a_name_left_by_a_process_that_died_is_flushed_before_it_is_acknowledged() {
    let dir = Dir::new("left");
    if let Some(calls) = trace(&dir, None, true).await {
        let at = |parts: &[&str]| calls.iter().position(|call| parts.iter().all(|p| call.contains(p)));
        let ack = at(&["shutter/v1/n1/ack", "have"]).expect("no ack was seen");
        assert!(at(&["sync(", "/objects/img/n1/00c0ffee00c0ffee>"]).is_some_and(|i| i < ack), "{}", calls.join("\n"));
    }
}

/// Proves that the test above would notice. Needs the feature `break`.
#[cfg(feature = "break")]
#[tokio::test]
async fn a_hub_that_does_not_flush_is_caught() {
    let dir = Dir::new("no-flush");
    if let Some(calls) = trace(&dir, Some("hub_no_fsync"), false).await {
        assert!(!flushed_before_ack(&calls));
    }
}
