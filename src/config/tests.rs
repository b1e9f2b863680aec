//! The file as a person writes it, and what they are told when it is wrong.

use super::{
    checked,
    password::Surroundings,
    secret::{PatternFault, Secret, SourceKind},
    settings::{Mount, WhenFull},
    *,
};
use crate::schedule::{Align, Grid, When};
use proptest::prelude::*;
use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

/// A directory of its own, gone afterwards.
struct Dir(PathBuf);
impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shutterd-config-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn around() -> Surroundings {
    Surroundings { serial: Some("10000000a1b2c3d4".to_owned()), ..Surroundings::default() }
}
fn checked(text: &str) -> Result<(Settings, Vec<Finding>), ConfigErrors> {
    checked::check(text, "f.toml", &around())
}
fn errors(text: &str) -> String {
    checked(text).expect_err("it should be refused").to_string()
}

const GATE: &str = "[cameras.gate]\nsource = \"rtsp://10.0.0.5/s\"\n";

#[test]
fn a_complete_file_means_what_it_says() {
    let dir = Dir::new("complete");
    let password = dir.write("hub-password", "s3cret with spaces \n");
    let text = format!(
        r#"
        [node]
        id = "river-07"
        [hub]
        url = "mqtts://river-07@hub.example:8884"
        password_file = "{}"
        ca_file = "/etc/ca.pem"
        client_cert_file = "/etc/c.pem"
        client_key_file = "/etc/k.pem"
        keep_alive = "1m"
        [store]
        dir = "/data"
        runtime_dir = "/run/x"
        when_full = "drop_oldest"
        profile = "economy"
        require_mount = "/data"
        [keep]
        age = "90d"
        bytes = "20 GiB"
        count = 100_000
        thin = "all for 2d, hourly for 30d, daily for ever"
        free = "1 GiB"
        free_inodes = 1000
        [log]
        level = "debug"
        [cameras.yard]
        source = "v4l2:usb-Logitech-0001"
        quality = 70
        timeout = "2s"
        max_pixels = 2_000_000
        keep_bytes = "4 GiB"
        keep_count = 5000
        [cameras.gate]
        source = "pattern:?fault=late:500&fault_every=10"
        [schedules.gate-5m]
        camera = "gate"
        every = "5m"
        align = "boot"
        phase = "10s"
        enabled = false
        [schedules.yard]
        camera = "yard"
        every = "1h30m"
        "#,
        password.display()
    );
    let (settings, warnings) = checked(&text).unwrap();
    assert_eq!(settings.node.as_str(), "river-07");
    let hub = settings.hub.as_ref().unwrap();
    assert_eq!((hub.host.as_str(), hub.port, hub.keep_alive), ("hub.example", 8884, Duration::from_secs(60)));
    assert_eq!(hub.password.as_ref().map(Secret::expose), Some("s3cret with spaces "), "only the line's end is trimmed");
    assert!(hub.tls.as_ref().is_some_and(|tls| tls.client.is_some()));
    assert_eq!((settings.store.dir.as_path(), settings.store.when_full), (Path::new("/data"), WhenFull::DropOldest));
    assert_eq!(settings.store.require_mount, Some(Mount::At("/data".into())));
    assert_eq!(settings.store.profile.window_ms(), 60_000);
    let keep = &settings.keep;
    assert_eq!((keep.age, keep.bytes), (Some(Duration::from_secs(90 * 86_400)), Some(20 << 30)));
    assert_eq!((keep.count, keep.free, keep.free_inodes, keep.thin.len()), (Some(100_000), Some(1 << 30), Some(1_000), 3));
    assert_eq!(keep.cameras.iter().map(|(id, share)| (id.as_str(), *share)).collect::<Vec<_>>(), [("yard", (Some(4 << 30), Some(5_000)))]);
    let names: Vec<_> = settings.cameras.iter().map(|camera| camera.id.as_str()).collect();
    assert_eq!(names, ["yard", "gate"], "in the order of the file");
    let yard = &settings.cameras[0];
    assert_eq!((yard.quality, yard.timeout, yard.max_pixels), (70, Duration::from_secs(2), 2_000_000));
    let SourceKind::Pattern(card) = &settings.cameras[1].source.kind else { panic!() };
    assert_eq!((card.fault, card.fault_every), (Some(PatternFault::Late(500)), 10));
    let five = &settings.schedules[0];
    assert_eq!(five.rule.when, When::Grid(Grid { period_ms: 300_000, phase_ms: 10_000, align: Align::Boot }));
    assert!(!five.enabled);
    let other = &settings.schedules[1];
    assert!(matches!(other.rule.when, When::Grid(Grid { period_ms: 5_400_000, align: Align::Clock, .. })));
    assert!(other.enabled);
    assert_eq!(settings.version.len(), 8);
    let warned: Vec<_> = warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(
        warned,
        ["no enabled schedule uses camera \"gate\"; it takes pictures on command only", "[cameras.gate] is a test card, not a camera"]
    );
}

#[test]
fn an_empty_file_is_a_node_without_cameras() {
    let (settings, warnings) = checked("").unwrap();
    assert_eq!(settings.node.as_str(), "10000000a1b2c3d4");
    assert_eq!(warnings[0].to_string(), "f.toml: there are no cameras; add one as [cameras.NAME] with its source");
    let nameless = checked::check("", "f.toml", &Surroundings::default()).unwrap_err().to_string();
    assert_eq!(nameless, "f.toml: this board has no serial number to be named by; write [node] and id = \"river-07\"");
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_line() {
    let text = "[cameras.gate]
sorce = \"rtsp://10.0.0.5/s\"
quality = 101
[schedules.a]
camera = \"gaet\"
every = \"-5m\"
[schedules.b]
camera = \"gate\"
every = 300
enabled = \"yes\"
[schedule.c]
";
    assert_eq!(
        errors(text),
        "f.toml:1: [cameras.gate] source: is missing; write where the camera is, such as source = \"rtsp://user@10.0.0.5/stream\"
f.toml:2: unknown key \"sorce\" in [cameras.gate]; did you mean \"source\"?
f.toml:3: [cameras.gate] quality: 101 is out of range; write a whole number from 1 to 100
f.toml:5: [schedules.a] camera: \"gaet\" is no camera of this file; did you mean \"gate\"?
f.toml:6: [schedules.a] every: \"-5m\" is negative; write a duration such as \"5m\"
f.toml:9: [schedules.b] every: expected a duration such as \"5m\", got a number
f.toml:10: [schedules.b] enabled: expected true or false, got a text
f.toml:11: unknown section \"schedule\"; did you mean \"schedules\"?"
    );
}

/// Text after a good camera on lines 1 and 2, and the one message that it earns.
#[test]
fn each_mistake_has_a_message_that_says_what_to_do() {
    for (text, says) in [
        // Syntax.
        (
            "[schedules.a]\ncamera = \"gate\"\nevery = 5m\n",
            "5: this line is not TOML (string values must be quoted); a text stands between double quotes, such as every = \"5m\"; numbers, true and false stand alone",
        ),
        ("[schedules.a\n", "3: this line is not TOML (unclosed table, expected `]`); a section is written [name], such as [cameras.gate]"),
        ("[node]\nid\n", "4: this line is not TOML (key with no value, expected `=`); a line is written key = value"),
        (
            "[node]\nid = \"x\n",
            "4: this line is not TOML (invalid basic string, expected `\"`); a text stands between two double quotes; a backslash in it is written \\\\",
        ),
        (
            "[cameras.y]\nsource = \"v4l2:x\"\nquality = 08\n",
            "5: this line is not TOML (unexpected leading zero); a text stands between double quotes, such as every = \"5m\"; numbers, true and false stand alone",
        ),
        ("[node]\nid =\n", "4: this line is not TOML (string values must be quoted); the value is missing"),
        // Names.
        (
            "[node]\nid = \"n\"\n[node]\n[node]\n",
            "5: a second section of the name \"node\" (the first is on line 3); give one of them another name, or delete it
f.toml:6: a second section of the name \"node\" (the first is on line 3); give one of them another name, or delete it",
        ),
        (
            "[schedules.a]\ncamera = \"gate\"\nevery = \"5m\"\n[schedules.a]\ncamera = \"gate\"\nevery = \"5m\"\n",
            "6: a second section of the name \"a\" (the first is on line 3); give one of them another name, or delete it",
        ),
        (
            "[cameras.gate]\nsource = \"pattern:\"\n",
            "3: a second section of the name \"gate\" (the first is on line 1); give one of them another name, or delete it",
        ),
        ("[node]\nid = \"a\"\nid = \"b\"\n", "5: \"id\" is set a second time in this section; delete one of the two lines"),
        ("[[schedules]]\ncamera = \"gate\"\n", "3: [schedules] is written as a list; use single brackets, and a name of its own for each"),
        (
            "[cameras.Yard]\nsource = \"v4l2:x\"\n",
            "3: name of a camera: \"Yard\" is not an id: use 1 to 32 of a-z, 0-9, - and _, starting with a letter or digit",
        ),
        (
            "[cameras.\"a/b\"]\nsource = \"v4l2:x\"\n",
            "3: name of a camera: this value is not an id: use 1 to 32 of a-z, 0-9, - and _, starting with a letter or digit",
        ),
        (
            "[schedules.\"ä\"]\ncamera = \"gate\"\nevery = \"5m\"\n",
            "3: name of a schedule: \"ä\" is not an id: use 1 to 32 of a-z, 0-9, - and _, starting with a letter or digit",
        ),
        (
            "[node]\nid = \"River 7\"\n",
            "4: [node] id: \"River 7\" is not an id: use 1 to 32 of a-z, 0-9, - and _, starting with a letter or digit",
        ),
        ("[wheel]\n", "3: unknown section \"wheel\"; known here: node, hub, store, keep, log, cameras, schedules"),
        (
            "[hub]\nurl = \"mqtt://u@h\"\npassword = \"hunter2\"\n",
            "5: unknown key \"password\" in [hub]; passwords do not stand in a key of their own; name a file with password_file",
        ),
        (
            "[hub]\n\"mqtt://u:hunter2@h\" = 1\nurl = \"mqtt://h\"\n",
            "4: unknown key \"…\" in [hub]; known here: url, password_file, password_credential, ca_file, client_cert_file, client_key_file, keep_alive",
        ),
        // Types.
        (
            "log = \"info\"\n[node]\n",
            "3: unknown key \"log\" in [cameras.gate]; known here: source, password_file, password_credential, size, rate, format, controls, quality, timeout, max_pixels, keep_bytes, keep_count",
        ),
        ("[cameras]\nyard = \"rtsp://10.0.0.5/\"\n", "4: [cameras.yard]: expected a section, got a text"),
        ("[keep]\nage = 30\n", "4: [keep] age: expected a duration such as \"5m\", got a number"),
        ("[keep]\nbytes = 1e9\n", "4: [keep] bytes: expected a size such as \"20 GiB\", got a number"),
        ("[store]\ndir = [\"/a\"]\n", "4: [store] dir: expected a path such as \"/var/lib/shutterd\", got a list"),
        ("[node]\nid = 2026-11-22\n", "4: [node] id: expected an id such as \"river-07\", got a date"),
        (
            "[cameras.y]\nsource = \"v4l2:x\"\nquality = \"90\"\n",
            "5: [cameras.y] quality: expected a whole number from 1 to 100, got a text",
        ),
        (
            "[cameras.y]\nsource = \"v4l2:x\"\nmax_pixels = -1\n",
            "5: [cameras.y] max_pixels: -1 is out of range; write a whole number from 1 to 132710400",
        ),
        // Bounds.
        ("[schedules.a]\ncamera = \"gate\"\nevery = \"500ms\"\n", "5: [schedules.a] every: 500 ms is too short; write 1 s or more"),
        ("[schedules.a]\ncamera = \"gate\"\nevery = \"32d\"\n", "5: [schedules.a] every: 32 d is too long; write 31 d or less"),
        (
            "[schedules.a]\ncamera = \"gate\"\nevery = \"5m\"\nphase = \"5m\"\n",
            "6: [schedules.a] phase: 5 min must be shorter than the period of 5 min",
        ),
        (
            "[schedules.a]\ncamera = \"gate\"\n",
            "3: [schedules.a] every: is missing; write when: every = \"5m\", at = [\"06:00\", \"sunset\"] or cron = \"0 6 * * mon-fri\"",
        ),
        ("[schedules.a]\nevery = \"5m\"\n", "3: [schedules.a] camera: is missing; write the camera it is for, such as camera = \"gate\""),
        (
            "[schedules.a]\ncamera = \"gate\"\nevery = \"5m\"\nalign = \"utc\"\n",
            "6: [schedules.a] align: \"utc\" is not one of \"clock\", \"boot\"",
        ),
        (
            "[schedules.a]\ncamera = \"yard\"\nevery = \"5m\"\n",
            "4: [schedules.a] camera: \"yard\" is no camera of this file; known here: gate",
        ),
        ("[store]\nwhen_full = \"panic\"\n", "4: [store] when_full: \"panic\" is not one of \"stop\", \"drop_oldest\""),
        ("[store]\ndir = \"data\"\n", "4: [store] dir: a path begins with /, since it must not depend on where the agent is started"),
        ("[keep]\nbytes = \"20 kB\"\n", "4: [keep] bytes: 20 kB is too little; write 1 MiB or more"),
        ("[keep]\ncount = 0\n", "4: [keep] count: 0 is out of range; write a whole number from 10 to 1000000000"),
        ("[keep]\nfree = 1\n", "4: [keep] free: expected a size such as \"20 GiB\", got a number"),
        ("[keep]\nfree_inode = 1\n", "4: unknown key \"free_inode\" in [keep]; did you mean \"free_inodes\"?"),
        (
            "[keep]\nthin = \"all for 2d, hourly for 1d\"\n",
            "4: [keep] thin: \"hourly for 1d\" ends before it begins: it counts from when a picture was taken, and the step before lasts 2 d",
        ),
        ("[keep]\nthin = 2\n", "4: [keep] thin: expected steps such as \"all for 2d, hourly for 30d, daily for ever\", got a number"),
        ("[store]\nprofile = \"eco\"\n", "4: [store] profile: \"eco\" is not one of \"prompt\", \"economy\""),
        ("[store]\nprofil = \"economy\"\n", "4: unknown key \"profil\" in [store]; did you mean \"profile\"?"),
        ("[store]\nrequire_mount = 1\n", "4: [store] require_mount: expected true or false, got a number"),
        (
            "[store]\ndir = \"/a/b\"\nrequire_mount = \"/c\"\n",
            "5: [store] require_mount: is not above the data directory /a/b; write the place where its disk is mounted",
        ),
        ("[cameras.y]\nsource = \"v4l2:x\"\nkeep_bytes = \"1 kB\"\n", "5: [cameras.y] keep_bytes: 1 kB is too little; write 1 MiB or more"),
        ("[keep]\nage = \"1s\"\n", "4: [keep] age: 1 s is too short; write 1 min or more"),
        ("[log]\nlevel = \"loud\"\n", "4: [log] level: \"loud\" is not one of \"error\", \"warn\", \"info\", \"debug\", \"trace\""),
        ("[cameras.y]\nsource = \"v4l2:x\"\ntimeout = \"1h\"\n", "5: [cameras.y] timeout: 1 h is too long; write 10 min or less"),
        // Sources and hub.
        (
            "[cameras.y]\nsource = \"http://u:hunter2@10.0.0.5/jpg\"\n",
            "4: [cameras.y] source: http:// cameras are not in this version; use the camera's rtsp:// address, v4l2: or command:",
        ),
        (
            "[cameras.y]\nsource = \"https://10.0.0.5/jpg\"\n",
            "4: [cameras.y] source: https:// cameras are not in this version; use the camera's rtsp:// address, v4l2: or command:",
        ),
        ("[cameras.y]\nsource = \"command:grab --password 'hunter2\"\n", "4: [cameras.y] source: a quote (') is opened and not closed"),
        (
            "[cameras.y]\nsource = \"rtsps://10.0.0.5/\"\n",
            "4: [cameras.y] source: rtsps:// is not supported: the RTSP library has no TLS; use rtsp:// on a network that you trust",
        ),
        (
            "[cameras.y]\nsource = \"/dev/video0\"\n",
            "4: [cameras.y] source: not a camera address; it begins with rtsp://, v4l2:, command: or pattern:, such as \"rtsp://user@10.0.0.5/stream\"",
        ),
        (
            "[cameras.y]\nsource = \"v4l2:\"\n",
            "4: [cameras.y] source: v4l2: needs the camera's name or device after it, such as \"v4l2:/dev/video0\"",
        ),
        (
            "[cameras.y]\nsource = \"pattern:?size=0x0\"\n",
            "4: [cameras.y] source: the test card's size is WIDTHxHEIGHT, each from 16 to 7680, such as size=640x480",
        ),
        (
            "[cameras.y]\nsource = \"v4l2:x\"\npassword_file = \"/p\"\n",
            "5: [cameras.y] password_file: only an rtsp:// camera has a login; delete this line",
        ),
        (
            "[hub]\nkeep_alive = \"30s\"\n",
            "3: [hub] url: is missing; write the address of the hub, such as url = \"mqtts://river-07@hub.example\"",
        ),
        (
            "[hub]\nurl = \"https://hub\"\n",
            "4: [hub] url: the hub is reached over plain MQTT, not over HTTP or websockets; write mqtts://HOST",
        ),
        (
            "[hub]\nurl = \"hub.example\"\n",
            "4: [hub] url: not a hub address; it begins with mqtts:// or mqtt://, such as \"mqtts://river-07@hub.example\"",
        ),
        (
            "[hub]\nurl = \"mqtt://h\"\nca_file = \"/ca\"\n",
            "5: [hub] ca_file: is of no use without TLS; write the address with mqtts://, or delete this line",
        ),
        (
            "[hub]\nurl = \"mqtts://h\"\nclient_cert_file = \"/c\"\n",
            "5: [hub] client_cert_file: client_key_file is missing; a client certificate needs both",
        ),
        (
            "[hub]\nurl = \"mqtts://u:hunter2@h\"\npassword_file = \"/p\"\n",
            "5: [hub] password_file: there is a password in the address as well; keep one of the two",
        ),
        (
            "[hub]\nurl = \"mqtts://u@h\"\npassword_file = \"/p\"\npassword_credential = \"p\"\n",
            "6: [hub] password_credential: there is a password_file as well; keep one of the two",
        ),
        (
            "[hub]\nurl = \"mqtts://u@h\"\npassword_file = \"/nowhere/p\"\n",
            "5: [hub] password_file: /nowhere/p cannot be read (No such file or directory (os error 2))",
        ),
        (
            "[hub]\nurl = \"mqtts://u@h\"\npassword_credential = \"p\"\n",
            "5: [hub] password_credential: systemd handed over no credentials; add LoadCredential= to the service, or use password_file",
        ),
        (
            "[hub]\nurl = \"mqtts://h\"\npassword_file = \"/p\"\n",
            "5: [hub] password_file: there is a password but no user; write the user into the address, before the host: USER@HOST",
        ),
    ] {
        let said = errors(&format!("{GATE}{text}"));
        let line = said.strip_prefix("f.toml:").unwrap_or_else(|| panic!("{text}\n{said}"));
        assert!(line == says, "for:\n{text}\nsaid:   {line}\nwanted: {says}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_syntax_error_in_the_line_of_a_password_does_not_show_it() {
    for line in [
        "source = \"rtsp://admin:hunter2@10.0.0.5/s",
        "source = rtsp://admin:hunter2@10.0.0.5/s",
        "source = \"rtsp://admin:hunter2\\@10.0.0.5/s\"",
        "source = \"rtsp://admin:\"hunter2@10.0.0.5/s\"",
        "source \"rtsp://admin:hunter2@10.0.0.5/s\"",
        "source = 'rtsp://admin:hunter2@10.0.0.5/s",
        "source = { url = \"rtsp://admin:hunter2@10.0.0.5/s\"",
        "source = [ hunter2 ]",
        "rtsp://admin:hunter2@10.0.0.5/s = 1",
        "hunter2@x.a = 1",
        "source.\"hunter2@\" = 1\nsource = 2",
        "source = \"rtsp://admin:12/hunter2@10.0.0.5/s\"",
        "source = \"rtsp://admin:hunter2%zz@10.0.0.5/s\"",
        "source = \"htp://admin:hunter2@10.0.0.5/s\"",
        "source = \"rtsp://admin:hunter2@[10.0.0.5/s\"",
    ] {
        let refused = checked(&format!("[cameras.gate]\n{line}\n")).unwrap_err();
        let said = format!("{refused} {refused:?}");
        assert!(!said.contains("hunter2"), "{line}\n{said}");
        assert!(said.starts_with("f.toml:"), "{said}");
    }
}

#[test]
fn an_address_in_the_wrong_place_does_not_show_its_password() {
    for text in [
        "[node]\nid = \"mqtt://u:hunter2@h\"",
        "[schedules.a]\ncamera = \"rtsp://u:hunter2@h/s\"\nevery = \"5m\"",
        "[schedules.a]\ncamera = \"gate\"\nevery = \"rtsp://u:hunter2@h/s\"",
        "[schedules.a]\ncamera = \"gate\"\nevery = \"5m\"\nalign = \"u:hunter2@h\"",
        "[keep]\nbytes = \"u:hunter2@h\"",
        "[store]\ndir = \"u:hunter2@h\"",
        "[cameras.\"rtsp://u:hunter2@h\"]\nsource = \"v4l2:x\"\n[schedules.a]\ncamera = \"yard\"\nevery = \"5m\"",
        "[cameras.\"rtsp://u:hunter2@h\"]\nsource = 1\n[cameras.\"rtsp://u:hunter2@h\"]\n",
        "[\"rtsp://u:hunter2@h\"]",
        "[hub]\nurl = \"mqtts://h/u:hunter2@h\"",
        "[hub]\nurl = \"mqtts://u@h\"\npassword_file = \"hunter2\"",
    ] {
        let said = errors(&format!("{GATE}{text}\n"));
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn counts_are_limited() {
    let many = |what: &str, body: &str, count: usize| (0..count).map(|i| format!("[{what}.n{i}]\n{body}\n")).collect::<String>();
    let cameras = many("cameras", "source = \"pattern:\"", 65);
    assert_eq!(errors(&cameras), "f.toml:129: there are 65 cameras; one agent has 64 at most");
    let schedules = many("schedules", "camera = \"gate\"\nevery = \"1h\"", 1_025);
    assert_eq!(errors(&format!("{GATE}{schedules}")), "f.toml:3075: there are 1025 schedules; one agent has 1024 at most");
}

#[test]
fn passwords_come_from_files_and_credentials() {
    let dir = Dir::new("passwords");
    dir.write("gate", "hunter2\r\n");
    let with = |key: &str, value: &str| format!("[cameras.gate]\nsource = \"rtsp://admin@10.0.0.5/s\"\n{key} = \"{value}\"\n");
    let check = |text: &str| {
        let around = Surroundings { credentials_dir: Some(dir.0.clone()), ..around() };
        checked::check(text, "f.toml", &around).map(|(settings, warnings)| {
            let password = settings.cameras[0].source.password.as_ref().map(|password| password.expose().to_owned());
            (password, warnings.iter().map(Finding::to_string).collect::<String>())
        })
    };
    let file = dir.0.join("gate").display().to_string();
    assert_eq!(check(&with("password_file", &file)).unwrap().0.as_deref(), Some("hunter2"));
    assert_eq!(check(&with("password_credential", "gate")).unwrap().0.as_deref(), Some("hunter2"));

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (_, warned) = check(&with("password_file", &file)).unwrap();
    assert!(warned.contains(&format!("f.toml:3: [cameras.gate] password_file: everybody on this machine can read {file}; chmod o-r it")));

    for (content, says) in
        [("", "is empty; write the password into it"), ("hunter2\nx\n", "has more than one line; write only the password into it")]
    {
        dir.write("gate", content);
        let said = check(&with("password_file", &file)).unwrap_err().to_string();
        assert_eq!(said, format!("f.toml:3: [cameras.gate] password_file: {file} {says}"));
    }
    dir.write("gate", &"hunter2".repeat(1_000));
    assert!(check(&with("password_file", &file)).unwrap_err().to_string().ends_with("is larger than 4096 bytes; that is no password"));
    let said = check(&with("password_credential", "../gate")).unwrap_err().to_string();
    assert_eq!(said, "f.toml:3: [cameras.gate] password_credential: a credential's name has no slash, such as \"hub-password\"");
}

#[test]
fn a_file_with_passwords_that_everybody_can_read_is_warned_of() {
    let dir = Dir::new("open");
    let path = dir.write("shutterd.toml", "[node]\nid = \"n\"\n[cameras.gate]\nsource = \"rtsp://admin:hunter2@10.0.0.5/s\"\n");
    let said = |path: &Path| load(path).unwrap().1.iter().map(|warning| format!("{warning}\n")).collect::<String>();
    assert!(!said(&path).contains("everybody"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let warned = said(&path);
    assert!(warned.contains(":4: [cameras.gate] source: everybody on this machine can read this file") && !warned.contains("hunter2"));
}

#[test]
fn a_node_with_a_broken_file_runs_on_the_accepted_one() {
    let dir = Dir::new("kept");
    let data = dir.0.join("data");
    fs::create_dir(&data).unwrap();
    let password = dir.write("password", "hunter2\n");
    let good = format!(
        "[node]\nid = \"n\"\n[store]\ndir = \"{}\"\n[hub]\nurl = \"mqtts://n@h\"\npassword_file = \"{}\"\n",
        data.display(),
        password.display()
    );
    let path = dir.write("shutterd.toml", &good);

    let loaded = load_or_kept(&path, None).unwrap();
    let Origin::Present { text } = &loaded.origin else { panic!() };
    kept::accept(text, &data).unwrap();
    let about = fs::metadata(kept::path(&data)).unwrap();
    assert_eq!(about.permissions().mode() & 0o777, 0o600);

    // Broken in the middle: its data directory can still be read.
    dir.write("shutterd.toml", &good.replace("id = \"n\"", "id = n"));
    let kept = load_or_kept(&path, None).unwrap();
    assert_eq!(kept.settings, loaded.settings);
    let Origin::Kept { errors } = kept.origin else { panic!() };
    assert!(errors.to_string().contains("shutterd.toml:2: this line is not TOML"));

    // Gone: the data directory is given.
    fs::remove_file(&path).unwrap();
    assert_eq!(load_or_kept(&path, Some(&data)).unwrap().settings, loaded.settings);

    // A password gone missing stops no camera.
    dir.write("shutterd.toml", &good);
    fs::remove_file(&password).unwrap();
    let kept = load_or_kept(&path, None).unwrap();
    assert_eq!(kept.settings.hub.unwrap().password, None);
    assert!(kept.warnings.iter().any(|warning| warning.message.ends_with("; running without it")));

    // None kept: both are told.
    fs::remove_file(kept::path(&data)).unwrap();
    let said = load_or_kept(&path, None).unwrap_err().to_string();
    assert!(
        said.contains("shutterd.toml:7: ") && said.contains("config.accepted.toml: there is no earlier accepted configuration"),
        "{said}"
    );
}

#[test]
fn accepting_replaces_whole_files_and_spares_the_flash() {
    let dir = Dir::new("accept");
    let kept = kept::path(&dir.0);
    // Left by a power cut, readable by everybody.
    let stale = dir.write("config.accepted.toml.tmp", "half a fi");
    fs::set_permissions(&stale, fs::Permissions::from_mode(0o666)).unwrap();
    kept::accept("a = 1", &dir.0).unwrap();
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let written = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let first = written(&kept);
    kept::accept("a = 1", &dir.0).unwrap();
    assert_eq!(written(&kept), first, "the same text is not written again");
    kept::accept("a = 2", &dir.0).unwrap();
    assert_eq!(fs::read_to_string(&kept).unwrap(), "a = 2");
    assert!(!stale.exists());
    assert!(kept::accept("a = 3", &dir.0.join("missing")).is_err());
}

#[test]
fn a_file_that_is_no_text_is_refused_with_its_line() {
    let dir = Dir::new("bytes");
    let path = dir.0.join("f.toml");
    fs::write(&path, b"[node]\nid = \"\xff\"\n").unwrap();
    assert!(load(&path).unwrap_err().to_string().ends_with("f.toml:2: this line is not UTF-8 text; save the file as UTF-8"));
    fs::write(&path, vec![b'#'; CONFIG_BYTES_MAX as usize + 1]).unwrap();
    assert!(load(&path).unwrap_err().to_string().ends_with("is larger than 1 MiB; that is no configuration"));
    assert!(load(&dir.0.join("none")).unwrap_err().to_string().contains("cannot be read (No such file"));
}

#[test]
fn a_hostile_file_is_refused_quickly_and_in_few_words() {
    for text in [
        "x\n".repeat(500_000),
        "a=1\n".repeat(250_000),
        format!("a={}", "[".repeat(1_000_000)),
        format!("a={}", "{a=".repeat(300_000)),
        "[a.b]\n".repeat(150_000),
        (0..100_000).map(|i| format!("k{i}=1\n")).collect(),
        "a.".repeat(500_000) + "a=1",
    ] {
        let refused = checked(&text).unwrap_err();
        assert!(refused.0.len() <= 102, "{}", refused.0.len());
        assert!(refused.to_string().len() < 30_000);
    }
}

/// Pieces that make near-valid files far more often than plain random text does.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "\\PC{0,12}",
        Just("\n".to_owned()),
        Just("[cameras.gate]\n".to_owned()),
        Just("[[cameras]]\n".to_owned()),
        Just("[schedules.a]\n".to_owned()),
        Just("[hub]\n".to_owned()),
        Just("source = \"rtsp://u:p@h/s\"\n".to_owned()),
        Just("url = ".to_owned()),
        Just("every = ".to_owned()),
        Just("camera = \"gate\"\n".to_owned()),
        Just("\"".to_owned()),
        Just("\"\"\"".to_owned()),
        Just("=".to_owned()),
        Just("{".to_owned()),
        Just("[".to_owned()),
        Just("a.b.c = 1".to_owned()),
        Just("-5".to_owned()),
        Just("\r".to_owned()),
        Just("\u{feff}".to_owned()),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_answered_without_a_panic(text in prop_oneof![pieces(), "[\\s\\S]{0,200}"]) {
        let lines = text.split('\n').count();
        if let Err(ConfigErrors(findings)) = checked(&text) {
            prop_assert!(!findings.is_empty());
            for finding in findings {
                prop_assert!(finding.line <= lines && !finding.message.contains('\n'));
            }
        }
        let _ = checked::data_dir(&text);
    }
}
