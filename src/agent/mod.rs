//! The agent: builds the parts from settings, turns the wheel, and stops in order.
//!
//! One task owns wheel, planners and cameras. It sleeps until the next deadline (one timerfd), a signal, a command or a
//! storage fault, and does nothing in between. The store may be missing (a disk that fails at start): then the agent is up
//! without cameras, tells the hub so, and tries again.

mod past;
mod plans;
mod starts;
mod timer;
mod timetable;
mod watchdog;

pub use plans::next_slots;

use crate::camera::{self, Camera, Offered, Permits, Settled, SnapAnswer, Surroundings};
use crate::clock::{BootTimer, Clock, Deadline, StepWatch, SystemClock, awake_ms, boot_id};
use crate::config::{self, ConfigErrors, Loaded, Origin, settings::Settings};
use crate::error::{Chain, Exit};
use crate::model::{BootNo, CameraId, Failure, Off, Outcome, ScheduleId};
use crate::schedule::Due;
use crate::status::{ConfigOrigin, Status};
use crate::store::{OpenError, Past, Place, Store};
use crate::uplink;
use past::{Account, why_off};
use plans::{configure, interval_ms};
use starts::Starts;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use timer::Timer;
use timetable::Timetable;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use watchdog::{Life, Patience, Watchdog};

/// First and longest wait before a store that could not be opened is tried again.
const STORE_RETRY_MIN_MS: u64 = 10_000;
const STORE_RETRY_MAX_MS: u64 = 300_000;
/// A queue whose check is overdue is looked at again after this: its thread is about to take the slot.
const CHECK_AGAIN_MS: u64 = 500;
/// How often an untrusted clock is looked at.
const CLOCK_LOOK_MS: u64 = 10_000;
/// Left in the runtime directory (which a reboot clears) when the store failed while running.
const FAULT_NOTE: &str = "storage-fault";

/// What the face (socket, command line) may use of a running agent.
#[derive(Clone)]
pub struct Handle {
    pub status: Status,
    pub settings: watch::Receiver<Arc<Settings>>,
    /// `None` while the store cannot be used.
    pub store: watch::Receiver<Option<Store>>,
    pub commands: mpsc::Sender<Command>,
}

/// Asked of the agent from outside.
pub enum Command {
    Snap { camera: CameraId, answer: oneshot::Sender<SnapAnswer> },
}

pub struct Agent {
    config_file: PathBuf,
    settings: Arc<Settings>,
    settings_out: watch::Sender<Arc<Settings>>,
    store: Option<Store>,
    store_out: watch::Sender<Option<Store>>,
    status: Status,
    clock: Arc<dyn Clock>,
    timer: BootTimer,
    table: Timetable,
    steps: StepWatch,
    /// An untrusted clock is looked at again by [`Timer::Clock`].
    clock_looks: bool,
    /// The configuration file while it is being checked, and whether it is to be checked once more after that.
    reading: Option<JoinHandle<Result<Loaded, ConfigErrors>>>,
    read_again: bool,
    cameras: BTreeMap<CameraId, (Camera, bool)>,
    permits: Arc<Permits>,
    boot: BootNo,
    started_ms: u64,
    retry_ms: u64,
    /// Text of the file that runs, until the data directory is there to keep it.
    to_keep: Option<String>,
    uplink: Option<(JoinHandle<()>, watch::Sender<bool>)>,
    last_trusted_ms: i64,
    commands: mpsc::Receiver<Command>,
    watchdog: Watchdog,
    starts: Starts,
}

impl Agent {
    /// Builds the agent; nothing runs yet. Needs a tokio runtime. A present file's text is kept for bad days.
    pub fn new(config_file: &Path, settings: Settings, origin: Origin) -> std::io::Result<(Self, Handle)> {
        let (origin, to_keep) = match origin {
            Origin::Present { text } => (ConfigOrigin::File, Some(text)),
            Origin::Kept { errors } => (ConfigOrigin::Kept { error: errors.to_string() }, None),
        };
        let settings = Arc::new(settings);
        let (settings_out, settings_in) = watch::channel(settings.clone());
        let (store_out, store_in) = watch::channel(None);
        let (commands_out, commands) = mpsc::channel(16);
        let status = Status::default();
        status.edit(|now| now.config = origin);
        let handle = Handle { status: status.clone(), settings: settings_in, store: store_in, commands: commands_out };
        let clock = Arc::new(SystemClock);
        let starts = Starts::count(&settings.store.runtime_dir, clock.boottime_ms());
        let agent = Self {
            config_file: config_file.to_owned(),
            started_ms: clock.boottime_ms(),
            settings,
            settings_out,
            store: None,
            store_out,
            status,
            steps: StepWatch::new(clock.clone())?,
            clock_looks: false,
            reading: None,
            read_again: false,
            clock,
            timer: BootTimer::new()?,
            table: Timetable::default(),
            cameras: BTreeMap::new(),
            permits: Arc::new(Permits::for_this_board()),
            boot: 0,
            retry_ms: STORE_RETRY_MIN_MS,
            to_keep,
            uplink: None,
            last_trusted_ms: 0,
            commands,
            watchdog: Watchdog::from_systemd(),
            starts,
        };
        Ok((agent, handle))
    }

    /// Runs until a signal ends it or the store fails. `ready` is called once the data directory is ours (or cannot be
    /// used).
    pub async fn run(mut self, ready: impl FnOnce()) -> Exit {
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
            tracing::error!("the system refuses to deliver signals");
            return Exit::Failed;
        };
        self.hold_cameras_back();
        if let Err(OpenError::Locked { .. }) = self.open_store(true).await {
            return Exit::Failed;
        }
        self.start_uplink();
        ready();
        self.watchdog.ready(self.in_words());
        self.arm_watchdog();
        let mut changes = self.status.changes();
        loop {
            if let Err(e) = self.timer.set(self.table.wheel.next_deadline()) {
                tracing::error!(error = %e, "the timer cannot be set");
                return Exit::Failed;
            }
            tokio::select! {
                fired = self.timer.fired() => {
                    if let Err(e) = fired {
                        tracing::error!(error = %e, "the timer cannot be read");
                        return Exit::Failed;
                    }
                    self.turn().await;
                }
                () = self.steps.stepped() => self.look_at_clock(false),
                Some(command) = self.commands.recv() => self.command(command),
                Ok(()) = changes.changed(), if self.starts.open() => self.look_for_a_picture(),
                () = store_fault(self.store.as_ref()) => return self.end_with_fault().await,
                _ = hangup.recv() => self.read_configuration(),
                loaded = read(&mut self.reading) => self.reload(loaded).await,
                _ = terminate.recv() => return self.stop("SIGTERM").await,
                _ = interrupt.recv() => return self.stop("SIGINT").await,
            }
        }
    }

    /// Fires what is due.
    async fn turn(&mut self) {
        let now_ms = self.clock.boottime_ms();
        let mut fired = Vec::new();
        self.table.wheel.advance(now_ms, &mut |_, _, timer| fired.push(timer));
        // Slots that fall due together reach their camera together: one capture serves them.
        let mut due: BTreeMap<CameraId, Vec<Offered>> = BTreeMap::new();
        for timer in fired {
            match timer {
                Timer::Slot { schedule, due: slot } => self.slot(&schedule, slot, &mut due),
                Timer::Plan { schedule } => {
                    if let Some(store) = &self.store {
                        self.table.plan(store, &schedule, &self.clock.read());
                    }
                }
                Timer::Check { camera } => self.check(&camera),
                Timer::OpenStore => {
                    let _ = self.open_store(false).await;
                }
                Timer::Clock => self.look_at_clock(true),
                Timer::Cameras => self.start_cameras(),
                Timer::Watchdog => self.show_life(),
            }
        }
        self.foresee();
        for (camera, slots) in due {
            if let Some((running, _)) = self.cameras.get(&camera) {
                let (settled, check) = running.offer(slots, now_ms);
                self.settle(&camera, settled);
                self.arm_check(&camera, check);
            } else {
                let failure = self.held_back().unwrap_or_else(|| {
                    Failure::new("no_thread", "the camera's thread could not be started; the system may be out of memory or threads")
                });
                self.settle(
                    &camera,
                    slots.into_iter().map(|offered| (offered.slot, Outcome::Failed { reason: failure.clone() })).collect(),
                );
                self.start_cameras();
            }
        }
    }

    fn slot(&mut self, schedule: &ScheduleId, due: Due, offers: &mut BTreeMap<CameraId, Vec<Offered>>) {
        let Some(store) = &self.store else { return };
        if let Some((camera, offered)) = self.table.fired(store, schedule, due, &self.clock.read()) {
            offers.entry(camera).or_default().push(offered);
        }
    }

    /// Cameras are told what is coming: one that needs opening is opened in time.
    fn foresee(&mut self) {
        let now_ms = self.clock.boottime_ms();
        for (camera, schedule, due_ms) in self.table.take_news() {
            if let Some((camera, _)) = self.cameras.get(&camera) {
                camera.foresee(&schedule, due_ms, now_ms);
            }
        }
    }

    /// Whatever goes by the clock is planned anew when it was set and as soon as it is trusted: a daily slot must not wait for the one that
    /// was planned by a wrong clock.
    fn look_at_clock(&mut self, by_timer: bool) {
        let now = self.steps.look();
        self.clock_looks &= !by_timer;
        if !now.quality.trusted() && !std::mem::replace(&mut self.clock_looks, true) {
            let _ = self.table.wheel.insert(now.boottime_ms + CLOCK_LOOK_MS, Timer::Clock);
        }
        if let Some(store) = self.store.as_ref().filter(|_| self.table.is_planned_by_another(&now)) {
            // What goes by age may have waited for this.
            store.configure(configure(&self.settings));
            self.table.clock_changed(store, &now);
            self.foresee();
        }
    }

    fn check(&mut self, camera: &CameraId) {
        let now_ms = self.clock.boottime_ms();
        let Some((running, armed)) = self.cameras.get_mut(camera) else { return };
        *armed = false;
        let (settled, next) = running.check(now_ms);
        self.settle(camera, settled);
        self.arm_check(camera, next.map(|at| at.max(now_ms + CHECK_AGAIN_MS)));
    }

    fn arm_check(&mut self, camera: &CameraId, at: Option<u64>) {
        if let (Some(at), Some((_, armed))) = (at, self.cameras.get_mut(camera))
            && !*armed
        {
            *armed = self.table.wheel.insert(at, Timer::Check { camera: camera.clone() }).is_ok();
        }
    }

    /// Slots that ended without their camera's thread.
    fn settle(&self, camera: &CameraId, settled: Settled) {
        for (slot, outcome) in settled {
            // A thread that hangs cannot say so itself.
            if let Outcome::Failed { reason } = &outcome {
                camera::failing(&self.status, camera, reason);
            }
            if let Some(store) = &self.store {
                store.outcome(slot, outcome);
            }
        }
    }

    fn command(&mut self, command: Command) {
        let Command::Snap { camera, answer } = command;
        match self.cameras.get(&camera) {
            Some((running, _)) => {
                running.snap(answer);
                let now_ms = self.clock.boottime_ms();
                let hung_after = running.settings.timeout.as_millis() as u64 * 3;
                self.arm_check(&camera, Some(now_ms + hung_after));
            }
            None => {
                let failure = match (&self.store, self.settings.cameras.iter().any(|c| c.id == camera)) {
                    (Some(_), true) => {
                        self.held_back().unwrap_or_else(|| Failure::new("no_thread", "the camera's thread is not there; see the log"))
                    }
                    (None, true) => Failure::new("storage", "the store cannot be used, so no camera runs; see `shutterd status`"),
                    _ => Failure::new("unknown_camera", format!("there is no camera {camera}; see `shutterd cameras`")),
                };
                let _ = answer.send(Err(failure));
            }
        }
    }

    /// Opens the store, and then cameras and schedules. On failure says so, tells the hub, and tries again later.
    async fn open_store(&mut self, starting: bool) -> Result<(), OpenError> {
        let patience = Patience::begin(starting);
        let opened = boot_id()
            .map_err(|source| OpenError::Io { dir: self.settings.store.dir.clone(), source, hint: "/proc must be mounted" })
            .and_then(|boot| {
                Store::require_mount(&self.settings.store.dir, self.settings.store.require_mount.as_ref())?;
                Store::open(&self.place(), configure(&self.settings), self.clock.clone(), &boot)
            });
        drop(patience);
        match opened {
            Ok((store, past)) => {
                let waited = self.status.read().fault.is_some();
                if waited {
                    tracing::info!("the store can be used again");
                }
                self.status.edit(|now| now.fault = None);
                self.retry_ms = STORE_RETRY_MIN_MS;
                self.keep_configuration();
                self.boot = past.boot;
                self.last_trusted_ms = past.last_trusted_ms;
                self.store = Some(store.clone());
                self.account_for_the_past(&store, past, waited);
                if let Err(e) = store.flush().await {
                    tracing::error!(error = %e, "the store failed at once");
                }
                self.start_cameras();
                if !self.clock.read().quality.trusted() {
                    self.look_at_clock(false);
                }
                self.store_out.send_replace(Some(store));
                Ok(())
            }
            // At the first start: two agents want one directory, and this one is too many.
            Err(e @ OpenError::Locked { .. }) if self.status.read().fault.is_none() => {
                tracing::error!("{e}");
                Err(e)
            }
            Err(e) => {
                if self.status.read().fault.as_deref() != Some(&e.to_string()) {
                    tracing::error!("{}; no pictures until this is mended, trying again", Chain(&e));
                }
                self.status.edit(|now| now.fault = Some(e.to_string()));
                let at = self.clock.boottime_ms() + self.retry_ms;
                self.retry_ms = (self.retry_ms * 2).min(STORE_RETRY_MAX_MS);
                let _ = self.table.wheel.insert(at, Timer::OpenStore);
                Err(e)
            }
        }
    }

    fn keep_configuration(&mut self) {
        if let Some(text) = self.to_keep.take()
            && let Err(e) = config::kept::accept(&text, &self.settings.store.dir)
        {
            tracing::warn!(error = %e, "the configuration cannot be kept for bad days");
        }
    }

    fn place(&self) -> Place {
        Place { dir: self.settings.store.dir.clone(), board: config::board_serial().unwrap_or_default(), hub: self.settings.hub.is_some() }
    }

    /// Gives every slot between the last settled one and now its outcome, then plans.
    fn account_for_the_past(&mut self, store: &Store, past: Past, waited: bool) {
        let now = self.clock.read();
        let note = self.settings.store.runtime_dir.join(FAULT_NOTE);
        let storage_failed_at_ms = waited.then_some(self.started_ms);
        let account = Account { store, boot: past.boot, before: why_off(&past, note.exists()), storage_failed_at_ms, now };
        let _ = std::fs::remove_file(note);
        self.table.begin(&account, &self.settings.schedules, past);
    }

    fn surroundings(&self) -> Option<Surroundings> {
        Some(Surroundings {
            store: self.store.clone()?,
            status: self.status.clone(),
            permits: self.permits.clone(),
            runtime: tokio::runtime::Handle::current(),
            runtime_dir: self.settings.store.runtime_dir.clone(),
        })
    }

    fn start_cameras(&mut self) {
        camera::clean_notes(&self.settings.store.runtime_dir, &self.settings.cameras);
        let Some(around) = self.surroundings().filter(|_| self.held_back().is_none()) else { return };
        for settings in &self.settings.cameras {
            if self.cameras.contains_key(&settings.id) {
                continue;
            }
            match Camera::start(settings.clone(), interval_ms(&self.settings, &settings.id), around.clone()) {
                Ok(camera) => {
                    let now_ms = self.clock.boottime_ms();
                    for (schedule, due_ms) in self.table.due_of(&settings.id) {
                        camera.foresee(schedule, Some(due_ms), now_ms);
                    }
                    self.cameras.insert(settings.id.clone(), (camera, false));
                    self.status.edit(|now| {
                        now.cameras.entry(settings.id.clone()).or_insert_with(camera::unknown);
                    });
                }
                Err(e) => tracing::error!(camera = %settings.id, error = %e, "the camera's thread cannot be started"),
            }
        }
    }

    /// After starts in a row that stored nothing.
    fn hold_cameras_back(&mut self) {
        if let Some(why) = self.held_back() {
            tracing::error!("{}", why.detail);
            let _ = self.table.wheel.insert(self.starts.cameras_from_ms(), Timer::Cameras);
        }
    }

    fn held_back(&self) -> Option<Failure> {
        self.starts.held_back(self.clock.boottime_ms())
    }

    fn look_for_a_picture(&mut self) {
        if self.status.read().cameras.values().any(|camera| camera.captured > 0) {
            self.starts.clear();
        }
    }

    fn in_words(&self) -> String {
        let cameras: Vec<_> = self.settings.cameras.iter().map(|camera| camera.id.clone()).collect();
        watchdog::in_words(&self.status.read(), &cameras, self.store.as_ref())
    }

    fn arm_watchdog(&mut self) {
        if let Some(every_ms) = self.watchdog.every_ms() {
            let _ = self.table.wheel.insert(self.clock.boottime_ms() + every_ms, Timer::Watchdog);
        }
    }

    /// The wheel turns: whether the others do too is looked at here.
    fn show_life(&mut self) {
        let store_since_ms = self.store.as_ref().and_then(Store::busy_since_ms);
        let life = Life { uplink_by_ms: self.status.uplink_turns_by_ms(), store_since_ms };
        self.watchdog.turned(life, awake_ms(), self.in_words());
        self.arm_watchdog();
    }

    fn start_uplink(&mut self) {
        let Some(hub) = self.settings.hub.clone() else {
            self.status.edit(|now| now.uplink.state = "off".into());
            return;
        };
        let (stop, shutdown) = watch::channel(false);
        let context = uplink::Context {
            node: self.settings.node.clone(),
            hub,
            cameras: self.settings.cameras.iter().map(|c| c.id.clone()).collect(),
            schedules: self.settings.schedules.iter().map(|s| s.id.clone()).collect(),
            store: self.store_out.subscribe(),
            status: self.status.clone(),
            clock: self.clock.clone(),
            last_trusted_ms: self.last_trusted_ms,
        };
        self.uplink = Some((tokio::spawn(uplink::run(context, shutdown)), stop));
    }

    async fn stop_uplink(&mut self) {
        if let Some((task, stop)) = self.uplink.take() {
            let _ = stop.send(true);
            let _ = task.await;
        }
    }

    /// Begins to check the file. Slots go on meanwhile: a thousand schedules take a small board a while.
    fn read_configuration(&mut self) {
        self.read_again = self.reading.is_some();
        if !self.read_again {
            let file = self.config_file.clone();
            self.reading = Some(tokio::task::spawn_blocking(move || config::load_or_kept(&file, None)));
        }
    }

    /// A good file takes the place of the running one, a bad one changes nothing.
    async fn reload(&mut self, loaded: Result<Loaded, ConfigErrors>) {
        if std::mem::take(&mut self.read_again) {
            self.read_configuration();
        }
        let (mut new, text) = match loaded {
            Ok(Loaded { settings, warnings, origin: Origin::Present { text } }) => {
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                (settings, text)
            }
            Ok(Loaded { origin: Origin::Kept { errors }, .. }) | Err(errors) => {
                tracing::error!("the new configuration is not used, the running one stays:\n{errors}");
                self.status.edit(|now| now.config = ConfigOrigin::Kept { error: errors.to_string() });
                return;
            }
        };
        if (&new.store.dir, &new.store.runtime_dir) != (&self.settings.store.dir, &self.settings.store.runtime_dir) {
            tracing::warn!("store.dir and store.runtime_dir take effect at the next start");
            new.store.dir.clone_from(&self.settings.store.dir);
            new.store.runtime_dir.clone_from(&self.settings.store.runtime_dir);
        }
        self.to_keep = Some(text);
        if self.store.is_some() {
            self.keep_configuration();
        }
        let old = std::mem::replace(&mut self.settings, Arc::new(new));
        self.settings_out.send_replace(self.settings.clone());
        self.status.edit(|now| now.config = ConfigOrigin::File);
        if let Some(store) = self.store.clone() {
            store.configure(configure(&self.settings));
            self.swap_cameras(&old, &store);
            self.table.change(&store, &self.settings.schedules, &self.clock.read());
            self.foresee();
            self.start_cameras();
        }
        let told = |s: &Settings| (s.node.clone(), s.hub.clone(), s.cameras.clone(), s.schedules.clone());
        if told(&old) != told(&self.settings) {
            self.stop_uplink().await;
            self.start_uplink();
        }
        tracing::info!(version = self.settings.version, "the new configuration is in force");
    }

    /// Ends cameras that are gone or changed; they finish in the background.
    fn swap_cameras(&mut self, old: &Settings, store: &Store) {
        let stays = |id: &CameraId| {
            let same = |s: &Settings| s.cameras.iter().find(|c| c.id == *id).cloned().map(|c| (c, interval_ms(s, id)));
            same(old).is_some() && same(old) == same(&self.settings)
        };
        let gone: Vec<_> = self.cameras.keys().filter(|id| !stays(id)).cloned().collect();
        for id in gone {
            let Some((mut camera, _)) = self.cameras.remove(&id) else { continue };
            let off = Outcome::Off { reason: Off::Stop };
            for slot in camera.ask_to_stop() {
                store.outcome(slot, off.clone());
            }
            let store = store.clone();
            let joined = std::thread::Builder::new().name("cam-end".into()).spawn(move || {
                for slot in camera.join_until(Deadline::after(camera::STOP_WAIT)) {
                    store.outcome(slot, Outcome::Off { reason: Off::Stop });
                }
            });
            if let Err(e) = joined {
                tracing::error!(camera = %id, error = %e, "the camera's end cannot be waited for");
            }
            self.status.edit(|now| {
                now.cameras.remove(&id);
            });
        }
    }

    async fn stop(mut self, why: &str) -> Exit {
        tracing::info!(why, "stopping");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.starts.clear();
        self.table.end(self.store.as_ref(), &self.clock.read());
        let deadline = Deadline::after(camera::STOP_WAIT);
        let cameras = std::mem::take(&mut self.cameras);
        let mut off = Vec::new();
        for (camera, _) in cameras.values() {
            off.extend(camera.ask_to_stop());
        }
        // The threads may need the runtime for their last steps, so the wait happens beside it.
        let joined = tokio::task::spawn_blocking(move || {
            cameras.into_values().flat_map(|(mut camera, _)| camera.join_until(deadline)).collect::<Vec<_>>()
        });
        off.extend(joined.await.unwrap_or_default());
        // A camera left behind in its driver has not taken the process down.
        camera::clean_notes(&self.settings.store.runtime_dir, &[]);
        if let Some(store) = &self.store {
            off.into_iter().for_each(|slot| store.outcome(slot, Outcome::Off { reason: Off::Stop }));
        }
        self.stop_uplink().await;
        match self.store.take() {
            Some(store) => match store.stop().await {
                Ok(()) => Exit::Ok,
                Err(e) => {
                    tracing::error!(error = %e, "the stop could not be written");
                    Exit::Storage
                }
            },
            None => Exit::Ok,
        }
    }

    /// Nothing more may be acknowledged: tells the hub, and leaves.
    async fn end_with_fault(mut self) -> Exit {
        let _ = std::fs::write(self.settings.store.runtime_dir.join(FAULT_NOTE), b"");
        // The captures under way end with the process, and not through any fault of theirs.
        camera::clean_notes(&self.settings.store.runtime_dir, &[]);
        let fault = self.store.as_ref().and_then(|s| s.fault().borrow().clone());
        self.status.edit(|now| now.fault = fault);
        self.store_out.send_replace(None);
        let _ = tokio::time::timeout(Duration::from_secs(3), self.stop_uplink()).await;
        Exit::Storage
    }
}

/// Waits for the check under way, if there is one.
async fn read(reading: &mut Option<JoinHandle<Result<Loaded, ConfigErrors>>>) -> Result<Loaded, ConfigErrors> {
    let Some(task) = reading else { return std::future::pending().await };
    let read = task.await;
    *reading = None;
    read.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()))
}

async fn store_fault(store: Option<&Store>) {
    match store {
        Some(store) => {
            // An error means that the writer is gone, which is a fault too.
            let _ = store.fault().wait_for(Option::is_some).await;
        }
        None => std::future::pending().await,
    }
}
