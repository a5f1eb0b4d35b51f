"""`millpond bench serve`: what the service takes: requests a second, many who follow a stream, and what it adds to the
first words of an answer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from .bench import Bench
from .bench_serve_answers import AnswersPlan, measure_answers
from .bench_serve_load import Ages, LoadPlan, following, look_at_age, measure_load
from .bench_serve_process import Server, running_server, world
from .bench_shapes import machine
from .bench_streams_latency import percentiles

_WORDS = "red circle blue square"
_SOME_LINES = 20
_LINES_WITHIN_S = 60.0
_SOME_FRAMES = 4
_SPARE_S = 60.0  # for a round's stream to begin, and for its clients to come and go


@dataclass(frozen=True)
class FollowPlan:
    """So many clients follow one stream, for `length_s` at a time; before and after that nobody does, for as long."""

    num_clients: int = 200
    length_s: float = 15.0

    def __post_init__(self) -> None:
        if self.num_clients < 1 or not self.length_s > 0:
            raise ValueError(f"at least one client, for a while; got {self.num_clients} for {self.length_s} s")


@dataclass(frozen=True)
class ServeBench(Bench):
    """A real server in a process of its own, on loopback; its streams go on meanwhile.

    num_streams, fps: what it watches. num_lines: of a stream's log, before anything is measured, or what
    there is after a minute.
    """

    load: LoadPlan = field(default_factory=LoadPlan)
    follow: FollowPlan = field(default_factory=FollowPlan)
    answers: AnswersPlan = field(default_factory=AnswersPlan)
    num_streams: int = 2
    fps: float = 2.0
    narrated_every_s: float = 2.0
    num_lines: int = _SOME_LINES

    about = (
        "serve: a server in a process of its own, on loopback, which watches 2 streams of 2 frames a second and "
        "narrates them meanwhile. Keys: load (a stream's status, its events, a search; each with requests_per_s, "
        "p50_s, p95_s and p99_s of 8 clients that ask as fast as they are answered, num_bytes of an answer, "
        "num_requests, num_clients); follow (num_clients that follow one stream by Server-Sent Events, and the "
        "age_s of its newest frame taken before, with and after them: p50, p95, p99, with frames_per_s and "
        "num_dropped; num_lines that each of them got, least and most; a row each round); answers (num_questions, "
        "one after another over one connection; first_words_s at the client, engine_s to the first token by the "
        "engine's own count, overhead_s: the one less the other, answer by answer; first_byte_s of the response's "
        "body: p50, p95, p99; a row each round), overhead_p95_s: the median of the rounds, and overhead_p95_range; "
        "repeats, machine."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """model: "default": the built-in one."""
        name = "millpond/mini" if model == "default" else model
        with running_server(
            name,
            num_streams=self.num_streams,
            fps=self.fps,
            narrated_every_s=self.narrated_every_s,
            num_followers=self.follow.num_clients,
        ) as server:
            num_lines = _wait_for_lines(server, self.num_lines)
            first = f"/v1/streams/{quote(server.names[0], safe='')}"
            paths = {
                "status": first,
                "events": f"{first}/events?most=20",
                "search": f"/v1/search?q={quote(_WORDS)}&most=20",
            }
            load = [self._load(server, kind, path, repeats) for kind, path in paths.items()]
            follow = [self._follow(server, number) for number in range(repeats)]
            answers = [measure_answers(server, self.answers) for _ in range(repeats)]
        overheads_s = [one["overhead_s"]["p95"] for one in answers]
        return {
            "model": name,
            "num_streams": self.num_streams,
            "fps": self.fps,
            "num_lines": num_lines,
            "load": load,
            "follow": follow,
            "answers": answers,
            "overhead_p95_s": statistics.median(overheads_s),
            "overhead_p95_range": [min(overheads_s), max(overheads_s)],
            "repeats": repeats,
            "machine": machine(torch.device("cpu")),
        }

    def _load(self, server: Server, kind: str, path: str, repeats: int) -> dict[str, Any]:
        """The run whose p95 is the median."""
        runs = sorted((measure_load(server, path, self.load) for _ in range(repeats)), key=lambda one: one["p95_s"])
        rates = [one["requests_per_s"] for one in runs]
        return {"kind": kind, **runs[len(runs) // 2], "requests_per_s_range": [min(rates), max(rates)]}

    def _follow(self, server: Server, number: int) -> dict[str, Any]:
        """One round, on a stream of its own, which is short and lively: nobody, all, nobody."""
        name, length_s = f"round-{number}", self.follow.length_s
        path = f"/v1/streams/{name}"
        source = world(100 + number, self.fps, 3 * length_s + _SPARE_S)
        server.send("POST", "/v1/streams", {"id": name, "source": source, "as_live": True})
        try:
            _wait_for_frames(server, path)
            before = look_at_age(server, name, length_s)
            with following(server, name, self.follow.num_clients) as followers:
                num_lines = [one.num_lines for one in followers]
                meanwhile = look_at_age(server, name, length_s)
                got = [one.num_lines - had for one, had in zip(followers, num_lines, strict=True)]
                problems = [one.problem for one in followers if one.problem is not None]
            if problems:
                raise ConnectionError(f"{len(problems)} of those who follow lost the stream: {problems[0]}")
            after = look_at_age(server, name, length_s)
        finally:
            server.send("DELETE", path)
        return {
            "num_clients": self.follow.num_clients,
            "num_lines": [min(got), max(got)],
            "before": _of_ages(before),
            "with": _of_ages(meanwhile),
            "after": _of_ages(after),
        }

    def table(self, result: dict[str, Any]) -> str:
        title = (
            f"median of {result['repeats']}; {result['model']}, {result['num_streams']} streams of {result['fps']:g} "
            f"frames a second; {result['machine']}"
        )
        parts = (_load_lines, _follow_lines, _answer_lines)
        return "\n\n".join([title, *("\n".join(part(result)) for part in parts)])


def _wait_for_lines(server: Server, num_lines: int) -> int:
    """Until there is something to list and to search: so many lines of each stream, or what there is after a while.
    The least that a stream has."""
    until_s = time.monotonic() + _LINES_WITHIN_S
    while True:
        paths = [f"/v1/streams/{quote(name, safe='')}/events?most={num_lines}" for name in server.names]
        least = min(len(server.get(path)["data"]) for path in paths)
        if least >= num_lines or (least and time.monotonic() > until_s):
            return least
        if time.monotonic() > until_s + _LINES_WITHIN_S:
            raise TimeoutError(f"a stream told nothing within {2 * _LINES_WITHIN_S:g} s, of {num_lines} lines wanted")
        time.sleep(0.5)


def _wait_for_frames(server: Server, path: str) -> None:
    until_s = time.monotonic() + _LINES_WITHIN_S
    while server.get(path)["num_frames"] < _SOME_FRAMES:
        if time.monotonic() > until_s:
            raise TimeoutError(f"{path} took less than {_SOME_FRAMES} frames within {_LINES_WITHIN_S:g} s")
        time.sleep(0.1)


def _of_ages(ages: Ages) -> dict[str, Any]:
    return {
        "age_s": percentiles(ages.age_s),
        "frames_per_s": ages.frames_per_s,
        "num_dropped": ages.num_dropped,
        "num_looks": len(ages.age_s),
    }


def _load_lines(result: dict[str, Any]) -> Iterator[str]:
    yield f"requests of {result['load'][0]['num_clients']} clients at once"
    yield f"  {'':8} {'a second':>9} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} {'bytes':>8}"
    for row in result["load"]:
        seconds = " ".join(f"{1000 * row[key]:8.2f}" for key in ("p50_s", "p95_s", "p99_s"))
        yield f"  {row['kind']:8} {row['requests_per_s']:9.0f} {seconds} {row['num_bytes']:8d}"


def _follow_lines(result: dict[str, Any]) -> Iterator[str]:
    num_clients = result["follow"][0]["num_clients"]
    yield f"age of the newest frame, ms, p50 / p95; with: {num_clients} clients follow the stream"
    for row in result["follow"]:
        cells = (f"{key} {_age(row[key])}" for key in ("before", "with", "after"))
        low, high = row["num_lines"]
        yield f"  {'   '.join(cells)}   each got {low} to {high} lines"


def _age(row: dict[str, Any]) -> str:
    age_s = row["age_s"]
    return f"{1000 * age_s['p50']:6.0f} /{1000 * age_s['p95']:6.0f}, {row['frames_per_s']:.2f} frames a second"


def _answer_lines(result: dict[str, Any]) -> Iterator[str]:
    yield "first words of an answer, ms, p50 / p95: at the client, by the engine, and what is between"
    for row in result["answers"]:
        cells = (
            f"{1000 * row[key]['p50']:7.2f} /{1000 * row[key]['p95']:7.2f}"
            for key in ("first_words_s", "engine_s", "overhead_s")
        )
        yield f"  {'   '.join(cells)}   {row['num_questions']} questions"
    low, high = result["overhead_p95_range"]
    yield f"  overhead p95: {1000 * result['overhead_p95_s']:.2f} ms ({1000 * low:.2f} to {1000 * high:.2f})"
