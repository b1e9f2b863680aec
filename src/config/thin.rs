//! `thin = "all for 2d, hourly for 30d, daily for ever"`: what is left of older and older pictures.
//!
//! Steps stand in the order of age, each coarser than the one before. `for` counts from when a picture was taken.

use super::{raw::suggestion, report::quoted, units};
use crate::model::{Grain, KEEP_AGE_MIN_MS, Tier};

const GRAINS: [(&str, Grain); 4] = [("all", Grain::All), ("hourly", Grain::Hourly), ("daily", Grain::Daily), ("weekly", Grain::Weekly)];
const EXAMPLE: &str = "\"all for 2d, hourly for 30d, daily for ever\"";

/// The steps of a text.
/// # Errors
/// Says what is wrong and how to write it.
pub fn tiers(text: &str) -> Result<Vec<Tier>, String> {
    if text.trim().is_empty() {
        return Err(format!("is empty; write steps such as {EXAMPLE}"));
    }
    let mut tiers: Vec<Tier> = Vec::new();
    for step in text.split(',').map(str::trim) {
        let shown = quoted(step);
        if step.is_empty() {
            return Err(format!("there is a comma without a step; write steps such as {EXAMPLE}"));
        }
        let words: Vec<&str> = step.split_whitespace().collect();
        let (what, span) = match words[..] {
            [what, "for", ..] if words.len() > 2 => (what, words[2..].join(" ")),
            [_, "forever"] => return Err(format!("{shown}: write \"for ever\" as two words")),
            _ => return Err(format!("{shown} is not a step; write what stays and how long, such as \"hourly for 30d\"")),
        };
        let Some((_, grain)) = GRAINS.iter().find(|(name, _)| *name == what) else {
            let advice = suggestion(what, GRAINS.iter().map(|(name, _)| *name));
            return Err(format!("{} is nothing that can stay; {advice}", quoted(what)));
        };
        let until_ms = match span.as_str() {
            "ever" => None,
            span => Some(units::duration_ms(span)?),
        };
        if let Some(ms) = until_ms.filter(|ms| *ms < KEEP_AGE_MIN_MS) {
            return Err(format!("{} is too short; write {} or more", units::InWords(ms), units::InWords(KEEP_AGE_MIN_MS)));
        }
        if let Some(before) = tiers.last() {
            let Some(age_ms) = before.until_ms else {
                return Err(format!("{shown} stands after a step that lasts for ever; \"for ever\" is for the last one"));
            };
            if *grain <= before.grain {
                return Err(format!("{shown} keeps no less than the step before; go from all to hourly, daily, weekly"));
            }
            if until_ms.is_some_and(|ms| ms <= age_ms) {
                let before = units::InWords(age_ms);
                return Err(format!(
                    "{shown} ends before it begins: it counts from when a picture was taken, and the step before lasts {before}"
                ));
            }
        }
        tiers.push(Tier { grain: *grain, until_ms });
    }
    if tiers == [(Tier { grain: Grain::All, until_ms: None })] {
        return Err("keeps everything; delete this line, or write a step after it".to_owned());
    }
    Ok(tiers)
}

/// The steps for people, as they read on after "keep:".
pub fn in_words(tiers: &[Tier]) -> String {
    let stays = |grain| match grain {
        Grain::All => "all",
        Grain::Hourly => "the first of each hour (UTC)",
        Grain::Daily => "the first of each day (UTC)",
        Grain::Weekly => "the first of each week (UTC, from Monday)",
    };
    let step = |tier: &Tier| match tier.until_ms {
        Some(ms) => format!("{} until {} old", stays(tier.grain), units::InWords(ms)),
        None => format!("{} for ever", stays(tier.grain)),
    };
    tiers.iter().map(step).collect::<Vec<_>>().join(", then ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_read_as_people_write_them() {
        let day_ms = 86_400_000;
        let tier = |grain, days: u64| Tier { grain, until_ms: (days > 0).then_some(days * day_ms) };
        let example = vec![tier(Grain::All, 2), tier(Grain::Hourly, 30), tier(Grain::Daily, 0)];
        assert_eq!(tiers("all for 2d, hourly for 30d, daily for ever"), Ok(example.clone()));
        assert_eq!(tiers("  all  for 2 d ,hourly for 30d,daily for ever"), Ok(example.clone()));
        assert_eq!(tiers("daily for 30d"), Ok(vec![tier(Grain::Daily, 30)]));
        assert_eq!(
            in_words(&example),
            "all until 2 d old, then the first of each hour (UTC) until 30 d old, then the first of each day (UTC) for ever"
        );
    }

    #[test]
    fn a_refused_step_says_how_to_write_it() {
        for (text, says) in [
            ("", "is empty; write steps such as \"all for 2d, hourly for 30d, daily for ever\""),
            (
                "all for 2d,, daily for ever",
                "there is a comma without a step; write steps such as \"all for 2d, hourly for 30d, daily for ever\"",
            ),
            ("2d", "\"2d\" is not a step; write what stays and how long, such as \"hourly for 30d\""),
            ("hourly for", "\"hourly for\" is not a step; write what stays and how long, such as \"hourly for 30d\""),
            ("daily forever", "\"daily forever\": write \"for ever\" as two words"),
            ("hourli for 2d", "\"hourli\" is nothing that can stay; did you mean \"hourly\"?"),
            ("minutely for 2d", "\"minutely\" is nothing that can stay; known here: all, hourly, daily, weekly"),
            ("all for 2", "\"2\" has no unit; write one of ms, s, m, h, d after the number, such as \"2s\""),
            ("all for 2s, daily for ever", "2 s is too short; write 1 min or more"),
            ("all for ever", "keeps everything; delete this line, or write a step after it"),
            (
                "daily for ever, weekly for ever",
                "\"weekly for ever\" stands after a step that lasts for ever; \"for ever\" is for the last one",
            ),
            ("daily for 2d, hourly for 9d", "\"hourly for 9d\" keeps no less than the step before; go from all to hourly, daily, weekly"),
            ("all for 2d, all for 3d", "\"all for 3d\" keeps no less than the step before; go from all to hourly, daily, weekly"),
            (
                "all for 2d, daily for 1d",
                "\"daily for 1d\" ends before it begins: it counts from when a picture was taken, and the step before lasts 2 d",
            ),
        ] {
            assert_eq!(tiers(text), Err(says.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_week_begins_on_monday_in_utc() {
        // 2026-11-23 is a Monday.
        let monday_ms = 1_795_392_000_000;
        assert_eq!(Grain::Weekly.stretch(monday_ms - 1), Grain::Weekly.stretch(monday_ms).map(|week| week - 1));
        assert_eq!(Grain::Weekly.stretch(monday_ms), Grain::Weekly.stretch(monday_ms + 7 * 86_400_000 - 1));
    }
}
