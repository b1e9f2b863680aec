//! `shutterd fsck` from outside: what it says, how it ends, what it touches, and who it is when root asks.

#[path = "rig/agent.rs"]
mod rig;

use rig::{Node, text};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const GOOD: &str = "[cameras.good]\nsource = \"pattern:?size=320x240\"\n[schedules.good-1s]\ncamera = \"good\"\nevery = \"1s\"\n";
/// Everything that leaves something in the index: two schedules of one camera, one that fails, one that is busy, a hub that is not
/// there, and a bound beyond which the oldest go.
const BUSY: &str = "when_full = \"drop_oldest\"\n[hub]\nurl = \"mqtt://127.0.0.1:1\"\n[keep]\ncount = 10\n\
    [cameras.good]\nsource = \"pattern:?size=64x48\"\n[cameras.bad]\nsource = \"pattern:?fault=fail\"\n\
    [cameras.slow]\nsource = \"pattern:?size=64x48&fault=late:1500\"\n\
    [schedules.good-1s]\ncamera = \"good\"\nevery = \"1s\"\n[schedules.good-2s]\ncamera = \"good\"\nevery = \"2s\"\n\
    [schedules.bad-1s]\ncamera = \"bad\"\nevery = \"1s\"\n[schedules.slow-1s]\ncamera = \"slow\"\nevery = \"1s\"\n";

/// All that is there: kind, owner, mode, time of change, contents.
fn photograph(dir: &Path) -> BTreeMap<PathBuf, (u32, u32, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for path in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        let about = path.symlink_metadata().unwrap();
        if about.is_dir() {
            all.extend(photograph(&path));
        }
        let content = if about.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        all.insert(path, (about.mode(), about.uid(), about.mtime_nsec(), content));
    }
    all
}

fn assert_well(looked: &Output, pictures: usize) {
    let said = text(&looked.stdout);
    assert!(looked.status.success(), "{said}{}", text(&looked.stderr));
    assert!(said.ends_with("all is well\n") && !said.contains('!'), "{said}");
    assert!(said.contains(&format!("{pictures} pictures: all whole\n")), "{pictures} in {said}");
}

fn pictures(dir: &Path) -> Vec<PathBuf> {
    photograph(dir).into_keys().filter(|path| path.extension().is_some_and(|e| e == "jpg")).collect()
}

#[test]
fn a_killed_agents_store_is_well_before_and_after_the_next_start_and_a_look_leaves_no_trace() {
    let node = Node::new("fsck-kill");
    node.configure(BUSY);
    for round in 1..=4 {
        let mut agent = node.start();
        node.wait_for_pictures("good", 4);
        let refused = node.command(&["fsck"]);
        assert_eq!(refused.status.code(), Some(1));
        let whose = format!("in use by the agent (process {}): stop it first (systemctl stop shutterd)", agent.child.id());
        assert!(text(&refused.stderr).contains(&whose), "{}", text(&refused.stderr));
        let pinned = node.pictures().snapshots[0].id.to_string();
        assert!(node.command(&["pin", &pinned]).status.success());
        agent.child.kill().unwrap();
        agent.ended();
        let before = photograph(&node.data);
        let looked = node.command(&["fsck"]);
        assert!(before == photograph(&node.data), "a look has left a trace");
        let said = text(&looked.stdout);
        // The kill may have come between a file and its row: then that is said, and is no damage.
        assert!(looked.status.success() && said.ends_with("all is well\n") && !said.contains("  !"), "kill {round}: {said}");
    }
    let agent = node.start();
    node.wait_for_pictures("good", 2);
    assert!(agent.stop().0.success());
    let looked = node.command(&["fsck"]);
    assert_well(&looked, pictures(&node.data.join("snapshots")).len());
    eprintln!("4 agents killed, 1 stopped, nothing wrong:\n{}", text(&looked.stdout));
    let json: serde_json::Value = serde_json::from_slice(&node.command(&["fsck", "--json"]).stdout).unwrap();
    assert_eq!((&json["ok"], &json["verdict"]), (&true.into(), &"all is well".into()));
    assert!(json["checks"].as_array().unwrap().len() > 10);
}

#[test]
fn what_is_wrong_is_said_with_exit_code_1_and_the_disks_own_failure_with_75() {
    let node = Node::new("fsck-wrong");
    assert_eq!(node.command(&["fsck"]).status.code(), Some(78), "no configuration, no data directory");
    node.configure(GOOD);
    let absent = node.command(&["fsck"]);
    assert_eq!((absent.status.code(), text(&absent.stderr).contains("there is no data directory")), (Some(1), true));
    let agent = node.start();
    node.wait_for_pictures("good", 3);
    assert!(agent.stop().0.success());
    let all = pictures(&node.data.join("snapshots"));
    let strace = |call: &str, file: &Path| {
        let mut command = Command::new("strace");
        command.args(["-qq", "-o", "/dev/null", "-P"]).arg(file).args(["-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:error=EIO")]).arg(env!("CARGO_BIN_EXE_shutterd"));
        command.arg("-c").arg(node.file()).arg("fsck").output()
    };
    match strace("read", &all[0]) {
        Ok(looked) if !text(&looked.stderr).contains("PTRACE") => {
            assert_eq!(looked.status.code(), Some(75), "{}{}", text(&looked.stdout), text(&looked.stderr));
            assert!(text(&looked.stdout).contains("the disk refuses to be read in places"), "{}", text(&looked.stdout));
            let looked = strace("pread64", &node.data.join("index.redb")).unwrap();
            assert_eq!(looked.status.code(), Some(75), "{}{}", text(&looked.stdout), text(&looked.stderr));
        }
        _ => {
            eprintln!("\n*** SKIPPED: a failing disk needs strace\n");
            assert!(std::env::var_os("CI").is_none());
        }
    }
    fs::remove_file(&all[1]).unwrap();
    let looked = node.command(&["fsck"]);
    assert_eq!(looked.status.code(), Some(1));
    let said = text(&looked.stdout);
    assert!(said.contains(": its file is gone: the agent will report it as lost") && said.ends_with("one thing is wrong\n"), "{said}");
    let json: serde_json::Value = serde_json::from_slice(&node.command(&["fsck", "--json"]).stdout).unwrap();
    assert_eq!(json["ok"], false);
}

#[test]
fn a_rebuild_is_told_first_and_asked_for_and_the_agent_goes_on_from_it() {
    let node = Node::new("fsck-rebuild");
    node.configure(GOOD);
    let agent = node.start();
    node.wait_for_pictures("good", 3);
    let running = node.command(&["fsck", "--rebuild", "--yes"]);
    assert_eq!(running.status.code(), Some(1), "{}", text(&running.stderr));
    assert!(agent.stop().0.success());
    let all = pictures(&node.data.join("snapshots")).len();
    fs::write(node.data.join("index.redb"), b"this was an index").unwrap();
    let before = photograph(&node.data);
    let told = node.command(&["fsck", "--rebuild"]);
    assert_eq!(told.status.code(), Some(2));
    assert!(text(&told.stderr).contains(&format!("reads all {all} files")) && text(&told.stderr).contains("say --yes to do it"));
    assert!(before == photograph(&node.data), "nothing is done without a yes");
    let done = node.command(&["fsck", "--rebuild", "--yes"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stdout).starts_with(&format!("{all} pictures are back")), "{}", text(&done.stdout));
    assert_eq!(fs::read(node.data.join("index.redb.bad")).unwrap(), b"this was an index");
    assert_well(&node.command(&["fsck"]), all);
    let agent = node.start();
    node.wait_for_pictures("good", 1);
    assert!(node.pictures().snapshots.len() > all);
    let report = text(&node.command(&["report"]).stdout);
    assert!(report.contains("index lost"), "what the lost index knew has its reason on record: {report}");
    assert!(agent.stop().0.success());
    assert_well(&node.command(&["fsck"]), pictures(&node.data.join("snapshots")).len());
}

#[test]
fn root_leaves_no_file_behind_that_the_agent_could_not_touch() {
    let node = Node::new("fsck-root");
    node.configure(GOOD);
    let agent = node.start();
    node.wait_for_pictures("good", 2);
    assert!(agent.stop().0.success());
    let nobody = Command::new("chown").args(["-R", "65534:65534"]).arg(&node.data).status();
    let owner = || fs::metadata(node.data.join("lock")).unwrap().uid();
    if !nobody.is_ok_and(|done| done.success()) || owner() != 65_534 {
        eprintln!("\n*** SKIPPED: only root can give files to somebody else\n");
        assert!(std::env::var_os("CI").is_none());
        return;
    }
    for arguments in [&["fsck"][..], &["fsck", "--rebuild", "--yes"]] {
        let done = node.command(arguments);
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert!(text(&done.stderr).contains("going on as user 65534 and group 65534"), "{}", text(&done.stderr));
        let foreign: Vec<_> = photograph(&node.data).into_iter().filter(|(_, (_, uid, ..))| *uid != 65_534).map(|(path, _)| path).collect();
        assert_eq!(foreign, [""; 0].map(PathBuf::from));
    }
    assert!(node.data.join("index.redb.bad").exists());
}
