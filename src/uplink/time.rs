//! The clock on a connection: the hub is asked what time it is, and the hub's certificate is judged again when that is known.
//!
//! A question is an [`Ask`] for nothing (an empty range, so that any hub answers it with `done` at once), with a number that no other
//! question has: the answer's time lies between sending and hearing, and half of that is all the doubt. The time in the hub's presence is
//! not used: nobody knows how old that message is.
//!
//! A hub proves by its own certificate that its clock is not far off: a time at which that is not valid is not believed. So a hub with a wrong
//! clock locks nobody out.

use super::context::Context;
use super::link::LinkError;
use super::tls::Certificate;
use super::words::Words;
use crate::clock::HubTime;
use crate::model::{Quality, Seq, StoreId};
use crate::protocol::{Ack, Ask, VERSION};

/// Silence after which the question is asked again; doubles up to the next one.
const ANSWER_MS: u64 = 10_000;
/// Between questions: a bare quartz drifts by 0.1 s meanwhile.
const EVERY_MS: u64 = 900_000;
/// How often is looked whether the certificate can be judged by now; and whether a good clock is one no longer.
const UNCHECKED_LOOK_MS: u64 = 10_000;
const GOOD_LOOK_MS: u64 = 60_000;

/// What a connection knows of time.
pub struct Time {
    /// `None` without TLS.
    certificate: Option<Certificate>,
    checked: bool,
    quality: Option<Quality>,
    open: Option<(Ask, u64)>,
    next_ms: u64,
    wait_ms: u64,
    complained: bool,
}

impl Time {
    pub fn new(certificate: Option<Certificate>) -> Self {
        Self { certificate, checked: false, quality: None, open: None, next_ms: 0, wait_ms: ANSWER_MS, complained: false }
    }

    /// Looks whether the clock's quality changed, and whether the certificate can be judged by it.
    /// # Errors
    /// It cannot be valid: whoever is there must not be talked to.
    pub fn look(&mut self, context: &Context, words: &mut Words) -> Result<(), LinkError> {
        let now = context.clock.read();
        if self.quality.replace(now.quality) != Some(now.quality) {
            words.say_info();
        }
        let Some(certificate) = self.certificate.as_ref().filter(|_| !self.checked && now.quality.trusted()) else { return Ok(()) };
        match certificate.valid_at(now.wall_ms) {
            Ok(()) => {
                self.checked = true;
                if context.status.read().uplink.tls_clock.as_deref() != Some(super::tls::CHECKED) {
                    tracing::info!("the hub's certificate is valid by the clock too");
                    context.status.edit(|now| now.uplink.tls_clock = Some(super::tls::CHECKED.into()));
                    words.say_info();
                }
                Ok(())
            }
            // Anything less may be wrong itself.
            Err(error) if now.quality == Quality::Ntp => {
                Err(super::link::explain_tls(&format!("{}:{}", context.hub.host, context.hub.port), &error))
            }
            Err(_) => Ok(()),
        }
    }

    /// The question, if it is time for it.
    pub fn ask(&mut self, context: &Context, store: Option<StoreId>, now_ms: u64) -> Option<Ask> {
        if now_ms < self.next_ms {
            return None;
        }
        if !context.clock.wants_hub_time() {
            self.next_ms = now_ms + GOOD_LOOK_MS;
            return None;
        }
        let ask = Ask { v: VERSION, store: store.unwrap_or(StoreId(0)), from: Seq(now_ms.max(1)), to: Seq(0) };
        self.open = Some((ask, now_ms));
        self.next_ms = now_ms + self.wait_ms;
        self.wait_ms = (self.wait_ms * 2).min(EVERY_MS);
        Some(ask)
    }

    /// When to look again.
    pub fn wake_ms(&self, now_ms: u64) -> u64 {
        let unchecked = self.certificate.is_some() && !self.checked;
        if unchecked { self.next_ms.min(now_ms + UNCHECKED_LOOK_MS) } else { self.next_ms }
    }

    /// Takes the answer, if this is it.
    pub fn answered(&mut self, context: &Context, ack: &Ack, heard_ms: u64) {
        let Some((_, asked_ms)) = self.open.take_if(|(ask, _)| Some(*ask) == ack.done) else { return };
        (self.next_ms, self.wait_ms) = (heard_ms + EVERY_MS, ANSWER_MS);
        // A hub that does not know it, or is older than the question.
        let Some(wall_ms) = ack.time_ms else { return };
        let time = HubTime { wall_ms, asked_ms, heard_ms };
        let proven = self.certificate.as_ref().map_or(Ok(()), |certificate| certificate.valid_at(wall_ms));
        let taken = match proven {
            Ok(()) => context.clock.hear_hub(time),
            Err(e) => {
                Err(format!("at the time that the hub tells, its own certificate is not valid ({e}): its time is not used; set its clock"))
            }
        };
        if let Err(why) = taken
            && !std::mem::replace(&mut self.complained, true)
        {
            tracing::warn!("{why}");
        }
    }

    /// The breaking switch `believe_presence`: takes the time of a message that may be of any age, as a careless agent would.
    pub fn believe_falsely(context: &Context, wall_ms: Option<i64>, heard_ms: u64) {
        let broken = cfg!(feature = "break") && std::env::var_os("SHUTTER_BREAK").is_some_and(|switch| switch == "believe_presence");
        if let (true, Some(wall_ms)) = (broken, wall_ms) {
            let _ = context.clock.hear_hub(HubTime { wall_ms, asked_ms: heard_ms, heard_ms });
        }
    }
}
