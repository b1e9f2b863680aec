#!/usr/bin/python3
"""A real RTSP server that behaves as an IP camera: it plays a clip in a loop and in real time, whoever joins when.

  rtspcam.py CLIPS [--auth basic|digest] [--udp-only] [--once-then-silent SECONDS] [--keyframe-first]

CLIPS is the directory that clips.sh made. Prints `ready PORT` when it listens (on a free port of 127.0.0.1), then one line for each
thing a client does: `client DESCRIBE`, `client SETUP`, `client TEARDOWN`. User and password are admin and se/cret. It ends when its
standard input does, so that it cannot outlive the test.
"""

import argparse
import pathlib
import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

FPS = 25
USER, PASSWORD = "admin", "se/cret"


def pieces(data, mark):
    """The clip's frames: each begins with the mark (an access unit delimiter, or a JPEG's first bytes)."""
    starts, at = [], data.find(mark)
    while at >= 0:
        starts.append(at)
        at = data.find(mark, at + len(mark))
    return [data[a:b] for a, b in zip(starts, starts[1:] + [len(data)])]


def without_last_slice(unit):
    """A keyframe as a camera with a full send buffer sends it: whole packets, one slice fewer."""
    last = unit.rfind(b"\0\0\1\x65")
    return unit if last < 0 else unit[:last].rstrip(b"\0")


def torn(jpeg):
    """The upper half of a picture, properly ended."""
    return jpeg[: len(jpeg) // 2] + b"\xff\xd9"


def as_it_is(frame):
    return frame


AUD_H264, AUD_H265, SOI = b"\0\0\0\1\x09", b"\0\0\0\1\x46\x01", b"\xff\xd8\xff"
H264 = ("video/x-h264,stream-format=byte-stream,alignment=au", "h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1")
H265 = ("video/x-h265,stream-format=byte-stream,alignment=au", "h265parse ! rtph265pay name=pay0 pt=96")
JPEG = ("image/jpeg,width=1280,height=720", "rtpjpegpay name=pay0 pt=26")
MOUNTS = {
    "/h264": ("cam.h264", AUD_H264, as_it_is, *H264),
    "/h264-slice-missing": ("cam.h264", AUD_H264, without_last_slice, *H264),
    "/interlaced": ("cam-interlaced.h264", AUD_H264, as_it_is, *H264),
    "/h265": ("cam.h265", AUD_H265, as_it_is, *H265),
    "/mjpeg": ("cam.mjpeg", SOI, as_it_is, *JPEG),
    "/mjpeg-torn": ("cam.mjpeg", SOI, torn, *JPEG),
}


class Mount(GstRtspServer.RTSPMediaFactory):
    def __init__(self, frames, caps, payloader, silent_after, first):
        super().__init__()
        self.frames, self.silent_after, self.first = frames, silent_after, first
        self.launch = f'( appsrc name=src is-live=true do-timestamp=true format=time caps="{caps},framerate={FPS}/1" ! {payloader} )'
        # A pipeline for each client: a shared one answers 503 while the last client's is being taken down.
        self.set_shared(False)
        self.set_latency(0)

    def do_create_element(self, _url):
        return Gst.parse_launch(self.launch)

    def do_configure(self, media):
        GstRtspServer.RTSPMediaFactory.do_configure(self, media)
        source = media.get_element().get_child_by_name("src")
        stop = threading.Event()
        feeder = threading.Thread(target=self.feed, args=(source, stop), daemon=True)
        source.connect("need-data", lambda *_: feeder.ident or feeder.start())
        media.connect("unprepared", lambda _: stop.set())

    def feed(self, source, stop):
        begin = time.monotonic()
        # The place in the clip follows the wall clock: a client meets the film where it happens to be.
        place = int(time.time() * FPS)
        # Unless it is one of those that begin with a keyframe (the film has one each second).
        if self.first:
            place -= place % FPS
        for count in range(1 << 40):
            if self.silent_after and time.monotonic() - begin > self.silent_after:
                return
            source.emit("push-buffer", Gst.Buffer.new_wrapped(self.frames[(place + count) % len(self.frames)]))
            if stop.wait(max(0, begin + (count + 1) / FPS - time.monotonic())):
                return


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("clips", type=pathlib.Path)
    parser.add_argument("--auth", choices=["basic", "digest"])
    parser.add_argument("--udp-only", action="store_true")
    parser.add_argument("--keyframe-first", action="store_true")
    parser.add_argument("--once-then-silent", type=float, metavar="SECONDS", default=0)
    options = parser.parse_args()
    Gst.init(None)

    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    if options.auth:
        auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        if options.auth == "basic":
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic(USER, PASSWORD), token)
        else:
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            auth.add_digest(USER, PASSWORD, token)
        server.set_auth(auth)
    for path, (clip, mark, change, caps, payloader) in MOUNTS.items():
        frames = [change(frame) for frame in pieces((options.clips / clip).read_bytes(), mark)]
        mount = Mount(frames, caps, payloader, options.once_then_silent, options.keyframe_first)
        if options.udp_only:
            mount.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
        if options.auth:
            role = Gst.Structure.from_string("user,media.factory.access=(boolean)true,media.factory.construct=(boolean)true")
            mount.add_role_from_structure(role[0] if isinstance(role, tuple) else role)
        server.get_mount_points().add_factory(path, mount)

    def tell(client):
        for what in ("describe", "setup", "teardown"):
            client.connect(what + "-request", lambda *_, what=what: print("client", what.upper(), flush=True))

    server.connect("client-connected", lambda _, client: tell(client))
    loop = GLib.MainLoop()

    def until_input_ends():
        sys.stdin.read()
        loop.quit()

    threading.Thread(target=until_input_ends, daemon=True).start()
    server.attach(None)
    print(f"ready {server.get_bound_port()}", flush=True)
    loop.run()


main()
