"""Two streams, one model: frames go in as they come, and both are asked in one packed pass, half-way and at the end."""

from __future__ import annotations

from millpond.pipeline import Engine, Question
from millpond.stream import RateSampler, open_source


def main() -> None:
    with (
        Engine() as engine,
        open_source("synthetic://shapes?seed=153&duration_s=14") as left,
        open_source("synthetic://shapes?seed=334&duration_s=14") as right,
    ):
        sessions = [engine.session("left"), engine.session("right")]
        sampled = [source.sampled(RateSampler(1.0)) for source in (left, right)]
        for number, frames in enumerate(zip(*sampled, strict=True), start=1):
            for session, frame in zip(sessions, frames, strict=True):
                session.push(frame)
            if number in (7, 14):
                answers = engine.ask([(session, Question("What appeared last?")) for session in sessions])
                for session, answer in zip(sessions, answers, strict=True):
                    print(f"{session.stream_id:6} at {answer.seen_until_s:4.1f} s: {answer.text}")


if __name__ == "__main__":
    main()
