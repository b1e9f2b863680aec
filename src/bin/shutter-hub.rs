//! Command line of the hub: reads the arguments, starts [`shutterd::hub`], and prints one line per stored picture.

use clap::Parser;
use shutterd::{
    error::{Chain, Exit},
    hub::{Hub, HubError, HubOptions, Target, TlsFiles, accounts::Accounts},
    model::NodeId,
    secret::Secret,
};
use std::{
    io::{BufRead, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tokio::signal::unix::{SignalKind, signal};

/// The central side of shutterd: takes pictures in over MQTT, keeps them safe, shows them on a page.
///
/// Prints the addresses it listens on, then one line for each picture that has become durable.
#[derive(Parser)]
#[command(name = "shutter-hub", version, max_term_width = 100)]
pub struct Args {
    /// Directory for everything the hub keeps; one hub per directory
    #[arg(long, value_name = "DIR", required_unless_present = "hash_password")]
    data: Option<PathBuf>,
    /// Address of the embedded MQTT broker (port 0: any free one). Off loopback it needs --accounts
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1883")]
    mqtt: SocketAddr,
    /// Address of the page. Off loopback it needs --accounts, and asks for one of them
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Use this MQTT 5 broker instead of the embedded one: mqtt://user@host:port, or mqtts:// with --broker-ca
    #[arg(long, value_name = "URL", conflicts_with_all = ["mqtt", "tls_cert"])]
    broker: Option<url::Url>,
    /// File that holds the password for --broker, on its first line
    #[arg(long, value_name = "FILE", requires = "broker")]
    broker_password_file: Option<PathBuf>,
    /// PEM file of the authorities to believe for mqtts://
    #[arg(long, value_name = "FILE", requires = "broker")]
    broker_ca: Option<PathBuf>,
    /// File of the nodes that may connect: lines as --hash-password prints them, readable by its owner only
    #[arg(long, value_name = "FILE")]
    accounts: Option<PathBuf>,
    /// PEM certificate chain: the embedded broker then speaks TLS only
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM private key for --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Read a password from standard input, print NODE's line for the accounts file, and exit
    #[arg(long, value_name = "NODE", exclusive = true)]
    hash_password: Option<NodeId>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    log();
    if let Some(node) = &args.hash_password {
        return hash_password(node).into();
    }
    let options = match options(args) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("shutter-hub: {what}");
            return Exit::Usage.into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("shutter-hub: cannot start: {e}");
            return Exit::Failed.into();
        }
    };
    match runtime.block_on(run(options)) {
        Ok(()) => Exit::Ok.into(),
        Err(e) => {
            eprintln!("shutter-hub: {}", Chain(&e));
            match e {
                HubError::Storage(_) => Exit::Storage.into(),
                e if e.is_usage() => Exit::Usage.into(),
                _ => Exit::Failed.into(),
            }
        }
    }
}

async fn run(options: HubOptions) -> Result<(), HubError> {
    // Before anybody can rely on the hub being up, so that an early signal is not lost.
    let signals = signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    let (mut term, mut int) = signals.map_err(|e| HubError::Broker(format!("no signals: {e}")))?;
    let hub = Hub::start(options).await?;
    match hub.mqtt {
        Some(addr) => say(format_args!("mqtt {addr}")),
        None => say(format_args!("mqtt external")),
    }
    say(format_args!("http {}", hub.http));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    hub.run(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
    .await
}

fn options(args: Args) -> Result<HubOptions, String> {
    let broker = match &args.broker {
        Some(url) => Some(target(url, args.broker_password_file.as_deref(), args.broker_ca)?),
        None => None,
    };
    Ok(HubOptions {
        data: args.data.ok_or("--data DIR is needed")?,
        mqtt: args.mqtt,
        http: args.http,
        broker,
        accounts: args.accounts,
        tls: args.tls_cert.zip(args.tls_key).map(|(cert, key)| TlsFiles { cert, key }),
        with_fsync: with_fsync(),
        report: Box::new(|node, camera, id, bytes| say(format_args!("stored {node} {camera} {id} {bytes} bytes"))),
    })
}

#[cfg(not(feature = "break"))]
fn with_fsync() -> bool {
    true
}
#[cfg(feature = "break")]
fn with_fsync() -> bool {
    std::env::var("SHUTTER_BREAK").as_deref() != Ok("hub_no_fsync")
}

fn target(url: &url::Url, password_file: Option<&Path>, ca_file: Option<PathBuf>) -> Result<Target, String> {
    if url.password().is_some() {
        return Err("a password in --broker can be read by every user of this machine; use --broker-password-file".into());
    }
    let tls = match url.scheme() {
        "mqtt" => false,
        "mqtts" => true,
        other => return Err(format!("--broker: {other}:// is neither mqtt:// nor mqtts://")),
    };
    if tls != ca_file.is_some() {
        return Err("mqtts:// and --broker-ca FILE belong together".into());
    }
    let host = url.host_str().filter(|h| !h.is_empty()).ok_or("--broker names no host")?;
    let password = match password_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            Secret::new(text.lines().next().unwrap_or_default().to_owned())
        }
        None => Secret::new(String::new()),
    };
    let user = (!url.username().is_empty()).then(|| (url.username().to_owned(), password));
    let client_id = format!("shutter-hub-{}", std::process::id());
    Ok(Target { host: host.to_owned(), port: url.port().unwrap_or(if tls { 8883 } else { 1883 }), user, ca_file, client_id })
}

fn hash_password(node: &NodeId) -> Exit {
    let mut password = String::new();
    if std::io::stdin().lock().read_line(&mut password).is_err() || password.trim_end_matches('\n').is_empty() {
        eprintln!("shutter-hub: no password on standard input");
        return Exit::Usage;
    }
    match Accounts::line(node, &Secret::new(password.trim_end_matches('\n').to_owned())) {
        Some(line) => {
            say(format_args!("{line}"));
            Exit::Ok
        }
        None => Exit::Failed,
    }
}

/// A line for scripts. Whoever closed the other end does not stop the hub.
fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn log() {
    use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};
    let ours = Targets::new().with_target("shutterd", tracing::Level::INFO).with_default(tracing::Level::WARN);
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::registry().with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi)).with(ours).init();
}
