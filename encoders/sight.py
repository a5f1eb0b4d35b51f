"""Sight: what was seen of one block of frames, and what a compressor may look at besides the tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from .tokens import FrameTokens

# Shapes: T visual tokens of the grid, C channels of the tower, M words of a question, D channels of the language
# model, R attention rows.


class Need(Enum):
    """What a method looks at besides tokens. The value is the sentence's words for it."""

    PIXELS = "how much the pixels under each token changed"
    CLS = "a [CLS] row of the tower's attention, or its stand-in"
    RECEIVED = "the attention that each token of the tower receives"
    FEATURES = "the tower's own features, before they are projected"
    TEXT = "a question"
    ACTION = "attention from past actions"


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """Made by `Reuser.see`, read by compressors, written by nobody.

    Everything but `tokens` is None where nobody asked for it. T counts the positions of the grid, in raster order;
    a token that a family appends after the grid (LLaVA-OneVision's newline) has no place in these.

    tokens: all visual tokens of the block.
    change_T: float32, mean absolute difference, in levels of 0 to 255, of the pixels under each token from the block
        before; infinite where there was none to compare with.
    noise_levels: how large change_T is where nothing happens, as the stream showed so far.
    cls_T: float32, share of a virtual [CLS] query's attention that each token gets; sums to 1.
    received_RT: float32, attention received by each token, R = 2 layers: a middle one, the last; each sums to 1.
    features_TC: the tower's output under each token.
    text_MD: embeddings of the question's words, in the language model's space.
    action_T: float32, attention that past actions paid to each token.
    """

    tokens: FrameTokens
    change_T: Tensor | None = None
    noise_levels: float = 0.0
    cls_T: Tensor | None = None
    received_RT: Tensor | None = None
    features_TC: Tensor | None = None
    text_MD: Tensor | None = None
    action_T: Tensor | None = None

    def __post_init__(self) -> None:
        num_places = self.tokens.grid_hw[0] * self.tokens.grid_hw[1]
        for name in ("change_T", "cls_T", "received_RT", "features_TC", "action_T"):
            given = getattr(self, name)
            if given is None:
                continue
            places = given.shape[0] if name == "features_TC" else given.shape[-1]
            if places != num_places:
                raise ValueError(f"{name} must have a value for each of {num_places} places; got {tuple(given.shape)}")

    def __repr__(self) -> str:
        return f"Sight({self.tokens!r})"


def missing_needs(method: str, needs: Iterable[Need], offered: Iterable[Need], where: str) -> None:
    """Refuses a method, with a sentence, where something it needs is not to be had. Raises ValueError."""
    lacking = [need for need in needs if need not in frozenset(offered)]
    if lacking:
        wanted = " and ".join(need.value for need in sorted(lacking, key=lambda need: need.name))
        raise ValueError(f"{method} needs {wanted}, which {where} does not offer; take another: millpond list")
