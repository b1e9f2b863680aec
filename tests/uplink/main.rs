//! The uplink against a real broker: what the hub gets, and what it takes to make the node forget a picture.
//!
//! The hub here is a stub that this file drives word by word, so that it can also lie. Set SHUTTER_BREAK=ack_from_puback (with
//! the feature `break`) and `a_puback_alone_frees_nothing` and `a_puback_alone_confirms_no_true_time` must fail.

#[path = "../rig/board_clock.rs"]
mod board_clock;
mod stage;

use board_clock::BoardClock;
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use shutterd::clock::{Clock, SystemClock};
use shutterd::config::secret::Secret;
use shutterd::config::settings::{Hub, Tls};
use shutterd::model::{Hash8, Outcome, Quality, Seq, Session, Slot, SnapshotId, StoreId};
use shutterd::protocol::{Ack, HUB_TOPIC, HubPresence, Info, Init, NodeState, Part, Record, State, Topic, VERSION};
use stage::*;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

#[test]
fn a_picture_is_freed_by_its_own_ack_and_by_nothing_else() {
    story("ack", |scratch| async move {
        let broker = Broker::start(&scratch, "allow_anonymous true").await;
        let mut hub = StubHub::start(broker.port, true).await;
        let agent = Agent::start(&scratch, hub_at(broker.port));
        let stored = [agent.take_picture(3_000, 1), agent.take_picture(4_000, 2)];
        let mut got = BTreeMap::new();
        while got.len() < 2 {
            let (id, payload) = hub
                .next_of(|topic, payload| match topic {
                    Topic::Image(id) => Some((*id, payload.clone())),
                    _ => None,
                })
                .await;
            got.insert(id, payload);
        }
        for picture in &stored {
            assert_eq!(got[&picture.id], std::fs::read(&picture.path).unwrap(), "the file as it is stored");
        }
        let SnapshotId { store, seq } = stored[0].id;
        let wrong_hash = Hash8(stored[0].hash8.0 ^ 1);
        hub.ack(ack(StoreId(store.0 ^ 1), vec![(seq, stored[0].hash8)])).await;
        hub.ack(ack(store, vec![(seq, wrong_hash), (Seq(4_711), stored[0].hash8)])).await;
        hub.client.publish(Topic::Ack.of(&node()), QoS::AtLeastOnce, false, "{nonsense").await.unwrap();
        agent.until("counted", |up| up.acks_ignored == 3).await;
        assert_eq!(agent.pending(), 2, "a wrong ack frees nothing");
        hub.ack(ack(store, stored.iter().map(|s| (s.id.seq, s.hash8)).collect())).await;
        agent.until("acknowledged", |up| up.acknowledged == 2).await;
        assert_eq!(agent.pending(), 0);
    });
}

#[test]
fn a_puback_alone_frees_nothing() {
    story("puback", |scratch| async move {
        let broker = Broker::start(&scratch, "allow_anonymous true").await;
        let mut hub = StubHub::start(broker.port, true).await;
        let agent = Agent::start(&scratch, hub_at(broker.port));
        agent.take_picture(3_000, 1);
        hub.next_of(|topic, _| matches!(topic, Topic::Image(_)).then_some(())).await;
        agent.until("sent", |up| up.sent_bytes > 3_000).await;
        agent.store.flush().await.unwrap();
        assert_eq!(agent.pending(), 1);
    });
}

fn record_of(topic: &Topic, payload: &Bytes) -> Option<Record> {
    matches!(topic, Topic::Snap(_)).then(|| serde_json::from_slice(payload).unwrap())
}

/// 2026-11-24T06:00:00Z.
const TRUE_MS: i64 = 1_795_500_000_000;

#[test]
fn a_puback_alone_confirms_no_true_time() {
    story("retold", |scratch| async move {
        let mut broker = Broker::start(&scratch, "allow_anonymous true").await;
        let mut hub = StubHub::start(broker.port, true).await;
        let clock = BoardClock::of_1970();
        let agent = Agent::start_by(&scratch, hub_at(broker.port), std::sync::Arc::new(clock.clone()));
        let stored = [agent.take_picture(3_000, 1), agent.take_picture(4_000, 2)];
        clock.set(TRUE_MS, Quality::Ntp);
        agent.store.flush().await.unwrap();
        for picture in &stored {
            let record = hub.next_of(record_of).await;
            assert_eq!((record.id, record.rev, record.taken.quality), (picture.id, 1, Quality::Ntp));
        }
        // The broker answers in order.
        agent.take_picture(5_000, 3);
        agent.until("all taken by the broker", |up| up.sent_bytes > 12_000).await;
        agent.store.flush().await.unwrap();
        assert_eq!(agent.store.retimed().unwrap(), (0, 0), "the hub has said nothing");
        // What only the broker had is gone with it.
        broker.kill();
        broker.restart().await;
        let mut hub = StubHub::start(broker.port, true).await;
        for picture in &stored {
            assert_eq!(hub.next_of(record_of).await.id, picture.id);
        }
        let (store, [first, second]) = (agent.store.id(), [stored[0].id.seq, stored[1].id.seq]);
        let says = |revs| Ack { revs, ..ack(store, vec![]) };
        hub.ack(Ack { revs: vec![(first, 1), (second, 1)], ..ack(StoreId(store.0 ^ 1), vec![]) }).await;
        hub.ack(says(vec![(second, 0), (Seq(4_711), 1)])).await;
        hub.ack(says(vec![(first, 1)])).await;
        let told = |upto: Seq| {
            let agent = &agent;
            async move {
                while agent.store.retimed().unwrap().1 < upto.0 {
                    agent.store.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        };
        told(first).await;
        assert_eq!(agent.store.retimed().unwrap().1, first.0, "the second is open");
        hub.ack(says(vec![(second, 2)])).await;
        told(second).await;
    });
}

#[test]
fn true_times_and_pictures_share_a_slow_link() {
    story("retold-slow", |scratch| async move {
        let broker = Broker::start(&scratch, "allow_anonymous true\nmax_inflight_messages 2").await;
        let mut hub = StubHub::start(broker.port, true).await;
        let link = slow_link(broker.port, 10_000).await;
        let clock = BoardClock::of_1970();
        let agent = Agent::start_by(&scratch, hub_at(link), std::sync::Arc::new(clock.clone()));
        let stored: Vec<_> = (0..60).map(|n| agent.take_picture(3_000, n)).collect();
        clock.set(TRUE_MS, Quality::Ntp);
        agent.store.flush().await.unwrap();
        let (mut pictures, mut records) = (0, 0);
        while pictures + records < 40 {
            let image = hub.next_of(|topic, _| match topic {
                Topic::Image(_) => Some(true),
                Topic::Snap(_) => Some(false),
                _ => None,
            });
            if image.await { pictures += 1 } else { records += 1 }
        }
        eprintln!("of the first 40 packets {pictures} were pictures and {records} records, of {} that wait", stored.len());
        assert!(pictures >= 15 && records >= 15, "{pictures} pictures, {records} records");
    });
}

#[test]
fn a_hub_that_lost_its_disk_gets_a_picture_again() {
    story("want", |scratch| async move {
        let broker = Broker::start(&scratch, "allow_anonymous true").await;
        let mut hub = StubHub::start(broker.port, true).await;
        let agent = Agent::start(&scratch, hub_at(broker.port));
        let stored = agent.take_picture(3_000, 1);
        let image = |topic: &Topic, _: &Bytes| if let Topic::Image(id) = topic { Some(*id) } else { None };
        assert_eq!(hub.next_of(image).await, stored.id);
        hub.ack(ack(stored.id.store, vec![(stored.id.seq, stored.hash8)])).await;
        agent.until_pending(0).await;
        hub.ack(Ack { want: vec![stored.id], ..ack(stored.id.store, vec![]) }).await;
        assert_eq!(hub.next_of(image).await, stored.id);
    });
}

#[test]
fn reasons_reach_the_hub_in_order_and_are_kept_until_it_has_them() {
    story("gaps", |scratch| async move {
        let broker = Broker::start(&scratch, "allow_anonymous true").await;
        let mut hub = StubHub::start(broker.port, true).await;
        let agent = Agent::start(&scratch, hub_at(broker.port));
        for due_ms in 1..=20 {
            let slot = Slot { schedule: "s".parse().unwrap(), boot: 1, due_ms, plan_ms: None };
            agent.store.outcome(slot, Outcome::Missed { reason: shutterd::model::Missed::Busy });
            agent.store.flush().await.unwrap();
            // Somebody has seen it: the next reason goes into a message of its own.
            assert_eq!(agent.store.gaps_after(due_ms - 1, 9).unwrap().len(), 1);
        }
        for wanted in 1..=8 {
            let no = hub.next_of(|topic, payload| (*topic == Topic::Gap).then(|| no_of(payload))).await;
            assert_eq!(no, wanted);
        }
        assert_eq!(*hub.after.lock().unwrap(), Some(0), "all are still here");
        hub.ack(Ack { gaps: 8, ..ack(agent.store.id(), vec![]) }).await;
        for wanted in 9..=16 {
            let no = hub.next_of(|topic, payload| (*topic == Topic::Gap).then(|| no_of(payload))).await;
            assert_eq!(no, wanted, "eight under way, not more");
        }
        hub.ack(Ack { gaps: u64::MAX, ..ack(agent.store.id(), vec![]) }).await;
        let no = hub.next_of(|topic, payload| (*topic == Topic::Gap).then(|| no_of(payload))).await;
        assert_eq!(no, 17, "nobody can confirm what was never sent");
        while agent.store.gaps_after(0, 1).unwrap()[0].0 < 17 {
            tokio::task::yield_now().await;
        }
        hub.ack(Ack { gaps: 17, ..ack(agent.store.id(), vec![]) }).await;
        let slot = Slot { schedule: "s".parse().unwrap(), boot: 1, due_ms: 21, plan_ms: None };
        agent.store.outcome(slot, Outcome::Missed { reason: shutterd::model::Missed::Busy });
        hub.next_of(|topic, payload| (*topic == Topic::Gap && no_of(payload) == 21).then_some(())).await;
        assert!(hub.after.lock().unwrap().is_some_and(|after| after >= 16), "a new hub does not wait for the confirmed ones");
    });
}

fn no_of(payload: &Bytes) -> u64 {
    serde_json::from_slice::<shutterd::protocol::Gap>(payload).unwrap().no
}

#[test]
fn after_a_cut_only_the_missing_chunks_are_sent_again() {
    story("resume", |scratch| async move {
        let broker = Broker::start(&scratch, "allow_anonymous true").await;
        let mut hub = StubHub::start(broker.port, true).await;
        let port = cutting_proxy(broker.port, 700_000).await;
        let agent = Agent::start(&scratch, hub_at(port));
        let stored = agent.take_picture(1_500_000, 1);
        let mut chunks: BTreeMap<u64, Bytes> = BTreeMap::new();
        let mut inits = 0;
        loop {
            match hub.next().await {
                (Topic::Init(id), payload) => {
                    let init: Init = serde_json::from_slice(&payload).unwrap();
                    assert_eq!((id, init.hash8), (stored.id, stored.hash8));
                    inits += 1;
                    let ranges = chunks.iter().map(|(from, bytes)| (*from, from + bytes.len() as u64)).collect();
                    let part = BTreeMap::from([(id, Part { hash8: init.hash8, ranges })]);
                    hub.ack(Ack { part, ..ack(id.store, vec![]) }).await;
                }
                (Topic::Chunk { offset, crc32c, .. }, payload) => {
                    assert_eq!(crc32c::crc32c(&payload), crc32c);
                    assert!(chunks.insert(offset, payload).is_none(), "chunk at {offset} came twice");
                }
                (Topic::Fin(_), _) => break,
                _ => {}
            }
        }
        assert_eq!(inits, 2, "the cut happened");
        assert_eq!(chunks.into_values().flatten().collect::<Vec<u8>>(), std::fs::read(&stored.path).unwrap());
        hub.ack(ack(stored.id.store, vec![(stored.id.seq, stored.hash8)])).await;
        agent.until_pending(0).await;
    });
}

#[test]
fn a_broker_that_dies_and_comes_back_loses_no_picture() {
    story("restart", |scratch| async move {
        let mut broker = Broker::start(&scratch, "allow_anonymous true").await;
        let mut hub = StubHub::start(broker.port, true).await;
        let agent = Agent::start(&scratch, hub_at(broker.port));
        agent.take_picture(3_000, 1);
        hub.next_of(|topic, _| matches!(topic, Topic::Image(_)).then_some(())).await;
        broker.kill();
        agent.until("noticed", |up| up.error.is_some()).await;
        let later: Vec<_> = (2..=20).map(|fill| agent.take_picture(3_000, fill)).collect();
        broker.restart().await;
        let mut hub = StubHub::start(broker.port, true).await;
        let mut acked = 0;
        while acked < 20 {
            let id = hub.next_of(|topic, _| if let Topic::Image(id) = topic { Some(*id) } else { None }).await;
            let hash8 = agent.store.snap(id).unwrap().unwrap().hash8;
            hub.ack(ack(id.store, vec![(id.seq, hash8)])).await;
            acked += 1;
        }
        agent.until_pending(0).await;
        assert!(agent.store.snap(later[18].id).unwrap().is_some());
        let up = agent.status.read().uplink;
        assert_eq!((up.connects, up.error), (2, None));
    });
}

#[test]
fn without_a_hub_one_picture_goes_out_and_the_rest_waits_for_it() {
    story("away", |scratch| async move {
        let broker = Broker::start(&scratch, "allow_anonymous true").await;
        let mut hub = StubHub::start(broker.port, false).await;
        let agent = Agent::start(&scratch, hub_at(broker.port));
        for fill in 1..=5 {
            agent.take_picture(3_000, fill);
        }
        agent.until("linked", |up| up.state == "waiting").await;
        let image = |topic: &Topic, _: &Bytes| matches!(topic, Topic::Image(_)).then_some(());
        hub.next_of(image).await;
        assert!(tokio::time::timeout(Duration::from_secs(1), hub.next_of(image)).await.is_err(), "a second one, with no hub there");
        hub.say_present(true).await;
        for _ in 0..4 {
            hub.next_of(image).await;
        }
        agent.until("online", |up| up.state == "online").await;
    });
}

#[test]
fn a_stop_is_told_and_a_death_is_found_out() {
    story("will", |scratch| async move {
        let broker = Broker::start(&scratch, "allow_anonymous true").await;
        let mut hub = StubHub::start(broker.port, true).await;
        let agent = Agent::start(&scratch, hub_at(broker.port));
        let online = hub.state(NodeState::Online).await;
        agent.stop.send(true).unwrap();
        let task = agent.task;
        tokio::time::timeout(Duration::from_secs(2), task).await.expect("gone within 2 s").unwrap();
        assert_eq!(hub.state(NodeState::Stopped).await.session, online.session);
        agent.store.stop().await.unwrap();
        drop((agent.store, agent._stores));

        let scratch = Scratch::new("will-again");
        let agent = Agent::start(&scratch, hub_at(broker.port));
        let online = hub.state(NodeState::Online).await;
        agent.task.abort();
        assert_eq!(hub.state(NodeState::Offline).await.session, online.session, "the last will");
    });
}

#[test]
fn a_second_agent_with_our_name_raises_an_alarm_and_an_old_will_does_not_stick() {
    story("clone", |scratch| async move {
        let broker = Broker::start(&scratch, "allow_anonymous true").await;
        let mut hub = StubHub::start(broker.port, true).await;
        let state = |state| State { v: VERSION, state, session: Session(5), detail: None };
        // Left behind by our own last life: no clone.
        hub.say(&Topic::State.of(&node()), true, &state(NodeState::Online)).await;
        assert_eq!(hub.state(NodeState::Online).await.session, Session(5), "the broker holds it before the agent comes");
        let agent = Agent::start(&scratch, hub_at(broker.port));
        let ours = hub.state(NodeState::Online).await.session;
        assert_ne!(ours, Session(5));
        hub.say(&Topic::State.of(&node()), true, &state(NodeState::Offline)).await;
        assert_eq!(hub.state(NodeState::Online).await.session, ours, "said again over the old will");
        assert!(!agent.status.read().uplink.clone_seen);
        hub.say(&Topic::State.of(&node()), true, &state(NodeState::Online)).await;
        agent.until("alarmed", |up| up.clone_seen).await;
        let alarmed = |topic: &Topic, payload: &bytes::Bytes| {
            (*topic == Topic::Info).then(|| serde_json::from_slice::<Info>(payload).unwrap()).filter(|info| info.clone_seen)
        };
        let flash = hub.next_of(alarmed).await.flash.expect("what was written to the disk is told too");
        assert!(flash.since_start.index.flushes > 0 && flash.today.written == flash.since_start, "{flash:?}");
    });
}

#[test]
fn a_store_in_fault_is_said_and_ends_when_it_is_back() {
    story("fault", |scratch| async move {
        let broker = Broker::start(&scratch, "allow_anonymous true").await;
        let mut hub = StubHub::start(broker.port, true).await;
        let agent = Agent::start(&scratch, hub_at(broker.port));
        hub.state(NodeState::Online).await;
        agent.status.edit(|now| now.fault = Some("the disk is read-only".into()));
        agent._stores.send(None).unwrap();
        assert_eq!(hub.state(NodeState::Fault).await.detail.as_deref(), Some("the disk is read-only"));
        let stored = agent.take_picture(3_000, 1);
        agent._stores.send(Some(agent.store.clone())).unwrap();
        hub.state(NodeState::Online).await;
        let id = hub.next_of(|topic, _| if let Topic::Image(id) = topic { Some(*id) } else { None }).await;
        assert_eq!(id, stored.id);
    });
}

#[test]
fn an_agent_that_ends_over_a_fault_leaves_it_behind_and_not_an_ordered_stop() {
    story("last-word", |scratch| async move {
        let broker = Broker::start(&scratch, "allow_anonymous true").await;
        let mut hub = StubHub::start(broker.port, true).await;
        let agent = Agent::start(&scratch, hub_at(broker.port));
        hub.state(NodeState::Online).await;
        agent.status.edit(|now| now.fault = Some("a flush failed".into()));
        agent.stop.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(2), agent.task).await.expect("gone within 2 s").unwrap();
        assert_eq!(hub.state(NodeState::Fault).await.detail.as_deref(), Some("a flush failed"));
        // Whoever looks later finds the same: nothing came after it, and it is retained.
        let mut later = StubHub::start(broker.port, true).await;
        let last =
            later.next_of(|topic, payload| (*topic == Topic::State).then(|| serde_json::from_slice::<State>(payload).unwrap().state));
        assert_eq!(last.await, NodeState::Fault);
    });
}

#[test]
fn a_broker_that_refuses_packets_keeps_the_pictures_at_the_node() {
    story("acl", |scratch| async move {
        let acl = scratch.0.join("acl");
        std::fs::write(&acl, "topic read #\ntopic write shutter/v1/hub\ntopic write shutter/v1/n1/state\ntopic write shutter/v1/n1/info\n")
            .unwrap();
        let broker = Broker::start(&scratch, &format!("allow_anonymous true\nacl_file {}", acl.display())).await;
        let mut hub = StubHub::start(broker.port, true).await;
        let agent = Agent::start(&scratch, hub_at(broker.port));
        agent.until("online", |up| up.state == "online").await;
        agent.take_picture(3_000, 1);
        let image = hub.next_of(|topic, _| matches!(topic, Topic::Image(_)).then_some(()));
        assert!(tokio::time::timeout(Duration::from_secs(3), image).await.is_err());
        let up = agent.status.read().uplink;
        assert!(up.sent_bytes == 0 && up.connects == 1, "{up:?}");
        assert_eq!(agent.pending(), 1);
    });
}

#[test]
fn a_small_packet_limit_makes_smaller_chunks() {
    story("limit", |scratch| async move {
        let broker = Broker::start(&scratch, "allow_anonymous true\nmax_packet_size 20000").await;
        let mut hub = StubHub::start(broker.port, true).await;
        let agent = Agent::start(&scratch, hub_at(broker.port));
        let stored = agent.take_picture(50_000, 1);
        let mut got = Vec::new();
        loop {
            match hub.next().await {
                (Topic::Init(id), payload) => {
                    let init: Init = serde_json::from_slice(&payload).unwrap();
                    let part = BTreeMap::from([(id, Part { hash8: init.hash8, ranges: vec![] })]);
                    hub.ack(Ack { part, ..ack(id.store, vec![]) }).await;
                }
                (Topic::Chunk { .. }, payload) => got.extend(payload),
                (Topic::Fin(_), _) => break,
                (Topic::Image(_), _) => panic!("larger than the broker takes"),
                _ => {}
            }
        }
        assert_eq!(got, std::fs::read(&stored.path).unwrap());
    });
}

#[test]
fn a_packet_limit_too_small_for_reasons_is_said() {
    story("too-small", |scratch| async move {
        let broker = Broker::start(&scratch, "allow_anonymous true\nmax_packet_size 16000").await;
        let error = error_of(&scratch, hub_at(broker.port)).await;
        assert!(error.contains("packets of 16000 bytes at most; raise its maximum packet size to 16896 or more"), "{error}");
    });
}

#[test]
fn a_refused_login_says_what_to_do_and_never_the_password() {
    story("login", |scratch| async move {
        let passwords = scratch.0.join("passwords");
        let made = Command::new("mosquitto_passwd").args(["-c", "-b"]).arg(&passwords).args(["n1", "right"]).status().unwrap();
        assert!(made.success());
        let broker = Broker::start(&scratch, &format!("allow_anonymous false\npassword_file {}", passwords.display())).await;
        let with = |password: &str| Hub { user: Some("n1".into()), password: Some(Secret::new(password.into())), ..hub_at(broker.port) };
        let agent = Agent::start(&scratch, with("wrong-7719"));
        agent.until("refused", |up| up.error.is_some()).await;
        let error = agent.status.read().uplink.error.unwrap();
        assert!(error.contains("check user and password") && !error.contains("7719"), "{error}");
        let other = Scratch::new("login-right");
        Agent::start(&other, with("right")).until("let in", |up| up.state == "waiting").await;
    });
}

#[test]
fn over_tls_only_the_hubs_own_authority_is_believed() {
    story("tls", |scratch| async move {
        let make = |arguments: &str| {
            let run = Command::new("openssl").args(arguments.split(' ')).current_dir(&scratch.0).output().unwrap();
            assert!(run.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&run.stderr));
        };
        std::fs::write(scratch.0.join("san"), "basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1\n").unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        for authority in ["ca", "other"] {
            make(&format!("req -x509 {key} -keyout {authority}.key -out {authority}.pem -days 30 -subj /CN={authority}"));
        }
        make(&format!("req {key} -keyout hub.key -out hub.csr -subj /CN=hub"));
        make("x509 -req -in hub.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile san -days 30 -out hub.pem");
        let file = |name: &str| scratch.0.join(name);
        let (cert, key) = (file("hub.pem"), file("hub.key"));
        let broker =
            Broker::start(&scratch, &format!("allow_anonymous true\ncertfile {}\nkeyfile {}", cert.display(), key.display())).await;
        let with = |ca: &str| Hub { tls: Some(Tls { ca_file: Some(file(ca)), client: None }), ..hub_at(broker.port) };
        let agent = Agent::start(&scratch, with("ca.pem"));
        agent.until("linked", |up| up.state == "waiting").await;
        assert!(agent.status.read().uplink.tls_clock.is_some());
        for (ca, says) in [("other.pem", "an authority that is not known here"), ("absent.pem", "cannot read authority file")] {
            let other = Scratch::new(&format!("tls-{ca}"));
            let agent = Agent::start(&other, with(ca));
            agent.until("refused", |up| up.error.is_some()).await;
            let error = agent.status.read().uplink.error.unwrap();
            assert!(error.contains(says), "{error}");
        }
    });
}

async fn error_of(scratch: &Scratch, hub: Hub) -> String {
    let agent = Agent::start(scratch, hub);
    agent.until("noticed", |up| up.error.is_some()).await;
    agent.status.read().uplink.error.unwrap()
}

#[test]
fn each_way_to_fail_says_what_happened() {
    story("errors", |scratch| async move {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let old = no_broker(vec![vec![0x20, 2, 0, 1]], true).await;
        let silent = no_broker(vec![], false).await;
        let cases = [
            (hub_at(closed), "nothing listens there"),
            (hub_at(old), "MQTT 3.1.1"),
            (hub_at(silent), "no answer within 10 s"),
            (Hub { host: "no-such-hub.invalid".into(), ..hub_at(1) }, "the name is not known"),
        ];
        for (n, (hub, says)) in cases.into_iter().enumerate() {
            let scratch = Scratch(scratch.0.join(n.to_string()));
            let error = error_of(&scratch, hub).await;
            assert!(error.contains(says), "{error}");
        }
    });
}

#[test]
fn a_broker_that_swallows_bytes_without_a_word_is_given_up() {
    story("watchdog", |scratch| async move {
        // CONNACK, SUBACK (packet 1, three topics granted) and the hub's presence; nothing is read after that.
        let presence = serde_json::to_vec(&HubPresence { v: VERSION, online: true, time_ms: None, worker: Session(1) }).unwrap();
        let mut answer = b"\x20\x03\x00\x00\x00\x90\x06\x00\x01\x00\x01\x01\x01\x30".to_vec();
        answer.push((2 + HUB_TOPIC.len() + 1 + presence.len()) as u8);
        answer.extend([0, HUB_TOPIC.len() as u8]);
        answer.extend([HUB_TOPIC.as_bytes(), &[0], &presence].concat());
        // State and info are taken, so that pictures follow.
        let pubacks = vec![0x40, 2, 0, 2, 0x40, 2, 0, 3];
        let port = no_broker(vec![answer, pubacks], false).await;
        let agent = Agent::start(&scratch, hub_at(port));
        for fill in 0..100 {
            agent.take_picture(90_000, fill);
        }
        agent.until("online", |up| up.state == "online").await;
        agent.until("given up", |up| up.error.is_some()).await;
        let error = agent.status.read().uplink.error.unwrap();
        assert!(error.contains("has not answered for 20 s"), "{error}");
        assert_eq!(agent.pending(), 100);
    });
}

#[test]
fn a_long_link_is_kept_full() {
    story("full", |scratch| async move {
        const BYTES_PER_S: u64 = 1_250_000;
        let broker = Broker::start(&scratch, "allow_anonymous true").await;
        let mut hub = StubHub::start(broker.port, false).await;
        let port = slow_link(broker.port, BYTES_PER_S).await;
        let agent = Agent::start(&scratch, hub_at(port));
        for fill in 1..=30 {
            agent.take_picture(if fill % 2 == 0 { 60_000 } else { 300_000 }, fill);
        }
        agent.until("linked", |up| up.state == "waiting").await;
        hub.say_present(true).await;
        // The first few are login, slow start and the first `init`; the last few are the tail.
        let (mut done, mut began_ms, mut took_ms, mut bytes) = (0, 0, 0, 0);
        while done < 30 {
            let now_ms = SystemClock.boottime_ms();
            if done < 5 {
                (began_ms, bytes) = (now_ms, 0);
            } else if done < 26 {
                took_ms = now_ms - began_ms;
            }
            let (topic, payload) = hub.next().await;
            if done < 26 {
                bytes += payload.len();
            }
            let (id, whole) = match topic {
                Topic::Image(id) | Topic::Fin(id) => (id, true),
                Topic::Init(id) => (id, false),
                _ => continue,
            };
            let hash8 = agent.store.snap(id).unwrap().unwrap().hash8;
            if whole {
                done += 1;
                hub.ack(ack(id.store, vec![(id.seq, hash8)])).await;
            } else {
                let part = BTreeMap::from([(id, Part { hash8, ranges: vec![] })]);
                hub.ack(Ack { part, ..ack(id.store, vec![]) }).await;
            }
        }
        let bare_ms = bare_transfer_ms(bytes, BYTES_PER_S).await;
        eprintln!("{bytes} bytes in {took_ms} ms; the bare link needs {bare_ms} ms");
        assert!(bare_ms * 100 >= took_ms * 75, "{took_ms} ms where the bare link needs {bare_ms} ms");
        agent.until_pending(0).await;
    });
}
