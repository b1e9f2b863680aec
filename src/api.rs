//! The local face: HTTP on a unix socket, for the command line and for scripts (`curl --unix-socket`).
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | what runs, what waits, what is wrong (JSON) |
//! | `GET /cameras/<id>/latest.jpg` | the newest good picture |
//! | `POST /cameras/<id>/snap` | takes, stores and returns a picture; header `x-snapshot-id` |
//! | `GET /snapshots?camera&schedule&since&until&before&limit` | rows, newest first, with `next` as cursor (JSON) |
//! | `GET /snapshots/<id>` | the picture |
//! | `POST`, `DELETE /snapshots/<id>/pin` | keeps the picture whatever the rules say, or lets it go again |
//! | `POST /cameras/<id>/erase` | begins to remove all pictures of a camera; `GET` tells how far that is (JSON) |
//! | `GET /report?since` | how many slots of each schedule and UTC day ended how, from the day of `since` (ms since 1970) on |
//! | `GET /explain?schedule&at` | what became of the slot nearest to an instant (ms since 1970, JSON) |
//!
//! Errors are JSON `{code, message}`. The socket is `0660`: who may open it may ask anything.

use crate::agent::{Command, Handle};
use crate::clock::{Clock, SystemClock};
use crate::model::{BootNo, CameraId, Failure, Outcome, Quality, ScheduleId, Slot, SnapshotId, Stamp};
use crate::protocol::{CameraState, Flash, FlashDay, GapRange};
use crate::status::{ConfigOrigin, UplinkStatus};
use crate::store::{BootRow, DayRow, Erasure, Query, SnapRow, SnapState, Store, StoreError, Times};
use axum::{
    Json, Router,
    extract::{Path, Query as UrlQuery, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};
use tokio::{net::UnixListener, sync::oneshot};

/// Rows in one answer at most.
pub const LIST_MAX: usize = 1_000;
/// What a picture on command may take besides its captures.
const SNAP_MARGIN: Duration = Duration::from_secs(5);
pub const ID_HEADER: &str = "x-snapshot-id";
/// A slot further away than this from the instant asked for is another one.
const EXPLAIN_WITHIN_MS: u64 = 31 * 86_400_000;
/// A boot's offset moves by so much only because two clocks are read one after the other.
const CLOCK_NOISE_MS: u64 = 20;

/// Where the socket of a runtime directory is.
pub fn socket_path(runtime_dir: &std::path::Path) -> PathBuf {
    runtime_dir.join("shutterd.sock")
}

#[derive(Debug, Serialize, Deserialize)]
pub struct StatusAnswer {
    pub version: String,
    pub node: String,
    pub config: String,
    pub config_error: Option<String>,
    pub clock: Quality,
    /// Half-width of the interval that holds the true time, where anything states one.
    #[serde(default)]
    pub uncertainty_ms: Option<u32>,
    pub wall_ms: i64,
    pub boottime_ms: u64,
    pub boot: Option<BootNo>,
    pub store: Option<String>,
    /// Why there is no store.
    pub fault: Option<String>,
    pub stored: u64,
    pub stored_bytes: u64,
    pub pending: u64,
    pub pending_bytes: u64,
    #[serde(default)]
    pub pinned: u64,
    #[serde(default)]
    pub pinned_bytes: u64,
    /// What lasts and somebody should do something about.
    #[serde(default)]
    pub alarms: Vec<String>,
    /// What was written to the disk, and what the disk says; absent while the store cannot be used.
    #[serde(default)]
    pub flash: Option<Flash>,
    /// The same by UTC day, the oldest first.
    #[serde(default)]
    pub flash_days: Vec<FlashDay>,
    pub uplink: UplinkStatus,
    pub cameras: BTreeMap<CameraId, CameraState>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub id: SnapshotId,
    pub camera: CameraId,
    pub slots: Vec<Slot>,
    pub taken: Stamp,
    /// When it was taken, as far as any trusted clock can tell by now.
    pub time_ms: Option<i64>,
    /// Where none can: not before, and not after.
    #[serde(default)]
    pub earliest_ms: Option<i64>,
    #[serde(default)]
    pub latest_ms: Option<i64>,
    pub bytes: u64,
    pub width: u32,
    pub height: u32,
    pub state: SnapState,
    #[serde(default)]
    pub pinned: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PinAnswer {
    pub id: SnapshotId,
    pub pinned: bool,
}

/// What a camera has on this node, and its last erasure.
#[derive(Debug, Serialize, Deserialize)]
pub struct EraseAnswer {
    pub camera: CameraId,
    pub stored: u64,
    pub stored_bytes: u64,
    pub erasure: Option<Erasure>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ListAnswer {
    pub snapshots: Vec<Row>,
    /// Give this as `before` for the next page; absent on the last.
    pub next: Option<SnapshotId>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ExplainAnswer {
    pub schedule: ScheduleId,
    /// The slot, if there is one near.
    pub slot: Option<Slot>,
    pub time_ms: Option<i64>,
    /// No trusted clock tells the time of that boot: not before, and not after.
    #[serde(default)]
    pub unsure: bool,
    #[serde(default)]
    pub earliest_ms: Option<i64>,
    #[serde(default)]
    pub latest_ms: Option<i64>,
    pub outcome: Option<Outcome>,
    /// Set when the outcome is that of a whole range.
    pub range: Option<GapRange>,
    /// When somebody asked for the erasure that removed the picture (ms since 1970).
    #[serde(default)]
    pub erased_ms: Option<i64>,
    pub camera: Option<CameraId>,
    /// Where its picture stands, if there was one and it is still here.
    pub picture: Option<SnapState>,
    /// When the schedule's last picture before was due, and its next one after.
    pub last_good_ms: Option<i64>,
    pub next_good_ms: Option<i64>,
    /// When the first and the last slot of the range were due, where the clock of their boots is known.
    pub range_ms: (Option<i64>, Option<i64>),
}
impl ExplainAnswer {
    fn unknown(schedule: ScheduleId) -> Self {
        Self {
            schedule,
            slot: None,
            time_ms: None,
            unsure: false,
            earliest_ms: None,
            latest_ms: None,
            outcome: None,
            range: None,
            erased_ms: None,
            camera: None,
            picture: None,
            last_good_ms: None,
            next_good_ms: None,
            range_ms: (None, None),
        }
    }
}

/// What became of a schedule's slots on one UTC day.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReportDay {
    pub schedule: String,
    /// `2026-11-22`, by UTC.
    pub day: String,
    /// The clock was not trusted: the day is what it said then.
    pub unsure: bool,
    /// How many slots ended how, such as `captured` or `failed: timeout`; `unknown number …` counts stretches nobody could count.
    pub slots: DayRow,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ReportAnswer {
    pub days: Vec<ReportDay>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorAnswer {
    pub code: String,
    pub message: String,
}

struct Error(StatusCode, ErrorAnswer);

impl Error {
    fn new(status: StatusCode, code: &str, message: impl ToString) -> Self {
        Self(status, ErrorAnswer { code: code.into(), message: message.to_string() })
    }
    fn not_found(what: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", what)
    }
}
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}
impl From<StoreError> for Error {
    fn from(e: StoreError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "storage", e)
    }
}
impl From<Failure> for Error {
    fn from(e: Failure) -> Self {
        let status = if e.code == "unknown_camera" { StatusCode::NOT_FOUND } else { StatusCode::SERVICE_UNAVAILABLE };
        Self::new(status, &e.code, e.detail)
    }
}

/// Opens the socket in the runtime directory; an old one is in nobody's use, as the data directory's lock is ours.
pub fn listen(runtime_dir: &std::path::Path) -> io::Result<UnixListener> {
    let path = socket_path(runtime_dir);
    if let Err(e) = std::fs::remove_file(&path)
        && e.kind() != io::ErrorKind::NotFound
    {
        return Err(e);
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Answers until the listener fails.
pub async fn serve(listener: UnixListener, handle: Handle) -> io::Result<()> {
    let router = Router::new()
        .route("/status", get(status))
        .route("/cameras/{camera}/latest.jpg", get(latest))
        .route("/cameras/{camera}/snap", post(snap))
        .route("/snapshots", get(list))
        .route("/snapshots/{id}", get(picture))
        .route("/snapshots/{id}/pin", post(pin).delete(unpin))
        .route("/cameras/{camera}/erase", post(erase).get(erased))
        .route("/explain", get(explain))
        .route("/report", get(report))
        .fallback(|| async { Error::not_found("no such page; `shutterd --help` tells what can be asked") })
        .with_state(handle);
    axum::serve(listener, router).await
}

fn store_of(handle: &Handle) -> Result<Store, Error> {
    handle.store.borrow().clone().ok_or_else(|| {
        let why = handle.status.read().fault.unwrap_or_else(|| "the store is not open yet".into());
        Error::new(StatusCode::SERVICE_UNAVAILABLE, "storage", why)
    })
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|e| Error::new(StatusCode::BAD_REQUEST, "bad_request", e))
}

async fn status(State(handle): State<Handle>) -> Json<StatusAnswer> {
    let now = handle.status.read();
    let clock = SystemClock.read();
    let (config, config_error) = match now.config {
        ConfigOrigin::File => ("file", None),
        ConfigOrigin::Kept { error } => ("kept", Some(error)),
    };
    let store = handle.store.borrow().clone();
    let (stored, stored_bytes) = store.as_ref().map(Store::totals).unwrap_or_default();
    let (pinned, pinned_bytes) = store.as_ref().map(Store::pinned).unwrap_or_default();
    let (pending, pending_bytes) = store.as_ref().map(Store::pending_totals).unwrap_or_default();
    Json(StatusAnswer {
        version: env!("CARGO_PKG_VERSION").into(),
        node: handle.settings.borrow().node.to_string(),
        config: config.into(),
        config_error,
        clock: clock.quality,
        uncertainty_ms: clock.uncertainty_ms,
        wall_ms: clock.wall_ms,
        boottime_ms: clock.boottime_ms,
        boot: store.as_ref().map(Store::boot),
        store: store.as_ref().map(|s| s.id().to_string()),
        fault: now.fault,
        stored,
        stored_bytes,
        pending,
        pending_bytes,
        pinned,
        pinned_bytes,
        alarms: store.as_ref().map(Store::alarms).unwrap_or_default(),
        flash: store.as_ref().map(|store| store.flash(&clock)),
        flash_days: store.as_ref().map(Store::flash_days).unwrap_or_default(),
        uplink: now.uplink,
        cameras: now.cameras,
    })
}

fn jpeg(id: SnapshotId, bytes: Vec<u8>) -> Response {
    let headers = [(header::CONTENT_TYPE, "image/jpeg".to_owned()), (HeaderName::from_static(ID_HEADER), id.to_string())];
    (headers, bytes).into_response()
}

/// Runs what reads the disk beside the runtime: a slow card or a long list must not hold the wheel up.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", e))?.map_err(Into::into)
}

async fn read(store: Store, id: SnapshotId) -> Result<Option<Vec<u8>>, Error> {
    beside(move || store.read_picture(id)).await
}

async fn latest(State(handle): State<Handle>, Path(camera): Path<String>) -> Result<Response, Error> {
    let camera: CameraId = parse(&camera)?;
    let store = store_of(&handle)?;
    let query = Query { camera: Some(camera.clone()), limit: 8, ..Query::default() };
    for (id, row) in store.list(&query, None)? {
        if row.state != SnapState::Corrupt
            && let Some(bytes) = read(store.clone(), id).await?
        {
            return Ok(jpeg(id, bytes));
        }
    }
    Err(Error::not_found(format!("there is no picture of camera {camera} yet")))
}

async fn snap(State(handle): State<Handle>, Path(camera): Path<String>) -> Result<Response, Error> {
    let camera: CameraId = parse(&camera)?;
    let (answer, taken) = oneshot::channel();
    let ended = || Error::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the agent is stopping");
    let asked = camera.clone();
    handle.commands.send(Command::Snap { camera, answer }).await.map_err(|_| ended())?;
    // A driver call that never returns must not keep the asker waiting for ever.
    let cameras = handle.settings.borrow().cameras.clone();
    let patience = cameras.iter().find(|c| c.id == asked).map_or(SNAP_MARGIN, |c| c.timeout * 3 + SNAP_MARGIN);
    let hung = || Error::new(StatusCode::SERVICE_UNAVAILABLE, "hung", format!("camera {asked} has not come back within three time-outs"));
    let stored = tokio::time::timeout(patience, taken).await.map_err(|_| hung())?.map_err(|_| ended())??;
    let bytes = read(store_of(&handle)?, stored.id).await?;
    bytes.map(|bytes| jpeg(stored.id, bytes)).ok_or_else(|| Error::not_found("the picture was stored but cannot be read back"))
}

async fn picture(State(handle): State<Handle>, Path(id): Path<String>) -> Result<Response, Error> {
    let id: SnapshotId = parse(&id)?;
    let bytes = read(store_of(&handle)?, id).await?;
    bytes.map(|bytes| jpeg(id, bytes)).ok_or_else(|| Error::not_found(format!("there is no whole picture {id} on this node")))
}

async fn pin(handle: State<Handle>, id: Path<String>) -> Result<Json<PinAnswer>, Error> {
    set_pin(handle, id, true).await
}
async fn unpin(handle: State<Handle>, id: Path<String>) -> Result<Json<PinAnswer>, Error> {
    set_pin(handle, id, false).await
}
async fn set_pin(State(handle): State<Handle>, Path(id): Path<String>, pinned: bool) -> Result<Json<PinAnswer>, Error> {
    let id: SnapshotId = parse(&id)?;
    let refused = |why: String| Error::new(StatusCode::CONFLICT, "not_pinned", why);
    store_of(&handle)?.pin(id, pinned).await?.map_err(refused)?;
    Ok(Json(PinAnswer { id, pinned }))
}

async fn erase(State(handle): State<Handle>, Path(camera): Path<String>) -> Result<Json<EraseAnswer>, Error> {
    let (camera, store) = (parse(&camera)?, store_of(&handle)?);
    store.erase(&camera).await?;
    Ok(Json(show_erasure(&store, camera)))
}
async fn erased(State(handle): State<Handle>, Path(camera): Path<String>) -> Result<Json<EraseAnswer>, Error> {
    Ok(Json(show_erasure(&store_of(&handle)?, parse(&camera)?)))
}
fn show_erasure(store: &Store, camera: CameraId) -> EraseAnswer {
    let (erasure, stored, stored_bytes) = store.erasure(&camera);
    EraseAnswer { camera, stored, stored_bytes, erasure }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    camera: Option<String>,
    schedule: Option<String>,
    since: Option<i64>,
    until: Option<i64>,
    before: Option<String>,
    limit: Option<usize>,
}

async fn list(State(handle): State<Handle>, UrlQuery(asked): UrlQuery<ListQuery>) -> Result<Json<ListAnswer>, Error> {
    let store = store_of(&handle)?;
    let limit = asked.limit.unwrap_or(50).clamp(1, LIST_MAX);
    let query = Query {
        camera: asked.camera.as_deref().map(parse).transpose()?,
        schedule: asked.schedule.as_deref().map(parse).transpose()?,
        since_ms: asked.since,
        until_ms: asked.until,
        before: None,
        limit: limit + 1,
    };
    let before = asked.before.as_deref().map(parse).transpose()?;
    let mut rows = beside(move || {
        let times = store.times()?;
        let rows = store.list(&query, before)?.into_iter();
        rows.map(|(id, row)| Ok(show(id, row, store.is_pinned(id)?, &times))).collect::<Result<Vec<Row>, StoreError>>()
    })
    .await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|r| r.id);
    Ok(Json(ListAnswer { snapshots: rows, next }))
}

fn show(id: SnapshotId, row: SnapRow, pinned: bool, times: &Times) -> Row {
    let SnapRow { camera, slots, taken, bytes, width, height, state, .. } = row;
    let time_ms = times.taken_ms(&taken);
    let bounds = || times.bounds_ms(taken.boot, taken.boottime_ms);
    let (earliest_ms, latest_ms) = if time_ms.is_none() { bounds() } else { (None, None) };
    Row { id, camera, slots, taken, time_ms, earliest_ms, latest_ms, bytes, width, height, state, pinned }
}

#[derive(Deserialize)]
struct ExplainQuery {
    schedule: String,
    /// Milliseconds since 1970.
    at: i64,
}

async fn explain(State(handle): State<Handle>, UrlQuery(asked): UrlQuery<ExplainQuery>) -> Result<Json<ExplainAnswer>, Error> {
    let store = store_of(&handle)?;
    let schedule: ScheduleId = parse(&asked.schedule)?;
    // What is known but not yet written counts too.
    store.flush().await?;
    let camera = handle.settings.borrow().schedules.iter().find(|s| s.id == schedule).map(|s| s.camera.clone());
    let found = beside(move || {
        let mut found = nearest(&store, schedule, asked.at)?;
        found.camera = camera;
        add_evidence(&store, &mut found)?;
        Ok(found)
    });
    Ok(Json(found.await?))
}

/// What stands around a slot in the ledger.
fn add_evidence(store: &Store, answer: &mut ExplainAnswer) -> Result<(), StoreError> {
    if let Some(slot) = &answer.slot {
        let times = store.times()?;
        answer.unsure = times.known(slot.boot).is_none();
        if answer.unsure {
            (answer.earliest_ms, answer.latest_ms) = times.bounds_ms(slot.boot, slot.due_ms);
        }
    }
    if let Some(Outcome::Captured { id, .. }) = answer.outcome {
        let row = store.snap(id)?;
        // A picture without a trusted stamp has its time from the boot's first trusted reading, and so has its slot.
        if let (Some(_), Some(slot)) = (row.as_ref().filter(|row| !row.taken.quality.trusted()), &answer.slot) {
            answer.time_ms = store.times()?.wall_ms(slot.boot, slot.due_ms).or(answer.time_ms);
        }
        answer.picture = row.map(|row| row.state);
        if let (None, Some(camera)) = (answer.picture, &answer.camera) {
            answer.erased_ms = store.erasure(camera).0.filter(|e| id.seq.0 <= e.upto).map(|e| e.asked_ms);
        }
        return Ok(());
    }
    let place = |at: &crate::protocol::Instant| (at.boot, at.due_ms);
    if let (None, Some(slot)) = (&answer.range, &answer.slot) {
        let here = (slot.boot, slot.due_ms);
        store.ranges(&answer.schedule, |range| {
            let (from, to) = (place(&range.from), place(&range.to));
            if from <= here && here <= to {
                answer.range = Some(range);
            }
            from > here
        })?;
    }
    let around = match (&answer.range, &answer.slot) {
        (Some(range), _) => Some((place(&range.from), place(&range.to))),
        (None, Some(slot)) => Some(((slot.boot, slot.due_ms), (slot.boot, slot.due_ms))),
        (None, None) => None,
    };
    let Some((first, last)) = around else { return Ok(()) };
    let boots = store.boots()?;
    if let Some(range) = &answer.range {
        answer.range_ms = (wall_of(&range.from, &boots), wall_of(&range.to, &boots));
    }
    let near = |(boot, due_ms), later| -> Result<Option<i64>, StoreError> {
        let due_ms = store.captured_near(&answer.schedule, boot, due_ms, later)?;
        Ok(boots.get(&boot).zip(due_ms).map(|(boot, due_ms)| boot.offset_ms + due_ms as i64))
    };
    (answer.last_good_ms, answer.next_good_ms) = (near(first, false)?, near(last, true)?);
    Ok(())
}

#[derive(Deserialize)]
struct ReportQuery {
    /// Milliseconds since 1970.
    since: Option<i64>,
}

async fn report(State(handle): State<Handle>, UrlQuery(asked): UrlQuery<ReportQuery>) -> Result<Json<ReportAnswer>, Error> {
    const DAY_MS: i64 = 86_400_000;
    let store = store_of(&handle)?;
    // What is known but not yet written counts too.
    store.flush().await?;
    let from_day = asked.since.map_or(i32::MIN, |ms| ms.div_euclid(DAY_MS).clamp(i32::MIN.into(), i32::MAX.into()) as i32);
    let days = beside(move || store.days(from_day)).await?;
    let days = days.into_iter().map(|(schedule, unsure, day, slots)| {
        let date = chrono::DateTime::from_timestamp_millis(i64::from(day) * DAY_MS);
        ReportDay { schedule, day: date.map_or_else(String::new, |date| date.format("%Y-%m-%d").to_string()), unsure, slots }
    });
    Ok(Json(ReportAnswer { days: days.collect() }))
}

fn wall_of(at: &crate::protocol::Instant, boots: &BTreeMap<BootNo, BootRow>) -> Option<i64> {
    at.wall_ms.or_else(|| Some(boots.get(&at.boot)?.offset_ms + at.due_ms as i64))
}

/// The slot nearest to a wall-clock instant, over all boots whose offset is known.
fn nearest(store: &Store, schedule: ScheduleId, at_ms: i64) -> Result<ExplainAnswer, StoreError> {
    let boots = store.boots()?;
    let mut best: Option<(u64, ExplainAnswer)> = None;
    let mut offer = |distance: u64, answer: ExplainAnswer| {
        if best.as_ref().is_none_or(|(d, _)| distance < *d) {
            best = Some((distance, answer));
        }
    };
    for (boot, row) in &boots {
        let Ok(due_ms) = u64::try_from(at_ms - row.offset_ms) else { continue };
        if due_ms > row.last_ms + EXPLAIN_WITHIN_MS {
            continue;
        }
        // Widening windows: the common case reads a handful of rows.
        for window in [5_000, 600_000, 86_400_000, EXPLAIN_WITHIN_MS] {
            let found = store.outcomes(&schedule, *boot, due_ms.saturating_sub(window), due_ms + window)?;
            if let Some((due, outcome)) = found.into_iter().min_by_key(|(due, _)| due.abs_diff(due_ms)) {
                let time_ms = Some(row.offset_ms + due as i64);
                let slot = Some(Slot { schedule: schedule.clone(), boot: *boot, due_ms: due, plan_ms: None });
                offer(
                    due.abs_diff(due_ms),
                    ExplainAnswer { slot, time_ms, outcome: Some(outcome), ..ExplainAnswer::unknown(schedule.clone()) },
                );
                break;
            }
        }
    }
    store.ranges(&schedule, |range| {
        let (Some(from), Some(to)) = (wall_of(&range.from, &boots), wall_of(&range.to, &boots)) else { return true };
        // Two boots' clocks may disagree on which of its ends came first: then it holds no instant.
        let distance = if (from..=to).contains(&at_ms) { 0 } else { at_ms.abs_diff(from).min(at_ms.abs_diff(to)) };
        let outcome = Some(range.outcome.clone());
        let (first, last) = (from.min(to), from.max(to));
        offer(
            // A slot so close to the instant is the one meant, even where a range reaches up to it.
            distance.max(CLOCK_NOISE_MS),
            ExplainAnswer {
                time_ms: Some(at_ms.clamp(first, last)),
                outcome,
                range: Some(range),
                ..ExplainAnswer::unknown(schedule.clone())
            },
        );
        distance != 0
    })?;
    Ok(best.map_or_else(|| ExplainAnswer::unknown(schedule), |(_, answer)| answer))
}
