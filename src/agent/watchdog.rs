//! What systemd hears of the agent: that it is alive, what it does, and that a long recovery gets on.
//!
//! The watchdog is fed from the wheel's own turn, so a wheel that stands still feeds nothing; and only while the uplink turns by the
//! instant it promised, and no work of the store is older than [`STORE_WORK_MAX_MS`]. Cameras are not in it: one that hangs is
//! `failed(hung)` and costs nobody else anything. Without a watchdog there is no wake-up for it.
//!
//! Path not taken: a thread or timer that feeds by itself, which proves nothing but itself.

use crate::model::CameraId;
use crate::protocol::CameraHealth;
use crate::status::{ConfigOrigin, Now};
use crate::store::{Store, disk_answers, grouped};
use sd_notify::NotifyState;
use std::{
    fmt,
    sync::mpsc::{self, RecvTimeoutError},
    time::Duration,
};

/// Work of the store that is older than this will not end. A card that collects its garbage was seen to take seconds.
const STORE_WORK_MAX_MS: u64 = 120_000;
/// The uplink may be so late: the runtime has other things to do, and a name is looked up.
const UPLINK_LATE_MAX_MS: u64 = 30_000;
/// How often a recovery is looked at, and how long one that gets on may take on.
const LOOK: Duration = Duration::from_secs(10);
const MORE_US: u32 = 60_000_000;

/// What must not stand still, besides the wheel. Instants of `clock::awake_ms`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Life {
    /// By when the uplink has promised to turn; `None`: there is none.
    pub uplink_by_ms: Option<u64>,
    /// Since when the store is at one piece of work.
    pub store_since_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    Store { for_s: u64 },
    Uplink { for_s: u64 },
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store { for_s } => write!(f, "the disk has not finished one piece of work for {for_s} s; look at dmesg"),
            Self::Uplink { for_s } => write!(f, "the connection to the hub should have turned {for_s} s ago"),
        }
    }
}

/// What stands still.
pub fn stuck(life: Life, now_ms: u64) -> Option<Stuck> {
    let past = |since: Option<u64>, limit_ms: u64| since.map(|since| now_ms.saturating_sub(since)).filter(|ms| *ms > limit_ms);
    let store = past(life.store_since_ms, STORE_WORK_MAX_MS).map(|ms| Stuck::Store { for_s: ms / 1000 });
    store.or_else(|| past(life.uplink_by_ms, UPLINK_LATE_MAX_MS).map(|ms| Stuck::Uplink { for_s: ms / 1000 }))
}

/// The service's side of systemd's watchdog.
pub struct Watchdog {
    every_ms: Option<u64>,
    complained: bool,
    said: String,
}

impl Watchdog {
    pub fn from_systemd() -> Self {
        // Twice in its time, as its manual asks for.
        let every_ms = sd_notify::watchdog_enabled().map(|limit| (limit.as_millis() as u64 / 2).max(1));
        Self { every_ms, complained: false, said: String::new() }
    }

    /// How often to call [`Watchdog::turned`]; `None`: never.
    pub fn every_ms(&self) -> Option<u64> {
        self.every_ms
    }

    /// The agent is up.
    pub fn ready(&mut self, words: String) {
        let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&words)]);
        self.said = words;
    }

    /// The wheel has turned: feeds the watchdog if the others have too.
    pub fn turned(&mut self, life: Life, now_ms: u64, words: String) {
        match stuck(life, now_ms) {
            None => {
                _ = sd_notify::notify(&[NotifyState::Watchdog]);
                self.complained = false;
            }
            Some(stuck) if !self.complained => {
                tracing::error!("{stuck}; systemd's watchdog is not fed, and will start the agent again");
                self.complained = true;
            }
            Some(_) => {}
        }
        if self.said != words {
            let _ = sd_notify::notify(&[NotifyState::Status(&words)]);
            self.said = words;
        }
    }
}

/// While it lives, systemd is told that work which holds up the whole runtime gets on: as long as the disk answers.
pub struct Patience {
    // Dropped first: that ends the thread.
    _end: Option<mpsc::Sender<()>>,
}

impl Patience {
    /// `starting`: the start is being waited for; else the watchdog is running already.
    pub fn begin(starting: bool) -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self { _end: None };
        }
        let (end, ended) = mpsc::channel::<()>();
        let tell = move |getting_on: bool| {
            if getting_on {
                let more = if starting { NotifyState::ExtendTimeoutUsec(MORE_US) } else { NotifyState::Watchdog };
                let _ = sd_notify::notify(&[more]);
            }
        };
        let look = move || watch(&ended, LOOK, disk_answers, tell);
        // Without a thread the start has its usual time.
        let spawned = std::thread::Builder::new().name("patience".into()).spawn(look);
        Self { _end: spawned.is_ok().then_some(end) }
    }
}

/// Looks at a count until the other end is dropped, and tells each time whether it has moved.
fn watch(end: &mpsc::Receiver<()>, every: Duration, count: impl Fn() -> u64, tell: impl Fn(bool)) {
    let mut before = count();
    while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(every) {
        let now = count();
        tell(now != before);
        before = now;
    }
}

/// One line for `systemctl status`.
pub fn in_words(now: &Now, cameras: &[CameraId], store: Option<&Store>) -> String {
    let pending = store.map(|store| store.pending_totals().0);
    words(now, cameras, pending)
}

fn words(now: &Now, cameras: &[CameraId], pending: Option<u64>) -> String {
    let failing = cameras.iter().filter(|id| now.cameras.get(*id).is_some_and(|c| c.state == CameraHealth::Failing)).count();
    let number = |n: u64, one: &str| format!("{} {one}{}", grouped(n), if n == 1 { "" } else { "s" });
    let mut line = match cameras.len() {
        0 => "no camera is configured".to_owned(),
        n => number(n as u64, "camera"),
    };
    if failing > 0 {
        line += &format!(", {failing} failing");
    }
    match (&now.fault, pending) {
        (Some(fault), _) => line += &format!("; no pictures: {fault}"),
        (None, Some(pending)) if pending > 0 => {
            line += &format!("; {} wait{} for the hub", number(pending, "picture"), if pending == 1 { "s" } else { "" });
        }
        _ => {}
    }
    if let ConfigOrigin::Kept { .. } = now.config {
        line += "; the configuration has errors, the last accepted one runs";
    }
    line
}

#[cfg(test)]
mod tests;
