"""What the docstring of a method in a table must say."""

from __future__ import annotations

import dataclasses
import inspect
import re


def missing_from_docs(method: type) -> list[str]:
    """What is not said: where the method comes from, how it differs, and each of its settings."""
    doc = inspect.getdoc(method) or ""
    wanted = {
        "`Paper: title (arXiv id)` or `Baseline`": r"^(Paper: .*\(arXiv \d{4}\.\d{5}\)|Baseline)",
        "`Differs from the paper:`": r"^Differs from the paper: ",
    }
    missing = [what for what, pattern in wanted.items() if not re.search(pattern, doc, re.MULTILINE)]
    if dataclasses.is_dataclass(method):
        names = [field.name for field in dataclasses.fields(method)]
        missing += [f"`{name}:`" for name in names if not re.search(rf"^\s*{name}: ", doc, re.MULTILINE)]
    return missing
