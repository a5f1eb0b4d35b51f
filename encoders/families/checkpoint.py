"""A Hugging Face checkpoint, opened: weights, tokenizer, chat template and its processors' numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, PreTrainedModel
from transformers.utils import cached_file


class Checkpoint(NamedTuple):
    """Made by `load_checkpoint`, taken apart by a family.

    settings: the processors' numbers under "video", "image" and "processor", empty where there are none.
    """

    model: PreTrainedModel
    tokenizer: Any
    chat_template: str
    settings: dict[str, dict[str, Any]]


def load_checkpoint(path_or_id: str, model_types: Sequence[str], dtype: torch.dtype | None) -> Checkpoint:
    """Loads from a folder or a hub id: safetensors only, and no code of the checkpoint's is run.

    model_types: the `model_type` values that the caller can use.
    dtype: None keeps the checkpoint's own.
    """
    config = AutoConfig.from_pretrained(path_or_id, trust_remote_code=False)
    if config.model_type not in model_types:
        raise ValueError(f"{path_or_id!r} is a {config.model_type!r} checkpoint; wanted {' or '.join(model_types)}")
    model = load_weights(AutoModelForImageTextToText, path_or_id, config, dtype)
    tokenizer = AutoTokenizer.from_pretrained(path_or_id, trust_remote_code=False)
    return Checkpoint(model, tokenizer, _read_chat_template(path_or_id, tokenizer), _read_settings(path_or_id))


def load_weights(kind: Any, path_or_id: str, config: Any, dtype: torch.dtype | None) -> Any:
    """A model of that transformers class with the checkpoint's weights; ValueError where some are missing."""
    model, report = kind.from_pretrained(
        path_or_id,
        config=config,
        dtype="auto" if dtype is None else dtype,
        use_safetensors=True,
        trust_remote_code=False,
        attn_implementation="sdpa",
        output_loading_info=True,
    )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(
            f"{path_or_id!r} lacks {len(missing)} of the weights that its config asks for, {missing[0]!r} "
            "among them; take a complete checkpoint"
        )
    return model


def _read_json(path_or_id: str, file_name: str) -> dict[str, Any]:
    """A JSON file of the checkpoint, or an empty mapping where it has none."""
    found = cached_file(
        path_or_id,
        file_name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return {} if found is None else dict(json.loads(Path(found).read_text(encoding="utf-8")))


def _read_settings(path_or_id: str) -> dict[str, dict[str, Any]]:
    """The numbers of the checkpoint's processors, without making any: those need torchvision for video.

    Nested settings come first, then the video processor's own file, then the image processor's, which is the
    order of transformers.
    """
    processor = _read_json(path_or_id, "processor_config.json")
    image = processor.get("image_processor") or _read_json(path_or_id, "preprocessor_config.json")
    video = processor.get("video_processor") or _read_json(path_or_id, "video_preprocessor_config.json") or image
    return {"video": video, "image": image, "processor": processor}


def _read_chat_template(path_or_id: str, tokenizer: Any) -> str:
    """The processor's chat template: its legacy file first, then the present one, as in transformers."""
    template = _read_json(path_or_id, "chat_template.json").get("chat_template")
    if template is None:
        found = cached_file(path_or_id, "chat_template.jinja", _raise_exceptions_for_missing_entries=False)
        template = tokenizer.chat_template if found is None else Path(found).read_text(encoding="utf-8")
    if not isinstance(template, str):
        raise ValueError(f"{path_or_id!r} has no chat template; add the chat_template.jinja of its processor")
    return template
