//! Exposure, white balance, focus and power-line frequency, as the configuration wants them.
//!
//! What to write is decided from what the device says of its controls; only then is anything written. A value that the device would
//! bend is refused with the values that it has.

use super::device::{Device, text, zeroed};
use crate::config::settings::{Controls, PowerLine, Set};
use std::io;
use v4l::{v4l_sys as sys, v4l2::vidioc};

const EXPOSURE_AUTO: u32 = sys::V4L2_CID_EXPOSURE_AUTO;
const EXPOSURE: u32 = sys::V4L2_CID_EXPOSURE_ABSOLUTE;
const WHITE_AUTO: u32 = sys::V4L2_CID_AUTO_WHITE_BALANCE;
const WHITE: u32 = sys::V4L2_CID_WHITE_BALANCE_TEMPERATURE;
const FOCUS_AUTO: u32 = sys::V4L2_CID_FOCUS_AUTO;
const FOCUS: u32 = sys::V4L2_CID_FOCUS_ABSOLUTE;
const POWER_LINE: u32 = sys::V4L2_CID_POWER_LINE_FREQUENCY;
const KNOBS: [u32; 7] = [EXPOSURE_AUTO, EXPOSURE, WHITE_AUTO, WHITE, FOCUS_AUTO, FOCUS, POWER_LINE];
/// The unit of V4L2_CID_EXPOSURE_ABSOLUTE.
const EXPOSURE_UNIT_US: u32 = 100;
/// Of the exposure menu: all by itself; by hand; iris by itself, shutter by hand; shutter by itself, iris by hand. UVC cameras without
/// an iris have the last one for "auto", and the second for "by hand".
const AUTO: [i32; 2] = [3, 0];
const MANUAL: [i32; 2] = [1, 2];

/// One control of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knob {
    pub id: u32,
    pub name: String,
    pub min: i32,
    pub max: i32,
    pub step: i32,
    /// The choices of a menu.
    pub menu: Option<Vec<i32>>,
}

#[derive(Debug)]
pub enum Refused {
    /// The device cannot; says what it can.
    Unable(String),
    Kernel {
        control: String,
        cause: io::Error,
    },
}

/// Brings the device's controls to what is wanted.
/// # Errors
/// It cannot, or does not take it.
pub fn apply(device: &Device, wanted: &Controls) -> Result<(), Refused> {
    if *wanted == Controls::default() {
        return Ok(());
    }
    let knobs = knobs(device);
    for (id, value) in plan(&knobs, wanted).map_err(Refused::Unable)? {
        let mut control = sys::v4l2_control { id, value };
        let name = || knobs.iter().find(|knob| knob.id == id).map(|knob| knob.name.clone()).unwrap_or_default();
        device.ask(vidioc::VIDIOC_S_CTRL, &mut control).map_err(|cause| Refused::Kernel { control: name(), cause })?;
    }
    Ok(())
}

/// What the device has of the controls that can be configured.
pub fn knobs(device: &Device) -> Vec<Knob> {
    KNOBS.into_iter().filter_map(|id| knob(device, id)).collect()
}

fn knob(device: &Device, id: u32) -> Option<Knob> {
    let mut query = sys::v4l2_queryctrl { id, ..zeroed() };
    device.ask(vidioc::VIDIOC_QUERYCTRL, &mut query).ok()?;
    if query.flags & (sys::V4L2_CTRL_FLAG_DISABLED | sys::V4L2_CTRL_FLAG_READ_ONLY) != 0 {
        return None;
    }
    let menu = (query.type_ == sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU).then(|| {
        // No menu of these controls has more than a handful; a driver that says otherwise is not believed.
        let has =
            |index: &i32| device.ask(vidioc::VIDIOC_QUERYMENU, &mut sys::v4l2_querymenu { id, index: *index as u32, ..zeroed() }).is_ok();
        (query.minimum.max(0)..=query.maximum.min(15)).filter(has).collect()
    });
    Some(Knob { id, name: text(&query.name), min: query.minimum, max: query.maximum, step: query.step.max(1), menu })
}

/// The values to write, in this order.
/// # Errors
/// What the device cannot, and what it can.
pub fn plan(knobs: &[Knob], wanted: &Controls) -> Result<Vec<(u32, i32)>, String> {
    let mut steps = Vec::new();
    let find = |id: u32| knobs.iter().find(|knob| knob.id == id);
    let need = |id: u32, key: &str| find(id).ok_or_else(|| missing(knobs, key));
    match wanted.exposure {
        Some(Set::Auto) => steps.push((EXPOSURE_AUTO, one_of(need(EXPOSURE_AUTO, "exposure")?, &AUTO, "exposure = \"auto\"")?)),
        Some(Set::To(us)) => {
            let knob = need(EXPOSURE, "exposure")?;
            if let Some(auto) = find(EXPOSURE_AUTO) {
                steps.push((EXPOSURE_AUTO, one_of(auto, &MANUAL, "setting by hand")?));
            }
            let unit = |value: i32| in_ms(value.max(0) as u32 * EXPOSURE_UNIT_US);
            let value = (us % EXPOSURE_UNIT_US == 0).then_some(us / EXPOSURE_UNIT_US);
            steps.push((EXPOSURE, within(knob, value, &in_ms(us), "exposure", unit)?));
        }
        None => {}
    }
    for (key, auto, by_hand, set) in
        [("white_balance", WHITE_AUTO, WHITE, wanted.white_balance), ("focus", FOCUS_AUTO, FOCUS, wanted.focus)]
    {
        match set {
            Some(Set::Auto) => steps.push((need(auto, key)?.id, 1)),
            Some(Set::To(value)) => {
                let knob = need(by_hand, key)?;
                steps.extend(find(auto).map(|knob| (knob.id, 0)));
                steps.push((by_hand, within(knob, Some(value), &value.to_string(), key, |value| value.to_string())?));
            }
            None => {}
        }
    }
    if let Some(line) = wanted.power_line {
        let (value, said) = match line {
            PowerLine::Off => (0, "power_line = \"off\""),
            PowerLine::Hz50 => (1, "power_line = \"50Hz\""),
            PowerLine::Hz60 => (2, "power_line = \"60Hz\""),
        };
        steps.push((POWER_LINE, one_of(need(POWER_LINE, "power_line")?, &[value], said)?));
    }
    Ok(steps)
}

/// Such as `Focus, Absolute: 0 to 250 in steps of 5`.
pub fn in_words(knob: &Knob) -> String {
    let Knob { name, min, max, step, menu, .. } = knob;
    match menu {
        Some(menu) => format!("{name}: {}", menu.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        None if *step > 1 => format!("{name}: {min} to {max} in steps of {step}"),
        None => format!("{name}: {min} to {max}"),
    }
}

fn missing(knobs: &[Knob], key: &str) -> String {
    let names = [("exposure", EXPOSURE), ("white_balance", WHITE), ("focus", FOCUS), ("power_line", POWER_LINE)];
    let autos = [("exposure", EXPOSURE_AUTO), ("white_balance", WHITE_AUTO), ("focus", FOCUS_AUTO)];
    let has = |of: &[(&'static str, u32)], suffix: &str| -> Vec<String> {
        of.iter().filter(|(_, id)| knobs.iter().any(|knob| knob.id == *id)).map(|(name, _)| format!("{name}{suffix}")).collect()
    };
    let all = [has(&names, ""), has(&autos, " = \"auto\"")].concat();
    let rest = if all.is_empty() { "it has none that can be set here".to_owned() } else { format!("it has {}", all.join(", ")) };
    format!("the device has no control for that {key}; delete the line ({rest})")
}

fn one_of(knob: &Knob, values: &[i32], said: &str) -> Result<i32, String> {
    let has = |value: &&i32| knob.menu.as_ref().map_or((knob.min..=knob.max).contains(*value), |menu| menu.contains(value));
    values.iter().find(has).copied().ok_or_else(|| format!("the device's control \"{}\" has no {said}; delete the line", knob.name))
}

fn within(knob: &Knob, value: Option<u32>, said: &str, key: &str, words: impl Fn(i32) -> String) -> Result<i32, String> {
    let fits = |value: &i32| (knob.min..=knob.max).contains(value) && (value - knob.min) % knob.step == 0;
    value.and_then(|value| i32::try_from(value).ok()).filter(fits).ok_or_else(|| {
        let steps = if knob.step > 1 { format!(" in steps of {}", words(knob.step)) } else { String::new() };
        format!("the device cannot do {key} {said}; set it to a value from {} to {}{steps}", words(knob.min), words(knob.max))
    })
}

fn in_ms(us: u32) -> String {
    if us.is_multiple_of(1000) { format!("{}ms", us / 1000) } else { format!("{us}us") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knob(id: u32, min: i32, max: i32, step: i32, menu: Option<&[i32]>) -> Knob {
        Knob { id, name: "Knob".into(), min, max, step, menu: menu.map(<[i32]>::to_vec) }
    }
    fn usual() -> Vec<Knob> {
        vec![
            knob(EXPOSURE_AUTO, 0, 3, 1, Some(&[1, 3])),
            knob(EXPOSURE, 1, 5_000, 1, None),
            knob(WHITE_AUTO, 0, 1, 1, None),
            knob(WHITE, 2_800, 6_500, 10, None),
            knob(FOCUS, 0, 250, 5, None),
            knob(POWER_LINE, 0, 2, 1, Some(&[0, 1, 2])),
        ]
    }

    #[test]
    fn by_hand_switches_the_automatic_off_first() {
        let wanted = Controls {
            exposure: Some(Set::To(10_000)),
            white_balance: Some(Set::To(4_600)),
            focus: Some(Set::To(120)),
            power_line: Some(PowerLine::Hz50),
        };
        let steps = plan(&usual(), &wanted).unwrap();
        assert_eq!(steps, [(EXPOSURE_AUTO, 1), (EXPOSURE, 100), (WHITE_AUTO, 0), (WHITE, 4_600), (FOCUS, 120), (POWER_LINE, 1)]);
        let auto = Controls { exposure: Some(Set::Auto), white_balance: Some(Set::Auto), ..Controls::default() };
        assert_eq!(plan(&usual(), &auto).unwrap(), [(EXPOSURE_AUTO, 3), (WHITE_AUTO, 1)]);
        assert_eq!(plan(&[], &Controls::default()).unwrap(), []);
    }

    #[test]
    fn what_the_device_cannot_is_refused_with_what_it_can() {
        let refused = |wanted: Controls| plan(&usual(), &wanted).unwrap_err();
        let none = Controls::default();
        assert_eq!(
            refused(Controls { exposure: Some(Set::To(600_000)), ..none }),
            "the device cannot do exposure 600ms; set it to a value from 100us to 500ms"
        );
        assert_eq!(
            refused(Controls { exposure: Some(Set::To(50)), ..none }),
            "the device cannot do exposure 50us; set it to a value from 100us to 500ms"
        );
        assert_eq!(
            refused(Controls { focus: Some(Set::To(121)), ..none }),
            "the device cannot do focus 121; set it to a value from 0 to 250 in steps of 5"
        );
        assert_eq!(
            refused(Controls { focus: Some(Set::Auto), ..none }),
            "the device has no control for that focus; delete the line (it has exposure, white_balance, focus, power_line, exposure = \"auto\", white_balance = \"auto\")"
        );
        let bare = plan(&[], &Controls { power_line: Some(PowerLine::Off), ..none }).unwrap_err();
        assert_eq!(bare, "the device has no control for that power_line; delete the line (it has none that can be set here)");
        let only_auto = [knob(EXPOSURE_AUTO, 0, 3, 1, Some(&[3])), knob(EXPOSURE, 1, 5, 1, None)];
        let by_hand = plan(&only_auto, &Controls { exposure: Some(Set::To(100)), ..none }).unwrap_err();
        assert_eq!(by_hand, "the device's control \"Knob\" has no setting by hand; delete the line");
    }
}
