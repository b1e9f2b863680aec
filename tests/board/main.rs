//! The product where it lives: on an ARM board under systemd, installed from its package, with cameras on the kernel's own drivers.
//!
//! qemu emulates the board; the kernel, systemd and the C library are Debian's own; the USB cameras are simulated below the USB host
//! controller ([`uvcsim.c`](uvcsim.c)), so that uvcvideo, udev and all above them are real. The hub runs on this machine, and what is
//! shown is read from its files. `make test` runs what is not ignored, `make board-test` everything.

#[path = "../rig/books.rs"]
#[expect(dead_code, reason = "the rig's node needs the type of its schedules")]
mod books;
#[path = "../rig/parts.rs"]
#[expect(dead_code, reason = "one rig for several tests")]
mod parts;

#[path = "../../benches/rig/long_memory.rs"]
mod long_memory;
#[path = "../rig/mod.rs"]
#[expect(dead_code, reason = "one rig for several tests")]
mod rig;

mod bad_input;
mod board;
mod clock;
mod evidence;
mod faults;
mod feed;
mod long;
mod promises;
mod sandbox;
mod stage;
