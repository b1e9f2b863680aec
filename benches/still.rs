//! One still of a 1080p H.264 camera over RTSP: `shutterd snap` against `ffmpeg -frames:v 1`, at equal quality.
//!
//! Quality is made equal first: of several qualities of ours and several of ffmpeg's the pair is taken whose pictures of the same
//! keyframe are closest in PSNR and bytes. Then both take pictures in turn from the same server; processor time and peak memory are the kernel's.

#[path = "rig/measure.rs"]
mod measure;

use measure::{Cost, fresh_dir, median, missing, run, succeeds};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const RUNS: usize = 9;
/// What is tried to find equal quality: our `quality`, and ffmpeg's `-q:v`.
const QUALITIES: [u32; 8] = [86, 82, 80, 79, 78, 77, 76, 74];
const STEPS: [u32; 4] = [2, 3, 4, 5];
const KEYFRAMES: usize = 5;
/// A keyframe every second.
const FRAMES_PER_KEYFRAME: usize = 25;

fn main() {
    if !succeeds("ffmpeg", &["-version"]) {
        return missing("the still: there is no ffmpeg, the peer (apt-get install ffmpeg)");
    }
    let film = film();
    let Some(((camera, port), film)) = film.and_then(|film| Some((Camera::start(&film)?, film))) else {
        return missing("the still: the test camera cannot run (`make test` installs what it needs)");
    };
    if let Err(why) = compare(port, &film) {
        missing(&format!("the still: {why}"));
    }
    drop(camera);
}

struct Shot {
    cost: Cost,
    psnr_db: f64,
    bytes: f64,
}

fn compare(port: u16, film: &Path) -> Result<(), String> {
    let dir = fresh_dir("still");
    let url = format!("rtsp://127.0.0.1:{port}/h264");
    let config = dir.join("shutterd.toml");
    let set_quality = |quality: u32| {
        let text = format!(
            "[node]\nid = \"bench\"\n[store]\ndir = \"{0}/data\"\nruntime_dir = \"{0}/run\"\n\
             [cameras.gate]\nsource = \"{url}\"\nquality = {quality}\n",
            dir.display()
        );
        std::fs::write(&config, text).map_err(|e| e.to_string())
    };
    let keyframes = keyframes(film, &dir)?;
    let ours = |out: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shutterd"));
        command.arg("-c").arg(&config).args(["snap", "gate", "-o"]).arg(out).stdout(Stdio::null());
        run(&mut command)
    };
    let theirs = |quality: u32, out: &Path| {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-loglevel", "error", "-y", "-rtsp_transport", "tcp", "-i", &url, "-frames:v", "1", "-q:v"]);
        run(command.arg(quality.to_string()).arg(out))
    };

    // Ours at several qualities, each against ffmpeg's steps for the same keyframe: the closest pair is measured.
    let mut pairs = Vec::new();
    for quality in QUALITIES {
        set_quality(quality)?;
        let shot = dir.join("ours.jpg");
        ours(&shot)?;
        let (psnr_db, keyframe) = best_match(&shot, &keyframes)?;
        for step in STEPS {
            let out = dir.join(format!("key-{keyframe}-q{step}.jpg"));
            if !out.exists() {
                encode(&keyframes[keyframe], step, &out)?;
            }
            let peer_db = psnr(&out, &keyframes[keyframe])?;
            pairs.push(Pair { quality, step, psnr_db, peer_db, bytes: size(&shot), peer_bytes: size(&out) });
        }
    }
    let pair = pairs.iter().min_by(|a, b| a.distance().total_cmp(&b.distance())).ok_or("nothing to compare")?;
    set_quality(pair.quality)?;

    let (mut mine, mut peers) = (Vec::new(), Vec::new());
    for turn in 0..RUNS {
        for ffmpeg in [turn % 2 == 0, turn % 2 != 0] {
            let out = dir.join(format!("{}-{turn}.jpg", if ffmpeg { "ffmpeg" } else { "shutterd" }));
            let cost = if ffmpeg { theirs(pair.step, &out)? } else { ours(&out)? };
            let (psnr_db, _) = best_match(&out, &keyframes)?;
            let shot = Shot { cost, psnr_db, bytes: size(&out) };
            if ffmpeg { peers.push(shot) } else { mine.push(shot) }
        }
    }
    report(pair, &mine, &peers);
    Ok(())
}

fn report(pair: &Pair, mine: &[Shot], peers: &[Shot]) {
    let of = |shots: &[Shot], what: fn(&Shot) -> f64| median(shots.iter().map(what));
    println!("still: one 1080p H.264 keyframe over RTSP, medians of {RUNS} in turn");
    println!("  {:<28} {:>8} {:>9} {:>8} {:>12} {:>9}", "", "CPU ms", "peak MiB", "wall ms", "worst PSNR", "bytes");
    let names = [format!("shutterd snap, quality {}", pair.quality), format!("ffmpeg -frames:v 1 -q:v {}", pair.step)];
    for (name, shots) in names.iter().zip([mine, peers]) {
        println!(
            "  {name:<28} {:>8.1} {:>9.1} {:>8.0} {:>9.2} dB {:>9.0}",
            of(shots, |s| s.cost.cpu_ms),
            of(shots, |s| s.cost.peak_mib),
            of(shots, |s| s.cost.wall_ms),
            shots.iter().map(|s| s.psnr_db).fold(f64::MAX, f64::min),
            of(shots, |s| s.bytes)
        );
    }
    let ratio = |what: fn(&Shot) -> f64| of(mine, what) / of(peers, what);
    println!(
        "  shutterd / ffmpeg: CPU {:.2} (reach 0.20), memory {:.2} (reach 0.25), wall {:.2}",
        ratio(|s| s.cost.cpu_ms),
        ratio(|s| s.cost.peak_mib),
        ratio(|s| s.cost.wall_ms)
    );
    println!(
        "  equal quality, the same keyframe: {:.2} and {:.2} dB ({:+.2}, within 0.5), {:.0} and {:.0} bytes ({:+.1} %, within 10 %)",
        pair.psnr_db,
        pair.peer_db,
        pair.psnr_db - pair.peer_db,
        pair.bytes,
        pair.peer_bytes,
        (pair.bytes / pair.peer_bytes - 1.0) * 100.0
    );
}

/// A quality of ours beside one of ffmpeg's, for one keyframe.
struct Pair {
    quality: u32,
    step: u32,
    psnr_db: f64,
    peer_db: f64,
    bytes: f64,
    peer_bytes: f64,
}

impl Pair {
    /// 1: just within what counts as equal.
    fn distance(&self) -> f64 {
        let bytes = (self.bytes / self.peer_bytes - 1.0).abs() / 0.1;
        bytes.max((self.psnr_db - self.peer_db).abs() / 0.5)
    }
}

/// The film with one slice a frame: of several, ffmpeg's first picture from this server had only the first (the rest smeared,
/// exit code 0), and a damaged picture is no peer.
fn film() -> Option<PathBuf> {
    let (clips, film) = (Path::new(env!("CARGO_TARGET_TMPDIR")).join("clips"), fresh_dir("film"));
    let rig = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig/clips.sh");
    succeeds(&rig.display().to_string(), &[&clips.display().to_string()]).then_some(())?;
    for clip in std::fs::read_dir(&clips).ok()?.flatten().filter(|clip| clip.file_name() != "cam.h264") {
        std::os::unix::fs::symlink(clip.path(), film.join(clip.file_name())).ok()?;
    }
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-y", "-i"]).arg(clips.join("cam.h264"));
    command.args(["-c:v", "libx264", "-preset", "veryfast", "-g", "25", "-keyint_min", "25", "-sc_threshold", "0", "-bf", "0"]);
    command.args(["-crf", "23", "-x264-params", "slices=1:aud=1:repeat-headers=1", "-f", "h264"]).arg(film.join("cam.h264"));
    command.status().ok().filter(|status| status.success()).map(|_| film)
}

fn encode(keyframe: &Path, step: u32, out: &Path) -> Result<(), String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-y", "-i"]).arg(keyframe).args(["-q:v", &step.to_string()]).arg(out);
    command.status().ok().filter(|status| status.success()).map(|_| ()).ok_or_else(|| "ffmpeg cannot encode".into())
}

/// The film's keyframes, decoded, one file each.
fn keyframes(film: &Path, dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut made = Vec::new();
    for n in 0..KEYFRAMES {
        let out = dir.join(format!("key-{n}.y4m"));
        let select = format!("select=eq(n\\,{})", n * FRAMES_PER_KEYFRAME);
        let done = Command::new("ffmpeg")
            .args(["-nostdin", "-loglevel", "error", "-y", "-i"])
            .arg(film.join("cam.h264"))
            .args(["-vf", &select, "-frames:v", "1"])
            .arg(&out)
            .status();
        done.ok().filter(|s| s.success()).ok_or("the keyframes cannot be decoded")?;
        made.push(out);
    }
    Ok(made)
}

/// PSNR over all planes, by ffmpeg's own filter: the reference decoder judges both.
fn psnr(picture: &Path, keyframe: &Path) -> Result<f64, String> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-i"])
        .arg(picture)
        .arg("-i")
        .arg(keyframe)
        .args(["-lavfi", "[0]scale=in_range=pc:out_range=tv,format=yuv420p[a];[a][1]psnr", "-f", "null", "-"])
        .output()
        .map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    let value = said.split("average:").nth(1).and_then(|rest| rest.split_whitespace().next()).and_then(|v| v.parse().ok());
    value.ok_or_else(|| format!("ffmpeg gives no PSNR: {said}"))
}

fn best_match(picture: &Path, keyframes: &[PathBuf]) -> Result<(f64, usize), String> {
    let mut best = (f64::MIN, 0);
    for (n, keyframe) in keyframes.iter().enumerate() {
        let db = psnr(picture, keyframe)?;
        if db > best.0 {
            best = (db, n);
        }
    }
    Ok(best)
}

fn size(path: &Path) -> f64 {
    std::fs::metadata(path).map_or(f64::NAN, |m| m.len() as f64)
}

/// The camera process; it ends with its standard input.
struct Camera(Child);

impl Camera {
    fn start(film: &Path) -> Option<(Self, u16)> {
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig/rtspcam.py"))
            .arg(film)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let mut lines = BufReader::new(child.stdout.take()?).lines().map_while(Result::ok);
        let port = lines.find_map(|line| line.strip_prefix("ready ")?.parse().ok())?;
        // Its words are read on, or it would stop at a full pipe.
        std::thread::spawn(move || lines.count());
        Some((Self(child), port))
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
