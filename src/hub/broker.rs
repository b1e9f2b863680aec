//! The embedded MQTT broker: the crate `mqtt5`, with every queue bounded and every default that is unsafe replaced.
//!
//! Its own TLS listener would wait for ever on a silent socket, so TLS connections are accepted here, with a limit on
//! the handshake, and handed over; the broker's own listener then stays on loopback for the hub's connection.

use crate::hub::accounts::{Accounts, Gate};
use crate::hub::fault::HubError;
use crate::model::{HUB_PACKET_BYTES_MAX, HUB_RECEIVE_MAX};
use crate::secret::Secret;
use mqtt5::broker::{BrokerConfig, MqttBroker, StorageConfig, client_handler::ClientHandler, tls_acceptor::TlsStreamWrapper};
use mqtt5::broker::{server::BrokerShutdownHandle, transport::BrokerTransport};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore, sync::broadcast, task::JoinHandle};

/// A TLS handshake must be over by then.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Handshakes under way at once; further connections wait in the kernel.
const HANDSHAKES_MAX: usize = 64;
const CLIENTS_MAX: usize = 10_000;
const SUBSCRIPTIONS_PER_CLIENT_MAX: usize = 64;
const RETAINED_MAX: usize = 1_000_000;
/// Packets on their way to one client. The default of 10,000 let a slow reader hold 894 MB.
const CHANNEL_MAX: usize = 32;
const QUEUE_BYTES_MAX: usize = 64 << 20;
const SESSION_EXPIRY: Duration = Duration::from_secs(86_400);

pub struct Embedded {
    /// Where nodes connect.
    pub addr: SocketAddr,
    /// Where the hub itself connects, always without TLS.
    pub inner_addr: SocketAddr,
    shutdown: BrokerShutdownHandle,
    stop_tls: broadcast::Sender<()>,
    broker: JoinHandle<()>,
}

pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Starts the broker and returns when it takes connections.
///
/// # Errors
/// An address is taken, the directory cannot be used, or a TLS file is not what it should be.
pub async fn start(
    bind: SocketAddr,
    dir: &Path,
    accounts: Option<Arc<Accounts>>,
    hub_password: Secret,
    tls: Option<&TlsFiles>,
) -> Result<Embedded, HubError> {
    let tls = tls.map(server_config).transpose()?;
    let plain = if tls.is_some() { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) } else { bind };
    let config = BrokerConfig {
        max_clients: CLIENTS_MAX,
        session_expiry_interval: SESSION_EXPIRY,
        max_packet_size: HUB_PACKET_BYTES_MAX,
        maximum_qos: 1,
        shared_subscription_available: false,
        max_subscriptions_per_client: SUBSCRIPTIONS_PER_CLIENT_MAX,
        max_retained_messages: RETAINED_MAX,
        max_retained_message_size: HUB_PACKET_BYTES_MAX,
        client_channel_capacity: CHANNEL_MAX,
        server_receive_maximum: Some(HUB_RECEIVE_MAX),
        sys_topics_enabled: false,
        storage_config: StorageConfig::new().with_base_dir(dir.to_owned()).with_max_queued_bytes_per_client(QUEUE_BYTES_MAX),
        ..BrokerConfig::default().with_bind_address(plain)
    };
    let failed = |e: mqtt5::MqttError| HubError::Broker(e.to_string());
    let gate = Arc::new(Gate { accounts, hub_password });
    let mut broker = MqttBroker::with_config(config.clone()).await.map_err(failed)?.with_auth_provider(gate);
    let bound = broker.local_addr().ok_or_else(|| HubError::Broker("no listener".into()))?;
    let inner_addr = match bound {
        SocketAddr::V4(a) if a.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, a.port()).into(),
        SocketAddr::V6(a) if a.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, a.port()).into(),
        other => other,
    };
    let (stop_tls, _) = broadcast::channel(1);
    let mut addr = bound;
    if let Some(tls) = tls {
        let listener = TcpListener::bind(bind).await.map_err(|source| HubError::Bind { what: "MQTT", addr: bind, source })?;
        addr = listener.local_addr().map_err(|source| HubError::Bind { what: "MQTT", addr: bind, source })?;
        tokio::spawn(accept_tls(listener, tls, Handover::new(&broker, config, stop_tls.clone())));
    }
    let shutdown = broker.shutdown_handle();
    let mut ready = broker.ready_receiver();
    let running = tokio::spawn(async move {
        if let Err(e) = broker.run().await {
            tracing::error!("the broker stopped: {e}");
        }
    });
    ready.wait_for(|ready| *ready).await.map_err(|_| HubError::Broker("it stopped while starting; see the log".into()))?;
    Ok(Embedded { addr, inner_addr, shutdown, stop_tls, broker: running })
}

impl Embedded {
    /// Ends all connections and writes down what is retained.
    pub async fn stop(self, limit: Duration) {
        let _ = self.stop_tls.send(());
        self.shutdown.shutdown();
        if tokio::time::timeout(limit, self.broker).await.is_err() {
            tracing::warn!("the broker did not stop within {limit:?}");
        }
    }
}

fn server_config(files: &TlsFiles) -> Result<Arc<rustls::ServerConfig>, HubError> {
    let wrong = |path: &Path, what: String| HubError::Tls { path: path.into(), what };
    let chain = CertificateDer::pem_file_iter(&files.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|e| wrong(&files.cert, e.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| wrong(&files.key, e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(|e| wrong(&files.cert, e.to_string()))?.with_no_client_auth().with_single_cert(chain, key);
    Ok(Arc::new(config.map_err(|e| wrong(&files.cert, e.to_string()))?))
}

/// All that the broker's own accept loop would give to a connection.
#[derive(Clone)]
struct Handover {
    config: Arc<BrokerConfig>,
    router: Arc<mqtt5::broker::router::MessageRouter>,
    auth: Arc<dyn mqtt5::broker::AuthProvider>,
    storage: Option<Arc<mqtt5::broker::DynamicStorage>>,
    stats: Arc<mqtt5::broker::sys_topics::BrokerStats>,
    resources: Arc<mqtt5::broker::ResourceMonitor>,
    stop: broadcast::Sender<()>,
}

impl Handover {
    fn new(broker: &MqttBroker, config: BrokerConfig, stop: broadcast::Sender<()>) -> Self {
        Self {
            config: Arc::new(config),
            router: broker.router(),
            auth: broker.auth_provider(),
            storage: broker.storage(),
            stats: broker.stats(),
            resources: broker.resource_monitor(),
            stop,
        }
    }

    async fn serve(self, stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>, peer: SocketAddr) {
        let transport = BrokerTransport::tls(TlsStreamWrapper::new(stream));
        let stop = self.stop.subscribe();
        let handler =
            ClientHandler::new(transport, peer, self.config, self.router, self.auth, self.storage, self.stats, self.resources, stop);
        if let Err(e) = handler.run().await {
            tracing::debug!(%peer, "connection ended: {e}");
        }
    }
}

async fn accept_tls(listener: TcpListener, tls: Arc<rustls::ServerConfig>, handover: Handover) {
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut stop = handover.stop.subscribe();
    loop {
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Out of descriptors, as a rule: trying again at once would spin.
                    tracing::warn!("cannot accept a connection: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            _ = stop.recv() => return,
        };
        if !handover.resources.can_accept_connection(peer.ip()).await {
            continue;
        }
        let (acceptor, handover) = (acceptor.clone(), handover.clone());
        tokio::spawn(async move {
            // Acks are small and must not wait for more of them.
            let _ = stream.set_nodelay(true);
            let shaken = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await;
            drop(permit);
            match shaken {
                Ok(Ok(stream)) => handover.serve(stream, peer).await,
                Ok(Err(e)) => tracing::info!(%peer, "TLS handshake failed: {e}"),
                Err(_) => tracing::info!(%peer, "TLS handshake took longer than {HANDSHAKE_MAX:?}"),
            }
        });
    }
}
