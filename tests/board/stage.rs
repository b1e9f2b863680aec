//! One board with its cameras, and a hub beside it on this machine.

use crate::board::{Board, Images, Machine, PATIENCE};
use crate::evidence::{Evidence, Picture};
use crate::feed::{Feed, wrong_picture};
use crate::parts::{Hub, Scratch};
use shutterd::api::StatusAnswer;
use shutterd::clock::boottime_now_ms;
use std::fs;
use std::path::{Path, PathBuf};

pub const NODE: &str = "board";
/// The machine that runs the test, as the board sees it.
pub const HOST: &str = "10.0.2.2";

/// Prints what was shown, one line a promise, with the time since the test began.
pub struct Told {
    begun_ms: u64,
}

impl Told {
    pub fn begin(what: &str) -> Self {
        println!("== {what}");
        Self { begun_ms: boottime_now_ms() }
    }
    pub fn shown(&self, promise: impl std::fmt::Display) {
        println!("shown after {:3} s: {promise}", (boottime_now_ms() - self.begun_ms) / 1_000);
    }
}

/// A file that the Makefile made and the test is told of.
pub fn given(variable: &str) -> PathBuf {
    let path = PathBuf::from(std::env::var_os(variable).unwrap_or_default());
    assert!(path.is_file(), "{variable} names no file ({}); run `make board-test BOARD=qemu-virt`", path.display());
    path
}

/// Keeps a picture, or what a command said, to be looked at.
pub fn keep(name: &str, bytes: &[u8]) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("board-test");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(name), bytes).unwrap();
}

/// A schedule of a camera, called as it: on a grid from boot, so that no clock matters.
pub fn every(camera: &str, period: &str) -> String {
    format!("[schedules.{camera}]\ncamera = \"{camera}\"\nevery = \"{period}\"\nphase = \"0s\"\nalign = \"boot\"\n")
}

pub struct Stage<'i> {
    pub machine: Machine<'i>,
    pub board: Board,
    pub feed: Feed,
    pub hub: Hub,
    pub evidence: Evidence,
    /// The number of this boot in the agent's own count.
    pub boot: u32,
    // Last: what failed tests leave is told after everything else is gone.
    pub scratch: Scratch,
}

impl<'i> Stage<'i> {
    /// Switches a board on with what `prepare` put into its payload, and makes sure that it and the hub can reach each other.
    pub fn arm64(images: &'i Images, name: &str, clock: &str, prepare: impl FnOnce(&Feed)) -> Self {
        Self::with_hub(images, name, clock, |scratch| Hub::start(scratch, None, &[], None), prepare)
    }

    /// With a hub of another kind.
    pub fn with_hub(images: &'i Images, name: &str, clock: &str, hub: impl FnOnce(&Scratch) -> Hub, prepare: impl FnOnce(&Feed)) -> Self {
        let scratch = Scratch::new(name);
        let feed = Feed::new(&scratch.0);
        let hub = hub(&scratch);
        feed.add(&images.file("arm64", "uvcsim"), "uvcsim");
        feed.add(&given("SHUTTER_BOARD_DEB"), "shutterd.deb");
        prepare(&feed);
        let machine = Machine::arm64(images, &scratch.0, feed.pack());
        let mut board = machine.boot(clock);
        unpack(&mut board);
        let evidence = Evidence::new(&hub.objects, NODE);
        Self { machine, board, feed, hub, evidence, boot: 1, scratch }
    }

    /// Boots again, as after a power cut.
    pub fn boots_again(self, clock: &str) -> Self {
        let Self { machine, board, feed, hub, evidence, boot, scratch } = self;
        board.cut_power();
        let mut board = machine.boot(clock);
        unpack(&mut board);
        Self { machine, board, feed, hub, evidence, boot: boot + 1, scratch }
    }

    /// The head of a configuration: this node, this hub.
    pub fn head(&self) -> String {
        format!("[node]\nid = \"{NODE}\"\n[hub]\nurl = \"mqtt://{HOST}:{}\"\n", self.hub.mqtt.unwrap())
    }
    /// Gives the agent a configuration and starts it with that.
    pub fn configure(&mut self, text: &str) {
        let text = self.head() + text;
        self.configure_as(&text);
    }
    /// The same with a head of its own.
    pub fn configure_as(&mut self, text: &str) {
        self.board.ok(&format!("cat >/etc/shutterd/shutterd.toml <<'END'\n{text}END\nsystemctl restart shutterd"));
        let status: StatusAnswer = serde_json::from_str(
            &self
                .board
                .until("the agent answers", "s=$(shutterd status --json) && echo \"$s\" | grep -q '\"boot\": *[0-9]' && echo \"$s\""),
        )
        .unwrap();
        self.boot = status.boot.unwrap();
    }

    /// Now, by the board's own clock since its boot.
    pub fn now_ms(&mut self) -> u64 {
        let uptime = self.board.ok("cut -d' ' -f1 /proc/uptime");
        (uptime.parse::<f64>().unwrap() * 1_000.0) as u64
    }

    /// Plugs a simulated USB camera in; `what` is the folder of its frames.
    pub fn start_camera(&mut self, what: &str, serial: &str, port: u32) {
        self.board.ok(&format!(
            "modprobe vhci-hcd && rm -f /run/{what}.ctl && systemd-run --quiet --collect --unit=camera-{what} /opt/payload/uvcsim --dir /opt/payload/{what} \
             --serial '{serial}' --port {port} --ctl /run/{what}.ctl --fps 10,5"
        ));
        self.board.until("the simulated camera takes commands", &format!("[ -p /run/{what}.ctl ]"));
    }
    pub fn tell_camera(&mut self, what: &str, command: &str) {
        self.board.ok(&format!("echo '{command}' >/run/{what}.ctl"));
    }

    /// Waits for pictures of a camera taken from now on; all of them must show what that camera was fed.
    pub fn sees(&mut self, camera: &str, count: usize) -> Vec<Picture> {
        let now_ms = self.now_ms();
        self.sees_after(camera, now_ms, count)
    }
    /// The same of the test cards that the agent makes itself.
    pub fn sees_cards(&mut self, count: usize) -> Vec<Picture> {
        let now_ms = self.now_ms();
        self.evidence.wait("test cards at the hub", "card", self.boot, now_ms, count, PATIENCE)
    }
    pub fn sees_after(&mut self, camera: &str, after_ms: u64, count: usize) -> Vec<Picture> {
        let what = format!("{count} pictures of `{camera}` at the hub");
        let found = self.evidence.wait(&what, camera, self.boot, after_ms, count, PATIENCE);
        let label = self.feed.label(camera);
        for picture in &found {
            assert_eq!(wrong_picture(&picture.bytes(), &label), None, "{}", picture.path.display());
        }
        found
    }
}

fn unpack(board: &mut Board) {
    board.ok("mkdir -p /opt/payload && tar -xf /dev/vdb -C /opt/payload");
}
