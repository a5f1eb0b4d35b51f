"""EngineConfig: every setting of an engine, from keywords or a TOML file. An unknown key is told the nearest one."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..memory import MemoryConfig
from ..stream import GATES
from .prompts import Prompts


@dataclass(frozen=True, kw_only=True)
class NarrationConfig:
    """When a session speaks of its own accord, and how much."""

    min_gap_s: float = 2.0
    """Stream seconds between narrations at least."""

    max_gap_s: float = 10.0
    """Stream seconds after which one is due, even if little has changed."""

    change_levels: float = 8.0
    """Levels of brightness, 0 to 255, that a part of the picture must have changed by for one to be due earlier."""

    max_new_tokens: int = 64
    """Length of a narration in tokens, at most."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_gap_s <= self.max_gap_s:
            raise ValueError(
                f"narration needs 0 <= min_gap_s <= max_gap_s; got min_gap_s={self.min_gap_s}, "
                f"max_gap_s={self.max_gap_s}"
            )
        if not 0 <= self.change_levels <= 255:
            raise ValueError(f"change_levels is in levels of 0 to 255; got {self.change_levels}")
        _at_least_one(self.max_new_tokens, "max_new_tokens")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Everything that an engine can be told. Written once; what follows from it is a property of its owner."""

    model: str = "millpond/mini"
    """Built-in name, hub id or folder of a checkpoint."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    dtype: str = "auto"
    """auto, float32, bfloat16 or float16."""

    max_side_px: int | None = None
    """Upper bound on a frame's longer side where the model takes frames of any size; None keeps the model's rule."""

    fps: float = 1.0
    """How many frames a second of a source are looked at."""

    chunk_frames: int = 4
    """How many frames are read in one pass where nobody waits; a question reads what there is at once."""

    max_new_tokens: int = 128
    """Length of an answer in tokens, at most."""

    gate: str = "none"
    """Which frames are news: a row of GATES."""

    memory: MemoryConfig | None = None
    """None: the model's own default."""

    narration: NarrationConfig = field(default_factory=NarrationConfig)
    """When to narrate."""

    prompts: Prompts | None = None
    """None: those that suit the model."""

    def __post_init__(self) -> None:
        if not 0 < self.fps < math.inf:
            raise ValueError(f"fps must be finite and more than 0; got {self.fps}")
        _at_least_one(self.chunk_frames, "chunk_frames")
        _at_least_one(self.max_new_tokens, "max_new_tokens")
        if self.max_side_px is not None:
            _at_least_one(self.max_side_px, "max_side_px")
        if self.gate not in GATES:
            GATES[self.gate]  # raises, and lists the known ones

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> EngineConfig:
        """From nested mappings, as a TOML file gives them; ValueError for what does not belong."""
        known = dict(given)
        for key, part in (("memory", MemoryConfig), ("narration", NarrationConfig), ("prompts", Prompts)):
            if key in known and known[key] is not None:
                known[key] = _build(part, known[key], key)
        built: EngineConfig = _build(cls, known, "")
        return built

    @classmethod
    def from_toml(cls, path: str | Path) -> EngineConfig:
        """From a TOML file; ValueError in one sentence for a file that is missing, not TOML, or has unknown keys."""
        try:
            text = Path(path).read_bytes().decode("utf-8")
            return cls.from_dict(tomllib.loads(text))
        except OSError as error:
            raise ValueError(f"the config {str(path)!r} cannot be read: {error.strerror}; give a TOML file") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"the config {str(path)!r} is not TOML: {error}") from error


def _build(kind: type[Any], given: Any, where: str) -> Any:
    if not isinstance(given, Mapping):
        raise ValueError(f"[{where}] must be a table of settings; got {given!r}")
    names = {f.name: str(f.type) for f in fields(kind)}
    place = f" in [{where}]" if where else ""
    for key, value in given.items():
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(names))}"
            raise ValueError(f"there is no setting {key!r}{place}; {hint}")
        _check_type(names[key], key, value, place)
    missing = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING and f.name not in given]
    if missing:
        raise ValueError(f"settings are missing{place}: got {', '.join(given) or 'none'}; add {', '.join(missing)}")
    return kind(**given)


def _check_type(wanted: str, key: str, value: Any, place: str) -> None:
    """Settings come from files: a string where a number belongs must not travel further."""
    allowed: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
    first = wanted.split(" ")[0]
    if value is None or first not in allowed:
        return
    if not isinstance(value, allowed[first]) or isinstance(value, bool):
        raise ValueError(f"{key!r}{place} must be {wanted}; got {value!r}")


def _at_least_one(value: int, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number, at least 1; got {value!r}")
