//! What the simulated cameras show: test cards that name the run, the camera and the frame, and so cannot be taken for any others.

use shutterd::capture::pattern::{Pattern, read_label_jpeg};
use shutterd::capture::source::{FrameData, Source, Want, Yuv};
use shutterd::clock::Deadline;
use shutterd::config::secret::PatternOptions;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A run of the test: its directory, and a number that nobody knew before.
pub struct Feed {
    pub nonce: String,
    root: PathBuf,
}

impl Feed {
    pub fn new(dir: &Path) -> Self {
        let mut random = [0; 4];
        fs::File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
        let root = dir.join("payload");
        fs::create_dir_all(&root).unwrap();
        Self { nonce: format!("{:08x}", u32::from_be_bytes(random)), root }
    }

    /// What a picture of this camera says when it is read back, up to the number of the frame.
    pub fn label(&self, camera: &str) -> String {
        format!("{}/{camera}/", self.nonce)
    }

    fn card(&self, label: &str, (width, height): (u32, u32), noise: u8, jpeg: bool) -> FrameData {
        let options = PatternOptions { width, height, fault: None, fault_every: 1, noise, jpeg, warm_up_ms: 0 };
        let want = Want { not_before_ms: 0, deadline: Deadline::after(Duration::from_secs(60)), label: label.to_owned() };
        Pattern::new(label.to_owned(), options, 85).grab(&want).unwrap().data
    }

    /// Frames of one format and size of a camera, as files that the simulator plays in order.
    /// `as_size` is what the camera calls them: a camera that lies says another one.
    pub fn frames(&self, camera: &str, format: &str, size: (u32, u32), as_size: (u32, u32), count: u32) {
        let folder = self.path(camera).join(format!("{}x{}.{format}", as_size.0, as_size.1));
        fs::create_dir_all(&folder).unwrap();
        for i in 0..count {
            let label = format!("{}{i}", self.label(camera));
            let bytes = match self.card(&label, size, 0, format == "MJPG") {
                FrameData::Jpeg(bytes) => bytes,
                FrameData::Yuv(yuv) if format == "YUY2" => interleave(&yuv, size.0 as usize),
                FrameData::Yuv(yuv) => yuv.y,
            };
            fs::write(folder.join(format!("{i:03}")), bytes).unwrap();
        }
    }

    /// JPEGs as large as those of a real scene.
    pub fn noisy_frames(&self, camera: &str, size: (u32, u32), count: u32) {
        let folder = self.path(camera).join(format!("{}x{}.MJPG", size.0, size.1));
        fs::create_dir_all(&folder).unwrap();
        for i in 0..count {
            if let FrameData::Jpeg(bytes) = self.card(&format!("{}{i}", self.label(camera)), size, 20, true) {
                fs::write(folder.join(format!("{i:03}")), bytes).unwrap();
            }
        }
    }

    /// Where something goes that the board shall have.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
    /// Puts a file beside the frames.
    pub fn add(&self, file: &Path, name: &str) {
        fs::copy(file, self.root.join(name)).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }

    /// All of it as one tar, which the board sees as a disk.
    pub fn pack(&self) -> PathBuf {
        let tar = self.root.with_extension("tar");
        let packed = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&self.root).arg(".").status().unwrap();
        assert!(packed.success(), "tar cannot write {}", tar.display());
        tar
    }
}

/// Planar 4:2:0 as the packed YUYV of a USB camera.
fn interleave(yuv: &Yuv, width: usize) -> Vec<u8> {
    let mut packed = Vec::with_capacity(yuv.y.len() * 2);
    for (at, pair) in yuv.y.chunks_exact(2).enumerate() {
        let (row, column) = (at * 2 / width, at * 2 % width);
        let chroma = row / 2 * (width / 2) + column / 2;
        packed.extend([pair[0], yuv.u[chroma], pair[1], yuv.v[chroma]]);
    }
    packed
}

/// Complaint about a picture that does not show what this camera was fed in this run.
pub fn wrong_picture(jpeg: &[u8], label: &str) -> Option<String> {
    let wrong = match read_label_jpeg(jpeg) {
        Some(read) if read.starts_with(label) => return None,
        Some(read) => format!("it shows `{read}`"),
        None => "it shows no card that can be read".into(),
    };
    Some(format!("the picture should show `{label}…`, but {wrong}"))
}

/// The eight bars of the vivid driver at three quarters of full colour.
const BARS: [[u8; 3]; 8] = [[191, 191, 191], [191, 191, 0], [0, 191, 191], [0, 191, 0], [191, 0, 191], [191, 0, 0], [0, 0, 191], [0, 0, 0]];
/// Limited range read as full range, chroma at half width, JPEG: less than this; two bars differ by 191 in a channel.
const BAR_TOLERANCE: u8 = 48;

/// Complaint about a picture that does not show colour bars from left to right (`mirrored`: from right to left).
pub fn wrong_bars(jpeg: &[u8], mirrored: bool) -> Option<String> {
    let image = match turbojpeg::decompress(jpeg, turbojpeg::PixelFormat::RGB) {
        Ok(image) => image,
        Err(e) => return Some(format!("the picture cannot be decoded: {e}")),
    };
    if let Some(label) = read_label_jpeg(jpeg) {
        return Some(format!("it is the card `{label}`"));
    }
    // Below the text that the driver writes into its picture.
    let row = image.height * 3 / 4;
    for (at, bar) in BARS.iter().enumerate() {
        let place = if mirrored { 7 - at } else { at };
        let x = (2 * place + 1) * image.width / 16;
        let pixel = &image.pixels[row * image.pitch + 3 * x..][..3];
        if pixel.iter().zip(bar).any(|(a, b)| a.abs_diff(*b) > BAR_TOLERANCE) {
            return Some(format!("bar {at} should be {bar:?}, but is {pixel:?}"));
        }
    }
    None
}

/// Controls: the recognisers refuse what they should refuse.
#[test]
fn a_picture_of_another_camera_run_or_size_is_refused() {
    let dir = std::env::temp_dir().join(format!("shutterd-feed-{}", std::process::id()));
    let feed = Feed::new(&dir);
    let jpeg = |label: &str| match feed.card(label, (640, 480), 0, true) {
        FrameData::Jpeg(bytes) => bytes,
        FrameData::Yuv(_) => unreachable!("a JPEG was asked for"),
    };
    let mine = jpeg(&format!("{}7", feed.label("left")));
    assert_eq!(wrong_picture(&mine, &feed.label("left")), None);
    assert!(wrong_picture(&mine, &feed.label("right")).is_some(), "swapped cameras would not be seen");
    assert!(wrong_picture(&mine, &Feed::new(&dir).label("left")).is_some(), "a picture of another run would be taken for one of this");
    assert!(wrong_picture(&mine[..mine.len() / 2], &feed.label("left")).is_some(), "half a picture");
    assert!(wrong_bars(&mine, false).is_some(), "a simulated camera would be taken for the driver's own");

    let raw = |mirrored: bool| {
        let row: Vec<u8> = (0..640).flat_map(|x| BARS[if mirrored { 7 - x / 80 } else { x / 80 }]).collect();
        let image = turbojpeg::Image { pixels: row.repeat(480), width: 640, pitch: 1920, height: 480, format: turbojpeg::PixelFormat::RGB };
        turbojpeg::compress(image.as_deref(), 85, turbojpeg::Subsamp::Sub2x2).unwrap().to_vec()
    };
    assert_eq!(wrong_bars(&raw(false), false), None);
    assert_eq!(wrong_bars(&raw(true), true), None);
    assert!(wrong_bars(&raw(true), false).is_some() && wrong_bars(&raw(false), true).is_some(), "mirrored bars would not be seen");
    fs::remove_dir_all(dir).unwrap();
}
