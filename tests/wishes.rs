//! What schedules wish of their pictures: slots that fall due together share one frame, and each wish gets a picture of its own.

#[path = "rig/agent.rs"]
mod rig;

use rig::{Node, wait_for};
use shutterd::api::Row;
use shutterd::capture::pattern::read_label_jpeg;
use shutterd::image::frame::{Sampling, Yuv};
use shutterd::image::jpeg;
use shutterd::model::PIXELS_MAX;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FRAMES: usize = 3;
/// Schedules, what they wish, and the size of what they get of 1280x720.
const WISHES: [(&str, &str, (u32, u32)); 7] = [
    ("plain", "", (1280, 720)),
    ("twin", "", (1280, 720)),
    ("small", "size = \"700x500\"", (640, 360)),
    ("no-larger", "size = \"4000x3000\"", (1280, 720)),
    ("rough", "quality = 20", (1280, 720)),
    ("both", "size = \"320x200\"\nquality = 95", (320, 180)),
    ("later", "profile = \"economy\"\npriority = \"low\"", (1280, 720)),
];

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries.flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] }).collect()
}

/// A picture's own number leads its file's name.
fn stored(node: &Node, row: &Row) -> Vec<u8> {
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{}-", row.id.seq.0));
    let found: Vec<_> = files(&node.data.join("snapshots").join(row.camera.as_str())).into_iter().filter(named).collect();
    assert_eq!(found.len(), 1, "{:?}", row.id);
    std::fs::read(&found[0]).unwrap()
}

/// The pictures of a camera, frame by frame, each by the first of its schedules.
fn frames(node: &Node, camera: &str) -> Vec<BTreeMap<String, Row>> {
    let mut frames: BTreeMap<u64, BTreeMap<String, Row>> = BTreeMap::new();
    for row in node.pictures().snapshots.into_iter().filter(|row| row.camera.as_str() == camera) {
        let first = row.slots.iter().map(|slot| slot.schedule.to_string()).min().unwrap();
        assert!(frames.entry(row.taken.boottime_ms).or_default().insert(first, row).is_none(), "two pictures for one wish");
    }
    frames.into_values().collect()
}

#[test]
fn schedules_that_fall_due_together_share_a_frame_and_each_wish_gets_its_picture() {
    let node = Node::new("wishes");
    let yuv = Yuv {
        y: (0..640 * 480).map(|i| (i % 641 % 256) as u8).collect(),
        u: vec![100; 320 * 240],
        v: vec![150; 320 * 240],
        sampling: Sampling::Yuv420,
    };
    let own = jpeg::encode(&yuv, 640, 480, 90).unwrap();
    let file = node.root.join("own.jpg");
    std::fs::write(&file, &own).unwrap();
    let mut text = String::from("[cameras.card]\nsource = \"pattern:?size=1280x720&noise=10&jpeg=1\"\n");
    text += &format!(
        "[cameras.yuv]\nsource = \"pattern:?size=1280x720&noise=10\"\n[cameras.own]\nsource = \"command:cat {}\"\n",
        file.display()
    );
    let schedule = |id: &str, camera: &str, wish: &str| {
        format!("[schedules.{id}]\ncamera = \"{camera}\"\nevery = \"2s\"\nphase = \"0s\"\nalign = \"boot\"\n{wish}\n")
    };
    for (id, wish, _) in WISHES {
        text += &(schedule(id, "card", wish) + &schedule(&format!("yuv-{id}"), "yuv", wish));
    }
    text += &(schedule("own", "own", "") + &schedule("own-q", "own", "quality = 30") + &schedule("own-fits", "own", "size = \"640x480\""));
    node.configure(&text);
    let agent = node.start();
    let all = |camera| frames(&node, camera).iter().filter(|frame| frame.len() == 6).count();
    wait_for("some frames", || all("card") > FRAMES && all("yuv") > FRAMES && frames(&node, "own").len() > FRAMES);
    assert_eq!(node.status().flash.unwrap().loss_window_s, 60, "what the economy of one of them may cost");
    let (card, yuv, own_frames) = (frames(&node, "card"), frames(&node, "yuv"), frames(&node, "own"));
    agent.stop();

    for (camera, frames) in [("card", card), ("yuv", yuv)] {
        let prefix = if camera == "yuv" { "yuv-" } else { "" };
        // Slots may fall apart while the agent starts.
        for frame in frames.into_iter().filter(|frame| frame.len() == 6).take(FRAMES) {
            let of = |id: &str| &frame[&format!("{prefix}{id}")];
            assert_eq!(of("plain").slots.len(), 2, "the same wish, the same picture");
            assert!(!frame.contains_key(&format!("{prefix}twin")));
            let label = read_label_jpeg(&stored(&node, of("plain"))).unwrap();
            for (id, _, size) in WISHES.into_iter().filter(|(id, ..)| *id != "twin") {
                let (row, jpeg) = (of(id), stored(&node, of(id)));
                assert_eq!((row.width, row.height), size, "{id}");
                assert_eq!(jpeg::check(&jpeg, PIXELS_MAX).unwrap(), size, "{id}");
                // Blocks of two pixels cannot be read any more.
                if size.0 >= 640 {
                    assert_eq!(read_label_jpeg(&jpeg).as_deref(), Some(label.as_str()), "{id}: another frame");
                }
            }
            assert!(of("rough").bytes * 2 < of("plain").bytes && of("small").bytes < of("plain").bytes);
            assert!(of("later").id.seq < of("plain").id.seq, "the most urgent is the newest");
        }
    }
    for frame in own_frames.into_iter().filter(|frame| frame.len() == 3).take(FRAMES) {
        let (plain, fits) = (stored(&node, &frame["own"]), stored(&node, &frame["own-fits"]));
        assert!(plain.ends_with(&own[2..]), "the camera's own bytes");
        assert!(fits.ends_with(&own[2..]), "what fits already is left alone");
        assert!(!stored(&node, &frame["own-q"]).ends_with(&own[2..]) && frame["own-q"].bytes < frame["own"].bytes);
    }
}
