"""Frames that are near to the question, and not near to one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..sight import Need
from .base import Candidate, Selector

# Shapes: N candidates, D channels of a vector.

_SAME = 1e-6  # relative to each other, shares and differences below it are rounding
_LEAST_SHARE = 1e-200  # above 0, so that what is relevant to nothing is still told apart by its vector


@dataclass(frozen=True)
class TextSelector(Selector):
    """Text-conditioned frame selection, without training: relevance first, near-duplicates last.

    1. A candidate's share is the softmax, over the recording, of its similarity to the question.
    2. The candidate with the largest share is taken; every other's share is multiplied by how different its vector
       is from the nearest one taken (1 - cosine); and so on.
    3. Of candidates that cannot be told apart the one is taken that is furthest in time from those taken.

    Paper: B-VLLM: A Vision Large Language Model with Balanced Spatio-Temporal Tokens (arXiv 2412.09919)
    Differs from the paper: inspired by it only. The paper's learned Q-Former scores frames against the question and
        samples them with a Gumbel-softmax, and merges near-duplicates; here a text-image similarity scores them,
        the picks are greedy, and near-duplicates are passed over. None of the paper's results apply.
    temperature: of the softmax, in standard deviations of the recording's similarities, above 0; small is relevance
        alone, large is difference alone.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.TEXT})

    temperature: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be finite and above 0; got {self.temperature}")

    def _choose(self, candidates: Sequence[Candidate], num_frames: int, similarity_N: np.ndarray) -> Sequence[int]:
        vectors_ND = _vectors(candidates)
        times_N = _times(candidates)
        share_N = self._shares(similarity_N)
        unlike_N = np.ones(len(candidates))
        apart_N = -np.abs(times_N - times_N.mean())  # with nothing taken yet, the middle comes first
        taken: list[int] = []
        while len(taken) < num_frames:
            value_N = share_N * unlike_N
            value_N[taken] = -1.0
            best = value_N.max()
            is_best_N = value_N >= best * (1 - _SAME)
            is_best_N[taken] = False
            pick = int(np.flatnonzero(is_best_N)[apart_N[is_best_N].argmax()])
            cosine_N = vectors_ND @ vectors_ND[pick]
            unlike_now_N = 1.0 - np.clip(cosine_N, 0.0, 1.0)
            unlike_N = np.minimum(unlike_N, np.where(unlike_now_N < _SAME, 0.0, unlike_now_N))
            gap_N = np.abs(times_N - times_N[pick])
            apart_N = np.minimum(apart_N, gap_N) if taken else gap_N
            taken.append(pick)
        return taken

    def _shares(self, similarity_N: np.ndarray) -> np.ndarray:
        """The softmax; where nothing is nearer than anything else, equal shares."""
        below_N = similarity_N - similarity_N.max()
        spread = similarity_N.std()
        share_N = np.exp(below_N / (spread * self.temperature)) if below_N.any() else np.ones(len(below_N))
        return np.maximum(share_N / share_N.sum(), _LEAST_SHARE)


def _times(candidates: Sequence[Candidate]) -> np.ndarray:
    """Times in seconds; where all are one moment, places."""
    times_N = np.array([candidate.pts_s for candidate in candidates])
    return times_N if times_N[-1] > times_N[0] else np.arange(len(candidates), dtype=np.float64)


def _vectors(candidates: Sequence[Candidate]) -> np.ndarray:
    vectors = [candidate.vector_D for candidate in candidates if candidate.vector_D is not None]
    if len(vectors) < len(candidates) or len({len(vector) for vector in vectors}) != 1:
        raise ValueError(
            f"the text selector compares frames by their vectors; got {len(vectors)} of {len(candidates)} candidates "
            "with one, all to be of one length; make them with a Similarity"
        )
    vectors_ND = np.stack(vectors).astype(np.float32)
    return vectors_ND / np.maximum(np.linalg.norm(vectors_ND, axis=1, keepdims=True), 1e-12)
