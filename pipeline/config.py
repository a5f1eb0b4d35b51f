"""EngineConfig: every setting of an engine, from keywords or a TOML file. An unknown key is told the nearest one."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..encoders import VideoLLM
from ..encoders.compressors import COMPRESSORS, Compressor
from ..encoders.reuse import REUSERS, Reuser
from ..encoders.reuse.delta import DeltaReuse
from ..encoders.selectors import SELECTORS, Selector
from ..memory import CODECS, EVICTORS, PRUNERS, RETRIEVERS, Codec, Evictor, MemoryConfig, Pruner, Retriever
from ..memory.recall_gate import RECALL_GATES, RecallGate
from ..stream import GATES, Gate, Table
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
class HistoryConfig:
    """What a session keeps besides keys and values, and when a question opens it."""

    gate: str | RecallGate = "always"
    """Which questions open what is older than the recent window: a row of RECALL_GATES."""

    diversity: float = 0.3
    """How much units alike are avoided when history is chosen, 0 to 1."""

    num_reads: int = 2
    """How many of the units recalled for one question may be keyframes or lines: these cost a pass of the model, where
    keys and values cost a copy. None are read for questions that neither name a span nor ask for the past."""

    archive_bytes: int | None = None
    """Cap on keyframes, 64 KiB at least; None: 1 GiB where they outlive the process, 64 MiB where they do not; 0: no
    picture is kept."""

    archive_tokens: bool = False
    """Whether keyframes keep their visual tokens, as int8, so that recalling one costs no pass of the vision tower."""

    jpeg_quality: int = 85
    """Of keyframes, 1 to 95."""

    log_bytes: int = 64 * 2**20
    """Cap on the text log, 1 MiB at least."""

    queue_bytes: int = 64 * 2**20
    """Cap on what waits to be written."""

    flush_every_s: float = 2.0
    """Wall seconds after which what was pushed is read, and what was read is at rest; what a kill may cost."""

    def __post_init__(self) -> None:
        if isinstance(self.gate, str):
            RECALL_GATES[self.gate]  # an unknown name raises, and lists the known ones
        for name, least in (("num_reads", 0), ("archive_bytes", 0), ("log_bytes", 2**20), ("queue_bytes", 1)):
            given = getattr(self, name)
            if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < least):
                raise ValueError(f"{name} must be a whole number, at least {least}; got {given!r}")
        if self.archive_bytes is not None and 0 < self.archive_bytes < 2**16:
            raise ValueError(f"archive_bytes must be 0 or at least {2**16}; got {self.archive_bytes}")
        if not 0 <= self.diversity <= 1:
            raise ValueError(f"diversity must be from 0 to 1; got {self.diversity}")
        if not 1 <= self.jpeg_quality <= 95:
            raise ValueError(f"jpeg_quality must be from 1 to 95; got {self.jpeg_quality}")
        if not self.flush_every_s > 0:
            raise ValueError(f"flush_every_s must be more than 0; got {self.flush_every_s}")

    def made_gate(self) -> RecallGate:
        """The gate itself."""
        return RECALL_GATES[self.gate]() if isinstance(self.gate, str) else self.gate


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
    """How many blocks of frames are read in one pass where nobody waits; a question reads what there is at once. After
    so many, what has left the recent window leaves what later blocks are read after."""

    max_new_tokens: int = 128
    """Length of an answer in tokens, at most."""

    gate: str | Gate = "none"
    """Which frames are news: a row of GATES, or one with its own settings."""

    motion_vectors: bool = False
    """Whether a recording's own motion vectors are read, where its codec has them: what they say moved counts as
    changed at half the threshold."""

    reuse: str | Reuser = "auto"
    """What of earlier frames' work in the vision tower is used again: a row of REUSERS, or one with its own settings;
    auto: delta where the tower can be taken apart, else none."""

    reuse_budget_bytes: int = 2 * 2**30
    """Cap on what all streams together keep for it; over it, the stream not seen for longest starts anew."""

    compressor: str | Compressor = "none"
    """Which tokens of a frame are read for good once it is not among the newest `recent_frames` blocks any more: a row
    of COMPRESSORS, or one with its own settings."""

    selector: str | Selector | None = None
    """Which frames of a recording are looked at, where it is known beforehand what for: a row of SELECTORS, or one with
    its own settings; None: all that are due."""

    select_frames: int = 16
    """How many frames a selector chooses, at most."""

    similarity: str | None = None
    """What tells a selector how well a frame fits a question: hub id or folder of a SigLIP checkpoint; None: the
    model's own embeddings."""

    memory: MemoryConfig | None = None
    """None: the model's own default."""

    history: HistoryConfig = field(default_factory=HistoryConfig)
    """What is kept besides keys and values, and when a question opens it."""

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
        if isinstance(self.reuse_budget_bytes, bool) or self.reuse_budget_bytes < 0:
            raise ValueError(f"reuse_budget_bytes must not be negative; got {self.reuse_budget_bytes!r}")
        _at_least_one(self.select_frames, "select_frames")
        for key in ("gate", "reuse", "compressor", "selector"):
            (table, kind), part = _ROWS[key], getattr(self, key)
            if isinstance(part, str):
                if (key, part) != ("reuse", "auto"):
                    table[part]  # an unknown name raises, and lists the known ones
            elif not isinstance(part, kind) and not (key == "selector" and part is None):
                raise ValueError(f"{key} must be a name or a {kind.__name__}; got {part!r}; see: millpond list")

    def made_gate(self) -> Gate:
        """The gate itself."""
        return GATES[self.gate]() if isinstance(self.gate, str) else self.gate

    def made_compressor(self) -> Compressor:
        """The compressor itself."""
        return COMPRESSORS[self.compressor]() if isinstance(self.compressor, str) else self.compressor

    def made_selector(self) -> Selector | None:
        """The selector itself, or None where all frames that are due are looked at."""
        return SELECTORS[self.selector]() if isinstance(self.selector, str) else self.selector

    def made_reuser(self, model: VideoLLM) -> Reuser:
        """The reuser itself, for this model."""
        if not isinstance(self.reuse, str):
            return self.reuse
        auto = "none" if model.tower is None else "delta"
        return REUSERS[auto if self.reuse == "auto" else self.reuse]()

    def timeless(self, model: VideoLLM) -> EngineConfig:
        """The same, but that what a frame becomes is no matter of how fast this machine happens to be: a video is told
        alike by whichever process, and whenever."""
        reuse = self.made_reuser(model)
        return replace(self, reuse=replace(reuse, falls_back=False)) if isinstance(reuse, DeltaReuse) else self

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> EngineConfig:
        """From nested mappings, as a TOML file gives them; ValueError for what does not belong."""
        built: EngineConfig = build_settings(cls, given, "")
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


# What may be given as a name, or as a table of a name and settings of its own: its rows, and what they are.
_ROWS: dict[str, tuple[Table[Any], type[Any]]] = {
    "gate": (GATES, Gate),
    "reuse": (REUSERS, Reuser),
    "compressor": (COMPRESSORS, Compressor),
    "selector": (SELECTORS, Selector),
    "memory.pruner": (PRUNERS, Pruner),
    "memory.codec": (CODECS, Codec),
    "memory.evictor": (EVICTORS, Evictor),
    "memory.retriever": (RETRIEVERS, Retriever),
    "history.gate": (RECALL_GATES, RecallGate),
}


def build_settings(kind: type[Any], given: Any, where: str) -> Any:
    """A settings class from what a file says, its parts that are such classes too."""
    if not isinstance(given, Mapping):
        raise ValueError(f"[{where}] must be a table of settings; got {given!r}")
    names, hints = {f.name: str(f.type) for f in fields(kind)}, get_type_hints(kind)
    place = f" in [{where}]" if where else ""
    built: dict[str, Any] = {}
    for key, value in given.items():
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(names)) or 'none'}"
            raise ValueError(f"there is no setting {key!r}{place}; {hint}")
        kinds, path = _kinds(hints[key]), f"{where}.{key}" if where else key
        if path in _ROWS and isinstance(value, Mapping):
            value = _build_row(_ROWS[path][0], value, path)
        part = next((one for one in kinds if is_dataclass(one)), None)
        if part is not None and str not in kinds and not isinstance(value, kinds):
            value = build_settings(part, value, path)
        _check_type(kinds, names[key], key, value, place)
        built[key] = value
    missing = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING and f.name not in given]
    if missing:
        raise ValueError(f"settings are missing{place}: got {', '.join(given) or 'none'}; add {', '.join(missing)}")
    return kind(**built)


def _build_row(table: Table[Any], given: Mapping[str, Any], where: str) -> Any:
    """A row of a table with settings of its own: `name` says which."""
    rest = dict(given)
    name = rest.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"[{where}] needs a name; got {name!r}; there are: {', '.join(sorted(table))}")
    return build_settings(table[name], rest, where)


def _kinds(hint: Any) -> tuple[type[Any], ...]:
    """The classes that a setting's type allows; where a file has its own for it, this one too."""
    kinds = [get_origin(one) or one for one in (get_args(hint) if isinstance(hint, UnionType) else (hint,))]
    also = {float: int, tuple: list}
    return (*kinds, *(also[kind] for kind in kinds if kind in also))


def _check_type(kinds: tuple[type[Any], ...], wanted: str, key: str, value: Any, place: str) -> None:
    """Settings come from files: a string where a number belongs must not travel further."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{key!r}{place} must be {wanted}; got {value!r}")


def _at_least_one(value: int, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number, at least 1; got {value!r}")
