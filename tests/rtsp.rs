//! IP cameras from outside: a real RTSP server plays real film, and behaves as badly as cameras do.
//!
//! Needs GStreamer's RTSP server and ffmpeg (`make test` installs them). Without them the tests say so and pass,
//! except where `CI` is set.

mod rig;

use rig::{After, CLIPS, Camera, Link};
use shutterd::capture;
use shutterd::capture::source::{CaptureError, Frame, FrameData, Remedy, Source, Want, Yuv};
use shutterd::clock::{Clock, Deadline, SystemClock, boottime_now_ms};
use shutterd::config::secret::{Secret, SourceKind, SourceUrl};
use shutterd::config::settings;
use shutterd::image::{jpeg, judge};
use shutterd::model::PIXELS_MAX;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::Duration;

/// One camera a second gives a keyframe; the rest is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(8);

/// The agent's runtime: one thread that runs until told otherwise.
struct Agent {
    handle: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let _ = runtime.block_on(stopped);
        });
        Self { handle, stop: Some(stop), thread: Some(thread) }
    }
    fn open(&self, port: u16, path: &str, login: Option<(&str, &str)>, keep_open: bool) -> Box<dyn Source> {
        self.open_limited(port, path, login, keep_open, PIXELS_MAX)
    }
    fn open_limited(&self, port: u16, path: &str, login: Option<(&str, &str)>, keep_open: bool, max_pixels: u64) -> Box<dyn Source> {
        let url = url::Url::parse(&format!("rtsp://127.0.0.1:{port}{path}")).unwrap();
        let source = SourceUrl {
            kind: SourceKind::Rtsp(url),
            user: login.map(|(user, _)| user.into()),
            password: login.map(|(_, password)| Secret::new(password.into())),
        };
        let camera =
            settings::Camera { id: "gate".parse().unwrap(), source, quality: 85, timeout: PATIENCE, max_pixels, video: Default::default() };
        capture::open(&camera, keep_open, PATIENCE, self.handle.clone()).unwrap()
    }
    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}

fn grab(source: &mut dyn Source) -> Result<Frame, CaptureError> {
    grab_within(source, PATIENCE)
}
fn grab_within(source: &mut dyn Source, patience: Duration) -> Result<Frame, CaptureError> {
    let not_before_ms = boottime_now_ms();
    let want = Want { not_before_ms, deadline: Deadline::after(patience), label: "gate/test/1/0".into() };
    let result = source.grab(&want);
    if let Ok(frame) = &result {
        judge::judge(frame, judge::Limits { not_before_ms, pixels_max: PIXELS_MAX }).expect("a frame passes the honesty gate");
    }
    result
}

fn yuv(frame: &Frame) -> &Yuv {
    match &frame.data {
        FrameData::Yuv(yuv) => yuv,
        FrameData::Jpeg(_) => panic!("expected planes"),
    }
}

/// What ffmpeg makes of the film's keyframes: planes at full levels.
fn reference() -> Vec<Vec<u8>> {
    let clip = CLIPS.as_ref().unwrap().join("cam.h264");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-loglevel", "error", "-skip_frame", "nokey", "-i"]).arg(clip);
    ffmpeg.args(["-fps_mode", "passthrough", "-vf", "scale=in_range=tv:out_range=pc", "-pix_fmt", "yuvj420p", "-f", "rawvideo", "-"]);
    let out = ffmpeg.output().unwrap().stdout;
    let frames: Vec<Vec<u8>> = out.chunks_exact(1920 * 1080 * 3 / 2).map(<[u8]>::to_vec).collect();
    assert_eq!(frames.len(), 5);
    frames
}

fn psnr_db(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: u64 = a.iter().zip(b).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum();
    10.0 * (255.0 * 255.0 * a.len() as f64 / (squares as f64).max(1.0)).log10()
}

/// Index of the keyframe that looks most like this luma, and how much.
fn best(luma: &[u8], reference: &[Vec<u8>]) -> (usize, f64) {
    let scores = reference.iter().map(|frame| psnr_db(luma, &frame[..luma.len()]));
    scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
}

#[test]
fn an_h264_still_is_the_keyframe_that_was_on_air() {
    let Some(camera) = Camera::start(&[]) else { return };
    let agent = Agent::start();
    let frame = grab(&mut *agent.open(camera.port, "/h264", None, false)).unwrap();
    let offset_ms = SystemClock.read().offset_ms();
    assert_eq!((frame.width, frame.height), (1920, 1080));

    let reference = reference();
    let (index, db) = best(&yuv(&frame).y, &reference);
    assert!(db > 48.0, "decoded luma differs from another decoder's: {db:.1} dB");
    let chroma = &reference[index][1920 * 1080..];
    let (u, v) = chroma.split_at(chroma.len() / 2);
    assert!(psnr_db(&yuv(&frame).u, u) > 48.0 && psnr_db(&yuv(&frame).v, v) > 48.0);
    // The film's n-th keyframe is on air in the n-th second of every five.
    let second = (frame.taken_ms as i64 + offset_ms) / 1_000 % 5;
    assert_eq!(index as i64, second, "an old picture");

    let stored = jpeg::encode(yuv(&frame), 1920, 1080, 85).unwrap();
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("still.jpg"), &stored).unwrap();
    let (gray, ..) = jpeg::decode_gray(&stored, PIXELS_MAX).unwrap();
    let (again, db) = best(&gray, &reference);
    assert!(again == index && db > 34.0, "{db:.1} dB");
}

#[test]
fn an_mjpeg_still_has_the_pixels_the_camera_made() {
    let Some(camera) = Camera::start(&[]) else { return };
    let agent = Agent::start();
    let frame = grab(&mut *agent.open(camera.port, "/mjpeg", None, false)).unwrap();
    let FrameData::Jpeg(jpeg) = &frame.data else { panic!("not passed through") };
    assert_eq!((frame.width, frame.height), (1280, 720));
    let got = jpeg::decode_gray(jpeg, PIXELS_MAX).unwrap();
    let clip = std::fs::read(CLIPS.as_ref().unwrap().join("cam.mjpeg")).unwrap();
    let starts: Vec<usize> = (0..clip.len() - 2).filter(|&i| clip[i..].starts_with(&[0xff, 0xd8, 0xff])).collect();
    let ends = starts.iter().skip(1).copied().chain([clip.len()]);
    let same = starts.iter().zip(ends).filter(|&(&from, to)| jpeg::decode_gray(&clip[from..to], PIXELS_MAX).unwrap() == got);
    assert_eq!(same.count(), 1, "exactly one frame of the film");
}

#[test]
fn logs_in_with_basic_and_digest_and_says_when_it_may_not() {
    for method in ["basic", "digest"] {
        let Some(camera) = Camera::start(&["--auth", method]) else { return };
        let agent = Agent::start();
        let with = |login| grab(&mut *agent.open(camera.port, "/mjpeg", login, false));
        with(Some(("admin", "se/cret"))).unwrap_or_else(|e| panic!("{method}: {e}"));
        for login in [Some(("admin", "wr0ng-pa55")), Some(("nobody", "se/cret")), None] {
            let error = with(login).unwrap_err();
            assert!(matches!(error, CaptureError::Login { .. }), "{method} {login:?}: {error}");
            assert_eq!(error.remedy(), Remedy::Fatal);
            let said = format!("{error} {error:?}");
            assert!(!said.contains("wr0ng-pa55") && !said.contains("se/cret"), "{said}");
        }
    }
}

#[test]
fn what_cannot_be_used_is_said_in_words() {
    let Some(camera) = Camera::start(&[]) else { return };
    let agent = Agent::start();
    let error = |path, limit| grab(&mut *agent.open_limited(camera.port, path, None, false, limit)).unwrap_err();
    let missing = error("/no-such-path", PIXELS_MAX);
    assert!(matches!(missing, CaptureError::NotFound { .. }), "{missing}");
    let hevc = error("/h265", PIXELS_MAX);
    assert!(matches!(hevc, CaptureError::Unsupported { .. }) && hevc.to_string().contains("H265"), "{hevc}");
    let interlaced = error("/interlaced", PIXELS_MAX);
    assert!(matches!(interlaced, CaptureError::Unsupported { .. }) && interlaced.to_string().contains("progressive"), "{interlaced}");
    for path in ["/h264", "/mjpeg"] {
        let large = error(path, 640 * 480);
        assert!(matches!(large, CaptureError::TooLarge { limit: 307_200, .. }), "{large}");
    }
}

#[test]
fn a_camera_that_refuses_tcp_is_asked_for_udp() {
    let Some(camera) = Camera::start(&["--udp-only"]) else { return };
    let agent = Agent::start();
    let mut source = agent.open(camera.port, "/mjpeg", None, false);
    grab(&mut *source).unwrap();
    camera.saw("SETUP", 1);
    grab(&mut *source).unwrap();
    drop(source);
    camera.saw("TEARDOWN", 2);
}

#[test]
fn a_camera_that_hangs_up_over_tcp_media_is_asked_for_udp_on_a_new_call_and_from_then_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, transports) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            while let Some(request) = lines.next() {
                let headers: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
                let header = |name: &str| headers.iter().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
                let cseq = header("CSeq:");
                if request.starts_with("SETUP") {
                    heard.send(header("Transport:")).unwrap();
                    let _ = write!(stream, "RTSP/1.0 461 Unsupported transport\r\nCSeq: {cseq}\r\n\r\n");
                    let _ = stream.shutdown(Shutdown::Both);
                    break;
                }
                let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:v\r\n";
                let head = format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nContent-Type: application/sdp\r\nContent-Length: {}", sdp.len());
                let _ = write!(stream, "{head}\r\n\r\n{sdp}");
            }
        }
    });
    let agent = Agent::start();
    let mut source = agent.open(port, "/", None, false);
    let error = grab(&mut *source).unwrap_err();
    assert!(error.to_string().contains("461"), "{error}");
    let _ = grab(&mut *source).unwrap_err();
    let asked: Vec<bool> = transports.try_iter().map(|transport| transport.contains("client_port=")).collect();
    assert_eq!(asked, [false, true, true]);
}

#[test]
fn an_open_session_serves_every_later_picture_fresh() {
    let Some(camera) = Camera::start(&[]) else { return };
    let agent = Agent::start();
    let mut source = agent.open(camera.port, "/h264", None, true);
    let first = grab(&mut *source).unwrap();
    // Nobody asks for two keyframes long: neither may be waiting for the next request.
    std::thread::sleep(Duration::from_millis(2_300));
    let asked_ms = boottime_now_ms();
    let second = grab(&mut *source).unwrap();
    let offset_ms = SystemClock.read().offset_ms();
    assert!(first.taken_ms < asked_ms && second.taken_ms >= asked_ms);
    let (index, _) = best(&yuv(&second).y, &reference());
    assert_eq!(index as i64, (second.taken_ms as i64 + offset_ms) / 1_000 % 5, "an old picture with a new stamp");
    camera.saw("SETUP", 1);
    camera.saw("TEARDOWN", 0);
    drop(source);
    camera.saw("TEARDOWN", 1);
}

#[test]
fn a_session_is_ended_after_each_picture_unless_kept_open() {
    let Some(camera) = Camera::start(&[]) else { return };
    let agent = Agent::start();
    let mut source = agent.open(camera.port, "/mjpeg", None, false);
    grab(&mut *source).unwrap();
    grab(&mut *source).unwrap();
    drop(source);
    camera.saw("SETUP", 2);
    camera.saw("TEARDOWN", 2);
    let order: Vec<String> = camera.log.lock().unwrap().iter().filter(|line| !line.ends_with("DESCRIBE")).cloned().collect();
    assert_eq!(order, ["client SETUP", "client TEARDOWN", "client SETUP", "client TEARDOWN"], "one at a time");
}

#[test]
fn a_picture_is_never_older_than_the_instant_asked_for() {
    let Some(camera) = Camera::start(&[]) else { return };
    let agent = Agent::start();
    let not_before_ms = boottime_now_ms() + 1_500;
    let want = Want { not_before_ms, deadline: Deadline::after(PATIENCE), label: String::new() };
    let frame = agent.open(camera.port, "/mjpeg", None, false).grab(&want).unwrap();
    assert!(frame.taken_ms >= not_before_ms);
}

#[test]
fn a_picture_of_which_a_part_is_missing_is_damaged() {
    let Some(camera) = Camera::start(&[]) else { return };
    let agent = Agent::start();
    for path in ["/h264-slice-missing", "/mjpeg-torn"] {
        let error = grab(&mut *agent.open(camera.port, path, None, false)).unwrap_err();
        assert!(matches!(error, CaptureError::Damaged { .. }) && error.remedy() == Remedy::Retry, "{path}: {error}");
    }
}

#[test]
fn a_keyframe_with_a_lost_packet_is_passed_over() {
    let Some(camera) = Camera::start(&[]) else { return };
    let agent = Agent::start();
    let lossy = Link::to(camera.port, After::LosesEvery(20));
    let error = grab_within(&mut *agent.open(lossy.port, "/h264", None, false), Duration::from_millis(2_500)).unwrap_err();
    assert!(matches!(&error, CaptureError::Timeout { stage, .. } if stage.contains("damaged on the way")), "{error}");
    // One loss a while ago must not spoil what comes after it: whole keyframes between losses are taken.
    let rarely = Link::to(camera.port, After::LosesEvery(700));
    grab(&mut *agent.open(rarely.port, "/h264", None, false)).unwrap();
}

#[test]
fn a_picture_cut_in_the_middle_is_an_error_never_a_picture() {
    let Some(camera) = Camera::start(&[]) else { return };
    let agent = Agent::start();
    // Enough for the whole dialogue (about 2 KB) and a part of one frame (about 100 KB).
    let link = Link::to(camera.port, After::Cut(40_000));
    let cut = grab(&mut *agent.open(link.port, "/mjpeg", None, false)).unwrap_err();
    assert!(matches!(cut, CaptureError::Broken { .. }) && cut.remedy() == Remedy::Reopen, "{cut}");

    let link = Link::to(camera.port, After::Dead(40_000));
    let began_ms = boottime_now_ms();
    let dead = grab_within(&mut *agent.open(link.port, "/mjpeg", None, false), Duration::from_millis(1_500)).unwrap_err();
    assert!(matches!(&dead, CaptureError::Timeout { stage, .. } if stage.contains("no picture came")), "{dead}");
    assert!(boottime_now_ms() - began_ms < 3_500);
}

#[test]
fn a_camera_never_has_two_sessions_of_ours() {
    let Some(camera) = Camera::start(&[]) else { return };
    let agent = Agent::start();
    let slow = Link::to(camera.port, After::Slow(Duration::from_millis(150)));
    for keep_open in [false, true] {
        let mut source = agent.open(slow.port, "/mjpeg", None, keep_open);
        grab(&mut *source).unwrap();
        grab(&mut *source).unwrap();
        drop(source);
    }
    assert_eq!(slow.connections.1.load(Relaxed), 1, "the next one waits until the camera has let the last one go");
}

#[test]
fn a_session_that_died_unnoticed_costs_no_picture() {
    let Some(camera) = Camera::start(&[]) else { return };
    let agent = Agent::start();
    let link = Link::to(camera.port, After::Never);
    let mut source = agent.open(link.port, "/mjpeg", None, true);
    grab(&mut *source).unwrap();
    link.cut_all();
    grab(&mut *source).unwrap();
    camera.saw("SETUP", 2);
}

#[test]
fn a_camera_that_vanished_while_nobody_asked_costs_no_picture() {
    let Some(camera) = Camera::start(&[]) else { return };
    let agent = Agent::start();
    let link = Link::to(camera.port, After::Never);
    let mut source = agent.open(link.port, "/mjpeg", None, true);
    grab(&mut *source).unwrap();
    link.dead.store(1, Relaxed);
    std::thread::sleep(Duration::from_millis(5_500));
    grab(&mut *source).unwrap();
}

#[test]
fn a_camera_that_falls_silent_is_given_up_at_the_deadline() {
    let Some(camera) = Camera::start(&["--once-then-silent", "1.5"]) else { return };
    let agent = Agent::start();
    let mut source = agent.open(camera.port, "/mjpeg", None, true);
    grab(&mut *source).unwrap();
    std::thread::sleep(Duration::from_millis(1_700));
    let began_ms = boottime_now_ms();
    let error = grab_within(&mut *source, Duration::from_millis(700)).unwrap_err();
    let took_ms = boottime_now_ms() - began_ms;
    assert!(matches!(error, CaptureError::Timeout { .. }), "{error}");
    assert!((690..1_000).contains(&took_ms), "{took_ms} ms");
}

#[test]
fn a_keyframe_that_does_not_come_in_time_is_a_timeout_that_says_so() {
    let Some(camera) = Camera::start(&[]) else { return };
    let agent = Agent::start();
    let mut source = agent.open(camera.port, "/h264", None, true);
    grab(&mut *source).unwrap();
    // Right after a keyframe; the next one is a second away.
    let error = grab_within(&mut *source, Duration::from_millis(500)).unwrap_err();
    assert!(error.to_string().contains("none of them a new keyframe"), "{error}");
}

#[test]
fn a_host_that_accepts_and_never_answers_holds_nobody_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let agent = Agent::start();
    let mut source = agent.open(listener.local_addr().unwrap().port(), "/h264", None, true);
    for _ in 0..2 {
        let began_ms = boottime_now_ms();
        let error = grab_within(&mut *source, Duration::from_millis(500)).unwrap_err();
        let took_ms = boottime_now_ms() - began_ms;
        assert!(matches!(&error, CaptureError::Timeout { stage, .. } if stage.contains("DESCRIBE")), "{error}");
        assert!((490..800).contains(&took_ms), "{took_ms} ms");
    }
}

#[test]
fn nobody_there_is_unreachable_at_once() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let agent = Agent::start();
    let error = grab(&mut *agent.open(port, "/h264", None, false)).unwrap_err();
    assert!(matches!(error, CaptureError::Unreachable { .. }), "{error}");
}

#[test]
fn a_camera_that_sends_our_login_back_in_garbage_does_not_get_it_into_a_log() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut heard = vec![0; 4_096];
            let _ = stream.read(&mut heard);
            let _ = stream.write_all(b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\r\n");
            let len = stream.read(&mut heard).unwrap_or(0);
            // All that was sent, credentials included, as the first line of no valid answer.
            let echo: Vec<u8> = heard[..len].iter().map(|&b| if b < b' ' { b' ' } else { b }).collect();
            let _ = stream.write_all(&[&echo[..], b"\r\n\r\n"].concat());
        }
    });
    let agent = Agent::start();
    let error = grab(&mut *agent.open(port, "/x?token=t0ken", Some(("admin", "hunter2")), false)).unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(matches!(error, CaptureError::Broken { .. }), "{said}");
    // YWRtaW46aHVudGVyMg== is admin:hunter2.
    for secret in ["hunter2", "YWRtaW46", "t0ken"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn a_grab_ends_when_the_runtime_does() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut agent = Agent::start();
    let mut source = agent.open(listener.local_addr().unwrap().port(), "/h264", None, true);
    let (done, finished) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        done.send(()).unwrap();
        let first = grab_within(&mut *source, Duration::from_secs(60));
        // And again, with no runtime at all.
        let second = grab_within(&mut *source, Duration::from_secs(60));
        done.send(()).unwrap();
        (first.is_err(), second.is_err())
    });
    finished.recv().unwrap();
    let _connected = listener.accept().unwrap();
    agent.stop();
    finished.recv_timeout(Duration::from_secs(5)).expect("the grab hangs");
    assert_eq!(thread.join().unwrap(), (true, true));
}

/// How late pictures of a camera are that is opened at the instant itself, and of one opened ahead of it.
fn lateness(port: u16, agent: &Agent, path: &str) -> (Vec<u64>, Vec<u64>) {
    let mut source = agent.open(port, path, None, false);
    let (mut cold, mut ahead) = (Vec::new(), Vec::new());
    for round in 0..12 {
        // At all places of the film's seconds.
        let due_ms = boottime_now_ms() + 900 + round / 2 * 170;
        if round % 2 == 1 {
            let _ = source.warm_up(Deadline::at(due_ms));
            assert!(source.warm_up_ms().is_some_and(|ms| ms < 2_000));
        }
        std::thread::sleep(Deadline::at(due_ms).left());
        let frame = grab(&mut *source).unwrap();
        assert!(frame.taken_ms >= due_ms, "a frame from before it was due");
        let late = if round % 2 == 1 { &mut ahead } else { &mut cold };
        late.push(frame.taken_ms - due_ms);
    }
    cold.sort_unstable();
    ahead.sort_unstable();
    println!("{path}: due to taken, opened when due {cold:?} ms, opened ahead {ahead:?} ms");
    (cold, ahead)
}

#[test]
fn a_session_opened_ahead_of_its_slot_gives_the_picture_that_is_due() {
    let Some(camera) = Camera::start(&["--keyframe-first"]) else { return };
    let agent = Agent::start();
    // Cameras take their time to answer; this one does for each of the dialogue's steps, of which there are three.
    let slow = Link::to(camera.port, After::Slow(Duration::from_millis(150)));
    for path in ["/mjpeg", "/h264"] {
        let (cold, ahead) = lateness(slow.port, &agent, path);
        assert!(cold[0] >= 450, "the control: opened when due it is late by its dialogue");
        assert!(ahead[3] * 2 < cold[3], "{path}");
    }
    drop(agent);
    camera.saw("SETUP", 24);
    camera.saw("TEARDOWN", 24);
}

#[test]
fn a_session_opened_ahead_in_vain_is_ended_and_one_that_is_late_is_gone_on_with() {
    let Some(camera) = Camera::start(&[]) else { return };
    let agent = Agent::start();
    let mut source = agent.open(camera.port, "/h264", None, false);
    source.warm_up(Deadline::after(PATIENCE)).unwrap();
    drop(source);
    camera.saw("TEARDOWN", 1);
    // Its dialogue takes longer than there is time: the grab waits for the rest of it.
    let slow = Link::to(camera.port, After::Slow(Duration::from_millis(200)));
    let mut source = agent.open(slow.port, "/mjpeg", None, false);
    assert!(matches!(source.warm_up(Deadline::after(Duration::from_millis(100))), Err(CaptureError::Timeout { .. })));
    grab(&mut *source).unwrap();
    camera.saw("SETUP", 2);
    // Nobody is there, and says so; the next grab asks again.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut source = agent.open(port, "/h264", None, false);
    assert!(matches!(source.warm_up(Deadline::after(PATIENCE)), Err(CaptureError::Unreachable { .. })));
    assert!(matches!(grab(&mut *source), Err(CaptureError::Unreachable { .. })));
}
