//! The same hub behind TLS, and with a broker that is not its own.

use crate::node::*;
use rumqttc::{TlsConfiguration, Transport};
use shutterd::hub::{Hub, Target, TlsFiles};
use shutterd::model::Seq;
use shutterd::protocol::Topic;
use std::{net::SocketAddr, process::Command};
use tokio::{sync::oneshot, time::timeout};

/// False: not here, said aloud.
fn have(program: &str, argument: &str) -> bool {
    let found = Command::new(program).arg(argument).output().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "{program} is missing");
    if !found {
        eprintln!("SKIPPED: {program} is missing");
    }
    found
}

#[tokio::test]
async fn a_node_behind_tls_is_served_while_silent_sockets_wait() {
    if !have("openssl", "version") {
        return;
    }
    let dir = Dir::new("tls");
    let (cert, key) = (dir.0.join("cert.pem"), dir.0.join("key.pem"));
    let made = Command::new("openssl")
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split(' '))
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut tls = options(&dir.0);
    tls.tls = Some(TlsFiles { cert: cert.clone(), key });
    let hub = start(tls).await;
    // They never say a word; the embedded broker's own TLS listener would wait for each.
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(tokio::net::TcpStream::connect(hub.mqtt).await.unwrap());
    }
    let mut options = rumqttc::v5::MqttOptions::new("n1", "localhost", hub.mqtt.port());
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Simple {
        ca: std::fs::read(&cert).unwrap(),
        alpn: None,
        client_auth: None,
    }));
    let mut node = Node::with(options, "n1").await.unwrap();
    let (bytes, hash) = picture("n1", 1, 10, 400);
    node.send(Topic::Image(id(1)), bytes).await;
    assert_eq!(node.ack().await.have, [(Seq(1), hash)]);
    assert!(timeout(SOON, Node::with(node_options(hub.mqtt, "n1"), "n1")).await.unwrap().is_err(), "plain text got in");
    hub.stop().await;
}

#[tokio::test]
async fn an_external_broker_serves_as_well_and_may_come_and_go() {
    if !have("mosquitto", "-h") {
        return;
    }
    let dir = Dir::new("external");
    // A port that was free a moment ago: mosquitto cannot be asked for any.
    let mqtt: SocketAddr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = dir.0.join("mosquitto.conf");
    std::fs::write(&config, format!("listener {} 127.0.0.1\nallow_anonymous true\n", mqtt.port())).unwrap();
    let broker = || tokio::process::Command::new("mosquitto").arg("-c").arg(&config).kill_on_drop(true).spawn().unwrap();

    let mut external = options(&dir.0);
    external.broker =
        Some(Target { host: "127.0.0.1".into(), port: mqtt.port(), user: None, ca_file: None, client_id: "shutter-hub-test".into() });
    let hub = Hub::start(external).await.unwrap();
    assert!(hub.mqtt.is_none());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(hub.run(async move { drop(stopped.await) }));
    for seq in [1, 2] {
        let mut broker = broker();
        let mut node = loop {
            if let Ok(node) = Node::with(node_options(mqtt, "n1"), "n1").await {
                break node;
            }
            tokio::task::yield_now().await;
        };
        let (bytes, hash) = picture("n1", seq, 10, 64);
        node.send(Topic::Image(id(seq)), bytes).await;
        assert_eq!(node.ack().await.have, [(Seq(seq), hash)]);
        broker.kill().await.unwrap();
    }
    drop(stop);
    timeout(SOON, running).await.unwrap().unwrap().unwrap();
    assert_eq!(stored(&dir, "n1").len(), 2);
}
