//! One MQTT connection, and everything that is peculiar about the client library beneath it.
//!
//! - Its `poll()` must not be cancelled, so a task of its own drives it and forwards events through a bounded channel.
//! - It has no limit of its own for a flush: a link that swallows bytes would block it, keep-alive included, for ever. So silence
//!   of the whole loop ends the connection ([`SILENCE_MIN`]).
//! - `publish()` returns when a packet is queued. Which packet a PUBACK belongs to is known by order: packets get their number
//!   in the order in which they were queued.
//! - A new event loop per connection: nothing of an old session is sent again behind the outbox's back.

use crate::clock::Clock;
use crate::config::settings::Hub;
use crate::model::{GAP_BYTES_MAX, INCOMING_BYTES_MAX, PACKET_OVERHEAD_BYTES, UPLINK_EVENTS_MAX, WINDOW_MAX};
use crate::outbox::Token;
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, ConnectReturnCode, Filter, LastWill, Packet, PubAckReason, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport};
use std::collections::{BTreeMap, VecDeque};
use std::{io, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Time for name, TCP, TLS and MQTT login together, and again for the subscriptions.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// No event for this long, or for twice the keep-alive time, means that the link is dead.
pub const SILENCE_MIN: Duration = Duration::from_secs(20);
/// The client library does not take less.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(5);
/// Acks the broker may have under way to us.
const RECEIVE_MAX: u16 = 32;

/// Why there is no link. The text says what happened and what to do; it never holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct LinkError {
    /// Stable: a new code is news, the same code again is not.
    pub code: &'static str,
    pub text: String,
}

impl LinkError {
    pub fn new(code: &'static str, text: String) -> Self {
        Self { code, text }
    }
}

/// What one connection needs besides the hub's address.
pub struct Opening {
    pub client_id: String,
    pub will_topic: String,
    pub will: Vec<u8>,
    pub tls: Option<rustls::ClientConfig>,
}

/// What the broker grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    pub window: u16,
    /// Largest payload it takes, with room left for topic and properties.
    pub payload_max: u64,
}

/// What came from the broker.
#[derive(Debug)]
pub enum Heard {
    Delivered(Token),
    /// A PUBACK with an error.
    Refused {
        token: Token,
        reason: PubAckReason,
    },
    Subscribed,
    Message {
        topic: String,
        payload: Bytes,
        retained: bool,
    },
}

pub struct Link {
    client: AsyncClient,
    events: mpsc::Receiver<Result<Event, ConnectionError>>,
    pump: JoinHandle<()>,
    /// Queued, without a packet number yet.
    queued: VecDeque<Token>,
    numbered: BTreeMap<u16, Token>,
    clock: Arc<dyn Clock>,
    /// When the loop was heard of last.
    heard_ms: u64,
    silence: Duration,
    place: String,
}

impl Drop for Link {
    /// Drops the connection without a word: the broker then publishes the will.
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// Drives the event loop; ends with the first error, because polling on would connect again by itself.
async fn pump(mut event_loop: EventLoop, events: mpsc::Sender<Result<Event, ConnectionError>>) {
    loop {
        let event = event_loop.poll().await;
        let last = event.is_err();
        if events.send(event).await.is_err() || last {
            return;
        }
    }
}

impl Link {
    /// Connects and logs in.
    pub async fn open(hub: &Hub, opening: Opening, clock: Arc<dyn Clock>) -> Result<(Self, Granted), LinkError> {
        let place = format!("{}:{}", hub.host, hub.port);
        let keep_alive = hub.keep_alive.max(KEEP_ALIVE_MIN);
        let (client, event_loop) = AsyncClient::new(options(hub, opening, keep_alive), usize::from(WINDOW_MAX) + 4);
        let (sender, events) = mpsc::channel(UPLINK_EVENTS_MAX);
        let mut link = Self {
            client,
            events,
            pump: tokio::spawn(pump(event_loop, sender)),
            queued: VecDeque::new(),
            numbered: BTreeMap::new(),
            heard_ms: clock.boottime_ms(),
            clock,
            // The library limits this step itself; the margin lets its own error arrive first.
            silence: CONNECT_TIMEOUT + Duration::from_secs(2),
            place,
        };
        let granted = loop {
            let event = link.event().await.map_err(|error| match error.code {
                "closed" => LinkError::new(
                    "closed",
                    format!(
                        "{}: the connection was closed before the login; the port may expect TLS or a client certificate, or the broker may speak only MQTT 3.1.1 (version 5 is needed)",
                        link.place
                    ),
                ),
                _ => error,
            })?;
            if let Event::Incoming(Packet::ConnAck(ack)) = event {
                let properties = ack.properties.as_ref();
                let server_keep_alive = properties.and_then(|p| p.server_keep_alive).map(|s| Duration::from_secs(s.into()));
                link.silence = (server_keep_alive.unwrap_or(keep_alive) * 2).max(SILENCE_MIN);
                let packet_max = properties.and_then(|p| p.max_packet_size).unwrap_or(u32::MAX);
                break Granted {
                    window: properties.and_then(|p| p.receive_max).unwrap_or(u16::MAX).clamp(1, WINDOW_MAX),
                    payload_max: u64::from(packet_max).saturating_sub(PACKET_OVERHEAD_BYTES),
                };
            }
        };
        // Pictures can go in chunks of any size, a message of reasons cannot: it would hold up all later ones.
        if granted.payload_max < GAP_BYTES_MAX as u64 {
            let (least, most) = (GAP_BYTES_MAX as u64 + PACKET_OVERHEAD_BYTES, granted.payload_max + PACKET_OVERHEAD_BYTES);
            let text = format!(
                "{}: the broker takes packets of {most} bytes at most; raise its maximum packet size to {least} or more",
                link.place
            );
            return Err(LinkError::new("packet_limit", text));
        }
        Ok((link, granted))
    }

    /// Waits for what concerns the session. Dropping the wait loses nothing.
    pub async fn heard(&mut self) -> Result<Heard, LinkError> {
        loop {
            match self.event().await? {
                Event::Outgoing(Outgoing::Publish(number)) => {
                    if let Some(token) = self.queued.pop_front() {
                        self.numbered.insert(number, token);
                    }
                }
                Event::Incoming(Packet::PubAck(ack)) => {
                    let Some(token) = self.numbered.remove(&ack.pkid) else { continue };
                    return Ok(match ack.reason {
                        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Heard::Delivered(token),
                        reason => Heard::Refused { token, reason },
                    });
                }
                Event::Incoming(Packet::SubAck(ack)) => {
                    if let Some(code) = ack.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_))) {
                        let text = format!(
                            "{}: the broker does not let this node subscribe to its topics ({code:?}); allow it to read its own root and shutter/v1/hub",
                            self.place
                        );
                        return Err(LinkError::new("subscribe", text));
                    }
                    return Ok(Heard::Subscribed);
                }
                Event::Incoming(Packet::Publish(publish)) => {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    return Ok(Heard::Message { topic, payload: publish.payload, retained: publish.retain });
                }
                _ => {}
            }
        }
    }

    async fn event(&mut self) -> Result<Event, LinkError> {
        let passed = self.clock.boottime_ms().saturating_sub(self.heard_ms);
        let left = self.silence.saturating_sub(Duration::from_millis(passed));
        match tokio::time::timeout(left, self.events.recv()).await {
            Ok(Some(Ok(event))) => {
                self.heard_ms = self.clock.boottime_ms();
                Ok(event)
            }
            Ok(Some(Err(error))) => Err(explain(&self.place, error)),
            Ok(None) => Err(LinkError::new("closed", format!("the connection to {} ended", self.place))),
            Err(_) => Err(LinkError::new(
                "silent",
                format!("{} has not answered for {} s; the connection is given up and made anew", self.place, self.silence.as_secs()),
            )),
        }
    }

    pub fn subscribe(&mut self, topics: impl IntoIterator<Item = String>) -> Result<(), LinkError> {
        let filters = topics.into_iter().map(|topic| Filter::new(topic, QoS::AtLeastOnce));
        self.client.try_subscribe_many(filters).map_err(|_| self.full())
    }

    /// Queues a packet under a token that has a place in the window.
    pub fn publish(&mut self, token: Token, topic: String, retain: bool, payload: Bytes, with: PublishProperties) -> Result<(), LinkError> {
        let queued = self.client.try_publish_with_properties(topic, QoS::AtLeastOnce, retain, payload, with);
        queued.map_err(|_| self.full())?;
        self.queued.push_back(token);
        Ok(())
    }

    /// Says goodbye, so that the broker does not publish the will.
    pub async fn close(mut self) {
        if self.client.try_disconnect().is_err() {
            return;
        }
        while let Ok(event) = self.event().await {
            if matches!(event, Event::Outgoing(Outgoing::Disconnect)) {
                return;
            }
        }
    }

    fn full(&self) -> LinkError {
        LinkError::new("closed", format!("the connection to {} takes no more packets", self.place))
    }
}

fn options(hub: &Hub, opening: Opening, keep_alive: Duration) -> MqttOptions {
    // The library writes "host:port": an IPv6 address needs its brackets there, and must not have them in a TLS name.
    let bare_v6 = opening.tls.is_none() && hub.host.contains(':') && !hub.host.starts_with('[');
    let host = if bare_v6 { format!("[{}]", hub.host) } else { hub.host.clone() };
    let mut options = MqttOptions::new(opening.client_id, host, hub.port);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options
        .set_network_options(network)
        .set_keep_alive(keep_alive)
        .set_clean_start(true)
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
        .set_outgoing_inflight_upper_limit(WINDOW_MAX)
        .set_last_will(LastWill::new(opening.will_topic, opening.will, QoS::AtLeastOnce, true, None));
    let mut properties = ConnectProperties::new();
    (properties.receive_maximum, properties.max_packet_size) = (Some(RECEIVE_MAX), Some(INCOMING_BYTES_MAX));
    options.set_connect_properties(properties);
    if let Some(user) = &hub.user {
        options.set_credentials(user, hub.password.as_ref().map_or("", |password| password.expose()));
    }
    if let Some(tls) = opening.tls {
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
    }
    options
}

/// Turns a library error into what happened and what to do.
fn explain(place: &str, error: ConnectionError) -> LinkError {
    use ConnectReturnCode as Code;
    let said = |code, text: String| LinkError::new(code, format!("{place}: {text}"));
    match error {
        ConnectionError::Timeout(_) => {
            said("timeout", format!("no answer within {} s; check address, port, firewall and route", CONNECT_TIMEOUT.as_secs()))
        }
        ConnectionError::ConnectionRefused(code) => match code {
            Code::BadUserNamePassword | Code::NotAuthorized | Code::BadAuthenticationMethod => {
                said("login", "the broker refuses the login; check user and password of the hub section".into())
            }
            Code::UnsupportedProtocolVersion => old_broker(place),
            Code::ClientIdentifierNotValid => {
                said("login", "the broker does not accept the client name; it begins with the node's id".into())
            }
            Code::Banned => said("login", "the broker has banned this node; ask who runs it".into()),
            code => said("refused", format!("the broker refuses the connection ({code:?})")),
        },
        ConnectionError::Tls(rumqttc::TlsError::Io(e)) | ConnectionError::Io(e) => explain_io(place, &e),
        ConnectionError::Tls(rumqttc::TlsError::TLS(e)) => explain_tls(place, &e),
        ConnectionError::Tls(rumqttc::TlsError::DNSName(_)) => {
            said("tls_name", "not a host name or address that a certificate can be checked against".into())
        }
        ConnectionError::MqttState(StateError::Io(e))
        | ConnectionError::MqttState(StateError::Deserialization(rumqttc::v5::mqttbytes::Error::Io(e))) => explain_io(place, &e),
        ConnectionError::MqttState(StateError::ConnectionAborted) => said("closed", "the broker closed the connection".into()),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => said(
            "closed",
            format!("the broker ended the connection ({reason_code:?}{})", reason_string.map_or(String::new(), |s| format!(": {s}"))),
        ),
        ConnectionError::MqttState(StateError::AwaitPingResp | StateError::CollisionTimeout) => {
            said("silent", "the broker does not answer any more".into())
        }
        ConnectionError::MqttState(StateError::Deserialization(
            rumqttc::v5::mqttbytes::Error::InvalidConnectReturnCode(_) | rumqttc::v5::mqttbytes::Error::InvalidProtocolLevel(_),
        )) => old_broker(place),
        other => said("protocol", format!("{other}; is this an MQTT 5 broker?")),
    }
}

fn old_broker(place: &str) -> LinkError {
    LinkError::new("mqtt_version", format!("{place}: this broker speaks only MQTT 3.1.1; the hub needs version 5"))
}

fn explain_io(place: &str, error: &io::Error) -> LinkError {
    let said = |code, text: &str| LinkError::new(code, format!("{place}: {text}"));
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return explain_tls(place, tls);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => said("refused", "nothing listens there; is the broker running, and is the port right?"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            said("unreachable", "there is no way to this address; check network and route")
        }
        io::ErrorKind::TimedOut => said("timeout", "no answer; check address, port, firewall and route"),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionAborted => {
            said("closed", "the connection was cut")
        }
        // The resolver's errors have no kind of their own.
        _ if error.to_string().contains("lookup address") => said("name", "the name is not known; check the spelling and the DNS server"),
        _ => LinkError::new("io", format!("{place}: {error}")),
    }
}

pub fn explain_tls(place: &str, error: &rustls::Error) -> LinkError {
    use rustls::{AlertDescription as Alert, CertificateError as Cert, Error as Tls};
    let said = |code, text: &str| LinkError::new(code, format!("{place}: {text}"));
    match error {
        Tls::InvalidCertificate(Cert::UnknownIssuer | Cert::BadSignature) => {
            said("tls_authority", "its certificate is signed by an authority that is not known here; set ca_file to the hub's authority")
        }
        Tls::InvalidCertificate(Cert::Expired | Cert::ExpiredContext { .. }) => {
            said("tls_expired", "its certificate has expired; renew it there")
        }
        Tls::InvalidCertificate(Cert::NotValidYet | Cert::NotValidYetContext { .. }) => {
            said("tls_not_yet", "its certificate is not valid yet; check the clocks of this node and of the hub")
        }
        Tls::InvalidCertificate(Cert::NotValidForName | Cert::NotValidForNameContext { .. }) => {
            said("tls_name", "its certificate is for another name; use the name that the certificate holds")
        }
        Tls::InvalidMessage(_) => said("tls", "what listens there does not speak TLS; check the port"),
        Tls::AlertReceived(Alert::CertificateRequired | Alert::BadCertificate | Alert::UnknownCA | Alert::AccessDenied) => {
            said("tls_client", "it does not accept our client certificate; check the client files of the hub section")
        }
        other => LinkError::new("tls", format!("{place}: TLS failed: {other}")),
    }
}
