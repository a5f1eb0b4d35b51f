"""Attacks with bodies, over raw sockets to a real server: too long, of two lengths, deep, giant, no JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.pipeline.serve.bodies import check_json
from millpond.pipeline.serve.limits import Limits

from .guarded_server import MIB, GuardedServer


@pytest.fixture(scope="module")
def server() -> Iterator[GuardedServer]:
    with GuardedServer(body_bytes=MIB, json_depth=8, body_s=5.0) as running:
        yield running


def test_a_body_that_is_too_long(server: GuardedServer) -> None:
    assert server.ask("POST", "/echo", b'"' + b"x" * (MIB - 2) + b'"').status == 200
    told = server.ask("POST", "/echo", b'"' + b"x" * (MIB - 1) + b'"')
    assert told.status == 413 and told.code == "body_too_long"
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    told = server.say(head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 17, b"0\r\n\r\n")
    assert told.status == 413
    told = server.say(
        head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n", b'2\r\n"x\r\n1\r\n"\r\n0\r\n\r\n'
    )
    assert told.status == 200 and told.body == b'"x"'
    # One that never ends is hung up on, though it never stops.
    told = server.say(head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 2000)
    assert told.status in (0, 413)
    assert server.ask("GET", "/name/x").status == 200


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: x\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length: " + b"9" * 50 + b"\r\n",
    ],
)
def test_lengths_that_could_smuggle_a_second_request(server: GuardedServer, lines: bytes) -> None:
    second = b"GET /name/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    told = server.say(
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        + lines
        + b"\r\n0\r\n\r\n"
        + second
    )
    assert b"smuggled" not in told.body


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b"[" * 9 + b"]" * 9,
        b'{"a":' * 100_000,
        b'{"a":' * 9 + b"1" + b"}" * 9,
        b"[" * 9,
        b"{",
        b"",
        b"\x00",
        b"\xff\xfe{\x00}\x00",
        b'{"a": NaN}',
        b"[Infinity]",
        b"[-Infinity]",
        b"[1e999]",
        b"9" * 5000,
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b'"\\u0000"',
        b'"\\\\\\u0000"',
        b'"\xc3\x28"',
        b"{} {}",
        b"{'a': 1}",
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda body: repr(body[:16]),
)
def test_bodies_that_are_no_json_or_made_to_hurt(server: GuardedServer, body: bytes) -> None:
    if body:
        told = server.ask("POST", "/echo", body)
        assert told.status == 400 and told.code == "bad_json" and len(told.body) < 1000
    with pytest.raises(ValueError, match="the body"):
        check_json(body, 8)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'"\\\\u0000 is fine"',
        '"\u00e9\U0001f600"'.encode(),
        b'"\\ud83d\\ude00"',
        b"[[[[[[[[1]]]]]]]]",
        b'"[[[[[[[[[[[["',
        b'"\\"[[[[[[[[[[[["',
        b" 1 ",
        b"1e308",
        b"-0.0",
    ],
)
def test_plain_json_passes_as_it_is(server: GuardedServer, body: bytes) -> None:
    told = server.ask("POST", "/echo", body)
    assert told.status == 200 and told.body == body


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab[{"\\'), inner, max_size=3),
    ),
    st.booleans(),
)
@settings(max_examples=50)
def test_the_depth_is_counted_as_it_is(value: object, spelled: bool) -> None:
    def depth(value: object) -> int:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    body = json.dumps(value, ensure_ascii=spelled).encode()
    check_json(body, max(1, depth(value)))
    if depth(value) > 1:
        with pytest.raises(ValueError, match=f"nests lists and objects {depth(value)} deep"):
            check_json(body, depth(value) - 1)


@given(st.binary(max_size=200) | st.text('"\\[]{}:,u0 ', max_size=200).map(str.encode))
def test_no_bytes_break_the_check(body: bytes) -> None:
    try:
        check_json(body, 4)
    except ValueError as error:
        assert "the body" in str(error)


def test_a_megabyte_of_the_worst_takes_no_time_to_look_over() -> None:
    """Quadratic work would take hours, which no machine finishes within the test."""
    for body in (
        b'"\\' * (MIB // 2),
        b'\\"' * (MIB // 2),
        b'"' * (MIB - 1),
        b"[" * MIB,
        b"\\" * MIB,
        b'"' + b"\\" * (MIB - 1),
    ):
        with pytest.raises(ValueError, match="the body"):
            check_json(body, 8)


@pytest.mark.parametrize(
    "bad",
    [
        {"body_bytes": 0},
        {"body_bytes": 1.5},
        {"header_s": 0},
        {"header_s": float("nan")},
        {"json_depth": True},
        {"num_redirects": -1},
        {"body_s": "1"},
        {"num_followers": 600},
    ],
)
def test_limits_that_are_none(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"got "):
        Limits(**bad)
