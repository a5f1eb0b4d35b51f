"""Chat completions, asked by the client that is made for them: whole and as they come, of streams and of videos."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from millpond.pipeline import Answer, Question

from .serve_server import ENDED, Served, served, until

pytest.importorskip("fastapi")
openai = pytest.importorskip("openai")

CLIP = Path(__file__).parent.parent / "pipeline" / "demo.mp4"
TOKEN = "a-token-that-is-long-enough"
FIRST = [{"role": "user", "content": "What appeared first?"}]


class _Quiet(SimpleHTTPRequestHandler):
    num_asked = 0

    def do_GET(self) -> None:
        type(self).num_asked += 1
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(CLIP.parent)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    given = {
        "server": {"token": TOKEN},
        "streams": [{"id": "yard", "source": ENDED}, {"id": "front door", "source": ENDED}],
        "urls": {"networks": ["127.0.0.0/8"], "folders": [str(CLIP.parent)]},
        "limits": {"num_questions": 3, "answer_tokens": 64, "question_chars": 400},
    }
    with served(given) as running:
        running.wait_for("yard")
        running.wait_for("front door")
        yield running


@pytest.fixture
def client(server: Served) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0, timeout=120) as made:
        yield made


def straight(server: Served, words: str) -> Answer:
    """The engine's own answer."""
    return server.streams.ask("yard", Question(words)).result(120)


def test_an_answer_is_the_engines_own_and_says_what_it_rests_on(server: Served, client: Any) -> None:
    own = straight(server, "What appeared first?")
    got = client.chat.completions.create(model="millpond/yard", messages=FIRST)
    choice = got.choices[0]
    assert (choice.message.content, choice.message.role, choice.finish_reason) == (own.text, "assistant", "stop")
    rests_on = choice.message.millpond
    assert [(span["start_s"], span["end_s"]) for span in rests_on["spans"]] == [(s.start_s, s.end_s) for s in own.used]
    assert (rests_on["asked_at_s"], rests_on["seen_until_s"]) == (own.asked_at_s, own.seen_until_s)
    for span in rests_on["spans"]:
        assert server.client.get(span["keyframe"]).headers["content-type"] == "image/jpeg"
    assert got.usage.completion_tokens == own.num_tokens
    assert got.usage.total_tokens == got.usage.prompt_tokens + own.num_tokens > own.num_tokens


def test_an_answer_as_it_comes_is_the_same_answer(client: Any) -> None:
    whole = client.chat.completions.create(model="millpond/yard", messages=FIRST)
    chunks = list(
        client.chat.completions.create(
            model="millpond/yard", messages=FIRST, stream=True, stream_options={"include_usage": True}
        )
    )
    *told, usage = chunks
    pieces = [chunk.choices[0].delta.content or "" for chunk in told]
    assert "".join(pieces) == whole.choices[0].message.content and len([p for p in pieces if p]) > 1
    assert [c.choices[0].finish_reason for c in told] == [None] * (len(told) - 1) + ["stop"]
    assert told[-1].millpond["spans"] == whole.choices[0].message.millpond["spans"]
    assert usage.choices == [] and usage.usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_stream_ends_as_clients_expect(server: Served) -> None:
    body = {"model": "millpond/yard", "messages": FIRST, "stream": True}
    with server.client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = [line for line in response.iter_lines() if line]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]" and all(line.startswith("data: ") for line in lines)


def test_names_with_spaces_and_other_clients_extras_are_fine(client: Any) -> None:
    got = client.chat.completions.create(
        model="millpond/front door",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What appeared last?"}]},
        ],
        temperature=0.2,
        top_p=0.9,
        seed=7,
        user="somebody",
        metadata={"a": "b"},
        n=1,
        extra_body={"mm_processor_kwargs": {"fps": 2}},
    )
    assert got.choices[0].message.content


def test_an_answer_ends_at_the_length_and_at_the_words_asked_for(client: Any) -> None:
    whole = client.chat.completions.create(model="millpond/yard", messages=FIRST).choices[0].message.content
    first, *_ = whole.split()
    cut = client.chat.completions.create(model="millpond/yard", messages=FIRST, max_completion_tokens=1)
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 1)
    for stream in (False, True):
        stopped = client.chat.completions.create(model="millpond/yard", messages=FIRST, stop=[" "], stream=stream)
        text = (
            "".join(chunk.choices[0].delta.content or "" for chunk in stopped)
            if stream
            else stopped.choices[0].message.content
        )
        assert text == first


def test_a_question_may_be_about_a_stretch_of_time(client: Any) -> None:
    about = {"millpond": {"since_s": 2.0, "until_s": 4.0}}
    got = client.chat.completions.create(model="millpond/yard", messages=FIRST, extra_body=about)
    assert all(1.9 <= span["start_s"] and span["end_s"] <= 4.1 for span in got.choices[0].message.millpond["spans"])
    with pytest.raises(openai.BadRequestError, match="no frame from 900"):
        about = {"millpond": {"since_s": 900.0, "until_s": 901.0}}
        client.chat.completions.create(model="millpond/yard", messages=FIRST, extra_body=about)


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"model": "millpond/nobody"}, 404, "no stream 'nobody'"),
        ({"model": "gpt-4o"}, 404, "no model 'gpt-4o'"),
        ({"model": "millpond"}, 400, "video_url"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, 400, "no words"),
        ({"messages": [{"role": "assistant", "content": "hm"}]}, 400, "from the user"),
        ({"messages": [{"role": "tool", "content": "1"}, *FIRST]}, 400, "tool"),
        ({"messages": [{"role": "user", "content": "x" * 401}]}, 400, "400 characters"),
        ({"messages": [{"role": "assistant", "content": "x" * 400}, *FIRST]}, 400, "400 characters"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, 400, "image_url"),
        ({"n": 2}, 400, "n is not served"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"millpond": {"since_s": 3, "until_s": 2}}, 400, "since_s <= until_s"),
        ({"millpond": {"from_s": 3}}, 400, "from_s"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_served_is_refused_with_a_sentence(
    server: Served, change: dict[str, Any], status: int, said: str
) -> None:
    told = server.client.post("/v1/chat/completions", json={"model": "millpond/yard", "messages": FIRST, **change})
    assert told.status_code == status, told.text
    assert said in told.json()["error"]["message"] and set(told.json()["error"]) == {"message", "type", "param", "code"}


def test_models_are_the_streams(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["millpond", "millpond/yard", "millpond/front door"]
    assert client.models.retrieve("millpond").object == "model"
    assert client.models.retrieve("millpond/yard").id == "millpond/yard"


def test_a_client_without_the_token_is_told_as_clients_expect(server: Served) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong-token-wrong-token", max_retries=0) as other:
        with pytest.raises(openai.AuthenticationError):
            other.chat.completions.create(model="millpond/yard", messages=FIRST)


def test_what_goes_wrong_on_the_way_is_told_within_the_stream(client: Any) -> None:
    about = {"millpond": {"since_s": 900.0}}
    with pytest.raises(openai.APIError, match="no frame from 900"):
        list(client.chat.completions.create(model="millpond/yard", messages=FIRST, stream=True, extra_body=about))


def held(server: Served, monkeypatch: pytest.MonkeyPatch) -> list[Future[Answer]]:
    """From now on questions wait until the test ends them; those that came."""
    asked: list[Future[Answer]] = []
    hub = server.streams._room.hub
    assert hub is not None

    def ask(stream_id: str, question: Question, *, on_text: object = None) -> Future[Answer]:
        asked.append(Future())
        return asked[-1]

    monkeypatch.setattr(hub, "ask", ask)
    return asked


def test_no_more_questions_at_once_than_the_limit(server: Served, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = straight(server, "What appeared first?")
    with monkeypatch.context() as patch:
        asked = held(server, patch)
        threads = [
            threading.Thread(
                target=client.chat.completions.create, kwargs={"model": "millpond/yard", "messages": FIRST}
            )
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        until(lambda: len(asked) == 3, "three questions")
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="millpond/yard", messages=FIRST)
        assert refused.value.response.headers["retry-after"]
        for one in asked:
            one.set_result(answer)
        for thread in threads:
            thread.join(60)
    assert server.streams.num_questions == 0
    assert client.chat.completions.create(model="millpond/yard", messages=FIRST).choices


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_leaves_no_question_behind(server: Served, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    body = json.dumps({"model": "millpond/yard", "messages": FIRST, "stream": stream})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    with monkeypatch.context() as patch:
        asked = held(server, patch)
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
            connection.sendall(head.encode())
            until(lambda: asked, "the question")
        until(lambda: asked[0].cancelled(), "it to be given up")
    until(lambda: server.streams.num_questions == 0, "its place to be free")


def video(url: str, words: str = "What appeared first?") -> list[dict[str, Any]]:
    parts = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": words}]
    return [{"role": "user", "content": parts}]


def test_a_video_is_watched_once_and_asked_again(server: Served, client: Any, web: str) -> None:
    _Quiet.num_asked = 0
    first = client.chat.completions.create(model="millpond", messages=video(f"{web}/demo.mp4"))
    assert first.choices[0].message.millpond["seen_until_s"] > 10
    again = client.chat.completions.create(
        model="millpond",
        messages=[
            *video(f"{web}/demo.mp4"),
            {"role": "assistant", "content": first.choices[0].message.content},
            {"role": "user", "content": "What appeared last?"},
        ],
    )
    assert again.choices[0].message.content and _Quiet.num_asked == 1
    keyframe = first.choices[0].message.millpond["spans"][0]["keyframe"]
    assert server.client.get(keyframe).status_code == 200
    assert [one["id"] for one in server.client.get("/v1/streams").json()["data"]] == ["yard", "front door"]
    here = client.chat.completions.create(model="millpond", messages=video(f"file://{CLIP}"))
    data = base64.b64encode(CLIP.read_bytes()).decode()
    inline = client.chat.completions.create(model="millpond", messages=video(f"data:video/mp4;base64,{data}"))
    told = {one.choices[0].message.content for one in (first, here, inline)}
    assert len(told) == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://10.0.0.1/a.mp4", "private network"),
        ("file:///etc/passwd", "below the folders"),
        ("concat:/etc/passwd|/etc/hosts", "not let through"),
        ("gopher://x/", "not let through"),
        ("rtsp://127.0.0.1:9/live", "recording"),
        ("data:text/html,hi", "data:video/mp4"),
        ("data:video/mp4;base64,AAAA", "no pictures|cannot be|not a video|read"),
        ("data:video/mp4;base64,!!!!", "base64"),
        ("", "url"),
    ],
)
def test_a_video_that_may_not_be_opened_is_refused_with_a_sentence(
    server: Served, client: Any, url: str, said: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        client.chat.completions.create(model="millpond", messages=video(url))
    with pytest.raises(openai.BadRequestError, match=said):  # it is not remembered as watched
        client.chat.completions.create(model="millpond", messages=video(url))


def test_a_stream_and_a_video_at_once_make_no_sense(client: Any, web: str) -> None:
    with pytest.raises(openai.BadRequestError, match="and the stream"):
        client.chat.completions.create(model="millpond/yard", messages=video(f"{web}/demo.mp4"))
    two = [*video(f"{web}/demo.mp4"), *video(f"{web}/other.mp4")]
    with pytest.raises(openai.BadRequestError, match="one video"):
        client.chat.completions.create(model="millpond", messages=two)
