//! Pictures in memory: what a frame is, how it becomes a JPEG, whether it may be believed, and what it says of itself.
//!
//! Pure: bytes in, bytes or a verdict out. Nothing here knows of cameras, files or clocks.
pub mod frame;
pub mod jpeg;
pub mod judge;
pub mod meta;
pub mod planar;
pub mod reduce;
pub mod repair;
pub mod scan;
