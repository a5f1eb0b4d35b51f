"""Models of REAL_SHAPES with random weights: drawn in bfloat16 where they are to stay, and let go of altogether."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..encoders import FAMILIES, VideoLLM
from ..encoders.load import BUILT_IN
from .bench_real_shapes import RealShape

DTYPE = torch.bfloat16
_BYTES_PER_PARAMETER = 2

_GIB = 2**30
# Beside the weights: one frame's activations, contexts, the interpreter and its libraries.
_WORKING_BYTES = 3 * _GIB // 2

# What a video stands for in a prompt, by family, and the marks that its words need besides the built-in model's.
_QWEN_MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_VIDEO = dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), "<|vision_start|><|video_pad|><|vision_end|>")
_VIDEO |= {"llava_onevision": "<video>", "smolvlm": "<video>"}
_MARKS = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), _QWEN_MARKS),
    "llava_onevision": (),
    "smolvlm": ("<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
}
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} {% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}VIDEO{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)


class Room(NamedTuple):
    """Whether a shape has room on a device. reason: why not, in words; empty where it fits."""

    fits: bool
    reason: str
    num_parameters: int


def room_for(shape: RealShape, device: torch.device, *, cpu_bytes: int, feature_bytes: int) -> Room:
    """Whether a model and what is measured on it have room; nothing is made.

    cpu_bytes: what may be taken of a CPU's memory, free or not.
    feature_bytes: what streams may keep of their vision features.
    """
    num_parameters = shape.num_parameters or count_parameters(shape)
    wanted = num_parameters * _BYTES_PER_PARAMETER + feature_bytes + _WORKING_BYTES
    free = free_bytes(device)
    if device.type == "cpu":
        free = min(free, cpu_bytes)
    if wanted <= free:
        return Room(True, "", num_parameters)
    reason = (
        f"{num_parameters / 1e9:.2f} billion parameters in bfloat16 and what is measured on them need about "
        f"{wanted / _GIB:.1f} GiB; {free / _GIB:.1f} GiB of this {device.type}'s memory may be taken"
    )
    return Room(False, reason, num_parameters)


def count_parameters(shape: RealShape) -> int:
    """How many numbers a model of the shape has; none of them is made."""
    return make_real(shape, torch.device("meta")).spec.num_parameters


def make_real(shape: RealShape, device: torch.device) -> VideoLLM:
    """A model of the shape with random weights and the built-in model's words: nothing is downloaded.

    Never in float32: a model of 8 billion parameters is drawn in 16 GB. No token ends its answers.
    """
    import transformers

    config_name, model_name = _CLASSES[shape.family]
    words = _words(_MARKS[shape.family])
    config = getattr(transformers, config_name)(
        vision_config=dict(shape.vision), text_config=dict(shape.text), **dict(shape.top), **_ids(shape.family, words)
    )
    with drawing_on(device):
        model = getattr(transformers, model_name)(config)
    for owner in (model.generation_config, model.config, model.config.get_text_config()):
        owner.eos_token_id = []
    template = _TEMPLATE.replace("VIDEO", _VIDEO[shape.family])
    family: Any = FAMILIES[shape.family]
    made: VideoLLM = family(model, words, template, name=shape.name, settings={"video": dict(shape.processor)})
    return made


def let_go(device: torch.device) -> None:
    """Gives back to the device, or to the system, what nothing holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # the GNU C library keeps what was freed for itself
            trim(0)


class PeakMemory:
    """The most that was taken since `restart`: of a GPU by torch, weights included; on a CPU, resident bytes of all of
    this process. Not thread-safe: one at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_known = True
        self.restart()

    def restart(self) -> None:
        """Lets go of what can be, and counts anew from what is left."""
        let_go(self._device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # of Linux: forget the high-water mark
        except OSError:
            self._is_known = False

    @property
    def num_bytes(self) -> int | None:
        """None where the system does not tell."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return _proc_bytes("/proc/self/status", "VmHWM:") if self._is_known else None


# Of transformers: each family's config and model.
_CLASSES: Mapping[str, tuple[str, str]] = {
    "llava_onevision": ("LlavaOnevisionConfig", "LlavaOnevisionForConditionalGeneration"),
    "qwen2_vl": ("Qwen2VLConfig", "Qwen2VLForConditionalGeneration"),
    "qwen2_5_vl": ("Qwen2_5_VLConfig", "Qwen2_5_VLForConditionalGeneration"),
    "qwen3_vl": ("Qwen3VLConfig", "Qwen3VLForConditionalGeneration"),
    "smolvlm": ("SmolVLMConfig", "SmolVLMForConditionalGeneration"),
}


def _words(marks: tuple[str, ...]) -> Any:
    from transformers import AutoTokenizer

    words: Any = AutoTokenizer.from_pretrained(BUILT_IN["millpond/mini"])
    words.add_tokens(list(marks), special_tokens=True)
    return words


def _ids(family: str, words: Any) -> dict[str, int]:
    """The ids of the marks, by the names that the family's config has for them."""
    number = words.convert_tokens_to_ids
    if family == "llava_onevision":
        return {"image_token_index": number("<image>"), "video_token_index": number("<video>")}
    if family == "smolvlm":
        return {"image_token_id": number("<image>")}
    names = ("vision_start", "vision_end", "image", "video")
    return {f"{name}_token_id": number(mark) for name, mark in zip(names, _QWEN_MARKS, strict=True)}


@contextmanager
def drawing_on(device: torch.device, seed: int = 0) -> Iterator[None]:
    """Weights are made there, in bfloat16; the generator of random numbers is then where it was."""
    before = torch.get_default_dtype()
    gpus = [device] if device.type == "cuda" else []
    torch.set_default_dtype(DTYPE)
    try:
        with torch.random.fork_rng(devices=gpus), device:
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_default_dtype(before)


def free_bytes(device: torch.device) -> int:
    """What a process may still take there; where the system does not tell, no limit is known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return _proc_bytes("/proc/meminfo", "MemAvailable:") or 2**63


def _proc_bytes(path: str, key: str) -> int | None:
    """A line of /proc that counts in KiB; None where there is none."""
    try:
        lines = Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)
