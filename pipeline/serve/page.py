"""The page on which people watch: static files, served as they are. What it shows it takes from the API."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

_FOLDER = Path(__file__).with_name("web")
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# Nothing inline, nothing from elsewhere, and no text of a model's becomes HTML: the browser refuses to set it as such.
# Pictures are fetched with the token, and shown as blobs.
PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)


class PageFile(NamedTuple):
    """One file of the page. etag: changes with what is in it."""

    body: bytes
    kind: str
    etag: str


def page_files() -> dict[str, PageFile]:
    """The files of the page by name; only these are served, whatever an address says."""
    files: dict[str, PageFile] = {}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _KINDS:
            body = path.read_bytes()
            files[path.name] = PageFile(body, _KINDS[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return files


def page_routes() -> APIRouter:
    """The page at `/`, and what it is made of below `/page/`. Needs no token: there is nothing in it to see."""
    router, files = APIRouter(include_in_schema=False), page_files()

    @router.api_route("/", methods=["GET", "HEAD"])
    def index(request: Request) -> Response:
        return _served(files["index.html"], request)

    @router.api_route("/page/{name}", methods=["GET", "HEAD"])
    def part(name: str, request: Request) -> Response:
        if name not in files:
            return Response("There is no such file.\n", 404, media_type="text/plain")
        return _served(files[name], request)

    return router


def _served(file: PageFile, request: Request) -> Response:
    headers = {
        "ETag": file.etag,
        "Cache-Control": "no-cache",  # kept, and asked for again: a new version shows at once
        "Content-Security-Policy": PAGE_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    if _is_known(request.headers.get("if-none-match", ""), file.etag):
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers={**headers, "Content-Type": file.kind})


def _is_known(tags: str, etag: str) -> bool:
    """Whether the browser has it: one of the tags that it names is this one, weak or not."""
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in tags.split(","))
