//! The hub's page: every node ever seen, what it says of itself, and each camera's latest picture.
//!
//! Plain HTML made here, nothing fetched from elsewhere, no script. Off loopback it asks for an account.

use crate::hub::{
    accounts::Accounts,
    intake::now_ms,
    nodes::{Latest, Node, Nodes},
    objects::Objects,
    shelves::picture_key,
};
use crate::model::{CameraId, NodeId, Quality};
use crate::protocol::{CameraHealth, Completeness, NodeState, share};
use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use chrono::{DateTime, Utc};
use std::{
    fmt::Write,
    sync::{Arc, Mutex},
};

#[derive(Clone)]
pub struct View {
    pub nodes: Arc<Mutex<Nodes>>,
    pub objects: Arc<Objects>,
    /// Who may look; `None`: everybody who can reach the address.
    pub readers: Option<Arc<Accounts>>,
}

impl View {
    fn nodes(&self) -> Nodes {
        self.nodes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

pub async fn serve(listener: tokio::net::TcpListener, view: View) {
    let app = Router::new()
        .route("/", get(index))
        .route("/api/nodes", get(nodes))
        .route("/nodes/{node}/cameras/{camera}/latest.jpg", get(latest_of_node))
        .route("/cameras/{camera}/latest.jpg", get(latest_of_camera))
        .layer(middleware::from_fn_with_state(view.clone(), admit))
        .with_state(view);
    if let Err(e) = axum::serve(listener, app).await {
        tracing::error!("the page is gone: {e}");
    }
}

async fn admit(State(view): State<View>, request: Request, next: Next) -> Response {
    if let Some(accounts) = &view.readers {
        let named = request.headers().get(header::AUTHORIZATION).and_then(|h| h.to_str().ok()).and_then(basic);
        let known = match named {
            Some((user, password)) => accounts.check(&user, &password).await,
            None => false,
        };
        if !known {
            let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"shutter-hub\", charset=\"UTF-8\"")];
            return (StatusCode::UNAUTHORIZED, ask, "An account of this hub, please.\n").into_response();
        }
    }
    let mut response = next.run(request).await;
    let policy = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, header::HeaderValue::from_static(policy));
    response
}

async fn nodes(State(view): State<View>) -> Json<std::collections::BTreeMap<NodeId, Node>> {
    Json(view.nodes().0)
}

async fn latest_of_node(State(view): State<View>, Path((node, camera)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let nodes = view.nodes();
    let (Ok(node), Ok(camera)) = (node.parse::<NodeId>(), camera.parse::<CameraId>()) else { return missing() };
    match nodes.0.get(&node).and_then(|n| n.latest.get(&camera)) {
        Some(latest) => picture(&view, &node, latest, &headers).await,
        None => missing(),
    }
}

/// The newest picture of that name over all nodes, by arrival.
async fn latest_of_camera(State(view): State<View>, Path(camera): Path<String>, headers: HeaderMap) -> Response {
    let nodes = view.nodes();
    let Ok(camera) = camera.parse::<CameraId>() else { return missing() };
    let all = nodes.0.iter().filter_map(|(node, n)| Some((node, n.latest.get(&camera)?)));
    match all.max_by_key(|(_, latest)| latest.received_ms) {
        Some((node, latest)) => picture(&view, node, latest, &headers).await,
        None => missing(),
    }
}

fn missing() -> Response {
    (StatusCode::NOT_FOUND, "There is no such picture.\n").into_response()
}

async fn picture(view: &View, node: &NodeId, latest: &Latest, headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", latest.hash8);
    let cache = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "no-cache".into())];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|h| h.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, cache).into_response();
    }
    match view.objects.get(&format!("{}.jpg", picture_key(node, latest.id, latest.hash8))).await {
        Ok(Some(bytes)) => (cache, [(header::CONTENT_TYPE, "image/jpeg")], bytes).into_response(),
        Ok(None) => missing(),
        Err(e) => {
            tracing::error!("{}", crate::error::Chain(&e));
            (StatusCode::INTERNAL_SERVER_ERROR, "The hub's disk has a fault; its log says more.\n").into_response()
        }
    }
}

/// User and password of a Basic authorization (RFC 7617).
fn basic(header: &str) -> Option<(String, Vec<u8>)> {
    let (scheme, text) = header.split_once(' ')?;
    let plain = scheme.eq_ignore_ascii_case("basic").then(|| base64(text.trim()))??;
    let colon = plain.iter().position(|&b| b == b':')?;
    Some((String::from_utf8(plain[..colon].to_vec()).ok()?, plain[colon + 1..].to_vec()))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut held, mut bytes) = (0u32, 0, Vec::new());
    for c in text.trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, held) = (bits << 6 | u32::from(value), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

const STYLE: &str = "
:root{color-scheme:light dark;--line:color-mix(in srgb,currentColor 18%,transparent);--dim:color-mix(in srgb,currentColor 62%,transparent)}
body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:1.5rem auto;padding:0 1rem}
h1{font-size:1.25rem;margin:0 0 1rem}h2{font-size:1.05rem;margin:0}h3{font-size:.95rem;margin:0;font-weight:600}
section{border:1px solid var(--line);border-radius:10px;padding:1rem;margin:0 0 1rem}
header{display:flex;flex-wrap:wrap;gap:.3rem .8rem;align-items:baseline}
.t{white-space:nowrap}.dim,dt{color:var(--dim)}.s{border-radius:9px;padding:0 .55rem;font-size:.85rem;border:1px solid currentColor}
.good{color:#1a7f37}.bad{color:#cf222e}.idle{color:#8a6d00}
@media(prefers-color-scheme:dark){.good{color:#4ac26b}.bad{color:#ff7b72}.idle{color:#d4a72c}}
dl{display:flex;flex-wrap:wrap;gap:.2rem 1.6rem;margin:.6rem 0}dl div{display:flex;gap:.4rem}dd{margin:0}
.alarm{border-left:4px solid #cf222e;padding:.2rem .7rem;margin:.4rem 0}
.cams{display:grid;grid-template-columns:repeat(auto-fill,minmax(16rem,1fr));gap:1rem}
figure{margin:0}img,.none{width:100%;aspect-ratio:16/9;object-fit:contain;background:#8882;border-radius:6px;display:block}
.none{display:grid;place-items:center}figcaption{display:flex;flex-wrap:wrap;gap:.1rem .6rem;align-items:baseline;margin-top:.3rem}
";

async fn index(State(view): State<View>) -> Html<String> {
    let (nodes, now) = (view.nodes().0, now_ms());
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <meta http-equiv=refresh content=10><title>shutter-hub</title><style>{STYLE}</style>\
         <h1>shutter-hub <span class=dim>{} node{} · {}</span></h1>",
        nodes.len(),
        if nodes.len() == 1 { "" } else { "s" },
        utc(now)
    );
    if nodes.is_empty() {
        page.push_str("<p class=dim>No node has been seen yet.</p>");
    }
    for (name, node) in &nodes {
        // Writing to a String cannot fail.
        let _ = write_node(&mut page, name, node, now);
    }
    Html(page)
}

fn write_node(page: &mut String, name: &NodeId, node: &Node, now: i64) -> std::fmt::Result {
    write!(page, "<section><header><h2>{name}</h2>")?;
    match &node.state {
        Some(seen) => {
            let (class, word) = match seen.said.state {
                NodeState::Online => ("good", "online"),
                NodeState::Offline => ("bad", "offline"),
                NodeState::Stopped => ("idle", "stopped"),
                NodeState::Fault => ("bad", "fault"),
            };
            write!(
                page,
                "<span class=\"s {class}\">{word}</span><span class=dim>since {}, {}</span>",
                utc(seen.since_ms),
                ago(now - seen.since_ms)
            )?;
            if let Some(detail) = &seen.said.detail {
                write!(page, "<span class=bad>{}</span>", escape(detail))?;
            }
        }
        None => page.push_str("<span class=\"s idle\">state unknown</span>"),
    }
    page.push_str("</header><dl>");
    let mut fact = |what: &str, value: String| write!(page, "<div><dt>{what}</dt><dd>{value}</dd></div>");
    if let Some(info) = &node.info {
        let info = &info.said;
        let clock = match info.clock {
            Quality::Unset => "not set",
            Quality::Saved => "carried over, not checked",
            Quality::Rtc => "clock chip",
            Quality::Hub => "by the hub's time",
            Quality::Ntp => "synchronised",
        };
        fact("clock", clock.into())?;
        fact("waiting", format!("{} pictures, {}", info.backlog, bytes(info.backlog_bytes)))?;
        fact("stored there", format!("{} pictures, {}", info.stored, bytes(info.stored_bytes)))?;
        if let Some(told) = &info.completeness {
            fact("complete", completeness(told))?;
        }
        fact("version", escape(&info.version))?;
        if let Some(flash) = &info.flash {
            let today = flash.today.written.pictures + flash.today.written.index;
            fact("written today", format!("{} in {} flushes", bytes(today.bytes), today.flushes))?;
        }
        if let Some(error) = &info.config_error {
            fact("configuration", format!("<span class=bad>runs on the last accepted one: {}</span>", escape(error)))?;
        }
        if info.tls_clock.as_deref() == Some("unchecked") {
            fact("TLS", "certificates judged without a trusted clock".into())?;
        }
        if info.clone_seen {
            fact("clone", "<span class=bad>the node has seen another of its name</span>".into())?;
        }
    }
    fact("gap messages", node.gap_messages.to_string())?;
    page.push_str("</dl>");
    for alarm in node.alarms.iter().rev() {
        write!(
            page,
            "<div class=alarm><b>{}</b> {} <span class=dim>{}</span></div>",
            escape(&alarm.kind),
            escape(&alarm.text),
            utc(alarm.at_ms)
        )?;
    }
    page.push_str("<div class=cams>");
    for camera in node.all_cameras() {
        write_camera(page, name, node, camera, now)?;
    }
    page.push_str("</div></section>");
    Ok(())
}

/// Planned, taken, and each reason why not, worst first.
fn completeness(told: &Completeness) -> String {
    let mut without: Vec<_> = told.slots.iter().filter(|(label, _)| *label != "captured").collect();
    without.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let (planned, captured, share) = share(&told.slots);
    let share = share.map_or_else(String::new, |share| format!("{share:.2} %: "));
    let mut words = format!("{share}{captured} of {planned} planned since {}", escape(&told.since));
    for (label, count) in without {
        let _ = write!(words, ", {count} {}", escape(label));
    }
    words
}

fn write_camera(page: &mut String, name: &NodeId, node: &Node, camera: &CameraId, now: i64) -> std::fmt::Result {
    page.push_str("<figure>");
    let latest = node.latest.get(camera);
    match latest {
        // The hash makes a new address of each new picture.
        Some(latest) => write!(
            page,
            "<a href=\"/nodes/{name}/cameras/{camera}/latest.jpg\"><img alt=\"latest picture of {camera}\" src=\"/nodes/{name}/cameras/{camera}/latest.jpg?{}\"></a>",
            latest.hash8
        )?,
        None => page.push_str("<div class=\"none dim\">no picture yet</div>"),
    }
    write!(page, "<figcaption><h3>{camera}</h3>")?;
    if let Some(seen) = node.cameras.get(camera) {
        let (class, word) = match seen.said.state {
            CameraHealth::Ok => ("good", "ok"),
            CameraHealth::Failing => ("bad", "failing"),
            CameraHealth::Off => ("idle", "off"),
        };
        write!(page, "<span class=\"s {class}\">{word}</span>")?;
        if let Some(error) = &seen.said.error {
            write!(page, "<span class=bad>{} ({})</span>", escape(&error.detail), escape(&error.code))?;
        }
    }
    if let Some(latest) = latest {
        match latest.taken.quality {
            Quality::Unset => write!(page, "<span class=dim>clock not set; received {}</span>", utc(latest.received_ms))?,
            q if q.trusted() => write!(
                page,
                "<span class=dim>{}, <span class=t>{}</span></span>",
                utc(latest.taken.wall_ms),
                ago(now - latest.taken.wall_ms)
            )?,
            // What has arrived was taken before.
            _ => write!(page, "<span class=dim>≈ {}; received {}</span>", utc(latest.taken.wall_ms), utc(latest.received_ms))?,
        }
    }
    page.push_str("</figcaption></figure>");
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

fn utc(ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms).map_or("?".into(), |t| t.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

fn ago(ms: i64) -> String {
    match ms / 1_000 {
        s if s < 1 => "now".into(),
        s if s < 120 => format!("{s} s ago"),
        s if s < 7_200 => format!("{} min ago", s / 60),
        s if s < 172_800 => format!("{} h ago", s / 3_600),
        s => format!("{} days ago", s / 86_400),
    }
}

fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..1_000_000 => format!("{:.1} KB", n as f64 / 1e3),
        _ => format!("{:.1} MB", n as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_cannot_become_markup() {
        assert_eq!(escape("<img src=x onerror='a'>&\""), "&lt;img src=x onerror=&#39;a&#39;&gt;&amp;&quot;");
    }

    #[test]
    fn basic_credentials_are_read_and_rubbish_is_not() {
        assert_eq!(basic("Basic bjE6czpjcmV0"), Some(("n1".into(), b"s:cret".to_vec())));
        for bad in ["", "Basic", "Basic !", "Basic bjE=", "Bearer bjE6czpjcmV0"] {
            assert_eq!(basic(bad), None, "{bad}");
        }
    }
}
