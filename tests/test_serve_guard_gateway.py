"""Attacks by what the web gives FFmpeg to open: redirects, playlists and their like, against PyAV's real FFmpeg."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import av
import pytest

from millpond.pipeline.serve.gateway import Gateway
from millpond.pipeline.serve.url_guard import UrlRefused
from millpond.stream import SourceError, SourceLost

from .clips import RATE_HZ, make_clip
from .guarded_parts import Inside, Names, leads_to, num_frames, playlist, rules_with
from .transport_streams import WebServer, transport_stream


def test_what_is_allowed_comes_through(gateway: Gateway, web: WebServer, names: Names) -> None:
    data = transport_stream(RATE_HZ)
    web.pages |= {
        "/clip.ts": data,
        "/0.ts": data,
        "/list.m3u8": playlist("0.ts"),
        "/nested.m3u8": b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlist.m3u8\n",
        "/moved": leads_to("/far/off/list.m3u8"),  # what is named there is beside it there
        "/far/off/list.m3u8": playlist("1.ts"),
        "/far/off/1.ts": data,
    }
    for path in ("/clip.ts", "/list.m3u8", "/moved", "/nested.m3u8"):
        assert num_frames(gateway, f"http://cam.example:{web.port}{path}") == 5
    assert names.asked.count("cam.example") == len(web.asked) > 6  # looked up for each connection


def test_a_password_goes_to_the_camera(gateway: Gateway) -> None:
    heard: list[str] = []

    def page(handler) -> None:  # type: ignore[no-untyped-def]
        heard.append(str(handler.headers))
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(transport_stream(RATE_HZ))

    with WebServer(login="keeper7:QXpw") as web:
        web.pages["/cam"] = page
        assert num_frames(gateway, web.uri("/cam", "keeper7:QXpw")) == 5
    assert "Authorization: Basic" in heard[0] and len(heard) == 1


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2:{port}/x.ts",
        "http://inside.example:{port}/x.ts",
        "http://2130706434:{port}/x.ts",
        "http://[::ffff:127.0.0.2]:{port}/x.ts",
        "https://127.0.0.2:{port}/x.ts",
        "crypto+http://127.0.0.2:{port}/x.ts",
        "//127.0.0.2:{port}/x.ts",
        "file:///etc/passwd",
        "concat:http://127.0.0.2:{port}/x",
        "subfile,,start,0,end,9,,:http://127.0.0.2:{port}/x",
        "tcp://127.0.0.2:{port}",
        "rtsp://127.0.0.2:{port}/x",
        "data:video/mp2t;base64,AAAA",
    ],
)
def test_neither_redirects_nor_playlists_lead_inside(
    gateway: Gateway, web: WebServer, inside: Inside, target: str
) -> None:
    to = target.format(port=inside.port)
    web.pages |= {
        "/moved": leads_to(to),
        "/list.m3u8": playlist(to),
        "/nested.m3u8": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{to}\n".encode(),
        "/list2.m3u8": playlist("moved.ts"),
        "/moved.ts": leads_to(to),
        "/nested2.m3u8": b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nmoved.m3u8\n",
        "/moved.m3u8": leads_to(to),
        "/media.m3u8": f'#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",DEFAULT=YES,URI="{to}"\n'
        '#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a"\nlist0.m3u8\n'.encode(),
        "/list0.m3u8": playlist("0.ts"),
        "/key.m3u8": playlist("0.ts").replace(b"#EXTINF", f'#EXT-X-KEY:METHOD=AES-128,URI="{to}"\n#EXTINF'.encode()),
        "/map.m3u8": playlist("0.ts").replace(b"#EXTINF", f'#EXT-X-MAP:URI="{to}"\n#EXTINF'.encode()),
    }
    web.pages["/0.ts"] = transport_stream(RATE_HZ)
    for path in web.pages.copy():
        if path != "/0.ts":
            with suppress(av.FFmpegError, OSError, ValueError):
                num_frames(gateway, web.uri(path))
    assert {path.partition("?")[0] for path in web.asked} >= set(web.pages) - {"/0.ts", "/list0.m3u8"}
    assert inside.num_visits == 0


@pytest.mark.parametrize(
    "page",
    [playlist("http://127.0.0.2:{port}/x.ts"), b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\ntcp://127.0.0.2:{port}\n"],
)
def test_ffmpeg_by_itself_goes_where_a_playlist_leads(web: WebServer, inside: Inside, page: bytes) -> None:
    """What the others are shown not to do."""
    web.pages["/list.m3u8"] = page.replace(b"{port}", str(inside.port).encode())
    with suppress(av.FFmpegError):
        av.open(web.uri("/list.m3u8"), options={"protocol_whitelist": "http,tcp"}, timeout=(5.0, 5.0)).close()
    assert inside.num_visits


def test_a_name_that_changes_between_check_and_connection(gateway: Gateway, inside: Inside, names: Names) -> None:
    names.answers["changing.example"] = ["127.0.0.1", "127.0.0.2"]
    uri = f"http://changing.example:{inside.port}/x"
    assert names("changing.example", 80) == ["127.0.0.1"]  # somebody's check, a while ago
    with pytest.raises(UrlRefused):
        num_frames(gateway, uri)
    names.answers["changing.example"] = ["127.0.0.2"]
    with pytest.raises(UrlRefused):
        gateway.opening(f"rtsp://changing.example:{inside.port}/x")
    assert inside.num_visits == 0


def test_a_video_with_its_index_at_the_end_is_read_in_parts(gateway: Gateway, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 10).read_bytes()
    pictures, index = clip[: clip.find(b"moov") - 4], clip[clip.find(b"moov") - 4 :]
    assert b"mdat" in pictures
    clip = pictures + (4 << 20).to_bytes(4, "big") + b"free" + bytes((4 << 20) - 8) + index  # too far to read on to it
    asked: list[str | None] = []

    def in_parts(handler) -> None:  # type: ignore[no-untyped-def]
        part = handler.headers.get("Range")
        asked.append(part)
        start = int(part[6:-1]) if part else 0
        handler.send_response(206 if part else 200)
        handler.send_header("Accept-Ranges", "bytes")
        handler.send_header("Content-Length", str(len(clip) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(clip) - 1}/{len(clip)}")
        handler.end_headers()
        handler.wfile.write(clip[start:])

    def lies(handler) -> None:  # type: ignore[no-untyped-def]
        handler.headers.replace_header("Range", "bytes=0-") if "Range" in handler.headers else None
        in_parts(handler)

    with WebServer() as web:
        web.pages |= {"/clip.mp4": in_parts, "/lies.mp4": lies}
        assert num_frames(gateway, web.uri("/clip.mp4")) == 5
        assert asked[0] is None and any(asked)
        with pytest.raises(SourceLost, match="gives another part"):
            num_frames(gateway, web.uri("/lies.mp4"))


def test_a_playlist_without_an_end_is_not_read_into_memory(gateway: Gateway, web: WebServer) -> None:
    sent = 0

    def endless(handler) -> None:  # type: ignore[no-untyped-def]
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"#EXT")
        handler.wfile.flush()
        handler.wfile.write(playlist()[4:].replace(b"#EXT-X-ENDLIST\n", b""))
        while not web.ended.is_set() and sent < 512 << 20:
            handler.wfile.write(b"#EXTINF:1.000,\n0.ts\n" * 5000)
            sent += 105_000

    web.pages |= {"/list.m3u8": endless, "/0.ts": transport_stream(RATE_HZ)}
    with pytest.raises(SourceError, match="a playlist of more than 1048576 bytes"):
        num_frames(gateway, web.uri("/list.m3u8"))
    assert sent < 64 << 20


@pytest.mark.parametrize(("status", "kind"), [(401, SourceError), (403, SourceError), (404, SourceError),
                                              (410, SourceError), (500, SourceLost), (204, SourceLost)])  # fmt: skip
def test_what_the_user_can_set_right_is_told_apart(
    gateway: Gateway, web: WebServer, status: int, kind: type[Exception]
) -> None:
    def answer(handler) -> None:  # type: ignore[no-untyped-def]
        handler.send_response(status)
        handler.end_headers()

    web.pages["/x"] = answer
    with pytest.raises(kind, match=r"127\.0\.0\.1") as caught:
        num_frames(gateway, web.uri("/x", "keeper7:QXpw"))
    assert "QX" not in str(caught.value)


def test_a_stream_that_stalls_is_given_up(names: Names, web: WebServer) -> None:
    def stalls(handler) -> None:  # type: ignore[no-untyped-def]
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(transport_stream(3))
        handler.wfile.flush()
        web.ended.wait()

    web.pages["/cam.ts"] = stalls
    with Gateway(rules_with(names), connect_s=2.0, read_s=1.0) as gateway, pytest.raises(SourceLost):
        num_frames(gateway, web.uri("/cam.ts"))
