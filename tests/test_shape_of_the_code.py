"""Rules of the house that a program can check. Each is shown to catch what it is for, then held to all."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# An import may point at packages to the right of its own, never to the left.
PACKAGES = ("pipeline", "encoders", "memory", "stream")
MAX_LINES = 400

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="the sources are not beside the tests")


class Source:
    """One file of Python: its place in the tree, its text, its syntax."""

    def __init__(self, path: str, text: str) -> None:
        self.path = Path(path)
        self.text = text
        self.tree = ast.parse(text)

    def nodes(self, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))


def sources(*folders: str) -> list[Source]:
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [Source(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in paths]


Rule = Callable[[Source], Iterator[tuple[int, str]]]


def is_short(source: Source) -> Iterator[tuple[int, str]]:
    num_lines = len(source.text.splitlines())
    if num_lines > MAX_LINES:
        yield num_lines, f"{num_lines} lines, at most {MAX_LINES}: split the idea"


def has_a_name_that_says_something(source: Source) -> Iterator[tuple[int, str]]:
    if source.path.stem in {"util", "utils", "common", "helper", "helpers", "misc"}:
        yield 1, f"{source.path.name} says nothing about what it holds"


def named_things(source: Source) -> Iterator[tuple[int, str]]:
    """Parameters and class fields: the names that callers see."""
    for node in source.nodes(ast.arg, ast.ClassDef):
        if isinstance(node, ast.arg):
            yield node.lineno, node.arg
        else:
            for field in node.body:  # type: ignore[attr-defined]
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield field.lineno, field.target.id


def has_units_in_names(source: Source) -> Iterator[tuple[int, str]]:
    unit = re.compile(r"_(ms|us|ns|msec|min|mins|minutes|hours|kb|mb|gb|kib|mib|gib)$")
    bare = {"timeout", "duration", "size", "interval", "delay", "budget"}
    for line, name in named_things(source):
        if unit.search(name) or name in bare:
            yield line, f"{name!r}: say the unit, in seconds (_s), bytes (_bytes) or a count (num_)"


def has_no_ratio_as_a_budget(source: Source) -> Iterator[tuple[int, str]]:
    if source.path.parts[0] == "memory":
        for line, name in named_things(source):
            if name.endswith("_ratio"):
                yield line, f"{name!r}: memory's limits are counts and bytes"


def has_a_legend_for_shapes(source: Source) -> Iterator[tuple[int, str]]:
    shaped = re.compile(r"^[a-z]\w*_(?=[0-9]*[A-Z])[A-Z0-9]{2,}$")
    if re.search(r"^\s*# Shapes:", source.text, re.MULTILINE):
        return
    names = [(n.lineno, n.arg) for n in source.nodes(ast.arg)]  # type: ignore[attr-defined]
    names += [(n.lineno, n.id) for n in source.nodes(ast.Name) if isinstance(n.ctx, ast.Store)]  # type: ignore[attr-defined]
    for line, name in sorted(names):
        if shaped.match(name):
            yield line, f"{name!r}: the file needs a `# Shapes:` line that says what the letters are"
            return


def has_types_that_say_who_makes_them(source: Source) -> Iterator[tuple[int, str]]:
    flowing = {
        "Span",
        "Frame",
        "Verdict",
        "FrameTokens",
        "KVSpec",
        "KVBlock",
        "PackedBlock",
        "Recall",
        "Answer",
    }
    for node in source.nodes(ast.ClassDef):
        assert isinstance(node, ast.ClassDef)
        if node.name in flowing and "Made by" not in (ast.get_docstring(node) or ""):
            yield node.lineno, f"the docstring of {node.name} must say who makes it: 'Made by ...'"


def has_errors_that_say_what_was_given(source: Source) -> Iterator[tuple[int, str]]:
    for node in source.nodes(ast.Raise):
        assert isinstance(node, ast.Raise)
        call = node.exc
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args):
            continue
        if call.func.id in {"ValueError", "TypeError"}:
            message = call.args[0]
            # Where there is no value to show, words say what came ("got none"), or what to do.
            if isinstance(message, ast.Constant) and not re.search(r"got |; ", str(message.value)):
                yield node.lineno, f"{message.value!r} does not say what was given, or what to do"


def has_errors_of_a_kind(source: Source) -> Iterator[tuple[int, str]]:
    for node in source.nodes(ast.Raise):
        assert isinstance(node, ast.Raise)
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if isinstance(raised, ast.Name) and raised.id in {"Exception", "BaseException"}:
            yield node.lineno, f"raise {raised.id}: a caller cannot tell it from any other"


def has_no_assert_about_the_caller(source: Source) -> Iterator[tuple[int, str]]:
    for function in source.nodes(ast.FunctionDef, ast.AsyncFunctionDef):
        assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        if function.name.startswith("_") and function.name not in {"__init__", "__post_init__"}:
            continue
        given = {arg.arg for arg in ast.walk(function.args) if isinstance(arg, ast.arg)}
        given -= {"self", "cls"}
        for node in ast.walk(function):
            if isinstance(node, ast.Assert):
                about = {name.id for name in ast.walk(node.test) if isinstance(name, ast.Name)} & given
                if about:
                    yield (
                        node.lineno,
                        f"assert about {', '.join(sorted(about))}: raise ValueError for callers",
                    )


def has_imports_that_point_one_way(source: Source) -> Iterator[tuple[int, str]]:
    package = source.path.parts[0]
    allowed = PACKAGES[PACKAGES.index(package) :]
    for node in source.nodes(ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import) or not node.level:  # type: ignore[attr-defined]
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]  # type: ignore[attr-defined]
            if any(name.split(".")[0] == "millpond" for name in names):
                yield node.lineno, "absolute import of millpond: import relatively inside the packages"  # type: ignore[attr-defined]
        elif isinstance(node, ast.ImportFrom) and node.level == len(source.path.parts):
            targets = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            for target in targets:
                if target not in allowed:
                    yield node.lineno, f"{package} imports {target}; it may import {', '.join(allowed)}"


def runs_nothing_that_a_file_says(source: Source) -> Iterator[tuple[int, str]]:
    banned_modules = {"pickle", "dill", "cloudpickle", "marshal", "shelve"}
    banned_calls = {"torch.load", "yaml.load", "eval", "exec"}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in banned_modules:
                    yield node.lineno, f"import {alias.name}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in banned_modules:
            yield node.lineno, f"from {node.module} import"
        elif isinstance(node, ast.Call):
            if ast.unparse(node.func) in banned_calls:
                yield node.lineno, f"{ast.unparse(node.func)}()"
            for keyword in node.keywords:
                if keyword.arg == "trust_remote_code" and ast.unparse(keyword.value) != "False":
                    yield node.lineno, f"trust_remote_code={ast.unparse(keyword.value)}"


def has_no_bare_except(source: Source) -> Iterator[tuple[int, str]]:
    for node in source.nodes(ast.ExceptHandler):
        assert isinstance(node, ast.ExceptHandler)
        silent = all(isinstance(step, ast.Pass) for step in node.body)
        broad = node.type is not None and ast.unparse(node.type) in {"Exception", "BaseException"}
        if node.type is None or (broad and silent):
            yield node.lineno, "an except that hides everything: name what is expected"


def prints_nothing(source: Source) -> Iterator[tuple[int, str]]:
    if source.path.parts[0] == "pipeline" and source.path.stem in {"cli", "output"}:
        return
    programs = [n for n in source.tree.body if isinstance(n, ast.If) and "__main__" in ast.unparse(n.test)]
    allowed = {id(node) for program in programs for node in ast.walk(program)}
    for node in source.nodes(ast.Call):
        assert isinstance(node, ast.Call)
        if ast.unparse(node.func) == "print" and id(node) not in allowed:
            yield node.lineno, "print(): results go through the command line, the rest through logging"


EVERYWHERE = ("pipeline", "encoders", "memory", "stream", "demos", "tests")
# rule -> the folders that it holds for, and a file that it must catch
RULES: dict[Rule, tuple[tuple[str, ...], Source]] = {
    is_short: (EVERYWHERE, Source("stream/long.py", "x = 1\n" * 401)),
    has_a_name_that_says_something: (EVERYWHERE, Source("stream/utils.py", "")),
    has_units_in_names: (PACKAGES, Source("stream/x.py", "class A:\n    wait_ms: int\n")),
    has_no_ratio_as_a_budget: (("memory",), Source("memory/x.py", "def f(keep_ratio): ...\n")),
    has_a_legend_for_shapes: (PACKAGES, Source("memory/x.py", "def f(k_LKTD): ...\n")),
    has_types_that_say_who_makes_them: (PACKAGES, Source("memory/x.py", "class KVBlock:\n    'A block.'\n")),
    has_errors_that_say_what_was_given: (PACKAGES, Source("memory/x.py", "raise ValueError('wrong')\n")),
    has_errors_of_a_kind: (EVERYWHERE, Source("memory/x.py", "raise Exception('no')\n")),
    has_no_assert_about_the_caller: (PACKAGES, Source("memory/x.py", "def f(a):\n    assert a > 0\n")),
    has_imports_that_point_one_way: (PACKAGES, Source("memory/x.py", "from ..encoders import VideoLLM\n")),
    runs_nothing_that_a_file_says: (EVERYWHERE, Source("memory/x.py", "import pickle\n")),
    has_no_bare_except: (EVERYWHERE, Source("memory/x.py", "try:\n    f()\nexcept:\n    g()\n")),
    prints_nothing: (PACKAGES, Source("memory/x.py", "print(1)\n")),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_file(rule: Rule) -> None:
    folders, bad = RULES[rule]
    assert list(rule(bad)), "the rule does not catch what it is for"
    found = [f"{s.path}:{line} {what}" for s in sources(*folders) for line, what in rule(s)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("memory/codecs/x.py", "from ...pipeline import Engine\n"),
        ("encoders/x.py", "from .. import pipeline\n"),
        ("pipeline/x.py", "import millpond.stream\n"),
        ("pipeline/x.py", "from millpond.stream import Frame\n"),
    ],
)
def test_imports_that_point_the_wrong_way_are_seen(path: str, text: str) -> None:
    assert list(has_imports_that_point_one_way(Source(path, text)))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("pipeline/x.py", "from ..stream import Frame\nfrom .engine import Engine\nimport torch\n"),
        ("memory/codecs/x.py", "from ...stream.table import Table\nfrom ..block import KVBlock\n"),
    ],
)
def test_imports_that_point_the_right_way_are_let_be(path: str, text: str) -> None:
    assert not list(has_imports_that_point_one_way(Source(path, text)))


IMPORTS_AND_LOOKS = """
import logging, os, sys, warnings
root = logging.getLogger()
before = (root.level, list(root.handlers), dict(os.environ), list(sys.path), list(warnings.filters))
import torch
before = (*before[:4], list(warnings.filters))  # torch's own filters are not ours
import millpond.stream, millpond.memory, millpond.encoders, millpond.pipeline
after = (root.level, list(root.handlers), dict(os.environ), list(sys.path), list(warnings.filters))
names = ("log level", "log handlers", "environment", "sys.path", "warnings")
for name, was, now in zip(names, before, after, strict=True):
    if was != now:
        print(f"importing changes the {name}: {was} -> {now}")
heavy = {"ray", "redis", "transformers", "av", "decord", "fastapi"} & set(sys.modules)
if heavy:
    print("importing imports", sorted(heavy))
if torch.cuda.is_initialized():
    print("importing starts CUDA")
"""


def test_importing_does_nothing_and_brings_nothing_heavy() -> None:
    run = subprocess.run(
        [sys.executable, "-c", IMPORTS_AND_LOOKS], capture_output=True, text=True, timeout=300, check=False
    )
    assert (run.returncode, run.stdout) == (0, ""), run.stdout + run.stderr
