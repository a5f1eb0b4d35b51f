"""PixelConfig: the preprocessing numbers of a checkpoint, checked before anything is computed from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from .pixels import Filter

_FILTERS: Mapping[int, Filter] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_MAX_SIZE = 2**31
OPENAI_CLIP = {
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
HALVES = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}


@dataclass(frozen=True, slots=True)
class PixelConfig:
    """Made by a family from its checkpoint's files, read by its `pixels`.

    filter: how pictures are resized.
    scale, mean, std: a level of 0..255 becomes (level * scale - mean) / std, by colour.
    edges_px: what the processor calls `size`: "height" and "width", "shortest_edge" and "longest_edge".
    """

    filter: Filter
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    edges_px: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.filter not in get_args(Filter):
            raise ValueError(f"filter must be one of {', '.join(get_args(Filter))}; got {self.filter!r}")
        if not (math.isfinite(self.scale) and 0 < self.scale <= 1):
            raise ValueError(f"scale must be above 0 and at most 1; got {self.scale}")
        for name, values, low in (("mean", self.mean, -1e3), ("std", self.std, 1e-6)):
            if len(values) != 3 or not all(math.isfinite(v) and low <= v <= 1e3 for v in values):
                raise ValueError(f"{name} must be three numbers from {low} to 1000; got {values}")

    @classmethod
    def read(cls, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> PixelConfig:
        """Checks the numbers that a processor's file gives; a key that is absent or null takes the default.

        settings: the content of video_preprocessor_config.json or its like: hostile until checked.
        """

        def given(key: str, default: Any) -> Any:
            value = settings.get(key)
            return defaults.get(key, default) if value is None else value

        if not given("do_resize", True) or given("do_center_crop", False):
            raise ValueError(
                "the checkpoint's processor says do_resize=false or do_center_crop=true; only processors "
                "that resize whole frames are supported"
            )
        resample = given("resample", 3)
        if isinstance(resample, bool) or not isinstance(resample, int) or resample not in _FILTERS:
            raise ValueError(
                f"the checkpoint's processor has resample={resample!r}; supported are "
                + ", ".join(f"{number} ({name})" for number, name in _FILTERS.items())
            )
        plain = not given("do_normalize", True)
        return cls(
            filter=_FILTERS[resample],
            scale=_number("rescale_factor", given("rescale_factor", 1 / 255)) if given("do_rescale", True) else 1.0,
            mean=(0.0,) * 3 if plain else _three("image_mean", given("image_mean", 0.5)),
            std=(1.0,) * 3 if plain else _three("image_std", given("image_std", 0.5)),
            edges_px=read_size("size", given("size", {})),
        )

    def square_side(self, where: str) -> int:
        """The one side of a `size` that asks for a square."""
        height = self.edges_px.get("height", self.edges_px.get("shortest_edge"))
        width = self.edges_px.get("width", height)
        if height is None or height != width:
            raise ValueError(f"{where} takes square frames; its processor's size is {dict(self.edges_px)}")
        return height


def processor_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The numbers that apply to video frames: the video processor's, or else the image processor's."""
    for kind in ("video", "image"):
        chosen = settings.get(kind) or {}
        if not isinstance(chosen, Mapping):
            raise ValueError(f"the checkpoint's {kind} processor file must hold an object; got {str(chosen)[:80]!r}")
        if chosen:
            return chosen
    return {}


def whole(name: str, value: Any) -> int:
    """A whole number of a processor's file, from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_SIZE:
        raise ValueError(
            f"the checkpoint's processor has {name}={str(value)[:40]!r}; wanted a whole number from 1 to {_MAX_SIZE}"
        )
    return value


def read_size(name: str, value: Any) -> dict[str, int]:
    """A `size` of a processor's file: a mapping of names to whole numbers, or one number for a square."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = {"height": value, "width": value}
    if not isinstance(value, Mapping):
        raise ValueError(
            f"the checkpoint's processor has {name}={str(value)[:80]!r}; wanted an object of whole numbers"
        )
    return {str(key): whole(f"{name}[{str(key)[:40]!r}]", side) for key, side in value.items() if side is not None}


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"the checkpoint's processor has {name}={str(value)[:80]!r}; wanted a number")
    return float(value)


def _three(name: str, value: Any) -> tuple[float, ...]:
    if isinstance(value, list | tuple):
        return tuple(_number(name, v) for v in value[:4])
    return (_number(name, value),) * 3
