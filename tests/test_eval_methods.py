"""METHODS: every way of watching is there, says where it comes from, and answers; simple ones see what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest

from millpond.encoders.compressors import COMPRESSORS
from millpond.encoders.reuse import REUSERS
from millpond.encoders.reuse.stc import STCCacher
from millpond.encoders.sight import Need
from millpond.memory import CODECS, EVICTORS, PRUNERS, RETRIEVERS, MemoryConfig
from millpond.memory.recall_gate import RECALL_GATES
from millpond.pipeline.config import EngineConfig, HistoryConfig
from millpond.pipeline.engine import Engine
from millpond.pipeline.eval import baselines
from millpond.pipeline.eval.everything import Everything
from millpond.pipeline.eval.method import EvalMethod, Told, Viewing
from millpond.pipeline.eval.methods import MAIN, METHODS, Methods, choose
from millpond.pipeline.eval.showing import Streamed
from millpond.pipeline.question import Question
from millpond.pipeline.session import Session
from millpond.stream import GATES, Frame, Span, Table, open_source

from .eval_parts import mini
from .method_docs import missing_from_docs

QUESTION = "What appeared first?"
TABLES: dict[str, Table[Any]] = {
    "gate": GATES,
    "reuser": REUSERS,
    "compressor": COMPRESSORS,
    "pruner": PRUNERS,
    "codec": CODECS,
    "evictor": EVICTORS,
    "retriever": RETRIEVERS,
    "recall-gate": RECALL_GATES,
}
ROWS = (
    *("millpond", "millpond_small", "blind", "dense", "last", "uniform", "fifo", "timer", "narrator"),
    *("stc_cacher", "stc_pruner", "stc", "rekv", "streaming_llm"),
)
BASE = EngineConfig(
    memory=MemoryConfig(recent_frames=2, recall_blocks=2, budget_bytes=2**21),
    history=HistoryConfig(archive_bytes=2**20),
    reuse="none",  # delta weighs what it saves against the time that takes, so no two runs need be alike
    chunk_frames=2,
    max_new_tokens=6,
)


def clip(seed: int, num_frames: int = 10) -> list[Frame]:
    with open_source(f"synthetic://shapes?seed={seed}&duration_s={num_frames}&rate_hz=1&width=96&height=96") as source:
        return list(source)


def watch(
    method: EvalMethod, frames: Sequence[Frame], *, asked_at: Sequence[int] = (-1,), base: EngineConfig = BASE
) -> list[Told]:
    """The answers after so many of the frames; -1: after the last."""
    with Engine(method.config(base), model=mini()) as engine:
        viewing = method.show.start(engine, "stream")
        told = []
        for number, frame in enumerate(frames, 1):
            viewing.see(frame)
            if number in asked_at:
                told.append(viewing.ask(Question(QUESTION)))
        if -1 in asked_at:
            told.append(viewing.ask(Question(QUESTION)))
        viewing.close()
        viewing.close()
        return told


# One of each kind always; the others where time is no matter.
SAMPLE = {*MAIN, "narrator", *{kind: name for name in METHODS for kind in TABLES if name.startswith(kind)}.values()}


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=() if one in SAMPLE else pytest.mark.slow) for one in METHODS]
)
def test_every_method_answers_and_goes_on_as_if_it_had_not_been_asked(name: str) -> None:
    frames = clip(3)
    (alone,) = watch(METHODS[name], frames)
    *_, after_others = watch(METHODS[name], frames, asked_at=(3, 8, -1))
    assert alone.answer.text and alone.answer.text == after_others.answer.text
    assert alone.answer.used == after_others.answer.used and alone.answer.seen_until_s == 9.0
    assert 0 < alone.kv_bytes <= alone.held_bytes


@pytest.mark.parametrize("name", METHODS)
def test_settings_that_all_share_stay(name: str) -> None:
    shared = EngineConfig(model="somewhere/model", fps=0.5, max_new_tokens=9, max_side_px=300, device="cpu")
    own = METHODS[name].config(shared)
    for key in ("model", "device", "dtype", "max_side_px", "fps", "chunk_frames", "max_new_tokens", "prompts"):
        assert getattr(own, key) == getattr(shared, key), key
    assert METHODS[name].config(EngineConfig()).model == "millpond/mini"


def test_names_lead_to_rows() -> None:
    assert len(set(METHODS)) == len(METHODS) == len(list(METHODS))
    for name in METHODS:
        assert METHODS[name].name == name and name in METHODS
        assert METHODS[name].about.endswith(".")
    assert "nowhere" not in METHODS and "last-0" not in METHODS and "fifo" not in METHODS
    with pytest.raises(ValueError, match=r"no method named 'last-x'; there are: millpond, .*fifo-64.* take any count"):
        METHODS["last-x"]


def test_rows_of_the_tables_are_methods_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {
        f"{kind}-{name.replace('_', '-')}"
        for kind, table in TABLES.items()
        for name in table
        if Need.TEXT not in getattr(table[name], "needs", ())
    }
    missing = named - set(METHODS)
    # What Millpond takes anyway: one of each kind, but for evictors, which a large memory has no use for.
    assert {name.rpartition("-")[0].partition("-")[0] for name in missing} <= {one.partition("-")[0] for one in TABLES}
    assert len(missing) < len(TABLES) and "evictor-oldest" in METHODS
    assert "compressor-temporal-merging" not in METHODS
    monkeypatch.setattr(COMPRESSORS, "_rows", {**COMPRESSORS._rows, "brand_new": "covering:ToDRE"})
    new = Methods()
    assert "compressor-brand-new" in new and "with the compressor brand_new" in new["compressor-brand-new"].about


@pytest.mark.parametrize("row", [getattr(baselines, name) for name in ROWS])
def test_a_baseline_says_where_it_comes_from(row: Any) -> None:
    assert missing_from_docs(row) == []


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("last-4", "2604.02317"),
        ("rekv", "2503.00540"),
        ("stc", "2512.00891"),
        ("stc-cacher", "2512.00891"),
        ("stc-pruner", "2512.00891"),
        ("streaming-llm", "2309.17453"),
        ("compressor-vidcom2", "2505.14454"),
    ],
)
def test_methods_of_papers_name_them(name: str, paper: str) -> None:
    assert METHODS[name].about.endswith(f"(arXiv {paper}).")


def test_many_are_chosen_by_a_word() -> None:
    assert [one.name for one in choose("main")] == list(MAIN)
    assert [one.name for one in choose("all")] == list(METHODS)
    assert {one.name.partition("-")[0] for one in choose("codec")} == {"codec"} and len(choose("codec")) > 5
    assert [one.name for one in choose(" last-7, millpond ,last-7")] == ["last-7", "millpond"]
    with pytest.raises(ValueError, match="no method named 'codecs'"):
        choose("millpond,codecs")


def spans(*seconds: float) -> tuple[Span, ...]:
    return tuple(Span(one, one) for one in seconds)


def test_simple_methods_read_what_they_say() -> None:
    frames = clip(5)
    one_by_one = replace(BASE, fps=100.0)  # so that spans a second apart are not joined

    def used(name: str) -> tuple[Span, ...]:
        (told,) = watch(METHODS[name], frames, base=one_by_one)
        return told.answer.used

    assert used("last-4") == spans(6, 7, 8, 9)
    assert used("uniform-4") == spans(0, 3, 6, 9)
    assert used("fifo-3") == spans(7, 8, 9)
    assert used("dense") == used("last-16") == spans(*range(10))
    assert used("streaming-llm") == spans(8, 9)
    assert set(used("timer")) >= set(spans(8, 9))


def test_dense_is_what_the_model_makes_of_all_frames_at_once() -> None:
    for seed in (1, 2, 7):
        (dense,), (last,) = (watch(METHODS[name], clip(seed)) for name in ("dense", "last-16"))
        assert dense.answer.token_ids == last.answer.token_ids


def everything(**limits: int) -> EvalMethod:
    return EvalMethod(name="all", about="all", show=Everything(**limits), config=METHODS["dense"].config)


def test_dense_says_up_to_when_all_fitted() -> None:
    frames = clip(5)
    (whole,) = watch(METHODS["dense"], frames)
    (half,) = watch(METHODS["dense"], frames[:6])
    told = watch(everything(budget_bytes=whole.kv_bytes), frames)
    assert told[0].answer.token_ids == whole.answer.token_ids
    with pytest.raises(ValueError, match=r"all frames up to 5\.0 s fit .* bytes .*; got a question after more"):
        watch(everything(budget_bytes=half.kv_bytes), frames)
    with pytest.raises(ValueError, match=r"all frames up to [1-7]\.0 s fit 200 positions"):
        watch(everything(spare_positions=mini().spec.max_positions - 200), frames)
    with pytest.raises(ValueError, match="budget_bytes must be a whole number, at least 1; got 0"):
        Everything(budget_bytes=0)


def test_what_dense_holds_is_bounded_on_an_endless_stream() -> None:
    method, frames = everything(budget_bytes=2**19), clip(5)
    with Engine(method.config(BASE), model=mini()) as engine:
        viewing = method.show.start(engine, "stream")
        for number in range(60):
            viewing.see(replace(frames[number % 10], pts_s=float(number)))
            assert sum(one.memory.num_bytes for one in engine.sessions) <= 2**19
        assert not engine.sessions
        with pytest.raises(ValueError, match="got a question after more"):
            viewing.ask(Question(QUESTION))


@pytest.fixture
def narrated_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Stream times at which a session was asked what is new."""
    times_s: list[float] = []
    usual = Session.narration_question

    def spy(self: Session, *, force: bool = False) -> Question | None:
        question = usual(self, force=force)
        if question is not None and self.seen_until_s is not None:
            times_s.append(self.seen_until_s)
        return question

    monkeypatch.setattr(Session, "narration_question", spy)
    yield times_s


def test_the_timer_speaks_by_the_clock(narrated_at: list[float]) -> None:
    watch(METHODS["timer"], clip(5, 32))
    assert narrated_at == [10.0, 20.0, 30.0]


def test_the_narrator_speaks_when_something_changed(narrated_at: list[float]) -> None:
    moving = clip(5, 12)
    watch(METHODS["narrator"], moving)
    assert narrated_at and narrated_at[0] < 10.0
    narrated_at.clear()
    watch(METHODS["narrator"], [replace(moving[0], pts_s=float(number)) for number in range(12)])
    assert [time_s for time_s in narrated_at if time_s > 2.0] == [time_s for time_s in narrated_at if time_s >= 10.0], (
        "what stands still is told once, and then by the clock"
    )


def test_the_blind_one_sees_nothing() -> None:
    texts = {watch(METHODS["blind"], clip(seed))[0].answer.text for seed in (1, 2, 5, 7)}
    assert len(texts) == 1
    assert len({watch(METHODS["millpond"], clip(seed))[0].answer.text for seed in (1, 2, 5, 7)}) > 1
    frame = clip(1)[0]
    seen: list[Frame] = []

    class Keeping(Viewing):
        def see(self, frame: Frame) -> None:
            seen.append(frame)

        def ask(self, question: Question) -> Told:
            raise NotImplementedError

        def close(self) -> None:
            pass

    class Watching(Streamed):
        def start(self, engine: Engine, stream_id: str) -> Viewing:
            return Keeping()

    with Engine(BASE, model=mini()) as engine:
        replace(METHODS["blind"].show, watching=Watching()).start(engine, "stream").see(frame)
    assert not seen[0].rgb_HW3.any() and seen[0].pts_s == frame.pts_s and frame.rgb_HW3.any()


def test_peers_are_made_of_the_parts_they_are_named_after() -> None:
    base = EngineConfig()
    rekv, stc = METHODS["rekv"].config(base), METHODS["stc"].config(base)
    assert rekv.memory is not None and (rekv.memory.retriever, rekv.memory.codec) == ("per_layer", "plain")
    assert rekv.memory.recent_frames + rekv.memory.recall_blocks == 64
    assert isinstance(stc.reuse, STCCacher) and type(stc.compressor) is COMPRESSORS["stc_pruner"]
    assert stc.memory == rekv.memory and rekv.reuse == "none" and rekv.compressor == "none"
    assert METHODS["stc-cacher"].config(base).compressor == "none"
    assert METHODS["stc-pruner"].config(base).reuse == "none"
    other = METHODS["rekv"].config(EngineConfig(model="somewhere/model"))
    assert other.memory is not None and other.memory.recall_blocks == 64
    # A quarter of the built-in model's tokens; of others what the method itself keeps.
    few = METHODS["compressor-todre"].config(base).compressor
    usual = METHODS["compressor-todre"].config(EngineConfig(model="somewhere/model")).compressor
    assert (few.keep_tokens, usual.keep_tokens) == (9, 64)  # type: ignore[union-attr]


def test_baselines_leave_nothing_of_millpond_on() -> None:
    for name in ("dense", "last-4", "uniform-16", "fifo-64", "streaming-llm", "rekv"):
        own = METHODS[name].config(replace(EngineConfig(), compressor="uniform", gate="difference"))
        assert (own.gate, own.reuse, own.compressor) == ("none", "none", "none"), name
        assert own.history.archive_bytes == 0, name
        assert own.memory is not None and own.memory.codec == "plain"
    millpond = METHODS["millpond"].config(BASE)
    assert all(getattr(millpond, f.name) == getattr(BASE, f.name) for f in fields(BASE))
