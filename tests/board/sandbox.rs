//! The unit as it runs: hardened as its file says, and what the file forbids is refused by the kernel.

use crate::stage::{Stage, Told};
use shutterd::clock::{Clock, SystemClock};

/// Where `systemd-analyze security` may put the service; 10 is wide open. systemd 257 counts adjtimex, which the service needs to know
/// whether the clock is synchronised, twice.
const EXPOSURE_MAX: f64 = 1.7;
/// Fewer settings compared than this would show nothing.
const SETTINGS_MIN: usize = 20;

/// What a service that was taken over would try. Each line is a name and a command.
const FORBIDDEN: &[(&str, &str)] = &[
    ("write to /etc", "touch /etc/taken-over"),
    ("set the clock", "date -s 2020-01-01"),
    ("mount", "mount -t tmpfs none /mnt"),
    ("write to /sys", "echo 1 >/sys/module/printk/parameters/time"),
    ("load a module", "modprobe vivid"),
    ("read the log of the kernel", "dmesg"),
    ("change the name of the host", "hostname taken-over"),
    ("make a namespace", "unshare --user true"),
];

pub fn the_unit_is_closed(stage: &mut Stage, told: &Told) {
    let board = &mut stage.board;
    let file = board.ok("systemctl cat shutterd");
    let words = ["yes", "no", "strict", "closed", "invisible", "private", "all", "notify", "always", "shutterd"];
    let settings: Vec<(&str, &str)> = file.lines().filter_map(|l| l.split_once('=')).filter(|(_, value)| words.contains(value)).collect();
    assert!(settings.len() >= SETTINGS_MIN, "only {} settings in the unit's file", settings.len());
    let keys: Vec<_> = settings.iter().map(|(key, _)| *key).collect();
    let shown = board.ok(&format!("systemctl show shutterd -p {}", keys.join(",")));
    for (key, value) in &settings {
        assert!(shown.lines().any(|line| line == format!("{key}={value}")), "the file says {key}={value}, the running unit:\n{shown}");
    }
    told.shown(format!("{} settings of the running unit are those of its file", settings.len()));

    let exposure = board.ok("systemd-analyze security --no-pager shutterd | tail -n 1");
    let figure: f64 = exposure.split_whitespace().find_map(|word| word.parse().ok()).expect("an exposure figure");
    assert!(figure <= EXPOSURE_MAX, "{exposure}");
    told.shown(format!("systemd-analyze security on the board: {exposure}"));

    // The same unit with another program in it, and, as a control, the same program without the unit's walls.
    let script: String =
        FORBIDDEN.iter().map(|(name, command)| format!("if ( {command} ) >/dev/null 2>&1; then echo 'could: {name}'; fi\n")).collect();
    board.ok(&format!("cat >/usr/local/bin/takeover <<'END'\n#!/bin/sh\nid -un\n{script}END\nchmod 755 /usr/local/bin/takeover"));
    board.ok(
        "sed -e 's|^ExecStart=.*|ExecStart=/usr/local/bin/takeover|' -e 's|^Type=.*|Type=oneshot|' -e '/^Restart/d' -e '/^Watchdog/d' \
         -e 's|^RuntimeDirectory=.*|RuntimeDirectory=takeover|' /usr/lib/systemd/system/shutterd.service \
         >/run/systemd/system/takeover.service && systemctl daemon-reload && systemctl start takeover",
    );
    let inside = board.ok("journalctl -q -b -o cat -u takeover _TRANSPORT=stdout");
    assert_eq!(inside, "shutterd", "inside the unit's walls somebody could do more than say who he is");
    assert_ne!(board.run("test -e /etc/taken-over").code, 0);
    let now = SystemClock.read().wall_ms / 1_000;
    let outside =
        board.ok(&format!("unshare --mount --uts /usr/local/bin/takeover; rm -f /etc/taken-over; timeout 20 sh -c 'until modprobe -r vivid; do sleep 0.1; done'; date -s @{now}"));
    let could = outside.lines().filter(|line| line.starts_with("could: ")).count();
    assert_eq!(could, FORBIDDEN.len(), "without the walls all of it should be possible, or it shows nothing: {outside}");
    let names: Vec<_> = FORBIDDEN.iter().map(|(name, _)| *name).collect();
    told.shown(format!("refused inside the unit, possible outside: {}", names.join(", ")));
}
