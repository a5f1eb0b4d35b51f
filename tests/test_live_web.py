"""LiveSource over HTTP, HLS, and MPEG-TS by TCP and UDP, from real servers on loopback."""

from __future__ import annotations

import base64
import logging
import socket
import time
from itertools import islice, pairwise
from pathlib import Path

import pytest

from millpond.stream import Frame, Source, SourceError, SourceLost, open_source

from .clips import RATE_HZ, number_of
from .transport_streams import (
    TICKS,
    LiveHls,
    UdpSender,
    WebServer,
    endless,
    free_udp_port,
    in_real_time,
    tcp_sender,
    transport_stream,
)

LOGIN, WRONG = "keeper7:QXpw", "keeper7:QXno"
WRAP = 2**33


def playlist(*names: str, lasts_s: float = 1.0, is_whole: bool = True) -> bytes:
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", "#EXT-X-MEDIA-SEQUENCE:0"]
    for name in names:
        lines += [f"#EXTINF:{lasts_s:.3f},", name]
    return "\n".join([*lines, "#EXT-X-ENDLIST" if is_whole else "", ""]).encode()


def follow_each_other(frames: list[Frame], *, step_s: float = 1 / RATE_HZ) -> bool:
    """Whether no picture is missing, and each comes when it is due after the one before."""
    numbers = [number_of(frame.rgb_HW3) for frame in frames]
    times_s = [frame.pts_s for frame in frames]
    return all(b - a == 1 for a, b in pairwise(numbers)) and all(
        abs(b - a - step_s) < 1e-3 for a, b in pairwise(times_s)
    )


def reopened_until_it_opens(uri: str, **options: object) -> Source:
    """For senders whose port nobody else can be seen to have opened."""
    return open_source(uri, must_answer=False, reconnect_wait_s=0.05, max_reconnect_wait_s=0.2, **options)


# HLS


def test_hls_plays_over_its_segments_and_no_faster_than_it_was_taken(web: WebServer) -> None:
    LiveHls(web, "/cam")
    with open_source(web.uri("/cam/live.m3u8"), policy="block", capacity=100) as source:
        assert source.is_live and source.duration_s is None
        frames, came_s = [], []
        for frame in islice(source, 70):
            frames.append(frame)
            came_s.append(time.monotonic())
        assert source.state == "live" and source.wall_clock == "arrival"
    assert follow_each_other(frames) and not any(frame.gap_s for frame in frames)
    assert sum(path.endswith(".ts") for path in web.asked) >= 3
    # Segments come at once; what is in them is handed out over the second that it took.
    assert came_s[-1] - came_s[0] > 0.8 * (frames[-1].pts_s - frames[0].pts_s)


def test_a_whole_playlist_is_a_recording(web: WebServer) -> None:
    for number in range(3):
        web.pages[f"/{number}.ts"] = transport_stream(
            RATE_HZ, first=number * RATE_HZ, first_ticks=(1 + number) * 90_000
        )
    web.pages["/whole.m3u8"] = playlist("0.ts", "1.ts", "2.ts")
    with open_source(web.uri("/whole.m3u8")) as source:
        assert not source.is_live and source.duration_s == pytest.approx(3.0)
        frames = list(source)
        assert source.state == "ended" and source.problem is None
    assert len(frames) == 3 * RATE_HZ and follow_each_other(frames)
    assert source.stats.num_dropped == source.stats.num_skipped == 0


@pytest.mark.parametrize(
    "reach",
    [
        "file://{path}",
        "{path}",
        "concat:{path}",
        "subfile,,start,0,end,0,,:{path}",
        "async:file:{path}",
        "crypto:{path}",
        "data:video/mp2t;base64,{data}",
        "udp://127.0.0.1:{port}",
        "rtp://127.0.0.1:{port}",
    ],
)
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_playlist_reaches_nothing_but_the_web(web: WebServer, tmp_path: Path, reach: str, is_whole: bool) -> None:
    secret = tmp_path / "secret.ts"
    data = transport_stream(RATE_HZ)
    secret.write_bytes(data)
    target = reach.format(path=secret, data=base64.b64encode(data).decode(), port=free_udp_port())
    web.pages["/hostile.m3u8"] = playlist(target, is_whole=is_whole)
    with pytest.raises((SourceError, SourceLost), match=r"http://127.0.0.1:\d+/hostile.m3u8"):
        open_source(web.uri("/hostile.m3u8"), open_timeout_s=2.0, read_timeout_s=2.0)


def test_a_playlist_of_the_machines_own_files_is_refused(web: WebServer) -> None:
    web.pages["/hostile.m3u8"] = playlist("file:///etc/passwd")
    with pytest.raises((SourceError, SourceLost)) as caught:
        open_source(web.uri("/hostile.m3u8"), open_timeout_s=2.0)
    assert "root:" not in str(caught.value)


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "tcp://127.0.0.1:9", "rtsp://127.0.0.1:9/x", "concat:/etc/passwd"]
)
def test_a_redirect_reaches_nothing_but_the_web(web: WebServer, target: str) -> None:
    def redirect(handler) -> None:  # type: ignore[no-untyped-def]
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    web.pages["/moved"] = redirect
    with pytest.raises((SourceError, SourceLost), match=r"http://127.0.0.1:\d+/moved"):
        open_source(web.uri("/moved"), open_timeout_s=2.0)


def test_a_description_of_media_is_not_followed(web: WebServer) -> None:
    """An SDP file or a script of FFmpeg's would have it listen and read elsewhere."""
    web.pages["/x.sdp"] = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    web.pages["/x.ffconcat"] = b"ffconcat version 1.0\nfile '/etc/passwd'\n"
    for name in ("/x.sdp", "/x.ffconcat"):
        with pytest.raises(SourceError, match="answers, but not with video that can be read"):
            open_source(web.uri(name), open_timeout_s=2.0)


def test_hls_behind_a_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with WebServer(login=LOGIN) as web:
        LiveHls(web, "/cam")
        with open_source(web.uri("/cam/live.m3u8", LOGIN)) as source:
            assert next(iter(source)).width == 160
            told = f"{source!r} {source.uri} {source.stream_id} {vars(source)} {source.stats} {source.problem}"
        with pytest.raises(SourceError, match="refuses the user name or password") as caught:
            open_source(web.uri("/cam/live.m3u8", WRONG))
    told += f"{caught.value!r} {caplog.text}"
    assert "QX" not in told and "keeper7" not in told and "a2VlcGVyNz" not in told


# MPEG-TS


def test_endless_mpeg_ts_over_http_is_live(web: WebServer) -> None:
    web.pages["/cam"] = endless(web, transport_stream(4 * RATE_HZ), 4.0)
    with open_source(web.uri("/cam"), policy="block") as source:
        assert source.is_live and source.duration_s is None
        frames = list(islice(source, 50))
    assert follow_each_other(frames)


def test_mpeg_ts_over_http_that_ends_is_connected_to_again(web: WebServer) -> None:
    web.pages["/cam"] = endless(web, transport_stream(20), 0.8)
    with open_source(
        web.uri("/cam"), policy="block", reconnect_wait_s=0.1, max_reconnect_wait_s=0.1, read_timeout_s=2.0
    ) as source:
        frames = list(islice(source, 50))
        assert source.stats.num_reconnects >= 1
    numbers = [number_of(frame.rgb_HW3) for frame in frames]
    assert numbers.count(numbers[5]) >= 2  # it was sent again
    times_s = [frame.pts_s for frame in frames]
    assert times_s == sorted(times_s)
    gaps = [frame for frame in frames if frame.gap_s]
    assert [number_of(frame.rgb_HW3) for frame in gaps] == [numbers[0]] * len(gaps) and gaps
    assert source.stats.num_gaps >= len(gaps) and source.stats.gap_s >= sum(frame.gap_s for frame in gaps) > 0


def test_a_recording_that_is_lost_is_not_begun_again(web: WebServer) -> None:
    data = transport_stream(4 * RATE_HZ)

    def cut_off(handler) -> None:  # type: ignore[no-untyped-def]
        """Says that it is longer than it is, and breaks off."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.send_header("Content-Type", "video/mp2t")
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])

    web.pages["/whole.ts"], web.pages["/clip.ts"] = data, cut_off
    with open_source(web.uri("/whole.ts")) as source:
        assert not source.is_live and len(list(source)) == 4 * RATE_HZ
    with open_source(web.uri("/clip.ts"), open_timeout_s=3.0, read_timeout_s=1.0) as source:
        assert not source.is_live
        numbers = []
        with pytest.raises(SourceLost, match="was lost"):
            for frame in source:
                numbers.append(number_of(frame.rgb_HW3))
        assert source.state == "ended" and source.stats.num_reconnects == 0
    assert len(numbers) == len(set(numbers)) >= RATE_HZ


@pytest.mark.parametrize("is_soon", [True, False])
def test_mpeg_ts_over_tcp_with_a_wrap_in_it(is_soon: bool) -> None:
    before = RATE_HZ
    if is_soon:
        data = transport_stream(3 * RATE_HZ, first_ticks=WRAP - before * TICKS)
    else:
        # The counter jumps: what FFmpeg takes for a wrap, or for a sender that started again.
        data = transport_stream(before, first_ticks=WRAP - 120 * 90_000)
        data += transport_stream(2 * RATE_HZ, first=before, first_ticks=0)
    with tcp_sender(data, 3.0) as port, open_source(f"tcp://127.0.0.1:{port}", policy="block", reconnects=0) as source:
        assert source.stream_id == f"127.0.0.1:{port}"
        frames = list(islice(source, 60))
        assert source.stats.num_reconnects == 0
    numbers = [number_of(frame.rgb_HW3) for frame in frames]
    times_s = [frame.pts_s for frame in frames]
    # Where it started again, one picture may have been cut off for all that anybody can tell.
    missing = set(range(numbers[0], numbers[-1])) - set(numbers)
    assert numbers == sorted(set(numbers)) and numbers[0] < before and missing <= {before - 1}
    assert not (is_soon and missing)
    assert times_s == sorted(times_s)
    assert times_s[-1] - times_s[0] == pytest.approx((numbers[-1] - numbers[0]) / RATE_HZ, abs=0.1 if is_soon else 1.5)


def test_mpeg_ts_over_udp_with_a_wrap_in_it() -> None:
    port = free_udp_port()
    with UdpSender(port) as sender:
        sender.send(transport_stream(12 * RATE_HZ, first_ticks=WRAP - 2 * RATE_HZ * TICKS, key_every=5), 12.0)
        with reopened_until_it_opens(f"udp://127.0.0.1:{port}", policy="block", read_timeout_s=2.0) as source:
            frames = list(islice(source, 100))
    numbers = [number_of(frame.rgb_HW3) for frame in frames]
    assert numbers[0] < 2 * RATE_HZ < numbers[-1], "the wrap was to be between"
    times_s = [frame.pts_s for frame in frames]
    assert times_s == sorted(times_s)
    assert times_s[-1] - times_s[0] == pytest.approx((numbers[-1] - numbers[0]) / RATE_HZ, abs=0.2)


def test_a_udp_sender_that_pauses_leaves_a_gap() -> None:
    port = free_udp_port()
    with UdpSender(port) as sender:
        sender.send(transport_stream(3 * RATE_HZ, key_every=5), 3.0)
        with reopened_until_it_opens(
            f"udp://@127.0.0.1:{port}?localaddr=127.0.0.1", read_timeout_s=1.0, open_timeout_s=1.5
        ) as source:
            frames = iter(source)
            first = next(frames)
            assert first.gap_s == 0
            while source.state == "live":  # until it has nothing more to send
                time.sleep(0.05)
            assert source.state == "lost" and source.stats.num_stalls >= 1
            assert "sent nothing for 1 s" in (source.problem or "")
            sender.send(transport_stream(10 * RATE_HZ, first=500, key_every=5), 10.0)
            gaps = [frame.gap_s for frame in islice(frames, 20)]
            assert source.state == "live" and source.stats.num_reconnects == 1
    assert sum(gap_s > 0 for gap_s in gaps) == 1 and max(gaps) > 0.9


@pytest.mark.parametrize("scheme", ["http", "hls"])
def test_a_peer_that_stops_sending_is_lost_and_asked_again(web: WebServer, scheme: str) -> None:
    data = transport_stream(RATE_HZ, key_every=5)

    def sends_a_second_and_hangs(handler) -> None:  # type: ignore[no-untyped-def]
        handler.send_response(200)
        handler.end_headers()
        for part in in_real_time(data, 1.0, web.ended):
            handler.wfile.write(part)
        web.ended.wait()

    web.pages["/cam"] = web.pages["/1.ts"] = sends_a_second_and_hangs
    web.pages["/0.ts"], web.pages["/live.m3u8"] = data, playlist("0.ts", "1.ts", is_whole=False)
    uri = web.uri("/cam" if scheme == "http" else "/live.m3u8")
    quick = {"reconnect_wait_s": 0.1, "max_reconnect_wait_s": 0.1, "read_timeout_s": 1.0, "open_timeout_s": 3.0}
    with open_source(uri, policy="block", **quick) as source:
        frames = iter(source)
        while source.stats.num_reconnects < 1:
            next(frames)
        assert source.stats.num_gaps >= 1 and source.stats.gap_s > 0.5
        # Of a segment that stalls FFmpeg tells as of an end.
        assert source.stats.num_stalls >= 1 or scheme == "hls"
    assert web.asked.count(web.asked[0]) >= 2


def test_a_server_that_accepts_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("http", "tcp"):
            began_s = time.monotonic()
            with pytest.raises(SourceLost, match="did not answer within 1 s"):
                open_source(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", open_timeout_s=1.0, read_timeout_s=1.0)
            assert time.monotonic() - began_s < 10


def test_a_recording_that_need_not_answer_at_once_is_a_recording_once_it_does(web: WebServer) -> None:
    web.pages["/whole.ts"] = transport_stream(2 * RATE_HZ)
    with open_source(web.uri("/whole.ts"), must_answer=False) as source:
        frames = iter(source)
        first = next(frames)
        assert not source.is_live
        time.sleep(0.5)  # nobody takes what comes meanwhile, and it waits
        rest = list(frames)
        assert source.state == "ended" and source.stats.num_dropped == 0
    assert follow_each_other([first, *rest]) and len(rest) == 2 * RATE_HZ - 1


@pytest.mark.parametrize("uri", ["tcp://127.0.0.1", "udp://127.0.0.1", "udp://", "tcp://:5000", "udp://127.0.0.1:x"])
def test_a_port_is_needed(uri: str) -> None:
    with pytest.raises(SourceError, match=r"is no address; wanted (tcp|udp)://host:port"):
        open_source(uri)


def test_nobody_there() -> None:
    with pytest.raises(SourceLost, match=r"tcp://127\.0\.0\.1:9 refuses the connection"):
        open_source("tcp://127.0.0.1:9", open_timeout_s=2.0)
    port = free_udp_port()
    with pytest.raises(SourceLost, match=rf"udp://@:{port}\?localaddr=127.0.0.1 did not answer within 1 s"):
        open_source(f"udp://@:{port}?localaddr=127.0.0.1", open_timeout_s=1.0, read_timeout_s=1.0)
