//! A real camera process, and a link to it that can fail.

use shutterd::clock::Deadline;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

const PACKAGES: &str = "gir1.2-gst-rtsp-server-1.0 gstreamer1.0-rtsp gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
                        gstreamer1.0-plugins-bad python3-gi python3-pip ffmpeg";
/// The film, made once; `None` where the tools are missing.
pub static CLIPS: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clips");
    let rig = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig");
    let made = Command::new(rig.join("clips.sh")).arg(&dir).status().is_ok_and(|status| status.success());
    let server = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer";
    let served = Command::new("/usr/bin/python3").args(["-c", server]).status().is_ok_and(|status| status.success());
    if made && served {
        return Some(dir);
    }
    assert!(std::env::var_os("CI").is_none(), "the camera rig cannot run: install {PACKAGES}");
    None
});

/// A camera process; it ends with this value, as its standard input does.
pub struct Camera {
    child: Child,
    pub port: u16,
    pub log: Arc<Mutex<Vec<String>>>,
}

impl Camera {
    pub fn start(options: &[&str]) -> Option<Self> {
        let Some(clips) = &*CLIPS else {
            eprintln!("\n*** SKIPPED, no camera to test against. Run `make test`, or: apt-get install {PACKAGES}\n");
            return None;
        };
        let rig = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig/rtspcam.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(rig).arg(clips).args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| line.strip_prefix("ready ")?.parse().ok()).expect("the camera did not start");
        let log = Arc::new(Mutex::new(Vec::new()));
        let keep = log.clone();
        std::thread::spawn(move || lines.for_each(|line| keep.lock().unwrap().push(line)));
        Some(Self { child, port, log })
    }
    /// Its clients did this so often, and no more. The camera's lines come a moment after its answers.
    pub fn saw(&self, what: &str, times: usize) {
        let count = || self.log.lock().unwrap().iter().filter(|line| line.ends_with(what)).count();
        let patience = Deadline::after(Duration::from_secs(2));
        while count() < times && !patience.passed() {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(count(), times, "{what}");
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A link between agent and camera that can be cut, or go dead, after so many bytes of video.
pub struct Link {
    pub port: u16,
    /// Connections open now, and at most ever.
    pub connections: Arc<(AtomicUsize, AtomicUsize)>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    /// Connections that have gone dead without a goodbye: the first so many.
    pub dead: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
pub enum After {
    Cut(usize),
    Dead(usize),
    /// Swallows every n-th packet of media.
    LosesEvery(usize),
    /// Delays all that the agent says.
    Slow(Duration),
    Never,
}

/// Passes RTSP messages and interleaved packets (`$`, channel, length) one by one, but not every n-th packet.
fn lose(mut from: impl BufRead, mut to: TcpStream, every: usize) -> std::io::Result<()> {
    for count in 1.. {
        let mut head = vec![0; 4];
        from.read_exact(&mut head)?;
        if head[0] == b'$' {
            let mut body = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
            from.read_exact(&mut body)?;
            if count % every != 0 {
                to.write_all(&[head, body].concat())?;
            }
            continue;
        }
        let mut body_len = 0;
        while !head.ends_with(b"\r\n\r\n") {
            let line = head.len();
            from.read_until(b'\n', &mut head)?;
            let line = String::from_utf8_lossy(&head[line..]).to_ascii_lowercase();
            body_len = line.strip_prefix("content-length:").map_or(body_len, |len| len.trim().parse().unwrap());
        }
        to.write_all(&head)?;
        std::io::copy(&mut from.by_ref().take(body_len), &mut to)?;
    }
    Ok(())
}

impl Link {
    pub fn to(camera: u16, after: After) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = Arc::new(Mutex::new(Vec::new()));
        let keep = open.clone();
        let connections = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
        let count = connections.clone();
        let dead = Arc::new(AtomicUsize::new(0));
        let gone = dead.clone();
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let gone = gone.clone();
                let server = TcpStream::connect(("127.0.0.1", camera)).unwrap();
                keep.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                let mut up = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let mut down = (server, client);
                let now = count.0.fetch_add(1, Relaxed) + 1;
                count.1.fetch_max(now, Relaxed);
                let count = count.clone();
                std::thread::spawn(move || {
                    let mut buffer = [0; 4_096];
                    while let Ok(len @ 1..) = up.0.read(&mut buffer) {
                        if let After::Slow(delay) = after {
                            std::thread::sleep(delay);
                        }
                        if up.1.write_all(&buffer[..len]).is_err() {
                            break;
                        }
                    }
                    count.0.fetch_sub(1, Relaxed);
                });
                if let After::LosesEvery(count) = after {
                    std::thread::spawn(move || lose(BufReader::new(down.0), down.1, count));
                    continue;
                }
                std::thread::spawn(move || {
                    let mut buffer = [0; 4_096];
                    let mut passed = 0;
                    while let Ok(len @ 1..) = down.0.read(&mut buffer) {
                        passed += len;
                        match after {
                            After::Cut(bytes) if passed > bytes => {
                                let _ = down.1.shutdown(Shutdown::Both);
                                let _ = down.0.shutdown(Shutdown::Both);
                                return;
                            }
                            After::Dead(bytes) if passed > bytes => continue,
                            _ if number < gone.load(Relaxed) => continue,
                            _ => {}
                        }
                        if down.1.write_all(&buffer[..len]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, connections, open, dead }
    }
    pub fn cut_all(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
