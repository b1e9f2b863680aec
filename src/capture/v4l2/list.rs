//! What V4L2 devices this machine has, for `shutterd cameras`: how to name each, what it can, and what would be used of it.
//!
//! Every node is listed, with the reason where it cannot be asked: a camera that is there but closed to us is what the
//! person at the terminal looks for.

use super::{
    controls,
    device::{Device, fourcc},
    find::{self, Node, Places},
    format::{self, rate_in_words},
};
use crate::config::settings::Video;
use crate::model::PIXELS_MAX;
use serde::Serialize;
use std::{io, path::PathBuf};

#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Such as `/dev/video0`; the number changes with the order of plugging.
    pub node: PathBuf,
    /// Names that stay, from `/dev/v4l/by-id` and `by-path`.
    pub links: Vec<PathBuf>,
    pub card: String,
    pub driver: String,
    pub bus: String,
    /// USB serial, which many cheap cameras do not have.
    pub serial: Option<String>,
    /// USB port, such as `1-1.2`.
    pub port: Option<String>,
    /// False for metadata, output and codec nodes.
    pub captures: bool,
    pub formats: Vec<FormatInfo>,
    /// What can be set in `[cameras.NAME.controls]`, with its bounds.
    pub controls: Vec<String>,
    /// The address to configure it by: the steadiest that fits no other camera.
    pub source: Option<String>,
    /// Format and size that are used unless others are configured; or why none can be.
    pub would_use: Option<String>,
    /// Why the node could not be asked.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct FormatInfo {
    /// Four characters, such as `MJPG`.
    pub fourcc: String,
    pub description: String,
    /// Whether pictures can be made of it here.
    pub usable: bool,
    /// `1920x1080`, or a range with its step.
    pub sizes: Vec<String>,
    /// Frames per second at the largest size.
    pub rates: Vec<String>,
}

/// All nodes in the order of their numbers; empty on a machine without any.
pub fn list() -> Vec<DeviceInfo> {
    let places = Places::default();
    find::all(&places).into_iter().map(|node| describe(node, &places)).collect()
}

fn describe(node: Node, places: &Places) -> DeviceInfo {
    let source = source(&node, places);
    let mut info = DeviceInfo {
        node: node.path,
        links: node.links,
        card: node.name,
        driver: String::new(),
        bus: String::new(),
        serial: node.usb.as_ref().and_then(|usb| usb.serial.clone()),
        port: node.usb.map(|usb| usb.port),
        captures: false,
        formats: Vec::new(),
        controls: Vec::new(),
        source: None,
        would_use: None,
        error: None,
    };
    if let Err(error) = ask(&mut info) {
        info.error = Some(match error.kind() {
            io::ErrorKind::PermissionDenied => format!("{error}; is the user in the group `video`?"),
            _ => error.to_string(),
        });
    }
    info.source = (info.captures || info.error.is_some()).then_some(source);
    info
}

/// By serial, else by port, else by the path's link, else by number.
fn source(node: &Node, places: &Places) -> String {
    let leads_here = |name: &&str| find::find(name, places).is_ok_and(|nodes| nodes.iter().any(|found| found.path == node.path));
    let usb = node.usb.as_ref();
    let by_path = node.links.iter().find(|link| link.parent().is_some_and(|dir| dir.ends_with("by-path")));
    let by_path = by_path.and_then(|link| link.file_name()?.to_str());
    let names = [usb.and_then(|usb| usb.serial.as_deref()), usb.map(|usb| usb.port.as_str()), by_path, node.path.to_str()];
    format!("v4l2:{}", names.into_iter().flatten().find(leads_here).unwrap_or("?"))
}

fn ask(info: &mut DeviceInfo) -> io::Result<()> {
    let device = Device::open(&info.node)?;
    let caps = device.capability()?;
    info.captures = caps.captures();
    let offers = if caps.captures() { device.offers(caps.buffers())? } else { Vec::new() };
    if caps.captures() {
        let chosen = format::choose(&offers, &Video::default(), PIXELS_MAX);
        info.would_use = Some(chosen.map_or_else(|why| format!("nothing: {why}"), |choice| choice.to_string()));
        info.controls = controls::knobs(&device).iter().map(controls::in_words).collect();
    }
    (info.card, info.driver, info.bus) = (caps.card, caps.driver, caps.bus);
    for offer in offers {
        let largest = offer.sizes.iter().map(|size| size.max).max_by_key(|(width, height)| u64::from(*width) * u64::from(*height));
        let mut rates: Vec<String> =
            largest.map(|size| device.rates(offer.fourcc, size)).unwrap_or_default().into_iter().map(rate_in_words).collect();
        rates.dedup();
        info.formats.push(FormatInfo {
            fourcc: fourcc(offer.fourcc),
            description: offer.description,
            usable: format::usable(offer.fourcc),
            sizes: offer.sizes.iter().map(ToString::to_string).collect(),
            rates,
        });
    }
    Ok(())
}
