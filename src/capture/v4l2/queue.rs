//! Our capture queue: a few buffers that go to and fro between the driver and us, each owned by exactly one of the two.
//!
//! A [`Filled`] is the proof that its buffer is ours: it cannot be copied, and ends when the buffer is given back. So nothing is read
//! while the driver writes it, and nothing is queued twice. What the driver says of a buffer is checked against its mapping before a
//! byte is read. No wait is without its deadline: the node does not block, and [`Queue::wait`] polls.

use super::device::{Device, PLANES_MAX, zeroed};
use crate::clock::{Deadline, boottime_now_ms, boottime_of_monotonic_ms};
use std::{io, ptr::NonNull};
use v4l::{v4l_sys as sys, v4l2::vidioc};

/// One being filled, one waiting, one with us; more would only hold older frames. Drivers that need more give more.
const BUFFERS: u32 = 3;
/// A driver that gives more than this has lost its mind.
const BUFFERS_MAX: usize = 32;

/// What we did when the kernel refused.
#[derive(Debug)]
pub struct Fault {
    pub doing: &'static str,
    pub cause: io::Error,
}

fn at<T>(doing: &'static str, result: io::Result<T>) -> Result<T, Fault> {
    result.map_err(|cause| Fault { doing, cause })
}

/// A filled buffer, ours until it is given back.
#[derive(Debug)]
pub struct Filled {
    pub(super) index: usize,
    pub used: usize,
    /// The driver says that this frame is damaged.
    pub flagged: bool,
    /// More bytes stated than the buffer holds: the device lies.
    pub overstated: bool,
    pub timing: Timing,
}

/// What is known of the instant a frame was taken, on the boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The driver's stamp, where it is of a clock that we can convert.
    pub stamp_ms: Option<u64>,
    /// When the driver got the buffer.
    pub queued_ms: u64,
    /// When we got it back.
    pub seen_ms: u64,
}

/// A stamp older than its buffer's queuing by more than this was not made by the clock that it claims. Longer than any exposure.
const STAMP_BEFORE_QUEUING_MAX_MS: u64 = 2_000;

impl Timing {
    /// When the frame was taken, if not before `not_before_ms`; a frame of which that is not known was.
    ///
    /// Without a stamp to believe, only a frame whose buffer the driver got after the instant is surely younger, and it counts as
    /// taken when we saw it.
    pub fn taken_ms(self, not_before_ms: u64) -> Option<u64> {
        let believable = |stamp: &u64| *stamp <= self.seen_ms && stamp + STAMP_BEFORE_QUEUING_MAX_MS >= self.queued_ms;
        match self.stamp_ms.filter(believable) {
            Some(stamp) => (stamp >= not_before_ms).then_some(stamp),
            None => (self.queued_ms >= not_before_ms).then_some(self.seen_ms),
        }
    }
}

/// How a wait for a frame ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ready {
    Frame,
    /// Nothing came.
    Silence,
    /// The stream is broken: unplugged, or the driver gave it up.
    Broken,
}

pub struct Queue {
    // Order matters: mappings go before the descriptor.
    buffers: Vec<Buffer>,
    device: Device,
    kind: u32,
}

struct Buffer {
    map: Map,
    /// Since when the driver has it; `None`: it is ours.
    queued_ms: Option<u64>,
}

impl Queue {
    /// Takes the device, whose format is set, and starts its stream.
    /// # Errors
    /// `EBUSY`: another program streams. Others: what the driver or the camera behind it refused.
    pub fn start(device: Device, kind: u32) -> Result<Self, Fault> {
        let mut request = sys::v4l2_requestbuffers { count: BUFFERS, type_: kind, memory: MMAP, ..zeroed() };
        at("asking for buffers", device.ask(vidioc::VIDIOC_REQBUFS, &mut request))?;
        let mut queue = Self { buffers: Vec::new(), device, kind };
        for index in 0..(request.count as usize).min(BUFFERS_MAX) {
            let map = at("mapping a buffer", queue.map(index))?;
            queue.buffers.push(Buffer { map, queued_ms: None });
        }
        if queue.buffers.len() < 2 {
            return Err(Fault { doing: "asking for buffers", cause: io::Error::other("the driver gave less than two") });
        }
        queue.begin()?;
        Ok(queue)
    }

    /// Stops and starts the stream: what a camera that fell silent needs. No [`Filled`] may be kept across it.
    /// # Errors
    /// As [`Queue::start`].
    pub fn restart(&mut self) -> Result<(), Fault> {
        let mut kind = self.kind;
        at("stopping the stream", self.device.ask(vidioc::VIDIOC_STREAMOFF, &mut kind))?;
        // The driver let go of all of them.
        self.buffers.iter_mut().for_each(|buffer| buffer.queued_ms = None);
        self.begin()
    }

    fn begin(&mut self) -> Result<(), Fault> {
        for index in 0..self.buffers.len() {
            self.queue(index)?;
        }
        let mut kind = self.kind;
        at("starting the stream", self.device.ask(vidioc::VIDIOC_STREAMON, &mut kind))
    }

    /// Waits until there is something to take, not past `until`.
    #[expect(unsafe_code, reason = "the call must go through libc by name")]
    pub fn wait(&self, until: Deadline) -> Result<Ready, Fault> {
        loop {
            let mut poll = libc::pollfd { fd: self.device.raw(), events: libc::POLLIN, revents: 0 };
            // Rounded up, or the last fraction of a millisecond is a loop.
            let wait_ms = until.left().as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
            // SAFETY: one pollfd, which lives across the call.
            let ready = unsafe { libc::poll(&raw mut poll, 1, wait_ms) };
            if ready < 0 {
                let cause = io::Error::last_os_error();
                if cause.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(Fault { doing: "waiting for a frame", cause });
            }
            return Ok(match poll.revents {
                0 => Ready::Silence,
                events if events & libc::POLLIN != 0 => Ready::Frame,
                _ => Ready::Broken,
            });
        }
    }

    /// The oldest filled buffer; `None`: none is left.
    /// # Errors
    /// `ENODEV` (of some drivers `EINVAL`): the camera is gone.
    pub fn take(&mut self) -> Result<Option<Filled>, Fault> {
        let mut planes = [zeroed::<sys::v4l2_plane>(); PLANES_MAX];
        let mut buffer = self.describe(0, &mut planes);
        match self.device.ask(vidioc::VIDIOC_DQBUF, &mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            other => at("taking a frame", other)?,
        }
        let index = buffer.index as usize;
        let queued_ms = self.buffers.get_mut(index).and_then(|buffer| buffer.queued_ms.take());
        let (Some(queued_ms), Some(room)) = (queued_ms, self.buffers.get(index).map(|buffer| buffer.map.len)) else {
            return Err(Fault { doing: "taking a frame", cause: io::Error::other("the driver gave back a buffer that it did not have") });
        };
        let used = if self.planar() { planes[0].bytesused } else { buffer.bytesused } as usize;
        let monotonic = buffer.flags & sys::V4L2_BUF_FLAG_TIMESTAMP_MASK == sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
        let stamp_ms = (buffer.timestamp.tv_sec as u64).saturating_mul(1000).saturating_add(buffer.timestamp.tv_usec as u64 / 1000);
        let seen_ms = boottime_now_ms();
        Ok(Some(Filled {
            index,
            used: used.min(room),
            flagged: buffer.flags & sys::V4L2_BUF_FLAG_ERROR != 0,
            overstated: used > room,
            timing: Timing { stamp_ms: monotonic.then(|| boottime_of_monotonic_ms(stamp_ms)), queued_ms, seen_ms },
        }))
    }

    /// The bytes of a buffer that is ours.
    #[expect(unsafe_code, reason = "memory shared with the driver")]
    pub fn bytes(&self, filled: &Filled) -> &[u8] {
        let map = &self.buffers[filled.index].map;
        // SAFETY: the mapping lives as long as `self`; `used` was limited to its length; the driver does not write to it while a
        // `Filled` for it exists, which only `give_back` and `restart` (that need `self` mutably) end.
        unsafe { std::slice::from_raw_parts(map.at.as_ptr(), filled.used) }
    }

    /// Lets the driver fill it again.
    /// # Errors
    /// The camera is gone.
    pub fn give_back(&mut self, filled: Filled) -> Result<(), Fault> {
        self.queue(filled.index)
    }

    fn queue(&mut self, index: usize) -> Result<(), Fault> {
        let mut planes = [zeroed::<sys::v4l2_plane>(); PLANES_MAX];
        let mut buffer = self.describe(index, &mut planes);
        // Before the call: from inside it the driver may already fill the buffer.
        let now_ms = boottime_now_ms();
        at("giving a buffer to the driver", self.device.ask(vidioc::VIDIOC_QBUF, &mut buffer))?;
        self.buffers[index].queued_ms = Some(now_ms);
        Ok(())
    }

    #[expect(unsafe_code, reason = "a union of the kernel")]
    fn map(&self, index: usize) -> io::Result<Map> {
        let mut planes = [zeroed::<sys::v4l2_plane>(); PLANES_MAX];
        let mut buffer = self.describe(index, &mut planes);
        self.device.ask(vidioc::VIDIOC_QUERYBUF, &mut buffer)?;
        // SAFETY: for buffers of this kind and memory the kernel fills the offset.
        let (len, offset) = unsafe {
            match self.planar() {
                true => (planes[0].length, planes[0].m.mem_offset),
                false => (buffer.length, buffer.m.offset),
            }
        };
        Map::new(&self.device, len as usize, offset)
    }

    /// A buffer's description for the kernel, which fills `planes` where the interface has them.
    fn describe(&self, index: usize, planes: &mut [sys::v4l2_plane; PLANES_MAX]) -> sys::v4l2_buffer {
        let mut buffer = sys::v4l2_buffer { index: index as u32, type_: self.kind, memory: MMAP, ..zeroed() };
        if self.planar() {
            buffer.m.planes = planes.as_mut_ptr();
            buffer.length = PLANES_MAX as u32;
        }
        buffer
    }

    fn planar(&self) -> bool {
        self.kind == sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE
    }
}

const MMAP: u32 = sys::v4l2_memory_V4L2_MEMORY_MMAP;

impl Drop for Queue {
    fn drop(&mut self) {
        let mut kind = self.kind;
        // The camera may be gone; closing the node ends its stream in any case.
        let _ = self.device.ask(vidioc::VIDIOC_STREAMOFF, &mut kind);
    }
}

/// A driver's buffer in our address space.
struct Map {
    at: NonNull<u8>,
    len: usize,
}

#[expect(unsafe_code, reason = "a pointer to memory that this alone owns may change threads with it")]
// SAFETY: the mapping belongs to this value, is freed once by it, and no thread's own state is tied to it.
unsafe impl Send for Map {}

impl Map {
    #[expect(unsafe_code, reason = "the call must go through libc by name")]
    fn new(device: &Device, len: usize, offset: u32) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, device.raw(), offset as libc::off_t) };
        match NonNull::new(at.cast::<u8>()).filter(|_| at != libc::MAP_FAILED) {
            Some(at) => Ok(Self { at, len }),
            None => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Map {
    #[expect(unsafe_code, reason = "the call must go through libc by name")]
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no slice of it outlives the queue it belongs to.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A camera of 30 frames a second whose buffers (three) filled up long ago, and fill again as they are given back.
    struct Camera {
        now_ms: u64,
        full: std::collections::VecDeque<Timing>,
        stamps: bool,
    }
    impl Camera {
        fn forgotten_for(ms: u64, stamps: bool) -> Self {
            let timing = |n: u64| Timing { stamp_ms: stamps.then_some(1_000 + 33 * n), queued_ms: 1_000, seen_ms: 0 };
            Self { now_ms: 1_000 + ms, full: (1..=3).map(timing).collect(), stamps }
        }
        /// Takes the oldest full buffer, waiting for the next frame if there is none, and gives its place back.
        fn next(&mut self) -> Timing {
            let taken = self.full.pop_front().unwrap_or_else(|| {
                let queued_ms = self.now_ms;
                self.now_ms += 33;
                Timing { stamp_ms: self.stamps.then_some(self.now_ms - 10), queued_ms, seen_ms: 0 }
            });
            Timing { seen_ms: self.now_ms, ..taken }
        }
        /// The first frame that `accept` takes, as when it was truly taken.
        fn grab(&mut self, accept: impl Fn(Timing) -> Option<u64>) -> (u64, u64) {
            loop {
                let old = !self.full.is_empty();
                let timing = self.next();
                if let Some(said_ms) = accept(timing) {
                    return (said_ms, if old { 1_000 + 99 } else { self.now_ms });
                }
            }
        }
    }

    #[test]
    fn a_camera_kept_open_gives_a_frame_from_after_the_instant_never_one_it_kept() {
        for stamps in [true, false] {
            let mut camera = Camera::forgotten_for(3_600_000, stamps);
            let due_ms = camera.now_ms;
            let (said_ms, truly_ms) = camera.grab(|timing| timing.taken_ms(due_ms));
            assert!(said_ms >= due_ms && truly_ms >= due_ms && truly_ms < due_ms + 100, "stamps {stamps}: {said_ms} {truly_ms}");
        }
    }

    /// The control: this camera does hold an hour-old frame, and who takes the first one gets it.
    #[test]
    fn who_takes_the_first_frame_gets_one_of_an_hour_ago() {
        for stamps in [true, false] {
            let mut camera = Camera::forgotten_for(3_600_000, stamps);
            let due_ms = camera.now_ms;
            let (_, truly_ms) = camera.grab(|timing| Some(timing.seen_ms));
            assert!(truly_ms + 3_000_000 < due_ms, "the camera of these tests holds nothing old");
        }
    }

    #[test]
    fn a_stamp_that_cannot_be_true_is_not_believed() {
        let timing = |stamp_ms| Timing { stamp_ms: Some(stamp_ms), queued_ms: 10_000, seen_ms: 10_040 };
        assert_eq!(timing(10_020).taken_ms(10_010), Some(10_020));
        assert_eq!(timing(10_005).taken_ms(10_010), None, "exposed before the instant");
        assert_eq!(timing(99_000).taken_ms(10_010), None, "from the future: then the buffer's queuing counts, which was before");
        assert_eq!(timing(99_000).taken_ms(9_990), Some(10_040));
        assert_eq!(timing(3).taken_ms(9_990), Some(10_040), "a device's own clock in the guise of ours");
        assert_eq!(timing(9_000).taken_ms(9_990), None, "a long exposure begun before");
    }

    #[test]
    fn a_node_that_cannot_stream_says_what_it_refused() {
        let device = Device::open(std::path::Path::new("/dev/null")).unwrap();
        let fault = Queue::start(device, 1).err().unwrap();
        assert_eq!((fault.doing, fault.cause.raw_os_error()), ("asking for buffers", Some(libc::ENOTTY)));
    }
}
