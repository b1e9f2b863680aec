//! The stories.

use crate::board::{Images, Machine};
use crate::feed::Feed;
use crate::parts::Scratch;
use crate::stage::Told;

#[test]
#[ignore = "long form"]
fn the_same_program_for_32_bits_boots_and_captures() {
    let Some(images) = Images::find() else { return };
    let told = Told::begin("armhf, a minimal image");
    let scratch = Scratch::new("armhf");
    let feed = Feed::new(&scratch.0);
    feed.add(&images.file("armhf", "uvcsim"), "uvcsim");
    feed.frames("left", "MJPG", (640, 480), (640, 480), 10);
    let machine = Machine::armhf(&images, &scratch.0, feed.pack());
    let mut board = machine.boot("utc");
    println!("{}", board.ok("uname -a; cat /proc/uptime; ls /dev/video*; ls /dev/vd*; ip a"));
    println!("{}", board.ok("mkdir -p /run/payload; tar -xf /dev/vda -C /run/payload; ls -R /run/payload; (/run/payload/uvcsim --dir /run/payload/left --serial S1 --ctl /run/c >/run/cam.log 2>&1 &); sleep 5; cat /run/cam.log; ls /dev/video*"));
    told.shown("it boots");
}
