"""Attacks with addresses: other schemes, other spellings, names that lead inside, paths and links that lead outside."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.serve.addresses import is_public, parse_address
from millpond.pipeline.serve.url_guard import UrlRefused, UrlRules, check_host, check_url, checked_source

PUBLIC = "93.184.216.34"


def rules(*addresses: str, **given: object) -> UrlRules:
    """Rules by whose resolver every name leads to these addresses; numbers are what the system takes them for."""

    def resolve(host: str, port: int) -> list[str]:
        try:
            return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)]
        except OSError:
            if not addresses:
                raise
            return list(addresses)

    return UrlRules(resolver=resolve, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://cam.example/main",
        "rtsp://admin:p%40ss%2Fw@cam.example:8554/main?profile=1",
        "https://example.com/live.m3u8?key=1#t=10",
        "http://[2606:2800:220:1:248:1893:25c8:1946]/clip.mp4",
        "synthetic://shapes?seed=1&duration_s=16",
    ],
)
def test_what_is_meant_to_pass_passes(url: str) -> None:
    passed = checked_source(url, rules(PUBLIC))
    assert passed.partition("#")[0].partition("?")[0] in (url.partition("#")[0].partition("?")[0], passed)


@pytest.mark.parametrize(
    "url",
    [
        "concat:/etc/passwd|/etc/hosts",
        "concatf:/etc/passwd",
        "subfile,,start,0,end,0,,:/etc/passwd",
        "subfile:/etc/passwd",
        "data:video/mp4;base64,AAAA",
        "async:file:/etc/passwd",
        "cache:file:/etc/passwd",
        "crypto:/etc/passwd",
        "pipe:0",
        "fd:0",
        "unix:/run/docker.sock",
        "gopher://127.0.0.1:6379/_INFO",
        "ftp://example.com/clip.mp4",
        "rtmp://example.com/live",
        "tcp://example.com:5000",
        "udp://@:5000",
        "device:///dev/video0",
        "mmsh://example.com/x",
        "tee:a|b",
        "clip.mp4",
        "../clip.mp4",
        "-",
        "",
        "x" * 3000,
    ],
)
def test_schemes_and_protocols_that_are_not_let_through(url: str) -> None:
    with pytest.raises(UrlRefused):
        checked_source(url, rules(PUBLIC))


def test_a_scheme_that_is_turned_off_is_off() -> None:
    with pytest.raises(UrlRefused, match=r"synthetic: is not let through; there are: rtsp://"):
        checked_source("synthetic://shapes", rules(PUBLIC, schemes=("rtsp",)))
    assert checked_source("tcp://example.com:5000", rules(PUBLIC, schemes=("tcp",))) == "tcp://example.com:5000"


INSIDE = (
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1", "224.0.0.1", "239.255.255.250", "255.255.255.255",
    "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:4136:e378::1",
    "2001:db8::1", "fec0::1", "fe80::1%eth0",
)  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_names_and_numbers_that_lead_inside(address: str) -> None:
    for host in ("cam.example", f"[{address}]" if ":" in address else address):
        for scheme in ("http", "rtsp"):
            with pytest.raises(UrlRefused):
                checked_source(f"{scheme}://{host}/x", rules(address))
    # One of a name's addresses is enough to refuse the name.
    with pytest.raises(UrlRefused):
        checked_source("http://cam.example/x", rules(PUBLIC, address))


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f000001", "017700000001", "127.1", "0177.0.0.1", "0x7f.0.0.1", "127.0.0.1.", "127.0.0.01",
     "127.0x1", "3232235777", "1.1", "00000000000000000000000000000000000177.1", "localhost", "localhost.",
     "LOCALHOST"],
)  # fmt: skip
def test_other_spellings_of_an_address_inside(host: str) -> None:
    """With the system's own resolver, which takes every one of them for an address."""
    with pytest.raises(UrlRefused):
        checked_source(f"http://{host}/x", UrlRules())


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com\\@127.0.0.1/",
        "http://127.0.0.1\\.example.com/",
        "http://a@example.com@127.0.0.1/",
        "http://user:pa/ss@127.0.0.1/",
        "http://exam\tple.com/",
        "http://example.com/\r\nHost: inside",
        "http://example.com/a b",
        "http:/example.com/",
        "http:example.com",
        "http:///example.com/",
        "http://example.com:80:90/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://[::1%25eth0]/",
        "http://[::1].example.com/",
        "http://１２７.0.0.1/",
        "http://①②⑦.0.0.1/",
        "http://ex%61mple.com/",
        "http://.../",
        "http://a..b/",
        "rtsp://u%0d%0aX:p@cam.example/",
        "rtsp://cam.example/x?udp",
        "rtsp://cam.example/x?a=1&http",
        "rtsp://cam.example/x?Multicast",
        "tcp://example.com:99?listen=1",
        " http://example.com/",
        "http://example.com/\x00",
    ],
)
def test_addresses_that_two_readers_could_read_differently(url: str) -> None:
    with pytest.raises(UrlRefused):
        checked_source(url, rules(PUBLIC, schemes=("http", "rtsp", "tcp")))


def test_a_fragment_is_cut_off_so_that_no_reader_sees_what_is_in_it() -> None:
    assert checked_source("http://example.com#@127.0.0.1/", rules(PUBLIC)) == "http://example.com"


def test_an_operator_lets_private_hosts_through_by_name_or_network_but_no_metadata() -> None:
    cameras = {"hosts": ("cam.lan", "*.cams.lan", "inside.lan"), "networks": ("192.168.7.0/24",)}
    for url in ("rtsp://cam.lan/1", "rtsp://CAM.LAN./1", "rtsp://north.cams.lan/1"):
        assert check_host(check_url(url, rules(**cameras)).host, 554, rules("10.0.0.5", **cameras)) == ("10.0.0.5",)
    assert checked_source("rtsp://192.168.7.9/1", rules(**cameras))
    refused = {
        "cams.lan": "10.0.0.5", "xcam.lan": "10.0.0.5", "cam.lan.evil.example": "10.0.0.5",
        "inside.lan": "169.254.169.254", "cam.lan": "fd00:ec2::254", "192.168.8.9": "",
    }  # fmt: skip
    for host, address in refused.items():
        with pytest.raises(UrlRefused):
            checked_source(f"rtsp://{host}/1", rules(address, **cameras))


def test_what_is_refused_does_not_tell_private_names_from_none() -> None:
    told = []
    for addresses in ((), ("10.0.0.5",), ("no address",)):
        with pytest.raises(UrlRefused) as caught:
            checked_source("http://payroll/x", rules(*addresses))
        told.append(str(caught.value))
    assert len(set(told)) == 1 and "10.0.0.5" not in told[0]


def test_no_message_shows_a_password() -> None:
    for url in (
        "rtsp://keeper7:QXpw@10.0.0.1/x", "rtsp://keeper7:QX p@cam/x", "rtsp://keeper7:Q@X@cam.example/",
        "rtmp://keeper7:QXpw@cam.example/", "rtsp://keeper7:QXpw@cam.example:0/", "http://keeper7:QXpw@/",
    ):  # fmt: skip
        with pytest.raises(UrlRefused) as caught:
            checked_source(url, rules())
        assert "QX" not in str(caught.value) and "keeper7" not in str(caught.value)
    shown = check_url("rtsp://keeper7:QXpw@cam.example/x", rules())
    assert "QX" not in repr(shown) and "QX" not in shown.shown


# Files


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """declared/clip.mp4 and declared/pictures/, and outside/secret.mp4 beside them."""
    for folder in ("declared/pictures", "declared-too", "outside"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("declared/clip.mp4", "declared/pictures/1.png", "declared-too/secret.mp4", "outside/secret.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "declared/link.mp4").symlink_to(tmp_path / "outside/secret.mp4")
    (tmp_path / "declared/folder").symlink_to(tmp_path / "outside")
    (tmp_path / "declared/good.mp4").symlink_to("clip.mp4")
    return tmp_path


def test_files_only_below_a_declared_folder(folders: Path) -> None:
    below = rules(folders=(str(folders / "declared"),))
    for url in (f"file://{folders}/declared/clip.mp4", f"{folders}/declared/good.mp4",
                f"file://{folders}/declared/../declared/clip.mp4"):  # fmt: skip
        assert checked_source(url, below) == str(folders / "declared/clip.mp4")
    assert checked_source(f"file://{folders}/declared/pictures", below) == str(folders / "declared/pictures")
    for path in (
        "declared/../outside/secret.mp4", "declared/link.mp4", "declared/folder/secret.mp4", "outside/secret.mp4",
        "declared-too/secret.mp4", "declared/%2e%2e/outside/secret.mp4", "declared/none.mp4",
        "declared/clip.mp4%00.txt", "declared/clip.mp4?x",
    ):  # fmt: skip
        for url in (f"file://{folders}/{path}", f"{folders}/{path}"):
            with pytest.raises(UrlRefused):
                checked_source(url, below)
    for url in ("file:declared/clip.mp4", "file:clip.mp4", "file://server/share/clip.mp4", "file:///etc/passwd",
                "/proc/self/environ", "/dev/stdin"):  # fmt: skip
        with pytest.raises(UrlRefused):
            checked_source(url, below)


def test_without_folders_there_are_no_files(folders: Path) -> None:
    with pytest.raises(UrlRefused, match="files are not let through"):
        checked_source(f"file://{folders}/declared/clip.mp4", rules())


def test_links_among_pictures_and_things_that_are_no_files(folders: Path) -> None:
    below = rules(folders=(str(folders / "declared"),))
    (folders / "declared/pictures/2.png").symlink_to(folders / "outside/secret.mp4")
    os.mkfifo(folders / "declared/pipe")
    for name in ("pictures", "pipe"):
        with pytest.raises(UrlRefused):
            checked_source(f"file://{folders}/declared/{name}", below)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"schemes": ("gopher",)}, "no scheme named 'gopher'"),
        ({"schemes": ("file",)}, "for files give folders"),
        ({"networks": ("10.0.0.1/8",)}, "a network is written as"),
        ({"folders": ("videos",)}, "absolute paths below the root"),
        ({"folders": ("/",)}, "absolute paths below the root"),
        ({"hosts": "cam.lan"}, "hosts is a list of words"),
    ],
)
def test_rules_that_are_none(given: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        UrlRules(**given)


# Whatever is given


@given(st.ip_addresses())
def test_an_address_is_public_only_where_python_knows_it_as_global(address) -> None:  # type: ignore[no-untyped-def]
    if is_public(parse_address(str(address))):
        inner = parse_address(str(address))
        assert inner.is_global and not (inner.is_multicast or inner.is_private or inner.is_loopback)


@given(st.text(max_size=60) | st.from_regex(r"(http|rtsp|file|concat)://?[^ ]{0,40}", fullmatch=True))
def test_any_text_is_refused_or_comes_back_as_one_host(text: str) -> None:
    try:
        passed = checked_source(text, rules(PUBLIC))
    except UrlRefused:
        return
    scheme, _, rest = passed.partition("://")
    assert scheme in ("rtsp", "rtsps", "http", "https", "synthetic")
    assert not set(passed) & set(" \\\r\n\t\0") and rest
