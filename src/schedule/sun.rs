//! Where the sun stands, and when it rises and sets: Meeus' low-accuracy formulas (Astronomical Algorithms, chapter 25), good
//! for some seconds outside of the polar circles and a minute near them. More would be false: refraction near the horizon alone
//! varies by more.
//!
//! Path not taken: one declination a day, taken at noon, as small libraries do. It moves up to 0.1° until evening, which is a
//! minute in Berlin and ten at the polar circle.

use super::date::DAY_S;

/// A place on earth, in degrees; north and east are positive. Checked by the configuration: ±90 and ±180.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    pub latitude: f64,
    pub longitude: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Civil: the sun is 6° below the horizon.
    Dawn,
    /// The upper rim is on the horizon, as seen through the air.
    Sunrise,
    Noon,
    Sunset,
    /// Civil, as dawn.
    Dusk,
    /// Twelve hours after noon, about: the sun is lowest.
    Midnight,
}

/// What an event's day brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// UTC seconds.
    At(i64),
    /// It does not happen, because the sun stays above its elevation.
    Above,
    /// It does not happen, because the sun stays below.
    Below,
}

impl Event {
    /// Whether the sun climbs through it; at noon and midnight it does neither.
    pub fn is_morning(self) -> bool {
        matches!(self, Self::Dawn | Self::Sunrise)
    }

    /// Of the sun's centre, in degrees: half a disc and 34' of refraction for the rim, as almanacs reckon.
    fn elevation(self) -> Option<f64> {
        match self {
            Self::Dawn | Self::Dusk => Some(-6.0),
            Self::Sunrise | Self::Sunset => Some(-50.0 / 60.0),
            Self::Noon | Self::Midnight => None,
        }
    }
}

impl Place {
    /// The sun's days are numbered like those of UTC: number 0 has its noon on 1970-01-01, at 12:00 by the sun of this place. This
    /// is that of the mean sun; the true one is up to 17 minutes off.
    pub fn mean_noon_s(&self, day: i64) -> i64 {
        day * DAY_S + DAY_S / 2 - (240.0 * self.longitude).round() as i64
    }

    /// When an event of the sun's day happens.
    pub fn event(&self, day: i64, event: Event) -> Happening {
        let noon = self.transit(day, 0.0);
        let elevation = match event.elevation() {
            None if event == Event::Noon => return Happening::At(noon.round() as i64),
            None => return Happening::At(self.transit(day, 43_200.0).round() as i64),
            Some(elevation) => elevation.to_radians().sin(),
        };
        let midnight = self.transit(day, if event.is_morning() { -43_200.0 } else { 43_200.0 });
        let height = |at: f64| self.altitude_sine(at) - elevation;
        let (low, high) = (height(midnight), height(noon));
        if high < 0.0 {
            return Happening::Below;
        }
        if low >= 0.0 {
            return Happening::Above;
        }
        Happening::At(crossing(midnight, low, noon, high, height).round() as i64)
    }

    /// When the true sun has the hour angle of noon plus `from_noon_s`.
    fn transit(&self, day: i64, from_noon_s: f64) -> f64 {
        let mean = self.mean_noon_s(day) as f64 + from_noon_s;
        mean - Sun::at(mean - Sun::at(mean).ahead_s).ahead_s
    }

    /// Sine of the height of the sun's centre.
    fn altitude_sine(&self, utc_s: f64) -> f64 {
        let sun = Sun::at(utc_s);
        let of_day_s = utc_s.rem_euclid(DAY_S as f64) + sun.ahead_s;
        let hour_angle = (of_day_s / 240.0 + self.longitude - 180.0).to_radians();
        let latitude = self.latitude.to_radians();
        latitude.sin() * sun.declination.sin() + latitude.cos() * sun.declination.cos() * hour_angle.cos()
    }
}

struct Sun {
    /// Radians north of the equator.
    declination: f64,
    /// How far the true sun is ahead of the mean one (the equation of time).
    ahead_s: f64,
}

impl Sun {
    fn at(utc_s: f64) -> Self {
        // Centuries since 2000-01-01 12:00.
        let t = (utc_s - 946_728_000.0) / (36_525.0 * DAY_S as f64);
        let mean_longitude = (280.466_46 + t * (36_000.769_83 + t * 0.000_303_2)).to_radians();
        let anomaly = (357.529_11 + t * (35_999.050_29 - t * 0.000_153_7)).to_radians();
        let eccentricity = 0.016_708_634 - t * (0.000_042_037 + t * 0.000_000_126_7);
        let center = anomaly.sin() * (1.914_602 - t * (0.004_817 + t * 0.000_014))
            + (2.0 * anomaly).sin() * (0.019_993 - t * 0.000_101)
            + (3.0 * anomaly).sin() * 0.000_289;
        let node = (125.04 - 1_934.136 * t).to_radians();
        let longitude = mean_longitude + (center - 0.005_69 - 0.004_78 * node.sin()).to_radians();
        let tilt_seconds = 21.448 - t * (46.815 + t * (0.000_59 - t * 0.001_813));
        let tilt = (23.0 + (26.0 + tilt_seconds / 60.0) / 60.0 + 0.002_56 * node.cos()).to_radians();
        let y = (tilt / 2.0).tan().powi(2);
        let ahead = y * (2.0 * mean_longitude).sin() - 2.0 * eccentricity * anomaly.sin()
            + 4.0 * eccentricity * y * anomaly.sin() * (2.0 * mean_longitude).cos()
            - 0.5 * y * y * (4.0 * mean_longitude).sin()
            - 1.25 * eccentricity * eccentricity * (2.0 * anomaly).sin();
        Self { declination: (tilt.sin() * longitude.sin()).asin(), ahead_s: ahead.to_degrees() * 240.0 }
    }
}

/// Where a function that is below zero at `low` and not at `high` (in whatever order of time) crosses it: false position. The
/// value of an end that stays for a second time is halved, so that the other one comes closer, too.
fn crossing(mut low: f64, mut at_low: f64, mut high: f64, mut at_high: f64, f: impl Fn(f64) -> f64) -> f64 {
    let (mut at, mut went_low) = (low, None);
    for _ in 0..60 {
        let next = low + (high - low) * at_low / (at_low - at_high);
        let moved = (next - at).abs();
        at = next;
        if moved < 0.1 {
            break;
        }
        let value = f(at);
        if value < 0.0 {
            (low, at_low) = (at, value);
            at_high /= if went_low == Some(true) { 2.0 } else { 1.0 };
        } else {
            (high, at_high) = (at, value);
            at_low /= if went_low == Some(false) { 2.0 } else { 1.0 };
        }
        went_low = Some(value < 0.0);
    }
    at
}

#[cfg(test)]
mod tests;
