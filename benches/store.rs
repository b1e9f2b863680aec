//! What a durable snapshot costs the disk: flushes and bytes by the block device's own counters, alone and in groups of eight.
//!
//! An ext4 in a loop file that is its own mount, as the data partition of a node should be. Beside it the same pictures by
//! bare system calls in the same order without any index: what the filesystem alone asks for.

#[path = "rig/measure.rs"]
mod measure;

use measure::{fresh_dir, missing, monotonic_ms, succeeds};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use shutterd::clock::{SystemClock, boot_id, boottime_now_ms};
use shutterd::model::{ECONOMY_WINDOW_MS, Slot};
use shutterd::store::{Configure, Place, Put, Rules, Store};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};

const PICTURE_BYTES: usize = 150 << 10;
const PICTURES: usize = 128;
const GROUP: usize = 8;

fn main() {
    let dir = fresh_dir("store");
    let Some(disk) = Disk::mount(&dir) else {
        return missing("flushes and bytes a snapshot: needs root, loop devices and mkfs.ext4");
    };
    if let Err(why) = compare(&disk) {
        missing(&format!("flushes and bytes a snapshot: {why}"));
    }
}

struct Row {
    name: &'static str,
    flushes: f64,
    bytes: f64,
    ms: f64,
}

fn compare(disk: &Disk) -> Result<(), String> {
    let alone = disk.measure("shutterd, one by one", || store(&disk.at, 1))?;
    let peer_alone = disk.measure("the files alone, one by one", || bare(&disk.at, 1))?;
    // More hands than that, so that eight pictures wait whenever the writer is free.
    let groups = disk.measure("shutterd, groups of 8", || store(&disk.at, 3 * GROUP))?;
    let peer_groups = disk.measure("the files alone, groups of 8", || bare(&disk.at, GROUP))?;
    let economy = disk.measure("shutterd, economy", || store(&disk.at, 0))?;
    println!("store: {PICTURES} pictures of {} KiB each on ext4, own mount (device counters)", PICTURE_BYTES >> 10);
    println!("  {:<30} {:>18} {:>22} {:>14}", "", "flushes/snapshot", "bytes/JPEG byte", "snapshots/s");
    for row in [&alone, &peer_alone, &groups, &peer_groups, &economy] {
        println!("  {:<30} {:>18.2} {:>22.2} {:>14.0}", row.name, row.flushes, row.bytes, 1e3 / row.ms);
    }
    println!("  reach: 4.3 flushes and 1.5 bytes alone, 0.7 and 1.1 in groups of {GROUP}");
    println!(
        "  what index and record add to the files: {:+.2} flushes and {:+.2} bytes alone, {:+.2} and {:+.2} in groups",
        alone.flushes - peer_alone.flushes,
        alone.bytes - peer_alone.bytes,
        groups.flushes - peer_groups.flushes,
        groups.bytes - peer_groups.bytes
    );
    println!(
        "  durable snapshots a second beside a loop of the files' own calls: {:.2} x alone, {:.2} x in groups",
        peer_alone.ms / alone.ms,
        peer_groups.ms / groups.ms
    );
    Ok(())
}

fn picture(number: usize) -> Vec<u8> {
    // Bytes that no device can compress or find again.
    let mut state = number as u64 | 1 << 40;
    let noise = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8 & 0x7f
    });
    let mut jpeg = vec![0xFF, 0xD8, 0xFF, 0xDB];
    jpeg.extend(noise.take(PICTURE_BYTES - 6));
    jpeg.extend([0xFF, 0xD9]);
    jpeg
}

/// Through the library, by so many threads; by none: in the profile `economy`, handed over one after the other. What it writes when it is opened is not counted.
fn store(at: &Path, threads: usize) -> Result<Box<dyn FnOnce() -> Result<(), String>>, String> {
    let window_ms = if threads == 0 { ECONOMY_WINDOW_MS } else { 0 };
    let node = "bench".parse().map_err(|e| format!("{e}"))?;
    let config = Configure { node, hub: true, version: "0".into(), keep: Rules::default(), window_ms };
    // The mount itself is the data directory: only then is it flushed as a whole.
    let place = Place { dir: at.to_owned(), board: "bench".into(), hub: true };
    let boot = boot_id().map_err(|e| e.to_string())?;
    let open = || Store::open(&place, config.clone(), Arc::new(SystemClock), &boot);
    // The writer of the run before lets go of the directory a moment after its last handle.
    let mut opened = open();
    for _ in 0..20 {
        if opened.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        opened = open();
    }
    let (store, past) = opened.map_err(|e| e.to_string())?;
    let made = move |number: usize| {
        let due_ms = boottime_now_ms();
        let slot = Slot { schedule: "bench".parse().ok()?, boot: past.boot, due_ms: due_ms + number as u64, plan_ms: None };
        let (width, height) = (1920, 1080);
        let (camera, jpeg) = ("gate".parse().ok()?, picture(number));
        Some(Put {
            camera,
            slots: vec![slot],
            jpeg,
            width,
            height,
            taken_ms: due_ms,
            source: "bench",
            flags: vec![],
            priority: Default::default(),
            window_ms: None,
        })
    };
    let put = move |number: usize, store: &Store| store.put(made(number)?).ok();
    put(PICTURES, &store).ok_or("the store takes nothing")?;
    if threads == 0 {
        return Ok(Box::new(move || {
            let (tell, told) = mpsc::channel();
            for number in 0..PICTURES {
                let tell = tell.clone();
                let answer = Box::new(move |result: Result<_, _>| _ = tell.send(result.is_ok()));
                store.hand_over([(made(number).ok_or("no picture")?, answer as shutterd::store::Answer)]);
            }
            drop(tell);
            // The last group does not wait for its minute: somebody wants a picture.
            put(PICTURES + 1, &store).ok_or("the store takes nothing")?;
            (told.iter().filter(|stored| *stored).count() == PICTURES).then_some(()).ok_or_else(|| "the store failed".to_owned())
        }));
    }
    Ok(Box::new(move || {
        let all = std::thread::scope(|scope| {
            let workers = (0..threads).map(|thread| {
                let (store, put) = (&store, &put);
                scope.spawn(move || (thread..PICTURES).step_by(threads).all(|number| put(number, store).is_some()))
            });
            let workers: Vec<_> = workers.collect();
            workers.into_iter().all(|worker| worker.join().unwrap_or(false))
        });
        all.then_some(()).ok_or_else(|| "the store failed".to_owned())
    }))
}

/// The same order of system calls, without an index and without a record.
fn bare(at: &Path, group: usize) -> Result<Box<dyn FnOnce() -> Result<(), String>>, String> {
    let dir = at.join(format!("bare-{group}"));
    std::fs::create_dir(&dir).map_err(|e| e.to_string())?;
    Ok(Box::new(move || {
        let write = || -> std::io::Result<()> {
            let all: Vec<usize> = (0..PICTURES).collect();
            for numbers in all.chunks(group) {
                let mut made = Vec::new();
                for number in numbers {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    let mut file = File::from(rustix::fs::open(dir.join(number.to_string()), flags, Mode::from_raw_mode(0o640))?);
                    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, PICTURE_BYTES as u64)?;
                    file.write_all(&picture(*number))?;
                    made.push(file);
                }
                match &made[..] {
                    [one] => {
                        one.sync_data()?;
                        File::open(&dir)?.sync_all()?;
                    }
                    several => rustix::fs::syncfs(&several[0])?,
                }
            }
            Ok(())
        };
        write().map_err(|e| e.to_string())
    }))
}

/// An ext4 in a loop file, its own mount; it goes with this value.
struct Disk {
    image: PathBuf,
    at: PathBuf,
    stat: PathBuf,
}

/// Flushes and bytes that the device has been asked for.
#[derive(Clone, Copy)]
struct Counters {
    flushes: u64,
    bytes: u64,
}

impl Disk {
    fn mount(dir: &Path) -> Option<Self> {
        let (image, at) = (dir.join("disk.img"), dir.join("data"));
        std::fs::create_dir_all(&at).ok()?;
        File::create(&image).and_then(|f| f.set_len(512 << 20)).ok()?;
        let image_text = image.display().to_string();
        succeeds("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", &image_text]).then_some(())?;
        let attached = Command::new("losetup").args(["--find", "--show", &image_text]).output().ok()?;
        let device = String::from_utf8(attached.stdout).ok()?.trim().to_owned();
        let name = device.strip_prefix("/dev/")?.to_owned();
        let mounted = succeeds("mount", &[&device, &at.display().to_string()]);
        // Detached as soon as the last user, the mount, is gone.
        let _ = succeeds("losetup", &["-d", &device]);
        mounted.then(|| Self { image, at, stat: Path::new("/sys/block").join(name).join("stat") })
    }

    fn counters(&self) -> Result<Counters, String> {
        let text = std::fs::read_to_string(&self.stat).map_err(|e| e.to_string())?;
        let fields: Vec<u64> = text.split_whitespace().filter_map(|f| f.parse().ok()).collect();
        // Documentation/block/stat.rst: 7th field sectors written (of 512 bytes), 16th flush requests.
        match (fields.get(6), fields.get(15)) {
            (Some(sectors), Some(flushes)) => Ok(Counters { flushes: *flushes, bytes: sectors * 512 }),
            _ => Err("this kernel does not count flushes (needs 5.5)".into()),
        }
    }

    fn measure<F, R>(&self, name: &'static str, prepare: F) -> Result<Row, String>
    where
        F: FnOnce() -> Result<R, String>,
        R: FnOnce() -> Result<(), String>,
    {
        let work = prepare()?;
        File::open(&self.at).and_then(|d| Ok(rustix::fs::syncfs(d)?)).map_err(|e| e.to_string())?;
        let (before, begun) = (self.counters()?, monotonic_ms());
        work()?;
        let (after, ms) = (self.counters()?, monotonic_ms() - begun);
        let each = |total: u64| total as f64 / PICTURES as f64;
        Ok(Row {
            name,
            flushes: each(after.flushes - before.flushes),
            bytes: each(after.bytes - before.bytes) / PICTURE_BYTES as f64,
            ms: ms / PICTURES as f64,
        })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The last writer may still hold a file of it: it goes when that does.
        let _ = succeeds("umount", &["-l", &self.at.display().to_string()]);
        let _ = std::fs::remove_file(&self.image);
    }
}
