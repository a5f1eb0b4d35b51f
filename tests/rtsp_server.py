"""An RTSP server for tests, on GStreamer: run with the system's Python, which has its bindings.

python3 rtsp_server.py [--clip FILE] [--port N] [--user NAME --password WORD]

Prints its port, then serves /clip until it is killed.
"""

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

# Without a clip: a moving ball that never ends. Key frames often, so that a late client sees soon.
BALL = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate=15/1"
CLIP = "filesrc location={clip} ! qtdemux ! h264parse"
ENCODE = " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15"


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--clip")
    options.add_argument("--port", default="0")
    options.add_argument("--user")
    options.add_argument("--password")
    given = options.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(given.port)
    factory = GstRtspServer.RTSPMediaFactory()
    media = CLIP.format(clip=given.clip) if given.clip else BALL + ENCODE
    factory.set_launch(f"( {media} ! rtph264pay name=pay0 pt=96 config-interval=1 )")
    factory.set_shared(False)
    if given.user:
        require_password(server, factory, given.user, given.password)
    server.get_mount_points().add_factory("/clip", factory)
    server.attach(None)
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


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
