//! What a V4L2 camera's frame costs until it is a picture that may be stored: raw YUYV against bare libjpeg-turbo, ffmpeg and fswebcam on
//! the same frame, and a camera's own JPEG against decoding and encoding it again.
//!
//! Inside one process the processor time of this thread counts, medians in turn. Against other programs this one starts itself
//! anew for each picture: read a file, make the picture, write it. Quality is made equal first, as in `still.rs`.

#[path = "rig/measure.rs"]
mod measure;

use measure::{Cost, fresh_dir, median, missing, run, succeeds};
use shutterd::image::frame::{Frame, FrameData, Yuv};
use shutterd::image::jpeg::{self, Encoder};
use shutterd::image::judge::{Limits, judge};
use shutterd::image::planar::{Range, planar};
use shutterd::image::repair::repair;
use shutterd::model::PIXELS_MAX;
use std::path::Path;
use std::process::{Command, Stdio};
use turbojpeg::{Compressor, Decompressor, OutputBuf, Subsamp, YuvImage, YuvPlanesImage};

const WIDTH: u32 = 1920;
const HEIGHT: u32 = 1080;
const QUALITY: u8 = 85;
const ROUNDS: usize = 41;
const RUNS: usize = 9;
/// Light that moves, edges, and a sensor's noise.
const SCENE: &str = "testsrc2=s={size}:r=1,noise=alls=6:all_seed=7";

type Outcome<T> = Result<T, String>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, source, out, quality] = &arguments[..]
        && word == "one-shot"
    {
        return one_shot(Path::new(source), Path::new(out), quality.parse().unwrap_or(QUALITY)).unwrap_or_else(|why| panic!("{why}"));
    }
    if !succeeds("ffmpeg", &["-version"]) {
        return missing("raw frames: there is no ffmpeg, the peer (apt-get install ffmpeg)");
    }
    if let Err(why) = compare() {
        missing(&format!("raw frames: {why}"));
    }
}

/// One picture as its own process makes it. By its name the file is a raw frame or a camera's JPEG.
fn one_shot(source: &Path, out: &Path, quality: u8) -> Outcome<()> {
    let bytes = std::fs::read(source).map_err(|e| e.to_string())?;
    let picture = if source.extension().is_some_and(|e| e == "yuyv") {
        let yuv = planar(*b"YUYV", &bytes, WIDTH, HEIGHT, 0, Range::Full).map_err(|e| e.to_string())?;
        jpeg::encode(&yuv, WIDTH, HEIGHT, quality).map_err(|e| e.to_string())?
    } else {
        let (width, height) = jpeg::size(&bytes, PIXELS_MAX).map_err(|e| e.to_string())?;
        passed(bytes, width, height)?
    };
    std::fs::write(out, picture).map_err(|e| e.to_string())
}

/// A camera's JPEG, mended and judged.
fn passed(jpeg: Vec<u8>, width: u32, height: u32) -> Outcome<Vec<u8>> {
    let jpeg = repair(jpeg).map_err(|e| e.to_string())?;
    let frame = Frame { data: FrameData::Jpeg(jpeg), width, height, taken_ms: 0 };
    judge(&frame, Limits { not_before_ms: 0, pixels_max: PIXELS_MAX }).map_err(|e| e.to_string())?;
    match frame.data {
        FrameData::Jpeg(jpeg) => Ok(jpeg),
        FrameData::Yuv(_) => Err("a JPEG became planes".into()),
    }
}

fn compare() -> Outcome<()> {
    let dir = fresh_dir("raw");
    let raw = dir.join("frame.yuyv");
    let reference = dir.join("frame.y4m");
    let scene = SCENE.replace("{size}", &format!("{WIDTH}x{HEIGHT}"));
    ffmpeg(["-f", "lavfi", "-i", &scene, "-frames:v", "1", "-pix_fmt", "yuyv422", "-f", "rawvideo"], &raw)?;
    let size = format!("{WIDTH}x{HEIGHT}");
    let source = ["-f", "rawvideo", "-pix_fmt", "yuyv422", "-s", &size, "-i", &raw.display().to_string()].map(String::from);
    ffmpeg(source.iter().map(String::as_str).chain(["-pix_fmt", "yuv422p"]), &reference)?;
    let data = std::fs::read(&raw).map_err(|e| e.to_string())?;
    bare(&data)?;
    one_shots(&dir, &raw, &reference, &source)?;
    passthrough(&dir)
}

/// In one process: our way against the library alone on planes that are there already.
fn bare(data: &[u8]) -> Outcome<()> {
    let planes = |range| planar(*b"YUYV", data, WIDTH, HEIGHT, 0, range).map_err(|e| e.to_string());
    let (full, limited) = (planes(Range::Full)?, planes(Range::Limited)?);
    let mut encoder = Encoder::new(QUALITY).map_err(|e| e.to_string())?;
    let mut compressor = Compressor::new().map_err(|e| e.to_string())?;
    compressor.set_quality(QUALITY.into()).map_err(|e| e.to_string())?;
    let mut out = OutputBuf::new_owned();
    let mut alone = |yuv: &Yuv| -> Outcome<usize> {
        compressor.compress_yuv_planes(&image(yuv), &mut out).map_err(|e| e.to_string())?;
        Ok(out.len())
    };
    let mut times = [const { Vec::new() }; 6];
    for _ in 0..ROUNDS {
        times[0].push(timed(|| planes(Range::Full))?);
        times[1].push(timed(|| planes(Range::Limited))?);
        times[2].push(timed(|| encoder.encode(&planes(Range::Full)?, WIDTH, HEIGHT).map_err(|e| e.to_string()))?);
        times[3].push(timed(|| encoder.encode(&planes(Range::Limited)?, WIDTH, HEIGHT).map_err(|e| e.to_string()))?);
        // Two bare ones: full levels code into more bytes than studio levels, so each has its own measure.
        times[4].push(timed(|| alone(&full))?);
        times[5].push(timed(|| alone(&limited))?);
    }
    let [split, stretch, ours, ours_stretched, bare, bare_stretched] = times.map(median);
    println!("raw: one {WIDTH}x{HEIGHT} YUYV frame at quality {QUALITY}, processor ms, medians of {ROUNDS} in turn");
    println!("  to planes                         {split:>7.2}");
    println!("  to planes, levels stretched       {stretch:>7.2}");
    println!("  bare libjpeg-turbo on the planes  {bare:>7.2}, on stretched ones {bare_stretched:.2}");
    println!("  ours, frame to JPEG               {ours:>7.2}: {:.2} x bare (reach 1.10)", ours / bare);
    println!("  ours, levels stretched            {ours_stretched:>7.2}: {:.2} x bare", ours_stretched / bare_stretched);
    Ok(())
}

fn image(yuv: &Yuv) -> YuvPlanesImage<&[u8]> {
    let (w, h) = (WIDTH as usize, HEIGHT as usize);
    YuvPlanesImage {
        y_plane: &yuv.y,
        u_plane: &yuv.u,
        v_plane: &yuv.v,
        width: w,
        height: h,
        y_stride: w,
        u_stride: w / 2,
        v_stride: w / 2,
        subsamp: Subsamp::Sub2x1,
    }
}

/// A whole process for each picture, ours and the peers', all taking the numbers as full levels (fswebcam knows no others).
fn one_shots(dir: &Path, raw: &Path, reference: &Path, source: &[String]) -> Outcome<()> {
    let ours = |quality: u32, out: &Path| one_shot_of_ours(raw, out, quality);
    let by_ffmpeg = |step: u32, out: &Path| {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-loglevel", "error", "-y"]).args(source);
        command.args(["-vf", "scale=in_range=pc:out_range=pc,format=yuvj422p", "-frames:v", "1", "-q:v", &step.to_string()]);
        run(command.arg(out))
    };
    let by_fswebcam = |quality: u32, out: &Path| {
        let mut command = Command::new("fswebcam");
        command.args(["-q", "-d", &format!("RAW:{}", raw.display()), "-r", &format!("{WIDTH}x{HEIGHT}"), "-p", "YUYV", "--no-banner"]);
        run(command.args(["--jpeg", &quality.to_string()]).arg(out).stdout(Stdio::null()))
    };
    type Maker<'a> = &'a dyn Fn(u32, &Path) -> Outcome<Cost>;
    let peers: [(&str, Maker, Vec<u32>); 2] =
        [("ffmpeg -q:v", &by_ffmpeg, (2..8).collect()), ("fswebcam --jpeg", &by_fswebcam, (82..96).collect())];
    println!("raw: the same frame from a file to a file, a process each, medians of {RUNS} in turn");
    println!("  {:<26} {:>8} {:>9} {:>9} {:>9}", "", "CPU ms", "peak MiB", "PSNR dB", "bytes");
    for (name, theirs, steps) in peers {
        let program = name.split(' ').next().unwrap_or(name);
        if !succeeds("which", &[program]) {
            missing(&format!("raw frames against {program}: it is not installed"));
            continue;
        }
        let shots = |who: &str, make: Maker, qualities: &mut dyn Iterator<Item = u32>| -> Outcome<Vec<(u32, f64, f64)>> {
            qualities
                .map(|quality| {
                    let out = dir.join(format!("{who}-{quality}.jpg"));
                    make(quality, &out)?;
                    Ok((quality, psnr(&out, reference)?, bytes(&out)))
                })
                .collect()
        };
        let peer_shots = shots(program, theirs, &mut steps.into_iter())?;
        let own_shots = shots("ours", &ours, &mut (60..97).step_by(2))?;
        let distance = |a: &(u32, f64, f64), b: &(u32, f64, f64)| (a.2 / b.2 - 1.0).abs() / 0.1 + (a.1 - b.1).abs() / 0.5;
        let pairs = own_shots.iter().flat_map(|own| peer_shots.iter().map(move |peer| (own, peer)));
        let (own, peer) = pairs.min_by(|a, b| distance(a.0, a.1).total_cmp(&distance(b.0, b.1))).ok_or("nothing to compare")?;
        let (mut mine, mut others) = (Vec::new(), Vec::new());
        for turn in 0..RUNS {
            for their_turn in [turn % 2 == 0, turn % 2 != 0] {
                let out = dir.join("turn.jpg");
                if their_turn { others.push(theirs(peer.0, &out)?) } else { mine.push(ours(own.0, &out)?) }
            }
        }
        let of = |costs: &[Cost], what: fn(&Cost) -> f64| median(costs.iter().map(what));
        for (name, costs, shot) in [(format!("ours, quality {}", own.0), &mine, own), (format!("{name} {}", peer.0), &others, peer)] {
            let (cpu, peak) = (of(costs, |c| c.cpu_ms), of(costs, |c| c.peak_mib));
            println!("  {name:<26} {cpu:>8.1} {peak:>9.1} {:>9.2} {:>9.0}", shot.1, shot.2);
        }
        println!("  ours / {program}: CPU {:.3}", of(&mine, |c| c.cpu_ms) / of(&others, |c| c.cpu_ms));
    }
    Ok(())
}

fn one_shot_of_ours(source: &Path, out: &Path, quality: u32) -> Outcome<Cost> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    run(Command::new(exe).arg("one-shot").arg(source).arg(out).arg(quality.to_string()))
}

/// A camera's own JPEG: what the look at it costs, against what it saves.
fn passthrough(dir: &Path) -> Outcome<()> {
    println!("raw: a camera's own JPEG passed through, processor ms, medians of {ROUNDS} in turn");
    for (width, height) in [(WIDTH, HEIGHT), (3264, 2448)] {
        let whole_file = dir.join(format!("{width}x{height}.jpg"));
        let scene = SCENE.replace("{size}", &format!("{width}x{height}"));
        let how =
            ["-f", "lavfi", "-i", &scene, "-frames:v", "1", "-pix_fmt", "yuvj422p", "-c:v", "mjpeg", "-huffman", "default", "-q:v", "3"];
        ffmpeg(how, &whole_file)?;
        let whole = std::fs::read(&whole_file).map_err(|e| e.to_string())?;
        let bare = without_tables(&whole);
        let endless = whole[..whole.len() - 2].to_vec();
        let mut times = [const { Vec::new() }; 6];
        for _ in 0..ROUNDS {
            for (slot, jpeg) in [&whole, &bare, &endless].into_iter().enumerate() {
                let copy = jpeg.clone();
                times[slot].push(timed(|| repair(copy).map_err(|e| e.to_string()))?);
            }
            let copy = whole.clone();
            times[3].push(timed(|| passed(copy, width, height))?);
            times[4].push(timed(|| jpeg::thumbnail_gray(&whole, PIXELS_MAX).map_err(|e| e.to_string()))?);
            times[5].push(timed(|| again(&whole))?);
        }
        let [walk, tables, end, all, look, again] = times.map(median);
        println!("  {width}x{height}, {} bytes", whole.len());
        println!("    repair: whole {walk:.3}, without tables {tables:.3}, without end (its bits followed) {end:.2}");
        println!("    judge's decode to 1/8 alone {look:.2}: {:.1} % of what passing through costs", look / all * 100.0);
        println!("    repair and judge {all:.2}; decoded and encoded again {again:.2}; ratio {:.2}", all / again);
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let out = dir.join("turn.jpg");
            mine.push(one_shot_of_ours(&whole_file, &out, 0)?);
            let mut command = Command::new("ffmpeg");
            command.args(["-nostdin", "-loglevel", "error", "-y", "-f", "mjpeg", "-i"]).arg(&whole_file);
            theirs.push(run(command.args(["-c", "copy", "-frames:v", "1"]).arg(&out))?);
        }
        let of = |costs: &[Cost]| (median(costs.iter().map(|c| c.cpu_ms)), median(costs.iter().map(|c| c.peak_mib)));
        let ((mine, mine_mib), (theirs, theirs_mib)) = (of(&mine), of(&theirs));
        println!(
            "    a process each: ours {mine:.1} ms, {mine_mib:.1} MiB; ffmpeg -c copy, which checks nothing, {theirs:.1} ms, {theirs_mib:.1} MiB; CPU {:.2}",
            mine / theirs
        );
    }
    Ok(())
}

/// The cheapest way to make a new JPEG of an old one: planes out, planes in.
fn again(jpeg: &[u8]) -> Outcome<usize> {
    let mut decompressor = Decompressor::new().map_err(|e| e.to_string())?;
    let head = decompressor.read_header(jpeg).map_err(|e| e.to_string())?;
    let len = turbojpeg::yuv_pixels_len(head.width, 1, head.height, head.subsamp).map_err(|e| e.to_string())?;
    let mut pixels = vec![0; len];
    let mut planes = YuvImage { pixels: pixels.as_mut_slice(), width: head.width, align: 1, height: head.height, subsamp: head.subsamp };
    decompressor.decompress_to_yuv(jpeg, planes.as_deref_mut()).map_err(|e| e.to_string())?;
    turbojpeg::compress_yuv(planes.as_deref(), QUALITY.into()).map(|made| made.len()).map_err(|e| e.to_string())
}

/// As cameras send Motion JPEG.
fn without_tables(jpeg: &[u8]) -> Vec<u8> {
    let mut jpeg = jpeg.to_vec();
    while let Some(at) = jpeg.windows(2).position(|two| two == [0xff, 0xc4]) {
        let length = usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        jpeg.drain(at..at + 2 + length);
    }
    jpeg
}

/// Processor time of this thread in milliseconds.
fn timed<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<f64> {
    let now = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
    };
    let begun = now();
    let made = std::hint::black_box(work()?);
    let spent = now() - begun;
    drop(made);
    Ok(spent)
}

fn ffmpeg<'a>(arguments: impl IntoIterator<Item = &'a str>, out: &Path) -> Outcome<()> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-y"]).args(arguments).arg(out);
    let status = command.status().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("ffmpeg cannot make {}", out.display())) }
}

/// PSNR over all planes, by ffmpeg's own filter.
fn psnr(picture: &Path, reference: &Path) -> Outcome<f64> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-i"]).arg(picture).arg("-i").arg(reference);
    command.args([
        "-lavfi",
        "[0]scale=in_range=pc:out_range=pc,format=yuv422p[a];[1]scale=in_range=pc:out_range=pc,format=yuv422p[b];[a][b]psnr",
    ]);
    let output = command.args(["-f", "null", "-"]).output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    let value = said.split("average:").nth(1).and_then(|rest| rest.split_whitespace().next()).and_then(|v| v.parse().ok());
    value.ok_or_else(|| format!("ffmpeg gives no PSNR: {said}"))
}

fn bytes(path: &Path) -> f64 {
    std::fs::metadata(path).map_or(f64::NAN, |m| m.len() as f64)
}
