"""Attacks with requests, over raw sockets to a real server: names, tokens, origins, paths, headers, bodies."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.serve.access import Access, is_loopback
from millpond.pipeline.serve.headers import is_plain_path

from .guarded_server import MIB, TOKEN, GuardedServer


@pytest.fixture(scope="module")
def server() -> Iterator[GuardedServer]:
    with GuardedServer(names=("mill.example",), body_bytes=MIB, json_depth=8, body_s=5.0) as running:
        yield running


@pytest.fixture(scope="module")
def locked() -> Iterator[GuardedServer]:
    with GuardedServer(token=TOKEN) as running:
        yield running


# The name that it is called by


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:{port}",
        "localhost:{port}",
        "LOCALHOST",
        "localhost.",
        "[::1]:{port}",
        "192.168.7.9:8321",
        "mill.example",
        "Mill.Example:443",
    ],
)
def test_own_names_are_answered(server: GuardedServer, host: str) -> None:
    assert server.ask("GET", "/name/x", host=host.format(port=server.port)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "mill.example.evil.example",
        "xmill.example",
        "127.0.0.1@evil.example",
        "a b",
        "",
        "127.0.0.1:80:80",
        "2130706433",
        "localhost/",
        "mill.example,evil.example",
    ],
)
def test_a_name_that_was_made_to_lead_here_is_not(server: GuardedServer, host: str) -> None:
    """DNS rebinding: a page of evil.example has its own name lead to this machine, and asks as if it were the page."""
    told = server.ask("GET", "/name/x", host=host.format(port=server.port))
    assert told.status in (400, 421) and b'"name"' not in told.body
    assert server.ask("GET", "/", host=host.format(port=server.port)).status in (400, 421)


def test_two_hosts_and_none(server: GuardedServer) -> None:
    for lines in ("Host: 127.0.0.1\r\nHost: evil.example\r\n", ""):
        for version in ("1.1", "1.0"):
            told = server.say(f"GET /name/x HTTP/{version}\r\n{lines}Connection: close\r\n\r\n".encode())
            assert told.status in (400, 421)


# Pages of other sites


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        "http://localhost:{port}",
        "https://127.0.0.1.evil.example",
        "file://",
        "",
    ],
)
def test_a_page_of_another_site_cannot_use_the_server(server: GuardedServer, origin: str) -> None:
    for method, path, body in (("POST", "/echo", b"{}"), ("GET", "/name/x", b"")):
        told = server.ask(method, path, body, origin=origin.format(port=server.port))
        assert told.status == 403 and told.code == "wrong_origin"


def test_what_a_browser_says_of_other_sites(server: GuardedServer) -> None:
    for site in ("cross-site", "same-site"):
        assert server.ask("GET", "/name/x", sec_fetch_site=site, sec_fetch_mode="no-cors").status == 403
        framed = {"sec_fetch_site": site, "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}
        assert server.ask("GET", "/", **framed).status == 403
        assert server.ask("GET", "/", **{**framed, "sec_fetch_dest": "document"}).status == 200
        assert server.ask("POST", "/echo", b"{}", **{**framed, "sec_fetch_dest": "document"}).status == 403


def test_the_own_page_can(server: GuardedServer) -> None:
    own = f"http://127.0.0.1:{server.port}"
    assert server.ask("POST", "/echo", b"{}", origin=own, sec_fetch_site="same-origin").status == 200
    assert server.ask("GET", "/", sec_fetch_site="none").status == 200
    assert server.ask("POST", "/echo", b"{}", host="mill.example", origin="https://mill.example").status == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_a_form_of_another_site_is_no_request(server: GuardedServer, kind: str) -> None:
    """What a browser sends elsewhere without asking first, it sends as one of these."""
    assert server.ask("POST", "/echo", b"{}", content_type=kind).status == 415


# The token


def test_without_the_token_only_the_page_and_health(locked: GuardedServer) -> None:
    for path in ("/", "/healthz"):
        assert locked.ask("GET", path).status == 200
    for method, path in (
        ("GET", "/name/x"),
        ("POST", "/"),
        ("POST", "/echo"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/metrics"),
        ("GET", "/none"),
        ("DELETE", "/healthz"),
        ("GET", "//"),
        ("GET", "/healthz/x"),
        ("GET", "/page/../name/x"),
        ("GET", "/Healthz"),
    ):
        assert locked.ask(method, path).status in (400, 401), path


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN}, Bearer {TOKEN}",
        "Bearer \u00e9",
        "Bearer " + "x" * 8000,
    ],
)
def test_wrong_tokens(locked: GuardedServer, shown: str) -> None:
    told = locked.ask("GET", "/name/x", authorization=shown)
    assert told.status == 401 and told.code == "invalid_api_key" and told.header("www-authenticate") == "Bearer"
    assert TOKEN.encode() not in told.body


def test_the_token(locked: GuardedServer) -> None:
    for shown in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Bearer  {TOKEN}"):
        assert locked.ask("GET", "/name/x", authorization=shown).status == 200
    twice = f"GET /name/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\nAuthorization: Bearer {TOKEN}\r\n"
    assert locked.say(f"{twice}Connection: close\r\n\r\n".encode()).status == 401
    assert locked.ask("GET", f"/name/x?token={TOKEN}").status == 401


def test_nothing_is_read_of_a_body_without_the_token(locked: GuardedServer) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    assert locked.say(head).status == 401  # which came though the body did not


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.7.9", "mill.example", "", "127.0.0.1.example", "localhost.x"]
)
def test_a_server_that_others_can_reach_does_not_start_without_a_token(host: str) -> None:
    with pytest.raises(ValueError, match="needs a token"):
        Access(host)
    assert TOKEN not in repr(Access(host, TOKEN.encode()))


def test_a_server_of_this_machine_needs_none_and_a_short_token_is_none() -> None:
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert is_loopback(host) and Access(host).lets_in(None)
    for token in (b"", b"short", b"with a space in it 0123", b"\xff" * 20, b"x" * 15 + b"\n"):
        with pytest.raises(ValueError, match="a token has 16 or more"):
            Access("127.0.0.1", token)


# Paths and headers


@pytest.mark.parametrize(
    "path",
    [
        "/name/../name/x",
        "/name/%2e%2e/x",
        "/name/..%2fx",
        "/name/%2E%2E%2Fx",
        "/name/..%5cx",
        "/name/..\\x",
        "/name/%00",
        "/name/x%0d%0aSet-Cookie:%20a=b",
        "/name/%c0%ae%c0%ae/x",
        "/name/%ff",
        "/..",
        "/page/%2e%2e/%2e%2e/etc/passwd",
        "/v1/models/..%2f..%2fetc/passwd",
        "/v1/models/a%5c..%5cb",
        "/v1/models%2fa",
        "/./name/x",
        "/name/%7f",
        "/name/%c2%85",
        "/name/" + "x" * 3000,
        "/name/x?" + "y" * 5000,
    ],
)
def test_paths_that_lead_elsewhere(server: GuardedServer, path: str) -> None:
    told = server.ask("GET", path)
    assert told.status == 400 and told.code == "bad_path"


@pytest.mark.parametrize(
    "path", ["/name/x", "/name/front-door", "/name/a%20b", "/name/%C3%A9", "/name/a..b", "/name/...", "/name/12.5.jpg"]
)
def test_plain_paths(server: GuardedServer, path: str) -> None:
    assert server.ask("GET", path).status == 200


@given(st.text(max_size=40))
def test_no_plain_path_leads_up(path: str) -> None:
    scope = {"path": "/" + path, "raw_path": b"", "query_string": b""}
    if is_plain_path(scope):
        assert ".." not in path.replace("\\", "/").split("/") and path.isprintable() | ("\u00a0" <= max(path or " "))


def test_a_client_cannot_add_headers_to_an_answer(server: GuardedServer) -> None:
    told = server.ask("GET", "/header?value=a%0d%0aSet-Cookie:%20b=c%0d%0a%0d%0a<script>")
    assert told.status == 200 and told.header("set-cookie") is None and told.header("x-given") is None
    assert told.header("x-first") == "1" and told.body == b"{}"
    for value in ("a%0ab", "a%0db", "a%00b"):
        told = server.ask("GET", f"/header?value={value}")
        assert told.status == 200 and told.header("x-given") is None
    assert server.ask("GET", "/header?value=plain").header("x-given") == "plain"


def test_request_ids(server: GuardedServer) -> None:
    assert server.ask("GET", "/name/x", x_request_id="trace-1.b").header("x-request-id") == "trace-1.b"
    given = {
        server.ask("GET", "/name/x", x_request_id=bad).header("x-request-id") for bad in ("", "a b", "x" * 65, "a;b")
    }
    assert len(given) == 4 and not given & {"", "a b", "a;b", None}


def test_headers_that_protect_are_on_every_answer(server: GuardedServer) -> None:
    answers = [
        server.ask("GET", "/name/x"),
        server.ask("GET", "/none"),
        server.ask("GET", "/name/.."),
        server.ask("GET", "/name/x", host="evil.example"),
        server.ask("POST", "/echo", b"{"),
        server.ask("GET", "/fails"),
    ]
    assert [told.status for told in answers] == [200, 404, 400, 421, 400, 500]
    for told in answers:
        assert told.header("x-content-type-options") == "nosniff" and told.header("x-frame-options") == "DENY"
        assert (told.header("content-security-policy") or "").startswith("default-src 'none'")
        assert (
            told.header("cross-origin-resource-policy") == "same-origin" and told.header("cache-control") == "no-store"
        )
        assert told.header("x-request-id") and told.header("server") is None
    whole = server.ask("GET", "/whole")  # what a route sets itself stays, and stays alone
    assert (
        whole.header("content-security-policy") == "default-src 'self'" and whole.header("cache-control") == "no-cache"
    )


def test_what_goes_wrong_inside_is_not_told_outside(server: GuardedServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        told = server.ask("GET", "/fails", x_request_id="find-me")
    assert told.status == 500 and told.code == "internal_error" and "find-me" in caplog.text
    assert b"QX" not in told.body and b"RuntimeError" not in told.body and b"Traceback" not in told.body
    assert server.ask("GET", "/name/x").status == 200
