//! What takes its time: memory with many pictures and large cameras, punctuality, and the 32-bit program. For `make board-test`.

use crate::board::{Images, Machine, PATIENCE};
use crate::evidence::{Evidence, Picture};
use crate::feed::{Feed, wrong_picture};
use crate::long_memory;
use crate::parts::{Hub, Scratch};
use crate::rig::Camera;
use crate::stage::{HOST, NODE, Stage, Told, every, given, keep};
use shutterd::clock::{Clock, SystemClock};
use std::fs;

/// What a small board has to spare for its camera agent.
const MEMORY_MAX_MIB: u64 = 96;
const ROWS: u64 = 100_000;

#[test]
#[ignore = "long form, for `make board-test`"]
fn two_h264_cameras_and_one_of_eight_megapixels_fit_a_small_board() {
    let Some(images) = Images::find() else { return };
    let (Some(door), Some(yard)) = (Camera::start(&[]), Camera::start(&[])) else { return };
    let told = Told::begin("memory in a guest of 512 MB");
    let mut stage = Stage::arm64(&images, "memory", "utc", |feed| {
        feed.noisy_frames("big", (3264, 2448), 4);
        let data = feed.path("data");
        long_memory::fill(&data, ROWS, SystemClock.read().wall_ms).unwrap();
    });
    stage.board.ok("dpkg -i /opt/payload/shutterd.deb && systemctl stop shutterd && rm -rf /var/lib/shutterd/*");
    stage.board.ok("cp -r /opt/payload/data/. /var/lib/shutterd/ && chown -R shutterd: /var/lib/shutterd");
    stage.start_camera("big", "BIG", 0);
    let rtsp = |name: &str, port: u16| {
        let source = format!("[cameras.{name}]\nsource = \"rtsp://{HOST}:{port}/h264\"\ntimeout = \"30s\"\n");
        source + &every(name, "20s")
    };
    let big = format!("[cameras.big]\nsource = \"v4l2:BIG\"\ntimeout = \"30s\"\n{}", every("big", "20s"));
    stage.configure(&(rtsp("door", door.port) + &rtsp("yard", yard.port) + &big));
    let pictures = stage.sees_after("big", 0, 4);
    let size = pictures[0].bytes().len();
    for camera in ["door", "yard"] {
        let pictures = stage.evidence.wait("keyframes", camera, stage.boot, 0, 4, PATIENCE * 2);
        let record = &pictures[0].record;
        assert_eq!((record.width, record.height), (1920, 1080));
        keep(&format!("{camera}.jpg"), &pictures[0].bytes());
    }
    keep("big.jpg", &pictures[0].bytes());
    let status: shutterd::api::StatusAnswer = serde_json::from_str(&stage.board.ok("shutterd status --json")).unwrap();
    assert!(status.stored >= ROWS, "only {} pictures in the index", status.stored);
    let pid = stage.board.ok("systemctl show -P MainPID shutterd");
    let own = stage.board.ok(&format!("sed -n 's/^VmHWM:[^0-9]*//p' /proc/{pid}/status"));
    let group = stage.board.ok("cat /sys/fs/cgroup/system.slice/shutterd.service/memory.peak");
    let own_mib = own.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024;
    let group_mib = group.parse::<u64>().unwrap() >> 20;
    told.shown(format!(
        "peak memory {own_mib} MiB resident (VmHWM, the driver's frame buffers among them), {group_mib} MiB \
         charged to the service, with \
         two 1080p H.264 cameras, one of 3264x2448 \
         MJPG ({size} bytes a picture) and {} pictures in the index",
        status.stored
    ));
    assert!(own_mib <= MEMORY_MAX_MIB, "{own_mib} MiB");
}

#[test]
#[ignore = "long form, for `make board-test`"]
fn a_picture_is_the_frame_that_was_due() {
    let Some(images) = Images::find() else { return };
    let told = Told::begin("from due to frame");
    let mut stage = Stage::arm64(&images, "due", "utc", |feed| {
        for camera in ["warm", "cold"] {
            feed.frames(camera, "MJPG", (640, 480), (640, 480), 50);
        }
    });
    stage.board.ok("dpkg -i /opt/payload/shutterd.deb");
    stage.start_camera("warm", "WARM", 0);
    stage.start_camera("cold", "COLD", 1);
    let camera = |name: &str, period: &str| format!("[cameras.{name}]\nsource = \"v4l2:{}\"\n{}", name.to_uppercase(), every(name, period));
    stage.configure(&(camera("warm", "2s") + &camera("cold", "20s")));
    let cold = stage.sees_after("cold", 0, 8);
    let warm = stage.sees_after("warm", 0, 60);
    // 10 frames a second.
    let frames = |pictures: &[Picture]| {
        let late = |p: &Picture| p.record.slots.first().map(|slot| (p.record.taken.boottime_ms - slot.due_ms) as f64 / 100.0);
        let mut late: Vec<f64> = pictures.iter().filter_map(late).collect();
        late.sort_by(f64::total_cmp);
        late
    };
    for (what, pictures) in [("warm", warm), ("cold", cold)] {
        let late = frames(&pictures);
        let at = |part: f64| late[((late.len() - 1) as f64 * part) as usize];
        told.shown(format!(
            "{what}: {} pictures, taken after they were due by {:.2} frames (median), {:.2} (9 in 10), {:.2} (all)",
            late.len(),
            at(0.5),
            at(0.9),
            at(1.0)
        ));
        assert!(late[0] >= 0.0, "a frame from before it was due");
    }
}

#[test]
#[ignore = "long form, for `make board-test`"]
fn the_same_program_for_32_bits_boots_and_captures() {
    let Some(images) = Images::find() else { return };
    let told = Told::begin("armhf, a minimal image");
    let scratch = Scratch::new("armhf");
    let feed = Feed::new(&scratch.0);
    feed.add(&images.file("armhf", "uvcsim"), "uvcsim");
    feed.add(&given("SHUTTER_BOARD_ARMHF"), "shutterd");
    feed.frames("left", "MJPG", (640, 480), (640, 480), 10);
    let hub = Hub::start(&scratch, None, &[], None);
    let mut evidence = Evidence::new(&hub.objects, NODE);
    let machine = Machine::armhf(&images, &scratch.0, feed.pack());
    let mut board = machine.boot("utc");
    board.ok("mkdir -p /opt/payload /var/lib/shutterd && tar -xf /dev/vda -C /opt/payload");
    told.shown(format!("the board is up: {}", board.ok("uname -srm")));
    let config = format!(
        "[node]\nid = \"{NODE}\"\n[hub]\nurl = \"mqtt://{HOST}:{}\"\n[cameras.left]\nsource = \"v4l2:LEFT\"\n{}[cameras.bars]\nsource = \"v4l2:/dev/video0\"\nsize = \"640x360\"\n{}",
        hub.mqtt.unwrap(),
        every("left", "2s"),
        every("bars", "2s")
    );
    board.ok(&format!("cat >/run/shutterd.toml <<'END'\n{config}END"));
    board.ok("(/opt/payload/uvcsim --dir /opt/payload/left --serial LEFT --ctl /run/left.ctl --fps 10,5 >/run/camera.log 2>&1 &)");
    board.ok("(/opt/payload/shutterd --config /run/shutterd.toml run >/run/agent.log 2>&1 &)");
    let pictures = evidence.wait("pictures of a 32-bit board", "left", 1, 0, 3, PATIENCE);
    for picture in &pictures {
        assert_eq!(wrong_picture(&picture.bytes(), &feed.label("left")), None);
    }
    let bars = evidence.wait("bars of a 32-bit board", "bars", 1, 0, 1, PATIENCE);
    assert_eq!(crate::feed::wrong_bars(&bars[0].bytes(), false), None);
    keep("left-armhf.jpg", &pictures[0].bytes());
    keep("bars-armhf.jpg", &bars[0].bytes());
    told.shown(format!("{} pictures of a USB camera and of vivid at the hub, with this run's number", pictures.len()));
    fs::write(scratch.path("agent.log"), board.ok("cat /run/agent.log")).unwrap();
}
