"""The model: torch, the GPU where there is one, and whether the model loads and says a word."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..config import EngineConfig
from .finding import Finding
from .machine import GIB, memory_bytes

_CHILD = (sys.executable, "-P", "-m", f"{__package__}.model_child")
_WEIGHTS = ("*.safetensors", "*.bin")
_KILLED = -9


def check_torch() -> Finding:
    """torch, and whether a GPU is there and can be used."""
    import torch

    found = f"torch {torch.__version__}"
    has_driver = Path("/proc/driver/nvidia/version").exists()
    if not torch.cuda.is_available():
        if has_driver:
            why = "was built without CUDA" if torch.version.cuda is None else "cannot start CUDA"
            to_do = (
                "install the torch for this driver's CUDA (pytorch.org says which); until then models run on the CPU"
            )
            return Finding("torch", "warn", f"{found} {why}, and there is an NVIDIA driver", to_do)
        return Finding("torch", "ok", f"{found}; no GPU: models run on the CPU")
    try:
        free_bytes, total_bytes = torch.cuda.mem_get_info()
        torch.ones(64, 64, device="cuda").matmul(torch.ones(64, 64, device="cuda")).sum().item()
    except RuntimeError as error:  # what CUDA says runs over many lines
        said = str(error).strip().splitlines()[:1] or [type(error).__name__]
        to_do = "see what else holds the GPU: nvidia-smi; or set device = 'cpu' under [model]"
        return Finding("torch", "fail", f"{found} cannot use the GPU: {said[0]}", to_do)
    found += f"; {torch.cuda.get_device_name()}, {free_bytes / GIB:.1f} of {total_bytes / GIB:.1f} GiB free"
    if free_bytes < total_bytes / 4:
        return Finding("torch", "warn", found, "see what else holds the GPU's memory: nvidia-smi")
    return Finding("torch", "ok", found)


def check_model(config: EngineConfig, *, patience_s: float) -> Finding:
    """Whether it loads and says a word; in a process of its own, which may run out of memory. Nothing is downloaded."""
    name = f"model {config.model}"
    folder = Path(config.model).expanduser()
    if not folder.is_dir() and _is_to_be_fetched(config.model):
        found = "is not on this machine; the first start will fetch it"
        return Finding(
            name, "warn", found, f"fetch it beforehand, for a start that needs no network: hf download {config.model}"
        )
    needed_bytes = max((sum(f.stat().st_size for f in folder.glob(kind)) for kind in _WEIGHTS), default=0)
    _, free_bytes = memory_bytes()
    if config.device in ("auto", "cpu") and free_bytes and needed_bytes > free_bytes and not _has_gpu():
        found = f"its weights have {needed_bytes / GIB:.1f} GiB, and {free_bytes / GIB:.1f} GiB of memory are free"
        return Finding(name, "fail", found, "take a smaller model, or a machine with more memory or a GPU")
    told = _told_by_child(config, patience_s)
    if "error" in told:
        return Finding(name, "fail", str(told["error"]), str(told["to_do"]))
    found = (
        f"{told['family']} of {told['num_parameters'] / 1e6:.1f} M parameters in {told['dtype']} on {told['device']}; "
        f"loads in {told['load_s']:.1f} s, first token after {told['ttft_s']:.2f} s"
    )
    return Finding(name, "ok", found)


def _is_to_be_fetched(name: str) -> bool:
    """Whether it is a name of the hub's that nothing is here of."""
    from ...encoders.load import BUILT_IN

    if name in BUILT_IN or Path(name).expanduser().exists() or not re.fullmatch(r"[\w.\-]+/[\w.\-]+", name):
        return False
    from huggingface_hub import try_to_load_from_cache

    return not isinstance(try_to_load_from_cache(name, "config.json"), str)


def _told_by_child(config: EngineConfig, patience_s: float) -> dict[str, Any]:
    asked = {key: getattr(config, key) for key in ("model", "device", "dtype", "max_side_px")}
    reinstall = "see that the folder holds all files of the checkpoint, and fetch it anew where it does not"
    try:
        done = subprocess.run(
            _CHILD,
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=patience_s,
            check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    except subprocess.TimeoutExpired:
        to_do = "take a smaller model, a GPU, or a faster disk"
        return {"error": f"it did not load and say a word within {patience_s:g} s", "to_do": to_do}
    if done.returncode == _KILLED:
        return {"error": "its process was killed while it loaded: too little memory", "to_do": "take a smaller model"}
    lines = done.stdout.strip().splitlines()
    try:
        told = json.loads(lines[-1])
    except (ValueError, IndexError):
        told = {"error": (done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"])[-1][:300]}
    return {"to_do": reinstall, **told}


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
