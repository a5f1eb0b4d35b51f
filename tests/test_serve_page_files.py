"""The page's files: nothing inline, nothing from elsewhere, no HTML from strings; served as they are, nothing else."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from millpond.pipeline.serve.page import PAGE_POLICY, page_files

from .page_server import page_server

FILES = {name: file.body.decode() for name, file in page_files().items()}
SCRIPTS = {name: text for name, text in FILES.items() if name.endswith(".js")}


class Tags(HTMLParser):
    """Every tag of a page, with its attributes and the text in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.inside[self._open] = self.inside.get(self._open, "") + data.strip()


def inline(html: str) -> Iterator[str]:
    """What a strict policy would refuse to run."""
    page = Tags(html)
    for tag, attributes in page.tags:
        yield from (f"<{tag} {name}>" for name in attributes if name.startswith("on") or name in ("style", "srcdoc"))
        if tag == "style" or (tag == "script" and not attributes.get("src")):
            yield f"<{tag}>"
    if page.inside.get("script"):
        yield "text in <script>"


def elsewhere(html: str) -> Iterator[str]:
    """Addresses that lead out of this server."""
    for tag, attributes in Tags(html).tags:
        for name in ("src", "href", "action", "srcset", "poster", "data", "formaction"):
            address = attributes.get(name)
            if address is not None and not re.match(r"#|/(?![/\\])", address):
                yield f"<{tag} {name}={address}>"


def made_from_strings(script: str) -> Iterator[str]:
    """Ways by which a string becomes HTML, code or an address elsewhere."""
    ways = (
        r"\b(?:inner|outer)HTML\b", r"insertAdjacentHTML", r"document\.write", r"\beval\s*\(", r"new\s+Function\b",
        r"DOMParser", r"createContextualFragment", r"setHTML", r"srcdoc", r"[\"']style[\"']", r"https?://(?!www\.w3\.org/)",
        r"javascript:", r"localStorage", r"document\.cookie", r"EventSource\(",
    )  # fmt: skip
    for way in ways:
        yield from re.findall(way, script)


BAD = {
    inline: ('<p onclick="x()">', '<p style="a">', "<style>p {}</style>", "<script>x()</script>", "<iframe srcdoc=a>"),
    elsewhere: ('<img src="https://x.y/z">', '<a href="//x.y">', '<a href="/\\x.y">', '<a href="javascript:x()">'),
    made_from_strings: ("a.innerHTML = b", 'a.insertAdjacentHTML("x", y)', 'fetch("https://x.y")', "new Function(a)"),
}


@pytest.mark.parametrize("rule", BAD, ids=lambda rule: rule.__name__)
def test_nothing_inline_nothing_from_elsewhere_no_html_from_strings(rule: Callable[[str], Iterator[str]]) -> None:
    assert all(list(rule(bad)) for bad in BAD[rule]), "the rule does not catch what it is for"
    texts = SCRIPTS if rule is made_from_strings else {"index.html": FILES["index.html"]}
    assert {name: list(rule(text)) for name, text in texts.items() if list(rule(text))} == {}


def test_styles_fetch_nothing() -> None:
    styles = FILES["page.css"] + FILES["panels.css"]
    assert not re.findall(r"@import|url\(|@font-face", styles)


def test_every_file_is_used_and_every_file_used_is_there() -> None:
    used = set(re.findall(r'(?:src|href)="/page/([^"]+)"', FILES["index.html"]))
    used |= {name for text in SCRIPTS.values() for name in re.findall(r'from "\./([^"]+)"', text)}
    assert used | {"index.html"} == set(FILES)


def test_every_element_that_a_script_names_is_on_the_page() -> None:
    ids = [attributes["id"] for _, attributes in Tags(FILES["index.html"]).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = {name for text in SCRIPTS.values() for name in re.findall(r'byId\("([^"]+)"\)', text)}
    assert len(named) > 30 and named <= set(ids)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_is_one_idea(name: str) -> None:
    lines = FILES[name].splitlines()
    assert len(lines) <= 400
    assert name.endswith(".svg") or max(map(len, lines)) <= 120


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with page_server() as port:
        yield port


def test_files_come_as_they_are_with_their_kind_and_the_policy(port: int) -> None:
    for name, text in FILES.items():
        response, body = ask(port, "/" if name == "index.html" else f"/page/{name}")
        assert (response.status, body.decode()) == (200, text)
        assert response.headers["Content-Security-Policy"] == PAGE_POLICY
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        kind = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
        assert response.headers["Content-Type"].startswith(kind[name.rpartition(".")[2]])
    assert "unsafe" not in PAGE_POLICY and "default-src 'none'" in PAGE_POLICY


def test_what_the_browser_has_is_not_sent_again(port: int) -> None:
    first, body = ask(port, "/page/page.js")
    etag = first.headers["ETag"]
    for tags in (etag, f"W/{etag}", f'"another", {etag}', "*"):
        again, nothing = ask(port, "/page/page.js", if_none_match=tags)
        assert (again.status, nothing, again.headers["ETag"]) == (304, b"", etag)
    other, whole = ask(port, "/page/page.js", if_none_match='"another"')
    assert (other.status, whole) == (200, body)
    head, nothing = ask(port, "/page/page.js", "HEAD")
    assert (head.status, nothing, int(head.headers["Content-Length"])) == (200, b"", len(body))


@pytest.mark.parametrize(
    "path",
    [
        "/page/", "/page/../page.py", "/page/%2e%2e/page.py", "/page/..%2fpage.py", "/page/..%5cpage.py",
        "/page//etc/passwd", "/page/%2fetc%2fpasswd", "/page/page.js%00.css", "/page/index.html/", "/page/page.py",
        "/page/PAGE.JS", "/page/./page.js/..",
    ],
)  # fmt: skip
def test_nothing_else_is_served(port: int, path: str) -> None:
    response, body = ask(port, path)
    assert response.status in (307, 404)
    assert b"page_routes" not in body and b"root:" not in body
