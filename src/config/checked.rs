//! Judges every value of a file and makes [`Settings`], which cannot be wrong.
//!
//! Goes on after a mistake, so that all of them are told at once. Bounds are in `model.rs`; a value outside of them is
//! refused, never bent.

use super::{
    address,
    keys::{choice, id, named, required, within},
    password::{Surroundings, absolute, password},
    raw::{self, At, Section},
    report::{ConfigErrors, Finding, Report},
    schedule::{self, Around},
    secret::SourceKind,
    settings::{Camera, Hub, Keep, Level, Log, Mount, Profile, Schedule, Settings, Store, Tls, WhenFull},
    thin,
    units::{self, SizeInWords},
    video,
    zones::Zones,
};
use crate::model::{
    CAMERAS_MAX, CameraId, GRAB_TIMEOUT_DEFAULT_MS, GRAB_TIMEOUT_MAX_MS, GRAB_TIMEOUT_MIN_MS, KEEP_AGE_MIN_MS, KEEP_ALIVE_DEFAULT_MS,
    KEEP_ALIVE_MAX_MS, KEEP_ALIVE_MIN_MS, KEEP_BYTES_MIN, KEEP_COUNT_LIMIT, KEEP_COUNT_MIN, NodeId, PIXELS_LIMIT, PIXELS_MAX,
    QUALITY_DEFAULT, SCHEDULES_MAX,
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where pictures and index are kept unless the file says otherwise.
pub const DATA_DIR_DEFAULT: &str = "/var/lib/shutterd";
pub const RUNTIME_DIR_DEFAULT: &str = "/run/shutterd";

const ROOT_KEYS: [&str; 7] = ["node", "hub", "store", "keep", "log", "cameras", "schedules"];
const NODE_KEYS: [&str; 4] = ["id", "zone", "latitude", "longitude"];
const HUB_KEYS: [&str; 7] = ["url", "password_file", "password_credential", "ca_file", "client_cert_file", "client_key_file", "keep_alive"];
const STORE_KEYS: [&str; 5] = ["dir", "runtime_dir", "when_full", "profile", "require_mount"];
const KEEP_KEYS: [&str; 6] = ["age", "bytes", "count", "thin", "free", "free_inodes"];
const CAMERA_KEYS: [&str; 12] = [
    "source",
    "password_file",
    "password_credential",
    "size",
    "rate",
    "format",
    "controls",
    "quality",
    "timeout",
    "max_pixels",
    "keep_bytes",
    "keep_count",
];

const SIZE: &str = "a size such as \"20 GiB\"";
const PATH: &str = "a path such as \"/etc/shutterd/ca.pem\"";

/// Settings and warnings of a text, or all that is wrong with it.
pub(super) fn check(text: &str, origin: &str, around: &Surroundings) -> Result<(Settings, Vec<Finding>), ConfigErrors> {
    let mut report = Report::new(origin, text);
    let settings = raw::read(text, &mut report).and_then(|tree| {
        let root = Section::root(&tree, &ROOT_KEYS, &mut report);
        settings(&root, text, around, &mut report)
    });
    report.finish(settings)
}

/// `[store] dir` of a text that may be wrong elsewhere: tells where its accepted predecessor is kept.
pub(super) fn data_dir(text: &str) -> PathBuf {
    let (tree, _) = toml::de::DeTable::parse_recoverable(text);
    let dir = tree.get_ref().get("store").and_then(|store| store.get_ref().get("dir")).and_then(|dir| dir.get_ref().as_str());
    dir.and_then(|dir| absolute(dir).ok()).unwrap_or_else(|| PathBuf::from(DATA_DIR_DEFAULT))
}

fn settings(root: &Section, text: &str, around: &Surroundings, report: &mut Report) -> Option<Settings> {
    let mut zones = Zones::default();
    let node_section = root.section("node", &NODE_KEYS, report);
    let node = node(node_section.as_ref(), around, report);
    let (home, place_refused) = schedule::home(node_section.as_ref(), around.zone.as_deref(), &mut zones, report);
    let hub = match root.section("hub", &HUB_KEYS, report) {
        Some(section) => hub(&section, around, report).map(Some),
        None => Some(None),
    };
    let store = store(root.section("store", &STORE_KEYS, report), report);
    let mut keep = root.section("keep", &KEEP_KEYS, report).map_or_else(Keep::default, |section| keep(&section, report));
    let level = root.section("log", &["level"], report).and_then(|section| {
        let levels =
            [("error", Level::Error), ("warn", Level::Warn), ("info", Level::Info), ("debug", Level::Debug), ("trace", Level::Trace)];
        choice(&section, "level", &levels, report)
    });

    let camera_sections = root.named("cameras", &CAMERA_KEYS, report);
    let schedule_sections = root.named("schedules", &schedule::KEYS, report);
    too_many("cameras", camera_sections.len(), CAMERAS_MAX, camera_sections.get(CAMERAS_MAX).map(|(name, _)| name.at), report);
    too_many("schedules", schedule_sections.len(), SCHEDULES_MAX, schedule_sections.get(SCHEDULES_MAX).map(|(name, _)| name.at), report);
    // Names are known even of cameras with mistakes, so that their schedules are not called wrong as well.
    let names: Vec<&str> = camera_sections.iter().map(|(name, _)| name.value).collect();
    let cameras: Vec<Option<Camera>> = camera_sections.iter().map(|(name, section)| camera(name, section, around, report)).collect();
    let common = Around { cameras: &names, node: node.as_ref(), home: &home, place_refused };
    let schedules: Vec<Option<Schedule>> =
        schedule_sections.iter().map(|(name, section)| schedule::schedule(name, section, &common, &mut zones, report)).collect();
    let places = schedule_sections.iter().map(|(name, _)| name.at).zip(&schedules);
    let known: Vec<_> = places.filter_map(|(at, schedule)| Some((at, schedule.as_ref()?))).collect();
    schedule::warn_of_copies(&known, report);

    for (name, section) in &camera_sections {
        let share = (size(section, "keep_bytes", report), section.number("keep_count", KEEP_COUNT_MIN..=KEEP_COUNT_LIMIT, report));
        if let Ok(camera) = name.value.parse()
            && share != (None, None)
        {
            keep.cameras.insert(camera, share);
        }
    }
    if camera_sections.is_empty() {
        report.warning_of_file("there are no cameras; add one as [cameras.NAME] with its source");
    }
    let settings = Settings {
        node: node?,
        home,
        cameras: cameras.into_iter().collect::<Option<_>>()?,
        schedules: schedules.into_iter().collect::<Option<_>>()?,
        hub: hub?,
        store,
        keep,
        log: Log { level: level.unwrap_or(Level::Info) },
        version: Sha256::digest(text.as_bytes())[..4].iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    for (name, _) in &camera_sections {
        if !settings.schedules.iter().any(|schedule| schedule.enabled && schedule.camera.as_str() == name.value) {
            report.warning(name.at, format!("no enabled schedule uses camera \"{}\"; it takes pictures on command only", name.value));
        }
    }
    Some(settings)
}

fn node(section: Option<&Section>, around: &Surroundings, report: &mut Report) -> Option<NodeId> {
    if let Some(section) = section.filter(|section| section.has("id")) {
        return section.parsed("id", "an id such as \"river-07\"", report, id).map(|id| id.value);
    }
    let serial = around.serial.as_deref().and_then(|serial| serial.parse().ok());
    if serial.is_none() {
        report.error_of_file("this board has no serial number to be named by; write [node] and id = \"river-07\"");
    }
    serial
}

fn hub(section: &Section, around: &Surroundings, report: &mut Report) -> Option<Hub> {
    required(section, "url", "the address of the hub, such as url = \"mqtts://river-07@hub.example\"", report);
    let address = section.parsed("url", "an address such as \"mqtts://river-07@hub.example\"", report, address::hub);
    let keep_alive = within(section, "keep_alive", KEEP_ALIVE_MIN_MS..=KEEP_ALIVE_MAX_MS, report);
    let path = |key, report: &mut Report| section.parsed(key, PATH, report, absolute).map(|path| path.value);
    let (ca_file, cert, key) = (path("ca_file", report), path("client_cert_file", report), path("client_key_file", report));
    for (one, other) in [("client_cert_file", "client_key_file"), ("client_key_file", "client_cert_file")] {
        if section.has(one) && !section.has(other) {
            section.error(one, format!("{other} is missing; a client certificate needs both"), report);
        }
    }
    let At { value: address, .. } = address?;
    let password = password(section, address.password, address.user.is_some(), around, report);
    if !address.tls {
        for key in ["ca_file", "client_cert_file", "client_key_file"].into_iter().filter(|key| section.has(key)) {
            section.error(key, "is of no use without TLS; write the address with mqtts://, or delete this line", report);
        }
        if password.is_some() {
            report.warning(section.place("url"), "[hub] url: the password travels unencrypted; use mqtts:// if the hub can");
        }
    }
    Some(Hub {
        host: address.host,
        port: address.port,
        user: address.user,
        password,
        tls: address.tls.then(|| Tls { ca_file, client: cert.zip(key) }),
        keep_alive: Duration::from_millis(keep_alive.unwrap_or(KEEP_ALIVE_DEFAULT_MS)),
    })
}

fn store(section: Option<Section>, report: &mut Report) -> Store {
    let (dir, runtime_dir) = (DATA_DIR_DEFAULT.into(), RUNTIME_DIR_DEFAULT.into());
    let mut store = Store { dir, runtime_dir, when_full: WhenFull::Stop, profile: Profile::Prompt, require_mount: None };
    if let Some(section) = section {
        for (key, dir) in [("dir", &mut store.dir), ("runtime_dir", &mut store.runtime_dir)] {
            if let Some(path) = section.parsed(key, "a path such as \"/var/lib/shutterd\"", report, absolute) {
                *dir = path.value;
            }
        }
        let choices = [("stop", WhenFull::Stop), ("drop_oldest", WhenFull::DropOldest)];
        store.when_full = choice(&section, "when_full", &choices, report).unwrap_or(store.when_full);
        let choices = [("prompt", Profile::Prompt), ("economy", Profile::Economy)];
        store.profile = choice(&section, "profile", &choices, report).unwrap_or(store.profile);
        store.require_mount = require_mount(&section, &store.dir, report);
    }
    store
}

/// `true`, or the directory that must be a mounted disk.
fn require_mount(section: &Section, dir: &Path, report: &mut Report) -> Option<Mount> {
    if !section.is_text("require_mount") {
        return section.flag("require_mount", report)?.then_some(Mount::NotRoot);
    }
    let at = section.parsed("require_mount", "true, or a path such as \"/mnt/card\"", report, |text| {
        let at = absolute(text)?;
        match dir.starts_with(&at) {
            true => Ok(at),
            false => Err(format!("is not above the data directory {}; write the place where its disk is mounted", dir.display())),
        }
    });
    at.map(|at| Mount::At(at.value))
}

fn keep(section: &Section, report: &mut Report) -> Keep {
    let age = within(section, "age", KEEP_AGE_MIN_MS..=u64::MAX, report).map(Duration::from_millis);
    let thin = section.parsed("thin", "steps such as \"all for 2d, hourly for 30d, daily for ever\"", report, thin::tiers);
    let thin = thin.map(|thin| thin.value).unwrap_or_default();
    let coarsest_ms = thin.iter().rev().nth(1).and_then(|tier| tier.until_ms);
    if let (Some(age), Some(begins_ms)) = (age, coarsest_ms)
        && age.as_millis() as u64 <= begins_ms
    {
        report.warning(section.place("thin"), "[keep] thin: its last step is never reached, because age deletes everything before");
    }
    Keep {
        age,
        bytes: size(section, "bytes", report),
        count: section.number("count", KEEP_COUNT_MIN..=KEEP_COUNT_LIMIT, report),
        free: size(section, "free", report),
        free_inodes: section.number("free_inodes", 1..=KEEP_COUNT_LIMIT, report),
        thin,
        cameras: BTreeMap::new(),
    }
}

/// A size that pictures can live with.
fn size(section: &Section, key: &str, report: &mut Report) -> Option<u64> {
    let found = section.parsed(key, SIZE, report, |text| match units::size_bytes(text)? {
        bytes if bytes < KEEP_BYTES_MIN => {
            Err(format!("{} is too little; write {} or more", SizeInWords(bytes), SizeInWords(KEEP_BYTES_MIN)))
        }
        bytes => Ok(bytes),
    });
    found.map(|bytes| bytes.value)
}

fn camera(name: &At<&str>, section: &Section, around: &Surroundings, report: &mut Report) -> Option<Camera> {
    let id = named::<CameraId>(name, "camera", report);
    required(section, "source", "where the camera is, such as source = \"rtsp://user@10.0.0.5/stream\"", report);
    let source = section.parsed("source", "an address such as \"rtsp://user@10.0.0.5/stream\"", report, address::source);
    let quality = section.number("quality", 1..=100, report).map_or(QUALITY_DEFAULT, |quality| quality as u8);
    let timeout = within(section, "timeout", GRAB_TIMEOUT_MIN_MS..=GRAB_TIMEOUT_MAX_MS, report);
    let max_pixels = section.number("max_pixels", 1..=PIXELS_LIMIT, report);
    let video = video::video(section, report);
    if let (Some((width, height)), most) = (video.size, max_pixels.unwrap_or(PIXELS_MAX))
        && u64::from(width) * u64::from(height) > most
    {
        section.error("size", format!("{width}x{height} is over max_pixels = {most}; raise that, or write a smaller size"), report);
    }
    let At { value: mut source, at } = source?;
    if !matches!(source.kind, SourceKind::V4l2(_)) {
        for key in video::KEYS.into_iter().filter(|key| section.has(key)) {
            section.error(key, "only a v4l2: camera can be told this; delete this line", report);
        }
    }
    match &source.kind {
        SourceKind::Rtsp(_) => source.password = password(section, source.password.take(), source.user.is_some(), around, report),
        other => {
            for key in ["password_file", "password_credential"].into_iter().filter(|key| section.has(key)) {
                section.error(key, "only an rtsp:// camera has a login; delete this line", report);
            }
            if matches!(other, SourceKind::Pattern(_)) {
                report.warning(at, format!("{} is a test card, not a camera", section.title));
            }
        }
    }
    Some(Camera {
        id: id?,
        source,
        quality,
        timeout: Duration::from_millis(timeout.unwrap_or(GRAB_TIMEOUT_DEFAULT_MS)),
        max_pixels: max_pixels.unwrap_or(PIXELS_MAX),
        video,
    })
}

fn too_many(what: &str, count: usize, most: usize, first_over: Option<usize>, report: &mut Report) {
    if let Some(at) = first_over {
        report.error(at, format!("there are {count} {what}; one agent has {most} at most"));
    }
}
