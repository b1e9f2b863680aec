//! What a person writes of a V4L2 camera, and what they are told when it is wrong.

use super::*;
use crate::config::parse;

#[test]
fn a_v4l2_camera_is_told_what_the_file_says_and_check_says_it_in_words() {
    let text = "[node]\nid = \"n\"\n[cameras.yard]\nsource = \"v4l2:1-1.2\"\nsize = \"1920x1080\"\nrate = 5\nformat = \"MJPG\"
[cameras.yard.controls]\nexposure = \"10ms\"\nwhite_balance = 4600\nfocus = \"auto\"\npower_line = \"50Hz\"\n";
    let (settings, _) = parse(text, "f.toml").unwrap();
    let (controls, video) = (settings.cameras[0].video.controls, settings.cameras[0].video);
    assert_eq!((video.size, video.rate, video.format), (Some((1920, 1080)), Some(5), Some(*b"MJPG")));
    assert_eq!((controls.exposure, controls.white_balance), (Some(Set::To(10_000)), Some(Set::To(4_600))));
    assert_eq!((controls.focus, controls.power_line), (Some(Set::Auto), Some(PowerLine::Hz50)));
    let said = crate::config::text::in_words(&settings, crate::model::Quality::Ntp, &|_| vec![]);
    let line = "camera yard: v4l2:1-1.2, MJPG, 1920x1080, 5 frames a second, exposure 10 ms, white balance 4600 K, focus automatic, power line 50 Hz, timeout 10 s";
    assert!(said.contains(line), "{said}");
    let (settings, _) = parse(&text.replace("\"10ms\"", "\"500us\""), "f.toml").unwrap();
    assert_eq!(settings.cameras[0].video.controls.exposure, Some(Set::To(500)));
    let (plain, _) = parse("[node]\nid = \"n\"\n[cameras.gate]\nsource = \"rtsp://10.0.0.5/s\"\n", "f.toml").unwrap();
    assert_eq!(plain.cameras[0].video, Video::default());
}

/// Text after the two lines of `[node]`, and the one message that it earns.
#[test]
fn each_mistake_has_a_message_that_says_what_to_do() {
    for (text, says) in [
        (
            "[cameras.y]\nsource = \"v4l2:x\"\nsize = \"big\"\n",
            "5: [cameras.y] size: \"big\" is not a size in pixels; write one such as \"1920x1080\"",
        ),
        (
            "[cameras.y]\nsource = \"v4l2:x\"\nsize = \"0x480\"\n",
            "5: [cameras.y] size: \"0x480\" is not a size in pixels; write one such as \"1920x1080\"",
        ),
        (
            "[cameras.y]\nsource = \"v4l2:x\"\nformat = \"mjpeg\"\n",
            "5: [cameras.y] format: \"mjpeg\" is not one of MJPG, JPEG, YUYV, UYVY, YU12, NV12, GREY",
        ),
        (
            "[cameras.y]\nsource = \"v4l2:x\"\nsize = \"1920x1080\"\nmax_pixels = 1_000_000\n",
            "5: [cameras.y] size: 1920x1080 is over max_pixels = 1000000; raise that, or write a smaller size",
        ),
        ("[cameras.y]\nsource = \"v4l2:x\"\nrate = 0\n", "5: [cameras.y] rate: 0 is out of range; write a whole number from 1 to 1000"),
        (
            "[cameras.y]\nsource = \"v4l2:x\"\n[cameras.y.controls]\nexposure = \"10\"\n",
            "6: [cameras.y.controls] exposure: \"10\" has no unit; write one of ms, s, m, h, d after the number, such as \"10s\"",
        ),
        (
            "[cameras.y]\nsource = \"v4l2:x\"\n[cameras.y.controls]\nexposure = \"2m\"\n",
            "6: [cameras.y.controls] exposure: \"2m\" is not an exposure; write \"auto\" or a time such as \"10ms\" or \"500us\"",
        ),
        (
            "[cameras.y]\nsource = \"v4l2:x\"\n[cameras.y.controls]\nwhite_balance = \"warm\"\n",
            "6: [cameras.y.controls] white_balance: \"warm\" is not \"auto\" or a whole number from 1000 to 20000",
        ),
        (
            "[cameras.y]\nsource = \"v4l2:x\"\n[cameras.y.controls]\npower_line = \"50\"\n",
            "6: [cameras.y.controls] power_line: \"50\" is not one of \"50Hz\", \"60Hz\", \"off\"",
        ),
        (
            "[cameras.y]\nsource = \"v4l2:x\"\n[cameras.y.controls]\nfocsu = 3\n",
            "6: unknown key \"focsu\" in [cameras.y.controls]; did you mean \"focus\"?",
        ),
        (
            "[cameras.y]\nsource = \"pattern:\"\nsize = \"640x480\"\n",
            "5: [cameras.y] size: only a v4l2: camera can be told this; delete this line",
        ),
        (
            "[cameras.y]\nsource = \"rtsp://10.0.0.5/s\"\n[cameras.y.controls]\nfocus = \"auto\"\n",
            "5: [cameras.y] controls: only a v4l2: camera can be told this; delete this line",
        ),
    ] {
        let said = parse(&format!("[node]\nid = \"n\"\n{text}"), "f.toml").expect_err(text).to_string();
        assert_eq!(said, format!("f.toml:{says}"), "for:\n{text}");
    }
}
