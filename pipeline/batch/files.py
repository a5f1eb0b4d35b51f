"""Files that are whole or not there: whatever kills a run leaves no half of one."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: str | bytes) -> None:
    """Writes a file as one: what is there under its name is all of it, also after a loss of power.

    Two who write the same file at once do not disturb each other; one of both stays.
    """
    content = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_whole` of JSON for people to read. A name that is no UTF-8 is kept, escaped."""
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *, max_bytes: int) -> dict[str, Any]:
    """The object in a file; ValueError, in one sentence, where there is none, or it is too large to be one of ours."""
    try:
        num_bytes = path.stat().st_size
        if num_bytes > max_bytes:
            raise ValueError(f"{path} has {num_bytes} bytes, and none of its kind has more than {max_bytes}; remove it")
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"there is no {path}; run the batch again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: got {type(error).__name__}: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold an object; got {str(value)[:60]!r}")
    return value


def remove_parts(folder: Path) -> None:
    """Takes away what a killed run left half written."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """The name too is on the disk; where folders cannot be synced, it soon is."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
