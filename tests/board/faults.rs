//! Everything the simulated camera can do wrong: each ends within its deadline with its reason, or is mended; other cameras go on; and
//! the camera is back as soon as it is well.

use crate::board::PATIENCE;
use crate::promises::Form;
use crate::stage::{Stage, Told};
use shutterd::clock::Deadline;
use std::time::Duration;

/// The camera's own `timeout` in the configuration.
const TIMEOUT_MS: u64 = 5_000;
/// From the end of a capture to the hub: the next commit, the emulated network, this test's look at it.
const ON_THE_WAY_MS: u64 = 20_000;

enum Then {
    /// Slots end as `failed` with one of these codes.
    Fails(&'static [&'static str]),
    /// Pictures go on, and are right.
    Mends,
    /// Pictures go on, and carry this flag.
    Flags(&'static str),
}
use Then::{Fails, Flags, Mends};

/// Commands to the simulator, whether the short form has it too, and what the agent makes of it.
const FAULTS: &[(&str, bool, Then)] = &[
    ("stall", true, Fails(&["timeout"])),
    ("unplug", true, Fails(&["unreachable", "broken"])),
    ("trunc", true, Fails(&["damaged", "timeout"])),
    ("nodht", true, Mends),
    // A stream that runs needs no control requests; one that has to be started again does.
    ("ctlhang", false, Mends),
    ("ctlhang; stall", false, Fails(&["timeout", "broken", "hung"])),
    ("ctlstall; stall", false, Fails(&["timeout", "broken"])),
    ("freeze", false, Flags("repeated")),
    ("garbage", false, Fails(&["damaged", "timeout"])),
    ("empty", false, Fails(&["timeout", "damaged"])),
    ("short", false, Fails(&["damaged", "timeout"])),
    ("big", false, Fails(&["timeout", "damaged"])),
    ("err", false, Fails(&["timeout", "damaged"])),
    ("noeof", false, Mends),
    ("epstall", false, Fails(&["timeout", "broken", "damaged"])),
    ("proto", false, Fails(&["timeout", "broken", "damaged"])),
    // Five failed transfers, and uvcvideo is silent for ever, though the camera is well: streaming has to be started again.
    ("proto 5", true, Mends),
];

pub fn each_ends_in_time(stage: &mut Stage, told: &Told, form: Form) {
    for (fault, short, then) in FAULTS {
        if !short && form == Form::Short {
            continue;
        }
        let begun_ms = stage.now_ms();
        fault.split("; ").for_each(|command| stage.tell_camera("left", command));
        match then {
            Flags(flag) => {
                let patience = Deadline::after(PATIENCE);
                while !stage.sees("left", 1)[0].record.flags.iter().any(|f| f == flag) {
                    assert!(!patience.passed(), "{fault}: no picture carries the flag `{flag}`");
                }
                told.shown(format!("{fault}: the pictures go on and carry the flag `{flag}`"));
            }
            Mends => {
                stage.sees_after("left", begun_ms + 500, 3);
                told.shown(format!("{fault}: mended, the pictures go on"));
            }
            Fails(codes) => {
                let reason = failure(stage, fault, begun_ms);
                let took_ms = stage.now_ms() - reason.1;
                let (word, detail) = reason.0;
                assert!(codes.iter().any(|code| word == format!("failed({code})")), "{fault}: {word}: {detail}");
                assert!(took_ms <= TIMEOUT_MS + ON_THE_WAY_MS, "{fault}: known only {took_ms} ms after the slot was due");
                stage.sees_after("right", begun_ms, 2);
                told.shown(format!("{fault}: {word} at the hub {took_ms} ms after the slot was due: {detail}"));
            }
        }
        stage.tell_camera("left", if *fault == "unplug" { "plug" } else { "resume" });
        let well_ms = stage.now_ms();
        let back = stage.sees_after("left", well_ms, 1);
        println!("      after it is well again, the next picture is taken in {} ms", back[0].record.taken.boottime_ms - well_ms);
    }
}

/// The first slot due since then that failed: word and detail, and when it was due. A slot that found the camera busy with the one before
/// is no news.
fn failure(stage: &Stage, fault: &str, after_ms: u64) -> ((String, String), u64) {
    let patience = Deadline::after(PATIENCE);
    loop {
        let reasons = stage.evidence.reasons("left");
        let found = reasons.iter().find(|r| r.boot == stage.boot && r.due_ms > after_ms && r.word().starts_with("failed"));
        if let Some(reason) = found {
            return ((reason.word(), reason.detail().to_owned()), reason.due_ms);
        }
        assert!(!patience.passed(), "{fault}: no slot has failed; the last reasons: {:?}", reasons.last());
        std::thread::sleep(Duration::from_millis(200));
    }
}
