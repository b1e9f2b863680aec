//! `shutterd run`: the process around the agent.

use crate::agent::Agent;
use crate::api;
use crate::capture;
use crate::config::{
    self, Loaded, Origin,
    settings::{Level, Settings},
};
use crate::error::Exit;
use std::{path::Path, time::Duration};

/// A program that still takes a picture when the agent ends has so long to end by itself.
const PROGRAM_END: Duration = Duration::from_secs(1);

pub fn run(config_file: &Path) -> Exit {
    let loaded = match config::load_or_kept(config_file, None) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("{errors}");
            return Exit::Config;
        }
    };
    let Loaded { settings, warnings, origin } = loaded;
    start_log(&settings);
    guard_process();
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    if let Origin::Kept { errors } = &origin {
        tracing::error!("the configuration cannot be used, the last accepted one runs instead:\n{errors}");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            tracing::error!(error = %e, "the runtime cannot start");
            return Exit::Failed;
        }
    };
    let exit = runtime.block_on(async {
        let runtime_dir = settings.store.runtime_dir.clone();
        let (agent, handle) = match Agent::new(config_file, settings, origin) {
            Ok(built) => built,
            Err(e) => {
                tracing::error!(error = %e, "the agent cannot be built");
                return Exit::Failed;
            }
        };
        agent
            .run(move || {
                let opened = std::fs::create_dir_all(&runtime_dir).and_then(|()| api::listen(&runtime_dir));
                match opened {
                    Ok(listener) => {
                        tokio::spawn(api::serve(listener, handle));
                    }
                    // Pictures do not need the socket.
                    Err(e) => tracing::error!(dir = %runtime_dir.display(), error = %e, "no socket: the commands cannot reach this agent"),
                }
            })
            .await
    });
    // A camera thread that hangs in its driver must not hold the exit up.
    runtime.shutdown_background();
    // Nor may the program of one outlive the agent.
    capture::command::end_all(PROGRAM_END);
    tracing::info!(code = exit as u8, "stopped");
    exit
}

fn start_log(settings: &Settings) {
    use tracing_subscriber::{filter::LevelFilter, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};
    let level = match settings.log.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    // Other people's crates log what we cannot vouch for: headers, addresses. Only their warnings, and not retina's, which quote messages.
    let targets = Targets::new().with_default(LevelFilter::ERROR).with_target("shutterd", level).with_target("retina", LevelFilter::OFF);
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal).with_target(false);
    let _ = tracing_subscriber::registry().with(targets).with(lines).try_init();
}

/// What holds for the whole process: no core file that could hold a password, bounded heap arenas, and no half-dead agent
/// after a panic outside of a camera thread.
fn guard_process() {
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "a setting of the C allocator")]
    // SAFETY: sets one number of the allocator before other threads exist.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        let camera = std::thread::current().name().is_some_and(|name| name.starts_with("cam-"));
        if !camera {
            std::process::exit(Exit::Bug as i32);
        }
    }));
}
