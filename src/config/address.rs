//! Addresses of cameras and hub, with the credentials taken out of them.
//!
//! No complaint here quotes the address: it may hold a password. An address is refused when it could be read in a way
//! that shows a piece of a badly escaped password as host or path.

use super::{
    command::CommandLine,
    secret::{PatternFault, PatternOptions, Secret, SourceKind, SourceUrl},
    units,
};
use crate::model::{PATTERN_DELAY_MAX_MS, PATTERN_SIDE_MAX, PATTERN_SIDE_MIN};
use url::Url;

const ESCAPES: &str = "in a password write @ as %40, / as %2F, ? as %3F, # as %23 and % as %25, or use password_file";

/// A hub address taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HubAddress {
    pub host: String,
    pub port: u16,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub tls: bool,
}

/// Reads the `source` of a camera.
/// # Errors
/// Says what is wrong, without the address, and what would do.
pub(super) fn source(text: &str) -> Result<SourceUrl, String> {
    let plain = |kind| SourceUrl { kind, user: None, password: None };
    if let Some(device) = text.strip_prefix("v4l2:") {
        if device.is_empty() || device.chars().any(char::is_control) {
            return Err("v4l2: needs the camera's name or device after it, such as \"v4l2:/dev/video0\"".to_owned());
        }
        return Ok(plain(SourceKind::V4l2(device.to_owned())));
    }
    if let Some(options) = text.strip_prefix("pattern:") {
        return Ok(plain(SourceKind::Pattern(pattern(options)?)));
    }
    // A program of the file's writer runs with the agent's rights. Only a file on this board is read here; a configuration that comes
    // over a network must refuse this kind before it gets here.
    if let Some(line) = text.strip_prefix("command:") {
        return Ok(plain(SourceKind::Command(CommandLine::read(line)?)));
    }
    match text.split(':').next().filter(|_| text.contains(':')).unwrap_or_default() {
        "rtsp" => {
            let (mut url, user, password) = open(text, "rtsp://user@10.0.0.5/stream")?;
            // Non-special schemes accept both; they fail only without a host, which `open` has checked.
            let cleared = url.set_username("").and_then(|()| url.set_password(None));
            cleared.map_err(|()| format!("the address cannot be read; {ESCAPES}"))?;
            Ok(SourceUrl { kind: SourceKind::Rtsp(url), user, password })
        }
        "rtsps" => Err("rtsps:// is not supported: the RTSP library has no TLS; use rtsp:// on a network that you trust".to_owned()),
        scheme @ ("http" | "https") => {
            Err(format!("{scheme}:// cameras are not in this version; use the camera's rtsp:// address, v4l2: or command:"))
        }
        _ => {
            Err("not a camera address; it begins with rtsp://, v4l2:, command: or pattern:, such as \"rtsp://user@10.0.0.5/stream\""
                .to_owned())
        }
    }
}

/// Reads the `url` of the hub.
/// # Errors
/// Says what is wrong, without the address, and what would do.
pub(super) fn hub(text: &str) -> Result<HubAddress, String> {
    let tls = match text.split("://").next().filter(|_| text.contains("://")).unwrap_or_default() {
        "mqtts" => true,
        "mqtt" => false,
        "ssl" | "tls" => return Err("write mqtts:// for a hub with TLS".to_owned()),
        "tcp" => return Err("write mqtt:// for a hub without TLS, mqtts:// for one with".to_owned()),
        "ws" | "wss" | "http" | "https" => {
            return Err("the hub is reached over plain MQTT, not over HTTP or websockets; write mqtts://HOST".to_owned());
        }
        _ => return Err("not a hub address; it begins with mqtts:// or mqtt://, such as \"mqtts://river-07@hub.example\"".to_owned()),
    };
    let (url, user, password) = open(text, "mqtts://river-07@hub.example")?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(format!("nothing may follow host and port, as in \"mqtts://river-07@hub.example:8883\"; {ESCAPES}"));
    }
    // An IPv6 address stands in brackets in an address only.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port().unwrap_or(if tls { 8883 } else { 1883 });
    Ok(HubAddress { host, port, user, password, tls })
}

/// Reads `//[user[:password]@]host[:port]…`.
fn open(text: &str, example: &str) -> Result<(Url, Option<String>, Option<Secret>), String> {
    let url = Url::parse(text).map_err(|cause| format!("the address cannot be read ({cause}); write it as \"{example}\"; {ESCAPES}"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("the address has no host; write it as \"{example}\""));
    }
    if url.port() == Some(0) {
        return Err("port 0 cannot be reached; leave the port out for the usual one".to_owned());
    }
    if url.fragment().is_some() || url.path().contains('@') || url.query().is_some_and(|query| query.contains('@')) {
        return Err(format!("there is a # or @ behind the host; {ESCAPES}"));
    }
    let decoded = |part: &str| percent_decoded(part).ok_or_else(|| format!("user or password is badly escaped; {ESCAPES}"));
    let user = Some(url.username()).filter(|user| !user.is_empty()).map(decoded).transpose()?;
    let password = url.password().map(decoded).transpose()?.map(Secret::new);
    if password.is_some() && user.is_none() {
        return Err(format!("there is a password but no user; write it as \"{example}\""));
    }
    Ok((url, user, password))
}

fn percent_decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    loop {
        rest = match rest {
            [] => break,
            [b'%', high, low, after @ ..] => {
                bytes.push((hex(*high)? << 4) | hex(*low)?);
                after
            }
            [b'%', ..] => return None,
            [plain, after @ ..] => {
                bytes.push(*plain);
                after
            }
        };
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Reads the options of a test card: `?size=640x480&fault=late:500`.
fn pattern(options: &str) -> Result<PatternOptions, String> {
    let mut card = PatternOptions { width: 640, height: 480, fault: None, fault_every: 1, noise: 0, jpeg: false, warm_up_ms: 0 };
    let options = match options.strip_prefix('?') {
        Some(options) => options,
        None if options.is_empty() => return Ok(card),
        None => return Err("options of a test card follow a ?, such as \"pattern:?size=640x480\"".to_owned()),
    };
    let mut fault_every = None;
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let wrong = |want: &str| format!("the test card's {name} is {want}");
        match name {
            "size" => {
                let side = |text: &str| text.parse().ok().filter(|side| (PATTERN_SIDE_MIN..=PATTERN_SIDE_MAX).contains(side));
                let sides = value.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
                let want = || wrong(&format!("WIDTHxHEIGHT, each from {PATTERN_SIDE_MIN} to {PATTERN_SIDE_MAX}, such as size=640x480"));
                (card.width, card.height) = sides.ok_or_else(want)?;
            }
            "fault" => card.fault = Some(fault(value)?),
            "fault_every" => {
                let every = value.parse().ok().filter(|every| *every >= 1);
                fault_every = Some(every.ok_or_else(|| wrong("a whole number from 1, such as fault_every=10"))?);
            }
            "noise" => {
                let noise = value.parse().ok().filter(|noise| *noise <= 100);
                card.noise = noise.ok_or_else(|| wrong("a whole number from 0 to 100"))?;
            }
            "jpeg" => {
                card.jpeg = match value {
                    "1" => true,
                    "0" => false,
                    _ => return Err(wrong("0 or 1")),
                }
            }
            "warm_up" => {
                let warm_up_ms = value.parse().ok().filter(|ms| *ms <= PATTERN_DELAY_MAX_MS);
                card.warm_up_ms = warm_up_ms.ok_or_else(|| wrong("in milliseconds, such as warm_up=2000"))?;
            }
            _ => return Err("a test card has these options: size, fault, fault_every, noise, jpeg, warm_up".to_owned()),
        }
    }
    match (fault_every, card.fault) {
        (Some(_), None) => return Err("fault_every needs a fault, such as fault=fail&fault_every=10".to_owned()),
        (every, _) => card.fault_every = every.unwrap_or(1),
    }
    Ok(card)
}

fn fault(text: &str) -> Result<PatternFault, String> {
    let delay = |text: &str| text.parse().ok().filter(|ms| (1..=PATTERN_DELAY_MAX_MS).contains(ms));
    let fault = match text.split_once(':') {
        Some(("late", ms)) => delay(ms).map(PatternFault::Late),
        Some(("stuck", ms)) => delay(ms).map(PatternFault::Stuck),
        Some(_) => None,
        None => match text {
            "hang" => Some(PatternFault::Hang),
            "fail" => Some(PatternFault::Fail),
            "corrupt" => Some(PatternFault::Corrupt),
            "panic" => Some(PatternFault::Panic),
            _ => None,
        },
    };
    let longest = units::InWords(PATTERN_DELAY_MAX_MS);
    fault.ok_or_else(|| {
        format!("the test card's fault is late:MS, stuck:MS, hang, fail, corrupt or panic; MS is in milliseconds, up to {longest}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn credentials_leave_the_address() {
        let camera = source("rtsp://admin:p%40ss%2Fw%25@10.0.0.5:8554/h264?x=1").unwrap();
        assert_eq!((camera.user.as_deref(), camera.password.as_ref().map(Secret::expose)), (Some("admin"), Some("p@ss/w%")));
        let SourceKind::Rtsp(url) = &camera.kind else { panic!() };
        assert_eq!(url.as_str(), "rtsp://10.0.0.5:8554/h264?x=1");
        assert_eq!(format!("{camera} {camera:?}"), "rtsp://10.0.0.5:8554/h264 rtsp://10.0.0.5:8554/h264");

        let address = hub("mqtts://river-07:s%3Acret@hub.example").unwrap();
        assert_eq!((address.host.as_str(), address.port, address.tls), ("hub.example", 8883, true));
        assert_eq!(address.password.as_ref().map(Secret::expose), Some("s:cret"));
        let address = hub("mqtt://[fd00::1]/").unwrap();
        assert_eq!((address.host.as_str(), address.port, address.user), ("fd00::1", 1883, None));
    }

    #[test]
    fn an_unescaped_password_is_refused_and_no_piece_of_it_is_shown() {
        for text in
            ["rtsp://u:hunter#2@h/s", "rtsp://u:12/hunter@h/s", "rtsp://u:12?hunter@h/s", "rtsp://u:hun/ter@h/s", "rtsp://:hunter@h/"]
        {
            let said = source(text).unwrap_err();
            assert!(!said.contains("hun") && !said.contains("ter@"), "{said}");
        }
        assert!(hub("mqtt://u:12/hunter@h").is_err());
        assert!(source("rtsp://h/x%zz").is_ok(), "a path is the camera's own business");
        assert!(source("rtsp://u:hunter%zz@h/x").unwrap_err().contains("badly escaped"));
    }

    #[test]
    fn a_login_in_the_path_is_not_shown() {
        let camera = source("rtsp://10.0.0.5/user=admin_password=hunter2_channel=1").unwrap();
        assert_eq!(camera.to_string(), "rtsp://10.0.0.5/…");
    }

    #[test]
    fn a_test_card_takes_all_its_options() {
        let SourceKind::Pattern(card) =
            source("pattern:?size=1280x720&fault=late:500&fault_every=10&noise=30&jpeg=1&warm_up=700").unwrap().kind
        else {
            panic!()
        };
        let wanted = PatternOptions {
            width: 1280,
            height: 720,
            fault: Some(PatternFault::Late(500)),
            fault_every: 10,
            noise: 30,
            jpeg: true,
            warm_up_ms: 700,
        };
        assert_eq!(card, wanted);
        for (text, fault) in [("stuck:9", PatternFault::Stuck(9)), ("hang", PatternFault::Hang), ("panic", PatternFault::Panic)] {
            assert_eq!(super::fault(text), Ok(fault));
        }
    }

    proptest! {
        #[test]
        fn any_address_is_answered(text in "(rtsp://|mqtts?://|pattern:[?]|v4l2:|)\\PC*") {
            let _ = (source(&text), hub(&text));
        }
        #[test]
        fn any_password_survives_its_escapes(password in "\\PC{1,20}") {
            let escaped: String = password.bytes().map(|b| format!("%{b:02x}")).collect();
            let camera = source(&format!("rtsp://u:{escaped}@h/s")).unwrap();
            prop_assert_eq!(camera.password, Some(Secret::new(password)));
        }
    }
}
