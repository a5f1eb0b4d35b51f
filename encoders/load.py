"""load_model: a hub id, a folder or a built-in name becomes a VideoLLM of the family its config names."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..stream.table import Table
from .model import VideoLLM

BUILT_IN = {"millpond/mini": Path(__file__).parent / "mini"}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# By the `model_type` of a checkpoint's config.json.
FAMILIES: Table[VideoLLM] = Table(
    "model family",
    __package__ or "millpond.encoders",
    {
        "llava_onevision": "families.llava_onevision:LlavaOnevision",
        "qwen2_vl": "families.qwen2_vl:Qwen2VL",
        "qwen2_5_vl": "families.qwen2_5_vl:Qwen25VL",
        "qwen3_vl": "families.qwen3_vl:Qwen3VL",
        "smolvlm": "families.smolvlm:SmolVLM",
    },
)


def load_model(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    max_side_px: int | None = None,
) -> VideoLLM:
    """Loads a model: `millpond/mini`, a folder with a checkpoint, or a hub id.

    device: "auto" takes a GPU where there is one.
    dtype: a torch dtype or its name; "auto" keeps the checkpoint's own on a GPU and takes float32 on a CPU.
    max_side_px: upper bound on a frame's longer side, for families whose frames keep their own size.

    Raises ValueError, in one sentence, for a name that leads to no checkpoint, for a checkpoint that is
    incomplete or damaged, and for an architecture that is not supported.
    """
    name = str(name_or_path)
    if not name.strip():
        raise ValueError(f"a model needs a name; got {name!r}; give millpond/mini, a folder or a hub id")
    chosen_device = _device(device)
    chosen_dtype = _dtype(dtype, chosen_device)
    source = str(BUILT_IN.get(name, name))
    family = FAMILIES[_model_type(name, source)]
    options = {"device": chosen_device, "dtype": chosen_dtype, "max_side_px": max_side_px}
    try:
        model: VideoLLM = family.load(source, **options)  # type: ignore[attr-defined]
    except (ImportError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # Whatever a damaged or hostile checkpoint makes the libraries below stumble over.
        if isinstance(error, ValueError) and "\n" not in str(error):
            raise
        raise ValueError(f"the checkpoint of {name!r} cannot be loaded: {_one_line(error)}") from error
    model.spec = replace(model.spec, name=name)
    return model


def _model_type(name: str, source: str) -> str:
    """The checkpoint's architecture, from its config.json alone: nothing else is opened yet."""
    config = _read_config(name, source)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ValueError(
            f"{name!r} is a {str(model_type)[:80]!r} checkpoint, which is not supported; supported "
            f"architectures are: {', '.join(sorted(FAMILIES))}"
        )
    return model_type


def _read_config(name: str, source: str) -> dict[str, Any]:
    folder = Path(source).expanduser()
    if folder.is_dir():
        file = folder / "config.json"
        if not file.is_file():
            raise ValueError(f"the folder {name!r} holds no config.json; give the folder of a checkpoint")
    else:
        file = _fetch_config(name)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"the config.json of {name!r} cannot be read: {_one_line(error)}") from error
    if not isinstance(config, dict):
        raise ValueError(f"the config.json of {name!r} must hold an object; got {str(config)[:80]!r}")
    return config


def _fetch_config(name: str) -> Path:
    if Path(name).expanduser().exists():
        raise ValueError(f"{name!r} is a file; give the folder of a checkpoint, or a hub id")
    if not _HUB_ID.fullmatch(name):
        raise ValueError(f"there is no folder {name!r}; give the folder of a checkpoint, a hub id or millpond/mini")
    from transformers.utils import cached_file

    try:
        return Path(cached_file(name, "config.json"))
    except OSError as error:
        raise ValueError(
            f"there is no folder {name!r}, and the model hub gave no such model: {_one_line(error)}"
        ) from error


def _device(device: str | torch.device) -> torch.device:
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}") from error
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not there: this machine has {torch.cuda.device_count()} GPUs; use cpu")
    return chosen


def _dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype | None:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        # Checkpoints are stored in half precision, which is slower than float32 where no hardware does it.
        return torch.float32 if device.type == "cpu" else None
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be auto, {', '.join(_DTYPES)}; got {dtype!r}")
    return _DTYPES[dtype]


def _one_line(error: BaseException) -> str:
    """What an exception says, on one line and at most a few sentences."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:300]}" if said else type(error).__name__
