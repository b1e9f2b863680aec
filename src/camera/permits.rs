//! How many cameras may decode and encode at a time: on a small board their memory would not fit side by side.

use std::sync::{Condvar, Mutex};

/// Lets one capture (two on boards with 1 GB and more) decode and encode at a time.
pub struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Permits {
    pub fn for_this_board() -> Self {
        let total_kib = std::fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| text.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()));
        let count = if total_kib.is_some_and(|kib| kib >= 1_000_000) { 2 } else { 1 };
        Self { free: Mutex::new(count), freed: Condvar::new() }
    }
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let lock = |m: &Mutex<usize>| -> bool {
            let mut free = m.lock().unwrap_or_else(|p| p.into_inner());
            while *free == 0 {
                free = self.freed.wait(free).unwrap_or_else(|p| p.into_inner());
            }
            *free -= 1;
            true
        };
        lock(&self.free);
        // Given back on a panic too: decoders are fed hostile bytes.
        struct Back<'a>(&'a Permits);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                *self.0.free.lock().unwrap_or_else(|p| p.into_inner()) += 1;
                self.0.freed.notify_one();
            }
        }
        let _back = Back(self);
        work()
    }
}
