//! Durations and sizes as people write them: `5m`, `1h30m`, `250ms`, `2d`; `2 GiB`, `500 MB`.
//!
//! Whole numbers only, largest unit first, so that each value has few spellings and none is rounded. What is refused is
//! refused with the spelling that would do.

use super::report::quoted;
use std::fmt;

/// A hundred years: sums of two such values never overflow anything.
const DURATION_MAX_MS: u64 = 36_500 * 86_400_000;

const DURATION_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// Milliseconds of a text such as `1h30m`.
/// # Errors
/// Says what is wrong and how to write it.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let shown = quoted(text);
    if text.trim_start().starts_with('-') {
        return Err(format!("{shown} is negative; write a duration such as \"5m\""));
    }
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("the duration is empty; write one such as \"5m\"".to_owned());
    }
    let (mut total, mut last_unit_ms) = (0u64, u64::MAX);
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest);
        rest = after;
        let count: u64 = match number.parse() {
            Ok(count) => count,
            Err(_) if number.is_empty() => {
                return Err(format!("{shown} is not a duration; write one such as \"5m\", \"1h30m\" or \"250ms\""));
            }
            Err(_) if number.contains('.') => {
                return Err(format!("{shown} has a fraction; write whole numbers, such as \"1h30m\" or \"1500ms\""));
            }
            Err(_) => return Err(format!("{shown} is too long; the longest duration is 36500d")),
        };
        if unit.is_empty() {
            return Err(format!("{shown} has no unit; write one of ms, s, m, h, d after the number, such as \"{count}s\""));
        }
        let unit = if unit == "m" { "min" } else { unit };
        let Some(&(_, unit_ms)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("{shown} has an unknown unit; use ms, s, m, h or d, such as \"90s\""));
        };
        if unit_ms >= last_unit_ms {
            return Err(format!("{shown} is out of order; write each unit once, largest first, such as \"1h30m\""));
        }
        last_unit_ms = unit_ms;
        total = count
            .checked_mul(unit_ms)
            .and_then(|part| total.checked_add(part))
            .filter(|sum| *sum <= DURATION_MAX_MS)
            .ok_or_else(|| format!("{shown} is too long; the longest duration is 36500d"))?;
    }
    Ok(total)
}

/// Bytes of a text such as `20 GiB`.
/// # Errors
/// Says what is wrong and how to write it.
pub fn size_bytes(text: &str) -> Result<u64, String> {
    let shown = quoted(text);
    if text.trim_start().starts_with('-') {
        return Err(format!("{shown} is negative; write a size such as \"20 GiB\""));
    }
    let (number, unit, after) = number_and_unit(text.trim());
    if number.is_empty() || !after.is_empty() {
        return Err(format!("{shown} is not a size; write one such as \"20 GiB\" or \"500 MB\""));
    }
    if number.contains('.') {
        return Err(format!("{shown} has a fraction; write a whole number in a smaller unit, such as \"1536 MiB\""));
    }
    if unit.is_empty() {
        return Err(format!("{shown} has no unit; write B, kB, KiB, MB, MiB, GB, GiB, TB or TiB after the number"));
    }
    let unit_bytes = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, bytes)| *bytes);
    let unit_bytes = unit_bytes.ok_or_else(|| format!("{shown} has an unknown unit; use B, kB, KiB, MB, MiB, GB, GiB, TB or TiB"))?;
    let too_large = || format!("{shown} is more than any disk holds");
    let count: u64 = number.parse().map_err(|_| too_large())?;
    count.checked_mul(unit_bytes).filter(|bytes| *bytes <= i64::MAX as u64).ok_or_else(too_large)
}

/// A duration for people: `1 h 30 min`; read back by [`duration_ms`].
pub struct InWords(pub u64);

impl fmt::Display for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0 s");
        }
        let (mut left, mut gap) = (self.0, "");
        for (name, unit_ms) in DURATION_UNITS {
            if left >= unit_ms {
                write!(f, "{gap}{} {name}", left / unit_ms)?;
                (left, gap) = (left % unit_ms, " ");
            }
        }
        Ok(())
    }
}

/// A size for people, exactly: `20 GiB`, `500 MB`; read back by [`size_bytes`].
pub struct SizeInWords(pub u64);

impl fmt::Display for SizeInWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting = SIZE_UNITS.iter().find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes));
        let (name, bytes) = fitting.copied().unwrap_or(("B", 1));
        write!(f, "{} {name}", self.0 / bytes)
    }
}

/// The leading number, the letters after it, and what follows; spaces between them do not count.
fn number_and_unit(text: &str) -> (&str, &str, &str) {
    let split = |text: &str, part: fn(char) -> bool| text.find(|c| !part(c)).unwrap_or(text.len());
    let (number, rest) = text.split_at(split(text, |c| c.is_ascii_digit() || c == '.'));
    let rest = rest.trim_start();
    let (unit, after) = rest.split_at(split(rest, char::is_alphabetic));
    (number, unit, after.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, ms) in [
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1 h 30 min", 5_400_000),
            ("250ms", 250),
            ("2d", 172_800_000),
            (" 90s ", 90_000),
            ("0s", 0),
            ("1d2h3m4s5ms", 93_784_005),
        ] {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn a_refused_duration_says_how_to_write_it() {
        for (text, says) in [
            ("", "the duration is empty; write one such as \"5m\""),
            ("-5m", "\"-5m\" is negative; write a duration such as \"5m\""),
            ("300", "\"300\" has no unit; write one of ms, s, m, h, d after the number, such as \"300s\""),
            ("soon", "\"soon\" is not a duration; write one such as \"5m\", \"1h30m\" or \"250ms\""),
            ("5 fortnights", "\"5 fortnights\" has an unknown unit; use ms, s, m, h or d, such as \"90s\""),
            ("1.5h", "\"1.5h\" has a fraction; write whole numbers, such as \"1h30m\" or \"1500ms\""),
            ("30m1h", "\"30m1h\" is out of order; write each unit once, largest first, such as \"1h30m\""),
            ("5m5m", "\"5m5m\" is out of order; write each unit once, largest first, such as \"1h30m\""),
            ("99999999999d", "\"99999999999d\" is too long; the longest duration is 36500d"),
            ("99999999999999999999999d", "\"99999999999999999999999d\" is too long; the longest duration is 36500d"),
        ] {
            assert_eq!(duration_ms(text), Err(says.to_owned()), "{text}");
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [("2 GiB", 2 << 30), ("500 MB", 500_000_000), ("500mb", 500_000_000), ("1B", 1), ("20GiB", 20 << 30)] {
            assert_eq!(size_bytes(text), Ok(bytes), "{text}");
        }
        for (text, says) in [
            ("", "\"\" is not a size; write one such as \"20 GiB\" or \"500 MB\""),
            ("20", "\"20\" has no unit; write B, kB, KiB, MB, MiB, GB, GiB, TB or TiB after the number"),
            ("-1 GB", "\"-1 GB\" is negative; write a size such as \"20 GiB\""),
            ("1.5 GiB", "\"1.5 GiB\" has a fraction; write a whole number in a smaller unit, such as \"1536 MiB\""),
            ("20 Gib/s", "this value is not a size; write one such as \"20 GiB\" or \"500 MB\""),
            ("20 gallons", "\"20 gallons\" has an unknown unit; use B, kB, KiB, MB, MiB, GB, GiB, TB or TiB"),
            ("99999999999 TB", "\"99999999999 TB\" is more than any disk holds"),
        ] {
            assert_eq!(size_bytes(text), Err(says.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_we_say_we_can_read(ms in 0..=DURATION_MAX_MS, bytes in 0..=i64::MAX as u64) {
            prop_assert_eq!(duration_ms(&InWords(ms).to_string()), Ok(ms));
            prop_assert_eq!(size_bytes(&SizeInWords(bytes).to_string()), Ok(bytes));
        }
        #[test]
        fn any_text_is_answered(text in "\\PC*") {
            let _ = (duration_ms(&text), size_bytes(&text));
        }
    }
}
