"""Rules from the tables [[alerts]] of a config file. What does not belong is refused, with what does."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from .rule import AlertRule
from .secret import Secret

_SECRETS = ("secret", "secret_file", "secret_env")
_FIELDS = {
    ("stream" if one.name == "stream_id" else one.name): one for one in fields(AlertRule) if one.name != "secret"
}
_KNOWN = (*_FIELDS, *_SECRETS)
_MAX_SECRET_BYTES = 4096
_MAX_RULES = 1000


def read_rules(given: object, *, where: str = "[[alerts]]", folder: Path = Path()) -> tuple[AlertRule, ...]:
    """Rules from a list of tables, each with: id, stream, says, and what else `AlertRule` has; the secret as `secret`,
    or better in a file of its own (`secret_file`, relative to `folder`) or in the environment (`secret_env`, a name).

    where: for messages. Raises ValueError, which never holds a secret or a webhook's path.
    """
    if not isinstance(given, Sequence) or isinstance(given, str) or not all(isinstance(one, Mapping) for one in given):
        raise ValueError(f"{where}: alerts are written as tables, [[alerts]]; got {type(given).__name__}")
    if len(given) > _MAX_RULES:
        raise ValueError(f"{where}: there may be {_MAX_RULES} alerts; got {len(given)}")
    rules: list[AlertRule] = []
    for number, table in enumerate(given, 1):
        rule = _read_rule(table, f"{where}, number {number}", folder)
        if any(rule.id == other.id for other in rules):
            raise ValueError(f"{where}: two alerts have the id {rule.id!r}; got it again; give each its own")
        rules.append(rule)
    return tuple(rules)


def _read_rule(table: Mapping[str, Any], where: str, folder: Path) -> AlertRule:
    for key in table:
        if key not in _KNOWN:
            near = difflib.get_close_matches(str(key), _KNOWN, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(_KNOWN)}"
            raise ValueError(f"{where}: there is no setting {str(key)[:80]!r}; {hint}")
    missing = [name for name, one in _FIELDS.items() if one.default is MISSING and name not in table]
    if missing:
        raise ValueError(f"{where}: settings are missing; got {', '.join(table) or 'none'}; add {', '.join(missing)}")
    settings = {_FIELDS[name].name: value for name, value in table.items() if name in _FIELDS}
    try:
        return AlertRule(**settings, secret=_read_secret(table, folder))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _read_secret(table: Mapping[str, Any], folder: Path) -> Secret | None:
    named = [name for name in _SECRETS if name in table]
    if not named:
        return None
    if len(named) > 1:
        raise ValueError(f"a secret comes from one place; got {' and '.join(named)}")
    (name,) = named
    given = table[name]
    if not isinstance(given, str) or not given:
        raise ValueError(f"{name} is written as words; got {type(given).__name__}, or none")
    if name == "secret":
        return Secret(given)
    if name == "secret_env":
        if given not in os.environ:
            raise ValueError(f"secret_env names a variable that is set; got {given!r}, which is not")
        return Secret(os.environ[given])
    try:
        with (folder / given).open("rb") as file:
            return Secret(file.read(_MAX_SECRET_BYTES).decode())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"secret_file {given!r} cannot be read: {why}") from None
