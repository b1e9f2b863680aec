//! The command line. `run` is the agent; all others ask a running agent over its socket, or need none.
//!
//! Times are shown in the local zone with its offset. A time that no trusted clock vouches for is marked with `≈`, or given
//! as seconds since a boot. With `--json`, standard output is one JSON document and nothing else.

mod ask;
mod fsck;
mod owner;
mod run;
mod trouble;
mod words;

use crate::agent;
use crate::api::{EraseAnswer, ErrorAnswer, ExplainAnswer, ListAnswer, PinAnswer, ReportAnswer, StatusAnswer};
use crate::camera;
use crate::capture::v4l2::list;
use crate::clock::{Clock, Reading, SystemClock};
use crate::config::{self, text};
use crate::error::Exit;
use crate::model::{CameraId, ScheduleId, SnapshotId};
use crate::schedule::When;
use ask::{NoAnswer, ask, ask_if_running};
use clap::{CommandFactory, Parser, Subcommand};
use serde::Serialize;
use std::{
    fmt::Write as _,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};
use trouble::Trouble;
use words::{device_in_words, erasure_in_words, explain_in_words, list_in_words, parse_time, print, report_in_words, say, status_in_words};

const CONFIG_DEFAULT: &str = "/etc/shutterd/shutterd.toml";

/// Camera agent for edge boards: every planned picture is on the hub, or there is a reason on record.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    /// Configuration file.
    #[arg(short, long, global = true, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    config: PathBuf,
    /// Socket of the running agent; by default where the configuration says.
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Do,
}

#[derive(Subcommand)]
enum Do {
    /// Run the agent until it is told to stop (SIGTERM); SIGHUP reads the configuration anew
    Run,
    /// Say what a configuration file means, or all that is wrong with it
    Check {
        /// The file; by default the one of --config.
        file: Option<PathBuf>,
    },
    /// List the cameras of the configuration, and the V4L2 devices this machine sees
    Cameras,
    /// Take a picture now: stored and copied by the running agent; without one, only written to FILE
    Snap {
        camera: CameraId,
        /// Where to write the JPEG; `-` is standard output.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// List stored pictures, newest first
    Ls {
        #[arg(long)]
        camera: Option<CameraId>,
        #[arg(long)]
        schedule: Option<ScheduleId>,
        /// Not earlier than this: `12:05`, `2026-11-22 12:05`, `2026-11-22T12:05:00Z`.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        since: Option<i64>,
        /// Not later than this.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        until: Option<i64>,
        /// Only pictures older than this one (the cursor that the previous page ended with).
        #[arg(long, value_name = "ID")]
        before: Option<SnapshotId>,
        /// Rows, at most 1000.
        #[arg(short = 'n', long, default_value_t = 50)]
        limit: usize,
    },
    /// Copy a stored picture
    Get {
        id: SnapshotId,
        /// Where to write the JPEG; `-` is standard output.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Keep a picture whatever the rules of [keep] say; only `erase` removes it then
    Pin { id: SnapshotId },
    /// Let the rules have a pinned picture again
    Unpin { id: SnapshotId },
    /// Remove all pictures of a camera from this node for good, pinned ones and those the hub has not got too
    Erase {
        camera: CameraId,
        /// Really do it; without, say what would go.
        #[arg(long)]
        yes: bool,
    },
    /// Hold the stored pictures and their index against all that they promise, while no agent runs; only --rebuild changes anything
    Fsck {
        /// Make a fresh index from the pictures: for one that is damaged. Asks first, or wants --yes.
        #[arg(long)]
        rebuild: bool,
        /// Do not ask.
        #[arg(long, requires = "rebuild")]
        yes: bool,
    },
    /// Show what runs, what waits for the hub and what is wrong
    Status,
    /// How complete the pictures are: planned, captured, and each reason why not
    Report {
        /// From the (UTC) day of this time on, such as 2026-11-22 or "2026-11-22 12:05"; else all that is on record.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        since: Option<i64>,
    },
    /// Tell what became of the slot of a schedule nearest to a time
    Explain {
        schedule: ScheduleId,
        /// `12:05`, `2026-11-22 12:05`, `2026-11-22T12:05:00Z`
        #[arg(value_parser = parse_time)]
        time: i64,
    },
}

/// The command line as such, for its man page and shell completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Where the running agent is to be found.
fn at(cli: &Cli) -> ask::At {
    ask::At { config: cli.config.clone(), socket: cli.socket.clone() }
}

/// Runs the command line and returns the process's exit code.
pub fn main() -> Exit {
    let cli = Cli::parse();
    let json = cli.json;
    let at = at(&cli);
    let done = match &cli.command {
        Do::Run => return run::run(&cli.config),
        Do::Check { file } => check(file.as_deref().unwrap_or(&cli.config), json),
        Do::Cameras => cameras(&cli.config, json),
        Do::Snap { camera, output } => snap(&cli, camera, output),
        Do::Ls { camera, schedule, since, until, before, limit } => {
            let mut query = format!("/snapshots?limit={limit}");
            let pairs = [
                ("camera", camera.as_ref().map(ToString::to_string)),
                ("schedule", schedule.as_ref().map(ToString::to_string)),
                ("since", since.map(|t| t.to_string())),
                ("until", until.map(|t| t.to_string())),
                ("before", before.map(|id| id.to_string())),
            ];
            for (name, value) in pairs {
                if let Some(value) = value {
                    let _ = write!(query, "&{name}={value}");
                }
            }
            ask(&at, "GET", &query).and_then(|answer| print(&answer.json::<ListAnswer>()?, json, list_in_words))
        }
        Do::Get { id, output } => ask(&at, "GET", &format!("/snapshots/{id}")).and_then(|answer| write_file(output, &answer.body)),
        Do::Pin { id } => {
            ask(&at, "POST", &format!("/snapshots/{id}/pin")).and_then(|answer| print(&answer.json::<PinAnswer>()?, json, pinned))
        }
        Do::Unpin { id } => {
            ask(&at, "DELETE", &format!("/snapshots/{id}/pin")).and_then(|answer| print(&answer.json::<PinAnswer>()?, json, pinned))
        }
        Do::Erase { camera, yes } => erase(&at, camera, *yes, json),
        Do::Fsck { rebuild, yes } => fsck::fsck(&cli.config, *rebuild, *yes, json),
        Do::Status => ask(&at, "GET", "/status").and_then(|answer| print(&answer.json::<StatusAnswer>()?, json, status_in_words)),
        Do::Report { since } => ask(&at, "GET", &since.map_or_else(|| "/report".to_owned(), |ms| format!("/report?since={ms}")))
            .and_then(|answer| print(&answer.json::<ReportAnswer>()?, json, report_in_words)),
        Do::Explain { schedule, time } => ask(&at, "GET", &format!("/explain?schedule={schedule}&at={time}"))
            .and_then(|answer| print(&answer.json::<ExplainAnswer>()?, json, explain_in_words)),
    };
    match done {
        Ok(()) => Exit::Ok,
        Err(trouble) => {
            if json {
                let error = ErrorAnswer { code: trouble.code, message: trouble.message };
                let _ = writeln!(std::io::stdout(), "{}", serde_json::to_string(&error).unwrap_or_default());
            } else {
                let _ = writeln!(std::io::stderr(), "shutterd: {}", trouble.message);
            }
            trouble.exit
        }
    }
}

fn check(file: &Path, json: bool) -> Result<(), Trouble> {
    #[derive(Serialize)]
    struct Checked {
        ok: bool,
        errors: Vec<String>,
        warnings: Vec<String>,
        means: Vec<String>,
    }
    let lines = |findings: &[config::Finding]| findings.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (checked, exit) = match config::load(file) {
        Ok((settings, warnings)) => {
            let now = SystemClock.read();
            let means = text::in_words(&settings, now.quality, &|schedule| next_due(schedule, &now));
            (Checked { ok: true, errors: vec![], warnings: lines(&warnings), means: means.lines().map(str::to_owned).collect() }, None)
        }
        Err(errors) => {
            let count = errors.0.len();
            let message = format!("{}: {count} error{}; nothing was changed", file.display(), if count == 1 { "" } else { "s" });
            let checked = Checked { ok: false, errors: lines(&errors.0), warnings: vec![], means: vec![] };
            (checked, Some(Trouble::new(Exit::Config, "config", message)))
        }
    };
    if json {
        print(&checked, true, |_| String::new())?;
        return exit.map_or(Ok(()), |trouble| std::process::exit(trouble.exit as i32));
    }
    for line in checked.errors.iter().chain(&checked.warnings) {
        eprintln!("{line}");
    }
    for line in &checked.means {
        say(line);
    }
    exit.map_or(Ok(()), Err)
}

fn next_due(schedule: &config::settings::Schedule, now: &Reading) -> Vec<text::Due> {
    let slots = agent::next_slots(schedule, now);
    // A calendar goes by the clock there is.
    let guess_ms = |due_ms: u64| Some(due_ms as i64 + now.offset_ms()).filter(|_| matches!(schedule.rule.when, When::Calendar(_)));
    slots.into_iter().map(|due| text::Due { boottime_ms: due.due_ms, wall_ms: due.plan_ms.or_else(|| guess_ms(due.due_ms)) }).collect()
}

fn cameras(config_file: &Path, json: bool) -> Result<(), Trouble> {
    #[derive(Serialize)]
    struct Seen {
        configured: Vec<Configured>,
        config_error: Option<String>,
        v4l2: Vec<list::DeviceInfo>,
    }
    #[derive(Serialize)]
    struct Configured {
        id: String,
        source: String,
    }
    let (configured, config_error) = match config::load(config_file) {
        Ok((settings, _)) => {
            let one = |c: &config::settings::Camera| Configured { id: c.id.to_string(), source: c.source.to_string() };
            (settings.cameras.iter().map(one).collect(), None)
        }
        Err(errors) => (vec![], Some(errors.to_string())),
    };
    print(&Seen { configured, config_error, v4l2: list::list() }, json, |seen| {
        let mut out = String::new();
        match &seen.config_error {
            Some(error) => _ = writeln!(out, "the configuration cannot be read:\n{error}"),
            None if seen.configured.is_empty() => _ = writeln!(out, "no cameras are configured in {}", config_file.display()),
            None => {
                for camera in &seen.configured {
                    let _ = writeln!(out, "{:<16} {}", camera.id, camera.source);
                }
            }
        }
        if seen.v4l2.is_empty() {
            let _ = writeln!(out, "no V4L2 devices on this machine");
        }
        for device in &seen.v4l2 {
            let _ = writeln!(out, "{}", device_in_words(device));
        }
        out
    })
}

fn snap(cli: &Cli, camera: &CameraId, output: &Path) -> Result<(), Trouble> {
    match ask_if_running(&at(cli), "POST", &format!("/cameras/{camera}/snap")) {
        Ok(answer) => {
            write_file(output, &answer.body)?;
            let id = answer.id.unwrap_or_default();
            report_snap(cli, output, answer.body.len(), Some(&id));
            Ok(())
        }
        Err(NoAnswer::Trouble(trouble)) => Err(trouble),
        Err(NoAnswer::Absent(_)) => {
            let (settings, _) = config::load(&cli.config).map_err(|e| Trouble::new(Exit::Config, "config", e))?;
            let wanted = settings.cameras.into_iter().find(|c| c.id == *camera);
            let wanted = wanted.ok_or_else(|| {
                Trouble::new(Exit::Failed, "unknown_camera", format!("there is no camera {camera} in {}", cli.config.display()))
            })?;
            // Opened with the rights of who asks; the camera's bytes are decoded with fewer.
            let mut file = open_file(output)?;
            if settings.store.dir.exists() {
                owner::become_owner(&settings.store.dir)?;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Trouble::failed)?;
            let handle = runtime.handle().clone();
            let taken = runtime.block_on(async { tokio::task::spawn_blocking(move || camera::take_once(&wanted, handle)).await });
            let jpeg = taken.map_err(Trouble::failed)?.map_err(|e| Trouble::new(Exit::Failed, &e.code, e.detail))?;
            write_to(output, &mut file, &jpeg)?;
            report_snap(cli, output, jpeg.len(), None);
            Ok(())
        }
    }
}

fn pinned(answer: &PinAnswer) -> String {
    format!("{} is {}", answer.id, if answer.pinned { "pinned" } else { "not pinned" })
}

/// How often the progress of an erasure is asked for.
const ERASE_LOOK: Duration = Duration::from_millis(500);

fn erase(at: &ask::At, camera: &CameraId, yes: bool, json: bool) -> Result<(), Trouble> {
    let path = format!("/cameras/{camera}/erase");
    let mut now: EraseAnswer = ask(at, if yes { "POST" } else { "GET" }, &path)?.json()?;
    if !yes {
        let what =
            format!("this removes all pictures of camera {camera} from this node for good, pinned ones and those the hub has not got too");
        let message =
            format!("{what}; it has {} now; say --yes to do it. Its schedules go on, and what the hub has stays there", now.stored);
        return Err(Trouble::new(Exit::Usage, "not_confirmed", message));
    }
    while now.erasure.is_some_and(|erasure| !erasure.done) {
        if !json {
            say(&erasure_in_words(&now));
        }
        std::thread::sleep(ERASE_LOOK);
        now = ask(at, "GET", &path)?.json()?;
    }
    print(&now, json, erasure_in_words)
}

fn report_snap(cli: &Cli, output: &Path, bytes: usize, id: Option<&str>) {
    if output == Path::new("-") {
        return;
    }
    if cli.json {
        say(&serde_json::json!({ "file": output, "bytes": bytes, "id": id }).to_string());
    } else {
        match id {
            Some(id) => say(&format!("{}: {bytes} bytes, stored as {id}", output.display())),
            None => say(&format!("{}: {bytes} bytes; no agent runs, so the picture is only in this file", output.display())),
        }
    }
}

fn write_file(output: &Path, bytes: &[u8]) -> Result<(), Trouble> {
    write_to(output, &mut open_file(output)?, bytes)
}

/// `None` for standard output. What is in the file stays there until there is something better.
fn open_file(output: &Path) -> Result<Option<File>, Trouble> {
    if output == Path::new("-") {
        return Ok(None);
    }
    let file = File::options().write(true).create(true).truncate(false).open(output);
    file.map(Some).map_err(|e| cannot_write(output, &e))
}

fn write_to(output: &Path, file: &mut Option<File>, bytes: &[u8]) -> Result<(), Trouble> {
    let written = match file {
        None => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
        // A device or a pipe has no length to set.
        Some(file) => {
            file.write_all(bytes).and_then(|()| if file.metadata()?.is_file() { file.set_len(bytes.len() as u64) } else { Ok(()) })
        }
    };
    written.map_err(|e| cannot_write(output, &e))
}

fn cannot_write(output: &Path, e: &std::io::Error) -> Trouble {
    Trouble::failed(format!("cannot write {}: {e}", output.display()))
}
