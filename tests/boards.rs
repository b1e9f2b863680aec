//! What is shipped for boards: their configurations, with every example in use, udev rules, and the script that takes a picture
//! with a Jetson's own pipeline.

#[path = "rig/agent.rs"]
mod rig;

use rig::{Node, text};
use shutterd::config::{self, Finding};
use shutterd::image::jpeg;
use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BOARDS: [&str; 4] = ["generic", "rpi", "jetson", "qemu-virt"];

fn board(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("board").join(name)
}

#[test]
fn every_board_has_its_parts_and_check_accepts_its_file() {
    let node = Node::new("boards");
    for name in BOARDS {
        let file = std::fs::read_to_string(board(name).join("shutterd.toml")).unwrap();
        // Not every machine that runs tests has a serial number.
        let own = if file.contains("\n[node]\n") { "" } else { "[node]\nid = \"n1\"\n" };
        std::fs::write(node.file(), format!("{own}{file}")).unwrap();
        let said = node.command(&["check"]);
        assert!(said.status.success(), "{name}: {}", text(&said.stderr));
        for part in ["README.md", "60-shutterd-cameras.rules"] {
            assert!(board(name).join(part).exists(), "{name} lacks {part}");
        }
    }
    let there: HashSet<String> = std::fs::read_dir(board(""))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("shutterd.toml").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, BOARDS.map(str::to_owned).into(), "a board without a test");
}

/// A shipped file with the marks of its examples taken away: `#key = value` and `#[section]`, without a space.
fn with_all_examples(text: &str, password: &str) -> String {
    let mark = |line: &str| line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()));
    let lines = text.lines().map(|line| if mark(line) { &line[1..] } else { line });
    let lines = lines.filter(|line| !line.starts_with("password_credential"));
    lines
        .map(|line| if line.starts_with("password_file") { format!("password_file = \"{password}\"\n") } else { format!("{line}\n") })
        .collect()
}

#[test]
fn the_examples_that_we_ship_are_accepted_as_they_are_and_with_every_line_in_use() {
    let password = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("boards-password-{}", std::process::id()));
    std::fs::write(&password, "hunter2\n").unwrap();
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).unwrap();
    // Not every machine that runs tests has a serial number.
    let own = |text: &str| if text.contains("\n[node]\n") { "" } else { "[node]\nid = \"n1\"\n" };
    let checked = |text: &str| config::parse(&format!("{}{text}", own(text)), "f.toml");
    for (board, text, cameras) in [
        ("generic", include_str!("../board/generic/shutterd.toml"), (1, 4)),
        ("rpi", include_str!("../board/rpi/shutterd.toml"), (1, 6)),
        ("jetson", include_str!("../board/jetson/shutterd.toml"), (1, 4)),
        ("qemu-virt", include_str!("../board/qemu-virt/shutterd.toml"), (4, 4)),
    ] {
        let (settings, warnings) = checked(text).unwrap_or_else(|wrong| panic!("{board}: {wrong}"));
        assert_eq!((settings.cameras.len(), settings.schedules.len()), (cameras.0, cameras.0), "{board}");
        let test_card = |warning: &Finding| warning.message.ends_with("is a test card, not a camera");
        assert!(warnings.len() == 1 && test_card(&warnings[0]), "{board}: {warnings:?}");
        let full = with_all_examples(text, &password.display().to_string());
        let (settings, warnings) = checked(&full).unwrap_or_else(|wrong| panic!("{board}: {wrong}\n{full}"));
        assert_eq!(settings.cameras.len(), cameras.1, "{board}");
        // Of two ways to the same picture only one has a schedule, and of two to thin the store only one is of use.
        let others = ["no enabled schedule uses camera \"csi-", "[keep] thin: its last step is never reached, because age"];
        let expected = |warning: &Finding| test_card(warning) || others.iter().any(|other| warning.message.starts_with(other));
        assert!(warnings.iter().all(expected), "{board}: {warnings:?}");
        assert!(settings.hub.is_some_and(|hub| hub.tls.is_some() == (board != "qemu-virt")), "{board}");
        // A wrong line among the examples would be seen.
        let first = full.replacen("timeout = ", "tiemout = ", 1);
        assert_eq!(checked(&first).is_err(), full.contains("timeout = "), "{board}");
    }
    std::fs::remove_file(password).unwrap();
}

/// What is wrong with a rules file: the mistakes that udev would only log, on a board far away.
fn complaints(rules: &str) -> Vec<String> {
    let joined = rules.replace("\\\n", "");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut wrong, mut gotos, mut labels) = (Vec::new(), HashSet::new(), HashSet::new());
    for line in lines {
        let (mut acts, mut matches) = (false, false);
        for pair in line.split(", ") {
            let Some((head, value)) = pair.split_once('"') else {
                wrong.push(format!("no value: {line}"));
                continue;
            };
            let key = head.trim_end_matches(['=', '!', '+', ':']);
            let operator = &head[key.len()..];
            let name = key.split('{').next().unwrap();
            if value.find('"') != Some(value.len() - 1) {
                wrong.push(format!("the quotes do not match: {line}"));
            }
            let assigns = match name {
                "ACTION" | "SUBSYSTEM" | "KERNEL" | "ATTR" => false,
                "SYMLINK" | "GOTO" | "LABEL" => true,
                // Only read here; set are they by the rules before.
                "ENV" => false,
                _ => {
                    wrong.push(format!("unknown key {key}: {line}"));
                    continue;
                }
            };
            let fits = match name {
                "SYMLINK" => operator == "+=",
                _ if assigns => operator == "=",
                _ => ["==", "!="].contains(&operator),
            };
            if !fits {
                wrong.push(format!("{key}{operator} does another thing than it seems: {line}"));
            }
            let value = value.trim_end_matches('"').to_owned();
            if name == "SYMLINK" && !value.starts_with("shutterd/") {
                wrong.push(format!("a link outside of /dev/shutterd: {line}"));
            }
            match name {
                "GOTO" => _ = gotos.insert(value),
                "LABEL" => _ = labels.insert(value),
                _ => {}
            }
            (acts, matches) = (acts || assigns, matches || !assigns);
        }
        if !acts || (!matches && !line.starts_with("LABEL=")) {
            wrong.push(format!("does nothing, or does it to every device: {line}"));
        }
    }
    if gotos != labels {
        wrong.push(format!("goto and label differ: {gotos:?} {labels:?}"));
    }
    wrong
}

#[test]
fn udev_rules_are_ones_and_touch_nobody_elses_names() {
    for name in BOARDS {
        let rules = std::fs::read_to_string(board(name).join("60-shutterd-cameras.rules")).unwrap();
        assert_eq!(complaints(&rules), Vec::<String>::new(), "{name}");
        // The examples in it as well.
        let examples: Vec<&str> =
            rules.lines().filter_map(|line| line.strip_prefix('#')).filter(|line| line.starts_with("SUBSYSTEM")).collect();
        assert!(examples.len() == 2 && complaints(&examples.join("\n")).is_empty(), "{name}");
    }
    // Read after the rules that ask the device, or there is no serial yet.
    assert!("60-shutterd-cameras.rules" > "60-persistent-v4l.rules");
    // The controls.
    let end = "\nLABEL=\"e\"";
    for broken in [
        "KERNEL=\"video*\", GOTO=\"e\"",
        "KERNEL==\"video*\", GOTO==\"e\"",
        "KERNEL==\"video*, GOTO=\"e\"",
        "KERNEL==\"video*\", GOTO=\"f\"",
        "GOTO=\"e\"",
        "KERNELL==\"video*\", GOTO=\"e\"",
        "KERNEL==\"video*\", SYMLINK=\"shutterd/x\"\nKERNEL==\"x\", GOTO=\"e\"",
        "KERNEL==\"video*\", SYMLINK+=\"v4l/by-id/x\"\nKERNEL==\"x\", GOTO=\"e\"",
    ] {
        assert!(!complaints(&format!("{broken}{end}")).is_empty(), "{broken}");
    }
    if Command::new("udevadm").args(["verify", "--help"]).output().is_ok_and(|output| output.status.success()) {
        let verified = Command::new("udevadm").arg("verify").arg(board("generic").join("60-shutterd-cameras.rules")).output().unwrap();
        assert!(verified.status.success(), "{}", text(&verified.stderr));
    } else {
        eprintln!("no `udevadm verify` on this machine (systemd 254): the rules were read by this test alone");
    }
}

/// Runs the script with the real GStreamer, whose elements that only a Jetson has are replaced on the way.
fn argus(dir: &Path, words: &[&str], stand_in: &str) -> Output {
    std::fs::create_dir_all(dir.join("tmp")).unwrap();
    let gst = dir.join("gst-launch-1.0");
    std::fs::write(&gst, stand_in).unwrap();
    std::fs::set_permissions(&gst, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(board("jetson").join("argus-still"));
    command.args(words).env("PATH", path).env("TMPDIR", dir.join("tmp")).output().unwrap()
}

#[test]
fn the_script_for_a_jetson_hands_over_the_last_frame_and_nothing_else() {
    if !Path::new("/usr/bin/gst-launch-1.0").exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "gst-launch-1.0 is missing; apt-get install gstreamer1.0-tools gstreamer1.0-plugins-good"
        );
        eprintln!("\n*** SKIPPED, no gst-launch-1.0: apt-get install gstreamer1.0-tools gstreamer1.0-plugins-good\n");
        return;
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("argus-{}", std::process::id()));
    // A ball that moves shows which frame was taken; and it chats on its standard output, as the real one does.
    let stand_in = "#!/bin/bash\necho GST_ARGUS: Creating output stream\nwords=()\nfor w; do case $w in\n\
        nvarguscamerasrc) words+=(videotestsrc pattern=ball motion=sweep);; sensor-id=*) ;; nvjpegenc) words+=(jpegenc);;\n\
        video/x-raw*) w=${w/(memory:NVMM)/}; words+=(\"$w\");;\n*) words+=(\"$w\");; esac; done\n\
        for w in \"${words[@]}\"; do [[ $w = num-buffers=* ]] && echo \"${w#*=}\" >\"$TMPDIR/../frames\"; done\n\
        exec /usr/bin/gst-launch-1.0 \"${words[@]}\"\n"
        .replace("video/x-raw*) w=", "*NVMM*) w=");
    let taken = |frames: &str| {
        let output = argus(&dir, &["0", "320", "240", frames], &stand_in);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(jpeg::check(&output.stdout, 1 << 20).unwrap(), (320, 240));
        assert_eq!(std::fs::read_to_string(dir.join("frames")).unwrap().trim(), frames);
        output.stdout
    };
    let (first, third) = (taken("1"), taken("3"));
    assert_ne!(first, third, "the last of three is not the first");
    let failed = argus(&dir, &["7"], "#!/bin/sh\necho no such sensor; exit 1\n");
    assert_eq!((failed.status.code(), failed.stdout.len()), (Some(1), 0));
    let said = text(&failed.stderr);
    assert!(said.contains("no such sensor") && said.contains("no picture of sensor 7"), "{said}");
    assert_eq!(std::fs::read_dir(dir.join("tmp")).unwrap().count(), 0, "it leaves nothing behind");
    let _ = std::fs::remove_dir_all(dir);
}
