"""Prefill of some frames and decoding after them, beside transformers' own decoder, cache and attention."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..encoders import FrameTokens, Row, Text, VideoLLM
from ..encoders.compressors.covering import UniformGrid
from ..encoders.sight import Sight
from ..stream import Frame
from .bench_real_models import PeakMemory
from .bench_shapes import wait_for

# Shapes: T tokens, D channels, V vocabulary, N tokens of a frame, E DeepStack taps.

QUESTION = "Which objects appeared?"
_QUARTER = 4
_SIDES = ("dense", "quarter", "transformers")


class Side(Protocol):
    """One way to read frames and to go on after them: each call of `step` gives the logits that follow."""

    def prefill(self, tokens: Sequence[FrameTokens]) -> None:
        """Reads the prompt's first half and all frames."""

    def step(self, ids: tuple[int, ...]) -> Tensor:
        """Reads some words. Returns: logits of shape (V,)."""


class Ours:
    """As an engine does it: keys and values are kept un-rotated besides, to be remembered."""

    def __init__(self, model: VideoLLM) -> None:
        self._model = model
        self._context = model.new_context()

    def prefill(self, tokens: Sequence[FrameTokens]) -> None:
        self._model.read([Row(self._context, (self._model.prefix(), *tokens))])

    def step(self, ids: tuple[int, ...]) -> Tensor:
        return self._model.step([Row(self._context, (Text(ids),))])[0]


class Transformers:
    """The same decoder, called as transformers' `generate` calls it, on the same embeddings at the same positions."""

    def __init__(self, model: Any) -> None:
        from transformers import DynamicCache

        self._model = model
        self._decoder = model.text_model
        self._embed = self._decoder.get_input_embeddings()
        self._cache = DynamicCache(config=self._decoder.config)
        self._next_position = 0

    @torch.inference_mode()
    def prefill(self, tokens: Sequence[FrameTokens]) -> None:
        pieces: list[Tensor] = [self._words(self._model.prefix().ids)]
        positions: list[Tensor] = [self._count(len(pieces[0]))]
        is_visual: list[Tensor] = [torch.zeros(len(pieces[0]), dtype=torch.bool)]
        for frame in tokens:
            around = self._model.frame_text(frame.span)
            for ids, x_ND in ((around.before_ids, frame.x_TD), (around.after_ids, None)):
                if ids:
                    pieces.append(self._words(ids))
                    positions.append(self._count(len(ids)))
                    is_visual.append(torch.zeros(len(ids), dtype=torch.bool))
                if x_ND is not None:
                    pieces.append(x_ND)
                    positions.append(frame.pos_3T.cpu() + self._next_position)
                    is_visual.append(torch.ones(len(x_ND), dtype=torch.bool))
                    self._next_position += frame.advance
        self._run(torch.cat(pieces), torch.cat(positions, dim=1), torch.cat(is_visual), [t.deep_ETD for t in tokens])

    @torch.inference_mode()
    def step(self, ids: tuple[int, ...]) -> Tensor:
        hidden_D = self._run(self._words(ids), self._count(len(ids)), None, ())
        logits_V: Tensor = self._model.lm_head(hidden_D).float()
        return logits_V

    def _words(self, ids: tuple[int, ...]) -> Tensor:
        words_TD: Tensor = self._embed(torch.tensor(ids, device=self._model.spec.device))
        return words_TD

    def _count(self, num_words: int) -> Tensor:
        start, self._next_position = self._next_position, self._next_position + num_words
        return torch.arange(start, self._next_position).expand(3, -1)

    def _run(self, x_TD: Tensor, pos_3T: Tensor, is_visual_T: Tensor | None, deep: Sequence[Tensor | None]) -> Tensor:
        """The last token's hidden state."""
        device = self._model.spec.device
        extra: dict[str, Any] = {}
        taps = [deep_END for deep_END in deep if deep_END is not None]
        if taps and is_visual_T is not None:
            extra = {
                "visual_pos_masks": is_visual_T[None].to(device),
                "deepstack_visual_embeds": list(torch.cat(taps, dim=1)),
            }
        positions = pos_3T[:, None] if self._model.rope_axes == 3 else pos_3T[:1]
        hidden_1TD: Tensor = self._decoder(
            inputs_embeds=x_TD[None],
            position_ids=positions.to(device),
            past_key_values=self._cache,
            use_cache=True,
            **extra,
        ).last_hidden_state
        return hidden_1TD[0, -1]


@contextmanager
def transformers_attention(model: Any) -> Iterator[None]:
    """The model's decoder attends as transformers does by itself (torch's own attention), and then as it did."""
    from ..encoders.attention import attend_with_millpond

    model.text_model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        attend_with_millpond(model.text_model)


class _Times(NamedTuple):
    """Seconds of all frames, and of each token after them."""

    read_s: float
    token_s: float


class Language(NamedTuple):
    """What reading and decoding took: rows of figures, and the most memory of each side while it read."""

    prefill: dict[str, Any]
    decode: dict[str, Any]
    peak_bytes: dict[str, int | None]


def measure_language(
    model: VideoLLM, frames: Sequence[Frame], num_decoded: int, repeats: int, peak: PeakMemory
) -> Language:
    """All frames in one call, then so many tokens one by one. Three sides in turn: ours, ours with a quarter of each
    frame's tokens, and transformers. What is made at first use, and memory, belong to a first round that is not timed.
    """
    if num_decoded < 1 or repeats < 1 or not frames:
        raise ValueError(
            f"reading is measured with a frame, a token and a repeat at least; "
            f"got {len(frames)}, {num_decoded} and {repeats}"
        )
    dense = model.see(frames)
    quarter = [_quarter(tokens) for tokens in dense]
    took: dict[str, list[_Times]] = defaultdict(list)
    peaks: dict[str, int | None] = {}
    for repeat in range(-1, repeats):
        for name in _SIDES if repeat % 2 else _SIDES[::-1]:
            if repeat < 0:
                peak.restart()
            times = _one_side(model, name, quarter if name == "quarter" else dense, num_decoded)
            if repeat < 0:
                peaks[name] = peak.num_bytes
            else:
                took[name].append(times)
    counts = {
        "num_frames": len(frames),
        "num_tokens": sum(tokens.num_tokens for tokens in dense),
        "quarter_tokens": sum(tokens.num_tokens for tokens in quarter),
    }
    read_s = {name: [times.read_s for times in took[name]] for name in _SIDES}
    token_s = {name: [times.token_s for times in took[name]] for name in _SIDES}
    return Language(counts | _figures(read_s, "s"), {"num_decoded": num_decoded} | _figures(token_s, "token_s"), peaks)


def _figures(seconds: dict[str, list[float]], unit: str) -> dict[str, Any]:
    """Medians of all sides, and of how much faster one is than another in the same round, with lowest and highest."""
    figures: dict[str, Any] = {f"{name}_{unit}": median(seconds[name]) for name in _SIDES}
    for key, slow, fast in (
        ("speedup_over_transformers", "transformers", "dense"),
        ("speedup_quarter", "dense", "quarter"),
    ):
        ratios = sorted(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))
        figures |= {key: median(ratios), f"{key}_range": [ratios[0], ratios[-1]]}
    return figures


def _one_side(model: VideoLLM, name: str, tokens: Sequence[FrameTokens], num_decoded: int) -> _Times:
    if name != "transformers":
        return _timed(model, lambda: Ours(model), tokens, num_decoded)
    with transformers_attention(model):
        return _timed(model, lambda: Transformers(model), tokens, num_decoded)


def _timed(model: VideoLLM, make: Callable[[], Side], tokens: Sequence[FrameTokens], num_decoded: int) -> _Times:
    device = model.spec.device
    side = make()
    wait_for(device)
    started_s = time.perf_counter()
    side.prefill(tokens)
    wait_for(device)
    read_s = time.perf_counter() - started_s
    token = int(side.step(model.question(QUESTION).ids).argmax())
    started_s = time.perf_counter()
    for _ in range(num_decoded):
        token = int(side.step((token,)).argmax())
    return _Times(read_s, (time.perf_counter() - started_s) / num_decoded)


def _quarter(tokens: FrameTokens) -> FrameTokens:
    num_places = tokens.grid_hw[0] * tokens.grid_hw[1]
    return UniformGrid(keep_tokens=max(1, num_places // _QUARTER)).start().compress(Sight(tokens))
