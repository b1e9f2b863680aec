//! What the board calls itself: its default node id, and how the store notices that its card moved to another board.

use crate::model::SLUG_MAX;
use std::path::Path;

/// Serial number of the board as an id; without one, the beginning of the machine id.
///
/// A card cloned to a second board gives another serial there, but the same machine id.
pub fn board_serial() -> Option<String> {
    serial_under(Path::new("/"))
}

fn serial_under(root: &Path) -> Option<String> {
    let read = |path: &str| std::fs::read(root.join(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let tree = read("sys/firmware/devicetree/base/serial-number").and_then(|text| slug(&text));
    let cpu = || {
        let text = read("proc/cpuinfo")?;
        let (_, serial) = text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.trim() == "Serial")?;
        slug(serial)
    };
    let machine = || slug(read("etc/machine-id")?.get(..12)?);
    tree.or_else(cpu).or_else(machine)
}

/// `None` for a serial of zeros only, which unprogrammed boards share.
fn slug(text: &str) -> Option<String> {
    let words: String = text
        .trim_matches(|c: char| c.is_whitespace() || c == '\0')
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(SLUG_MAX)
        .collect();
    let words = words.trim_matches('-');
    (words.chars().any(|c| c.is_ascii_alphanumeric() && c != '0')).then(|| words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_name_a_board_has_is_taken() {
        let root = std::env::temp_dir().join(format!("shutterd-board-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(serial_under(&root), None);
        put("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        assert_eq!(serial_under(&root).as_deref(), Some("0123456789ab"));
        put("proc/cpuinfo", "processor\t: 0\nSerial\t\t: 10000000A1B2C3D4\n");
        assert_eq!(serial_under(&root).as_deref(), Some("10000000a1b2c3d4"));
        put("sys/firmware/devicetree/base/serial-number", "0000000000000000\0");
        assert_eq!(serial_under(&root).as_deref(), Some("10000000a1b2c3d4"), "zeros are no serial");
        put("sys/firmware/devicetree/base/serial-number", "1421 419/X\0");
        assert_eq!(serial_under(&root).as_deref(), Some("1421-419-x"));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
