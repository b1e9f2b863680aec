//! Pictures whose time became known later: the record of the higher revision stands, whatever came first.

use crate::node::*;
use shutterd::model::*;
use shutterd::protocol::*;

const TRUE_MS: i64 = 1_795_500_000_000;

/// The record of a picture that got its time.
fn retimed(record: &Record) -> Record {
    let taken = Stamp { wall_ms: TRUE_MS, quality: Quality::Hub, uncertainty_ms: Some(30), ..record.taken };
    Record { taken, rev: RETIMED_REV, ..record.clone() }
}

/// What lies beside a picture.
fn beside(dir: &Dir, record: &Record) -> Option<Record> {
    let name = format!("{}-{}.json", record.id.seq, record.hash8.unwrap());
    let path = dir.0.join(format!("data/objects/img/{}/{STORE}/{name}", "n1"));
    std::fs::read(path).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap())
}

async fn page(hub: &Running) -> String {
    String::from_utf8(hub.get("/", "").await.1).unwrap()
}

const SHOWN: &str = "2026-11-24 06:00:00 UTC";

#[tokio::test]
async fn a_record_with_the_true_time_wins_before_and_after_its_picture_and_over_restarts_of_the_hub() {
    for (name, record_first, restart_between) in
        [("after", false, false), ("before", true, false), ("after-restart", false, true), ("before-restart", true, true)]
    {
        let dir = Dir::new(name);
        let mut hub = start(options(&dir.0)).await;
        let mut node = Node::connect(hub.mqtt, "n1").await;
        let (bytes, record) = picture_by(Quality::Saved, "n1", 42, 10, 64);
        let (hash8, late) = (record.hash8.unwrap(), retimed(&record));
        for step in 0..2 {
            if (step == 0) == record_first {
                node.send(Topic::Snap("gate".parse().unwrap()), json(&late)).await;
                let ack = node.ack().await;
                assert_eq!((ack.revs, ack.have), (vec![(Seq(42), 1)], vec![]), "{name}");
                // By the time of the ack it is in place.
                assert_eq!(beside(&dir, &record).as_ref(), Some(&late), "{name}");
            } else {
                node.send(Topic::Image(id(42)), bytes.clone()).await;
                let ack = node.ack().await;
                assert_eq!((ack.revs, ack.have), (vec![], vec![(Seq(42), hash8)]), "{name}");
            }
            if step == 0 {
                let (pictures, shows) = (stored(&dir, "n1").len(), page(&hub).await);
                assert_eq!(
                    (pictures, shows.contains("/latest.jpg")),
                    if record_first { (0, false) } else { (1, true) },
                    "{name}: no phantom"
                );
                if restart_between {
                    drop(node);
                    hub.stop().await;
                    hub = start(options(&dir.0)).await;
                    node = Node::connect(hub.mqtt, "n1").await;
                    // A picture that is not there yet is not acknowledged either.
                    let ask = Ask { v: VERSION, store: STORE.parse().unwrap(), from: Seq(1), to: Seq(99) };
                    node.send(Topic::Ask, json(&ask)).await;
                    assert_eq!(node.ack().await.have.len(), pictures, "{name}");
                }
            }
        }
        assert_eq!(beside(&dir, &record), Some(late), "{name}");
        assert!(page(&hub).await.contains(SHOWN), "{name}: {}", page(&hub).await);
        hub.stop().await;
        let hub = start(options(&dir.0)).await;
        assert!(page(&hub).await.contains(SHOWN), "{name}: after another restart");
        hub.stop().await;
    }
}

#[tokio::test]
async fn the_first_record_of_a_revision_stays_and_every_copy_is_confirmed() {
    let dir = Dir::new("copies");
    let hub = start(options(&dir.0)).await;
    let mut node = Node::connect(hub.mqtt, "n1").await;
    let (bytes, record) = picture_by(Quality::Unset, "n1", 7, 10, 64);
    node.send(Topic::Image(id(7)), bytes.clone()).await;
    node.ack().await;
    assert!(page(&hub).await.contains("clock not set"));
    let late = retimed(&record);
    let other = Record { taken: Stamp { wall_ms: TRUE_MS + 5_000, ..late.taken }, ..late.clone() };
    let oldest = Record { hash8: record.hash8, ..record.clone() };
    for (sent, rev) in [(&late, 1), (&late, 1), (&other, 1), (&oldest, 1)] {
        node.send(Topic::Snap("gate".parse().unwrap()), json(sent)).await;
        assert_eq!(node.ack().await.revs, [(Seq(7), rev)]);
        assert_eq!(beside(&dir, &record).as_ref(), Some(&late));
    }
    // The picture itself, once more.
    node.send(Topic::Image(id(7)), bytes).await;
    node.ack().await;
    assert_eq!(beside(&dir, &record).as_ref(), Some(&late));
    assert!(page(&hub).await.contains(SHOWN));
    hub.stop().await;
}

#[tokio::test]
async fn of_two_pictures_under_one_number_the_record_is_of_the_one_it_names() {
    let dir = Dir::new("twin-records");
    let hub = start(options(&dir.0)).await;
    let mut node = Node::connect(hub.mqtt, "n1").await;
    let [(first, of_first), (second, of_second)] = [10, 90].map(|shade| picture_by(Quality::Saved, "n1", 7, shade, 64));
    for bytes in [first, second] {
        node.send(Topic::Image(id(7)), bytes).await;
        node.ack().await;
    }
    let foreign = Record { sha256: of_first.sha256.clone(), ..retimed(&of_second) };
    let elsewhere = Record { camera: "mast".parse().unwrap(), ..retimed(&of_first) };
    for wrong in [&foreign, &elsewhere] {
        node.send(Topic::Snap("gate".parse().unwrap()), json(wrong)).await;
    }
    node.send(Topic::Snap("gate".parse().unwrap()), json(&retimed(&of_second))).await;
    assert_eq!(node.ack().await.revs, [(Seq(7), 1)], "what names another picture or camera is neither kept nor confirmed");
    assert_eq!(beside(&dir, &of_first).unwrap().rev, 0);
    assert_eq!(beside(&dir, &of_second), Some(retimed(&of_second)));
    hub.stop().await;
}
