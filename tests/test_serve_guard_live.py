"""Attacks on live sources as a whole: opened through a gateway, lost, and connected to again."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice

import pytest

from millpond.pipeline.serve.gateway import Gateway
from millpond.pipeline.serve.url_guard import UrlRefused
from millpond.stream import SourceError, SourceLost, open_source

from .clips import RATE_HZ, number_of
from .conftest import RtspServer
from .guarded_parts import Inside, Names, leads_to, rules_with
from .transport_streams import LiveHls, WebServer, endless, tcp_sender, transport_stream

QUICK = {"reconnect_wait_s": 0.1, "max_reconnect_wait_s": 0.1, "open_timeout_s": 3.0, "read_timeout_s": 2.0}
WAIT_S = 60.0


@pytest.fixture
def gateway(names: Names) -> Iterator[Gateway]:
    """More patient than the others': here it is the source that gives up first."""
    with Gateway(rules_with(names), connect_s=20.0, read_s=20.0) as opened:
        yield opened


def test_hls_and_mpeg_ts_and_recordings_come_through(gateway: Gateway, web: WebServer) -> None:
    LiveHls(web, "/cam")
    at = f"http://cam.example:{web.port}"
    with open_source(f"{at}/cam/live.m3u8", policy="block", capacity=100, way=gateway) as source:
        assert source.is_live
        numbers = [number_of(frame.rgb_HW3) for frame in islice(source, 60)]
    assert numbers == sorted(set(numbers))  # a machine that is busy may be too late for a segment
    web.pages["/endless"], web.pages["/clip.ts"] = endless(web, transport_stream(50), 2.0), transport_stream(20)
    with open_source(f"{at}/endless", policy="block", way=gateway) as source:
        assert source.is_live and len(list(islice(source, 10))) == 10
    with open_source(f"{at}/clip.ts", way=gateway) as source:
        assert source.uri == f"{at}/clip.ts" and len(list(islice(source, 20))) == 20


def test_a_camera_comes_through_and_again_after_it_was_lost(
    gateway: Gateway, rtsp_server: Callable[..., RtspServer], names: Names
) -> None:
    server = rtsp_server()
    uri = server.uri("keeper7:QXpw").replace("127.0.0.1", "cam.example")
    with open_source(uri, way=gateway, **QUICK) as source:
        assert len(list(islice(source, 5))) == 5
        assert source.uri == server.uri("***").replace("127.0.0.1", "cam.example")
        num_asked = len(names.asked)
        gateway_ends(gateway)
        assert len(list(islice(source, 50))) == 50
        assert source.stats.num_reconnects >= 1 and len(names.asked) > num_asked  # looked up, and checked, again


def gateway_ends(gateway: Gateway) -> None:
    """Cuts what goes through it just now."""
    for end in list(gateway._open):
        with suppress(OSError):  # it is gone already
            end.shutdown(socket.SHUT_RDWR)


def test_a_name_that_leads_inside_later_is_not_followed(gateway: Gateway, inside: Inside, names: Names) -> None:
    with tcp_sender(transport_stream(RATE_HZ), 0.5) as port:
        names.answers["cam.example"] = ["127.0.0.1", "127.0.0.2"]
        with open_source(f"tcp://cam.example:{port}", way=gateway, **QUICK) as source:
            assert next(iter(source)) is not None
            deadline_s = time.monotonic() + WAIT_S
            while source.problem is None or "may be sent to" not in source.problem:
                assert time.monotonic() < deadline_s, source.problem
                time.sleep(0.02)
            assert source.state == "lost" and "cam.example" in source.problem
    assert inside.num_visits == 0


@pytest.mark.parametrize("scheme", ["http", "https", "rtsp", "rtsps", "tcp"])
def test_what_is_inside_is_refused_with_a_sentence(gateway: Gateway, inside: Inside, scheme: str) -> None:
    for host in ("127.0.0.2", "inside.example"):
        with pytest.raises(UrlRefused, match="no host that this server may be sent to"):
            open_source(f"{scheme}://keeper7:QXpw@{host}:{inside.port}", way=gateway, **QUICK)
    assert inside.num_visits == 0


def test_a_redirect_inside_is_refused_with_a_sentence(gateway: Gateway, web: WebServer, inside: Inside) -> None:
    web.pages["/moved"] = leads_to(f"http://127.0.0.2:{inside.port}/x")
    with pytest.raises(SourceError, match="no host that this server may be sent to"):
        open_source(web.uri("/moved"), way=gateway, **QUICK)
    assert inside.num_visits == 0


def test_what_is_wrong_is_told_of_the_address_that_was_given(gateway: Gateway, web: WebServer) -> None:
    web.pages["/text"] = b"no video"
    at = f"127.0.0.1:{web.port}"
    with pytest.raises(SourceError, match=rf"http://{at}/text answers, but not with video"):
        open_source(web.uri("/text"), way=gateway, **QUICK)
    with pytest.raises(SourceError, match=rf"http://{at}/none does not exist"):
        open_source(web.uri("/none"), way=gateway, **QUICK)
    with pytest.raises(SourceLost, match=r"rtsp://127\.0\.0\.1:9/x refuses the connection"):
        open_source("rtsp://127.0.0.1:9/x", way=gateway, **QUICK)
    with pytest.raises(SourceLost, match=rf"rtsp://{at}/x"):
        open_source(f"rtsp://{at}/x", way=gateway, **QUICK)
