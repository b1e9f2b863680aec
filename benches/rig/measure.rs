//! What the benches share: processes measured by the kernel, medians, and a table that names its peers.

#![allow(dead_code, reason = "each bench uses what it needs")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What one process cost, its children included.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    pub cpu_ms: f64,
    pub wall_ms: f64,
    pub peak_mib: f64,
}

/// Runs a process to its end. Its peak memory is only true while this process is smaller than the measured one:
/// a child inherits its parent's peak when it is made.
#[expect(unsafe_code, reason = "wait4 tells one child's CPU time and memory; nothing safe does")]
pub fn run(command: &mut Command) -> Result<Cost, String> {
    let begun = monotonic_ms();
    let child = command.spawn().map_err(|e| e.to_string())?;
    // SAFETY: both are plain data that the kernel fills in.
    let (mut status, mut usage): (libc::c_int, libc::rusage) = unsafe { std::mem::zeroed() };
    // SAFETY: the pointers are to live variables; the child is ours and not waited for elsewhere.
    if unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage) } < 0 {
        return Err(std::io::Error::last_os_error().to_string());
    }
    if status != 0 {
        return Err(format!("{:?} ended with {status:#x}", command.get_program()));
    }
    let ms = |t: libc::timeval| t.tv_sec as f64 * 1e3 + t.tv_usec as f64 / 1e3;
    Ok(Cost { cpu_ms: ms(usage.ru_utime) + ms(usage.ru_stime), wall_ms: monotonic_ms() - begun, peak_mib: usage.ru_maxrss as f64 / 1024.0 })
}

pub fn monotonic_ms() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Memory of a process by a line of its status, such as `VmRSS:`.
pub fn memory_mib(pid: u32, key: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = text.lines().find_map(|l| l.strip_prefix(key)?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}

/// A directory for this bench, emptied.
pub fn fresh_dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}"));
    let _ = std::fs::remove_dir_all(&dir);
    let _ = std::fs::create_dir_all(&dir);
    dir
}

pub fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|o| o.status.success())
}

/// A peer or a part of the machine is missing: said, so that nobody takes silence for a result.
pub fn missing(what: &str) {
    println!("*** NOT MEASURED: {what}");
}
