//! Which programs hold a device, as far as `/proc` lets us see: another user's open files are root's to know.

use std::{fs, path::Path};

/// Such as `ffmpeg (pid 412)`; empty if none can be seen. Our own process does not count.
pub fn of(node: &Path) -> Vec<String> {
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| *pid != own);
    let holds = |pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|target| target == node))
    };
    let name = |pid: u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{} (pid {pid})", name.trim())
    };
    pids.filter(holds).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_file_is_named() {
        let path = std::env::temp_dir().join(format!("shutterd-users-{}", std::process::id()));
        let file = fs::File::create(&path).unwrap();
        assert!(of(&path).is_empty(), "this process itself is no other");
        let mut child = std::process::Command::new("sleep").arg("60").stdin(file).spawn().unwrap();
        let seen = of(&path);
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(seen, [format!("sleep (pid {})", child.id())]);
    }
}
