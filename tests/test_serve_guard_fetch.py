"""Attacks on what fetches from the web: redirects, names that change, floods, drips; real servers on loopback."""

from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from millpond.pipeline.serve.fetch import FetchFailed, Web
from millpond.pipeline.serve.url_guard import UrlRefused, UrlRules
from millpond.stream import SourceError, open_source

from .clips import make_clip
from .guarded_parts import Inside, Names, leads_to
from .transport_streams import Answer, WebServer, transport_stream

PUBLIC = "93.184.216.34"
MIB = 1 << 20


def only(web: WebServer, *, names: Names | None = None, **given: object) -> Web:
    """Lets through 127.0.0.1 alone, of all that is private: what is at 127.0.0.2 stays inside."""
    given.setdefault("total_s", 20.0)
    return Web(rules=UrlRules(networks=("127.0.0.1/32",), resolver=names or Names()), connect_s=2.0, **given)  # type: ignore[arg-type]


def test_a_video_comes_whole(web: WebServer, tmp_path: Path) -> None:
    data = web.pages["/clip.ts"] = transport_stream(5)
    web.pages["/moved"] = leads_to("/clip.ts", 307)
    came = only(web).fetch(web.uri("/moved?a=1"), tmp_path / "clip", most_bytes=MIB)
    assert came.path.read_bytes() == data and came.sha256 == hashlib.sha256(data).hexdigest()
    assert (came.num_bytes, came.media_type) == (len(data), "video/mp2t")
    assert web.asked == ["/moved?a=1", "/clip.ts"]
    with open_source(str(came.path)) as source:
        assert len(list(source)) == 5


def test_a_server_inside_is_not_asked(web: WebServer, inside: Inside, tmp_path: Path) -> None:
    with pytest.raises(UrlRefused):
        only(web).fetch(f"http://127.0.0.2:{inside.port}/x", tmp_path / "clip", most_bytes=MIB)
    assert inside.num_visits == 0 and not (tmp_path / "clip").exists()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_every_hop_of_a_redirect_is_checked(web: WebServer, inside: Inside, tmp_path: Path, status: int) -> None:
    web.pages["/1"] = leads_to("/2", status)
    web.pages["/2"] = leads_to(f"http://127.0.0.2:{inside.port}/metadata", status)
    with pytest.raises(UrlRefused):
        only(web).fetch(web.uri("/1"), tmp_path / "clip", most_bytes=MIB)
    assert web.asked == ["/1", "/2"] and inside.num_visits == 0


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "//127.0.0.2:{port}/x",
        "http://2130706434:{port}/x",
        "http://0x7f000002:{port}/x",
        "http://inside.example:{port}/x",
        "http://[::ffff:127.0.0.2]:{port}/x",
        "http://127.0.0.1\\@127.0.0.2:{port}/x",
        "gopher://127.0.0.2:{port}/_x",
        "rtsp://127.0.0.1/x",
        "data:video/mp4,x",
    ],
)
def test_a_redirect_leads_nowhere_else(web: WebServer, inside: Inside, tmp_path: Path, target: str) -> None:
    web.pages["/1"] = leads_to(target.format(port=inside.port))
    names = Names(inside_example=["127.0.0.2"])
    with pytest.raises((UrlRefused, FetchFailed)):
        only(web, names=names).fetch(web.uri("/1"), tmp_path / "clip", most_bytes=MIB)
    assert inside.num_visits == 0


def test_redirects_have_an_end(web: WebServer, tmp_path: Path) -> None:
    web.pages["/round"] = leads_to("/round")
    with pytest.raises(UrlRefused, match="more than 3 redirects"):
        only(web).fetch(web.uri("/round"), tmp_path / "clip", most_bytes=MIB)
    assert len(web.asked) == 4


def test_a_name_that_answers_differently_the_second_time(web: WebServer, inside: Inside, tmp_path: Path) -> None:
    """Rebinding: a public address for the check, one inside for the connection."""
    web.pages["/again"] = leads_to(f"http://changing.example:{inside.port}/x")
    for first in ("127.0.0.1", PUBLIC):
        names = Names(changing_example=[first, "127.0.0.2"])
        assert names("changing.example", 80) == [first]  # somebody's check, a while ago
        with pytest.raises(UrlRefused):
            only(web, names=names).fetch(f"http://changing.example:{inside.port}/x", tmp_path / "clip", most_bytes=MIB)
    # Within one fetch: the name is looked up once for each connection, and the address then found is connected to.
    web.pages["/x"] = b"\x47" * 188
    names = Names(changing_example=["127.0.0.1", "127.0.0.2"])
    assert only(web, names=names).fetch(f"http://changing.example:{web.port}/x", tmp_path / "1", most_bytes=MIB)
    assert names.asked == ["changing.example"] and web.asked[-1] == "/x"
    names = Names(changing_example=["127.0.0.1", "127.0.0.2"])
    with pytest.raises(UrlRefused):
        only(web, names=names).fetch(f"http://changing.example:{web.port}/again", tmp_path / "2", most_bytes=MIB)
    assert names.asked == ["changing.example"] * 2 and inside.num_visits == 0


def test_a_password_does_not_follow_to_another_host(tmp_path: Path) -> None:
    heard: list[str | None] = []

    def listens(handler) -> None:  # type: ignore[no-untyped-def]
        heard.append(handler.headers.get("Authorization"))
        handler.send_response(404)
        handler.end_headers()

    with WebServer(login="keeper7:QX@pw") as web, WebServer() as other:
        other.pages["/x"] = listens
        web.pages["/same"], web.pages["/clip"] = leads_to("/clip"), b"\x47" * 188
        web.pages["/other"] = leads_to(other.uri("/x"))
        fetcher = only(web)
        assert fetcher.fetch(web.uri("/same", "keeper7:QX%40pw"), tmp_path / "1", most_bytes=MIB).num_bytes == 188
        with pytest.raises(FetchFailed, match="status 404") as caught:
            fetcher.fetch(web.uri("/other", "keeper7:QX%40pw"), tmp_path / "2", most_bytes=MIB)
    assert heard == [None] and "QX" not in str(caught.value)


def test_the_environments_proxy_is_not_asked(web: WebServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    web.pages["/clip"] = b"\x47" * 188
    with WebServer() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.uri(""))
        only(web).fetch(web.uri("/clip"), tmp_path / "clip", most_bytes=MIB)
        assert proxy.asked == []


# Floods and drips


def chunked(block: bytes, num_blocks: int) -> Answer:
    def answer(handler) -> None:  # type: ignore[no-untyped-def]
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(num_blocks):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
        handler.wfile.write(b"0\r\n\r\n")

    return answer


def without_length(block: bytes, num_blocks: int) -> Answer:
    def answer(handler) -> None:  # type: ignore[no-untyped-def]
        handler.send_response(200)
        handler.end_headers()
        for _ in range(num_blocks):
            handler.wfile.write(block)

    return answer


def says_it_has(num_bytes: int, data: bytes, packed: str = "identity") -> Answer:
    def answer(handler) -> None:  # type: ignore[no-untyped-def]
        handler.send_response(200)
        handler.send_header("Content-Length", str(num_bytes))
        handler.send_header("Content-Encoding", packed)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


@pytest.mark.parametrize(
    ("page", "told"),
    [
        (chunked(bytes(MIB), 40), "sends more than the 1048576 bytes"),
        (without_length(bytes(MIB), 40), "sends more than the 1048576 bytes"),
        (says_it_has(1 << 40, b"x"), "has 1099511627776 bytes; at most 1048576 are taken"),
        (says_it_has(1000, b"x"), "broke off after 1 of 1000 bytes"),
        (says_it_has(2, b"xx", "gzip"), "nobody asked for"),
        (says_it_has(2, b"xx", "GZIP, br"), "nobody asked for"),
    ],
)
def test_a_body_beyond_the_limit_leaves_nothing_behind(web: WebServer, tmp_path: Path, page: Answer, told: str) -> None:
    web.pages["/clip"] = page
    with pytest.raises(FetchFailed, match=told):
        only(web).fetch(web.uri("/clip"), tmp_path / "clip", most_bytes=MIB)
    assert list(tmp_path.iterdir()) == []


def test_a_body_in_chunks_within_the_limit_comes(web: WebServer, tmp_path: Path) -> None:
    web.pages["/clip"] = chunked(b"ab" * 500, 10)
    assert only(web).fetch(web.uri("/clip"), tmp_path / "clip", most_bytes=10_000).num_bytes == 10_000


def dripping(head: bytes, ended: threading.Event) -> Callable[[socket.socket], None]:
    """Says `head`, then a letter now and then, each in time for whoever waits for the next."""

    def serve(client: socket.socket) -> None:
        with client:
            client.sendall(head)
            while not ended.wait(0.1):
                try:
                    client.sendall(b"x")
                except OSError:
                    return

    return serve


@pytest.mark.parametrize(
    "head",
    [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"],
)
def test_a_server_that_drips_is_given_up(tmp_path: Path, head: bytes) -> None:
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            client, _ = listener.accept()
            dripping(head, ended)(client)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        began_s = time.monotonic()
        fetcher = Web(rules=UrlRules(networks=("127.0.0.1/32",), resolver=Names()), total_s=1.0)
        with pytest.raises(FetchFailed, match="did not finish within 1 s"):
            fetcher.fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/x", tmp_path / "clip", most_bytes=MIB)
        assert time.monotonic() - began_s < 15
        ended.set()
        thread.join(5)
        assert not thread.is_alive()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00" * 100,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc",
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 302 Found\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
    ],
    ids=lambda answer: repr(answer[:24]),
)
def test_a_server_that_speaks_no_http(tmp_path: Path, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        fetcher = Web(rules=UrlRules(networks=("127.0.0.1/32",), resolver=Names()), total_s=5.0)
        with pytest.raises((FetchFailed, UrlRefused)):
            fetcher.fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/x", tmp_path / "clip", most_bytes=MIB)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_not_written_over(web: WebServer, tmp_path: Path) -> None:
    web.pages["/clip"] = b"new"
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for name in ("mine", "link"):
        with pytest.raises(OSError):
            only(web).fetch(web.uri("/clip"), tmp_path / name, most_bytes=MIB)
    assert (tmp_path / "mine").read_bytes() == b"mine"


# What came, opened


@pytest.mark.parametrize("kind", ["playlist", "concat", "sdp", "nested"])
def test_a_fetched_playlist_is_no_video(web: WebServer, inside: Inside, tmp_path: Path, kind: str) -> None:
    secret = make_clip(tmp_path / "secret.mp4", 5)
    told = {
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "nested": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://127.0.0.2:{inside.port}/x.m3u8\n",
        "concat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    }[kind]
    web.pages["/clip.mp4"] = told.encode()
    came = only(web).fetch(web.uri("/clip.mp4"), tmp_path / "clip.mp4", most_bytes=MIB)
    with pytest.raises(SourceError):
        open_source(str(came.path))
    assert inside.num_visits == 0


# Sending, and TLS


def test_what_is_sent_goes_to_one_host_and_no_further(web: WebServer, inside: Inside) -> None:
    heard: list[bytes] = []

    class Post:
        def __call__(self, handler) -> None:  # type: ignore[no-untyped-def]
            heard.append(handler.rfile.read(int(handler.headers["Content-Length"])))
            leads_to(f"http://127.0.0.2:{inside.port}/x", 307)(handler)

    web.pages["/hook"] = Post()
    web._server.RequestHandlerClass.do_POST = web._server.RequestHandlerClass.do_GET  # type: ignore[attr-defined]
    reply = only(web).send(web.uri("/hook"), b'{"a": 1}', {"Content-Type": "application/json"})
    assert reply.status == 307 and heard == [b'{"a": 1}'] and inside.num_visits == 0
    with pytest.raises(UrlRefused):
        only(web).send(f"http://127.0.0.2:{inside.port}/x", b"{}", {})
    with pytest.raises(FetchFailed):
        only(web).send(web.uri("/hook"), b"{}", {"X-Text": "a\r\nX-Other: b"})
    with pytest.raises(FetchFailed):
        only(web).send(web.uri("/hook\u00e9".replace("\u00e9", "%0d")), b"{}", {"Bad\r\nName": "b"})
    assert len(heard) == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key, made on the spot, for clip.example."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=clip.example", "-addext", "subjectAltName=DNS:clip.example", "-keyout", "-", "-out", "-"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl to make a certificate with")
    path.write_bytes(made.stdout)
    return path


def test_https_is_checked_by_name_though_connected_by_address(certificate: Path, tmp_path: Path) -> None:
    names = Names(clip_example=["127.0.0.1"], other_example=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with WebServer() as web:
        web._server.socket = context.wrap_socket(web._server.socket, server_side=True)
        web.pages["/clip"], web.pages["/down"] = b"\x47" * 188, leads_to(f"http://clip.example:{web.port}/clip")
        trusting = ssl.create_default_context(cafile=str(certificate))
        known = only(web, names=names, tls=trusting)
        at = f"clip.example:{web.port}"
        assert known.fetch(f"https://{at}/clip", tmp_path / "1", most_bytes=MIB).num_bytes == 188
        with pytest.raises(FetchFailed, match="no certificate that can be trusted"):
            known.fetch(f"https://other.example:{web.port}/clip", tmp_path / "2", most_bytes=MIB)
        with pytest.raises(FetchFailed, match="no certificate that can be trusted"):
            only(web, names=names).fetch(f"https://{at}/clip", tmp_path / "3", most_bytes=MIB)
        with pytest.raises(UrlRefused, match="leads from https to http"):
            known.fetch(f"https://{at}/down", tmp_path / "4", most_bytes=MIB)
