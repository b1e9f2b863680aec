//! shutterd: one process on a camera node that takes pictures on schedules, never loses one it promised, and hands them to
//! a hub over MQTT whenever there is a link.
//!
//! **The promise.** Every planned picture ends in exactly one of two ways: it is on the hub, or there is a reason on record.
//!
//! # The way of a picture
//!
//! ```text
//!  clock ──▶ wheel ──Due──▶ camera thread ──Frame──▶ judge ──Jpeg──▶ store writer ──commit──▶ outbox ──▶ uplink ══MQTT══▶ hub
//!              ▲               │ (one per camera)                        │  index + blobs        ▲           │
//!              └── schedules ──┘ outcomes ────────▶ ledger ◀─────────────┘                       └── ack ◀───┘
//! ```
//! A slot falls due (planned), a frame is taken (captured), a commit returns (stored: survives a power cut), the hub says
//! `have` (acknowledged: survives the loss of the node), and only then may the node forget it. The commit is the one durable
//! hand-over; nothing else remembers anything.
//!
//! # Layers
//!
//! A file uses only lower layers; inside a layer no arrows between rooms; inside a folder, `mod.rs` stands above its files.
//! `tests/tidy.rs` holds this table.
//!
//! | layer | rooms | what |
//! |---|---|---|
//! | nouns | [`model`] [`error`] `secret` | ids that cannot be wrong, every limit, exit codes, values never printed |
//! | pure | [`clock`] [`protocol`] | the only reader of clocks; the hub contract |
//! | pure | [`schedule`] [`wheel`] [`image`] [`outbox`] | decide, without doing: time and events come as arguments |
//! | config | [`config`] | raw → checked → settings that cannot be wrong |
//! | edges | [`capture`] [`store`] [`status`] | cameras, the disk, what is shown |
//! | loops | [`camera`] [`uplink`] | a thread per camera; one MQTT session |
//! | agent | [`agent`] | builds the parts, turns the wheel, stops in order |
//! | face | [`api`], then [`cli`] | HTTP on a unix socket; the command line that asks it |
//! | hub | `hub` (feature) | beside the agent; uses only what both share |
//!
//! # Invariants
//!
//! 1. A row is committed only after its file and the file's name are flushed. A file without a row is judged by its own hash.
//! 2. A number (`seq`) is never used twice within a store; another board, or a lost index, means another store.
//! 3. A slot (schedule, boot, due instant) gets exactly one outcome; nothing replaces `captured`.
//! 4. A schedule's cursor never passes a slot without an outcome, so a crash can forget none.
//! 5. A picture leaves the pending list only by an ack that names its store, number and hash, or by a tombstone.
//! 6. The hub says `have` only after the picture is flushed under its final name.
//! 7. After a failed flush or commit nothing is retried and nothing acknowledged: the process ends with code 75.
//! 8. Deadlines are instants of CLOCK_BOOTTIME. The wall clock labels, and chooses no file, no order and no deletion by itself.
//! 9. A camera can delay or crash only itself: its own thread, a deadline on every wait, panics caught, a note left for C code.
//! 10. A file is adopted only after everything on its disk was flushed: what a killed process left in memory is not stored yet.
//! 11. After a lost index no picture is sent before the hub was asked for it.
//! 12. A message of reasons never changes once somebody may have seen it.
//! 13. A slot is an instant of one boot's CLOCK_BOOTTIME. Setting the wall clock moves no slot of a grid, and repeats no plan of a calendar.
//! 14. A boot's first trusted reading gives all its pictures their time and is never replaced; the files keep what they said.
//! 15. *Absent on purpose*: no timer that ticks, no rename of a stored file, no retry of a flush, no second queue beside the
//!     store, no write in order to send, no text that can hold a password.
//!
//! # I want to… → open…
//!
//! | change | file |
//! |---|---|
//! | a configuration key | `config/checked.rs`, `config/settings.rs`, `config/text.rs` |
//! | a kind of camera | a file in `capture/`, one arm in `capture/mod.rs`, its address in `config/address.rs` |
//! | when slots fall due | `schedule/`: `grid.rs`; `calendar.rs` with `cron.rs`, `sun.rs`, `zone.rs`; windows `during.rs`; series and jitter `slots.rs`; what is next `mod.rs` |
//! | a schedule's key, or what is refused in it | `config/schedule.rs`, `config/schedule_words.rs` |
//! | how times, cron, events of the sun or windows are written | `config/moments.rs`, `config/windows.rs`, `config/zones.rs` |
//! | what is told of slots that nobody served | `agent/timetable.rs`, `agent/past.rs` |
//! | what makes the clock trusted; what wakes the agent | `clock/trust.rs`; `clock/timers.rs` |
//! | how the hub's time is asked for; how long a node waits before it calls the hub | `uplink/time.rs`; `uplink/waits.rs` |
//! | when a picture was taken, by now; what the hub is told again | `store/index/times.rs`; `store/index/retime.rs`, `outbox/retimes.rs`, `uplink/retold.rs` |
//! | when a camera is open, and how long before a slot it is opened | `camera/habits.rs` |
//! | what becomes of a frame: sizes, qualities, wishes | `camera/develop.rs`, `image/reduce.rs` |
//! | how punctual a camera is | `protocol.rs` (`Punctuality`), `camera/teller.rs` |
//! | what makes a picture unfit | `image/judge.rs` |
//! | how a V4L2 camera is found, told what to give, and read | `capture/v4l2/` (`find.rs`, `format.rs`, `controls.rs`, `queue.rs`), its keys in `config/video.rs` |
//! | a raw camera format, or its levels; what is mended in a camera's JPEG | `image/planar.rs`, `image/rows/`; `image/repair.rs`, `image/scan.rs` |
//! | what a program used as a camera may do | `capture/command.rs`, `capture/words.rs`, `config/command.rs` |
//! | what a picture says of itself | `protocol.rs` (`Record`), `image/meta.rs` |
//! | the order of steps on the disk | `store/writer.rs`, `store/blobs.rs`, `store/recover.rs`; what they ask of a filesystem: `store/files.rs` |
//! | what the index remembers | `store/index/tables.rs`, `rows.rs`, `apply.rs`; and then `migrate.rs`, and a check in `store/fsck/` |
//! | how a lost index comes back | `store/recover.rs`, `store/adopt.rs`, `outbox/asks.rs` |
//! | which pictures go when space is short | `store/keep/` (rules), `store/chores.rs` (steps), `config/thin.rs` |
//! | an outcome, or what `explain` and `report` say | `model.rs` (`Outcome`), `store/index/book.rs`, `store/ledger.rs`, `api.rs`, `cli/words.rs` |
//! | what fsck checks | `store/fsck/rows.rs`, `store/fsck/files.rs` |
//! | what is counted of a card's life | `store/written.rs`, `store/index/counted.rs`, `store/device.rs` |
//! | what is sent next | `outbox/` |
//! | a topic or payload | `protocol.rs`, then `uplink/session.rs` and `hub/intake.rs` |
//! | a command | `cli.rs`, `api.rs` |
//! | the hub's page | `hub/page.rs` |
//! | what systemd hears, and when cameras are held back after crashes | `agent/watchdog.rs`, `agent/starts.rs` |
//! | what the service may do | `systemd/*.service`, `systemd/drop-ins/`, `tests/package.rs` |
//! | what a board ships, and how it is built and packed | `board/`, `systemd/`, `cross.toml`, `[package.metadata.deb]` in `Cargo.toml` |
//! | the emulated board of the tests, or a fault of its USB camera | `tests/board/`, `tests/board/uvcsim.c` and `faults.rs` |

pub mod agent;
pub mod api;
pub mod camera;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
#[cfg(feature = "hub")]
pub mod hub;
pub mod image;
pub mod model;
pub mod outbox;
pub mod protocol;
pub mod schedule;
pub mod secret;
pub mod status;
pub mod store;
pub mod uplink;
pub mod wheel;
