"""The machine: Python and its packages, processor, memory, disk, clock."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from .finding import Finding

GIB = 2**30

_LEAST_MEMORY_BYTES = 2 * GIB
_LEAST_FILES = 1024
# No clock that is right shows a time before this: Millpond was not written yet.
_NOT_BEFORE_S = 1_735_689_600.0  # 2025
_UNSYNCHRONIZED = 5  # adjtimex(2): TIME_ERROR


class Needed(NamedTuple):
    """What a configuration may come to hold, all streams together."""

    memory_bytes: int
    disk_bytes: int


def check_python() -> Finding:
    """Which it is: where it is too old, Millpond is not installed in the first place."""
    where = f"{platform.system()} {platform.machine()}"
    return Finding("python", "ok", f"{platform.python_implementation()} {platform.python_version()} on {where}")


def check_packages(extra: str = "serve") -> Finding:
    """Whether what Millpond needs is installed, and new enough; of the extra too."""
    from packaging.requirements import Requirement

    name = "packages"
    try:
        wanted = [Requirement(line) for line in metadata.requires("millpond") or ()]
        version = metadata.version("millpond")
    except metadata.PackageNotFoundError:
        return Finding(name, "fail", "Millpond itself is not installed", "pip install -e . where its sources are")
    wrong: list[str] = []
    is_core_wrong = False
    for requirement in wanted:
        is_core = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not is_core and not (requirement.marker and requirement.marker.evaluate({"extra": extra})):
            continue
        try:
            there = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            there = "none"
        if there == "none" or not requirement.specifier.contains(there, prereleases=True):
            wrong.append(f"{requirement.name} {there}, wanted {requirement.specifier or 'any'}")
            is_core_wrong |= is_core
    if wrong:
        what = "millpond" if is_core_wrong else f"'millpond[{extra}]'"
        verdict = "fail" if is_core_wrong else "warn"
        return Finding(name, verdict, "; ".join(wrong), f"pip install --upgrade {what}")  # type: ignore[arg-type]
    return Finding(name, "ok", f"millpond {version}, and all that it and its server need")


def check_cpu() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota_of_cores()
    able = min(float(cores), quota or float(cores))
    flags = _cpu_flags()
    features = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    halves = "bfloat16 in hardware" if {"avx512_bf16", "amx_bf16", "bf16"} & flags else "no bfloat16 in hardware"
    found = f"{able:g} cores, {' '.join(features) or platform.machine()}, {halves}"
    if able < 2:
        return Finding("cpu", "warn", found, "give it two cores or more: one decodes while the other runs the model")
    if platform.machine() == "x86_64" and flags and "avx2" not in flags:
        return Finding(
            "cpu", "warn", found, "use a processor with AVX2, or a GPU: without it the model is several times slower"
        )
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > 2 * able:
        return Finding("cpu", "warn", f"{found}; {busy:.1f} programs want to run", "see what else runs here: top")
    return Finding("cpu", "ok", found)


def check_memory(needed: Needed) -> Finding:
    total_bytes, free_bytes = memory_bytes()
    if not total_bytes:
        return Finding("memory", "ok", f"not known on {platform.system()}")
    found = f"{free_bytes / GIB:.1f} of {total_bytes / GIB:.1f} GiB free"
    if free_bytes < _LEAST_MEMORY_BYTES / 4:
        return Finding("memory", "fail", found, "end what else runs here, or take a machine with more memory")
    if free_bytes < _LEAST_MEMORY_BYTES:
        return Finding("memory", "warn", found, "have 2 GiB free for the built-in model and a few streams")
    if needed.memory_bytes > free_bytes:
        found += f"; the streams may come to hold {needed.memory_bytes / GIB:.1f} GiB"
        return Finding("memory", "warn", found, "lower [memory] budget_bytes, or declare fewer streams")
    return Finding("memory", "ok", found)


def check_disk(folders: Sequence[str], needed: Needed) -> Iterator[Finding]:
    """Each folder can be written to, and has room; where there is none, the one for what is passing."""
    for folder in dict.fromkeys(folders) or (tempfile.gettempdir(),):
        yield _check_folder(Path(folder).expanduser(), needed)


def check_files() -> Finding:
    """How many files and connections a process may have open."""
    try:
        import resource
    except ImportError:
        return Finding("open files", "ok", f"no limit known on {platform.system()}")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _LEAST_FILES:
        found = f"at most {soft} files and connections at once"
        return Finding("open files", "warn", found, "raise it: ulimit -n 4096, or LimitNOFILE= of the service")
    return Finding("open files", "ok", f"{'any number of' if soft == resource.RLIM_INFINITY else soft} at once")


def check_clock() -> Finding:
    now_s = time.time()
    shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))
    if now_s < _NOT_BEFORE_S:
        return Finding(
            "clock", "fail", f"it shows {shown}", "set the clock, and have it kept: timedatectl set-ntp true"
        )
    if _is_unsynchronized():
        return Finding(
            "clock",
            "warn",
            f"{shown}, and nothing is known to keep it right",
            "have it kept, as times of events come from it: timedatectl set-ntp true, or chrony",
        )
    return Finding("clock", "ok", shown)


def memory_bytes() -> tuple[int, int]:
    """All of it, and what is free for us: of the machine, or of the container where that has less. 0: not known."""
    facts: dict[str, int] = {}
    for line in _read("/proc/meminfo").splitlines():
        key, _, rest = line.partition(":")
        if rest.split()[:1] and rest.split()[0].isdecimal():
            facts[key] = int(rest.split()[0]) * 1024
    total_bytes, free_bytes = facts.get("MemTotal", 0), facts.get("MemAvailable", 0)
    for most, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        cap, taken = _read(most).strip(), _read(used).strip()
        if cap.isdecimal() and int(cap) < total_bytes:
            total_bytes = int(cap)
            free_bytes = min(free_bytes, total_bytes - int(taken or 0))
    return total_bytes, max(0, free_bytes)


def _check_folder(folder: Path, needed: Needed) -> Finding:
    name = f"disk {folder}"
    there = next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=there):
            free_bytes = shutil.disk_usage(there).free
    except OSError as error:
        found = f"cannot be written to: {(error.strerror or type(error).__name__).lower()}"
        return Finding(name, "fail", found, "give this user the right to write there: chown, or choose another folder")
    found = f"{free_bytes / GIB:.1f} GiB free"
    if free_bytes < GIB / 4:
        return Finding(name, "fail", found, "make room there, or choose another folder")
    if free_bytes < needed.disk_bytes:
        found += f"; what is kept may come to {needed.disk_bytes / GIB:.1f} GiB"
        return Finding(name, "warn", found, "make room there, or lower archive_bytes and log_bytes")
    return Finding(name, "ok", found)


def _quota_of_cores() -> float | None:
    """What a container is held to, in cores."""
    most, _, period = _read("/sys/fs/cgroup/cpu.max").strip().partition(" ")
    if not most.isdecimal():
        most = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip()
        period = _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us").strip()
    return int(most) / int(period) if most.isdecimal() and period.isdecimal() and int(period) else None


def _cpu_flags() -> set[str]:
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, rest = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(rest.split())
    return set()


def _is_unsynchronized() -> bool:
    """Whether the kernel says that nobody keeps its clock; False where it cannot say."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError, TypeError):
        return False
    return bool(adjtimex(ctypes.create_string_buffer(1024)) == _UNSYNCHRONIZED)  # all zero: nothing is set


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
