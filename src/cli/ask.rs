//! Asking a running agent: HTTP over its unix socket.

use super::trouble::Trouble;
use crate::api::{self, ErrorAnswer};
use crate::config;
use crate::error::{Chain, Exit};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// Where the running agent is to be found.
pub struct At {
    pub config: PathBuf,
    pub socket: Option<PathBuf>,
}

/// What the agent said: a document or a picture with its id.
pub struct Answer {
    pub body: Vec<u8>,
    pub id: Option<String>,
}

impl Answer {
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Trouble> {
        serde_json::from_slice(&self.body)
            .map_err(|e| Trouble::failed(format!("the agent answers what this command cannot read ({e}); are both of one version?")))
    }
}

pub enum NoAnswer {
    /// Nobody listens there.
    Absent(String),
    Trouble(Trouble),
}

fn socket(at: &At) -> PathBuf {
    let configured = || match config::load_or_kept(&at.config, None) {
        Ok(loaded) => loaded.settings.store.runtime_dir,
        Err(_) => PathBuf::from(config::RUNTIME_DIR_DEFAULT),
    };
    at.socket.clone().unwrap_or_else(|| api::socket_path(&configured()))
}

pub fn ask(at: &At, method: &str, path: &str) -> Result<Answer, Trouble> {
    ask_if_running(at, method, path).map_err(|e| match e {
        NoAnswer::Absent(why) => {
            Trouble::new(Exit::Failed, "no_agent", format!("no agent can be reached: {why}; start it with `shutterd run`"))
        }
        NoAnswer::Trouble(trouble) => trouble,
    })
}

pub fn ask_if_running(at: &At, method: &str, path: &str) -> Result<Answer, NoAnswer> {
    let socket = socket(at);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| NoAnswer::Trouble(Trouble::failed(e)))?;
    runtime.block_on(async {
        let stream = tokio::net::UnixStream::connect(&socket).await.map_err(|e| {
            let why = format!("{}: {e}", socket.display());
            match e.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => NoAnswer::Absent(why),
                std::io::ErrorKind::PermissionDenied => {
                    NoAnswer::Trouble(Trouble::failed(format!("{why}; use sudo, or join the group that owns the socket")))
                }
                _ => NoAnswer::Trouble(Trouble::failed(why)),
            }
        })?;
        talk(stream, method, path).await.map_err(NoAnswer::Trouble)
    })
}

async fn talk(stream: tokio::net::UnixStream, method: &str, path: &str) -> Result<Answer, Trouble> {
    let broken = |e: hyper::Error| Trouble::failed(format!("the agent broke off: {}", Chain(&e)));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.map_err(broken)?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::builder().method(method).uri(path).header("host", "shutterd").body(Empty::<Bytes>::new());
    let response = sender.send_request(request.map_err(Trouble::failed)?).await.map_err(broken)?;
    let good = response.status().is_success();
    let id = response.headers().get(api::ID_HEADER).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let body = response.into_body().collect().await.map_err(broken)?.to_bytes().to_vec();
    connection.abort();
    if good {
        return Ok(Answer { body, id });
    }
    match serde_json::from_slice::<ErrorAnswer>(&body) {
        Ok(error) => Err(Trouble::new(Exit::Failed, &error.code, error.message)),
        Err(_) => Err(Trouble::failed(String::from_utf8_lossy(&body))),
    }
}
