"""Similarity: how near a picture is to a question. The contract, and the video model's own, which costs no weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ...stream import Frame
from ..model import VideoLLM

# Shapes: N frames, D channels of the shared space, M words, T visual tokens.


class Similarity(ABC):
    """Puts pictures and words into one space.

    Promises, checked for each: vectors are float32 of length 1, one for each frame, the same whether frames come
    alone or together but for rounding; a similarity is a cosine or a mean of cosines, -1 to 1.
    Not thread-safe: one caller at a time.
    """

    @abstractmethod
    def look(self, frames: Sequence[Frame]) -> np.ndarray:
        """A vector for each of the frames: shape (N, D)."""

    @abstractmethod
    def compare(self, vectors_ND: np.ndarray, question: str) -> np.ndarray:
        """How near each of the pictures is to the question: shape (N,)."""


class FamilySimilarity(Similarity):
    """The video model's own: a frame's mean visual token, and the question's words as the language half embeds them.

    A frame's similarity is the mean of its cosines with the words. Visual tokens were trained to be read among words,
    not to lie beside those that name them: how much it tells differs from model to model, and a dual encoder such as
    SigLIP was made for it.
    """

    def __init__(self, model: VideoLLM) -> None:
        self._model = model

    @torch.inference_mode()
    def look(self, frames: Sequence[Frame]) -> np.ndarray:
        # A tower that joins frames in time is shown each frame as a still.
        stills = [frame for frame in frames for _ in range(self._model.spec.frames_per_block)]
        means = [tokens.mean_D for tokens in self._model.see(stills)]
        return unit(torch.stack(means)) if means else np.zeros((0, 0), np.float32)

    def compare(self, vectors_ND: np.ndarray, question: str) -> np.ndarray:
        words_MD = unit(self._model.embed_words(question))
        return (vectors_ND @ words_MD.T).mean(axis=1)


def unit(x_ND: torch.Tensor) -> np.ndarray:
    """Rows of length 1, float32, on the CPU."""
    return F.normalize(x_ND.float(), dim=-1).cpu().numpy()
