//! The kernel's books as they look on boards we know, in a made-up tree; and the real ones of this machine, which may say anything.
use super::*;
use std::os::unix::fs::{MetadataExt, symlink};

const STAT: &str = "   11 12 13 14  1000 16 409600 18 19 20 21 22 23 24 25  777 27\n";
/// As a kernel before 4.18 wrote it.
const OLD_STAT: &str = "11 12 13 14 1000 16 409600 18 19 20 21";

/// A sysfs with one disk 179:0, one partition 179:2 of it, and what the card says.
fn sysfs(name: &str, card: &[(&str, &str)]) -> PathBuf {
    let root = std::env::temp_dir().join(format!("shutterd-sys-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    let disk = root.join("devices/platform/mmc0/mmc0:0001/block/mmcblk0");
    for (dir, minor, stat) in [(disk.clone(), 0, STAT), (disk.join("mmcblk0p2"), 2, "1 2 3 4 5 6 8192 8 9 10 11 12 13 14 15 0 0")] {
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("stat"), stat).unwrap();
        fs::create_dir_all(root.join("dev/block")).unwrap();
        symlink(&dir, root.join(format!("dev/block/179:{minor}"))).unwrap();
    }
    fs::write(disk.join("mmcblk0p2/partition"), "2\n").unwrap();
    fs::create_dir_all(disk.join("device")).unwrap();
    for (file, text) in card {
        fs::write(disk.join("device").join(file), text).unwrap();
    }
    root
}

#[test]
fn what_an_emmc_says_is_read_as_its_standard_means_it() {
    use Spare::{Normal, Urgent, Warning};
    for (life_time, pre_eol, used_percent, spare, alarm, words) in [
        ("0x01 0x01\n", "0x01\n", Some(10), Some(Normal), false, "0-10 % of its life used, spare blocks normal"),
        ("0x02 0x01\n", "0x01\n", Some(20), Some(Normal), false, "10-20 % of its life used, spare blocks normal"),
        ("0x01 0x09\n", "0x01\n", Some(90), Some(Normal), false, "80-90 % of its life used, spare blocks normal"),
        ("0x0a 0x01\n", "0x01\n", Some(100), Some(Normal), true, "90-100 % of its life used, spare blocks normal"),
        ("0x0b 0x00\n", "0x00\n", Some(110), None, true, "more of its life used than it was made for"),
        ("0x00 0x03\n", "0x02\n", Some(30), Some(Warning), true, "20-30 % of its life used, 80 % of its spare blocks used"),
        ("0x00 0x00\n", "0x03\n", None, Some(Urgent), true, "90 % of its spare blocks used"),
        // Reserved values mean nothing.
        ("0x0c 0x04\n", "0x07\n", Some(40), None, false, "30-40 % of its life used"),
    ] {
        let found = life(Some(life_time), Some(pre_eol));
        assert_eq!(found, Some(Life { used_percent, spare }), "{life_time}{pre_eol}");
        assert_eq!(life_in_words(&found.unwrap()), words);
        let device = Device { name: "mmcblk0".into(), written: DiskWritten::default(), partition_bytes: None, life: found };
        assert_eq!(device.alarm().is_some(), alarm, "{life_time}{pre_eol}");
    }
    for (life_time, pre_eol) in [(None, None), (Some("0x00 0x00"), Some("0x00")), (Some(""), Some("rubbish")), (Some("0xzz 11"), None)] {
        assert_eq!(life(life_time, pre_eol), None, "{life_time:?} {pre_eol:?}");
    }
}

#[test]
fn a_partition_leads_to_its_disk_and_is_told_apart_from_it() {
    let sys = sysfs("emmc", &[("type", "MMC\n"), ("life_time", "0x02 0x01\n"), ("pre_eol_info", "0x01\n")]);
    let start = Device::read(&sys, rustix::fs::makedev(179, 2)).unwrap();
    let disk = sys.join("devices/platform/mmc0/mmc0:0001/block/mmcblk0");
    fs::write(disk.join("stat"), STAT.replace("409600", "409700").replace("777", "780")).unwrap();
    fs::write(disk.join("mmcblk0p2/stat"), "1 2 3 4 5 6 8202 8 9 10 11").unwrap();
    let told = Device::read(&sys, rustix::fs::makedev(179, 2)).unwrap().since(&start);
    assert_eq!(told.name, "mmcblk0");
    assert_eq!(told.since_boot, DiskWritten { bytes: 409_700 * 512, flushes: Some(780) });
    assert_eq!(told.since_start, DiskWritten { bytes: 100 * 512, flushes: Some(3) });
    assert_eq!(told.partition_bytes, Some(10 * 512));
    assert_eq!(told.life, Some(Life { used_percent: Some(20), spare: Some(Spare::Normal) }));
    let whole = Device::read(&sys, rustix::fs::makedev(179, 0)).unwrap();
    assert_eq!(whole.partition_bytes, None, "the data directory has the disk to itself");
    fs::remove_dir_all(sys).unwrap();
}

#[test]
fn an_sd_card_and_an_old_kernel_say_less_and_a_filesystem_without_a_disk_nothing() {
    let sys = sysfs("sd", &[("type", "SD\n"), ("ssr", "0000000008000000\n")]);
    let card = Device::read(&sys, rustix::fs::makedev(179, 2)).unwrap();
    assert_eq!((card.life, card.alarm()), (None, None));
    let disk = sys.join("devices/platform/mmc0/mmc0:0001/block/mmcblk0");
    fs::write(disk.join("stat"), OLD_STAT).unwrap();
    assert_eq!(Device::read(&sys, rustix::fs::makedev(179, 2)).unwrap().written, DiskWritten { bytes: 409_600 * 512, flushes: None });
    assert_eq!(Device::read(&sys, rustix::fs::makedev(0, 42)), None);
    for rubbish in ["", "1 2 3", "a b c d e f g h", "1 2 3 4 5 6 18446744073709551615"] {
        fs::write(disk.join("stat"), rubbish).unwrap();
        assert_eq!(Device::read(&sys, rustix::fs::makedev(179, 2)), None, "{rubbish}");
    }
    fs::remove_dir_all(sys).unwrap();
}

#[test]
fn the_kernel_of_this_machine_is_understood() {
    for place in ["/", "/tmp", "/dev/shm", "/proc"] {
        let Ok(about) = fs::metadata(place) else { continue };
        let device = Device::read(Path::new(SYS), about.dev());
        println!("device of {place}: {device:?}");
        assert!(device.is_none_or(|device| !device.name.is_empty()));
    }
}
