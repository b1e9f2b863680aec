//! Who may use the embedded broker, and for what.
//!
//! An account is a node. It may publish below its own topic root, read there and the hub's presence, and connect only
//! under client ids that begin with its name: a broker lets anybody with a valid password take over any client id
//! otherwise. The last will is judged like a publish, because the broker itself does not. Without an accounts file
//! everybody on this machine may do everything, so the listeners then stay on loopback.

use crate::hub::fault::HubError;
use crate::model::NodeId;
use crate::protocol::{HUB_TOPIC, PREFIX};
use crate::secret::Secret;
use mqtt5::broker::auth::{AuthProvider, AuthResult, PasswordAuthProvider};
use mqtt5::{packet::connect::ConnectPacket, protocol::v5::reason_codes::ReasonCode};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
};
use tokio::sync::Semaphore;

/// User name of the hub's own connection; not a node id, so no account can have it.
pub const HUB_USER: &str = "$hub";
/// Password checks that run at once: each takes 19 MiB and some 20 ms on purpose.
const CHECKS_MAX: usize = 2;

pub struct Accounts {
    hashes: HashMap<NodeId, String>,
    /// Salted digests of passwords that were right before: a page refresh must not cost a slow hash each time.
    known: Mutex<HashMap<NodeId, [u8; 32]>>,
    salt: [u8; 8],
    checks: Semaphore,
}

impl Accounts {
    /// Reads lines of `node:hash`, as `shutter-hub --hash-password` prints them.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or a line is neither a comment nor an account.
    pub fn read(path: &Path) -> Result<Self, HubError> {
        let wrong = |what: String| HubError::Accounts { path: path.into(), what };
        let mode = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(wrong(format!("others may read it (mode {:03o}); run chmod 600 on it", mode & 0o777)));
        }
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let mut hashes = HashMap::new();
        for (no, line) in text.lines().enumerate().map(|(i, l)| (i + 1, l.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (node, hash) = line.split_once(':').ok_or_else(|| wrong(format!("line {no} is not node:hash")))?;
            let node: NodeId = node.parse().map_err(|e| wrong(format!("line {no}: {e}")))?;
            // The line may hold a plain password, so it is never shown.
            if !hash.starts_with("$argon2") {
                return Err(wrong(format!("line {no} holds no password hash; make one with shutter-hub --hash-password {node}")));
            }
            hashes.insert(node, hash.to_owned());
        }
        if hashes.is_empty() {
            return Err(wrong("it holds no account".into()));
        }
        let salt = crate::hub::random().to_ne_bytes();
        Ok(Self { hashes, known: Mutex::default(), salt, checks: Semaphore::new(CHECKS_MAX) })
    }

    /// A line for the accounts file.
    pub fn line(node: &NodeId, password: &Secret) -> Option<String> {
        PasswordAuthProvider::hash_password(password.expose()).ok().map(|hash| format!("{node}:{hash}"))
    }

    /// Whether this is the account's password.
    pub async fn check(&self, user: &str, password: &[u8]) -> bool {
        let Ok(node) = user.parse::<NodeId>() else { return false };
        let Some(hash) = self.hashes.get(&node).cloned() else { return false };
        let digest: [u8; 32] = Sha256::new().chain_update(self.salt).chain_update(password).finalize().into();
        let known = || self.known.lock().unwrap_or_else(|e| e.into_inner());
        if known().get(&node) == Some(&digest) {
            return true;
        }
        let Ok(_permit) = self.checks.acquire().await else { return false };
        let Ok(password) = std::str::from_utf8(password).map(str::to_owned) else { return false };
        let right = tokio::task::spawn_blocking(move || PasswordAuthProvider::verify_password(&password, &hash)).await;
        let right = right.unwrap_or(false);
        if right {
            known().insert(node, digest);
        }
        right
    }
}

/// The rules of this file, as the broker asks for them.
pub struct Gate {
    pub accounts: Option<Arc<Accounts>>,
    pub hub_password: Secret,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Gate {
    async fn admit(&self, connect: &ConnectPacket) -> AuthResult {
        let user = connect.username.as_deref();
        let password = connect.password.as_deref().unwrap_or_default();
        let is_hub = user == Some(HUB_USER);
        if is_hub != connect.client_id.starts_with(HUB_USER) {
            return AuthResult::fail(ReasonCode::ClientIdentifierNotValid);
        }
        if is_hub {
            let digest = |bytes: &[u8]| Sha256::digest(bytes);
            let right = digest(password) == digest(self.hub_password.expose().as_bytes());
            return if right { AuthResult::success_with_user(HUB_USER) } else { AuthResult::fail(ReasonCode::BadUsernameOrPassword) };
        }
        let Some(accounts) = &self.accounts else { return AuthResult::success() };
        let Some(user) = user else { return AuthResult::fail(ReasonCode::BadUsernameOrPassword) };
        if !accounts.check(user, password).await {
            tracing::warn!(user = %user.escape_debug(), "wrong user name or password");
            return AuthResult::fail(ReasonCode::BadUsernameOrPassword);
        }
        let own_id = connect.client_id.strip_prefix(user).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        // "n1-x" is also how node n1-x names itself, if there is such an account.
        let foreign = connect.client_id != user && connect.client_id.parse().is_ok_and(|id: NodeId| accounts.hashes.contains_key(&id));
        if !own_id || foreign {
            tracing::warn!(user, "a client id that is not this account's");
            return AuthResult::fail(ReasonCode::ClientIdentifierNotValid);
        }
        if connect.will.as_ref().is_some_and(|will| !may_publish(user, &will.topic)) {
            tracing::warn!(user, "a last will outside of the account's topics");
            return AuthResult::fail(ReasonCode::NotAuthorized);
        }
        AuthResult::success_with_user(user)
    }

    /// `None`: nobody is named, because no accounts are configured.
    fn allows(&self, user: Option<&str>, allowed: impl Fn(&str) -> bool) -> bool {
        match user {
            Some(HUB_USER) => true,
            Some(user) => allowed(user),
            None => self.accounts.is_none(),
        }
    }
}

fn may_publish(user: &str, topic: &str) -> bool {
    topic.strip_prefix(PREFIX).and_then(|t| t.strip_prefix('/')).and_then(|t| t.strip_prefix(user)).is_some_and(|t| t.starts_with('/'))
}

impl AuthProvider for Gate {
    fn authenticate<'a>(&'a self, connect: &'a ConnectPacket, _: SocketAddr) -> Answer<'a, mqtt5::Result<AuthResult>> {
        Box::pin(async move { Ok(self.admit(connect).await) })
    }
    fn authorize_publish<'a>(&'a self, _: &str, user: Option<&'a str>, topic: &'a str) -> Answer<'a, bool> {
        Box::pin(async move { self.allows(user, |user| may_publish(user, topic)) })
    }
    fn authorize_subscribe<'a>(&'a self, _: &str, user: Option<&'a str>, filter: &'a str) -> Answer<'a, bool> {
        Box::pin(async move { self.allows(user, |user| filter == HUB_TOPIC || may_publish(user, filter)) })
    }
}
