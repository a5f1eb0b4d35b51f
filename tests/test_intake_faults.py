"""Intake: what is not to be had is refused, what goes wrong loses no frame, and what waits is bounded."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from millpond.encoders import FrameTokens, VideoLLM
from millpond.encoders.compressors import COMPRESSORS, CompressorRun
from millpond.encoders.compressors.covering import UniformGrid
from millpond.encoders.compressors.text import TemporalMerging
from millpond.encoders.families.base_hf import HFVideoLLM
from millpond.encoders.reuse import Reuser, Seer, SeerRun
from millpond.encoders.reuse.delta import DeltaReuse
from millpond.encoders.reuse.none import NoReuse
from millpond.encoders.sight import Need, Sight
from millpond.pipeline import Session
from millpond.pipeline.engine import TOWER_NEEDS
from millpond.stream import Frame, Span

from .fresh_window import NUM_FRESH, SMALL, Watched, engine_with
from .watched import ids_after, pictures, pushed, tiny

# Shapes: T tokens, D channels.

QUESTION = "What color is the circle?"
OTHER = "Where is the red square?"


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return tiny("llava_onevision")


# Needs.


def blind(model: VideoLLM) -> VideoLLM:
    """The same model with a tower that cannot be taken apart."""
    other = copy.copy(model)
    other.__dict__.pop("tower", None)
    other.__class__ = type("Blind", (type(model),), {"tower": None})
    return other


@pytest.mark.parametrize("name", sorted(COMPRESSORS))
def test_what_the_tower_does_not_offer_is_refused_or_done_without(model: VideoLLM, name: str) -> None:
    engine = engine_with(blind(model), name, reuse="auto")
    if COMPRESSORS[name].needs & set(TOWER_NEEDS):
        with pytest.raises(
            ValueError, match=rf"{COMPRESSORS[name].__name__} needs .* which stream 'yard' does not offer"
        ):
            engine.session("yard", question=QUESTION)
        assert not engine.sessions
        return
    session = engine.session("yard", question=QUESTION)
    for frame in pictures(NUM_FRESH + 2):
        session.push(frame)
    assert session.ask(QUESTION).used and session.memory.recent


def test_a_compressor_that_needs_a_question_is_refused_without_one(model: VideoLLM) -> None:
    engine = engine_with(model, "temporal_merging")
    with pytest.raises(
        ValueError, match="TemporalMerging needs a question, which stream 'stream' does not offer; take"
    ):
        engine.session()
    with pytest.raises(ValueError, match="a question needs words; got '  '"):
        engine.session(question="  ")
    session = engine.session(question=QUESTION)
    for frame in pictures(5):
        session.push(frame)
    assert session.ask(OTHER).used == (Span(0.0, 4.0),)


def test_a_compressor_gets_the_question_of_its_own_session(model: VideoLLM) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Reading(Watched):
        uses = frozenset({Need.TEXT})

    compressor = Reading()
    engine = engine_with(model, compressor)
    for name, question in (("a", QUESTION), ("b", OTHER), ("c", None)):
        session = engine.session(name, question=question)
        for frame in pictures(NUM_FRESH + 1):
            session.push(frame)
    words = [sight.text_MD for sight in compressor.seen]
    assert words[0] is not None and torch.equal(words[0], model.embed_words(QUESTION))
    assert words[1] is not None and torch.equal(words[1], model.embed_words(OTHER))
    assert words[2] is None and len(words) == 3


def test_a_question_for_nobody_is_not_embedded(model: VideoLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(HFVideoLLM, "embed_words")  # then the contract's own, which refuses
    assert engine_with(model, "uniform").session(question=QUESTION).num_pending == 0
    with pytest.raises(ValueError, match="does not embed words alone"):
        engine_with(model, TemporalMerging()).session(question=QUESTION)


# What goes wrong.


@dataclass(frozen=True)
class Spoiling(Reuser):
    """No reuse, and no numbers in what is seen at some times."""

    at_s: tuple[float, ...]

    def over(self, model: VideoLLM, *, budget_bytes: int = 2**30) -> Seer[Any]:
        seer = NoReuse().over(model, budget_bytes=budget_bytes)
        see = seer.see

        def spoiled(
            asked: Sequence[tuple[SeerRun, Sequence[Frame]]], needs: frozenset[Need] = frozenset()
        ) -> list[list[Sight]]:
            return [[self._spoil(sight) for sight in sights] for sights in see(asked, needs)]

        seer.see = spoiled  # type: ignore[method-assign]
        return seer

    def _spoil(self, sight: Sight) -> Sight:
        tokens = sight.tokens
        if tokens.span.start_s not in self.at_s:
            return sight
        x_TD = tokens.x_TD.clone()
        x_TD[1, 2] = torch.nan
        return replace(sight, tokens=replace(tokens, x_TD=x_TD))


@pytest.mark.parametrize("compressor", ["none", "temporal_drop", "uniform"])
@pytest.mark.parametrize("bad_s", [0.0, 2.0, 5.0])
def test_features_that_are_no_numbers_are_told_and_left_out(model: VideoLLM, compressor: str, bad_s: float) -> None:
    frames, memory = pictures(6), replace(SMALL, recent_frames=3)
    session = engine_with(model, compressor, memory=memory, reuse=Spoiling((bad_s,)), chunk_frames=9).session()
    for frame in frames:
        session.push(frame)
    with pytest.raises(ValueError, match=rf"1 values of x_TD are not finite at Span\({bad_s:.3f}.*; check the model's"):
        session.ask(QUESTION)
    others = [frame for frame in frames if frame.pts_s != bad_s]
    answer = session.ask(QUESTION)
    alone = engine_with(model, compressor, memory=memory, chunk_frames=9)
    assert answer.token_ids == ids_after(alone, others, QUESTION)
    assert answer.seen_until_s == 5.0


def test_a_block_of_no_numbers_is_told_as_soon_as_it_is_seen(model: VideoLLM) -> None:
    session = engine_with(model, "temporal_drop", reuse=Spoiling((3.0,))).session()
    for frame in pictures(8):
        if frame.pts_s == 3.0:
            with pytest.raises(ValueError, match=r"not finite at Span\(3.000"):
                session.push(frame)
        else:
            session.push(frame)
    assert [tokens.span.start_s for tokens in session.intake.fresh] == [6.0, 7.0]
    assert session.num_frames == 8


def test_one_stream_s_bad_block_takes_nothing_from_another(model: VideoLLM) -> None:
    engine = engine_with(model, "difference_pruning", reuse=Spoiling((1.5,)), chunk_frames=50)
    bad = pushed(engine, pictures(6, step_s=0.5), "bad")
    good = pushed(engine, pictures(6, seed=1), "good")
    with pytest.raises(ValueError, match="not finite"):
        engine.read_pending()
    assert [len(s.intake.fresh) + len(s.memory.recent) + len(s.memory.older) for s in (bad, good)] == [5, 6]
    answer = good.ask(QUESTION).token_ids
    alone = engine_with(model, "difference_pruning", chunk_frames=50)
    assert answer == ids_after(alone, pictures(6, seed=1), QUESTION)


@pytest.mark.parametrize("family", ["llava_onevision", "qwen3_vl"])
@pytest.mark.parametrize("compressor", ["none", "uniform"])
def test_a_reading_that_fails_half_way_loses_no_frame(family: str, compressor: str) -> None:
    model = tiny(family)
    assert isinstance(model, HFVideoLLM)
    step = model.spec.frames_per_block
    frames = pictures(2 * NUM_FRESH * step + step - 1)
    session = pushed(engine_with(model, compressor, chunk_frames=50), frames[:-1])
    layers: Any = model.text_model.layers

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    def fail_at(layer: int) -> None:
        hook = layers[layer].register_forward_pre_hook(fail)
        try:
            for act in (lambda: session.ask(QUESTION), lambda: session._engine.read_pending()):
                with pytest.raises(RuntimeError, match="out of memory"):
                    act()
        finally:
            hook.remove()

    fail_at(-1)
    assert not session.memory.recent and session.intake.ready
    session.push(frames[-1])
    fail_at(1)
    assert session.ask(QUESTION).token_ids == ids_after(
        engine_with(model, compressor, chunk_frames=50), frames, QUESTION
    )
    session.memory.check()


def test_a_tower_that_fails_loses_no_frame(model: VideoLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    session = pushed(engine_with(model, "uniform", chunk_frames=50), pictures(5))

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "see", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            session.ask(QUESTION)
    assert session.num_pending == 5
    assert session.ask(QUESTION).token_ids == ids_after(
        engine_with(model, "uniform", chunk_frames=50), pictures(5), QUESTION
    )


def test_a_compressor_that_fails_loses_no_frame(model: VideoLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    session = pushed(engine_with(model, UniformGrid(keep_tokens=2), chunk_frames=50), pictures(6))

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(CompressorRun, "compress", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            session._engine.read_pending()
    assert (session.num_pending, len(session.intake.fresh)) == (6, 6)
    session.push(pictures(7)[6])
    alone = engine_with(model, UniformGrid(keep_tokens=2), chunk_frames=50)
    assert session.ask(QUESTION).token_ids == ids_after(alone, pictures(7), QUESTION)
    assert len(session.intake.fresh) == NUM_FRESH


# Limits.


def held_bytes(session: Session) -> int:
    """Every tensor that waits, counted by looking."""
    waiting = [*session.intake.ready, *session.intake.fresh]
    tensors = [getattr(one, name) for one in waiting for name in FrameTokens.__slots__]
    for sight in session.intake._fresh:
        tensors += [getattr(sight, name) for name in Sight.__slots__ if name not in ("tokens", "text_MD")]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))


@pytest.mark.parametrize("name", ["difference_pruning", "mmtok", "progressive", "static_dynamic", "vtc_cls"])
def test_what_waits_is_counted_bounded_and_let_go(model: VideoLLM, name: str) -> None:
    engine = engine_with(model, name)
    session, words_bytes = engine.session(question=QUESTION), 0
    if Need.TEXT in COMPRESSORS[name].uses:
        words_bytes = model.embed_words(QUESTION).numel() * 4
    empty_bytes = session.num_bytes
    assert session.intake.num_bytes == words_bytes
    counted = []
    for frame in pictures(12):
        session.push(frame)
        state_bytes = session.intake.eyes.num_bytes + session.intake._run.num_bytes
        assert session.intake.num_bytes == held_bytes(session) + state_bytes + words_bytes
        counted.append(session.intake.num_bytes)
    assert counted[0] > words_bytes
    assert max(counted) == max(counted[: NUM_FRESH + 2]), "it grows until the window is full, and no further"
    session.ask(QUESTION)
    kept_bytes = session.memory.num_bytes + session._context.num_bytes + session.history.num_bytes
    assert session.num_bytes == kept_bytes + counted[-1]
    session.close()
    assert session.num_pending == 0 and session.intake.num_bytes == words_bytes
    assert session.num_bytes <= empty_bytes


def test_a_stream_that_starts_over_finds_nothing_of_the_one_before(model: VideoLLM) -> None:
    engine = engine_with(model, "temporal_drop")
    pushed(engine, pictures(7), "door").close()
    again = pushed(engine, pictures(5, seed=1), "door")
    alone = ids_after(engine_with(model, "temporal_drop"), pictures(5, seed=1), QUESTION)
    assert again.ask(QUESTION).token_ids == alone


def test_frames_that_change_their_size_are_taken(model: VideoLLM) -> None:
    for family in ("llava_onevision", "qwen2_5_vl"):
        engine = engine_with(tiny(family), "temporal_drop", reuse=DeltaReuse(falls_back=False), chunk_frames=3)
        session = engine.session()
        for number, (height, width) in enumerate([(48, 80)] * 4 + [(90, 40)] * 5 + [(1, 1)] * 4 + [(48, 80)] * 4):
            picture = pictures(1, seed=number, height=height, width=width)[0].rgb_HW3
            session.push(Frame(picture, float(number), index=number))
        assert session.ask(QUESTION).seen_until_s == 16.0
        session.memory.check()
