//! Why a hub cannot start or must end, in words that say what to do.

use super::objects::StorageFault;
use std::{net::SocketAddr, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("the data directory {path} is in use by another shutter-hub{pid}")]
    InUse { path: PathBuf, pid: String },
    #[error("{what} would listen on {addr}, where others can reach it: give --accounts FILE, or listen on 127.0.0.1")]
    Exposed { what: &'static str, addr: SocketAddr },
    #[error("accounts file {path}: {what}")]
    Accounts { path: PathBuf, what: String },
    #[error("TLS file {path}: {what}")]
    Tls { path: PathBuf, what: String },
    #[error("{what} cannot listen on {addr}")]
    Bind { what: &'static str, addr: SocketAddr, source: std::io::Error },
    #[error("the embedded broker: {0}")]
    Broker(String),
    #[error(transparent)]
    Storage(#[from] StorageFault),
}

impl HubError {
    /// A mistake in what was asked for, rather than in the world.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Exposed { .. } | Self::Accounts { .. } | Self::Tls { .. })
    }
}
