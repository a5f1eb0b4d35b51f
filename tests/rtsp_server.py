"""An RTSP server for tests, on GStreamer: run with the system's Python, which has its bindings.

python3 rtsp_server.py [--clip FILE] [--port N] [--user NAME --password WORD] [--sizes 160x120,320x240]
    [--num-frames N] [--key-every N] [--intra-refresh] [--lose SHARE] [--first-ticks N] [--clock CLOCK]

Prints its port, then serves /clip until it is killed.
"""

import argparse
import itertools
import random
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

# Without a clip: a moving ball that never ends. Key frames often, so that a late client sees soon.
BALL = (
    "videotestsrc is-live=true pattern=ball num-buffers={num_frames} ! videoscale"
    " ! capsfilter name=size caps=video/x-raw,width={width},height={height},framerate=15/1"
)
CLIP = "filesrc location={clip} ! qtdemux ! h264parse"
ENCODE = (
    " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={key_every} intra-refresh={intra_refresh}"
    " ! video/x-h264,profile=main"
)
NTP_TIME_SOURCES = {"ntp": 0, "running": 2}  # rtpbin's: the time of day, or seconds since it began to play


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--clip")
    options.add_argument("--port", default="0")
    options.add_argument("--user")
    options.add_argument("--password")
    options.add_argument("--sizes", default="160x120", help="several: one after the other, for a second each")
    options.add_argument("--num-frames", type=int, default=-1)
    options.add_argument("--key-every", type=int, default=15)
    options.add_argument("--intra-refresh", action="store_true")
    options.add_argument("--lose", type=float, default=0.0, help="share of the RTP packets that is never sent")
    options.add_argument("--first-ticks", type=int, default=-1, help="the RTP timestamp to begin with")
    options.add_argument("--clock", choices=NTP_TIME_SOURCES, default="ntp", help="of the sender reports")
    given = options.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(given.port)
    sizes = [tuple(map(int, size.split("x"))) for size in given.sizes.split(",")]
    factory = GstRtspServer.RTSPMediaFactory()
    if given.clip:
        media = CLIP.format(clip=given.clip)
    else:
        media = BALL.format(num_frames=given.num_frames, width=sizes[0][0], height=sizes[0][1])
        media += ENCODE.format(key_every=given.key_every, intra_refresh=given.intra_refresh)
    offset = f"timestamp-offset={given.first_ticks}" if given.first_ticks >= 0 else ""
    factory.set_launch(f"( {media} ! rtph264pay name=pay0 pt=96 config-interval=1 mtu=400 {offset} )")
    factory.set_shared(False)
    factory.set_media_gtype(media_with_clock(NTP_TIME_SOURCES[given.clock]))
    if len(sizes) > 1:
        factory.connect("media-configure", lambda _, made: change_sizes(made, sizes))
    if given.lose:
        factory.connect("media-configure", lambda _, made: lose_packets(made, given.lose))
    if given.user:
        require_password(server, factory, given.user, given.password)
    server.get_mount_points().add_factory("/clip", factory)
    server.attach(None)
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


def media_with_clock(time_source: int):  # type: ignore[no-untyped-def]
    class Media(GstRtspServer.RTSPMedia):
        """What a client is sent, with sender reports by the clock that was asked for."""

        def do_setup_rtpbin(self, rtpbin) -> bool:  # type: ignore[no-untyped-def]
            rtpbin.set_property("ntp-time-source", time_source)
            return True

    return Media


def change_sizes(media, sizes: list[tuple[int, int]]) -> None:  # type: ignore[no-untyped-def]
    size = media.get_element().get_by_name("size")
    following = itertools.cycle(sizes[1:] + sizes[:1])

    def change() -> bool:
        width, height = next(following)
        size.set_property("caps", Gst.Caps.from_string(f"video/x-raw,width={width},height={height},framerate=15/1"))
        return media.get_status() != GstRtspServer.RTSPMediaStatus.UNPREPARED

    GLib.timeout_add(1000, change)


def lose_packets(media, share: float) -> None:  # type: ignore[no-untyped-def]
    """Packets that have their number in the sequence and are never sent, as on a bad line."""
    chance = random.Random(5)
    pad = media.get_element().get_by_name("pay0").get_static_pad("src")

    def look(_, info):  # type: ignore[no-untyped-def]
        if info.type & Gst.PadProbeType.BUFFER:
            return Gst.PadProbeReturn.DROP if chance.random() < share else Gst.PadProbeReturn.OK
        packets = info.get_buffer_list()
        for number in range(packets.length()):
            pad.push(packets.get(number))  # one at a time: each passes here again
        return Gst.PadProbeReturn.DROP

    pad.add_probe(Gst.PadProbeType.BUFFER, look)
    pad.add_probe(Gst.PadProbeType.BUFFER_LIST, look)


def require_password(server, factory, user: str, password: str) -> None:  # type: ignore[no-untyped-def]
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("user", "media.factory.access", True)
    permissions.add_permission_for_role("user", "media.factory.construct", True)
    factory.set_permissions(permissions)


if __name__ == "__main__":
    main()
