"""SiglipSimilarity: a dual encoder that was trained to tell which words go with which picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from ...stream import Frame
from ..families.square import square_pixels
from ..pixel_config import HALVES, PixelConfig
from .similarity import Similarity, unit

# Shapes: N frames, D channels of the shared space, 3 colours, H rows, W columns.

# SiglipImageProcessor's own numbers, for files that leave them out.
_DEFAULTS = {**HALVES, "resample": 3}


class SiglipSimilarity(Similarity):
    """SigLIP, or a SigLIP 2 of fixed resolution: cosine of its picture and text embeddings.

    Paper: Sigmoid Loss for Language Image Pre-Training (arXiv 2303.15343)
    """

    def __init__(self, model: Any, tokenizer: Any, settings: Mapping[str, Any]) -> None:
        """Takes a transformers SiglipModel, its tokenizer, and the numbers of its image processor."""
        self._model = model.eval()
        self._tokenizer = tokenizer
        side = int(model.config.vision_config.image_size)
        self._pixel_config = PixelConfig.read(settings, {**_DEFAULTS, "size": side})
        if self._pixel_config.square_side("SigLIP") != side:
            raise ValueError(
                f"the checkpoint's processor makes pictures of {self._pixel_config.square_side('SigLIP')} pixels and "
                f"its tower reads {side}; they must agree"
            )
        self._side = side
        self._max_words = int(model.config.text_config.max_position_embeddings)

    @classmethod
    def load(cls, path_or_id: str, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Self:
        """Loads a checkpoint from a folder or a hub id: safetensors only, no code of the checkpoint's is run.

        dtype: None keeps the checkpoint's own.

        Raises ValueError, in one sentence, for what is no such checkpoint, is incomplete or damaged.
        """
        try:
            return cls._load(path_or_id, torch.device(device), dtype)
        except torch.OutOfMemoryError:
            raise
        except ImportError as error:
            raise ImportError(
                f"the tokenizer of {path_or_id!r} needs sentencepiece; pip install sentencepiece, or take a SigLIP 2 "
                "checkpoint, which does not"
            ) from error
        except Exception as error:
            # Whatever a damaged or hostile checkpoint makes the libraries below stumble over.
            if isinstance(error, ValueError) and "\n" not in str(error):
                raise
            said = " ".join(str(error).split())[:300]
            raise ValueError(f"{path_or_id!r} cannot be loaded: {type(error).__name__}: {said}") from error

    @classmethod
    def _load(cls, path_or_id: str, device: torch.device, dtype: torch.dtype | None) -> Self:
        from transformers import AutoConfig, AutoTokenizer, SiglipModel

        from ..families.checkpoint import load_weights

        config = AutoConfig.from_pretrained(path_or_id, trust_remote_code=False)
        if config.model_type != "siglip":
            raise ValueError(
                f"{path_or_id!r} is a {config.model_type!r} checkpoint; wanted siglip, pictures and text, such as "
                "google/siglip2-base-patch16-224"
            )
        model = load_weights(SiglipModel, path_or_id, config, dtype)
        tokenizer = AutoTokenizer.from_pretrained(path_or_id, trust_remote_code=False)
        return cls(model.to(device), tokenizer, _read_settings(path_or_id))

    @torch.inference_mode()
    def look(self, frames: Sequence[Frame]) -> np.ndarray:
        if not frames:
            return np.zeros((0, self._model.config.vision_config.hidden_size), np.float32)
        device = self._model.device
        pixels_N3HW = square_pixels(frames, lambda *_: [(self._side, self._side)], self._pixel_config, device)
        return unit(self._model.vision_model(pixels_N3HW.to(self._model.dtype)).pooler_output)

    @torch.inference_mode()
    def compare(self, vectors_ND: np.ndarray, question: str) -> np.ndarray:
        # It was trained on texts in lower case, filled up to one length, with no mask.
        ids = self._tokenizer(
            [question.lower()], padding="max_length", truncation=True, max_length=self._max_words, return_tensors="pt"
        )["input_ids"]
        words_1D = unit(self._model.text_model(ids.to(self._model.device)).pooler_output)
        return vectors_ND @ words_1D[0]


def _read_settings(path_or_id: str) -> dict[str, Any]:
    """The numbers of the image processor, without making one; empty where the checkpoint has none."""
    from transformers.utils import cached_file

    for name in ("processor_config.json", "preprocessor_config.json"):
        found = cached_file(
            path_or_id,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if found is None:
            continue
        settings = json.loads(Path(found).read_text(encoding="utf-8"))
        if name == "processor_config.json":
            settings = settings.get("image_processor") if isinstance(settings, dict) else None
        if isinstance(settings, dict) and settings:
            return settings
    return {}
