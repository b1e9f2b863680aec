//! What `make cross` promises of a program for a board, each promise with one that breaks it; and its refusals in words.

use std::path::Path;
use std::process::{Command, Output};

/// This machine, as `ARCH=` names it, and another.
fn archs() -> (&'static str, &'static str) {
    match std::env::consts::ARCH {
        "x86_64" => ("amd64", "arm64"),
        "aarch64" => ("arm64", "armhf"),
        "arm" => ("armhf", "arm64"),
        other => panic!("ARCH= has no name for {other}"),
    }
}

fn script(name: &str, arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("board").join(name);
    Command::new(path).args(arguments).envs(env.iter().copied()).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A small program of the system: stripped, and of a C library older than the limit.
const SOUND: &str = "/bin/true";

#[test]
fn a_program_that_a_board_can_run_passes() {
    let output = script("check-binary.sh", &[SOUND, archs().0], &[]);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_program_that_a_board_cannot_run_is_named_with_its_fault() {
    let (mine, other) = archs();
    // Of cargo's making with its symbols still in it.
    let unstripped = std::env::current_exe().unwrap();
    let refused = [
        (SOUND, other, ("SIZE_MAX", ""), format!("NOT: for {other}")),
        (unstripped.to_str().unwrap(), mine, ("SIZE_MAX", ""), "NOT: stripped".into()),
        (SOUND, mine, ("GLIBC_MAX", "2.3"), "NOT: for glibc 2.3: it needs 2.".into()),
        (SOUND, mine, ("SIZE_MAX", "1000"), "NOT: within 1000 bytes".into()),
    ];
    for (file, arch, env, said) in refused {
        let output = script("check-binary.sh", &[file, arch], &[env]);
        assert_eq!(output.status.code(), Some(1), "{said}: {}", text(&output));
        assert!(text(&output).contains(&said), "{said}: {}", text(&output));
    }
}

#[test]
fn an_unknown_board_or_processor_is_answered_with_those_there_are() {
    for (arguments, said) in [(["moon", ""], "BOARD is one of: "), (["generic", "mips"], "ARCH is one of: arm64 armhf")] {
        let arguments: Vec<_> = arguments.into_iter().filter(|a| !a.is_empty()).collect();
        let output = script("cross.sh", &arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(said) && text(&output).contains(arguments[arguments.len() - 1]), "{}", text(&output));
    }
}

#[test]
fn a_directory_that_is_not_a_build_root_is_left_alone() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("somebody-elses");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("letters"), "dear").unwrap();
    for verb in ["base", "remove", "run"] {
        let output = script("build-root.sh", &[verb, "true"], &[("BUILD_ROOT", dir.to_str().unwrap())]);
        assert!(!output.status.success(), "{verb}: {}", text(&output));
    }
    assert_eq!(std::fs::read_to_string(dir.join("letters")).unwrap(), "dear");
}

/// Tables and keys as cross documents them; it warns of others and goes on without them.
#[test]
fn cross_toml_says_what_cross_understands_for_both_targets() {
    let file = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("cross.toml")).unwrap();
    let all: toml::Table = file.parse().unwrap();
    assert!(all.keys().all(|key| ["build", "target"].contains(&key.as_str())), "{all:?}");
    for (target, gnu) in [("aarch64-unknown-linux-gnu", "aarch64-linux-gnu"), ("armv7-unknown-linux-gnueabihf", "arm-linux-gnueabihf")] {
        let table = all["target"][target].as_table().unwrap();
        assert!(table.keys().all(|key| ["image", "pre-build", "env"].contains(&key.as_str())), "{table:?}");
        let env = table["env"].as_table().unwrap();
        assert!(env.keys().eq(["passthrough"]), "{env:?}");
        let passed: Vec<_> = env["passthrough"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        let linker = format!("CARGO_TARGET_{}_LINKER={gnu}-gcc", target.replace('-', "_").to_uppercase());
        assert!(passed.contains(&linker.as_str()), "{passed:?}");
    }
}
