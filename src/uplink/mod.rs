//! The agent's side of the hub contract: one task, one MQTT v5 connection, the store as its queue.
//!
//! `context` is what comes in, `link` the connection, `tls` the certificates, `time` what the connection knows of the time, `words` the
//! small messages, `jobs` the work with the store, `retold` what the hub is told again, `waits` how long to wait, `session` the life of one
//! connection; what goes out next is decided by [`crate::outbox`]. Here is the
//! life above connections: connect, wait, connect again.
//!
//! Waits before attempts are random (`waits`), so that a fleet does not call in chorus. A lasting fault is logged when it starts,
//! when its kind changes and when it ends.

mod context;
mod jobs;
mod link;
mod retold;
mod session;
mod time;
mod tls;
mod waits;
mod words;

pub use context::Context;

use crate::model::Session;
use crate::protocol::{NodeState, Topic};
use crate::store::random_u64;
use link::{Link, LinkError, Opening};
use session::{End, Memory, stopped};
use std::{sync::OnceLock, time::Duration};
use time::Time;
use tokio::sync::watch;
use waits::{backoff_ms, first_wait_ms};

/// A connection that lasted this long was a good one, even if the hub was away.
const GOOD_CONNECTION_MS: u64 = 60_000;
/// Certificates are read, a name is looked up and an answer waited for, each within a time-out of its own.
const CONNECT_AT_MOST: Duration = Duration::from_secs(60);
/// An ordered stop tells the hub within this time, or goes without a word.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until `shutdown` becomes true. Whatever is not acknowledged by the hub stays in the store.
pub async fn run(context: Context, mut shutdown: watch::Receiver<bool>) {
    let mut memory = Memory::default();
    let mut failures = 0;
    let mut trouble: Option<LinkError> = None;
    context.status.edit(|now| now.uplink.state = "connecting".into());
    let wait = Duration::from_millis(first_wait_ms(context.clock.boottime_ms(), random_u64()));
    context.status.uplink_waits(Some(wait));
    let mut stop = tokio::time::timeout(wait, stopped(&mut shutdown)).await.is_ok();
    while !stop {
        let began_ms = context.clock.boottime_ms();
        memory.hub_acknowledged = false;
        context.status.uplink_waits(Some(CONNECT_AT_MOST));
        let connected = tokio::select! {
            connected = connect(&context) => connected,
            () = stopped(&mut shutdown) => break,
        };
        let error = match connected {
            Err(error) => error,
            Ok((link, granted, session, time)) => {
                let session = session::Life::new(&context, &mut memory, link, granted, session, time);
                match session.run(&mut shutdown, &mut trouble).await {
                    End::Stopped(link) => {
                        let _ = tokio::time::timeout(STOP_TIMEOUT, link.goodbye()).await;
                        break;
                    }
                    End::Lost(error) => error,
                }
            }
        };
        if trouble.as_ref().is_none_or(|known| known.code != error.code) {
            tracing::warn!(code = error.code, "no link to the hub: {error}");
        } else {
            tracing::debug!(code = error.code, "no link to the hub: {error}");
        }
        context.status.edit(|now| {
            now.uplink.state = "connecting".into();
            now.uplink.session = None;
            now.uplink.error = Some(error.text.clone());
        });
        trouble = Some(error);
        if memory.hub_acknowledged || context.clock.boottime_ms().saturating_sub(began_ms) >= GOOD_CONNECTION_MS {
            failures = 0;
        }
        let wait = Duration::from_millis(backoff_ms(failures, random_u64()));
        failures += 1;
        context.status.uplink_waits(Some(wait));
        stop = tokio::time::timeout(wait, stopped(&mut shutdown)).await.is_ok();
    }
    context.status.uplink_waits(None);
    context.status.edit(|now| {
        now.uplink.state = "off".into();
        now.uplink.session = None;
    });
}

async fn connect(context: &Context) -> Result<(Link, link::Granted, Session, Time), LinkError> {
    let session = Session(random_u64());
    let (tls, certificate) = match &context.hub.tls {
        None => (None, None),
        Some(files) => {
            let judged_at = tls::JudgedAt::from_clock(context.clock.read(), context.last_trusted_ms);
            let made = tls::client_config(files, judged_at).map_err(|e| LinkError::new("tls_files", e.to_string()))?;
            // Until it was accepted, and its date looked at.
            context.status.edit(|now| now.uplink.tls_clock = Some(tls::UNCHECKED.into()));
            (Some(made.0), Some(made.1))
        }
    };
    let opening = Opening {
        client_id: client_id(context),
        will_topic: Topic::State.of(&context.node),
        will: words::state(NodeState::Offline, session, None),
        tls,
    };
    let (link, granted) = Link::open(&context.hub, opening, context.clock.clone()).await?;
    Ok((link, granted, session, Time::new(certificate)))
}

/// The same for all connections of this process: the broker ends a connection it has not yet noticed to be dead. Two boards
/// with one name do not throw each other out, and can be told apart.
fn client_id(context: &Context) -> String {
    static OF_PROCESS: OnceLock<u32> = OnceLock::new();
    format!("{}-{:08x}", context.node, OF_PROCESS.get_or_init(|| random_u64() as u32))
}
