//! The hub's one MQTT connection, to its own broker or to an external one; made anew for ever, with back-off.
//!
//! What arrives is bounded twice: the broker may have only [`HUB_RECEIVE_MAX`] messages unacknowledged, and they are
//! acknowledged by whoever has dealt with them. Each connection has a client of its own, so that an acknowledgement
//! meant for an earlier one goes nowhere. Sessions are not kept: nodes send again what the hub has not called safe.

use crate::hub::fault::HubError;
use crate::hub::intake::now_ms;
use crate::model::{HUB_PACKET_BYTES_MAX, HUB_QUEUE_MAX, HUB_RECEIVE_MAX, Session, WINDOW_MAX};
use crate::protocol::{HUB_TOPIC, HubPresence, PREFIX, VERSION};
use crate::secret::Secret;
use rumqttc::v5::mqttbytes::{QoS, v5::Filter, v5::LastWill, v5::Packet, v5::Publish};
use rumqttc::v5::{AsyncClient, ConnectionError, Event as Packets, EventLoop, MqttOptions};
use rumqttc::{Outgoing, TlsConfiguration, Transport};
use std::{path::PathBuf, time::Duration};
use tokio::sync::mpsc;

const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The client pings within each keep-alive; silence for longer is a dead link that blocks even its own time-outs.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Where the broker is.
pub struct Target {
    pub host: String,
    pub port: u16,
    pub user: Option<(String, Secret)>,
    /// PEM file of the authorities to believe; `None`: no TLS. Read anew at each connect.
    pub ca_file: Option<PathBuf>,
    pub client_id: String,
}

pub enum Event {
    /// Connected and subscribed.
    Up(AsyncClient),
    /// A message; whoever has dealt with it acknowledges it with this client.
    Message(Box<Publish>, AsyncClient),
    Down,
}

/// Runs until the hub has disconnected in order, or the receiver is gone.
pub async fn run(target: Target, worker: Session, events: mpsc::Sender<Event>) {
    let mut backoff = BACKOFF_MIN;
    // A lasting fault is told once, not at each attempt.
    let mut told = String::new();
    loop {
        let error = match options(&target, worker) {
            Ok(options) => {
                let (client, packets) = AsyncClient::new(options, HUB_QUEUE_MAX);
                let (up, ended) = serve(client, packets, &events).await;
                if up {
                    backoff = BACKOFF_MIN;
                    told.clear();
                }
                ended
            }
            Err(e) => Ended::Lost(e.to_string()),
        };
        let Ended::Lost(reason) = error else { return };
        if events.send(Event::Down).await.is_err() {
            return;
        }
        if told != reason {
            tracing::warn!(host = target.host, port = target.port, "no link to the broker: {reason}");
            told = reason;
        }
        tokio::time::sleep(backoff.mul_f64(0.5 + (crate::hub::random() % 1_000) as f64 / 1_000.0)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

enum Ended {
    Lost(String),
    InOrder,
}

/// One connection. Returns whether it came up, and why it ended.
async fn serve(client: AsyncClient, mut packets: EventLoop, events: &mpsc::Sender<Event>) -> (bool, Ended) {
    let (mut up, mut leaving) = (false, false);
    loop {
        let packet = match tokio::time::timeout(SILENCE_MAX, packets.poll()).await {
            Ok(Ok(packet)) => packet,
            // The broker hangs up once it has read the good-bye, and so everything before it.
            Ok(Err(_)) | Err(_) if leaving => return (up, Ended::InOrder),
            Ok(Err(e)) => return (up, Ended::Lost(reason(&e))),
            Err(_) => return (up, Ended::Lost(format!("silent for {SILENCE_MAX:?}"))),
        };
        let event = match packet {
            Packets::Incoming(Packet::ConnAck(_)) => {
                let filter = Filter { nolocal: true, ..Filter::new(format!("{PREFIX}/+/#"), QoS::AtLeastOnce) };
                if client.try_subscribe_many([filter]).is_err() {
                    return (up, Ended::Lost("cannot subscribe".into()));
                }
                continue;
            }
            Packets::Incoming(Packet::SubAck(ack)) => {
                if ack.return_codes.iter().any(|code| format!("{code:?}") != "Success(AtLeastOnce)") {
                    return (up, Ended::Lost(format!("the broker does not let the hub read {PREFIX}/+/#: {:?}", ack.return_codes)));
                }
                up = true;
                Event::Up(client.clone())
            }
            Packets::Incoming(Packet::Publish(publish)) => {
                // The contract is QoS 1, which the broker holds back for us; anything else must not fill the queue.
                if publish.qos == QoS::AtMostOnce && events.capacity() < HUB_QUEUE_MAX / 2 {
                    continue;
                }
                Event::Message(Box::new(publish), client.clone())
            }
            Packets::Incoming(Packet::Disconnect(d)) => return (up, Ended::Lost(format!("the broker said {:?}", d.reason_code))),
            Packets::Outgoing(Outgoing::Disconnect) => {
                leaving = true;
                continue;
            }
            _ => continue,
        };
        match events.try_send(event) {
            Ok(()) => {}
            Err(_) if leaving => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return (up, Ended::Lost(format!("the broker sends more than the {HUB_RECEIVE_MAX} messages it may")));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return (up, Ended::InOrder),
        }
    }
}

fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => format!("refused ({code:?}); check user and password, and that it speaks MQTT 5"),
        other => crate::error::Chain(other).to_string(),
    }
}

fn options(target: &Target, worker: Session) -> Result<MqttOptions, HubError> {
    let mut options = MqttOptions::new(&target.client_id, &target.host, target.port);
    options.set_keep_alive(KEEP_ALIVE).set_clean_start(true).set_manual_acks(true);
    options.set_receive_maximum(Some(HUB_RECEIVE_MAX)).set_max_packet_size(Some(HUB_PACKET_BYTES_MAX as u32));
    options.set_outgoing_inflight_upper_limit(WINDOW_MAX * 8);
    options.set_last_will(LastWill::new(HUB_TOPIC, presence(worker, false), QoS::AtLeastOnce, true, None));
    if let Some((user, password)) = &target.user {
        options.set_credentials(user, password.expose());
    }
    if let Some(path) = &target.ca_file {
        let ca = std::fs::read(path).map_err(|e| HubError::Tls { path: path.clone(), what: e.to_string() })?;
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Simple { ca, alpn: None, client_auth: None }));
    }
    Ok(options)
}

/// The payload of [`HUB_TOPIC`].
pub fn presence(worker: Session, online: bool) -> Vec<u8> {
    let said = HubPresence { v: VERSION, online, time_ms: Some(now_ms()), worker };
    serde_json::to_vec(&said).unwrap_or_default()
}
