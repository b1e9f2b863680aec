//! The contract: what is kept, acknowledged, refused and shown.

use crate::node::*;
use rumqttc::v5::{Event, mqttbytes::QoS, mqttbytes::v5::LastWill, mqttbytes::v5::Packet};
use shutterd::clock::{Clock, SystemClock};
use shutterd::config::secret::Secret;
use shutterd::hub::{Hub, HubError, accounts::Accounts};
use shutterd::model::*;
use shutterd::protocol::*;
use std::{net::SocketAddr, os::unix::fs::PermissionsExt};
use tokio::time::timeout;

#[tokio::test]
async fn a_picture_is_kept_once_and_every_copy_of_it_is_acknowledged() {
    let dir = Dir::new("once");
    let hub = start(options(&dir.0)).await;
    let mut node = Node::connect(hub.mqtt, "n1").await;
    let (bytes, hash) = picture("n1", 42, 10, 64);
    for _ in 0..2 {
        node.send(Topic::Image(id(42)), bytes.clone()).await;
        let ack = node.ack().await;
        assert_eq!((ack.have, ack.refused), (vec![(Seq(42), hash)], vec![]));
        // By the time of the ack the very bytes are in place.
        let name = format!("42-{hash}.jpg");
        assert_eq!(stored(&dir, "n1"), std::slice::from_ref(&name));
        assert_eq!(std::fs::read(dir.0.join(format!("data/objects/img/n1/{STORE}/{name}"))).unwrap(), bytes);
    }
    // Announced again, it needs no transfer.
    node.send(Topic::Init(id(42)), json(&Init { v: 1, hash8: hash, len: bytes.len() as u64 })).await;
    assert_eq!(node.ack().await.have, [(Seq(42), hash)]);
    let (head, body) = hub.get("/cameras/gate/latest.jpg", "").await;
    assert!(head.starts_with("HTTP/1.1 200") && body == bytes, "{head}");
    hub.stop().await;
}

#[tokio::test]
async fn a_picture_that_is_damaged_or_under_a_wrong_id_is_refused_and_not_kept() {
    let dir = Dir::new("refused");
    let hub = start(options(&dir.0)).await;
    let mut node = Node::connect(hub.mqtt, "n1").await;
    let (good, _) = picture("n1", 1, 10, 64);
    let mut flipped = good.clone();
    *flipped.iter_mut().rev().nth(40).unwrap() ^= 1;
    for (as_id, bytes) in [(1, flipped), (1, good[..good.len() - 9].to_vec()), (2, good.clone()), (1, vec![])] {
        node.send(Topic::Image(id(as_id)), bytes).await;
        let ack = node.ack().await;
        assert!(ack.have.is_empty() && ack.refused.len() == 1 && ack.refused[0].id == id(as_id), "{ack:?}");
    }
    assert_eq!(stored(&dir, "n1"), [""; 0]);
    hub.stop().await;
}

#[tokio::test]
async fn what_a_node_took_under_a_former_name_is_kept_with_one_alarm_for_ever() {
    let dir = Dir::new("renamed");
    let alarms = || std::fs::read_dir(dir.0.join("data/objects/alarm/n2")).unwrap().count();
    for seq in [1, 2] {
        let hub = start(options(&dir.0)).await;
        let mut node = Node::connect(hub.mqtt, "n2").await;
        for seq in [seq, seq + 10] {
            let (bytes, hash) = picture("n1", seq, 10, 64);
            node.send(Topic::Image(id(seq)), bytes).await;
            assert_eq!(node.ack().await.have, [(Seq(seq), hash)]);
        }
        let (mut bytes, _) = picture("n1", 30, 10, 64);
        *bytes.iter_mut().rev().nth(40).unwrap() ^= 1;
        node.send(Topic::Image(id(30)), bytes).await;
        assert_eq!(node.ack().await.refused.len(), 1, "a damaged one is refused all the same");
        assert_eq!(alarms(), 1);
        let page = String::from_utf8(hub.get("/", "").await.1).unwrap();
        assert!(page.contains("taken as node n1"), "{page}");
        hub.stop().await;
    }
    assert_eq!((stored(&dir, "n2").len(), stored(&dir, "n1").len()), (4, 0));
}

#[tokio::test]
async fn two_pictures_under_one_number_are_both_kept_with_an_alarm() {
    let dir = Dir::new("twins");
    let hub = start(options(&dir.0)).await;
    let mut node = Node::connect(hub.mqtt, "n1").await;
    let mut names = vec![];
    for shade in [10, 90] {
        let (bytes, hash) = picture("n1", 7, shade, 64);
        node.send(Topic::Image(id(7)), bytes).await;
        assert_eq!(node.ack().await.have, [(Seq(7), hash)]);
        names.push(format!("7-{hash}.jpg"));
    }
    names.sort();
    assert_eq!(stored(&dir, "n1"), names);
    let page = String::from_utf8(hub.get("/", "").await.1).unwrap();
    assert!(page.contains("two different pictures"), "{page}");
    hub.stop().await;
}

#[tokio::test]
async fn a_large_picture_goes_on_where_it_stopped_over_reconnects_and_a_restart_of_the_hub() {
    let dir = Dir::new("chunks");
    let hub = start(options(&dir.0)).await;
    let (bytes, hash) = picture("n1", 5, 10, 1400);
    let chunks: Vec<_> = bytes.chunks(CHUNK_BYTES).collect();
    assert!(chunks.len() >= 3, "{} bytes", bytes.len());
    let init = json(&Init { v: 1, hash8: hash, len: bytes.len() as u64 });
    let first = (0, CHUNK_BYTES as u64);

    let mut node = Node::connect(hub.mqtt, "n1").await;
    node.send(Topic::Init(id(5)), init.clone()).await;
    assert_eq!(node.ack().await.part[&id(5)].ranges, []);
    node.chunk(id(5), hash, 0, chunks[0], crc32c::crc32c(chunks[0])).await;
    // Damaged on the way: ignored.
    node.chunk(id(5), hash, CHUNK_BYTES, chunks[1], 0xbad).await;
    node.send(Topic::Fin(id(5)), init.clone()).await;
    assert_eq!(node.ack().await.part[&id(5)], Part { hash8: hash, ranges: vec![first] });
    drop(node);
    hub.stop().await;

    let hub = start(options(&dir.0)).await;
    let mut node = Node::connect(hub.mqtt, "n1").await;
    node.send(Topic::Init(id(5)), init.clone()).await;
    assert_eq!(node.ack().await.part[&id(5)].ranges, [first]);
    for (i, chunk) in chunks.iter().enumerate().skip(1) {
        node.chunk(id(5), hash, i * CHUNK_BYTES, chunk, crc32c::crc32c(chunk)).await;
    }
    node.send(Topic::Fin(id(5)), init).await;
    assert_eq!(node.ack().await.have, [(Seq(5), hash)]);
    assert_eq!(stored(&dir, "n1"), [format!("5-{hash}.jpg")]);
    assert_eq!(std::fs::read_dir(dir.0.join("data/partials/n1")).unwrap().count(), 0, "nothing is left over");
    hub.stop().await;
}

#[tokio::test]
async fn gap_messages_are_acknowledged_up_to_the_first_hole_also_by_a_new_hub() {
    let dir = Dir::new("gaps");
    let hub = start(options(&dir.0)).await;
    let gap = |no| json(&Gap { v: 1, store: STORE.parse().unwrap(), no, items: vec![] });
    let mut node = Node::connect(hub.mqtt, "n1").await;
    for (no, through) in [(1, 1), (3, 1), (4, 1)] {
        node.send(Topic::Gap, gap(no)).await;
        assert_eq!(node.ack().await.gaps, through);
    }
    hub.stop().await;
    let hub = start(options(&dir.0)).await;
    let mut node = Node::connect(hub.mqtt, "n1").await;
    node.send(Topic::Gap, gap(2)).await;
    assert_eq!(node.ack().await.gaps, 4);
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_with_a_new_disk_confirms_reasons_although_it_never_saw_the_first_ones() {
    let dir = Dir::new("gaps-after");
    let hub = start(options(&dir.0)).await;
    let gap = |no| Gap { v: 1, store: STORE.parse().unwrap(), no, items: vec![] };
    let mut node = Node::connect(hub.mqtt, "n1").await;
    for (no, after, through) in [(58, 56, 56), (57, 56, 58), (60, 58, 58), (59, 900, 60)] {
        node.gap(&gap(no), after).await;
        assert_eq!(node.ack().await.gaps, through, "message {no}");
    }
    hub.stop().await;
    let hub = start(options(&dir.0)).await;
    let mut node = Node::connect(hub.mqtt, "n1").await;
    node.gap(&gap(61), 58).await;
    assert_eq!(node.ack().await.gaps, 61);
    hub.stop().await;
}

#[tokio::test]
async fn two_messages_of_reasons_under_one_number_are_both_kept_with_an_alarm() {
    let dir = Dir::new("twin-gaps");
    let gap = |reason: &str| {
        let items = vec![GapItem::Tombstone { id: id(9), camera: "gate".parse().unwrap(), reason: reason.into() }];
        Gap { v: 1, store: STORE.parse().unwrap(), no: 1, items }
    };
    for _ in 0..2 {
        let hub = start(options(&dir.0)).await;
        let mut node = Node::connect(hub.mqtt, "n1").await;
        for reason in ["deleted", "damaged", "deleted", "damaged"] {
            node.gap(&gap(reason), 0).await;
            assert_eq!(node.ack().await.gaps, 1);
        }
        let page = String::from_utf8(hub.get("/", "").await.1).unwrap();
        assert!(page.contains("two different messages of reasons"), "{page}");
        hub.stop().await;
    }
    let found = std::fs::read_dir(dir.0.join(format!("data/objects/gap/n1/{STORE}"))).unwrap();
    let mut kept: Vec<_> = found.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    let mut both = [json(&gap("damaged")), json(&gap("deleted"))];
    kept.sort();
    both.sort();
    assert_eq!(kept, both);
    assert_eq!(std::fs::read_dir(dir.0.join("data/objects/alarm/n1")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_rebuilt_node_learns_what_is_here_and_when_that_is_all() {
    let dir = Dir::new("ask");
    let hub = start(options(&dir.0)).await;
    let mut node = Node::connect(hub.mqtt, "n1").await;
    for seq in [3, 4, 9] {
        node.send(Topic::Image(id(seq)), picture("n1", seq, 10, 32).0).await;
        node.ack().await;
    }
    let ask = Ask { v: 1, store: STORE.parse().unwrap(), from: Seq(4), to: Seq(8) };
    node.send(Topic::Ask, json(&ask)).await;
    let ack = node.ack().await;
    assert_eq!(ack.have, [(Seq(4), picture("n1", 4, 10, 32).1)]);
    assert_eq!(ack.done, Some(ask));
    hub.stop().await;
}

#[tokio::test]
async fn a_question_for_nothing_is_answered_with_the_hubs_time() {
    let dir = Dir::new("time");
    let hub = start(options(&dir.0)).await;
    let mut node = Node::connect(hub.mqtt, "n1").await;
    node.send(Topic::Image(id(3)), picture("n1", 3, 10, 32).0).await;
    assert_eq!(node.ack().await.time_ms, None, "what nobody asked for could be of any age when it is read");
    let ask = Ask { v: 1, store: STORE.parse().unwrap(), from: Seq(5_000), to: Seq(0) };
    let asked_ms = SystemClock.read().wall_ms;
    node.send(Topic::Ask, json(&ask)).await;
    let ack = node.ack().await;
    assert_eq!((ack.have, ack.done), (vec![], Some(ask)));
    assert!((asked_ms..=SystemClock.read().wall_ms).contains(&ack.time_ms.unwrap()), "{:?}", ack.time_ms);
    hub.stop().await;
}

#[tokio::test]
async fn a_node_once_seen_is_still_on_the_page_after_a_restart_and_its_words_stay_words() {
    let dir = Dir::new("restart");
    let hub = start(options(&dir.0)).await;
    let mut node = Node::connect(hub.mqtt, "n1").await;
    let state = State { v: 1, state: NodeState::Fault, session: Session(1), detail: Some("<script>alert(1)</script>".into()) };
    node.send(Topic::State, json(&state)).await;
    node.send(Topic::Info, json(&info(false))).await;
    node.send(Topic::Image(id(1)), picture("n1", 1, 10, 64).0).await;
    node.ack().await;
    hub.stop().await;
    let hub = start(options(&dir.0)).await;
    let page = String::from_utf8(hub.get("/", "").await.1).unwrap();
    assert!(page.contains("<h2>n1</h2>") && page.contains("fault") && page.contains("/nodes/n1/cameras/gate/latest.jpg"), "{page}");
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "{page}");
    let complete = "99.96 %: 8639 of 8642 planned since 2026-10-27, 2 off: &lt;b&gt;, 1 failed: timeout";
    assert!(page.contains(complete), "{page}");
    let api: serde_json::Value = serde_json::from_slice(&hub.get("/api/nodes", "").await.1).unwrap();
    assert_eq!(api["n1"]["latest"]["gate"]["id"], id(1).to_string());
    assert_eq!(api["n1"]["info"]["said"]["completeness"]["slots"]["captured"], 8_639);
    hub.stop().await;
}

fn info(clone_seen: bool) -> Info {
    Info {
        v: 1,
        session: Session(1),
        version: "0.1.0".into(),
        speaks: vec![1],
        store: None,
        cameras: vec![],
        schedules: vec![],
        backlog: 0,
        backlog_bytes: 0,
        stored: 0,
        stored_bytes: 0,
        completeness: Some(Completeness {
            since: "2026-10-27".into(),
            slots: [("captured", 8_639), ("failed: timeout", 1), ("off: <b>", 2)].map(|(label, n)| (label.to_owned(), n)).into(),
        }),
        config: "file".into(),
        config_error: None,
        clock: Quality::Ntp,
        tls_clock: None,
        clone_seen,
        flash: None,
    }
}

#[tokio::test]
async fn a_second_agent_of_one_name_raises_an_alarm_and_the_hub_says_good_bye() {
    let dir = Dir::new("clone");
    let hub = start(options(&dir.0)).await;
    let mut node = Node::connect(hub.mqtt, "n1").await;
    for session in [1, 2] {
        node.send(Topic::State, json(&State { v: 1, state: NodeState::Online, session: Session(session), detail: None })).await;
    }
    // So far it may be one agent that died and is back. Then the first one says that it has met the second.
    for (seq, clone_seen) in [(1, false), (2, true)] {
        node.send(Topic::Info, json(&info(clone_seen))).await;
        node.send(Topic::Image(id(seq)), picture("n1", seq, 10, 64).0).await;
        node.ack().await;
        let page = String::from_utf8(hub.get("/", "").await.1).unwrap();
        assert_eq!(page.contains("two agents use this node"), clone_seen, "{page}");
    }
    let (mut said, stopping) = (true, tokio::spawn(hub.stop()));
    while said {
        let (topic, payload) = node.next().await.unwrap();
        if topic == HUB_TOPIC {
            said = serde_json::from_slice::<HubPresence>(&payload).unwrap().online;
        }
    }
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_reconnect_is_no_alarm_but_two_agents_pushing_each_other_out_are() {
    let dir = Dir::new("flap");
    let hub = start(options(&dir.0)).await;
    for session in 1..=6 {
        // The former connection of this client id is still open: the broker ends it, with its will.
        let state = |state| json(&State { v: 1, state, session: Session(session), detail: None });
        let mut options = node_options(hub.mqtt, "n1");
        options.set_last_will(LastWill::new("shutter/v1/n1/state", state(NodeState::Offline), QoS::AtLeastOnce, true, None));
        let mut node = Node::with(options, "n1").await.unwrap();
        node.send(Topic::State, state(NodeState::Online)).await;
        node.send(Topic::Image(id(session)), picture("n1", session, 10, 32).0).await;
        node.ack().await;
        let page = String::from_utf8(hub.get("/", "").await.1).unwrap();
        assert!(page.contains("online") && !page.contains("at the same time"), "{page}");
        assert_eq!(page.contains("push each other out"), session == 6, "session {session}: {page}");
        std::mem::forget(node);
    }
    hub.stop().await;
}

#[tokio::test]
async fn an_account_reaches_its_own_topics_and_client_ids_and_nothing_else() {
    let dir = Dir::new("acl");
    let mut options = options(&dir.0);
    let file = dir.0.join("accounts");
    let lines: Vec<_> =
        ["n1", "n2", "n1-b"].map(|n| Accounts::line(&n.parse().unwrap(), &Secret::new(format!("secret of {n}"))).unwrap()).into();
    std::fs::write(&file, lines.join("\n")).unwrap();
    // Readable by others: refused.
    options.accounts = Some(file.clone());
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(matches!(Accounts::read(&file), Err(HubError::Accounts { .. })));
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    options.http = "0.0.0.0:0".parse().unwrap();
    let hub = start(options).await;

    let login = |client_id: &str, user: &str, password: &str| {
        let mut options = node_options(hub.mqtt, client_id);
        options.set_credentials(user, password);
        options
    };
    let mut n1 = Node::with(login("n1", "n1", "secret of n1"), "n1").await.unwrap();
    Node::with(login("n1-2", "n1", "secret of n1"), "n1").await.unwrap();
    for (client_id, user, password) in [
        ("n1", "n1", "wrong"),
        ("n2", "n1", "secret of n1"),
        ("n1-b", "n1", "secret of n1"),
        ("n10", "n1", "secret of n1"),
        ("$hub-1", "$hub", "guess"),
        ("n1", "", ""),
    ] {
        assert!(Node::with(login(client_id, user, password), "n1").await.is_err(), "{user} got in as {client_id}");
    }
    let mut foreign_will = login("n1-3", "n1", "secret of n1");
    foreign_will.set_last_will(LastWill::new("shutter/v1/n2/state", "x", QoS::AtLeastOnce, true, None));
    assert!(Node::with(foreign_will, "n1").await.is_err(), "a will is a publish");

    // n1 speaks for n2: it goes nowhere, while its own picture is taken.
    n1.client.publish("shutter/v1/n2/img/00c0ffee00c0ffee-1", QoS::AtLeastOnce, false, picture("n2", 1, 10, 64).0).await.unwrap();
    n1.client.publish(HUB_TOPIC, QoS::AtLeastOnce, true, "{}").await.unwrap();
    let mut acked = false;
    n1.client.publish(Topic::Image(id(2)).of(&n1.name), QoS::AtLeastOnce, false, picture("n1", 2, 10, 64).0).await.unwrap();
    while !acked {
        match timeout(SOON, n1.packets.poll()).await.unwrap() {
            Ok(Event::Incoming(Packet::Publish(p))) => acked = p.topic.ends_with(b"/ack"),
            Ok(_) => {}
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!((stored(&dir, "n1").len(), stored(&dir, "n2").len()), (1, 0));

    let http = SocketAddr::from(([127, 0, 0, 1], hub.http.port()));
    assert!(get(http, "/", "").await.0.starts_with("HTTP/1.1 401"));
    assert!(get(http, "/", "authorization: Basic bjE6d3Jvbmc=\r\n").await.0.starts_with("HTTP/1.1 401"));
    // "n1:secret of n1"
    assert!(get(http, "/", "authorization: Basic bjE6c2VjcmV0IG9mIG4x\r\n").await.0.starts_with("HTTP/1.1 200"));
    hub.stop().await;
}

#[tokio::test]
async fn an_open_listener_and_a_second_hub_are_refused_in_words() {
    let dir = Dir::new("refusals");
    let mut open = options(&dir.0);
    open.mqtt = "0.0.0.0:0".parse().unwrap();
    assert!(matches!(Hub::start(open).await, Err(e @ HubError::Exposed { .. }) if e.is_usage()));
    let mut open = options(&dir.0);
    open.http = "0.0.0.0:0".parse().unwrap();
    assert!(matches!(Hub::start(open).await, Err(HubError::Exposed { .. })));
    let hub = start(options(&dir.0)).await;
    let second = Hub::start(options(&dir.0)).await.err().unwrap().to_string();
    assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
    hub.stop().await;
}
