//! One complete picture, as a source hands it over.

/// Never partly received, never a placeholder: a source that is not sure returns an error.
#[derive(Debug)]
pub struct Frame {
    pub data: FrameData,
    pub width: u32,
    pub height: u32,
    /// CLOCK_BOOTTIME milliseconds at which the frame was taken (arrived, for network cameras).
    pub taken_ms: u64,
}

#[derive(Debug)]
pub enum FrameData {
    /// A JPEG as the camera made it.
    Jpeg(Vec<u8>),
    /// Planar YUV, ready for the encoder.
    Yuv(Yuv),
}

/// Planar 8-bit YUV with tight rows: `y` is width × height, `u` and `v` are as `sampling` says (rounded up).
#[derive(Debug)]
pub struct Yuv {
    pub y: Vec<u8>,
    pub u: Vec<u8>,
    pub v: Vec<u8>,
    pub sampling: Sampling,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    Yuv420,
    Yuv422,
    Gray,
}

impl Sampling {
    /// Width and height of a chroma plane; zero where there is none.
    pub fn chroma(self, width: usize, height: usize) -> (usize, usize) {
        match self {
            Self::Yuv420 => (width.div_ceil(2), height.div_ceil(2)),
            Self::Yuv422 => (width.div_ceil(2), height),
            Self::Gray => (0, 0),
        }
    }
}

impl Yuv {
    /// True when every plane is exactly as large as a picture of this size needs.
    pub fn fits(&self, width: u32, height: u32) -> bool {
        let (width, height) = (width as usize, height as usize);
        let (chroma_width, chroma_height) = self.sampling.chroma(width, height);
        let chroma = chroma_width * chroma_height;
        width.checked_mul(height) == Some(self.y.len()) && self.u.len() == chroma && self.v.len() == chroma
    }
}
