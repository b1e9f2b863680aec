//! Values that must never be printed, and addresses that may carry one.

pub use crate::secret::Secret;

use super::command::CommandLine;
use std::fmt;

/// Where a camera is, with its credentials kept apart.
#[derive(Clone, PartialEq)]
pub struct SourceUrl {
    pub kind: SourceKind,
    pub user: Option<String>,
    pub password: Option<Secret>,
}

#[derive(Clone, PartialEq)]
pub enum SourceKind {
    /// Address without credentials.
    Rtsp(url::Url),
    /// Everything after `v4l2:`: by-id name, serial or device path.
    V4l2(String),
    /// `pattern:` with its options.
    Pattern(PatternOptions),
    /// `command:`: a program that writes one JPEG.
    Command(CommandLine),
}

/// The test card, and the faults it can be told to make. A fault strikes every `fault_every`-th grab.
#[derive(Debug, Clone, PartialEq)]
pub struct PatternOptions {
    pub width: u32,
    pub height: u32,
    pub fault: Option<PatternFault>,
    pub fault_every: u64,
    /// Extra noise makes the JPEG larger: 0 (none) to 100.
    pub noise: u8,
    /// Give a ready JPEG, as an MJPEG camera does, instead of planar YUV.
    pub jpeg: bool,
    /// How long it takes from its opening to its first picture, as a sensor does.
    pub warm_up_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternFault {
    /// The frame comes this many milliseconds late.
    Late(u64),
    /// No frame until the deadline.
    Hang,
    /// No frame, and it ignores the deadline by this many milliseconds: like a stuck driver call.
    Stuck(u64),
    /// An error at once.
    Fail,
    /// A JPEG cut in the middle.
    Corrupt,
    /// A panic, as from a decoder fed with hostile bytes.
    Panic,
}

impl SourceUrl {
    /// Kind for records: `rtsp`, `v4l2`, `pattern`, `command`.
    pub fn kind(&self) -> &'static str {
        match self.kind {
            SourceKind::Rtsp(_) => "rtsp",
            SourceKind::V4l2(_) => "v4l2",
            SourceKind::Pattern(_) => "pattern",
            SourceKind::Command(_) => "command",
        }
    }
}

/// Address without credentials: for logs, errors and people. A query may hold a token and is left out.
impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            SourceKind::Rtsp(url) => {
                write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or("?"))?;
                if let Some(port) = url.port() {
                    write!(f, ":{port}")?;
                }
                f.write_str(shown_path(url.path()))
            }
            SourceKind::V4l2(device) => write!(f, "v4l2:{device}"),
            SourceKind::Pattern(options) => write!(f, "pattern:{}x{}", options.width, options.height),
            SourceKind::Command(line) => write!(f, "command:{line}"),
        }
    }
}
/// Some cameras take the login in the path (`/user=admin_password=…_channel=1`): such a path is not shown at all.
fn shown_path(path: &str) -> &str {
    let lower = path.to_ascii_lowercase();
    let tells = ["pass", "pwd", "token", "secret", "key="].iter().any(|word| lower.contains(word));
    if tells { "/…" } else { path }
}

impl fmt::Debug for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
